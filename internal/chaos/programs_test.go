//go:build unix

package chaos

import (
	"context"
	"fmt"
	"log/slog"
	"maps"
	"math/rand/v2"
	"net/http"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/perdure/perdure/actor"
	"github.com/perdure/perdure/cluster"
	chaosv1 "github.com/perdure/perdure/internal/chaos/gen/chaos/v1"
	programs "github.com/perdure/perdure/internal/chaos/gen/chaos/v1/chaosv1perdure"
)

// TestPrograms runs random programs over all kinds of steps on a node that is killed and paused all
// the while, and compares every counter with what the programs come to.
func TestPrograms(t *testing.T) {
	random := choices(t)
	length := *chaosFor
	if testing.Short() {
		length = min(length, 4*time.Second)
	}
	// Half of the runs suspend at every wait.
	settings := nodeSettings{Partitions: 8}
	if random.IntN(2) == 0 {
		settings.InactivityTimeout = time.Nanosecond
	}
	n := newNode(t, t.TempDir(), settings)
	n.start()
	ctx, cancel := context.WithTimeout(t.Context(), length)
	defer cancel()
	patience, giveUp := context.WithTimeout(t.Context(), length+2*time.Minute)
	defer giveUp()

	expected := &struct {
		sync.Mutex
		counts
	}{counts: counts{}}
	var done, steps atomic.Int64
	var callers sync.WaitGroup
	for caller := range 16 {
		a := &author{random: rand.New(rand.NewPCG(random.Uint64(), 0)), width: 5, run: fmt.Sprint("flow/", caller)}
		client := cluster.Dial(nil, n.url)
		callers.Go(func() {
			for ctx.Err() == nil {
				program := a.root()
				expected.Lock()
				expected.expect(program.Key, program.Steps)
				expected.Unlock()
				response, err := programs.Interpreter(client, program.Key).Interpret(patience, &chaosv1.InterpretRequest{Steps: program.Steps})
				if err := checkCall(program, response, err); err != nil {
					t.Errorf("program on %s: %v\n%v", program.Key, err, program.Steps)
					return
				}
				done.Add(1)
				steps.Add(int64(len(program.Steps)))
			}
		})
	}
	kills, pauses, slowest := n.torment(ctx, random)
	callers.Wait()
	n.settled(patience, expected.counts)
	t.Logf("%d programs (inactivity timeout %s), %d kills, %d pauses, slowest start %s", done.Load(), settings.InactivityTimeout, kills, pauses, slowest.Round(time.Millisecond))
	if done.Load() == 0 {
		t.Error("no program ended")
	}
}

// active asks for one invocation that has not ended.
const active = `{"pageSize":1,"status":["INVOCATION_STATUS_SCHEDULED","INVOCATION_STATUS_QUEUED","INVOCATION_STATUS_RUNNING",` +
	`"INVOCATION_STATUS_SUSPENDED","INVOCATION_STATUS_BACKING_OFF","INVOCATION_STATUS_PAUSED"]}`

// settled waits until the counters hold what they must and nothing is under way any more. A counter
// that holds more has seen something twice.
func (n *node) settled(ctx context.Context, expected counts) {
	n.t.Helper()
	client := cluster.Dial(nil, n.url)
	for deadline := time.Now().Add(time.Minute); ; {
		missing, err := compare(ctx, client, expected)
		switch {
		case err != nil:
			n.t.Error(err)
			return
		case missing == "":
			got, err := n.post(ctx, &http.Client{}, "/perdure.admin.v1.AdminService/ListInvocations", active)
			if err == nil && got.status == http.StatusOK && !strings.Contains(got.body, `"invocations"`) {
				if _, err := compare(ctx, client, expected); err != nil {
					n.t.Error(err)
				}
				return
			}
			missing = fmt.Sprintf("invocations under way: %v %d %.500s", err, got.status, got.body)
		}
		if time.Now().After(deadline) {
			n.t.Error(missing)
			return
		}
		time.Sleep(20 * time.Millisecond) // polling another process
	}
}

// compare returns an error if a counter holds too much, and says what is missing.
func compare(ctx context.Context, client *actor.Client, expected counts) (missing string, err error) {
	for _, key := range slices.Sorted(maps.Keys(expected)) {
		response, err := programs.Interpreter(client, key).Count(ctx, &chaosv1.CountRequest{})
		switch {
		case actor.CodeOf(err) == actor.Unavailable && ctx.Err() == nil:
			return key + ": " + err.Error(), nil
		case err != nil:
			return "", fmt.Errorf("count of %s: %w", key, err)
		case response.Count > expected[key]:
			return "", fmt.Errorf("%s holds %d, and all programs together come to %d: something happened twice", key, response.Count, expected[key])
		case response.Count < expected[key]:
			missing = fmt.Sprintf("%s holds %d, not %d", key, response.Count, expected[key])
		}
	}
	return missing, nil
}

// TestProgramsInMemory runs the same programs on nodes in memory and under fake time: with a crash
// at every entry, with a suspension at every wait, and with both. Seeds that failed once come first.
func TestProgramsInMemory(t *testing.T) {
	t.Parallel() // with those that mostly wait: its own clock is fake
	for _, variant := range []struct {
		name    string
		options []cluster.Option
	}{
		{"plain", nil},
		{"crash at every entry", []cluster.Option{cluster.WithCrashAtEveryEntry()}},
		{"suspend at every wait", []cluster.Option{cluster.WithInactivityTimeout(time.Nanosecond)}},
		{"both, one partition", []cluster.Option{cluster.WithCrashAtEveryEntry(), cluster.WithInactivityTimeout(time.Nanosecond), cluster.WithPartitions(1)}},
	} {
		t.Run(variant.name, func(t *testing.T) {
			seeds := keptSeeds(t)
			random := choices(t)
			fresh := 1 // A seed takes 6 s of CPU under the race detector; there are many runs, and TestPrograms tries programs too.
			if *chaosFor >= time.Minute {
				fresh = 6
			}
			for range fresh {
				seeds = append(seeds, random.Uint64())
			}
			for _, seed := range seeds {
				synctest.Test(t, func(t *testing.T) { programsInMemory(t, seed, variant.options) })
				if t.Failed() {
					t.Fatalf("seed %d: keep it in testdata/seeds/programs.txt", seed)
				}
			}
		})
	}
}

func programsInMemory(t *testing.T, seed uint64, options []cluster.Option) {
	n := cluster.NewNode(append([]cluster.Option{cluster.WithInMemory(), cluster.WithoutListener(), cluster.WithPartitions(4),
		cluster.WithLogger(slog.New(slog.DiscardHandler))}, options...)...)
	registerPrograms(n)
	if err := n.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := n.Shutdown(context.Background()); err != nil {
			t.Error(err)
		}
	}()
	// More than every timeout and every retry takes.
	patience, giveUp := context.WithTimeout(t.Context(), 3*never)
	defer giveUp()
	random := rand.New(rand.NewPCG(seed, 1))
	expected := counts{}
	var callers sync.WaitGroup
	for caller := range 4 {
		a := &author{random: rand.New(rand.NewPCG(random.Uint64(), 0)), width: 3, run: fmt.Sprint("flow/", caller)}
		var written []*chaosv1.CallProgram
		for range 5 {
			program := a.root()
			expected.expect(program.Key, program.Steps)
			written = append(written, program)
		}
		callers.Go(func() {
			for _, program := range written {
				response, err := programs.Interpreter(n.Client(), program.Key).Interpret(patience, &chaosv1.InterpretRequest{Steps: program.Steps})
				if err := checkCall(program, response, err); err != nil {
					t.Errorf("program on %s: %v\n%v", program.Key, err, program.Steps)
				}
			}
		})
	}
	callers.Wait()
	// Fake time passes until all that was sent has run.
	for waited := 0; ; waited++ {
		missing, err := compare(t.Context(), n.Client(), expected)
		if err != nil {
			t.Error(err)
			return
		}
		if missing == "" {
			return
		}
		if waited > 1_000 {
			t.Error(missing)
			return
		}
		time.Sleep(100 * time.Millisecond)
	}
}

// keptSeeds are those that failed once.
func keptSeeds(t *testing.T) []uint64 {
	t.Helper()
	text, err := os.ReadFile("testdata/seeds/programs.txt")
	if err != nil {
		t.Fatal(err)
	}
	var seeds []uint64
	for line := range strings.Lines(string(text)) {
		if line = strings.TrimSpace(line); line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		seed, err := strconv.ParseUint(line, 10, 64)
		if err != nil {
			t.Fatal(err)
		}
		seeds = append(seeds, seed)
	}
	return seeds
}
