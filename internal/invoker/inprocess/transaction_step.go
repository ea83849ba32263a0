package inprocess

import (
	"context"
	"fmt"
	"time"

	"github.com/perdure/perdure/actor"
	"github.com/perdure/perdure/internal/invocation"
	recordv1 "github.com/perdure/perdure/internal/record/v1"
)

func (t *transaction) Send(ctx context.Context, call actor.CallRequest) (string, error) {
	if t.attempt.Mode == invocation.ModeRead {
		return "", refuseInRead(t.method, "Send")
	}
	if err := checkSend(call); err != nil {
		return "", err
	}
	if err := t.enter("Send", ""); err != nil {
		return "", err
	}
	defer t.leave()
	invoke, err := NewInvoke(call, time.Now(), t.attempt.Flow)
	if err != nil {
		return "", err
	}
	t.invoker.retain(invoke, true)
	id := stepID(call, t.attempt.ID, t.attempt.StartedAt, uint32(len(t.entries)+1))
	invoke.InvocationId = id[:]
	invoke.Traceparent = t.invoker.traceparentOf(ctx, t.attempt.Traceparent)
	t.entries = append(t.entries, &recordv1.Entry{Entry: &recordv1.Entry_Send{Send: &recordv1.Send{Invoke: invoke}}})
	return id.String(), nil
}

func (t *transaction) add(step, name string, entry *recordv1.Entry) error {
	if err := t.enter(step, name); err != nil {
		return err
	}
	defer t.leave()
	t.entries = append(t.entries, entry)
	return nil
}

func (t *transaction) CompleteAwakeable(_ context.Context, id string, value []byte, failure *actor.Error) error {
	entry, err := completeAwakeableEntry(id, value, failure)
	if err != nil {
		return err
	}
	return t.add("ResolveAwakeable", "", entry)
}

func (t *transaction) CompletePromise(_ context.Context, name string, value []byte, failure *actor.Error) error {
	return t.add("Resolve of promise ", name, completePromiseEntry(name, value, failure))
}

func (t *transaction) CancelInvocation(_ context.Context, id string) error {
	if t.attempt.Mode == invocation.ModeRead {
		return refuseInRead(t.method, "Cancel")
	}
	entry, err := cancelEntry(id)
	if err != nil {
		return err
	}
	return t.add("Cancel", "", entry)
}

// refuse is the error of steps that nothing in a transaction has.
func (t *transaction) refuse(step string) error {
	if t.attempt.Mode == invocation.ModeRead {
		return refuseInRead(t.method, step)
	}
	return actor.Errorf(actor.FailedPrecondition, "%s: %s is a TRANSACTION, which waits for nothing but its calls and cannot act on the world outside: it may be rolled back; give the rpc option (perdure.v1.method) = {mode: DURABLE}", step, t.method.desc.FullName())
}

func (t *transaction) Run(_ context.Context, name string, _ actor.RunPolicy, _ bool, _ func(context.Context) ([]byte, error)) (uint32, error) {
	return 0, t.refuse(fmt.Sprintf("Run %q", name))
}

func (t *transaction) Sleep(context.Context, time.Duration) (uint32, time.Time, error) {
	return 0, time.Time{}, t.refuse("Sleep")
}

func (t *transaction) StopTimer(context.Context, uint32) error {
	return t.refuse("Stop of a timer")
}

func (t *transaction) Awakeable(context.Context) (string, uint32, error) {
	return "", 0, t.refuse("NewAwakeable")
}

func (t *transaction) AwaitPromise(_ context.Context, name string) (uint32, error) {
	if t.attempt.Mode == invocation.ModeRead {
		return 0, refuseAwaitInRead(t.method, name)
	}
	return 0, t.refuse("Await of promise " + name)
}

// PeekPromise does not see what the transaction itself completes: that counts once it commits.
func (t *transaction) PeekPromise(_ context.Context, name string) ([]byte, bool, error) {
	if t.attempt.Mode != invocation.ModeRead {
		return nil, false, t.refuse("Peek of promise " + name)
	}
	if err := t.enter("Peek of promise ", name); err != nil {
		return nil, false, err
	}
	defer t.leave()
	return peek(t.attempt.Promise, name)
}

func (t *transaction) Receive(_ context.Context, name string) (uint32, error) {
	return 0, t.refuse("Receive of " + name)
}

func completeAwakeableEntry(id string, value []byte, failure *actor.Error) (*recordv1.Entry, error) {
	if _, err := invocation.ParseAwakeableID(id); err != nil {
		return nil, actor.Terminal(actor.InvalidArgument, err)
	}
	return &recordv1.Entry{Entry: &recordv1.Entry_CompleteAwakeable{CompleteAwakeable: &recordv1.CompleteAwakeable{
		AwakeableId: id, Result: resultRecord(value, failure),
	}}}, nil
}

func completePromiseEntry(name string, value []byte, failure *actor.Error) *recordv1.Entry {
	return &recordv1.Entry{Entry: &recordv1.Entry_CompletePromise{CompletePromise: &recordv1.CompletePromise{
		Name: name, Result: resultRecord(value, failure),
	}}}
}

func cancelEntry(id string) (*recordv1.Entry, error) {
	parsed, err := invocation.ParseID(id)
	if err != nil {
		return nil, actor.Terminal(actor.InvalidArgument, err)
	}
	return &recordv1.Entry{Entry: &recordv1.Entry_CancelInvocation{CancelInvocation: &recordv1.CancelInvocation{InvocationId: parsed[:]}}}, nil
}
