package sim

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/perdure/perdure/internal/invocation"
	recordv1 "github.com/perdure/perdure/internal/record/v1"
)

var (
	oneSeed = flag.Uint64("seed", 0, "run only this seed, and print its trace")
	repeat  = flag.Int("sim.repeat", 1, "how often -seed is run")
	simFor  = flag.Duration("sim.for", besideOthers, "how long TestSeed and TestCrowd together try new seeds, in real time")
	from    = flag.Uint64("sim.from", 0, "the first new seed; 0 takes one from the clock")
	fewFor  = flag.Duration("sim.few", 0, "how long TestFew tries new seeds, in real time; 0 follows from -sim.for")
	howMany = flag.Uint64("sim.seeds", 0, "try so many new seeds, however long that takes; 0 is those of -sim.for")
	twice   = flag.Bool("sim.twice", false, "run each seed twice and compare the traces; only under internal/sim/replay")
	share   = flag.String("sim.share", alone, "run only a share of the seeds, as another of so many processes runs the others")
)

// alone is the share of who shares with nobody.
const alone = "0/1"

// besideOthers is the time there is where a test is one of many.
const besideOthers = 16 * time.Second

// TestSeed replays the seeds in testdata/seeds, which failed once, and then tries new ones. A
// seed that fails belongs there, in a file that says what it was.
func TestSeed(t *testing.T) { simulate(t, ordinary) }

// TestCrowd is TestSeed with fewer things and more of them at one place.
func TestCrowd(t *testing.T) { simulate(t, crowded) }

// TestCluster is TestSeed with four nodes, of which three hold each partition.
func TestCluster(t *testing.T) { simulate(t, clustered) }

// TestFew is TestCluster with so little to do that a seed takes a twentieth of the time. It finds more in the
// same time, so that it has most of it where that is long; beside other tests it has no more than they have.
func TestFew(t *testing.T) {
	share := *simFor / 2
	switch {
	case *fewFor > 0:
		share = *fewFor
	case *simFor > besideOthers:
		share = *simFor * 5 / 2
	}
	trySeeds(t, few, keptSeeds(t), share)
}

// TestApart is TestCluster with handlers on two of the four nodes. What is not about that, TestCluster
// looks for, so that a few seeds do.
func TestApart(t *testing.T) { trySeeds(t, apart, nil, *simFor/8) }

func simulate(t *testing.T, load load) { trySeeds(t, load, keptSeeds(t), *simFor/2) }

// trySeeds runs some seeds, and then new ones for so long.
func trySeeds(t *testing.T, load load, kept []uint64, forNew time.Duration) {
	if *oneSeed != 0 {
		for range *repeat {
			w := try(t, *oneSeed, load)
			t.Logf("\n%s\ntrace of seed %d: %s", strings.Join(w.mu.trace, "\n"), *oneSeed, w.events.digest())
		}
		return
	}
	if *share == alone && forNew > besideOthers/2 && *howMany == 0 && runtime.NumCPU() > 1 && !replays {
		shareSeeds(t)
		return
	}
	var this, of uint64
	if n, err := fmt.Sscanf(*share, "%d/%d", &this, &of); n != 2 || this >= of {
		t.Fatalf("-sim.share is %q, not a number, / and a higher one (%v)", *share, err)
	}
	for i, seed := range kept {
		if uint64(i)%of == this {
			try(t, seed, load)
		}
	}
	seed := *from
	if seed == 0 {
		seed = uint64(time.Now().UnixNano())
	}
	n := uint64(0)
	least := uint64(3)
	if *simFor <= besideOthers {
		least = 1 // a seed of a long cluster takes a minute with the race detector
	}
	more := func(end time.Time) bool { return n*of < least || time.Now().Before(end) }
	if *howMany != 0 {
		more = func(time.Time) bool { return n < *howMany }
	}
	for end := time.Now().Add(forNew); more(end); n++ {
		try(t, seed+n*of+this, load)
	}
	t.Logf("%d seeds from %d", n, seed+this)
}

// shareSeeds runs seeds in a process for each processor: one simulation keeps no second one busy.
func shareSeeds(t *testing.T) {
	program, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	seed := *from
	if seed == 0 {
		seed = uint64(time.Now().UnixNano())
	}
	hung := time.Duration(0) // never
	if deadline, ok := t.Deadline(); ok {
		hung = max(time.Until(deadline)-5*time.Second, time.Second) // before this process, which would leave the others behind
	}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	shares := runtime.NumCPU()
	outputs, errs := make([][]byte, shares), make([]error, shares)
	var all sync.WaitGroup
	for i := range shares {
		all.Go(func() {
			outputs[i], errs[i] = exec.CommandContext(ctx, program, "-test.run", "^"+t.Name()+"$", "-test.v", "-test.timeout", hung.String(),
				"-sim.share", fmt.Sprintf("%d/%d", i, shares), "-sim.from", fmt.Sprint(seed), "-sim.for", simFor.String(), "-sim.few", fewFor.String()).CombinedOutput()
			if errs[i] != nil {
				cancel() // The first failure is enough.
			}
		})
	}
	all.Wait()
	for i, out := range outputs {
		t.Logf("process %d of %d: %v\n%s", i+1, shares, errs[i], out)
	}
	if err := errors.Join(errs...); err != nil {
		t.Fatal(err)
	}
}

// processors is how many run a seed's goroutines: one, but for one seed in eight, which is for what has to run at once to go wrong.
// See doc.go. With more than one, goroutines have no order that a seed could decide.
func processors(seed uint64) int {
	if seed/12%8 == 0 && !replays { // whatever else of a seed its remainders decide
		return runtime.NumCPU()
	}
	return 1
}

// try runs a seed, or ends the test and says how to run it again.
func try(t *testing.T, seed uint64, load load) *world {
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(processors(seed)))
	var w *world
	if *twice {
		w = runTwice(t, seed, load)
	} else {
		w = runWorld(t, seed, load)
	}
	if violation := w.failure(); violation != "" {
		t.Fatalf("%s\n%s\n%s", strings.Join(w.mu.trace, "\n"), violation, again(t, seed))
	}
	return w
}

// again is the command that runs a seed again: as it was, if goroutines follow the seed.
func again(t *testing.T, seed uint64) string {
	name, _, _ := strings.Cut(t.Name(), "/")
	if replays {
		return fmt.Sprintf("go run ./internal/sim/replay -test.run '^%s$' -seed %d%s", name, seed, map[bool]string{true: " -sim.twice"}[*twice])
	}
	return fmt.Sprintf("go test ./internal/sim -run '^%s$' -seed %d -sim.repeat 20", name, seed)
}

// runTwice demands that both runs are the same.
func runTwice(t *testing.T, seed uint64, load load) *world {
	if !replays {
		t.Fatal("without the runtime of internal/sim/replay a seed does not decide which goroutine runs: go run ./internal/sim/replay")
	}
	var both [2]*world
	for i := range both {
		if *oneSeed != 0 {
			replayCompare(i == 1)
		}
		both[i] = runWorld(t, seed, load)
	}
	one, two := both[0], both[1]
	if one.events.chosen == 0 {
		t.Fatalf("seed %d decided nothing: this is not the runtime of internal/sim/replay, or it has more than one processor", seed)
	}
	if difference := one.events.differs(&two.events); difference != "" {
		t.Fatalf("seed %d ran in two ways: %s\n%s", seed, difference, again(t, seed))
	}
	return one
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

func account(i int) string       { return fmt.Sprint("a", i) }
func counter(i int) string       { return fmt.Sprint("k", i) }
func oneWayCounter(i int) string { return fmt.Sprint("oneway", i) }
func sentCounter(i int) string   { return fmt.Sprint("sent", i) }

// fund gives every account its money.
func (w *world) fund() {
	give := func(key, account string, random *chance) {
		w.request(key, target("sim.Account", account, "Deposit"), invocation.ModeTransaction, value(funds), random)
	}
	var all sync.WaitGroup
	for i := range accounts {
		all.Go(func() { give(fmt.Sprint("fund", i), account(i), newChance(w.seed, 50+uint64(i))) })
	}
	for i := range purses {
		all.Go(func() { give(fmt.Sprint("purse", i), purse(i), newChance(w.seed, 70+uint64(i))) })
	}
	all.Wait()
}

// atOnce does something with each of many, and returns when all is done.
func atOnce[T any](all []T, do func(T)) {
	var done sync.WaitGroup
	for _, one := range all {
		done.Go(func() { do(one) })
	}
	done.Wait()
}

// states are those of some objects, all asked for at once.
func (w *world) states(n *node, service string, keys ...string) map[string][]byte {
	var mu sync.Mutex
	all := map[string][]byte{}
	atOnce(keys, func(key string) {
		result, err := n.State(context.Background(), invocation.Object{Service: service, Key: key})
		if err != nil {
			w.fail("state of %s/%s: %v", service, key, err)
			return
		}
		mu.Lock()
		defer mu.Unlock()
		all[key] = result.State
	})
	return all
}

// names are as many as there are of something.
func names(n int, name func(int) string) (all []string) {
	for i := range n {
		all = append(all, name(i))
	}
	return all
}

// answered are the rows of all calls that were answered, by idempotency key.
func (w *world) answered(n *node, acks map[string]*acked) map[string]*recordv1.Invocation {
	var mu sync.Mutex
	all := map[string]*recordv1.Invocation{}
	atOnce(slices.Sorted(maps.Keys(acks)), func(key string) {
		if acks[key].oneWay {
			return
		}
		detail, err := n.Invocation(context.Background(), acks[key].id)
		if err != nil {
			w.fail("%s was answered and: %v", key, err)
			return
		}
		mu.Lock()
		defer mu.Unlock()
		all[key] = detail.Row
	})
	return all
}

// check holds what is there against what callers were told.
func (w *world) check(n *node) {
	w.mu.Lock()
	acks := w.mu.acked
	executed := w.mu.executed
	w.mu.Unlock()

	rows := w.answered(n, acks)
	counts := w.states(n, "sim.Counter", slices.Concat(names(counters, counter), names(2, oneWayCounter), names(3, sentCounter))...)
	sums, oneWay, sent := map[string][]int64{}, map[string]int64{}, int64(0)
	moves := map[string]int64{}
	for key, a := range acks {
		if a.oneWay {
			oneWay[a.target.Key]++
			continue
		}
		row := rows[key]
		if row == nil {
			continue
		}
		if got := text(row.Result); got != a.result {
			w.fail("%s was answered %s, its row says %s", key, a.result, got)
		}
		switch a.target.Handler {
		case "AddAndSend":
			sent += 2
			fallthrough
		case "Add":
			sums[a.target.Key] = append(sums[a.target.Key], number([]byte(a.result)))
		case "Move", "Pay":
			if row.Status == recordv1.Status_STATUS_SUCCEEDED {
				sent++
				moves[a.target.Key]++
			}
		case "Transfer":
			w.checkTransfer(key, a, row.Status, executed)
		}
	}
	for key, all := range sums {
		slices.Sort(all)
		for i, sum := range all {
			if sum != int64(i+1) {
				w.fail("%s: the returned sums are not 1, 2, 3 …: %v", key, all)
				break
			}
		}
		if got := number(counts[key]); got != int64(len(all)) {
			w.fail("%s is %d after %d adds", key, got, len(all))
		}
	}
	for key, want := range oneWay {
		if got := number(counts[key]); got != want {
			w.fail("%s is %d after %d one-way adds were accepted", key, got, want)
		}
	}
	arrived := int64(0)
	for i := range 3 {
		arrived += number(counts[sentCounter(i)])
	}
	if arrived != sent {
		w.fail("%d adds were sent by transactions that committed, %d arrived", sent, arrived)
	}
	moved := w.states(n, "sim.Mover", names(movers, mover)...)
	for key, state := range moved {
		if got, want := number(state), moves[key]; got != want {
			w.fail("%s has counted %d transfers, %d were acknowledged", key, got, want)
		}
	}
	money := int64(0)
	for _, state := range w.states(n, "sim.Account", slices.Concat(names(accounts, account), names(purses, purse))...) {
		money += number(state)
	}
	if minted := w.checkRestarts(n, executed); money != (accounts+purses)*funds+minted {
		w.fail("there is %d of money, it was %d, and restarts made %d of it", money, (accounts+purses)*funds, minted)
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
