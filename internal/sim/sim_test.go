package sim

import (
	"context"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/perdure/perdure/internal/invocation"
	recordv1 "github.com/perdure/perdure/internal/record/v1"
)

var (
	oneSeed = flag.Uint64("seed", 0, "run only this seed, and print its trace")
	repeat  = flag.Int("sim.repeat", 1, "how often -seed is run")
	simFor  = flag.Duration("sim.for", 16*time.Second, "how long TestSeed and TestCrowd together try new seeds, in real time")
	from    = flag.Uint64("sim.from", 0, "the first new seed; 0 takes one from the clock")
)

// TestSeed replays the seeds in testdata/seeds, which failed once, and then tries new ones. A
// seed that fails belongs there, in a file that says what it was.
func TestSeed(t *testing.T) { simulate(t, ordinary) }

// TestCrowd is TestSeed with fewer things and more of them at one place.
func TestCrowd(t *testing.T) { simulate(t, crowded) }

// TestCluster is TestSeed with four nodes, of which three hold each partition.
func TestCluster(t *testing.T) { simulate(t, clustered) }

// TestApart is TestCluster with handlers on two of the four nodes. What is not about that, TestCluster
// looks for, so that a few seeds do.
func TestApart(t *testing.T) { trySeeds(t, apart, nil, *simFor/8) }

func simulate(t *testing.T, load load) { trySeeds(t, load, keptSeeds(t), *simFor/2) }

// trySeeds runs some seeds, and then new ones for so long.
func trySeeds(t *testing.T, load load, kept []uint64, forNew time.Duration) {
	if *oneSeed != 0 {
		for range *repeat {
			violation, trace := run(t, *oneSeed, load)
			t.Log("\n" + strings.Join(trace, "\n"))
			if violation != "" {
				t.Fatalf("seed %d: %s", *oneSeed, violation)
			}
		}
		return
	}
	try := func(seed uint64) {
		if violation, trace := run(t, seed, load); violation != "" {
			t.Fatalf("%s\n%s\ngo test ./internal/sim -run %s -seed %d", strings.Join(trace, "\n"), violation, t.Name(), seed)
		}
	}
	for _, seed := range kept {
		try(seed)
	}
	seed := *from
	if seed == 0 {
		seed = uint64(time.Now().UnixNano())
	}
	n := 0
	for end := time.Now().Add(forNew); n < 3 || time.Now().Before(end); n++ {
		try(seed + uint64(n))
	}
	t.Logf("%d seeds from %d", n, seed)
}

// keptSeeds reads testdata/seeds: a number per line, # starts a comment.
func keptSeeds(t *testing.T) []uint64 {
	files, err := filepath.Glob("testdata/seeds/*.txt")
	if err != nil {
		t.Fatal(err)
	}
	var seeds []uint64
	for _, file := range files {
		data, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for line := range strings.Lines(string(data)) {
			line, _, _ = strings.Cut(line, "#")
			if line = strings.TrimSpace(line); line == "" {
				continue
			}
			seed, err := strconv.ParseUint(line, 10, 64)
			if err != nil {
				t.Fatalf("%s: %v", file, err)
			}
			seeds = append(seeds, seed)
		}
	}
	return seeds
}

func account(i int) invocation.Target {
	return invocation.Target{Service: "sim.Account", Key: fmt.Sprint("a", i), Handler: "Deposit"}
}

// fund gives every account its money.
func (w *world) fund() {
	for i := range accounts {
		w.request(fmt.Sprint("fund", i), account(i), invocation.ModeTransaction, value(funds), newChance(w.seed, 50+uint64(i)))
	}
	for i := range purses {
		t := invocation.Target{Service: "sim.Account", Key: purse(i), Handler: "Deposit"}
		w.request(fmt.Sprint("purse", i), t, invocation.ModeTransaction, value(funds), newChance(w.seed, 70+uint64(i)))
	}
}

// check holds what is there against what callers were told.
func (w *world) check(n *node) {
	state := func(service, key string) int64 {
		result, err := n.State(context.Background(), invocation.Object{Service: service, Key: key})
		if err != nil {
			w.fail("state of %s/%s: %v", service, key, err)
			return 0
		}
		return number(result.State)
	}
	w.mu.Lock()
	acks := w.mu.acked
	executed := w.mu.executed
	w.mu.Unlock()

	sums, oneWay, sent := map[string][]int64{}, map[string]int64{}, int64(0)
	moves := map[string]int64{}
	for key, a := range acks {
		if a.oneWay {
			oneWay[a.target.Key]++
			continue
		}
		detail, err := n.Invocation(context.Background(), a.id)
		if err != nil {
			w.fail("%s was answered and: %v", key, err)
			continue
		}
		if got := text(detail.Row.Result); got != a.result {
			w.fail("%s was answered %s, its row says %s", key, a.result, got)
		}
		switch a.target.Handler {
		case "AddAndSend":
			sent += 2
			fallthrough
		case "Add":
			sums[a.target.Key] = append(sums[a.target.Key], number([]byte(a.result)))
		case "Move", "Pay":
			if detail.Row.Status == recordv1.Status_STATUS_SUCCEEDED {
				sent++
				moves[a.target.Key]++
			}
		case "Transfer":
			w.checkTransfer(key, a, detail.Row.Status, executed)
		}
	}
	for counter, all := range sums {
		slices.Sort(all)
		for i, sum := range all {
			if sum != int64(i+1) {
				w.fail("%s: the returned sums are not 1, 2, 3 …: %v", counter, all)
				break
			}
		}
		if got := state("sim.Counter", counter); got != int64(len(all)) {
			w.fail("%s is %d after %d adds", counter, got, len(all))
		}
	}
	for counter, want := range oneWay {
		if got := state("sim.Counter", counter); got != want {
			w.fail("%s is %d after %d one-way adds were accepted", counter, got, want)
		}
	}
	got := int64(0)
	for i := range 3 {
		got += state("sim.Counter", fmt.Sprint("sent", i))
	}
	if got != sent {
		w.fail("%d adds were sent by transactions that committed, %d arrived", sent, got)
	}
	for i := range movers {
		if got, want := state("sim.Mover", mover(i)), moves[mover(i)]; got != want {
			w.fail("%s has counted %d transfers, %d were acknowledged", mover(i), got, want)
		}
	}
	money := int64(0)
	for i := range accounts {
		money += state("sim.Account", fmt.Sprint("a", i))
	}
	for i := range purses {
		money += state("sim.Account", purse(i))
	}
	if money != (accounts+purses)*funds {
		w.fail("there is %d of money, it was %d", money, (accounts+purses)*funds)
	}
}

// checkTransfer: what a transfer returned is what its closures said, in executions that the
// outside world saw.
func (w *world) checkTransfer(key string, a *acked, status recordv1.Status, executed map[execution][]string) {
	if status != recordv1.Status_STATUS_SUCCEEDED {
		if a.result != "error 9 not enough" {
			w.fail("%s: %s", key, a.result)
		}
		return
	}
	receipt, confirm, _ := strings.Cut(a.result, " ")
	for step, said := range map[uint32]string{1: receipt} {
		if !slices.Contains(executed[execution{a.id, step}], said) {
			w.fail("%s returned %s, the closure said %v", key, said, executed[execution{a.id, step}])
		}
	}
	found := false
	for e, all := range executed {
		found = found || e.id == a.id && slices.Contains(all, confirm)
	}
	if !found {
		w.fail("%s returned %s, which no closure of it said", key, confirm)
	}
}
