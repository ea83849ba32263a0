package partition

import (
	"errors"
	"fmt"
	"runtime/debug"
	"time"

	"github.com/perdure/perdure/internal/engine"
	"github.com/perdure/perdure/internal/invocation"
	"github.com/perdure/perdure/internal/partition/early"
	recordv1 "github.com/perdure/perdure/internal/record/v1"
	"github.com/perdure/perdure/internal/routing"
	"github.com/perdure/perdure/internal/telemetry"
)

// evaluateSafely makes a panic of the engine an error of one evaluation.
func evaluateSafely(e *engine.Engine, event engine.Event, now int64) (out *engine.Output, err error) {
	defer func() {
		if reason := recover(); reason != nil {
			err = &enginePanic{reason: reason, stack: debug.Stack()}
		}
	}()
	return e.Evaluate(event, now)
}

type enginePanic struct {
	reason any
	stack  []byte
}

func (p *enginePanic) Error() string { return fmt.Sprintf("engine: panic: %v", p.reason) }

// failed keeps an event that could not be evaluated from hurting anything but what it is about.
func (p *Partition) failed(l *leadership, event engine.Event, err error) {
	attributes := []any{telemetry.KeyPartition, p.id, telemetry.KeyEpoch, l.epoch, telemetry.KeyEvent, fmt.Sprintf("%T", event), telemetry.KeyError, err}
	panicked, ok := errors.AsType[*enginePanic](err)
	if ok {
		attributes = append(attributes, "stack", string(panicked.stack))
	}
	p.logger.Error("event failed", attributes...)
	if token := early.Token(event); token != 0 {
		p.answer(token, reply{err: routing.Errorf(routing.CodeDataLoss, "partition %d: %v", p.id, err)})
	}
	if ok || l.engine.Changed() {
		// The engine's memory and the rows have parted: start over from the rows, without what
		// would part them again.
		p.condemn(event, err)
		p.resign(l, err)
		return
	}
	failure := &recordv1.Error{Code: uint32(routing.CodeDataLoss), Message: err.Error()}
	// At once: posted, it could be taken for the word of the attempt that comes after this one.
	switch ev := event.(type) {
	case *engine.Append:
		p.abort(l, ev.ID, err)
		p.evaluate(l, &engine.Fail{ID: ev.ID, Attempt: ev.Attempt, Error: failure})
	case *engine.CompleteRun:
		p.abort(l, ev.ID, err)
		p.evaluate(l, &engine.Fail{ID: ev.ID, Attempt: ev.Attempt, Error: failure})
	case *engine.Fire:
		l.timerFloor = min(l.timerFloor, ev.Timer.At)
		l.nextTimer = min(l.nextTimer, p.config.Now().Add(time.Second).UnixMilli())
	case *engine.Finish:
		if ev.Result.GetError() == nil {
			p.evaluate(l, &engine.Finish{ID: ev.ID, Attempt: ev.Attempt, Result: &recordv1.Result{Error: failure}})
		}
	}
}

// try names a try at a transaction.
type try struct {
	root     invocation.ID
	sequence uint64
}

func tryOf(peer *recordv1.Peer) try {
	root, _ := invocation.IDFromBytes(peer.GetId().GetRoot())
	return try{root, peer.GetId().GetSequence()}
}

// condemn remembers what broke an evaluation.
func (p *Partition) condemn(event engine.Event, cause error) {
	if id, ok := spokenFor(event); ok {
		p.poison.invocations[id] = cause
	}
	switch ev := event.(type) {
	case *engine.Fire:
		p.poison.timers[ev.Timer] = true
		p.poison.invocations[ev.Timer.ID] = cause
	case *engine.Deliver:
		p.poison.messages[ev.From] = ev.Sequence
	case *engine.Told:
		id := tryOf(ev.Peer)
		switch ev.Peer.GetMessage().(type) {
		case *recordv1.Peer_Commit: // which comes until it has been done
			p.poison.commits[id] = true
		case *recordv1.Peer_Vote: // The root would be run again, and end the same.
			p.poison.invocations[id.root] = cause
		}
	}
}

func (p *Partition) poisoned(event engine.Event) bool {
	switch ev := event.(type) {
	case *engine.Fire:
		return p.poison.timers[ev.Timer]
	case *engine.Deliver:
		sequence, ok := p.poison.messages[ev.From]
		return ok && ev.Sequence >= sequence
	case *engine.Told:
		if _, commit := ev.Peer.GetMessage().(*recordv1.Peer_Commit); commit && len(p.poison.commits) > 0 {
			return p.poison.commits[tryOf(ev.Peer)]
		}
	}
	return false
}

// spokenFor is the invocation whose attempt an event comes from.
func spokenFor(event engine.Event) (id invocation.ID, ok bool) {
	switch ev := event.(type) {
	case *engine.Append:
		return ev.ID, true
	case *engine.RunPart:
		return ev.ID, true
	case *engine.CompleteRun:
		return ev.ID, true
	case *engine.RetryRun:
		return ev.ID, true
	case *engine.Finish:
		return ev.ID, true
	case *engine.ContinueAsNew:
		return ev.ID, true
	case *engine.Fail:
		return ev.ID, true
	case *engine.Suspend:
		return ev.ID, true
	case *engine.TimeOut:
		return ev.ID, true
	case *engine.Restart:
		return ev.ID, true
	}
	return id, false
}
