package engine

import (
	"fmt"

	"google.golang.org/protobuf/proto"

	"github.com/perdure/perdure/internal/inbox"
	"github.com/perdure/perdure/internal/invocation"
	recordv1 "github.com/perdure/perdure/internal/record/v1"
	"github.com/perdure/perdure/internal/table"
)

// acceptSignal puts a request in the inbox of its name, or gives it to the entry that waits.
// A signal with an idempotency key leaves a row for its retention, so that it counts once.
func (e *Engine) acceptSignal(l *live, in *recordv1.Invoke, token Token, oneWay bool, now int64) error {
	if in.DueAt > now {
		return e.refuse(in, token, failure(codeInvalidArgument, "%s is a signal: it can't be delayed", l.target), now)
	}
	caller, err := e.first(table.Receives(l.target.Object(), l.target.Handler))
	if err != nil {
		return err
	}
	if caller != nil {
		waiter := &recordv1.Caller{}
		if err := proto.Unmarshal(caller.Value, waiter); err != nil {
			return fmt.Errorf("decode row %q: %w", caller.Key, err)
		}
		e.delete(caller.Key)
		if err := e.completeCaller(waiter, nil, &recordv1.Result{Value: in.Input}, now); err != nil {
			return err
		}
	} else {
		// One of which nobody would hear that it is refused was promised to its sender.
		heard := token != 0 || in.Caller != nil
		full, timer, err := inbox.Add(&e.draft, l.target, in, e.config.Signals, heard, now)
		switch {
		case err != nil:
			return err
		case full != nil:
			return e.refuse(in, token, exhausted(retryInbox,
				"%s has %d signals of %d bytes that nobody has received, and at most %d signals or %d bytes are kept: try again once its handler has received some, and start it if it is not running",
				l.target.Object(), full.Count, full.Bytes, e.config.Signals.Signals, e.config.Signals.Bytes), now)
		case timer.At != 0:
			e.armTimer(timer)
		}
		e.put(table.Signal(l.target.Object(), l.target.Handler, e.nextSequence()), append([]byte{}, in.Input...))
	}
	switch {
	case token == 0:
	case oneWay:
		e.effect(&Reply{Token: token})
	default:
		e.waiters[l.id] = append(e.waiters[l.id], token)
	}
	if in.IdempotencyKey == "" {
		l.row.RetentionMs = 0
	}
	return e.complete(l, recordv1.Status_STATUS_SUCCEEDED, &recordv1.Result{}, now)
}

func (e *Engine) receive(l *live, index uint32, receive *recordv1.Receive, now int64) error {
	signal, err := e.first(table.Signals(l.target.Object(), receive.Name))
	if err != nil {
		return err
	}
	if signal != nil {
		e.delete(signal.Key)
		if err := inbox.Remove(&e.draft, l.target.Object(), len(signal.Value)); err != nil {
			return err
		}
		return e.completion(l.id, &recordv1.Completion{Entry: index, Result: &recordv1.Result{Value: signal.Value}, At: now}, now)
	}
	l.receives = true
	return e.putMessage(table.Receive(l.target.Object(), receive.Name, e.nextSequence()),
		&recordv1.Caller{InvocationId: l.id[:], Entry: index})
}

// expireSignals removes signals of a workflow that does not run.
func (e *Engine) expireSignals(id invocation.ID, now int64) error {
	e.out.Lazy = true
	timer, err := inbox.Expire(&e.draft, id, e.runs, now)
	if timer.At != 0 {
		e.armTimer(timer)
	}
	return err
}

// runs reports whether an object's RUN handler has begun and not ended.
func (e *Engine) runs(o invocation.Object) (bool, error) {
	for _, holder := range e.locks.Holders(o) {
		id, ok := holder.Owner.(invocation.ID)
		if !ok {
			continue
		}
		if l, err := e.loadLive(id); err != nil || l != nil && l.mode() == invocation.ModeRun {
			return err == nil, err
		}
	}
	return false, nil
}

// dropReceives forgets the entries of an ended invocation that still wait for a signal: it
// would go to them, and nobody would hear of it.
func (e *Engine) dropReceives(l *live) error {
	prefix := table.ReceivesOfObject(l.target.Object())
	var keys [][]byte
	var decodeErr error
	err := e.scan(prefix, table.Successor(prefix), func(key, value []byte) bool {
		waiter := &recordv1.Caller{}
		if decodeErr = proto.Unmarshal(value, waiter); decodeErr != nil {
			decodeErr = fmt.Errorf("decode row %q: %w", key, decodeErr)
			return false
		}
		if string(waiter.InvocationId) == string(l.id[:]) {
			keys = append(keys, append([]byte(nil), key...))
		}
		return true
	})
	if err == nil {
		err = decodeErr
	}
	for _, key := range keys {
		e.delete(key)
	}
	return err
}

// first returns the first row that starts with prefix, copied, or nil.
func (e *Engine) first(prefix []byte) (*Mutation, error) {
	var found *Mutation
	err := e.scan(prefix, table.Successor(prefix), func(key, value []byte) bool {
		found = &Mutation{Key: append([]byte(nil), key...), Value: append([]byte(nil), value...)}
		return false
	})
	return found, err
}
