package inprocess_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/apipb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/perdure/perdure/actor"
	"github.com/perdure/perdure/internal/invocation"
	"github.com/perdure/perdure/internal/invoker/inprocess"
	recordv1 "github.com/perdure/perdure/internal/record/v1"
)

// durably runs one DURABLE handler in a bubble of fake time. prepare may change the double.
func durably(t *testing.T, config inprocess.Config, prepare func(*double), run handle, during func(*double), check func(*testing.T, *double, string)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		desc := method("t.Thing", "Work", actor.ModeDurable, run)
		inv := newInvoker(t, config, desc)
		d := newDouble(t, inv)
		if prepare != nil {
			prepare(d)
		}
		d.start(desc, "hello")
		if during != nil {
			during(d)
		}
		outcome := d.wait()
		if err := inv.Close(t.Context()); err != nil {
			t.Error(err)
		}
		check(t, d, text(t, outcome))
	})
}

func always() bool { return true }

var called = method("t.Other", "Ask", actor.ModeTransaction, nil)

// echo answers a call with its key and payload.
func echo(invoke *recordv1.Invoke) *recordv1.Result {
	req := new(apipb.Mixin)
	_ = proto.Unmarshal(invoke.GetInput(), req)
	data, _ := proto.Marshal(reply(req.Name + ":" + req.Root))
	return &recordv1.Result{Value: data}
}

func ask(ctx context.Context, c actor.Caller, key, root string) (string, error) {
	resp, err := actor.Invoke[*apipb.Mixin](ctx, c, called, key, &apipb.Mixin{Root: root}, nil)
	return resp.GetRoot(), err
}

// effects counts what a handler did outside.
type effects struct {
	mu struct {
		sync.Mutex
		count map[string]int
	}
}

func (e *effects) did(name string) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.mu.count == nil {
		e.mu.count = map[string]int{}
	}
	e.mu.count[name]++
}

func (e *effects) times(name string) int {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.mu.count[name]
}

// everyStep makes every kind of step and puts what it saw together.
func everyStep(outside *effects) handle {
	return func(ctx actor.Context, req *apipb.Mixin) (*apipb.Mixin, error) {
		var seen []string
		see := func(format string, args ...any) { seen = append(seen, fmt.Sprintf(format, args...)) }
		see("state %d", number(ctx).Get().Value)
		number(ctx).Set(wrapperspb.Int64(number(ctx).Get().Value + 1))
		rows := ledger(ctx)
		see("rows %d", rows.Len())
		rows.Put("n", wrapperspb.String("new"))
		rows.Delete("a")
		for key, row := range rows.From("") {
			see("%s=%s", key, row.Value)
		}
		see("rows %d", rows.Len())
		paid, err := actor.Run(ctx, "pay", func(context.Context) (string, error) {
			outside.did("pay")
			return "receipt", nil
		})
		see("%s %v", paid, err)
		message, err := actor.Run(ctx, "message", func(context.Context) (*wrapperspb.StringValue, error) {
			return wrapperspb.String("m"), nil
		})
		see("%s %v", message.GetValue(), err)
		answer, err := ask(ctx, ctx, "o", "q")
		see("%s %v", answer, err)
		sent, err := actor.InvokeSend[*apipb.Mixin](ctx, ctx, called, "o", nil, []actor.SendOption{actor.Delay(time.Minute)})
		see("%s %v", sent.ID(), err)
		see("cancel %v", sent.Cancel(ctx))
		before := ctx.Now()
		see("sleep %v", actor.Sleep(ctx, time.Hour))
		see("slept %v", ctx.Now().Sub(before) >= time.Hour)
		number(ctx).Update(func(v *wrapperspb.Int64Value) { v.Value *= 10 })
		see("state %d", number(ctx).Get().Value)
		futures := []actor.Future[int]{}
		for i := range 3 {
			futures = append(futures, actor.RunAsync(ctx, fmt.Sprint("aside ", i), func(context.Context) (int, error) {
				outside.did(fmt.Sprint("aside ", i))
				return i * i, nil
			}))
		}
		squares, err := actor.All(ctx, futures...)
		see("%v %v", squares, err)
		timer := actor.After(ctx, 3*time.Hour)
		first, err := actor.Select(ctx, timer, actor.After(ctx, time.Minute))
		see("select %d %v", first, err)
		promise := actor.PromiseOf[*wrapperspb.StringValue](ctx, "courier")
		see("resolve %v", promise.Resolve(ctx, wrapperspb.String("dave")))
		courier, err := promise.Await(ctx)
		see("%s %v", courier.GetValue(), err)
		signal, err := actor.InboxOf[*apipb.Mixin](ctx, "Approve").Receive(ctx)
		see("%s %v", signal.GetRoot(), err)
		awakeable := actor.NewAwakeable[string](ctx)
		see("wake %v", actor.ResolveAwakeable(ctx, ctx, awakeable.ID(), "up"))
		see("random %d %s", ctx.Rand().IntN(1000), ctx.UUID())
		wokenUp, err := awakeable.Await(ctx)
		see("%s %v", wokenUp, err)
		return reply(strings.Join(seen, "; ")), nil
	}
}

// world gives the double what everyStep needs from outside.
func world(d *double) {
	d.answer = echo
	d.mu.tables["ledger"] = map[string][]byte{"a": encode(d.t, wrapperspb.String("A")), "z": encode(d.t, wrapperspb.String("Z"))}
	d.mu.state, d.mu.hasState = encode(d.t, wrapperspb.Int64(4)), true
	d.mu.signals["Approve"] = [][]byte{encode(d.t, reply("yes"))}
	d.onAppend = func(_ uint32, entry *recordv1.Entry) {
		if woken := entry.GetCompleteAwakeable(); woken != nil { // from elsewhere in a real cluster
			id, err := invocation.ParseAwakeableID(woken.AwakeableId)
			if err != nil {
				d.t.Error(err)
			}
			d.mu.timers = append(d.mu.timers, time.AfterFunc(time.Second, func() { d.complete(id.Entry, woken.Result) }))
		}
	}
}

// TestCrashAtEveryEntry compares an undisturbed run with ones that crash after each entry and
// completion, that crash at random, and that are suspended at every wait.
func TestCrashAtEveryEntry(t *testing.T) {
	var calm string
	patient := quiet()
	patient.InactivityTimeout = -1
	durably(t, patient, world, everyStep(new(effects)), nil, func(t *testing.T, d *double, got string) {
		calm = got
		if attempts, retries := d.attempts(); attempts != 1 || len(retries) > 0 {
			t.Errorf("%d attempts, %v", attempts, retries)
		}
		if !strings.Contains(got, "state 4; rows 2; n=new; z=Z; rows 2; receipt <nil>; m <nil>; o:q <nil>;") ||
			!strings.Contains(got, "slept true; state 50; [0 1 4] <nil>; select 1 <nil>; resolve <nil>; dave <nil>; yes <nil>; wake <nil>;") {
			t.Error(got)
		}
	})
	suspending := quiet()
	suspending.InactivityTimeout = inprocess.SuspendAtOnce
	seeded := rand.New(rand.NewPCG(1, 2))
	for name, test := range map[string]struct {
		config inprocess.Config
		crash  func() bool
	}{
		"every entry":           {quiet(), always},
		"suspended":             {suspending, nil},
		"both":                  {suspending, always},
		"at random":             {quiet(), func() bool { return seeded.IntN(3) == 0 }},
		"at random, suspending": {suspending, func() bool { return seeded.IntN(3) == 0 }},
	} {
		t.Run(name, func(t *testing.T) {
			outside := new(effects)
			durably(t, test.config, func(d *double) { world(d); d.crash = test.crash }, everyStep(outside), nil, func(t *testing.T, d *double, got string) {
				if got != calm {
					t.Errorf("got  %s\nwant %s", got, calm)
				}
				attempts, retries := d.attempts()
				if len(retries) > 0 || attempts < 2 {
					t.Errorf("%d attempts, retries %v", attempts, retries)
				}
				if state := decode(t, d.mu.state, new(wrapperspb.Int64Value)); state.Value != 50 {
					t.Errorf("state %d", state.Value)
				}
				// The double crashes after the completion is recorded, never between effect and record.
				if outside.times("pay") != 1 {
					t.Errorf("paid %d times", outside.times("pay"))
				}
			})
		})
	}
}

func TestRunIsGatedByDurability(t *testing.T) {
	outside := new(effects)
	durably(t, quiet(), func(d *double) { d.hold = true }, func(ctx actor.Context, _ *apipb.Mixin) (*apipb.Mixin, error) {
		return nil, actor.Do(ctx, "pay", func(context.Context) error { outside.did("pay"); return nil })
	}, func(d *double) {
		synctest.Wait()
		if outside.times("pay") != 0 {
			t.Error("the closure ran before its entry was durable")
		}
		d.mu.Lock()
		d.hold = false
		d.mu.running.Abort(errors.New("leadership lost"))
		d.startLocked()
		d.mu.Unlock()
	}, func(t *testing.T, d *double, got string) {
		if outside.times("pay") != 1 || got != "" {
			t.Error(outside.times("pay"), got)
		}
	})
}

func TestRunRetriesInsideItself(t *testing.T) {
	patient := quiet()
	patient.InactivityTimeout = -1 // one attempt, also in `make suspend`
	tries := 0
	durably(t, patient, nil, func(ctx actor.Context, _ *apipb.Mixin) (*apipb.Mixin, error) {
		began := time.Now()
		_, err := actor.Run(ctx, "flaky", func(context.Context) (int, error) {
			if tries++; tries < 4 {
				return 0, errors.New("not yet")
			}
			return tries, nil
		})
		waited := time.Since(began)
		_, failed := actor.Run(ctx, "hopeless", func(context.Context) (int, error) {
			return 0, errors.New("never")
		}, actor.RunRetry(actor.RunPolicy{MaxAttempts: 3}))
		_, refused := actor.Run(ctx, "refused", func(context.Context) (int, error) {
			return 0, actor.Errorf(actor.PermissionDenied, "no")
		})
		return reply(fmt.Sprint(waited, "; ", err, "; ", failed, "; ", refused)), nil
	}, nil, func(t *testing.T, d *double, got string) {
		// 100 + 200 + 400 ms.
		if got != "700ms; <nil>; unknown: the last of 3 tries: never; permission_denied: no" {
			t.Error(got)
		}
		if attempts, _ := d.attempts(); attempts != 1 {
			t.Errorf("%d attempts", attempts)
		}
	})
}

func TestDivergenceNamesBothSites(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		was := method("t.Thing", "Work", actor.ModeDurable, func(ctx actor.Context, _ *apipb.Mixin) (*apipb.Mixin, error) {
			_ = actor.Do(ctx, "pay", func(context.Context) error { return nil })
			return nil, errors.New("again")
		})
		is := method("t.Thing", "Work", actor.ModeDurable, func(ctx actor.Context, _ *apipb.Mixin) (*apipb.Mixin, error) {
			defer func() { _ = recover() }() // hides nothing
			_, err := ask(ctx, ctx, "o", "q")
			return reply("hidden"), err
		})
		old, deployed := newInvoker(t, quiet(), was), newInvoker(t, quiet(), is)
		d := newDouble(t, old)
		d.swap, d.maxAttempts = deployed, 2
		d.run(was, "")
		_, retries := d.attempts()
		last := retries[len(retries)-1]
		want := `journal entry 1 does not match the code (the kind of step differs): the journal has Run "pay", made at durable_test.go:*; the code makes Call t.Other/o/Ask at durable_test.go:*`
		if last.Code != uint32(actor.Internal) || !matches(last.Message, want) {
			t.Errorf("got  %s\nwant %s", last.Message, want)
		}
		_ = old.Close(t.Context())
		_ = deployed.Close(t.Context())
	})
}

func TestDivergentRequestAndEarlyEnd(t *testing.T) {
	first := true
	for name, test := range map[string]struct {
		later handle
		want  string
	}{
		"request": {func(ctx actor.Context, _ *apipb.Mixin) (*apipb.Mixin, error) {
			_, err := ask(ctx, ctx, "o", "another")
			return nil, err
		}, "journal entry 1 does not match the code (the request differs)*"},
		"key": {func(ctx actor.Context, _ *apipb.Mixin) (*apipb.Mixin, error) {
			_, err := ask(ctx, ctx, "p", "q")
			return nil, err
		}, "journal entry 1 does not match the code (the key differs)*"},
		"end": {func(actor.Context, *apipb.Mixin) (*apipb.Mixin, error) { return nil, nil },
			"journal entry 1 does not match the code*the code makes the handler's end*"},
	} {
		t.Run(name, func(t *testing.T) {
			first = true
			durably(t, quiet(), func(d *double) { d.answer = echo; d.maxAttempts = 2 }, func(ctx actor.Context, req *apipb.Mixin) (*apipb.Mixin, error) {
				if !first {
					return test.later(ctx, req)
				}
				first = false
				_, _ = ask(ctx, ctx, "o", "q")
				return nil, errors.New("again")
			}, nil, func(t *testing.T, d *double, _ string) {
				_, retries := d.attempts()
				if got := retries[len(retries)-1].Message; !matches(got, test.want) {
					t.Error(got)
				}
			})
		})
	}
}

func TestLogsOnlyWhatIsNew(t *testing.T) {
	notRemotely(t)
	var logged lines
	config := inprocess.Config{Logger: slog.New(slog.NewTextHandler(&logged, &slog.HandlerOptions{Level: slog.LevelInfo}))}
	durably(t, config, func(d *double) { d.crash = always }, func(ctx actor.Context, _ *apipb.Mixin) (*apipb.Mixin, error) {
		ctx.Logger().Info("one")
		number(ctx).Set(wrapperspb.Int64(1))
		ctx.Logger().Info("two")
		number(ctx).Set(wrapperspb.Int64(2))
		ctx.Logger().Info("three")
		return nil, nil
	}, nil, func(t *testing.T, _ *double, _ string) {
		for _, word := range []string{"one", "two", "three"} {
			if got := logged.count("msg=" + word); got != 1 {
				t.Errorf("%s was logged %d times", word, got)
			}
		}
	})
}

type lines struct {
	mu   sync.Mutex
	text strings.Builder
}

func (l *lines) Write(data []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(data)
}

func (l *lines) count(part string) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return strings.Count(l.text.String(), part)
}

var _ io.Writer = (*lines)(nil)

func TestCallCarriesWhoAsks(t *testing.T) {
	durably(t, quiet(), func(d *double) { d.answer = echo }, func(ctx actor.Context, _ *apipb.Mixin) (*apipb.Mixin, error) {
		req := &apipb.Mixin{Root: "shared"}
		one := actor.InvokeAsync[*apipb.Mixin](ctx, ctx, called, "1", req, nil)
		two := actor.InvokeAsync[*apipb.Mixin](ctx, ctx, called, "2", req, []actor.CallOption{actor.IdempotencyKey("same")})
		both, err := actor.All(ctx, one, two)
		if err != nil {
			return nil, err
		}
		_, wrong := ask(ctx, ctx, "", "q")
		_, long := ask(ctx, ctx, strings.Repeat("x", 256), "q")
		_, other := actor.Invoke[*apipb.Mixin](ctx, ctx, called, "3", &apipb.Mixin{Name: "4"}, nil)
		return reply(fmt.Sprint(both[0].Root, both[1].Root, req.Name, "\n", wrong, "\n", long, "\n", other)), nil
	}, nil, func(t *testing.T, d *double, got string) {
		want := "1:shared2:shared\ninvalid_argument: t.Other/Ask: the key name is empty*\ninvalid_argument: t.Other/Ask: the key name has 256 bytes*\ninvalid_argument: t.Other/Ask: the request's name is \"4\" but the call goes to \"3\"*"
		if !matches(got, want) {
			t.Error(got)
		}
		invoke := d.entries()[0].GetCall().GetInvoke()
		if invoke.GetCaller().GetEntry() != 1 || len(invoke.GetChain()) != 1 || invoke.GetMode() != uint32(actor.ModeTransaction) {
			t.Errorf("%v", invoke)
		}
		same, _ := invocation.IDFromBytes(d.entries()[1].GetCall().GetInvoke().GetInvocationId())
		if want := invocation.DerivedID(invocation.Target{Service: "t.Other", Key: "2", Handler: "Ask"}, "idempotency", "same"); same != want {
			t.Errorf("id %s, want %s", same, want)
		}
	})
}

func BenchmarkDurableTenRuns(b *testing.B) {
	desc := method("t.Thing", "Work", actor.ModeDurable, func(ctx actor.Context, _ *apipb.Mixin) (*apipb.Mixin, error) {
		for range 10 {
			if err := actor.Do(ctx, "step", func(context.Context) error { return nil }); err != nil {
				return nil, err
			}
		}
		return nil, nil
	})
	inv := newInvoker(b, quiet(), desc)
	b.ReportAllocs()
	for b.Loop() {
		host := newDouble(b, inv)
		host.start(desc, "")
		<-host.ended
	}
}
