package actortest

import (
	"context"
	"errors"
	"fmt"
	"hash/fnv"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/perdure/perdure/actor"
)

// transport carries calls from outside handlers. When a call begins and when its answer is heard
// are moves.
type transport struct {
	actor.Transport
	node *Node
}

// Callers ask again for longer than an actor.Client does, so that no scenario fails by bad luck, and
// at fixed instants: its own are random.
const (
	retryWait = 20 * time.Millisecond
	maxTries  = 1000
)

func (t transport) through(ctx context.Context, name, lane string, begin func(), try func(context.Context) error) error {
	n := t.node
	for tries := 1; ; tries++ {
		if err := t.turn(ctx, kindCall, name, lane, begin); err != nil {
			return err
		}
		begin = func() {}
		err := try(ctx)
		text := "the caller of " + name + " hears the answer"
		if err != nil {
			text = fmt.Sprintf("the caller of %s hears: %v", name, err)
		}
		if turn := t.turn(context.WithoutCancel(ctx), kindReply, text, "answer to "+lane, func() {}); turn != nil {
			return turn
		}
		switch {
		case err == nil || actor.CodeOf(err) != actor.Unavailable || errors.Is(err, actor.ErrAnswered):
			return err
		case tries == maxTries:
			return errors.Join(err, actor.ErrAnswered) // The Client need not ask again.
		}
		select {
		case <-time.After(retryWait):
		case <-ctx.Done():
			return actor.Terminal(actor.CodeOf(ctx.Err()), ctx.Err())
		case <-n.gone:
		}
	}
}

// turn waits until the driver makes a move of it.
func (t transport) turn(ctx context.Context, kind kind, text, lane string, begin func()) error {
	turn := make(chan struct{})
	if kind == kindCall {
		text = "a caller asks for " + text
	}
	t.node.agenda.post(&move{kind: kind, lane: "~ " + lane, text: text, do: func() {
		begin()
		close(turn)
	}})
	select {
	case <-turn:
		return nil
	case <-ctx.Done():
		return actor.Terminal(actor.CodeOf(ctx.Err()), ctx.Err())
	case <-t.node.gone:
		return actor.NewError(actor.FailedPrecondition, "the test's node has ended")
	}
}

func (t transport) call(ctx context.Context, verb string, call actor.CallRequest, try func(context.Context, actor.CallRequest) error) error {
	name := call.Method.FullName()
	if call.Key != "" {
		name = call.Method.Service + "/" + call.Key + "/" + call.Method.Name
	}
	encoded, err := proto.MarshalOptions{Deterministic: true}.Marshal(call.Request)
	if err != nil {
		return actor.Terminal(actor.InvalidArgument, err)
	}
	hash := fnv.New64a()
	hash.Write(encoded) // it never fails
	lane := fmt.Sprintf("%s %s %x", verb, name, hash.Sum64())
	if !call.AutoKey {
		lane += " " + call.IdempotencyKey
	}
	return t.through(ctx, name, lane, func() {
		if call.AutoKey { // A random one would give the invocation another id in each run.
			t.node.autoKeys++
			call.IdempotencyKey = fmt.Sprintf("call %d", t.node.autoKeys)
		}
	}, func(ctx context.Context) error { return try(ctx, call) })
}

// Call implements actor.Transport.
func (t transport) Call(ctx context.Context, call actor.CallRequest) (response proto.Message, err error) {
	err = t.call(ctx, "call", call, func(ctx context.Context, call actor.CallRequest) error {
		response, err = t.Transport.Call(ctx, call)
		return err
	})
	return response, err
}

// Send implements actor.Transport.
func (t transport) Send(ctx context.Context, call actor.CallRequest) (id string, err error) {
	err = t.call(ctx, "send", call, func(ctx context.Context, call actor.CallRequest) error {
		id, err = t.Transport.Send(ctx, call)
		return err
	})
	return id, err
}

// Attach implements actor.Transport.
func (t transport) Attach(ctx context.Context, id string, into proto.Message) error {
	return t.through(ctx, "the result of "+id, "attach "+id, func() {}, func(ctx context.Context) error { return t.Transport.Attach(ctx, id, into) })
}

// AttachKey implements actor.Transport.
func (t transport) AttachKey(ctx context.Context, method *actor.MethodDesc, key string, into proto.Message) error {
	name := method.FullName() + " of " + key
	return t.through(ctx, "the result of "+name, "attach "+name, func() {}, func(ctx context.Context) error { return t.Transport.AttachKey(ctx, method, key, into) })
}

// Cancel implements actor.Transport.
func (t transport) Cancel(ctx context.Context, id string) error {
	return t.through(ctx, "the cancel of "+id, "cancel "+id, func() {}, func(ctx context.Context) error { return t.Transport.Cancel(ctx, id) })
}

// CompleteAwakeable implements actor.Transport.
func (t transport) CompleteAwakeable(ctx context.Context, id string, value []byte, failure *actor.Error) error {
	return t.through(ctx, "the completion of "+id, "complete "+id, func() {}, func(ctx context.Context) error {
		return t.Transport.CompleteAwakeable(ctx, id, value, failure)
	})
}

// BuiltIn implements actor.Transport.
func (t transport) BuiltIn(ctx context.Context, method string, request, response proto.Message) error {
	return t.through(ctx, method, "built in "+method, func() {}, func(ctx context.Context) error {
		return t.Transport.BuiltIn(ctx, method, request, response)
	})
}

// declare makes the schedules that services declare, once every partition has a leader, of which
// none is lost meanwhile.
func (t transport) declare(ctx context.Context) {
	defer t.node.declaring.Store(false)
	if err := t.node.router.Ready(ctx); err != nil {
		return // The test is over.
	}
	if err := t.turn(ctx, kindCall, "the schedules that are declared", "declare", func() {}); err != nil {
		return
	}
	undone, err := t.node.edge.DeclareSchedules(ctx)
	if err := errors.Join(undone, err); err != nil && ctx.Err() == nil {
		t.node.t.Error(err)
	}
}
