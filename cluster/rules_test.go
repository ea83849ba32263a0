package cluster_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/perdure/perdure/actor"
	"github.com/perdure/perdure/cluster"
	"github.com/perdure/perdure/cluster/registry"
	"github.com/perdure/perdure/internal/partition"
)

// limits calls an rpc of AdminService about limits.
func (s *stage) limits(method, body string) string {
	s.t.Helper()
	status, text := s.post("/perdure.admin.v1.AdminService/"+method, body)
	if status != http.StatusOK {
		s.t.Errorf("%s %s: %d %s", method, body, status, text)
	}
	var compact bytes.Buffer // How protojson puts blanks differs from build to build.
	if err := json.Compact(&compact, []byte(text)); err != nil {
		s.t.Error(err)
	}
	return compact.String()
}

// setRule sets a rule for a limit of BatchService, which holds everywhere when it returns.
func (s *stage) setRule(limit, says string) {
	s.t.Helper()
	var made struct{ Missing []int }
	text := s.limits("SetLimitRules", fmt.Sprintf(`{"rules":[{"name":"stage.v1.BatchService/%s",%s}]}`, limit, says))
	if err := json.Unmarshal([]byte(text), &made); err != nil || len(made.Missing) > 0 {
		s.t.Errorf("the rule for %s: %s, %v", limit, text, err)
	}
}

func (s *stage) removeRule(limit string) {
	s.t.Helper()
	s.limits("RemoveLimitRules", fmt.Sprintf(`{"names":["stage.v1.BatchService/%s"]}`, limit))
}

func (g *gauge) inside() int {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.now
}

// TestRules: a limit lets what the rule of the moment says. Those that run go on, and whoever waits begins
// at once when there is room.
func TestRules(t *testing.T) {
	limitedWays(t, []actor.Limit{{Name: "three", Concurrency: 3}}, func(s *stage) {
		var g gauge
		work := s.work(&g, 10*time.Second)
		var waits sync.WaitGroup
		for range 16 {
			inv, err := s.send(s.t.Context(), s.batches.Methods[keep], "", work)
			s.must(inv, err)
			waits.Go(func() { s.must(s.attach(inv)) })
		}
		runs := func(when string, want int) {
			s.t.Helper()
			time.Sleep(time.Second) // of fake time, as all here: who may begin has begun
			if got := g.inside(); got != want {
				s.t.Errorf("%s %d run, want %d", when, got, want)
			}
		}
		runs("as declared", 3)
		s.setRule("three", `"concurrency":1`)
		runs("lowered to 1, with 3 running,", 3)
		if text := s.limits("ListLimits", `{}`); !strings.Contains(text, `"held":3`) || !strings.Contains(text, `"rule":"stage.v1.BatchService/three"`) || !strings.Contains(text, `"declared":{"name":"stage.v1.BatchService/three","concurrency":3}`) {
			s.t.Errorf("the limits are %s", text)
		}
		time.Sleep(10 * time.Second) // what each of them takes
		runs("once those have ended", 1)
		s.setRule("three", `"concurrency":5`)
		runs("raised to 5", 5)
		s.setRule("three", `"concurrency":0,"description":"stop"`)
		time.Sleep(10 * time.Second) // what each of the five takes
		runs("stopped", 0)
		if text := s.limits("GetLimit", `{"name":"stage.v1.BatchService/three"}`); !strings.Contains(text, `"closed":true`) || !strings.Contains(text, `"description":"stop"`) {
			s.t.Errorf("the limit is %s", text)
		}
		s.setRule("three", `"anyConcurrency":true,"rate":{"count":2,"per":"5s"}`)
		runs("by a rate of 2 at first", 2)
		time.Sleep(2 * time.Second) // and what runs waits: more than half of 5 s
		runs("one more after half of the rate's time", 3)
		s.removeRule("three")
		time.Sleep(9 * time.Second) // until those that the rate let begin have ended
		runs("as declared again", 3)
		waits.Wait()
		if g.most != 5 {
			s.t.Errorf("%d ran at once", g.most)
		}
	})
}

// TestRulesOfLimitKeys: of several rules for a limit key the most exact one counts.
func TestRulesOfLimitKeys(t *testing.T) {
	limitedWays(t, []actor.Limit{{Name: "each", By: actor.ByLimitKey, Concurrency: 2}}, func(s *stage) {
		s.setRule("each=*", `"concurrency":3`)
		s.setRule("each=t-*", `"concurrency":1`)
		s.setRule("each=t-7", `"concurrency":4`)
		gauges := map[string]*gauge{"": {}, "other": {}, "t-1": {}, "t-7": {}}
		var waits sync.WaitGroup
		for key, g := range gauges {
			work := s.work(g, time.Second)
			for range 6 {
				inv, err := s.send(s.t.Context(), s.batches.Methods[keep], "", work, actor.LimitKey(key))
				s.must(inv, err)
				waits.Go(func() { s.must(s.attach(inv)) })
			}
		}
		waits.Wait()
		for key, want := range map[string]int{"": 3, "other": 3, "t-1": 1, "t-7": 4} {
			if got := gauges[key].most; got != want {
				s.t.Errorf("%d of limit key %q ran at once, want %d", got, key, want)
			}
		}
	})
}

// TestRuleOfAQueue: a rule bounds who waits for a limit that is declared without such a bound.
func TestRuleOfAQueue(t *testing.T) {
	limitedWays(t, []actor.Limit{{Name: "one", Concurrency: 1}}, func(s *stage) {
		var g gauge
		work := s.work(&g, 30*time.Second)
		var waits sync.WaitGroup
		ask := func() {
			s.t.Helper()
			inv, err := s.send(s.t.Context(), s.batches.Methods[keep], "", work)
			s.must(inv, err)
			time.Sleep(100 * time.Millisecond) // of fake time: it waits for the limit, or runs, before the next is sent
			waits.Go(func() { s.must(s.attach(inv)) })
		}
		ask()
		ask()
		s.setRule("one", `"maxQueue":1`)
		_, err := s.send(s.t.Context(), s.batches.Methods[keep], "", work)
		s.refused(err, actor.ResourceExhausted, "1 calls wait", "no more than 1 may")
		_, err = s.invoke(s.t.Context(), s.batches.Methods[keep], "", work)
		s.refused(err, actor.ResourceExhausted, "no more than 1 may")
		s.setRule("one", `"maxQueue":0`)
		_, err = s.send(s.t.Context(), s.batches.Methods[keep], "", work)
		s.refused(err, actor.ResourceExhausted, "none wait")
		s.removeRule("one")
		ask()
		waits.Wait()
		if g.most != 1 {
			s.t.Errorf("%d ran at once", g.most)
		}
	})
}

// TestRulesAreChecked: what is wrong with rules is told, all of it, and none of them is set.
func TestRulesAreChecked(t *testing.T) {
	s := newStageWith(t, func(s *stage) {
		s.batches.Methods[keep].Options.Limits = []actor.Limit{
			{Name: "three", Concurrency: 3}, {Name: "rate", By: actor.ByHandler, Rate: actor.Rate{Count: 1, Per: time.Second}}, {Name: "each", By: actor.ByTenant, Concurrency: 1},
		}
	}, cluster.WithInMemory(), cluster.WithPartitions(2))
	defer stopNode(t, s.node)
	handler := s.batches.Methods[keep].Name
	for _, c := range []struct {
		method, body string
		want         []string
	}{
		{"SetLimitRules", `{}`, []string{"invalid_argument", "0 rules"}},
		{
			"SetLimitRules",
			`{"rules":[{"name":"stage.v1.BatchService/three","concurrency":1},{"name":"stage.v1.BatchService/two","concurrency":1},
				{"name":"stage.v1.BatchService/three=x","concurrency":1},{"name":"other.v1.Service/x","concurrency":1},{"name":"three"},
				{"name":"stage.v1.BatchService/` + handler + `/rate","concurrency":1},{"name":"stage.v1.BatchService/each","rate":{}},
				{"name":"stage.v1.BatchService/each=a","concurrency":1,"anyConcurrency":true},{"name":"stage.v1.BatchService/each=b"}]}`,
			[]string{
				"invalid_argument", "nothing was set",
				"BatchService/two: this build declares no such limit; it has stage.v1.BatchService/" + handler + "/rate, stage.v1.BatchService/each, stage.v1.BatchService/three",
				"BatchService/three=x: stage.v1.BatchService/three counts all together", "this build has no service other.v1.Service", "SERVICE/LIMIT",
				"/rate is declared without a concurrency", "the rate's count is 0", "says both", "BatchService/each=b says nothing", "set undeclared",
			},
		},
		{"SetLimitRules", `{"rules":[{"name":"stage.v1.BatchService/two","concurrency":1}]}`, []string{"declares no such limit"}},
		{"RemoveLimitRules", `{"names":["stage.v1.BatchService/three"]}`, []string{"not_found", "nothing was removed", "stage.v1.BatchService/three"}},
		{"GetLimit", `{"name":"stage.v1.BatchService/three"}`, []string{"not_found", "nobody uses"}},
	} {
		status, text := s.post("/perdure.admin.v1.AdminService/"+c.method, c.body)
		for _, want := range c.want {
			if status == http.StatusOK || !strings.Contains(text, want) {
				t.Errorf("%s %s: %d %s, want %s", c.method, c.body, status, text, want)
			}
		}
	}
	if text := s.limits("ListLimitRules", `{}`); strings.Contains(text, "rules") {
		t.Errorf("after changes that were refused there are %s", text)
	}
	s.limits("SetLimitRules", `{"undeclared":true,"rules":[{"name":"stage.v1.BatchService/two","concurrency":1},{"name":"stage.v1.BatchService/each=*","maxQueue":7}]}`)
	text := s.limits("ListLimitRules", `{"service":"stage.v1.BatchService"}`)
	for _, want := range []string{`"name":"stage.v1.BatchService/each"`, `"maxQueue":7`, `"by":"TENANT"`, `"name":"stage.v1.BatchService/two"`, `"unused":"stage.v1.BatchService/two: this build declares no such limit`} {
		if !strings.Contains(text, want) {
			t.Errorf("the rules are %s, want %s", text, want)
		}
	}
	if text := s.limits("ListLimitRules", `{"pageSize":1}`); !strings.Contains(text, `"nextPageToken":"stage.v1.BatchService/each"`) {
		t.Errorf("the first page is %s", text)
	}
	if text := s.limits("ListLimitRules", `{"service":"other.v1.Service"}`); strings.Contains(text, "rules") {
		t.Errorf("of another service there are %s", text)
	}
	if text := s.limits("GetLimit", `{"name":"stage.v1.BatchService/each"}`); !strings.Contains(text, `"maxQueue":7`) {
		t.Errorf("a rule that nobody is under is %s", text)
	}
}

// TestRulesSurviveARestart: a rule counts in the next process and the next build, is listed as unused by
// one without its limit, and counts again in the one after.
func TestRulesSurviveARestart(t *testing.T) {
	countsAttempts(t)
	dir := t.TempDir()
	var g gauge
	start := func(limits ...actor.Limit) *stage {
		return newStageWith(t, func(s *stage) {
			s.batches.Methods[keep].Options.Limits = limits
			s.on("work", func(ctx actor.Context) (string, error) {
				g.enter()
				defer g.leave()
				return "", actor.Sleep(ctx, time.Millisecond)
			})
		}, cluster.WithDataDir(dir), cluster.WithPartitions(8), func(c *cluster.Config) { c.DrainTimeout = time.Millisecond })
	}
	run := func(s *stage, want int) {
		t.Helper()
		g.mu.Lock()
		g.most = 0
		g.mu.Unlock()
		var calls sync.WaitGroup
		for range 12 {
			calls.Go(func() { s.must(s.invoke(t.Context(), s.batches.Methods[keep], "", "work")) })
		}
		calls.Wait()
		if g.most > want {
			t.Errorf("%d ran at once, want %d", g.most, want)
		}
	}
	s := start(actor.Limit{Name: "two", Concurrency: 4})
	s.setRule("two", `"concurrency":1`)
	stopNode(t, s.node)
	s = start(actor.Limit{Name: "two", Concurrency: 6})
	run(s, 1)
	stopNode(t, s.node)
	s = start()
	if text := s.limits("ListLimitRules", `{}`); !strings.Contains(text, `"unused"`) {
		t.Errorf("without the limit the rules are %s", text)
	}
	stopNode(t, s.node)
	s = start(actor.Limit{Name: "two", Concurrency: 6})
	defer func() { stopNode(t, s.node) }()
	run(s, 1)
	if text := s.limits("ListLimitRules", `{}`); strings.Contains(text, `"unused"`) || !strings.Contains(text, `"concurrency":6`) {
		t.Errorf("with the limit the rules are %s", text)
	}
}

func TestRulesNeedALevelThatIsRead(t *testing.T) {
	if partition.RulesLevel > registry.FeatureLevel {
		t.Errorf("rules are records of level %d, and this version reads %d", partition.RulesLevel, registry.FeatureLevel)
	}
}
