package inprocess_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/apipb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/perdure/perdure/actor"
	"github.com/perdure/perdure/internal/invocation"
	"github.com/perdure/perdure/internal/invoker"
	recordv1 "github.com/perdure/perdure/internal/record/v1"
	"github.com/perdure/perdure/internal/routing"
)

func read(t *testing.T, run handle, change func(*invoker.Read)) string {
	t.Helper()
	desc := method("t.Thing", "Look", actor.ModeRead, run)
	inv := newInvoker(t, quiet(), desc)
	request := &invoker.Read{
		Target: invocation.Target{Service: "t.Thing", Key: "k", Handler: "Look"},
		Input:  encode(t, reply("hello")), State: encode(t, wrapperspb.Int64(40)), HasState: true,
	}
	if change != nil {
		change(request)
	}
	return text(t, &invoker.Outcome{Result: remotely(t, inv).Read(t.Context(), request)})
}

func TestReadSeesStateAndCallsReads(t *testing.T) {
	look := method("t.Other", "Look", actor.ModeRead, nil)
	write := method("t.Other", "Do", actor.ModeTransaction, nil)
	var inFlight sync.WaitGroup
	inFlight.Add(2) // both calls are under way at once, or this never ends
	got := read(t, func(ctx actor.Context, _ *apipb.Mixin) (*apipb.Mixin, error) {
		one := actor.InvokeAsync[*apipb.Mixin](ctx, ctx, look, "1", nil, nil)
		two := actor.InvokeAsync[*apipb.Mixin](ctx, ctx, look, "2", nil, nil)
		both, err := actor.All(ctx, one, two)
		if err != nil {
			return nil, err
		}
		raced, err := actor.Race(ctx, one, two)
		if err != nil {
			return nil, err
		}
		_, refused := actor.Invoke[*apipb.Mixin](ctx, ctx, write, "1", nil, nil)
		courier, done, err := actor.PromiseOf[*wrapperspb.StringValue](ctx, "courier").Peek(ctx)
		if err != nil {
			return nil, err
		}
		return reply(fmt.Sprint(number(ctx).Get().Value, both[0].Root, both[1].Root, raced.Root, courier.GetValue(), done, refused)), nil
	}, func(r *invoker.Read) {
		r.Call = func(_ context.Context, invoke *recordv1.Invoke) (*recordv1.Result, error) {
			inFlight.Done()
			inFlight.Wait()
			return echo(invoke), nil
		}
		r.Promise = func(string) (*recordv1.Result, error) { return value(t, wrapperspb.String("dave")), nil }
	})
	if want := "40 1: 2: 1:dave true failed_precondition: t.Thing/Look is a READ handler and can call only READ handlers; t.Other/Do is TRANSACTION"; strings.ReplaceAll(got, " ", "") != strings.ReplaceAll(want, " ", "") {
		t.Error(got)
	}
}

func TestReadCompletesPromises(t *testing.T) {
	var completed []*recordv1.Entry
	got := read(t, func(ctx actor.Context, _ *apipb.Mixin) (*apipb.Mixin, error) {
		promise := actor.PromiseOf[*wrapperspb.StringValue](ctx, "courier")
		if err := promise.Resolve(ctx, wrapperspb.String("dave")); err != nil {
			return nil, err
		}
		return nil, promise.Reject(ctx, errors.New("late"))
	}, func(r *invoker.Read) {
		r.Complete = func(_ context.Context, entry *recordv1.Entry) error {
			if completed = append(completed, entry); len(completed) > 1 {
				return routing.Errorf(routing.CodeFailedPrecondition, "promise courier was completed before")
			}
			return nil
		}
	})
	if got != "failed_precondition: promise courier was completed before" || completed[0].GetCompletePromise().GetName() != "courier" ||
		completed[1].GetCompletePromise().GetResult().GetError().GetMessage() != "late" {
		t.Error(got, completed)
	}
}

func TestReadErrors(t *testing.T) {
	for name, test := range map[string]struct {
		run  handle
		want string
	}{
		"write": {func(ctx actor.Context, _ *apipb.Mixin) (*apipb.Mixin, error) {
			defer func() { _ = recover() }()
			number(ctx).Set(wrapperspb.Int64(1))
			return nil, nil
		}, "failed_precondition: State().Set: t.Thing/Look is a READ handler*"},
		"row": {func(ctx actor.Context, _ *apipb.Mixin) (*apipb.Mixin, error) {
			ledger(ctx).Put("a", wrapperspb.String("x"))
			return nil, nil
		}, "failed_precondition: Put of table ledger*"},
		"write elsewhere": {func(ctx actor.Context, _ *apipb.Mixin) (*apipb.Mixin, error) {
			var group sync.WaitGroup
			group.Go(func() { number(ctx).Set(wrapperspb.Int64(1)) })
			group.Wait()
			return nil, nil
		}, "failed_precondition: State().Set: t.Thing/Look is a READ handler*"},
		"sleep": {func(ctx actor.Context, _ *apipb.Mixin) (*apipb.Mixin, error) {
			return nil, actor.Sleep(ctx, time.Second)
		}, "failed_precondition: Sleep: t.Thing/Look is a READ handler*"},
		"await": {func(ctx actor.Context, _ *apipb.Mixin) (*apipb.Mixin, error) {
			_, err := actor.PromiseOf[*wrapperspb.StringValue](ctx, "courier").Await(ctx)
			return nil, err
		}, "failed_precondition: Await of promise courier: t.Thing/Look is a READ handler*Peek*"},
		"panic": {func(actor.Context, *apipb.Mixin) (*apipb.Mixin, error) { panic("secret") }, "internal: t.Thing/Look panicked"},
		"nil":   {func(actor.Context, *apipb.Mixin) (*apipb.Mixin, error) { return nil, nil }, ""},
	} {
		t.Run(name, func(t *testing.T) {
			if got := read(t, test.run, nil); !matches(got, test.want) {
				t.Error(got)
			}
		})
	}
	if got := read(t, nil, func(r *invoker.Read) { r.Input = []byte{0xff} }); !matches(got, "invalid_argument: the request is not a google.protobuf.Mixin*") {
		t.Error(got)
	}
}

func BenchmarkRead(b *testing.B) {
	desc := method("t.Thing", "Look", actor.ModeRead, func(ctx actor.Context, _ *apipb.Mixin) (*apipb.Mixin, error) {
		_ = number(ctx).Get()
		return &apipb.Mixin{Root: "x"}, nil
	})
	inv := newInvoker(b, quiet(), desc)
	input, _ := proto.Marshal(&apipb.Mixin{Name: "k"})
	request := &invoker.Read{Target: invocation.Target{Service: "t.Thing", Key: "k", Handler: "Look"}, Input: input, State: encode(b, wrapperspb.Int64(1)), HasState: true}
	b.ReportAllocs()
	for b.Loop() {
		inv.Read(b.Context(), request)
	}
}
