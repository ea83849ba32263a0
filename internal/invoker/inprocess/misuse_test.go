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

	"github.com/perdure/perdure/actor"
)

func TestStepFromAnotherGoroutine(t *testing.T) {
	durably(t, quiet(), nil, func(ctx actor.Context, _ *apipb.Mixin) (*apipb.Mixin, error) {
		var group sync.WaitGroup
		var err error
		group.Go(func() { err = actor.Sleep(ctx, time.Second) })
		group.Wait()
		return nil, err
	}, nil, func(t *testing.T, d *double, got string) {
		if !matches(got, "failed_precondition: Sleep from another goroutine than the handler's*") || len(d.entries()) != 0 {
			t.Error(got, len(d.entries()))
		}
	})
}

func TestStepInsideAClosure(t *testing.T) {
	durably(t, quiet(), nil, func(ctx actor.Context, _ *apipb.Mixin) (*apipb.Mixin, error) {
		var outer, inner, stub error
		err := actor.Do(ctx, "pay", func(c context.Context) error {
			outer = actor.Sleep(ctx, time.Second)
			inner = actor.Sleep(c, time.Second)
			_, stub = ask(c, ctx, "o", "q")
			return nil
		})
		if err != nil {
			return nil, err
		}
		return reply(fmt.Sprint(outer, "\n", inner, "\n", stub)), nil
	}, nil, func(t *testing.T, _ *double, got string) {
		if !matches(got, "failed_precondition: Sleep inside the closure of Run \"pay\" with the handler's ctx*\nfailed_precondition: Sleep inside the closure of Run \"pay\"*\nfailed_precondition: t.Other/Ask was called inside the closure of Run \"pay\" through the handler's ctx: make the stub with an *actor.Client there*") {
			t.Error(got)
		}
	})
}

func TestPanicsAndUncodedErrorsAreRetried(t *testing.T) {
	for name, fail := range map[string]func(ctx actor.Context) error{
		"panic": func(actor.Context) error { panic("broken") },
		"error": func(actor.Context) error { return errors.New("broken") },
		"in run": func(ctx actor.Context) error {
			return actor.Do(ctx, "x", func(context.Context) error { panic("broken") })
		},
		"aside": func(ctx actor.Context) error {
			_, err := actor.RunAsync(ctx, "x", func(context.Context) (int, error) { panic("broken") }).Await(ctx)
			return err
		},
	} {
		t.Run(name, func(t *testing.T) {
			durably(t, quiet(), nil, func(ctx actor.Context, _ *apipb.Mixin) (*apipb.Mixin, error) {
				if ctx.Attempt() < 3 {
					return nil, fail(ctx)
				}
				if strings.HasPrefix(name, "in run") {
					return nil, actor.Do(ctx, "x", func(context.Context) error { return nil })
				}
				if name == "aside" {
					_, err := actor.RunAsync(ctx, "x", func(context.Context) (int, error) { return 0, nil }).Await(ctx)
					return nil, err
				}
				return nil, nil
			}, nil, func(t *testing.T, d *double, got string) {
				_, retries := d.attempts()
				if len(retries) != 2 || !strings.Contains(retries[0].Message, "broken") || got != "" {
					t.Error(got, retries)
				}
			})
		})
	}
}

func TestBlockedDurableIsGivenUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		release := make(chan struct{})
		desc := method("t.Thing", "Work", actor.ModeDurable, func(ctx actor.Context, _ *apipb.Mixin) (*apipb.Mixin, error) {
			if err := actor.Sleep(ctx, time.Hour); err != nil { // a wait is no lack of steps
				return nil, err
			}
			if ctx.Attempt() == 1 {
				<-release
				_ = actor.Sleep(ctx, time.Second) // unwinds
				t.Error("the step returned")
			}
			return reply("second"), nil
		})
		desc.Options.StepTimeout = 10 * time.Second
		config := quiet()
		config.InactivityTimeout = -1
		inv := newInvoker(t, config, desc)
		d := newDouble(t, inv)
		got := text(t, d.run(desc, ""))
		close(release)
		if _, retries := d.attempts(); got != "second" || len(retries) != 1 || !strings.Contains(retries[0].Message, "step_timeout") {
			t.Error(got, retries)
		}
		if err := inv.Close(t.Context()); err != nil {
			t.Error(err)
		}
	})
}

func TestUnwindingRunsDefersButNoSteps(t *testing.T) {
	var mu sync.Mutex
	var unwound []string
	note := func(text string) { mu.Lock(); unwound = append(unwound, text); mu.Unlock() }
	durably(t, quiet(), nil, func(ctx actor.Context, _ *apipb.Mixin) (*apipb.Mixin, error) {
		defer note("outer")
		defer func() {
			if ctx.Attempt() == 1 {
				defer note("inner")
				_ = actor.Do(ctx, "in a defer", func(context.Context) error { note("effect"); return nil })
				note("went on")
			}
		}()
		defer func() {
			if recover() != nil {
				note("recovered")
			}
		}()
		return nil, actor.Sleep(ctx, time.Hour)
	}, func(d *double) {
		synctest.Wait()
		d.mu.Lock()
		d.mu.running.Abort(errors.New("leadership lost"))
		d.mu.Unlock()
		synctest.Wait()
		mu.Lock()
		if got := strings.Join(unwound, " "); got != "inner outer" {
			t.Error(got)
		}
		mu.Unlock()
		d.mu.Lock()
		d.startLocked()
		d.mu.Unlock()
	}, func(t *testing.T, d *double, got string) {
		if len(d.entries()) != 1 {
			t.Errorf("%d entries", len(d.entries()))
		}
	})
}

// A RunAsync that nobody awaits ends with its handler, wherever it is.
func TestClosuresEndWithTheirHandler(t *testing.T) {
	for name, hold := range map[string]bool{"at the gate": true, "running": false} {
		t.Run(name, func(t *testing.T) {
			durably(t, quiet(), func(d *double) { d.hold = hold }, func(ctx actor.Context, _ *apipb.Mixin) (*apipb.Mixin, error) {
				actor.RunAsync(ctx, "forgotten", func(ctx context.Context) (int, error) {
					<-ctx.Done()
					return 0, ctx.Err()
				})
				return reply("done"), nil
			}, nil, func(t *testing.T, d *double, got string) { // durably closes the invoker, which waits for it
				if got != "done" || len(d.mu.completions) != 0 {
					t.Error(got, d.mu.completions)
				}
			})
		})
	}
}
