package inprocess_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/protobuf/types/known/apipb"

	"github.com/perdure/perdure/actor"
	"github.com/perdure/perdure/internal/invoker/inprocess"
	recordv1 "github.com/perdure/perdure/internal/record/v1"
)

// later is a future that succeeds, or fails with code aborted, after so many minutes.
func later(ctx actor.Context, minutes int, fails bool) actor.Future[*apipb.Mixin] {
	return actor.InvokeAsync[*apipb.Mixin](ctx, ctx, called, fmt.Sprint(minutes, fails), &apipb.Mixin{}, nil)
}

// afterMinutes completes calls as later says.
func afterMinutes(d *double) {
	d.onAppend = func(index uint32, entry *recordv1.Entry) {
		if entry.GetCall() == nil {
			return
		}
		var minutes int
		var fails bool
		key := entry.GetCall().GetInvoke().GetTarget().GetKey()
		if _, err := fmt.Sscan(key, &minutes, &fails); err != nil {
			d.t.Error(err)
		}
		result := value(d.t, reply(key))
		if fails {
			result = &recordv1.Result{Error: &recordv1.Error{Code: uint32(actor.Aborted), Message: key}}
		}
		d.mu.timers = append(d.mu.timers, time.AfterFunc(time.Duration(minutes)*time.Minute, func() { d.complete(index, result) }))
	}
}

// manners are how a handler may be disturbed: what it sees must be the same in all.
func manners() map[string]func() (inprocess.Config, func() bool) {
	suspending := quiet()
	suspending.InactivityTimeout = inprocess.SuspendAtOnce
	patient := quiet()
	patient.InactivityTimeout = -1
	return map[string]func() (inprocess.Config, func() bool){
		"calm":                 func() (inprocess.Config, func() bool) { return patient, nil },
		"crash at every entry": func() (inprocess.Config, func() bool) { return patient, always },
		"suspending":           func() (inprocess.Config, func() bool) { return suspending, nil },
		"both":                 func() (inprocess.Config, func() bool) { return suspending, always },
	}
}

func TestCombinators(t *testing.T) {
	for name, test := range map[string]struct {
		run handle
		// want, and how many minutes until then.
		want    string
		minutes int
		// entries in the journal beside the calls.
		entries int
		// suspensions if it suspends at every wait and nothing crashes.
		suspensions int
	}{
		"all": {func(ctx actor.Context, _ *apipb.Mixin) (*apipb.Mixin, error) {
			all, err := actor.All(ctx, later(ctx, 3, false), later(ctx, 1, false), later(ctx, 2, false))
			return reply(fmt.Sprint(all[0].Root, all[1].Root, all[2].Root, err)), nil
		}, "3 false1 false2 false<nil>", 3, 0, 1},
		"all, one fails": {func(ctx actor.Context, _ *apipb.Mixin) (*apipb.Mixin, error) {
			all, err := actor.All(ctx, later(ctx, 30, false), later(ctx, 5, true), later(ctx, 2, true))
			return reply(fmt.Sprint(all, err)), nil
		}, "[] aborted: 2 true", 2, 1, 1},
		"any": {func(ctx actor.Context, _ *apipb.Mixin) (*apipb.Mixin, error) {
			one, err := actor.Any(ctx, later(ctx, 9, false), later(ctx, 1, true), later(ctx, 3, false))
			return reply(fmt.Sprint(one.GetRoot(), err)), nil
		}, "3 false<nil>", 3, 1, 1},
		"any, none succeeds": {func(ctx actor.Context, _ *apipb.Mixin) (*apipb.Mixin, error) {
			one, err := actor.Any(ctx, later(ctx, 2, true), later(ctx, 1, true))
			return reply(fmt.Sprint(one.GetRoot(), err)), nil
		}, "aborted: none of 2 succeeded; aborted: 2 true; aborted: 1 true", 2, 0, 1},
		"race": {func(ctx actor.Context, _ *apipb.Mixin) (*apipb.Mixin, error) {
			one, err := actor.Race(ctx, later(ctx, 2, false), later(ctx, 1, true))
			return reply(fmt.Sprint(one.GetRoot(), err)), nil
		}, "aborted: 1 true", 1, 1, 1},
		"settled": {func(ctx actor.Context, _ *apipb.Mixin) (*apipb.Mixin, error) {
			one, other := later(ctx, 2, false), later(ctx, 4, true)
			err := actor.Settled(ctx, one, other)
			got, oneErr := one.Await(ctx)
			_, otherErr := other.Await(ctx)
			return reply(fmt.Sprint(err, got.GetRoot(), oneErr, otherErr)), nil
		}, "<nil>2 false<nil> aborted: 4 true", 4, 0, 1},
		"timeout passes": {func(ctx actor.Context, _ *apipb.Mixin) (*apipb.Mixin, error) {
			slow := later(ctx, 9, false)
			_, err := actor.WithTimeout(ctx, slow, 5*time.Minute).Await(ctx)
			late := ctx.Now()
			again, againErr := slow.Await(ctx)
			return reply(fmt.Sprint(err, ctx.Now().Sub(late), again.GetRoot(), againErr)), nil
		}, "deadline_exceeded: what was waited for did not complete within 5m0s 4m0s9 false<nil>", 9, 2, 2},
		"in time": {func(ctx actor.Context, _ *apipb.Mixin) (*apipb.Mixin, error) {
			timed := actor.WithTimeout(ctx, later(ctx, 1, false), 5*time.Minute)
			got, err := timed.Await(ctx)
			again, _ := timed.Await(ctx)
			return reply(fmt.Sprint(got.GetRoot(), err, again == got || again.GetRoot() == got.GetRoot())), nil
		}, "1 false<nil> true", 1, 3, 1}, // the timer, the wait, the end of the timer
		"nested": {func(ctx actor.Context, _ *apipb.Mixin) (*apipb.Mixin, error) {
			// The fast half of two pairs, each with a timeout, of which one passes.
			slow := actor.WithTimeout(ctx, actor.RaceAsync(later(ctx, 50, false), later(ctx, 40, false)), 10*time.Minute)
			fast := actor.AnyAsync(later(ctx, 1, true), later(ctx, 3, false))
			first, err := actor.Any(ctx, slow, fast)
			winner, selectErr := actor.Select(ctx, slow, actor.AllAsync(fast, later(ctx, 2, false)))
			_, slowErr := slow.Await(ctx)
			return reply(fmt.Sprint(first.GetRoot(), err, winner, selectErr, slowErr)), nil
		}, "3 false<nil> 1 <nil> deadline_exceeded: what was waited for did not complete within 10m0s", 10, 4, 3},
		"of nothing": {func(ctx actor.Context, _ *apipb.Mixin) (*apipb.Mixin, error) {
			all, err := actor.All[int](ctx)
			_, raceErr := actor.Race[int](ctx)
			_, anyErr := actor.Any[int](ctx)
			_, selectErr := actor.Select(ctx)
			nested := actor.Settled(ctx, actor.AllAsync[int](), actor.RaceAsync[int]())
			return reply(fmt.Sprint(len(all), err, "; ", raceErr, "; ", anyErr, "; ", selectErr, "; ", actor.Settled(ctx), nested)), nil
		}, "0 <nil>; invalid_argument: Race needs at least one future; invalid_argument: Any needs at least one future; invalid_argument: Select needs at least one future; <nil> <nil>", 0, 0, 0},
	} {
		for way, of := range manners() {
			t.Run(name+", "+way, func(t *testing.T) {
				config, crash := of()
				began := time.Time{}
				durably(t, config, func(d *double) { began, d.crash = time.Now(), crash; afterMinutes(d) }, test.run, nil, func(t *testing.T, d *double, got string) {
					if got != test.want {
						t.Errorf("got  %s\nwant %s", got, test.want)
					}
					if took := time.Since(began); took < time.Duration(test.minutes)*time.Minute || took > time.Duration(test.minutes)*time.Minute+time.Second {
						t.Errorf("took %s, want %d minutes", took, test.minutes)
					}
					others := 0
					for _, entry := range d.entries() {
						if entry.GetCall() == nil {
							others++
						}
					}
					if others != test.entries {
						t.Errorf("%d entries beside the calls, want %d: %v", others, test.entries, d.entries())
					}
					if way == "suspending" && d.mu.suspensions != test.suspensions {
						t.Errorf("suspended %d times, want %d", d.mu.suspensions, test.suspensions)
					}
					noRetries(t, d)
				})
			})
		}
	}
}

func TestCancelOfACombination(t *testing.T) {
	for way, of := range manners() {
		t.Run(way, func(t *testing.T) {
			config, crash := of()
			durably(t, config, func(d *double) { d.crash = crash; afterMinutes(d) }, func(ctx actor.Context, _ *apipb.Mixin) (*apipb.Mixin, error) {
				all := actor.AllAsync(actor.After(ctx, 90*time.Minute), actor.AnyAsync(actor.After(ctx, 80*time.Minute), actor.After(ctx, 100*time.Minute)))
				_, err := all.Await(ctx)
				again, againErr := all.Await(ctx) // told once
				return reply(fmt.Sprint(errors.Is(err, actor.ErrCanceled), len(again), againErr)), nil
			}, func(d *double) {
				synctest.Wait()
				time.Sleep(time.Hour)
				d.cancel()
			}, func(t *testing.T, d *double, got string) {
				if got != "true 2 <nil>" {
					t.Error(got)
				}
				noRetries(t, d)
			})
		})
	}
}

// Calls are cancelled with their caller, which hears of it by their end: also when that alone does
// not decide the combination.
func TestCancelOfACombinationOfCalls(t *testing.T) {
	for way, of := range manners() {
		t.Run(way, func(t *testing.T) {
			config, crash := of()
			durably(t, config, func(d *double) { d.crash = crash; afterMinutes(d) }, func(ctx actor.Context, _ *apipb.Mixin) (*apipb.Mixin, error) {
				_, all := actor.AllAsync(later(ctx, 90, false), actor.AnyAsync(later(ctx, 80, true), later(ctx, 100, false))).Await(ctx)
				after := actor.Sleep(ctx, time.Second) // told once
				return reply(fmt.Sprint(errors.Is(all, actor.ErrCanceled), after)), nil
			}, func(d *double) {
				synctest.Wait()
				time.Sleep(time.Hour)
				d.cancel()
			}, func(t *testing.T, d *double, got string) {
				if got != "true <nil>" {
					t.Error(got)
				}
				noRetries(t, d)
			})
		})
		t.Run(way+", beside a timer", func(t *testing.T) {
			config, crash := of()
			durably(t, config, func(d *double) { d.crash = crash; afterMinutes(d) }, func(ctx actor.Context, _ *apipb.Mixin) (*apipb.Mixin, error) {
				call, timer := later(ctx, 90, false), actor.After(ctx, 24*time.Hour)
				err := actor.Settled(ctx, call, timer)
				after := actor.Sleep(ctx, time.Second)
				return reply(fmt.Sprint(errors.Is(err, actor.ErrCanceled), after)), nil
			}, func(d *double) {
				synctest.Wait()
				time.Sleep(time.Hour)
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

func TestContextEndsACombination(t *testing.T) {
	durably(t, quiet(), func(d *double) { d.crash = onlyOnce(d, 3); afterMinutes(d) }, func(ctx actor.Context, _ *apipb.Mixin) (*apipb.Mixin, error) {
		all := actor.AllAsync(later(ctx, 1, false), later(ctx, 2, false))
		timed, cancel := context.WithTimeout(ctx, time.Second)
		defer cancel()
		_, err := all.Await(timed)
		got, again := all.Await(ctx)
		return reply(fmt.Sprint(errors.Is(err, context.DeadlineExceeded), len(got), again)), nil
	}, nil, func(t *testing.T, d *double, got string) {
		if got != "true 2 <nil>" {
			t.Error(got)
		}
		noRetries(t, d)
	})
}

func TestTimerStops(t *testing.T) {
	for way, of := range manners() {
		t.Run(way, func(t *testing.T) {
			config, crash := of()
			began := time.Time{}
			durably(t, config, func(d *double) { began, d.crash = time.Now(), crash }, func(ctx actor.Context, _ *apipb.Mixin) (*apipb.Mixin, error) {
				long, short := actor.After(ctx, 24*time.Hour), actor.After(ctx, time.Minute)
				if _, err := short.Await(ctx); err != nil {
					return nil, err
				}
				see := []any{long.Stop(ctx), long.Stop(ctx), short.Stop(ctx)}
				_, err := long.Await(ctx)
				_, fired := short.Await(ctx)
				winner, selectErr := actor.Select(ctx, actor.NewAwakeable[int](ctx), long)
				return reply(fmt.Sprint(append(see, err, fired, winner, selectErr)...)), nil
			}, nil, func(t *testing.T, d *double, got string) {
				if got != "<nil> <nil> <nil> canceled: the timer was stopped <nil> 1 <nil>" {
					t.Error(got)
				}
				if took := time.Since(began); took > time.Hour {
					t.Errorf("took %s", took)
				}
				noRetries(t, d)
			})
		})
	}
}

func TestStopOfAnothersTimer(t *testing.T) {
	var kept actor.Timer
	durably(t, quiet(), nil, func(ctx actor.Context, _ *apipb.Mixin) (*apipb.Mixin, error) {
		if ctx.Attempt() == 1 {
			kept = actor.After(ctx, time.Minute)
			return nil, errors.New("again")
		}
		_ = actor.After(ctx, time.Minute)
		_, mixed := actor.All(ctx, actor.Future[time.Time](kept), actor.After(ctx, time.Second))
		return reply(fmt.Sprint(kept.Stop(ctx), "; ", mixed)), nil
	}, nil, func(t *testing.T, _ *double, got string) {
		if !strings.Contains(got, "a timer that another handler has made; failed_precondition: All: the futures are not all of the same handler") {
			t.Error(got)
		}
	})
}
