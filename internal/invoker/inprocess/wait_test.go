package inprocess_test

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/apipb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/perdure/perdure/actor"
	"github.com/perdure/perdure/internal/invoker/inprocess"
	recordv1 "github.com/perdure/perdure/internal/record/v1"
)

func TestCancelIsToldOnce(t *testing.T) {
	for name, crash := range map[string]func() bool{"calm": nil, "crash at every entry": always} {
		t.Run(name, func(t *testing.T) {
			durably(t, quiet(), func(d *double) { d.answer = echo; d.crash = crash }, func(ctx actor.Context, _ *apipb.Mixin) (*apipb.Mixin, error) {
				var saga actor.Saga
				number(ctx).Set(wrapperspb.Int64(1))
				saga.Add(func(ctx context.Context) error {
					_, err := ask(ctx, nil, "undo", "1")
					return err
				})
				saga.Add(func(ctx context.Context) error {
					return actor.Do(ctx, "undo 2", func(context.Context) error { return actor.Errorf(actor.Internal, "cannot") })
				})
				err := actor.Sleep(ctx, 24*time.Hour)
				if !errors.Is(err, actor.ErrCanceled) {
					return nil, actor.Errorf(actor.Internal, "sleep ended with %v", err)
				}
				if err := actor.Sleep(ctx, time.Second); err != nil {
					return nil, actor.Errorf(actor.Internal, "told twice: %v", err)
				}
				return nil, saga.Fail(ctx, err)
			}, func(d *double) {
				time.Sleep(time.Hour)
				d.cancel()
			}, func(t *testing.T, d *double, got string) {
				if got != "canceled: the invocation was cancelled; undoing it failed too: internal: cannot" {
					t.Error(got)
				}
				var undone bool
				for _, entry := range d.entries() {
					undone = undone || entry.GetCall().GetInvoke().GetTarget().GetKey() == "undo"
				}
				if !undone {
					t.Error("the first step was not undone")
				}
			})
		})
	}
}

func TestCancelEndsARun(t *testing.T) {
	for name, crash := range map[string]func() bool{"calm": nil, "crash at every entry": always} {
		t.Run(name, func(t *testing.T) {
			durably(t, quiet(), func(d *double) { d.crash = crash }, func(ctx actor.Context, _ *apipb.Mixin) (*apipb.Mixin, error) {
				err := actor.Do(ctx, "long", func(ctx context.Context) error {
					<-ctx.Done()
					return ctx.Err()
				})
				again := actor.Do(ctx, "clean up", func(context.Context) error { return nil })
				return reply(fmt.Sprint(errors.Is(err, actor.ErrCanceled), again)), nil
			}, func(d *double) {
				time.Sleep(time.Second)
				d.cancel()
			}, func(t *testing.T, _ *double, got string) {
				if got != "true <nil>" {
					t.Error(got)
				}
			})
		})
	}
}

func TestDerivedContextEndsAWait(t *testing.T) {
	suspending := quiet()
	suspending.InactivityTimeout = inprocess.SuspendAtOnce
	crashes := 0
	for name, test := range map[string]struct {
		config inprocess.Config
		crash  func() bool
	}{
		"calm": {quiet(), nil}, "suspending": {suspending, nil},
		"crash": {quiet(), func() bool { crashes++; return crashes > 1 }},
	} {
		t.Run(name, func(t *testing.T) {
			durably(t, test.config, func(d *double) { d.crash = test.crash }, func(ctx actor.Context, _ *apipb.Mixin) (*apipb.Mixin, error) {
				timed, cancel := context.WithTimeout(ctx, 5*time.Second)
				defer cancel()
				future := actor.After(ctx, time.Minute)
				_, err := future.Await(timed)
				if !errors.Is(err, context.DeadlineExceeded) || actor.CodeOf(err) != actor.DeadlineExceeded {
					return nil, actor.Errorf(actor.Internal, "got %v", err)
				}
				_, err = future.Await(ctx) // it can be awaited again
				return reply(fmt.Sprint(err)), err
			}, nil, func(t *testing.T, d *double, got string) {
				if got != "<nil>" {
					t.Error(got)
				}
				wait := d.entries()[1].GetWait()
				if wait.GetOutcome() != recordv1.WaitOutcome_WAIT_OUTCOME_DEADLINE {
					t.Errorf("entry 2 is %v", d.entries()[1])
				}
			})
		})
	}
}

func TestSelectReplaysItsWinner(t *testing.T) {
	durably(t, quiet(), func(d *double) { d.maxAttempts = 5 }, func(ctx actor.Context, _ *apipb.Mixin) (*apipb.Mixin, error) {
		slow, fast := actor.After(ctx, time.Hour), actor.After(ctx, time.Minute)
		winner, err := actor.Select(ctx, slow, fast)
		if err != nil {
			return nil, err
		}
		if _, err := slow.Await(ctx); err != nil { // by now both have completed
			return nil, err
		}
		if ctx.Attempt() < 3 {
			return nil, errors.New("again")
		}
		return reply(fmt.Sprint(winner)), nil
	}, nil, func(t *testing.T, d *double, got string) {
		if got != "1" {
			t.Errorf("the winner is %s", got)
		}
	})
}

func TestSuspendsAfterInactivity(t *testing.T) {
	config := quiet()
	config.StepTimeout, config.InactivityTimeout = -1, time.Minute
	durably(t, config, nil, func(ctx actor.Context, _ *apipb.Mixin) (*apipb.Mixin, error) {
		if err := actor.Sleep(ctx, 30*time.Second); err != nil { // shorter than the timeout
			return nil, err
		}
		aside := actor.RunAsync(ctx, "slow", func(context.Context) (int, error) { time.Sleep(time.Hour); return 1, nil })
		if _, err := aside.Await(ctx); err != nil { // not suspended: the closure would be lost
			return nil, err
		}
		return nil, actor.Sleep(ctx, time.Hour)
	}, func(d *double) {
		time.Sleep(time.Hour + 10*time.Minute)
		d.mu.Lock()
		defer d.mu.Unlock()
		if !d.mu.suspended || len(d.mu.waitingFor) != 1 || d.mu.waitingFor[0] != 3 {
			t.Errorf("suspended %v for %v", d.mu.suspended, d.mu.waitingFor)
		}
	}, func(t *testing.T, d *double, got string) {
		if d.mu.suspensions != 1 || d.mu.number != 2 || got != "" {
			t.Error(d.mu.suspensions, d.mu.number, got)
		}
	})
}
