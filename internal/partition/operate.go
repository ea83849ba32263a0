package partition

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"

	"github.com/perdure/perdure/internal/engine"
	"github.com/perdure/perdure/internal/invocation"
	"github.com/perdure/perdure/internal/journal/renew"
	"github.com/perdure/perdure/internal/routing"
)

// operate asks the partition of an invocation for what an operator wants done with it.
func (r *Router) operate(ctx context.Context, id invocation.ID, event func(engine.Token) engine.Event) error {
	answer, err := r.of(id).ask(ctx, event, invocation.ID{})
	if err != nil {
		return err
	}
	return answer.refusal()
}

// Pause implements routing.Router.
func (r *Router) Pause(ctx context.Context, id invocation.ID) error {
	return r.operate(ctx, id, func(token engine.Token) engine.Event { return &engine.Pause{ID: id, Token: token} })
}

// Resume implements routing.Router.
func (r *Router) Resume(ctx context.Context, id invocation.ID, deployment string) error {
	return r.operate(ctx, id, func(token engine.Token) engine.Event {
		return &engine.Resume{ID: id, Deployment: deployment, Token: token}
	})
}

// Purge implements routing.Router.
func (r *Router) Purge(ctx context.Context, id invocation.ID) error {
	return r.operate(ctx, id, func(token engine.Token) engine.Event { return &engine.Purge{ID: id, Token: token} })
}

// RestartAsNew implements routing.Router.
func (r *Router) RestartAsNew(ctx context.Context, id invocation.ID, from uint32, requestID string) (invocation.ID, error) {
	restart := engine.RestartAsNew{ID: id, New: renewedID(id, requestID), From: from}
	// The journal may be long: it is not the partition's goroutine that looks at it. If there is no
	// leader here, or another one by then, the restart is refused below.
	if l := r.of(id).leading.Load(); l != nil && from > 0 {
		most := renew.Bounds{Bytes: r.config.MaxEntryBytes, Writes: r.config.MaxEntryWrites}
		survey, err := renew.Of(l.view, id, from, most, ctx.Err)
		if err != nil {
			return invocation.ID{}, err
		}
		restart.Survey, restart.Epoch = survey, l.epoch
	}
	err := r.operate(ctx, id, func(token engine.Token) engine.Event {
		asked := restart
		asked.Token = token
		return &asked
	})
	if err != nil {
		return invocation.ID{}, err
	}
	return restart.New, nil
}

// renewedID is an id in the same object's partition: the same for the same request, or one that
// nobody has.
func renewedID(id invocation.ID, requestID string) invocation.ID {
	var unique [16]byte
	if requestID == "" {
		_, _ = rand.Read(unique[:]) // It never fails.
	} else {
		sum := sha256.Sum256(append(id[:], "restart "+requestID...))
		copy(unique[:], sum[:])
	}
	return invocation.NewID(binary.BigEndian.Uint64(id[:8]), unique)
}

var _ routing.Router = (*Router)(nil)
