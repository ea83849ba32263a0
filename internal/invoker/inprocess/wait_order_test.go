package inprocess_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/protobuf/types/known/apipb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/perdure/perdure/actor"
	"github.com/perdure/perdure/internal/invoker/inprocess"
	recordv1 "github.com/perdure/perdure/internal/record/v1"
)

// onlyOnce crashes an attempt at its first entry after the journal has had length entries.
func onlyOnce(d *double, length int) func() bool {
	crashed := false
	return func() bool {
		if crashed || len(d.mu.journal) < length {
			return false
		}
		crashed = true
		return true
	}
}

func noRetries(t *testing.T, d *double) {
	t.Helper()
	if _, retries := d.attempts(); len(retries) > 0 {
		t.Error(retries[0].Message)
	}
}

// A wait that completed leaves no entry: what is ahead on replay may be the entry of the next one.
func TestAwaitThenAnotherWaitThatIsRecorded(t *testing.T) {
	patient := quiet()
	patient.InactivityTimeout = -1
	for length := 1; length <= 5; length++ {
		t.Run(fmt.Sprintf("cancelled, crash at entry %d", length), func(t *testing.T) {
			durably(t, patient, func(d *double) {
				d.maxAttempts, d.crash = 10, onlyOnce(d, length)
				d.answer = func(invoke *recordv1.Invoke) *recordv1.Result {
					if invoke.Target.Key == "b" {
						return nil
					}
					return echo(invoke)
				}
			}, func(ctx actor.Context, _ *apipb.Mixin) (*apipb.Mixin, error) {
				a := actor.InvokeAsync[*apipb.Mixin](ctx, ctx, called, "a", &apipb.Mixin{}, nil)
				b := actor.InvokeAsync[*apipb.Mixin](ctx, ctx, called, "b", &apipb.Mixin{}, nil)
				if _, err := a.Await(ctx); err != nil {
					return nil, err
				}
				if _, err := b.Await(ctx); !errors.Is(err, actor.ErrCanceled) {
					return nil, actor.Errorf(actor.Internal, "b ended with %v", err)
				}
				if _, err := a.Await(ctx); err != nil { // settled: no wait
					return nil, err
				}
				return reply("undone"), actor.Do(ctx, "undo", func(context.Context) error { return nil })
			}, func(d *double) {
				time.Sleep(time.Hour)
				d.cancel()
			}, func(t *testing.T, d *double, got string) {
				if got != "undone" {
					t.Error(got)
				}
				noRetries(t, d)
			})
		})
	}
	t.Run("Select", func(t *testing.T) {
		durably(t, quiet(), func(d *double) { d.maxAttempts, d.crash, d.answer = 20, always, echo }, func(ctx actor.Context, _ *apipb.Mixin) (*apipb.Mixin, error) {
			a := actor.InvokeAsync[*apipb.Mixin](ctx, ctx, called, "a", &apipb.Mixin{}, nil)
			x, y := actor.After(ctx, time.Hour), actor.After(ctx, time.Minute)
			if _, err := a.Await(ctx); err != nil {
				return nil, err
			}
			first, err := actor.Select(ctx, x, y)
			if err != nil {
				return nil, err
			}
			second, err := actor.Select(ctx, x, y) // an entry of its own
			return reply(fmt.Sprint(first, second)), err
		}, nil, func(t *testing.T, d *double, got string) {
			if got != "1 1" {
				t.Error(got)
			}
			noRetries(t, d)
		})
	})
}

// What completed while the handler was suspended is seen before a cancel, or a saga would not undo
// it. The cancel is told at the next wait.
func TestCompletionComesBeforeCancel(t *testing.T) {
	suspending := quiet()
	suspending.InactivityTimeout = inprocess.SuspendAtOnce
	for name, wait := range map[string]func(actor.Context, actor.Future[*apipb.Mixin], actor.Future[time.Time]) error{
		"Await": func(ctx actor.Context, paid actor.Future[*apipb.Mixin], _ actor.Future[time.Time]) error {
			_, err := paid.Await(ctx)
			return err
		},
		"Select": func(ctx actor.Context, paid actor.Future[*apipb.Mixin], late actor.Future[time.Time]) error {
			_, err := actor.Select(ctx, late, paid)
			return err
		},
	} {
		for crashName, crash := range map[string]func() bool{"calm": nil, "crash at every entry": always} {
			t.Run(name+", "+crashName, func(t *testing.T) {
				durably(t, suspending, func(d *double) { d.maxAttempts, d.crash = 20, crash }, func(ctx actor.Context, _ *apipb.Mixin) (*apipb.Mixin, error) {
					paid := actor.InvokeAsync[*apipb.Mixin](ctx, ctx, called, "pay", &apipb.Mixin{}, nil)
					late := actor.After(ctx, 24*time.Hour)
					if err := wait(ctx, paid, late); err != nil {
						return nil, actor.Errorf(actor.Internal, "the payment ended with %v", err)
					}
					if _, err := late.Await(ctx); !errors.Is(err, actor.ErrCanceled) {
						return nil, actor.Errorf(actor.Internal, "the next wait ended with %v", err)
					}
					return reply("undone"), nil
				}, func(d *double) {
					synctest.Wait()
					d.mu.Lock()
					defer d.mu.Unlock()
					if !d.mu.suspended {
						t.Error("the handler is not suspended")
					}
					d.completeLocked(1, value(t, reply("paid"))) // starts the next attempt
					d.mu.canceled = true
					d.mu.running.Cancel()
				}, func(t *testing.T, d *double, got string) {
					if got != "undone" {
						t.Error(got)
					}
					noRetries(t, d)
				})
			})
		}
	}
}

// watched is what the attempts at a handler have seen: each sees what the one before it saw.
type watched struct {
	t  *testing.T
	mu struct {
		sync.Mutex
		longest []string
	}
}

func (w *watched) see(position int, seen string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if position == len(w.mu.longest) {
		w.mu.longest = append(w.mu.longest, seen)
	} else if was := w.mu.longest[position]; was != seen {
		w.t.Errorf("step %d was %q, in a later attempt %q", position, was, seen)
	}
}

// TestWaitsReplayInAnyOrder runs arbitrary handlers made of every kind of wait, crashes them at
// arbitrary entries and instants, and cancels them at an arbitrary one: every attempt sees what
// the one before it saw.
func TestWaitsReplayInAnyOrder(t *testing.T) {
	notRemotely(t)
	seeds := uint64(600)
	if testing.Short() {
		seeds = 50
	}
	for seed := range seeds {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			outside := rand.New(rand.NewPCG(seed, 1)) // belongs to the double's lock, once it runs
			config := quiet()
			config.StepTimeout = -1
			config.InactivityTimeout = []time.Duration{-1, inprocess.SuspendAtOnce, 30 * time.Second}[outside.IntN(3)]
			crashiness, cancelAt := outside.Float64()/2, time.Duration(outside.IntN(400))*time.Second
			seen := &watched{t: t}
			durably(t, config, func(d *double) {
				d.crash = func() bool { return outside.Float64() < crashiness }
				d.onAppend = func(index uint32, entry *recordv1.Entry) {
					if entry.GetAwakeable() != nil || entry.GetCall() != nil {
						d.mu.timers = append(d.mu.timers, time.AfterFunc(time.Duration(outside.IntN(120))*time.Second, func() {
							if index%3 == 0 {
								d.complete(index, &recordv1.Result{Error: &recordv1.Error{Code: uint32(actor.Aborted), Message: fmt.Sprint("failure ", index)}})
								return
							}
							d.complete(index, value(d.t, reply(fmt.Sprint("result ", index))))
						}))
					}
				}
			}, func(ctx actor.Context, _ *apipb.Mixin) (*apipb.Mixin, error) {
				return reply(arbitrary(ctx, rand.New(rand.NewPCG(seed, 2)), seen)), nil
			}, func(d *double) {
				var disturbers sync.WaitGroup
				disturbers.Go(func() { time.Sleep(cancelAt); d.cancel() })
				disturbers.Go(func() {
					for range 8 {
						time.Sleep(29 * time.Second)
						d.mu.Lock()
						if d.mu.current != nil && !d.mu.suspended && outside.Float64() < 2*crashiness {
							d.mu.running.Abort(errors.New("crash"))
							d.startLocked()
						}
						d.mu.Unlock()
					}
				})
				disturbers.Wait()
			}, func(t *testing.T, d *double, got string) {
				if !strings.HasSuffix(got, " end") {
					t.Error(got)
				}
				noRetries(t, d)
			})
		})
	}
}

// arbitrary makes steps that choice chooses and returns what it saw.
func arbitrary(ctx actor.Context, choice *rand.Rand, seen *watched) string {
	var futures []actor.Future[*apipb.Mixin]
	var trace []string
	note := func(step string, result ...any) {
		line := fmt.Sprint(step, result, ctx.Now().UnixMilli(), ctx.Rand().Uint32())
		seen.see(len(trace), line)
		trace = append(trace, line)
	}
	for step := range 14 {
		timed, cancel := context.Context(ctx), context.CancelFunc(func() {})
		if choice.IntN(4) == 0 {
			timed, cancel = context.WithTimeout(ctx, time.Duration(choice.IntN(60))*time.Second)
		}
		kind, pause := choice.IntN(13), time.Duration(choice.IntN(60))*time.Second
		if len(futures) == 0 {
			kind %= 3
		}
		one, other := 0, 0
		if len(futures) > 0 {
			one, other = choice.IntN(len(futures)), choice.IntN(len(futures))
		}
		switch kind {
		case 0:
			futures = append(futures, actor.InvokeAsync[*apipb.Mixin](ctx, ctx, called, fmt.Sprint(step), &apipb.Mixin{}, nil))
		case 1:
			future := actor.NewAwakeable[*apipb.Mixin](ctx)
			futures = append(futures, future)
		case 2:
			futures = append(futures, actor.RunAsync(timed, fmt.Sprint("aside ", step), func(ctx context.Context) (*apipb.Mixin, error) {
				return reply(fmt.Sprint("aside ", step)), doze(ctx, pause)
			}))
		case 3, 4:
			result, err := futures[one].Await(timed)
			note("await", one, result.GetRoot(), err)
		case 5:
			winner, err := actor.Select(timed, futures[one], futures[other])
			note("select", one, other, winner, err)
		case 6:
			winner, err := actor.Select(timed, futures[one])
			note("select", one, winner, err)
		case 7:
			result, err := actor.Run(timed, fmt.Sprint("run ", step), func(ctx context.Context) (int, error) { return step, doze(ctx, pause) })
			note("run", result, err)
		case 9:
			result, err := nested(choice, ctx, futures, 3).Await(timed)
			note("nested", result.GetRoot(), err)
		case 10:
			both := actor.AllAsync(nested(choice, ctx, futures, 2), futures[other], nested(choice, ctx, futures, 1))
			winner, err := actor.Select(timed, both, futures[one])
			note("select nested", winner, err)
			results, err := both.Await(timed)
			for _, result := range results {
				note("of all", result.GetRoot())
			}
			note("all", len(results), err)
		case 11:
			timer := actor.After(ctx, pause)
			note("settled", actor.Settled(timed, timer, nested(choice, ctx, futures, 2), futures[other]))
			note("stop", timer.Stop(ctx))
			_, err := timer.Await(timed)
			note("stopped", err)
		case 12:
			change := fmt.Sprint("change ", choice.IntN(3))
			note("version", actor.Version(ctx, change, actor.Unversioned, step))
		case 8:
			number(ctx).Set(wrapperspb.Int64(int64(step)))
			note("sleep", actor.Sleep(timed, pause))
		}
		cancel()
	}
	return strings.Join(trace, "\n") + " end"
}

// nested is an arbitrary combination of the futures.
func nested(choice *rand.Rand, ctx context.Context, futures []actor.Future[*apipb.Mixin], depth int) actor.Future[*apipb.Mixin] {
	if depth == 0 || choice.IntN(3) == 0 {
		return futures[choice.IntN(len(futures))]
	}
	parts := make([]actor.Future[*apipb.Mixin], 1+choice.IntN(3))
	for position := range parts {
		parts[position] = nested(choice, ctx, futures, depth-1)
	}
	switch choice.IntN(4) {
	case 0:
		return actor.AnyAsync(parts...)
	case 1:
		return actor.RaceAsync(parts...)
	case 2:
		return actor.WithTimeout(ctx, parts[0], time.Duration(choice.IntN(60))*time.Second)
	default:
		return actor.AnyAsync(append(parts, actor.RaceAsync(parts...))...)
	}
}

// doze sleeps until ctx ends.
func doze(ctx context.Context, pause time.Duration) error {
	timer := time.NewTimer(pause)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
