package cluster_test

import (
	"context"
	"fmt"
	"maps"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/perdure/perdure/actor"
	"github.com/perdure/perdure/cluster"
)

// waysToWait are ways for handlers that wait: each wait also suspends.
func waysToWait() map[string][]cluster.Option {
	all := maps.Clone(ways)
	all["suspended at once"] = []cluster.Option{cluster.WithPartitions(8), cluster.WithInactivityTimeout(time.Nanosecond)}
	all["crashed and suspended"] = []cluster.Option{
		cluster.WithPartitions(8), cluster.WithInactivityTimeout(time.Nanosecond), cluster.WithCrashAtEveryEntry(),
	}
	return all
}

func eachWayToWait(t *testing.T, test func(s *stage)) {
	for name, opts := range waysToWait() {
		t.Run(name, func(t *testing.T) { inMemory(t, test, opts...) })
	}
}

func receive(ctx actor.Context) (string, error) {
	got, err := actor.InboxOf[*mixin](ctx, "H"+actor.ModeSignal.String()).Receive(ctx)
	return got.GetRoot(), err
}

// TestContinueAsNew: a workflow takes one signal per run and continues as new. The caller of the
// first run gets the result of the last, each step counts once, and nothing of a run is taken for
// the next one's.
func TestContinueAsNew(t *testing.T) {
	const runs = 5
	eachWayToWait(t, func(s *stage) {
		var mu sync.Mutex // superseded attempts may be at work still
		ids := map[string]bool{}
		for run := range runs {
			s.on(fmt.Sprint("run ", run), func(ctx actor.Context) (string, error) {
				got, err := receive(ctx)
				if err != nil {
					return "", err
				}
				if want := fmt.Sprint("signal ", run); got != want {
					s.t.Errorf("run %d got %q, want %q", run, got, want)
				}
				// A sleep nobody awaits ends in a later run, and is none of its entries.
				actor.After(ctx, 90*time.Millisecond)
				text := fmt.Sprint(ctx.UUID(), " ", ctx.Now().UnixNano())
				again, err := actor.Run(ctx, "id", func(context.Context) (string, error) { return text, nil })
				if err != nil || again != text {
					s.t.Errorf("run %d: %q and %q, %v", run, text, again, err)
				}
				mu.Lock()
				ids[text] = true
				mu.Unlock()
				if _, err := s.do(ctx, "counted", "add 1"); err != nil {
					return "", err
				}
				if err := actor.Sleep(ctx, 100*time.Millisecond); err != nil {
					return "", err
				}
				if run+1 < runs {
					return "", actor.ContinueAsNew(&mixin{Root: fmt.Sprint("run ", run+1)})
				}
				return "the end", nil
			})
		}
		flow, err := s.send(s.t.Context(), s.flows.Methods[flowRun], "f", "run 0")
		s.must(nil, err)
		for run := range runs {
			time.Sleep(50 * time.Millisecond)
			s.must(s.send(s.t.Context(), s.flows.Methods[flowTell], "f", fmt.Sprint("signal ", run)))
		}
		got, err := s.attach(flow)
		if got != "the end" || err != nil {
			s.t.Errorf("the workflow returned %q, %v", got, err)
		}
		s.values(fmt.Sprintf("counted=%d", runs))
		mu.Lock()
		if len(ids) != runs {
			s.t.Errorf("%d runs had %d different random ids and instants: %v", runs, len(ids), ids)
		}
		mu.Unlock()
		status, body := s.post("/perdure.admin.v1.AdminService/GetInvocation", `{"invocationId":"`+flow.ID()+`"}`)
		if status != http.StatusOK || !strings.Contains(body, fmt.Sprintf(`"continuations":%d`, runs-1)) {
			s.t.Errorf("%d %s", status, body)
		}
		if strings.Count(body, `"kind":"receive"`) != 1 {
			s.t.Errorf("the journal is not only the last run's: %s", body)
		}
	})
}

// TestContinueAsNewKeepsTheKey: an object that continues as new is not entered by another call
// between its runs, and its state goes on.
func TestContinueAsNewKeepsTheKey(t *testing.T) {
	eachWayToWait(t, func(s *stage) {
		for run := range 3 {
			s.on(fmt.Sprint("run ", run), func(ctx actor.Context) (string, error) {
				if got := add(ctx, 1); got != int64(run+1) {
					s.t.Errorf("run %d has the state %d", run, got)
				}
				if err := actor.Sleep(ctx, time.Second); err != nil {
					return "", err
				}
				if run < 2 {
					return "", actor.ContinueAsNew(&mixin{Root: fmt.Sprint("run ", run+1)})
				}
				return "", nil
			})
		}
		first, err := s.send(s.t.Context(), s.things.Methods[keep], "k", "run 0")
		s.must(nil, err)
		time.Sleep(time.Millisecond)
		if got, err := s.do(s.t.Context(), "k", "add 10"); got != "13" || err != nil {
			s.t.Errorf("another call: %q, %v", got, err)
		}
		s.must(s.attach(first))
	})
}

// TestContinueAsNewRefused: what can't begin anew says why.
func TestContinueAsNewRefused(t *testing.T) {
	inMemory(t, func(s *stage) {
		again := s.on("again", func(actor.Context) (string, error) {
			return "", actor.ContinueAsNew(&mixin{Root: "again"})
		})
		_, err := s.do(s.t.Context(), "k", again)
		s.refused(err, actor.FailedPrecondition, "only a DURABLE or RUN handler")
		other := s.on("other", func(actor.Context) (string, error) {
			return "", actor.ContinueAsNew(&mixin{Name: "other", Root: "again"})
		})
		_, err = s.invoke(s.t.Context(), s.things.Methods[keep], "k", other)
		s.refused(err, actor.Internal, "an invocation keeps its object", `the call goes to "k"`)
		large := s.on("large", func(actor.Context) (string, error) {
			return "", actor.ContinueAsNew(&mixin{Root: strings.Repeat("x", 64<<20)})
		})
		_, err = s.invoke(s.t.Context(), s.things.Methods[keep], "k", large)
		s.refused(err, actor.ResourceExhausted, "more than the")
		s.free("k")
	})
}
