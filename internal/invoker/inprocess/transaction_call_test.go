package inprocess_test

import (
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"
	"google.golang.org/protobuf/types/known/apipb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/perdure/perdure/actor"
	"github.com/perdure/perdure/internal/invocation"
	"github.com/perdure/perdure/internal/invoker"
	"github.com/perdure/perdure/internal/invoker/inprocess"
	recordv1 "github.com/perdure/perdure/internal/record/v1"
)

// trial is one attempt of a transaction in a bubble of fake time.
type trial struct {
	config  inprocess.Config // quiet by default
	mode    actor.Mode       // TRANSACTION by default
	limit   time.Duration    // its step timeout; 0: the default
	prepare func(*double)
	run     handle
	// during drives what the double does not do by itself.
	during func(*double)
	// check is not called if the attempt ends without an outcome.
	check func(*testing.T, *double, string)
}

func (c trial) test(t *testing.T) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		if c.mode == 0 {
			c.mode = actor.ModeTransaction
		}
		if c.config.Logger == nil {
			c.config.Logger = quiet().Logger
		}
		desc := method("t.Thing", "Do", c.mode, c.run)
		desc.Options.StepTimeout = c.limit
		inv := newInvoker(t, c.config, desc)
		d := newDouble(t, inv)
		if c.prepare != nil {
			c.prepare(d)
		}
		d.start(desc, "hello")
		if c.during != nil {
			synctest.Wait()
			c.during(d)
		}
		if c.check != nil {
			outcome := d.wait()
			defer c.check(t, d, text(t, outcome))
		}
		if err := inv.Close(t.Context()); err != nil {
			t.Error(err)
		}
		if c.check == nil && d.ending() != nil {
			t.Error("it told its host", text(t, d.ending()))
		}
	})
}

func askAsync(ctx actor.Context, key string) actor.Future[*apipb.Mixin] {
	return actor.InvokeAsync[*apipb.Mixin](ctx, ctx, called, key, &apipb.Mixin{Root: "q"}, nil)
}

func answers(d *double)       { d.answer = echo }
func answersAtOnce(d *double) { d.answer, d.atOnce = echo, true }

func TestTransactionCallsOthers(t *testing.T) {
	for name, prepare := range map[string]func(*double){"later": answers, "before Call returns": answersAtOnce} {
		t.Run(name, func(t *testing.T) {
			look := method("t.Other", "Look", actor.ModeRead, nil)
			look.Options.Timeout = time.Minute
			trial{prepare: func(d *double) { prepare(d); d.traceparent = traceparent }, run: func(ctx actor.Context, _ *apipb.Mixin) (*apipb.Mixin, error) {
				number(ctx).Set(wrapperspb.Int64(1))
				first, err := actor.Invoke[*apipb.Mixin](ctx, ctx, called, "a", &apipb.Mixin{Root: "q"}, []actor.CallOption{actor.IdempotencyKey("once")})
				if err != nil {
					return nil, err
				}
				roots := []string{first.Root}
				var more []actor.Future[*apipb.Mixin]
				for i := range 6 {
					more = append(more, askAsync(ctx, fmt.Sprint(i)))
				}
				again, err := actor.Invoke[*apipb.Mixin](ctx, ctx, look, "a", nil, nil)
				if err != nil {
					return nil, err
				}
				all, err := actor.All(ctx, more...)
				for _, resp := range append(all, again) {
					roots = append(roots, resp.Root)
				}
				return reply(strings.Join(roots, " ")), err
			}, check: func(t *testing.T, d *double, got string) {
				if got != "a:q 0:q 1:q 2:q 3:q 4:q 5:q a:" || decode(t, d.mu.state, new(wrapperspb.Int64Value)).Value != 1 || len(d.ending().Entries) != 1 {
					t.Error(got, d.mu.state, d.ending().Entries)
				}
				made := d.calls()
				last := made[len(made)-1]
				if last.Target.Key != "a" || last.Target.Handler != "Look" || last.Mode != uint32(actor.ModeRead) || last.DeadlineAt == 0 || last.Traceparent != traceparent {
					t.Error(last)
				}
			}}.test(t)
		})
	}
}

func TestTransactionWaitsForTheFirstCall(t *testing.T) {
	trial{run: func(ctx actor.Context, _ *apipb.Mixin) (*apipb.Mixin, error) {
		futures := []actor.Future[*apipb.Mixin]{askAsync(ctx, "0"), askAsync(ctx, "1"), askAsync(ctx, "2")}
		winner, err := actor.Select(ctx, futures[0], futures[1], futures[2])
		if err != nil {
			return nil, err
		}
		raced, err := actor.Race(ctx, futures[0], futures[1])
		if err != nil {
			return nil, err
		}
		all, err := actor.All(ctx, futures...)
		if err != nil {
			return nil, err
		}
		return reply(fmt.Sprint(winner, raced.Root, all[0].Root, all[1].Root, all[2].Root)), nil
	}, during: func(d *double) {
		for _, index := range []uint32{3, 1, 2} {
			d.complete(index, value(d.t, reply(fmt.Sprint("-", index))))
			synctest.Wait()
			if ended := d.ending() != nil; ended != (index == 2) {
				d.t.Error("after", index, "it has ended:", ended)
			}
		}
	}, check: func(t *testing.T, _ *double, got string) {
		if got != "2-1-1-2-3" {
			t.Error(got)
		}
	}}.test(t)
}

func TestOtherNotificationsCountForNothing(t *testing.T) {
	trial{run: func(ctx actor.Context, _ *apipb.Mixin) (*apipb.Mixin, error) {
		future := askAsync(ctx, "0")
		askAsync(ctx, "forgotten")
		if _, err := future.Await(ctx); err != nil {
			return nil, err
		}
		time.Sleep(time.Second)
		return future.Await(ctx)
	}, during: func(d *double) {
		d.mu.Lock()
		running := d.mu.running
		d.mu.Unlock()
		for _, index := range []uint32{0, 3, 1, 1} {
			running.Notify(index, &recordv1.Completion{Entry: index, Result: value(d.t, reply("first"))})
		}
		synctest.Wait()
		running.Notify(1, &recordv1.Completion{Result: value(d.t, reply("second"))})
		time.Sleep(time.Minute)
		if d.ending() != nil {
			d.t.Error("one call that completed twice counts for two")
		}
		running.Notify(2, &recordv1.Completion{})
	}, check: func(t *testing.T, _ *double, got string) {
		if got != "first" {
			t.Error(got)
		}
	}}.test(t)
	trial{run: func(actor.Context, *apipb.Mixin) (*apipb.Mixin, error) { return nil, nil }, during: func(d *double) {
		d.mu.Lock()
		defer d.mu.Unlock()
		d.mu.running.Notify(1, &recordv1.Completion{})
	}, check: func(t *testing.T, _ *double, got string) {
		if got != "" {
			t.Error(got)
		}
	}}.test(t)
}

// A callee's error is the caller's to handle.
func TestCalleesErrorIsReturnedByTheCall(t *testing.T) {
	trial{prepare: func(d *double) {
		d.answer = func(*recordv1.Invoke) *recordv1.Result {
			return &recordv1.Result{Error: &recordv1.Error{Code: uint32(actor.ResourceExhausted), Message: "only 3"}}
		}
	}, run: func(ctx actor.Context, _ *apipb.Mixin) (*apipb.Mixin, error) {
		_, err := ask(ctx, ctx, "o", "q")
		if actor.CodeOf(err) != actor.ResourceExhausted {
			return nil, err
		}
		number(ctx).Set(wrapperspb.Int64(7))
		return reply("went on"), nil
	}, check: func(t *testing.T, d *double, got string) {
		if got != "went on" || len(d.ending().Entries) != 1 {
			t.Error(got, d.ending().Entries)
		}
	}}.test(t)
}

func TestCallsThatATransactionRefuses(t *testing.T) {
	for _, test := range []struct {
		caller, callee actor.Mode
		want           string
	}{
		{actor.ModeTransaction, actor.ModeDurable, "failed_precondition: t.Thing/Do is a TRANSACTION and can call only TRANSACTION and READ handlers, since what it calls may be rolled back; t.Other/Tell is DURABLE: Send it*Do*{mode: DURABLE}"},
		{actor.ModeTransaction, actor.ModeRun, "failed_precondition: *t.Other/Tell is RUN: Send it*{mode: DURABLE}"},
		{actor.ModeTransaction, actor.ModeSignal, "failed_precondition: *t.Other/Tell is SIGNAL: Send it*{mode: DURABLE}"},
		{actor.ModeRead, actor.ModeTransaction, "failed_precondition: t.Thing/Do is a READ handler and can call only READ handlers; t.Other/Tell is TRANSACTION"},
		{actor.ModeRead, actor.ModeDurable, "failed_precondition: t.Thing/Do is a READ handler and can call only READ handlers; t.Other/Tell is DURABLE"},
	} {
		t.Run(test.caller.String()+" calls "+test.callee.String(), func(t *testing.T) {
			trial{mode: test.caller, prepare: answersAtOnce, run: func(ctx actor.Context, _ *apipb.Mixin) (*apipb.Mixin, error) {
				_, err := actor.Invoke[*apipb.Mixin](ctx, ctx, method("t.Other", "Tell", test.callee, nil), "o", nil, nil)
				return nil, err
			}, check: func(t *testing.T, d *double, got string) {
				if !matches(got, test.want) || len(d.calls()) != 0 {
					t.Errorf("%s, %d calls", got, len(d.calls()))
				}
			}}.test(t)
		})
	}
}

func TestCallsFromAnotherGoroutine(t *testing.T) {
	trial{run: func(ctx actor.Context, _ *apipb.Mixin) (*apipb.Mixin, error) {
		future := askAsync(ctx, "0")
		foreign := make(chan error, 2)
		go func() {
			time.Sleep(time.Second) // the handler waits by now
			_, err := future.Await(ctx)
			foreign <- err
			_, err = ask(ctx, ctx, "1", "q")
			foreign <- err
		}()
		resp, err := future.Await(ctx)
		if err != nil {
			return nil, err
		}
		return reply(fmt.Sprint(resp.Root, "\n", <-foreign, "\n", <-foreign)), nil
	}, during: func(d *double) {
		time.Sleep(time.Minute)
		d.complete(1, value(d.t, reply("late")))
	}, check: func(t *testing.T, d *double, got string) {
		if !matches(got, "late\nfailed_precondition: Await from another goroutine than the handler's*\nfailed_precondition: Call from another goroutine than the handler's*") || len(d.calls()) != 1 {
			t.Error(got, len(d.calls()))
		}
	}}.test(t)
}

// A goroutine that the handler left behind fails the attempt while the handler waits.
func TestFailFromAnotherGoroutineEndsTheWait(t *testing.T) {
	var unwound time.Duration
	returned := false
	trial{run: func(ctx actor.Context, _ *apipb.Mixin) (*apipb.Mixin, error) {
		began := time.Now()
		defer func() { unwound = time.Since(began) }()
		go func() {
			time.Sleep(time.Second)
			ctx.Now()
		}()
		_, err := askAsync(ctx, "0").Await(ctx)
		returned = true
		return nil, err
	}, during: func(d *double) {
		time.Sleep(time.Minute)
		if d.ending() != nil {
			d.t.Error("it ended before its call")
		}
		d.complete(1, &recordv1.Result{})
	}, check: func(t *testing.T, d *double, got string) {
		if !matches(got, "failed_precondition: Now from another goroutine than the handler's*") || unwound != time.Second || returned {
			t.Error(got, unwound, returned)
		}
	}}.test(t)
}

func TestCallAfterTheHandlerHasReturned(t *testing.T) {
	var stale actor.Context
	var future actor.Future[*apipb.Mixin]
	first := method("t.Thing", "First", actor.ModeTransaction, func(ctx actor.Context, _ *apipb.Mixin) (*apipb.Mixin, error) {
		stale, future = ctx, askAsync(ctx, "0")
		return nil, nil
	})
	second := method("t.Thing", "Second", actor.ModeTransaction, func(ctx actor.Context, _ *apipb.Mixin) (*apipb.Mixin, error) {
		_, call := ask(stale, stale, "o", "q")
		_, await := future.Await(ctx)
		return reply(fmt.Sprint(call, "\n", await)), nil
	})
	config := quiet()
	config.IdleWorkers = 1
	inv := newInvoker(t, config, first, second)
	d := newDouble(t, inv)
	answers(d)
	d.run(first, "")
	if got := text(t, newDouble(t, inv).run(second, "")); !matches(got, "failed_precondition: Call after the attempt was over*\nfailed_precondition: Await after the attempt was over*") || len(d.calls()) != 1 {
		t.Error(got, len(d.calls()))
	}
}

func TestCallsOfATransactionAreTraced(t *testing.T) {
	recorder := tracetest.NewSpanRecorder()
	trial{config: inprocess.Config{TracerProvider: sdktrace.NewTracerProvider(sdktrace.WithSpanProcessor(recorder))}, prepare: func(d *double) {
		d.traceparent = traceparent
		d.answer = func(invoke *recordv1.Invoke) *recordv1.Result {
			if invoke.Target.Key == "bad" {
				return &recordv1.Result{Error: &recordv1.Error{Code: uint32(actor.Aborted), Message: "no"}}
			}
			return echo(invoke)
		}
	}, run: func(ctx actor.Context, _ *apipb.Mixin) (*apipb.Mixin, error) {
		_, _ = ask(ctx, ctx, "bad", "q")
		_, err := ask(ctx, ctx, "good", "q")
		return nil, err
	}, check: func(t *testing.T, d *double, _ string) {
		var spans []string
		for i, span := range recorder.Ended() {
			spans = append(spans, span.Name()+" "+span.Status().Description)
			if span.SpanContext().TraceID().String() != traceparent[3:35] {
				t.Errorf("%s is in another trace", span.Name())
			}
			if made := d.calls(); i < len(made) && !strings.Contains(made[i].Traceparent, span.SpanContext().SpanID().String()) {
				t.Errorf("call %d carries %s", i+1, made[i].Traceparent)
			}
		}
		if got := strings.Join(spans, "|"); got != "call t.Other/Ask no|call t.Other/Ask |attempt t.Thing/Do " {
			t.Error(got)
		}
	}}.test(t)
	recorder.Reset()
	trial{config: inprocess.Config{TracerProvider: sdktrace.NewTracerProvider(sdktrace.WithSpanProcessor(recorder))}, run: ways["waits"].run, during: func(d *double) {
		d.abort(errors.New("leadership lost"))
	}}.test(t)
	if began, ended := len(recorder.Started()), len(recorder.Ended()); began != 2 || ended != 2 {
		t.Errorf("%d spans began and %d ended", began, ended)
	}
}

func BenchmarkTransactionTwoCalls(b *testing.B) {
	desc := method("t.Thing", "Do", actor.ModeTransaction, func(ctx actor.Context, _ *apipb.Mixin) (*apipb.Mixin, error) {
		one, two := askAsync(ctx, "1"), askAsync(ctx, "2")
		if _, err := one.Await(ctx); err != nil {
			return nil, err
		}
		return two.Await(ctx)
	})
	inv := newInvoker(b, quiet(), desc)
	host := &promptHost{idleHost: idleHost{make(chan *invoker.Outcome, 1)}}
	target := invocation.Target{Service: "t.Thing", Key: "k", Handler: "Do"}
	b.ReportAllocs()
	for b.Loop() {
		host.mu.Lock() // until running is known
		host.running = inv.Start(&invoker.Attempt{Number: 1, Target: target, Mode: invocation.ModeTransaction, Host: host})
		host.mu.Unlock()
		if outcome := <-host.finished; outcome.Result.Error != nil {
			b.Fatal(outcome.Result.Error)
		}
	}
}

// promptHost answers calls at once.
type promptHost struct {
	idleHost
	mu      sync.Mutex
	running invoker.Running
}

func (h *promptHost) Call(_ *invoker.Attempt, index uint32, _ *recordv1.Invoke) {
	h.mu.Lock()
	running := h.running
	h.mu.Unlock()
	running.Notify(index, &recordv1.Completion{Entry: index, Result: &recordv1.Result{}})
}
