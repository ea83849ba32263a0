package inprocess_test

import (
	"fmt"
	"io"
	"log/slog"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/protobuf/types/known/apipb"

	"github.com/perdure/perdure/actor"
	"github.com/perdure/perdure/internal/invocation"
	"github.com/perdure/perdure/internal/invoker/inprocess"
	recordv1 "github.com/perdure/perdure/internal/record/v1"
)

func send(ctx actor.Context, to *actor.MethodDesc, key string) (string, error) {
	sent, err := actor.InvokeSend[*apipb.Mixin](ctx, ctx, to, key, &apipb.Mixin{}, nil)
	if err != nil {
		return "", err
	}
	return sent.ID(), nil
}

// An invocation that is purged after its retention and made again under its key has the id it had.
// Its calls must not have the ids that they had: those may be retained still, and be taken for
// repetitions.
func TestSecondRunMakesCallsOfItsOwn(t *testing.T) {
	for _, mode := range []actor.Mode{actor.ModeDurable, actor.ModeTransaction} {
		t.Run(mode.String(), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				desc := method("t.Thing", "Work", mode, func(ctx actor.Context, _ *apipb.Mixin) (*apipb.Mixin, error) {
					_, err := send(ctx, called, "a")
					if err == nil && mode == actor.ModeDurable {
						_, err = actor.Invoke[*apipb.Mixin](ctx, ctx, called, "b", &apipb.Mixin{}, nil)
					}
					return reply(fmt.Sprint(ctx.Rand().Uint64())), err
				})
				inv := newInvoker(t, quiet(), desc)
				var ids [2][]string
				var results [2]string
				for run := range 2 {
					d := newDouble(t, inv)
					d.answer, d.maxAttempts = echo, 20
					if mode == actor.ModeDurable {
						d.crash = always // each attempt must say the same
					}
					outcome := d.run(desc, "")
					for _, entry := range append(outcome.Entries, d.entries()...) {
						for _, invoke := range []*recordv1.Invoke{entry.GetSend().GetInvoke(), entry.GetCall().GetInvoke()} {
							if invoke != nil {
								ids[run] = append(ids[run], fmt.Sprintf("%x", invoke.InvocationId))
							}
						}
					}
					results[run] = text(t, outcome)
					noRetries(t, d)
					time.Sleep(time.Second)
				}
				if len(ids[0]) == 0 || len(ids[0]) != len(ids[1]) {
					t.Fatal(ids)
				}
				for position, id := range ids[0] {
					if slices.Contains(ids[1], id) {
						t.Errorf("both runs made call %d as %s", position+1, id)
					}
				}
				if results[0] == results[1] {
					t.Error("both runs drew", results[0])
				}
				if err := inv.Close(t.Context()); err != nil {
					t.Error(err)
				}
			})
		})
	}
}

func TestRetentionOfWhatHandlersMake(t *testing.T) {
	kept := method("t.Other", "Kept", actor.ModeTransaction, nil)
	kept.Options.Retention = time.Minute
	workflow := method("t.Flow", "Run", actor.ModeRun, nil)
	for name, test := range map[string]struct {
		config inprocess.Config
		want   time.Duration
	}{
		"default":    {inprocess.Config{}, 24 * time.Hour},
		"configured": {inprocess.Config{Retention: time.Hour}, time.Hour},
	} {
		t.Run(name, func(t *testing.T) {
			test.config.Logger = slog.New(slog.NewTextHandler(io.Discard, nil))
			want := map[string]time.Duration{"sent": test.want, "sent kept": time.Minute, "called": 0, "with a key": test.want, "run": test.want}
			for _, mode := range []actor.Mode{actor.ModeDurable, actor.ModeTransaction} {
				desc := method("t.Thing", "Work", mode, func(ctx actor.Context, _ *apipb.Mixin) (*apipb.Mixin, error) {
					for key, to := range map[string]*actor.MethodDesc{"sent": called, "sent kept": kept} {
						if _, err := send(ctx, to, key); err != nil {
							return nil, err
						}
					}
					if mode == actor.ModeDurable {
						actor.InvokeAsync[*apipb.Mixin](ctx, ctx, called, "called", &apipb.Mixin{}, nil)
						actor.InvokeAsync[*apipb.Mixin](ctx, ctx, called, "with a key", &apipb.Mixin{}, []actor.CallOption{actor.IdempotencyKey("x")})
						actor.InvokeAsync[*apipb.Mixin](ctx, ctx, workflow, "run", &apipb.Mixin{}, nil)
					}
					return nil, nil
				})
				d := newDouble(t, newInvoker(t, test.config, desc))
				outcome := d.run(desc, "")
				seen := 0
				for _, entry := range append(outcome.Entries, d.entries()...) {
					invoke := entry.GetSend().GetInvoke()
					if invoke == nil {
						invoke = entry.GetCall().GetInvoke()
					}
					seen++
					if got := time.Duration(invoke.RetentionMs) * time.Millisecond; got != want[invoke.Target.Key] {
						t.Errorf("%s: %q is kept for %s", mode, invoke.Target.Key, got)
					}
				}
				if seen == 0 {
					t.Error(mode, "made no call", text(t, outcome))
				}
			}
		})
	}
}

// An attempt whose entry was lost is followed by one that makes the same call later.
func TestCallsOfOneRunKeepTheirIDs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		desc := method("t.Thing", "Work", actor.ModeDurable, func(ctx actor.Context, _ *apipb.Mixin) (*apipb.Mixin, error) {
			id, err := send(ctx, called, "a")
			return reply(fmt.Sprint(id)), err
		})
		inv := newInvoker(t, quiet(), desc)
		began := time.Now()
		var got []string
		for number := range 2 {
			d := newDouble(t, inv)
			d.mu.Lock()
			d.mu.target, d.mu.mode = invocation.Target{Service: "t.Thing", Key: "k", Handler: "Work"}, invocation.ModeDurable
			d.mu.createdAt, d.mu.number = began, uint32(number)
			d.startLocked()
			d.mu.Unlock()
			got = append(got, text(t, d.wait()))
			time.Sleep(time.Hour)
		}
		if got[0] == "" || got[0] != got[1] {
			t.Error(got)
		}
		if err := inv.Close(t.Context()); err != nil {
			t.Error(err)
		}
	})
}
