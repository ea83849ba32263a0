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
	"github.com/perdure/perdure/internal/invoker"
	"github.com/perdure/perdure/internal/invoker/inprocess"
)

func do(ctx context.Context, name string) {
	_ = actor.Do(ctx, name, func(context.Context) error { return nil })
}

// redeployed runs was until it fails, and then is.
func redeployed(t *testing.T, was, is handle, check func(t *testing.T, d *double, outcome *invoker.Outcome)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		before := method("t.Thing", "Work", actor.ModeDurable, was)
		after := method("t.Thing", "Work", actor.ModeDurable, is)
		patient := quiet()
		patient.InactivityTimeout = -1
		old, deployed := newInvoker(t, patient, before), newInvoker(t, patient, after)
		d := newDouble(t, old)
		d.answer, d.swap, d.maxAttempts = echo, deployed, 3
		outcome := d.run(before, "")
		for _, inv := range []*inprocess.Invoker{old, deployed} {
			if err := inv.Close(t.Context()); err != nil {
				t.Error(err)
			}
		}
		check(t, d, outcome)
	})
}

var errAgain = errors.New("again")

func TestVersion(t *testing.T) {
	// once is a handler without any version.
	once := func(ctx actor.Context, _ *apipb.Mixin) (*apipb.Mixin, error) {
		do(ctx, "one")
		do(ctx, "two")
		return nil, errAgain
	}
	ask := func(change string, lowest, highest int) func(ctx actor.Context) string {
		return func(ctx actor.Context) string { return fmt.Sprint(actor.Version(ctx, change, lowest, highest)) }
	}
	// asking makes each step: a text is a Run, the rest asks for a version. fail makes it fail then.
	asking := func(fail bool, steps ...any) handle {
		return func(ctx actor.Context, _ *apipb.Mixin) (*apipb.Mixin, error) {
			var seen []string
			for _, step := range steps {
				switch step := step.(type) {
				case string:
					do(ctx, step)
				case func(actor.Context) string:
					seen = append(seen, step(ctx))
				}
			}
			if fail {
				return nil, errAgain
			}
			return reply(strings.Join(seen, " ")), nil
		}
	}
	for name, test := range map[string]struct {
		was, is handle
		want    string
	}{
		"added before what was recorded":      {once, asking(false, ask("x", -1, 1), "one", "two"), "-1"},
		"added between":                       {once, asking(false, "one", ask("x", -1, 1), "two", ask("x", -1, 1)), "-1 -1"},
		"added at the end":                    {once, asking(false, "one", "two", ask("x", -1, 1), ask("x", -1, 1)), "1 1"},
		"recorded":                            {asking(true, "one", ask("x", -1, 1), "two"), asking(false, "one", ask("x", -1, 2), "two", ask("x", -1, 2)), "1 1"},
		"two changes":                         {asking(true, ask("x", -1, 1), ask("y", -1, 5)), asking(false, ask("x", -1, 2), ask("y", -1, 6)), "1 5"},
		"asked in another order":              {asking(true, ask("x", -1, 1), ask("y", -1, 5)), asking(false, ask("y", -1, 6), ask("x", -1, 2)), "5 1"},
		"removed":                             {asking(true, "one", ask("x", -1, 1), "two"), asking(false, "one", "two"), ""},
		"removed at the end":                  {asking(true, "one", ask("x", -1, 1)), asking(false, "one"), ""},
		"removed, another stays":              {asking(true, ask("x", -1, 1), ask("y", -1, 1), "one"), asking(false, ask("y", -1, 2), "one"), "1"},
		"before, removed too early":           {once, asking(false, ask("x", 1, 2), "one", "two"), `retry: Version "x": this invocation runs with the code from before the change (actor.Unversioned), and the code has versions 1 to 2: it was removed too early. Deploy code that has it until the invocations that need it have ended, or cancel inv_*`},
		"recorded, removed too early":         {asking(true, ask("x", -1, 1), "one"), asking(false, ask("x", 2, 2), "one"), `retry: Version "x": this invocation runs with version 1, recorded at version_test.go:*, and the code has version 2 alone: it was removed too early.*`},
		"recorded by newer code":              {asking(true, ask("x", -1, 2), "one"), asking(false, ask("x", -1, 1), "one"), `retry: Version "x": this invocation runs with version 2, recorded at version_test.go:*, and the code has the code before it and versions up to 1: the code deployed is older than the one that started it.*`},
		"out of order":                        {once, asking(false, ask("x", 3, 2)), `retry: Version "x": lowest is 3 and highest 2;*`},
		"divergence is still found behind it": {once, asking(false, ask("x", -1, 1), "one", "three"), `retry: journal entry 2 does not match the code (the name differs)*`},
	} {
		t.Run(name, func(t *testing.T) {
			redeployed(t, test.was, test.is, func(t *testing.T, d *double, outcome *invoker.Outcome) {
				got := ""
				if strings.HasPrefix(test.want, "retry: ") {
					_, retries := d.attempts()
					got = "retry: " + retries[len(retries)-1].Message
				} else {
					got = text(t, outcome)
				}
				if !matches(got, test.want) {
					t.Errorf("got  %s\nwant %s", got, test.want)
				}
			})
		})
	}
}

// What is recorded of a Version must not move ctx.Now of a wait before it, nor change which entry
// a call is.
func TestVersionAmongOtherSteps(t *testing.T) {
	var first string
	for way, of := range manners() {
		t.Run(way, func(t *testing.T) {
			config, crash := of()
			durably(t, config, func(d *double) { d.crash = crash; afterMinutes(d) }, func(ctx actor.Context, _ *apipb.Mixin) (*apipb.Mixin, error) {
				one, other := later(ctx, 1, false), later(ctx, 2, false)
				began := ctx.Now()
				see := []any{}
				_, err := one.Await(ctx)
				see = append(see, err, ctx.Now().Sub(began))
				do(ctx, "pause")
				see = append(see, actor.Version(ctx, "a", 0, 1))
				_, err = actor.All(ctx, one, other)
				see = append(see, err, ctx.Now().Sub(began), actor.Version(ctx, "b", 0, 2))
				winner, err := actor.Select(ctx, one, other)
				see = append(see, winner, err, actor.Version(ctx, "c", 0, 3))
				got, err := later(ctx, 3, false).Await(ctx)
				see = append(see, got.GetRoot(), err, ctx.Now().Sub(began))
				return reply(fmt.Sprint(see...)), nil
			}, nil, func(t *testing.T, d *double, got string) {
				if first == "" {
					first = got
				}
				if got != first || !strings.HasPrefix(got, "<nil> 1m0s 1 <nil> 2m0s 2 0 <nil> 3") {
					t.Errorf("got %s, want %s", got, first)
				}
				noRetries(t, d)
			})
		})
	}
}

// Code that no longer asks for a version must find its calls, waits and ids where they were.
func TestVersionIsRemoved(t *testing.T) {
	steps := func(ctx actor.Context, version func()) string {
		version()
		one := later(ctx, 1, false)
		version()
		_, err := one.Await(ctx)
		version()
		timer := actor.After(ctx, time.Minute)
		version()
		winner, selectErr := actor.Select(ctx, actor.After(ctx, time.Hour), timer)
		version()
		sent, sendErr := actor.InvokeSend[*apipb.Mixin](ctx, ctx, called, "7 false", nil, nil)
		version()
		return fmt.Sprint(err, winner, selectErr, sent.ID(), sendErr)
	}
	var was string
	change := 0
	redeployed(t, func(ctx actor.Context, _ *apipb.Mixin) (*apipb.Mixin, error) {
		was = steps(ctx, func() { change++; actor.Version(ctx, fmt.Sprint(change), -1, 1) })
		return nil, errAgain
	}, func(ctx actor.Context, _ *apipb.Mixin) (*apipb.Mixin, error) {
		return reply(steps(ctx, func() {})), nil
	}, func(t *testing.T, d *double, outcome *invoker.Outcome) {
		if got := text(t, outcome); got != was || got == "" {
			t.Errorf("got %s, want %s", got, was)
		}
		if _, retries := d.attempts(); len(retries) != 1 {
			t.Error(retries)
		}
	})
}

func TestVersionOutsideAJournal(t *testing.T) {
	durably(t, quiet(), func(d *double) { d.maxAttempts = 1 }, func(ctx actor.Context, _ *apipb.Mixin) (*apipb.Mixin, error) {
		_ = actor.Do(ctx, "closure", func(ctx context.Context) error {
			defer func() { panic(fmt.Sprint("found: ", recover())) }()
			actor.Version(ctx, "x", 0, 1)
			return nil
		})
		return nil, nil
	}, nil, func(t *testing.T, d *double, _ string) {
		_, retries := d.attempts()
		if len(retries) == 0 || !strings.Contains(retries[0].Message, `found: failed_precondition: Version x inside the closure of Run "closure"`) {
			t.Error(retries)
		}
	})
}

func TestDivergenceSideBySide(t *testing.T) {
	callee := method("t.Thing", "Work", actor.ModeTransaction, nil) // registered, so that its requests are known
	set := func(ctx actor.Context, account string) {
		_, _ = actor.Invoke[*apipb.Mixin](ctx, ctx, callee, account, &apipb.Mixin{Root: "pay " + account}, []actor.CallOption{actor.IdempotencyKey("key of " + account)})
	}
	redeployed(t, func(ctx actor.Context, _ *apipb.Mixin) (*apipb.Mixin, error) {
		set(ctx, "alice")
		return nil, errAgain
	}, func(ctx actor.Context, _ *apipb.Mixin) (*apipb.Mixin, error) {
		set(ctx, "bob")
		return nil, nil
	}, func(t *testing.T, d *double, _ *invoker.Outcome) {
		d.mu.Lock()
		defer d.mu.Unlock()
		got := d.mu.divergence
		if got.GetEntry() != 1 || got.GetAttempt() < 2 || got.GetDifference() != "the key" ||
			got.GetRecorded().GetStep() != "Call t.Thing/alice/Work" || got.GetMade().GetStep() != "Call t.Thing/bob/Work" ||
			!matches(got.GetRecorded().GetSite(), "version_test.go:*") || !matches(got.GetMade().GetSite(), "version_test.go:*") {
			t.Error(got)
		}
		fields := map[string]string{}
		for _, field := range got.GetFields() {
			fields[field.GetName()] = field.GetRecorded() + " | " + field.GetMade()
		}
		for name, want := range map[string]string{"key": "alice | bob", "handler": "Work | Work", "idempotency key": "key of alice | key of bob"} {
			if fields[name] != want {
				t.Errorf("%s: %s, want %s", name, fields[name], want)
			}
		}
		if want := `{"name":"alice","root":"pay alice"} | {"name":"bob","root":"pay bob"}`; fields["request"] != want {
			t.Errorf("request: %s, want %s", fields["request"], want)
		}
	})
}
