package chaos

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	benchv1 "github.com/perdure/perdure/bench/gen/bench/v1"
	bench "github.com/perdure/perdure/bench/gen/bench/v1/benchv1perdure"
	"github.com/perdure/perdure/cluster"
	adminv1 "github.com/perdure/perdure/proto/perdure/admin/v1"
)

// TestCallersLeaveANodeThatHangs: a process that is stopped keeps its connections, and nothing says that it
// answers no more. Callers with the Go stub, a third of whom are at that node, go on at the others, and
// their calls are answered while it stands still; each takes effect once, also after it wakes long after others lead.
func TestCallersLeaveANodeThatHangs(t *testing.T) {
	t.Parallel() // with the timers, which mostly wait
	const callers = 24
	random := choices(t)
	l := newLab(t, 3, false)
	l.start()
	l.settled(3)
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	var done [callers]atomic.Int64
	var running sync.WaitGroup
	defer running.Wait()
	defer stop()
	all := urls(l.nodes)
	for caller := range callers {
		// Each begins at a node of its own, which is the one that it stays with.
		client := cluster.Dial(nil, append(slices.Clone(all[caller%3:]), all[:caller%3]...)...)
		running.Go(func() {
			counter := bench.Counter(client, fmt.Sprint("hung/", caller))
			for ctx.Err() == nil {
				response, err := counter.Add(ctx, &benchv1.AddRequest{Amount: 1})
				if ctx.Err() != nil {
					return
				}
				if err != nil {
					t.Errorf("caller %d: %v", caller, err)
					return
				}
				if now := done[caller].Add(1); response.Value != now {
					t.Errorf("call %d of caller %d counted %d", now, caller, response.Value)
				}
				time.Sleep(5 * time.Millisecond) // the machine must not be saturated, or waits say nothing
			}
		})
	}
	// more waits until each caller had two answers more, so one of a call that began since, and returns how long each took.
	more := func() (took []time.Duration) {
		t.Helper()
		began, waits := time.Now(), map[int]int64{}
		for caller := range callers {
			waits[caller] = done[caller].Load() + 2
		}
		for len(waits) > 0 {
			for caller, want := range waits {
				if done[caller].Load() >= want {
					delete(waits, caller)
					took = append(took, time.Since(began))
				}
			}
			// Three seconds are what it should take, and four times that what a machine under load is given.
			if time.Since(began) > 12*time.Second || t.Failed() {
				t.Fatalf("%d of %d callers have no answer after %s", len(waits), callers, time.Since(began))
			}
			time.Sleep(time.Millisecond) // polling counters of other goroutines, to measure
		}
		slices.Sort(took)
		return took
	}
	more()
	i := random.IntN(len(l.nodes))
	l.pause(i)
	took := more()
	t.Logf("node %d stands still: half of the callers are answered after %s, the last one after %s", i+1,
		took[callers/2].Round(time.Millisecond), took[callers-1].Round(time.Millisecond))
	// It wakes past any lease, when others lead what it led, and have answered calls.
	l.outlived(i)
	more()
	l.resume(i)
	l.settled(3)
	more()
}

// outlived waits until the other nodes know that a node says nothing, and lead all that it led.
func (l *lab) outlived(i int) {
	l.t.Helper()
	began, asked, found := time.Now(), l.nodes[(i+1)%len(l.nodes)], "nobody was asked"
	for deadline := began.Add(30 * time.Second); time.Now().Before(deadline); time.Sleep(50 * time.Millisecond) { // polling another process
		state, err := asked.cluster(l.t.Context())
		if err != nil {
			found = err.Error()
			continue
		}
		node := memberAt(state, l.nodes[i].address)
		if node.GetHealth() == adminv1.NodeHealth_NODE_HEALTH_SILENT && node.GetLeads() == 0 && state.GetLeader() != node.GetId() && state.GetProblem() == "" {
			l.t.Logf("others lead, and node %d is silent, after %s more", i+1, time.Since(began).Round(time.Millisecond))
			return
		}
		found = node.String() + state.GetProblem()
	}
	l.t.Fatalf("a node that stands still is not known to, or still leads: %s", found)
}
