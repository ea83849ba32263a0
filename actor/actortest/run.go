package actortest

import (
	"flag"
	"fmt"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// The flags of test programs that import this package.
var (
	oneSeed  = flag.String("actortest.seed", "", "the one seed that actortest.Seeds runs")
	seeds    = flag.Int("actortest.seeds", 0, "how many seeds actortest.Seeds runs, instead of what the test says")
	oneOrder = flag.String("actortest.order", "", "the one order, such as 0.2.1, that actortest.EveryOrder runs")
	moves    = flag.Int("actortest.moves", 60, "how many of the last moves a failed test shows; -1 is all")
	update   = flag.Bool("actortest.update", false, "write the files that actortest.Golden compares with")
)

// Scenario is a test's story: it registers handlers with the node, calls them and says what must
// be true. It runs several times, each time in a bubble of its own with a fake clock
// (testing/synctest), so what it and its handlers share it makes anew; and it may not call
// synctest.Wait, which is the node's: Settle does as much.
type Scenario = func(t *testing.T, node *Node)

// Run runs the scenario in the ways in which handlers come to grief, each a subtest: undisturbed;
// with every attempt dying after each entry it records; with every wait suspended; and with
// partitions that lose their leader again and again.
func Run(t *testing.T, scenario Scenario, opts ...Option) {
	t.Helper()
	for _, way := range []struct {
		name string
		opts []Option
		plan inOrder
	}{
		{name: "plain"},
		{name: "crash at every entry", opts: []Option{WithCrashAtEveryEntry()}},
		{name: "suspend at every wait", opts: []Option{WithSuspendAtEveryWait()}},
		{name: "lose the leader", plan: inOrder{leaderless: 7}},
	} {
		t.Run(way.name, func(t *testing.T) {
			bubble(t, newConfig(append(opts[:len(opts):len(opts)], way.opts...)), &way.plan, scenario)
		})
	}
}

// bubble runs a scenario once and returns what happened.
func bubble(t *testing.T, config config, plan plan, scenario Scenario) (happened []string) {
	synctest.Test(t, func(t *testing.T) {
		node := newNode(t, config, plan)
		defer func() { happened = node.Moves() }()
		scenario(t, node)
	})
	return happened
}

// Seeds runs the scenario under the seeds from 0 to n-1, each a subtest. A seed decides in which
// order things happen, which are late, which messages are lost or come twice, when attempts die,
// when partitions lose their leader and when the power fails; every fourth decides the order only.
// The same seed decides the same: a seed that failed fails again, move by move, as long as the
// code is the same and neither it nor the scenario takes decisions by chance. The failure says
// which command runs it alone.
func Seeds(t *testing.T, n int, scenario Scenario, opts ...Option) {
	t.Helper()
	first, end := uint64(0), uint64(n)
	if *seeds > 0 {
		end = uint64(*seeds)
	}
	if *oneSeed != "" {
		seed, err := strconv.ParseUint(*oneSeed, 10, 64)
		if err != nil {
			t.Fatalf("-actortest.seed is %q: it must be a number", *oneSeed)
		}
		first, end = seed, seed+1
	}
	for seed := first; seed < end; seed++ {
		passed := t.Run(fmt.Sprintf("seed %d", seed), func(t *testing.T) {
			config, plan := newConfig(opts), newSeeded(seed)
			if config.inactivity < 0 {
				config.inactivity = []time.Duration{-1, 1, time.Minute}[seed%3]
			}
			bubble(t, config, plan, scenario)
		})
		if !passed {
			t.Fatalf("run it again with: go test -run '^%s$' . -actortest.seed=%d", t.Name(), seed)
		}
	}
}

// EveryOrder runs the scenario once for each order in which handlers can hear of what they wait
// for, closures of Run can begin and callers outside can be heard; whether time passes until the
// next sleep ends before that counts as well. It is for small handlers: three futures have 6
// orders, six have 720. It ends at WithMaxOrders and logs how many orders it tried and whether
// those were all. The failure says which command runs its order alone.
func EveryOrder(t *testing.T, scenario Scenario, opts ...Option) {
	t.Helper()
	config := newConfig(opts)
	var path []int
	if *oneOrder != "" {
		var err error
		if path, err = parseOrder(*oneOrder); err != nil {
			t.Fatal(err)
		}
	}
	for tried := 1; ; tried++ {
		plan := &ordered{path: path}
		passed := t.Run("order "+orderText(path), func(t *testing.T) { bubble(t, config, plan, scenario) })
		path = plan.following()
		switch {
		case !passed:
			t.Fatalf("run it again with: go test -run '^%s$' . -actortest.order=%s\nthe order:\n\t%s", t.Name(), orderText(plan.taken()), strings.Join(plan.texts, "\n\t"))
		case *oneOrder != "":
			return
		case path == nil:
			t.Logf("%d orders, which is all of them", tried)
			return
		case tried == config.maxOrders:
			t.Logf("%d orders; there are more: WithMaxOrders tries more", tried)
			return
		}
	}
}

// taken is the path that was taken, without the zeros at its end.
func (p *ordered) taken() []int {
	taken := make([]int, len(p.widths))
	copy(taken, p.path)
	for len(taken) > 0 && taken[len(taken)-1] == 0 {
		taken = taken[:len(taken)-1]
	}
	return taken
}

func orderText(path []int) string {
	if len(path) == 0 {
		return "0"
	}
	texts := make([]string, len(path))
	for i, decision := range path {
		texts[i] = strconv.Itoa(decision)
	}
	return strings.Join(texts, ".")
}

func parseOrder(text string) ([]int, error) {
	var path []int
	for _, part := range strings.Split(text, ".") {
		decision, err := strconv.Atoi(part)
		if err != nil || decision < 0 {
			return nil, fmt.Errorf("-actortest.order is %q: it must be numbers with dots between them, such as 0.2.1", text)
		}
		path = append(path, decision)
	}
	return path, nil
}
