package inprocess_test

import (
	"context"
	"errors"
	"runtime"
	"strings"
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

func readRequest(t *testing.T) *invoker.Read {
	return &invoker.Read{Target: invocation.Target{Service: "t.Thing", Key: "k", Handler: "Look"}, Input: encode(t, reply("hello"))}
}

func closeWithin(t *testing.T, inv *inprocess.Invoker, limit time.Duration) error {
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	defer cancel()
	return inv.Close(ctx)
}

// What heeds neither its ctx nor makes steps can't be stopped: Close gives up and names it.
func TestCloseNamesWhatStillRuns(t *testing.T) {
	stubborn := func(release chan struct{}) handle {
		return func(actor.Context, *apipb.Mixin) (*apipb.Mixin, error) { <-release; return nil, nil }
	}
	for name, test := range map[string]struct {
		mode actor.Mode
		run  func(release chan struct{}) handle
		want string
	}{
		"READ":        {actor.ModeRead, stubborn, "t.Thing/k/Look (inv_*"},
		"TRANSACTION": {actor.ModeTransaction, stubborn, "t.Thing/k/Look (inv_*"},
		"DURABLE":     {actor.ModeDurable, stubborn, "t.Thing/k/Look (inv_*"},
		"call of a READ": {actor.ModeRead, func(chan struct{}) handle {
			return func(ctx actor.Context, _ *apipb.Mixin) (*apipb.Mixin, error) {
				look := method("t.Other", "Look", actor.ModeRead, nil)
				actor.InvokeAsync[*apipb.Mixin](context.WithoutCancel(ctx), ctx, look, "1", &apipb.Mixin{}, nil)
				return reply("done"), nil
			}
		}, "call of t.Other/Look of t.Thing/k/Look (inv_*"},
		"RunAsync": {actor.ModeDurable, func(release chan struct{}) handle {
			return func(ctx actor.Context, _ *apipb.Mixin) (*apipb.Mixin, error) {
				began := make(chan struct{})
				actor.RunAsync(ctx, "mail", func(context.Context) (int, error) { close(began); <-release; return 0, nil })
				<-began
				return nil, nil
			}
		}, `RunAsync "mail" of t.Thing/k/Look (inv_*`},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				release := make(chan struct{})
				desc := method("t.Thing", "Look", test.mode, test.run(release))
				inv := newInvoker(t, quiet(), desc)
				if test.mode == actor.ModeRead {
					request := readRequest(t)
					request.Call = func(context.Context, *recordv1.Invoke) (*recordv1.Result, error) {
						<-release
						return &recordv1.Result{}, nil
					}
					go inv.Read(t.Context(), request)
				} else {
					newDouble(t, inv).start(desc, "")
				}
				synctest.Wait()
				err := closeWithin(t, inv, time.Second)
				if !errors.Is(err, context.DeadlineExceeded) || !matches(err.Error(), "close: still running, since it makes no steps and does not heed its context: "+test.want) {
					t.Error(err)
				}
				if text := err.Error(); strings.Count(text, "t.Thing") != 1 {
					t.Errorf("it names more than what runs: %s", text)
				}
				close(release)
				if err := closeWithin(t, inv, time.Second); err != nil {
					t.Error(err)
				}
			})
		})
	}
}

func TestCloseEndsReads(t *testing.T) {
	for name, run := range map[string]handle{
		"its ctx": func(ctx actor.Context, _ *apipb.Mixin) (*apipb.Mixin, error) { <-ctx.Done(); return nil, ctx.Err() },
		"a call": func(ctx actor.Context, _ *apipb.Mixin) (*apipb.Mixin, error) {
			return actor.Invoke[*apipb.Mixin](ctx, ctx, method("t.Other", "Look", actor.ModeRead, nil), "1", &apipb.Mixin{}, nil)
		},
		"the first of two calls": func(ctx actor.Context, _ *apipb.Mixin) (*apipb.Mixin, error) {
			look := method("t.Other", "Look", actor.ModeRead, nil)
			return actor.Race(ctx, actor.InvokeAsync[*apipb.Mixin](ctx, ctx, look, "1", &apipb.Mixin{}, nil), actor.InvokeAsync[*apipb.Mixin](ctx, ctx, look, "2", &apipb.Mixin{}, nil))
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				inv := newInvoker(t, quiet(), method("t.Thing", "Look", actor.ModeRead, run))
				request := readRequest(t)
				request.Call = func(ctx context.Context, _ *recordv1.Invoke) (*recordv1.Result, error) {
					<-ctx.Done()
					return nil, ctx.Err()
				}
				ended := make(chan string, 1)
				go func() { ended <- text(t, &invoker.Outcome{Result: inv.Read(t.Context(), request)}) }()
				synctest.Wait()
				if err := closeWithin(t, inv, time.Second); err != nil {
					t.Error(err)
				}
				const want = "unavailable: the node is shutting down"
				if got := <-ended; got != want {
					t.Error(got)
				}
				if got := text(t, &invoker.Outcome{Result: inv.Read(t.Context(), request)}); got != want {
					t.Error("after Close:", got)
				}
			})
		})
	}
}

// A handler that has returned does not wait for calls that it did not await.
func TestReadDoesNotWaitForForgottenCalls(t *testing.T) {
	release := make(chan struct{})
	look := method("t.Other", "Look", actor.ModeRead, nil)
	got := read(t, func(ctx actor.Context, _ *apipb.Mixin) (*apipb.Mixin, error) {
		actor.InvokeAsync[*apipb.Mixin](context.WithoutCancel(ctx), ctx, look, "1", &apipb.Mixin{}, nil)
		return reply("done"), nil
	}, func(r *invoker.Read) {
		r.Call = func(context.Context, *recordv1.Invoke) (*recordv1.Result, error) {
			<-release
			return &recordv1.Result{}, nil
		}
	})
	close(release)
	if got != "done" {
		t.Error(got)
	}
}

// A partition that refuses a step aborts the attempt and never grants what waits for the step.
func TestAbortAtTheGateUnwindsAtOnce(t *testing.T) {
	for name, run := range map[string]func(actor.Context) error{
		"Run": func(ctx actor.Context) error {
			return actor.Do(ctx, "pay", func(context.Context) error { return nil })
		},
		"RunAsync": func(ctx actor.Context) error {
			_, err := actor.RunAsync(ctx, "pay", func(context.Context) (int, error) { return 0, nil }).Await(ctx)
			return err
		},
		"a second Run": func(ctx actor.Context) error {
			actor.RunAsync(ctx, "aside", func(context.Context) (int, error) { return 0, nil })
			return actor.Do(ctx, "pay", func(context.Context) error { return nil })
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				unwound, returned := make(chan struct{}), false
				desc := method("t.Thing", "Work", actor.ModeDurable, func(ctx actor.Context, _ *apipb.Mixin) (*apipb.Mixin, error) {
					defer close(unwound)
					err := run(ctx)
					returned = true
					return nil, err
				})
				inv := newInvoker(t, quiet(), desc)
				d := newDouble(t, inv)
				d.hold = true
				d.start(desc, "")
				synctest.Wait()
				began := time.Now()
				d.mu.Lock()
				d.mu.running.Abort(errors.New("a step is too large"))
				d.mu.Unlock()
				<-unwound
				if waited := time.Since(began); waited > 0 || returned {
					t.Error("it took", waited, "and went on", returned)
				}
				d.mu.Lock()
				if d.mu.outcome != nil || len(d.mu.completions) > 0 || len(d.mu.retries) > 0 {
					t.Error("the attempt told its host", d.mu.outcome, d.mu.completions, d.mu.retries)
				}
				d.mu.Unlock()
				if err := closeWithin(t, inv, time.Second); err != nil { // nothing is left at the gate
					t.Error(err)
				}
			})
		})
	}
}

// exits is the handler of a service whose migration ends its goroutine, as the FailNow of a test in it does.
type exits struct{ entered chan struct{} }

func (e exits) StateMigrations() []actor.StateMigration {
	return []actor.StateMigration{actor.MigrateState(1, func(*wrapperspb.Int64Value) (*wrapperspb.Int64Value, error) {
		close(e.entered)
		runtime.Goexit()
		return nil, nil
	})}
}

func TestReadWhoseMigrationExits(t *testing.T) {
	desc := service(method("t.Thing", "Look", actor.ModeRead, func(ctx actor.Context, _ *apipb.Mixin) (*apipb.Mixin, error) {
		return reply(number(ctx).Get().String()), nil
	}))
	desc.StateVersion = 2
	inv, handler := inprocess.New(quiet()), exits{make(chan struct{})}
	if err := inv.Register(desc, handler); err != nil {
		t.Fatal(err)
	}
	request := readRequest(t)
	request.State, request.HasState = encode(t, wrapperspb.Int64(40)), true
	go inv.Read(t.Context(), request)
	<-handler.entered
	if err := closeWithin(t, inv, 20*time.Second); err != nil {
		t.Error(err)
	}
}

// Who has no time to wait still hears nothing of what ends when it is told to.
func TestCloseWithoutTime(t *testing.T) {
	for name, run := range map[string]handle{
		"nothing runs": func(actor.Context, *apipb.Mixin) (*apipb.Mixin, error) { return reply("done"), nil },
		"it heeds its ctx": func(ctx actor.Context, _ *apipb.Mixin) (*apipb.Mixin, error) {
			<-ctx.Done()
			return nil, ctx.Err()
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				desc := method("t.Thing", "Look", actor.ModeTransaction, run)
				inv := newInvoker(t, quiet(), desc)
				newDouble(t, inv).start(desc, "")
				synctest.Wait()
				ctx, cancel := context.WithCancel(t.Context())
				cancel()
				if err := inv.Close(ctx); err != nil {
					t.Error(err)
				}
			})
		})
	}
}
