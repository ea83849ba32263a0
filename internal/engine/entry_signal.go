package engine

import (
	"fmt"

	"google.golang.org/protobuf/proto"

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
		return e.completion(l.id, &recordv1.Completion{Entry: index, Result: &recordv1.Result{Value: signal.Value}, At: now}, now)
	}
	l.receives = true
	return e.putMessage(table.Receive(l.target.Object(), receive.Name, e.nextSequence()),
		&recordv1.Caller{InvocationId: l.id[:], Entry: index})
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
