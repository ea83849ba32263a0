package inprocess_test

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/protobuf/types/known/apipb"

	"github.com/perdure/perdure/actor"
)

var errFlaky = errors.New("not yet")

// TestRunPolicy makes each Run fail in every way a handler may be disturbed: what it returns, how
// often it is tried and how long it takes are the same in all.
func TestRunPolicy(t *testing.T) {
	for name, test := range map[string]struct {
		policy actor.RunPolicy
		// fail is the error of try n, from 1; nil: it succeeds.
		fail func(n int) error
		want string
		// tries, and how long they take.
		tries int
		took  time.Duration
	}{
		"gives up": {
			actor.RunPolicy{MaxAttempts: 4, InitialInterval: time.Second},
			func(int) error { return errFlaky }, "unknown: the last of 4 tries: not yet", 4, 7 * time.Second,
		},
		"never again":      {actor.RunPolicy{MaxAttempts: 1}, func(int) error { return errFlaky }, "unknown: not yet", 1, 0},
		"factor":           {actor.RunPolicy{InitialInterval: time.Second, Factor: 3, MaxInterval: 5 * time.Second}, upTo(4, errFlaky), "<nil>", 5, 14 * time.Second},
		"half an interval": {actor.RunPolicy{InitialInterval: time.Second, Factor: 0.5}, upTo(2, errFlaky), "<nil>", 3, 3 * time.Second},
		"out of time": {
			actor.RunPolicy{MaxElapsed: 10 * time.Second, InitialInterval: time.Second},
			func(int) error { return errFlaky }, "unknown: given up after 4 tries in 10s: not yet", 4, 7 * time.Second,
		},
		"asks for a wait": {
			actor.RunPolicy{},
			upTo(2, actor.RetryAfter(actor.Errorf(actor.Unavailable, "busy"), time.Hour)), "<nil>", 3, 2 * time.Hour,
		},
		"asks for none": {actor.RunPolicy{InitialInterval: time.Minute}, upTo(1, actor.RetryAfter(actor.Errorf(actor.Unavailable, "busy"), 0)), "<nil>", 2, time.Minute},
		"asks too often": {
			actor.RunPolicy{MaxAttempts: 2},
			upTo(5, fmt.Errorf("call: %w", actor.RetryAfter(actor.Errorf(actor.Unavailable, "busy"), time.Hour))), "unavailable: the last of 2 tries: busy", 2, time.Hour,
		},
		"asks for too much": {
			actor.RunPolicy{MaxElapsed: time.Minute},
			upTo(5, actor.RetryAfter(errFlaky, time.Hour)), "unknown: given up after 1 tries in 1m0s: not yet", 1, 0,
		},
		"a code ends it": {actor.RunPolicy{}, upTo(5, actor.Errorf(actor.Unavailable, "down")), "unavailable: down", 1, 0},
		"unless it is retryable": {
			actor.RunPolicy{InitialInterval: time.Second, Retryable: func(err error) bool { return actor.CodeOf(err) == actor.Unavailable }},
			upTo(2, actor.Errorf(actor.Unavailable, "down")), "<nil>", 3, 3 * time.Second,
		},
		"what is not": {
			actor.RunPolicy{Retryable: func(err error) bool { return !errors.Is(err, errFlaky) }},
			upTo(2, errFlaky), "unknown: not yet", 1, 0,
		},
	} {
		for way, of := range manners() {
			for kind, run := range map[string]func(ctx actor.Context, fn func(context.Context) (int, error)) (int, error){
				"Run": func(ctx actor.Context, fn func(context.Context) (int, error)) (int, error) {
					return actor.Run(ctx, "flaky", fn, actor.RunRetry(test.policy))
				},
				"RunAsync": func(ctx actor.Context, fn func(context.Context) (int, error)) (int, error) {
					return actor.RunAsync(ctx, "flaky", fn, actor.RunRetry(test.policy)).Await(ctx)
				},
			} {
				t.Run(name+", "+kind+", "+way, func(t *testing.T) {
					config, crash := of()
					config.StepTimeout = -1
					began, tries := time.Time{}, 0
					durably(t, config, func(d *double) { began, d.crash = time.Now(), crash }, func(ctx actor.Context, _ *apipb.Mixin) (*apipb.Mixin, error) {
						_, err := run(ctx, func(context.Context) (int, error) { tries++; return tries, test.fail(tries) })
						return reply(fmt.Sprint(err)), nil
					}, nil, func(t *testing.T, d *double, got string) {
						if got != test.want || tries != test.tries {
							t.Errorf("got %s after %d tries, want %s after %d", got, tries, test.want, test.tries)
						}
						if took := time.Since(began); took < test.took || took > test.took+100*time.Millisecond {
							t.Errorf("took %s, want %s", took, test.took)
						}
						if way == "suspending" && d.mu.suspensions < tries-1 {
							t.Errorf("suspended %d times in %d tries", d.mu.suspensions, tries)
						}
						noRetries(t, d)
					})
				})
			}
		}
	}
}

// TestStepTimeoutIsOfATry: each try of a Run has the step timeout for itself. That of the tries together
// would end the attempt while they go on as their policy says.
func TestStepTimeoutIsOfATry(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tries := 0
		desc := method("t.Thing", "Work", actor.ModeDurable, func(ctx actor.Context, _ *apipb.Mixin) (*apipb.Mixin, error) {
			got, err := actor.Run(ctx, "slow", func(ctx context.Context) (int, error) {
				tries++
				return tries, errors.Join(doze(ctx, 4*time.Second), upTo(9, errFlaky)(tries))
			}, actor.RunRetry(actor.RunPolicy{InitialInterval: 100 * time.Millisecond, Factor: 1}))
			return reply(fmt.Sprint(got)), err
		})
		desc.Options.StepTimeout = 10 * time.Second
		config := quiet()
		config.InactivityTimeout = -1
		inv := newInvoker(t, config, desc)
		d := newDouble(t, inv)
		if got := text(t, d.run(desc, "")); got != "10" || tries != 10 {
			t.Errorf("got %s after %d tries", got, tries)
		}
		noRetries(t, d)
		if err := inv.Close(t.Context()); err != nil {
			t.Error(err)
		}
	})
}

// upTo fails the first n tries.
func upTo(n int, err error) func(int) error {
	return func(try int) error {
		if try <= n {
			return err
		}
		return nil
	}
}

func TestMaxElapsedIsADeadline(t *testing.T) {
	durably(t, quiet(), nil, func(ctx actor.Context, _ *apipb.Mixin) (*apipb.Mixin, error) {
		_, err := actor.Run(ctx, "slow", func(ctx context.Context) (int, error) { return 0, doze(ctx, time.Hour) },
			actor.RunRetry(actor.RunPolicy{MaxElapsed: 5 * time.Second}))
		return reply(fmt.Sprint(err, ctx.Now().IsZero())), nil
	}, nil, func(t *testing.T, _ *double, got string) {
		if got != "deadline_exceeded: given up after 1 tries in 5s: context deadline exceeded false" {
			t.Error(got)
		}
	})
}

// A closure that hangs and takes the node with it must not be tried for ever.
func TestMaxElapsedOfATryThatNeverEnded(t *testing.T) {
	var over chan struct{}
	durably(t, quiet(), func(*double) { over = make(chan struct{}) }, func(ctx actor.Context, _ *apipb.Mixin) (*apipb.Mixin, error) {
		_, err := actor.Run(ctx, "slow", func(ctx context.Context) (int, error) {
			<-over // of the first attempt only: the second has no time left
			return 0, nil
		}, actor.RunRetry(actor.RunPolicy{MaxElapsed: 5 * time.Second}))
		return reply(fmt.Sprint(err)), nil
	}, func(d *double) {
		time.Sleep(time.Minute)
		d.mu.Lock()
		d.mu.running.Abort(errors.New("crash"))
		d.startLocked()
		d.mu.Unlock()
		<-d.ended
		close(over)
	}, func(t *testing.T, _ *double, got string) {
		if got != "deadline_exceeded: no try ended within 5s" {
			t.Error(got)
		}
	})
}

func TestJitterShortensWaits(t *testing.T) {
	patient := quiet()
	patient.InactivityTimeout = -1 // its tries are counted within one attempt
	waits := map[time.Duration]bool{}
	for range 20 {
		began := time.Time{}
		durably(t, patient, func(*double) { began = time.Now() }, func(ctx actor.Context, _ *apipb.Mixin) (*apipb.Mixin, error) {
			tries := 0
			return nil, actor.Do(ctx, "flaky", func(context.Context) error { tries++; return upTo(1, errFlaky)(tries) },
				actor.RunRetry(actor.RunPolicy{InitialInterval: time.Minute, Jitter: 0.5}))
		}, nil, func(t *testing.T, _ *double, _ string) {
			took := time.Since(began)
			if took < 30*time.Second || took > time.Minute {
				t.Errorf("waited %s", took)
			}
			waits[took] = true
		})
	}
	if len(waits) < 10 {
		t.Errorf("%d different waits of 20", len(waits))
	}
}

// A handler that waits for nothing but closures which wait for their next try holds no goroutine.
func TestSuspendsBetweenTries(t *testing.T) {
	config := quiet()
	config.StepTimeout = -1
	tries := [3]int{}
	durably(t, config, nil, func(ctx actor.Context, _ *apipb.Mixin) (*apipb.Mixin, error) {
		var all []actor.Future[int]
		for i := range tries {
			all = append(all, actor.RunAsync(ctx, fmt.Sprint("flaky ", i), func(context.Context) (int, error) {
				tries[i]++
				return tries[i], upTo(i, actor.RetryAfter(errFlaky, time.Hour))(tries[i])
			}))
		}
		_, err := actor.All(ctx, all...)
		return reply(fmt.Sprint(err)), nil
	}, func(d *double) {
		time.Sleep(10 * time.Minute)
		d.mu.Lock()
		defer d.mu.Unlock()
		if !d.mu.suspended {
			t.Error("not suspended between tries")
		}
	}, func(t *testing.T, d *double, got string) {
		if got != "<nil>" || tries != [3]int{1, 2, 3} || d.mu.suspensions != 2 {
			t.Error(got, tries, d.mu.suspensions)
		}
	})
}

func TestCancelBetweenTries(t *testing.T) {
	for way, of := range manners() {
		t.Run(way, func(t *testing.T) {
			config, crash := of()
			durably(t, config, func(d *double) { d.crash = crash }, func(ctx actor.Context, _ *apipb.Mixin) (*apipb.Mixin, error) {
				err := actor.Do(ctx, "flaky", func(context.Context) error { return actor.RetryAfter(errFlaky, time.Hour) })
				again := actor.Do(ctx, "clean up", func(context.Context) error { return nil })
				return reply(fmt.Sprint(errors.Is(err, actor.ErrCanceled), again)), nil
			}, func(d *double) {
				synctest.Wait()
				time.Sleep(90 * time.Minute)
				d.cancel()
			}, func(t *testing.T, d *double, got string) {
				if got != "true <nil>" {
					t.Error(got)
				}
				noRetries(t, d)
			})
		})
	}
}

func TestHandlerAsksForAWait(t *testing.T) {
	durably(t, quiet(), nil, func(ctx actor.Context, _ *apipb.Mixin) (*apipb.Mixin, error) {
		if ctx.Attempt() == 1 {
			return nil, actor.RetryAfter(actor.Errorf(actor.ResourceExhausted, "full"), time.Hour)
		}
		return reply("done"), nil
	}, nil, func(t *testing.T, d *double, got string) {
		if got != "done" || len(d.mu.retryAfter) != 1 || d.mu.retryAfter[0] != time.Hour || d.mu.retries[0].Message != "full" {
			t.Error(got, d.mu.retryAfter, d.mu.retries)
		}
	})
}
