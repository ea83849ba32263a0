package cluster_test

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/perdure/perdure/actor"
	"github.com/perdure/perdure/cluster"
)

// flowWays are ways and one more, in which every wait suspends.
func flowWays() map[string][]cluster.Option {
	all := maps.Clone(ways)
	all["every wait suspends"] = []cluster.Option{cluster.WithPartitions(8), cluster.WithInactivityTimeout(time.Nanosecond)}
	return all
}

// limitedWays runs a test in fake time with a node for each way whose DURABLE handlers are under
// limits, and its TRANSACTION handlers under those without a concurrency.
func limitedWays(t *testing.T, limits []actor.Limit, test func(s *stage)) {
	for name, opts := range flowWays() {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := newStageWith(t, func(s *stage) {
					for _, service := range []*actor.ServiceDesc{s.things, s.batches} {
						service.Methods[keep].Options.Limits = limits
						for _, limit := range limits {
							if limit.Concurrency == 0 {
								service.Methods[transact].Options.Limits = append(service.Methods[transact].Options.Limits, limit)
							}
						}
					}
				}, append(opts, cluster.WithInMemory())...)
				defer stopNode(t, s.node)
				test(s)
			})
		})
	}
}

// gauge counts who is inside at once.
type gauge struct {
	mu        sync.Mutex
	now, most int
	began     []time.Time
}

func (g *gauge) enter() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.now++
	g.most = max(g.most, g.now)
	g.began = append(g.began, time.Now())
}

// count is how often somebody has begun.
func (g *gauge) count() int {
	g.mu.Lock()
	defer g.mu.Unlock()
	return len(g.began)
}

func (g *gauge) leave() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.now--
}

// work names a script that is inside g for a while.
func (s *stage) work(g *gauge, lasts time.Duration) string {
	return s.fn(func(ctx actor.Context) error {
		return actor.Do(ctx, "work", func(context.Context) error {
			g.enter()
			defer g.leave()
			time.Sleep(lasts)
			return nil
		})
	})
}

// TestConcurrencyLimit: never more than three at once, of all partitions together, and never
// fewer while others wait.
func TestConcurrencyLimit(t *testing.T) {
	limitedWays(t, []actor.Limit{{Name: "three", Concurrency: 3}}, func(s *stage) {
		var g gauge
		work := s.work(&g, time.Second)
		began := time.Now()
		var calls sync.WaitGroup
		for range 30 {
			calls.Go(func() { s.must(s.invoke(s.t.Context(), s.batches.Methods[keep], "", work)) })
		}
		calls.Wait()
		if g.most != 3 {
			s.t.Errorf("%d ran at once", g.most)
		}
		if took := time.Since(began); took < 10*time.Second || took > 13*time.Second {
			s.t.Errorf("30 of a second each, three at once, took %s", took)
		}
	})
}

// TestRateLimit: two at once after a rest, then one each 100 ms.
func TestRateLimit(t *testing.T) {
	limitedWays(t, []actor.Limit{{Name: "ten", Rate: actor.Rate{Count: 10, Per: time.Second, Burst: 2}}}, func(s *stage) {
		var g gauge
		work := s.work(&g, time.Millisecond)
		first := time.Now()
		var calls sync.WaitGroup
		for range 22 {
			calls.Go(func() { s.must(s.invoke(s.t.Context(), s.batches.Methods[keep], "", work)) })
		}
		calls.Wait()
		slices.SortFunc(g.began, time.Time.Compare)
		for i, at := range g.began {
			if most := 2 + int(at.Sub(first)/(100*time.Millisecond)); i+1 > most {
				s.t.Errorf("%d began in %s", i+1, at.Sub(first))
			}
		}
		if took := time.Since(first); took > 2500*time.Millisecond {
			s.t.Errorf("2 at once and 20 at ten a second took %s", took)
		}
		// A TRANSACTION takes its turn too, and what is part of one does not.
		time.Sleep(time.Minute)
		first = time.Now()
		nested := s.fn(func(ctx actor.Context) error {
			_, err := s.do(ctx, "inner", "add 1")
			return err
		})
		for range 4 {
			s.must(s.do(s.t.Context(), "outer", nested))
		}
		if took := time.Since(first); took < 100*time.Millisecond {
			s.t.Errorf("4 transactions took %s", took)
		}
		s.values("inner=4")
	})
}

// TestLimitOfACallToItself: a handler that waits for another under the same limit gives its
// permit back when it is suspended.
func TestLimitOfACallToItself(t *testing.T) {
	limitedWays(t, []actor.Limit{{Name: "one", Concurrency: 1}}, func(s *stage) {
		inner := s.fn(func(actor.Context) error { return nil })
		outer := s.fn(func(ctx actor.Context) error {
			_, err := actor.Invoke[*mixin](ctx, s.client, s.batches.Methods[keep], "", &mixin{Root: inner}, nil)
			return err
		})
		s.must(s.invoke(s.t.Context(), s.batches.Methods[keep], "", outer))
	})
}

// TestLimitKeepsTheOrderOfAKey: whatever the priorities and tenants, calls of one key begin as
// they came, and a key that waits is in no other's way.
func TestLimitKeepsTheOrderOfAKey(t *testing.T) {
	limits := []actor.Limit{
		{Name: "two", Concurrency: 2, Rate: actor.Rate{Count: 20, Per: time.Second}, MaxQueue: 1000},
		{Name: "each", By: actor.ByLimitKey, Concurrency: 1},
		{Name: "key", By: actor.ByKey, Rate: actor.Rate{Count: 50, Per: time.Second, Burst: 1}},
	}
	limitedWays(t, limits, func(s *stage) {
		const keys, calls = 4, 8
		var mu sync.Mutex
		order := map[string][]int{}
		var waits sync.WaitGroup
		for i := range calls {
			for key := range keys {
				name := fmt.Sprint("key-", key)
				script := s.fn(func(ctx actor.Context) error {
					return actor.Do(ctx, "note", func(context.Context) error {
						mu.Lock()
						defer mu.Unlock()
						if !slices.Contains(order[name], i) { // A crash before the record repeats it.
							order[name] = append(order[name], i)
						}
						return nil
					})
				})
				inv, err := s.send(s.t.Context(), s.things.Methods[keep], name, script,
					actor.Priority(i*7%11), actor.Tenant(fmt.Sprint("t", i%3)), actor.LimitKey(fmt.Sprint("l", (i+key)%3)))
				s.must(inv, err)
				if err == nil {
					waits.Go(func() { s.must(s.attach(inv)) })
				}
			}
		}
		waits.Wait()
		for key, got := range order {
			if !slices.IsSorted(got) || len(got) != calls {
				s.t.Errorf("calls of %s began as %v", key, got)
			}
		}
		if len(order) != keys {
			s.t.Errorf("%d keys of %d", len(order), keys)
		}
	})
}

// TestTenantsTakeTurns: one tenant asks ten times as often as another; while both wait, both get
// the same.
func TestTenantsTakeTurns(t *testing.T) {
	limitedWays(t, []actor.Limit{{Name: "four", Concurrency: 4}}, func(s *stage) {
		var mu sync.Mutex
		var began []string
		var waits sync.WaitGroup
		ask := func(tenant string) {
			script := s.fn(func(ctx actor.Context) error {
				return actor.Do(ctx, "work", func(context.Context) error {
					mu.Lock()
					began = append(began, tenant)
					mu.Unlock()
					time.Sleep(100 * time.Millisecond)
					return nil
				})
			})
			inv, err := s.send(s.t.Context(), s.batches.Methods[keep], "", script, actor.Tenant(tenant))
			s.must(inv, err)
			waits.Go(func() { s.must(s.attach(inv)) })
		}
		for range 20 {
			for range 10 {
				ask("greedy")
			}
			ask("modest")
		}
		waits.Wait()
		// The first few began before anybody waited.
		shares := map[string]int{}
		for _, tenant := range began[8:32] {
			shares[tenant]++
		}
		if shares["greedy"] < 10 || shares["modest"] < 10 {
			s.t.Errorf("of 24 while both waited, %v", shares)
		}
	})
}

// TestFullQueue: who does not find a place is refused with a hint, in every form there is, and
// the same call again is not taken for a repetition.
func TestFullQueue(t *testing.T) {
	limitedWays(t, []actor.Limit{{Name: "one", Concurrency: 1, MaxQueue: 1}}, func(s *stage) {
		var g gauge
		work := s.work(&g, 30*time.Second)
		m := s.batches.Methods[keep]
		first, err := s.send(s.t.Context(), m, "", work)
		s.must(first, err)
		synctest.Wait()
		time.Sleep(time.Second)
		second, err := s.send(s.t.Context(), m, "", work)
		s.must(second, err)
		time.Sleep(time.Second)

		s.showsLimit("stage.v1.BatchService/one", first.ID(), second.ID())

		_, err = s.invoke(s.t.Context(), m, "", work, actor.IdempotencyKey("again"))
		s.refused(err, actor.ResourceExhausted, "stage.v1.BatchService/one", "1 calls wait")
		hint, ok := actor.RetryHint(err)
		if !ok || hint < 100*time.Millisecond || hint > time.Minute {
			s.t.Errorf("the hint is %s, %v", hint, ok)
		}
		_, err = s.send(s.t.Context(), m, "", work)
		s.refused(err, actor.ResourceExhausted)

		for _, send := range []string{"0", "1"} {
			request := httptest.NewRequestWithContext(s.t.Context(), http.MethodPost, "/stage.v1.BatchService/HDURABLE", strings.NewReader(`{"root":"`+work+`"}`))
			request.Header.Set("Content-Type", "application/json")
			request.Header.Set("Perdure-Send", send)
			response := httptest.NewRecorder()
			s.node.Handler().ServeHTTP(response, request)
			var body struct {
				Code    string
				Details []struct{ Type, Value string }
			}
			if err := json.Unmarshal(response.Body.Bytes(), &body); err != nil {
				s.t.Fatal(err)
			}
			if response.Code != http.StatusTooManyRequests || response.Header().Get("Retry-After") == "" || body.Code != "resource_exhausted" ||
				len(body.Details) != 1 || body.Details[0].Type != "google.rpc.RetryInfo" {
				s.t.Errorf("send %s: %d %v %s", send, response.Code, response.Header(), response.Body)
			}
		}

		if got := s.counter(`perdure_limit_refusals_total{limit="stage.v1.BatchService/one"}`); got != 4 {
			s.t.Errorf("%d refusals in the metrics", got)
		}

		// A handler that calls hears of it as the call's error.
		caller := s.fn(func(ctx actor.Context) error {
			_, err := actor.Invoke[*mixin](ctx, s.client, m, "", &mixin{Root: work}, nil)
			if actor.CodeOf(err) != actor.ResourceExhausted {
				return actor.Errorf(actor.Internal, "the call in the handler: %v", err)
			}
			if _, ok := actor.RetryHint(err); !ok {
				return actor.Errorf(actor.Internal, "no hint in %v", err)
			}
			return nil
		})
		s.must(s.invoke(s.t.Context(), s.flows.Methods[flowRun], "caller", caller))

		s.must(s.attach(first))
		s.must(s.attach(second))
		s.must(s.invoke(s.t.Context(), m, "", work, actor.IdempotencyKey("again")))
		if g.most != 1 {
			s.t.Errorf("%d ran at once", g.most)
		}
	})
}

// showsLimit checks what the admin service says of a limit that holder has and waiting wants.
func (s *stage) showsLimit(name, holder, waiting string) {
	s.t.Helper()
	type member struct{ InvocationId, Tenant string }
	type limit struct {
		Name                                 string
		Concurrency, Held, Waiting, MaxQueue int
		OldestWait                           string
		Holders, Queue                       []member
	}
	ask := func(method, body string, into any) {
		s.t.Helper()
		status, text := s.post("/perdure.admin.v1.AdminService/"+method, body)
		if err := json.Unmarshal([]byte(text), into); err != nil || status != http.StatusOK {
			s.t.Fatalf("%s: %d %s %v", method, status, text, err)
		}
	}
	var list struct{ Limits []limit }
	ask("ListLimits", `{"waiting":true}`, &list)
	if len(list.Limits) != 1 || list.Limits[0].Name != name || list.Limits[0].Held != 1 || list.Limits[0].Waiting != 1 || list.Limits[0].MaxQueue != 1 {
		s.t.Errorf("the limits are %+v", list)
	}
	var one struct{ Limit limit }
	ask("GetLimit", `{"name":"`+name+`"}`, &one)
	if l := one.Limit; len(l.Holders) != 1 || l.Holders[0].InvocationId != holder || len(l.Queue) != 1 || l.Queue[0].InvocationId != waiting || l.OldestWait == "" {
		s.t.Errorf("the limit is %+v", one)
	}
	var got struct {
		Invocation struct{ Status, WaitsForLimit, WaitingSince string }
	}
	ask("GetInvocation", `{"invocationId":"`+waiting+`"}`, &got)
	if got.Invocation.Status != "INVOCATION_STATUS_QUEUED" || got.Invocation.WaitsForLimit != name || got.Invocation.WaitingSince == "" {
		s.t.Errorf("the one that waits is %+v", got)
	}
	if held, queued := s.counter("perdure_limit_held"), s.counter("perdure_limit_waiting"); held != 1 || queued != 1 {
		s.t.Errorf("in the metrics %d hold and %d wait", held, queued)
	}
}

// TestPriority: of those that wait, the higher one goes first.
func TestPriority(t *testing.T) {
	limitedWays(t, []actor.Limit{{Name: "one", Concurrency: 1}}, func(s *stage) {
		var mu sync.Mutex
		var began []int
		var waits sync.WaitGroup
		ask := func(priority int) {
			script := s.fn(func(ctx actor.Context) error {
				return actor.Do(ctx, "work", func(context.Context) error {
					mu.Lock()
					began = append(began, priority)
					mu.Unlock()
					time.Sleep(time.Second)
					return nil
				})
			})
			inv, err := s.send(s.t.Context(), s.batches.Methods[keep], "", script, actor.Priority(priority))
			s.must(inv, err)
			waits.Go(func() { s.must(s.attach(inv)) })
		}
		ask(0)
		time.Sleep(100 * time.Millisecond)
		for _, priority := range []int{-100, 3, 0, 100, 3} {
			ask(priority)
		}
		waits.Wait()
		if got := fmt.Sprint(began); got != "[0 100 3 3 0 -100]" {
			s.t.Errorf("began as %s", got)
		}
	})
}

// TestTenantIsPassedOn: what a handler calls and sends has its tenant, limit key and priority,
// from DURABLE and TRANSACTION handlers alike.
func TestTenantIsPassedOn(t *testing.T) {
	limitedWays(t, []actor.Limit{{Name: "tenant", By: actor.ByTenant, Concurrency: 1}}, func(s *stage) {
		var slow, other gauge
		wait := s.work(&slow, time.Minute)
		quick := s.work(&other, 0)
		done := make(chan struct{})
		sender := s.fn(func(ctx actor.Context) error {
			_, err := s.send(ctx, s.batches.Methods[keep], "", wait)
			return err
		})
		s.must(s.do(s.t.Context(), "k", sender, actor.Tenant("a")))
		outer := s.fn(func(ctx actor.Context) error {
			_, err := actor.Invoke[*mixin](ctx, s.client, s.batches.Methods[keep], "", &mixin{Root: quick}, nil)
			return err
		})
		time.Sleep(time.Second)
		go func() {
			defer close(done)
			s.must(s.invoke(s.t.Context(), s.flows.Methods[flowRun], "r", outer, actor.Tenant("a")))
		}()
		time.Sleep(time.Second)
		s.must(s.invoke(s.t.Context(), s.batches.Methods[keep], "", quick, actor.Tenant("b")))
		if n := other.count(); n != 1 {
			s.t.Errorf("%d began beside the one of tenant a, want that of tenant b alone", n)
		}
		<-done
	})
}

// TestLimitSurvivesARestart: a node that is stopped with permits held and others waiting goes on
// with as many.
func TestLimitSurvivesARestart(t *testing.T) {
	dir := t.TempDir()
	var g gauge
	var ended atomic.Int32
	release := make(chan struct{})
	start := func() *stage {
		return newStageWith(t, func(s *stage) {
			s.batches.Methods[keep].Options.Limits = []actor.Limit{{Name: "two", Concurrency: 2}}
			s.on("work", func(ctx actor.Context) (string, error) {
				return "", actor.Do(ctx, "work", func(ctx context.Context) error {
					g.enter()
					defer g.leave()
					select {
					case <-release:
						ended.Add(1)
						return nil
					case <-ctx.Done():
						return ctx.Err()
					}
				})
			})
		}, cluster.WithDataDir(dir), cluster.WithPartitions(8), func(c *cluster.Config) { c.DrainTimeout = time.Millisecond })
	}
	s := start()
	var ids []string
	for range 6 {
		inv, err := s.send(t.Context(), s.batches.Methods[keep], "", "work")
		if err != nil {
			t.Fatal(err)
		}
		ids = append(ids, inv.ID())
	}
	until(t, func() bool { g.mu.Lock(); defer g.mu.Unlock(); return g.now == 2 })
	stopNode(t, s.node)
	until(t, func() bool { g.mu.Lock(); defer g.mu.Unlock(); return g.now == 0 })
	s = start()
	until(t, func() bool { g.mu.Lock(); defer g.mu.Unlock(); return g.now == 2 })
	close(release)
	for _, id := range ids {
		if _, err := actor.Attach[*mixin](s.client, id).Attach(t.Context()); err != nil {
			t.Errorf("%s: %v", id, err)
		}
	}
	if g.most != 2 || ended.Load() != 6 {
		t.Errorf("%d ran at once and %d ended", g.most, ended.Load())
	}
}

// until waits for a condition.
func until(t *testing.T, condition func() bool) {
	t.Helper()
	for deadline := time.Now().Add(30 * time.Second); !condition(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("it did not come to that in 30 s")
		}
	}
}
