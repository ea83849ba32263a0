package inprocess_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/protobuf/types/known/apipb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/perdure/perdure/actor"
	"github.com/perdure/perdure/internal/invocation"
	"github.com/perdure/perdure/internal/invoker"
	"github.com/perdure/perdure/internal/invoker/inprocess"
	recordv1 "github.com/perdure/perdure/internal/record/v1"
)

func number(ctx actor.Context) actor.State[*wrapperspb.Int64Value] {
	return actor.StateOf[*wrapperspb.Int64Value](ctx)
}

func ledger(ctx actor.Context) actor.Table[*wrapperspb.StringValue] {
	return actor.TableOf[*wrapperspb.StringValue](ctx, "ledger")
}

func transaction(t *testing.T, run handle) (*double, *invoker.Outcome) {
	t.Helper()
	desc := method("t.Thing", "Do", actor.ModeTransaction, run)
	d := newDouble(t, newInvoker(t, quiet(), desc))
	d.mu.state, d.mu.hasState = encode(t, wrapperspb.Int64(40)), true
	d.mu.tables["ledger"] = map[string][]byte{"a": encode(t, wrapperspb.String("A")), "c": encode(t, wrapperspb.String("C"))}
	return d, d.run(desc, "hello")
}

func TestTransactionTakesEffectAsAWhole(t *testing.T) {
	other := method("t.Other", "Tell", actor.ModeTransaction, nil)
	var sent string
	d, outcome := transaction(t, func(ctx actor.Context, req *apipb.Mixin) (*apipb.Mixin, error) {
		if key := actor.KeyOf[string](ctx); key != "k" || req.Root != "hello" {
			t.Errorf("key %q, root %q", key, req.Root)
		}
		state := number(ctx)
		copied := state.Get()
		copied.Value = 1000 // a copy: changes nothing
		if got := state.Get().Value; got != 40 {
			t.Errorf("state is %d", got)
		}
		state.Update(func(v *wrapperspb.Int64Value) { v.Value += 2 })
		if got := state.Get().Value; got != 42 {
			t.Errorf("own write reads as %d", got)
		}
		rows := ledger(ctx)
		rows.Put("b", wrapperspb.String("B"))
		rows.Put("c", wrapperspb.String("C2"))
		rows.Delete("a")
		if rows.Len() != 2 {
			t.Errorf("len %d", rows.Len())
		}
		var seen []string
		for key, row := range rows.From("") {
			seen = append(seen, key+"="+row.Value)
			rows.Put("z", wrapperspb.String("from within the loop"))
		}
		if got := strings.Join(seen, " "); got != "b=B c=C2" {
			t.Errorf("rows %s", got)
		}
		inv, err := actor.InvokeSend[*apipb.Mixin](ctx, ctx, other, "o", &apipb.Mixin{Root: "x"}, []actor.SendOption{actor.Delay(time.Hour)})
		if err != nil {
			return nil, err
		}
		sent = inv.ID()
		return nil, nil
	})
	if got := text(t, outcome); got != "" {
		t.Fatalf("result %q, want an empty response for nil", got)
	}
	if state := decode(t, d.mu.state, new(wrapperspb.Int64Value)); state.Value != 42 {
		t.Errorf("state %d", state.Value)
	}
	last := outcome.Entries[len(outcome.Entries)-1].GetSend().GetInvoke()
	if id, _ := invocation.IDFromBytes(last.GetInvocationId()); id.String() != sent {
		t.Errorf("sent %s, recorded %s", sent, id)
	}
	if last.GetTarget().GetKey() != "o" || last.GetDueAt() == 0 || decode(t, last.GetInput(), new(apipb.Mixin)).Name != "o" {
		t.Errorf("send %v", last)
	}
}

func TestTransactionReadsChangeNothing(t *testing.T) {
	_, outcome := transaction(t, func(ctx actor.Context, _ *apipb.Mixin) (*apipb.Mixin, error) {
		return reply(fmt.Sprint(number(ctx).Get().Value)), nil
	})
	if text(t, outcome) != "40" || len(outcome.Entries) != 0 {
		t.Errorf("%q with %d entries", text(t, outcome), len(outcome.Entries))
	}
}

func TestTransactionErrors(t *testing.T) {
	for name, test := range map[string]struct {
		run  handle
		want string
	}{
		"coded": {func(actor.Context, *apipb.Mixin) (*apipb.Mixin, error) {
			return nil, fmt.Errorf("secret %w", actor.Errorf(actor.FailedPrecondition, "only %d", 3))
		}, "failed_precondition: only 3"},
		"uncoded": {func(actor.Context, *apipb.Mixin) (*apipb.Mixin, error) {
			return nil, errors.New("plain")
		}, "unknown: plain"},
		"panic": {func(actor.Context, *apipb.Mixin) (*apipb.Mixin, error) {
			panic("secret")
		}, "internal: t.Thing/Do panicked"},
		"run": {func(ctx actor.Context, _ *apipb.Mixin) (*apipb.Mixin, error) {
			return nil, actor.Do(ctx, "pay", func(context.Context) error { return nil })
		}, "failed_precondition: Run \"pay\": t.Thing/Do is a TRANSACTION*mode: DURABLE*"},
		"sleep": {func(ctx actor.Context, _ *apipb.Mixin) (*apipb.Mixin, error) {
			return nil, actor.Sleep(ctx, time.Hour)
		}, "failed_precondition: Sleep*mode: DURABLE*"},
		"awakeable": {func(ctx actor.Context, _ *apipb.Mixin) (*apipb.Mixin, error) {
			_, err := actor.NewAwakeable[int](ctx).Await(ctx)
			return nil, err
		}, "failed_precondition: NewAwakeable*mode: DURABLE*"},
		"nil state survives recover": {func(ctx actor.Context, _ *apipb.Mixin) (*apipb.Mixin, error) {
			defer func() { _ = recover() }()
			number(ctx).Set(nil)
			return reply("not reached"), nil
		}, "internal: State().Set(nil)*"},
		"wrong state": {func(ctx actor.Context, _ *apipb.Mixin) (*apipb.Mixin, error) {
			actor.StateOf[*apipb.Mixin](ctx).Get()
			return nil, nil
		}, "ok"},
		"key not a number": {func(ctx actor.Context, _ *apipb.Mixin) (*apipb.Mixin, error) {
			return reply(fmt.Sprint(actor.KeyOf[int64](ctx))), nil
		}, "internal: key \"k\" of t.Thing is not a int64*"},
	} {
		t.Run(name, func(t *testing.T) {
			if test.want == "ok" {
				return
			}
			d, outcome := transaction(t, func(ctx actor.Context, req *apipb.Mixin) (*apipb.Mixin, error) {
				number(ctx).Set(wrapperspb.Int64(7))
				return test.run(ctx, req)
			})
			if got := text(t, outcome); !matches(got, test.want) {
				t.Errorf("got  %s\nwant %s", got, test.want)
			}
			if state := decode(t, d.mu.state, new(wrapperspb.Int64Value)); state.Value != 40 || len(outcome.Entries) != 0 {
				t.Errorf("state %d, %d entries: not rolled back", state.Value, len(outcome.Entries))
			}
		})
	}
}

// matches compares with a pattern in which * is any text.
func matches(got, pattern string) bool {
	parts := strings.Split(pattern, "*")
	if !strings.HasPrefix(got, parts[0]) {
		return false
	}
	for _, part := range parts {
		at := strings.Index(got, part)
		if at < 0 {
			return false
		}
		got = got[at+len(part):]
	}
	return parts[len(parts)-1] == "" || got == ""
}

func TestDamagedStateNamesTheObject(t *testing.T) {
	desc := method("t.Thing", "Do", actor.ModeTransaction, func(ctx actor.Context, _ *apipb.Mixin) (*apipb.Mixin, error) {
		number(ctx).Get()
		return nil, nil
	})
	d := newDouble(t, newInvoker(t, quiet(), desc))
	d.mu.state, d.mu.hasState = []byte{0xff}, true
	if got := text(t, d.run(desc, "")); !matches(got, "data_loss: the state of t.Thing/k is not a google.protobuf.Int64Value*") {
		t.Error(got)
	}
}

func TestTransactionStepsFromTwoGoroutines(t *testing.T) {
	desc := method("t.Thing", "Do", actor.ModeTransaction, func(ctx actor.Context, _ *apipb.Mixin) (*apipb.Mixin, error) {
		var group sync.WaitGroup
		group.Go(func() { number(ctx).Set(wrapperspb.Int64(7)) })
		group.Wait()
		return reply("done"), nil
	})
	d := newDouble(t, newInvoker(t, quiet(), desc))
	if got := text(t, d.run(desc, "")); !matches(got, "failed_precondition: State().Set from another goroutine*") {
		t.Error(got)
	}
}

func TestContextUsedAfterItsHandlerReturned(t *testing.T) {
	var stale actor.Context
	first := method("t.Thing", "First", actor.ModeTransaction, func(ctx actor.Context, _ *apipb.Mixin) (*apipb.Mixin, error) {
		stale = ctx
		return nil, nil
	})
	second := method("t.Thing", "Second", actor.ModeTransaction, func(ctx actor.Context, _ *apipb.Mixin) (*apipb.Mixin, error) {
		return nil, actor.ResolveAwakeable(stale, stale, invocation.AwakeableID{Entry: 1}.String(), 1)
	})
	config := quiet()
	config.IdleWorkers = 1
	inv := newInvoker(t, config, first, second)
	newDouble(t, inv).run(first, "")
	if got := text(t, newDouble(t, inv).run(second, "")); !matches(got, "failed_precondition: ResolveAwakeable after the attempt was over*") {
		t.Error(got)
	}
}

func TestBlockedTransactionIsGivenUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		release := make(chan struct{})
		desc := method("t.Thing", "Do", actor.ModeTransaction, func(actor.Context, *apipb.Mixin) (*apipb.Mixin, error) {
			<-release // heeds nothing
			return nil, nil
		})
		desc.Options.StepTimeout = time.Second
		d := newDouble(t, newInvoker(t, quiet(), desc))
		if got := text(t, d.run(desc, "")); got != "deadline_exceeded: t.Thing/Do made no step for 1s, its step_timeout" {
			t.Error(got)
		}
		close(release)
	})
}

func TestAbortEndsTheContext(t *testing.T) {
	ended := make(chan error, 1)
	began := make(chan struct{})
	desc := method("t.Thing", "Do", actor.ModeTransaction, func(ctx actor.Context, _ *apipb.Mixin) (*apipb.Mixin, error) {
		derived, cancel := context.WithCancel(ctx)
		defer cancel()
		close(began)
		<-derived.Done()
		ended <- context.Cause(derived)
		number(ctx).Get() // unwinds
		ended <- errors.New("the step returned")
		return nil, nil
	})
	inv := newInvoker(t, quiet(), desc)
	d := newDouble(t, inv)
	d.start(desc, "")
	<-began
	d.mu.Lock()
	d.mu.running.Abort(errors.New("leadership lost"))
	d.mu.Unlock()
	if err := <-ended; err == nil || err.Error() != "leadership lost" {
		t.Errorf("cause %v", err)
	}
	if err := inv.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	select {
	case err := <-ended:
		t.Error(err)
	default:
	}
}

func TestRegisterRefuses(t *testing.T) {
	desc := service(method("t.Thing", "Do", actor.ModeTransaction, nil))
	inv := inprocess.New(quiet())
	if err := inv.Register(desc, nil); err == nil || !strings.Contains(err.Error(), "t.Thing: the handler is nil") {
		t.Error(err)
	}
	if err := inv.Register(desc, (*strings.Builder)(nil)); err == nil {
		t.Error("a nil pointer was accepted")
	}
	if err := inv.Register(desc, struct{}{}); err != nil {
		t.Fatal(err)
	}
	if err := inv.Register(desc, struct{}{}); err == nil || !strings.Contains(err.Error(), "registered already") {
		t.Error(err)
	}
	d := newDouble(t, inv)
	unknown := method("t.Nope", "Do", actor.ModeTransaction, nil)
	if got := text(t, d.run(unknown, "")); got != "unimplemented: no handler t.Nope/Do is registered on this node" {
		t.Error(got)
	}
	if err := inv.Close(t.Context()); err != nil {
		t.Error(err)
	}
}

// idle is a host that tells a benchmark of the end.
type idleHost struct{ finished chan *invoker.Outcome }

func (idleHost) Part(*invoker.Attempt, uint32, uint32, []byte)           {}
func (idleHost) CompleteParts(*invoker.Attempt, uint32, *recordv1.Parts) {}
func (idleHost) Journal(*invoker.Attempt) invoker.Journal                { return nil }
func (idleHost) Append(*invoker.Attempt, uint32, *recordv1.Entry)        {}
func (idleHost) Call(*invoker.Attempt, uint32, *recordv1.Invoke)         {}
func (idleHost) AwaitDurable(_ *invoker.Attempt, granted func())         { granted() }
func (idleHost) Retry(*invoker.Attempt, uint32, *recordv1.RunTries)      {}
func (idleHost) Complete(*invoker.Attempt, uint32, *recordv1.Result)     {}
func (h idleHost) Finish(_ *invoker.Attempt, outcome *invoker.Outcome) {
	h.finished <- outcome
}

func BenchmarkTransaction(b *testing.B) {
	desc := method("t.Thing", "Do", actor.ModeTransaction, func(ctx actor.Context, _ *apipb.Mixin) (*apipb.Mixin, error) {
		state := number(ctx)
		now := state.Get()
		now.Value++
		state.Set(now)
		return &apipb.Mixin{Root: "x"}, nil
	})
	inv := newInvoker(b, quiet(), desc)
	host := idleHost{make(chan *invoker.Outcome, 1)}
	input, state := encode(b, &apipb.Mixin{Name: "k", Root: "hello"}), encode(b, wrapperspb.Int64(1))
	target := invocation.Target{Service: "t.Thing", Key: "k", Handler: "Do"}
	b.ReportAllocs()
	for b.Loop() {
		inv.Start(&invoker.Attempt{Number: 1, Target: target, Mode: invocation.ModeTransaction, Input: input, State: state, HasState: true, Host: host})
		if outcome := <-host.finished; outcome.Result.Error != nil {
			b.Fatal(outcome.Result.Error)
		}
	}
}
