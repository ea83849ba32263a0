package engine

import (
	"fmt"

	"google.golang.org/protobuf/proto"

	"github.com/perdure/perdure/internal/invocation"
	recordv1 "github.com/perdure/perdure/internal/record/v1"
)

// maxWaiters bounds the row of an invocation, which is written anew with each handler that comes to wait for
// its result, and, apart from that, the requests of callers.
const maxWaiters = 5000

// applyAttach asks for the result of another invocation, wherever that lives.
func (e *Engine) applyAttach(l *live, index uint32, attach *recordv1.Attach, now int64) error {
	id, ok := invocation.IDFromBytes(attach.GetInvocationId())
	if !ok {
		return fmt.Errorf("invocation %s: entry %d attaches to a bad id of %d bytes", l.id, index, len(attach.GetInvocationId()))
	}
	asked := &recordv1.AttachCaller{InvocationId: id[:], Peek: attach.GetPeek(), Caller: &recordv1.Caller{InvocationId: l.id[:], Entry: index}}
	if to := id.Partition(e.config.Partitions); to != e.config.Partition {
		return e.send(to, &recordv1.Message{Message: &recordv1.Message_Attach{Attach: asked}})
	}
	return e.attachCaller(asked, now)
}

// attachCaller answers an Attach entry, now or when the invocation has its result. One that is
// repeated for the same entry is harmless: the first completion of an entry counts.
func (e *Engine) attachCaller(asked *recordv1.AttachCaller, now int64) error {
	id, ok := invocation.IDFromBytes(asked.GetInvocationId())
	if !ok {
		return nil
	}
	l, err := e.loadLive(id)
	switch {
	case err != nil:
		return err
	case l == nil || l.call != nil || l.row.GetPurging():
		return e.completeCaller(asked.Caller, id[:], failure(codeNotFound, "no invocation %s: it never existed, or its retention is over", id), now)
	case asked.GetPeek():
		peeked := &recordv1.Peeked{}
		if completed(l.row.Status) {
			if peeked.Result = l.row.Result; peeked.Result == nil {
				peeked.Result = &recordv1.Result{}
			}
		}
		value, err := proto.Marshal(peeked)
		if err != nil {
			return fmt.Errorf("invocation %s: encode its result: %w", id, err)
		}
		return e.completeCaller(asked.Caller, id[:], &recordv1.Result{Value: value}, now)
	case completed(l.row.Status):
		return e.completeCaller(asked.Caller, id[:], l.row.Result, now)
	case l.handedOn():
		return e.completeCaller(asked.Caller, id[:], failure(codeNotFound, "invocation %s is about to end, and nobody keeps its result", id), now)
	case len(l.row.Waiters) >= maxWaiters:
		return e.completeCaller(asked.Caller, id[:], failure(codeResourceExhausted, "%s has %d that wait for its result, the most there may be; peek at it, or wait for a promise of a workflow", l.target, maxWaiters), now)
	case !isWaiter(l.row, asked.Caller):
		l.row.Waiters = append(l.row.Waiters, asked.Caller)
		return e.store(l)
	}
	return nil
}
