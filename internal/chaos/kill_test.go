//go:build unix

package chaos

import (
	"context"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/perdure/perdure/actor"
	benchv1 "github.com/perdure/perdure/bench/gen/bench/v1"
	bench "github.com/perdure/perdure/bench/gen/bench/v1/benchv1perdure"
	"github.com/perdure/perdure/cluster"
)

// torment kills, stops and starts the node until ctx ends, and leaves it serving.
func (n *node) torment(ctx context.Context, random *rand.Rand) (kills, pauses int, slowest time.Duration) {
	n.t.Helper()
	for {
		select {
		case <-ctx.Done():
			return kills, pauses, slowest
		case <-time.After(300*time.Millisecond + upTo(random, 700*time.Millisecond)):
		}
		if random.IntN(4) == 0 {
			n.pause(ctx, 100*time.Millisecond+upTo(random, 900*time.Millisecond))
			pauses++
			continue
		}
		n.kill()
		kills++
		if random.IntN(4) == 0 { // and again, while it opens
			n.launch()
			time.Sleep(upTo(random, 150*time.Millisecond)) // anywhere in its start: there is nothing to wait for
			n.kill()
			kills++
		}
		slowest = max(slowest, n.start())
	}
}

// TestKillUnderLoad kills a node under load and proves from what its callers saw that every
// counter is linearizable and counts each acknowledged Add once.
func TestKillUnderLoad(t *testing.T) {
	random := choices(t)
	n := newNode(t, t.TempDir(), nodeSettings{Partitions: 8})
	n.start()
	length := *chaosFor
	if testing.Short() {
		length = min(length, 4*time.Second)
	}
	countUnderLoad(t, random, []*node{n}, length, func(ctx context.Context) string {
		kills, pauses, slowest := n.torment(ctx, random)
		return fmt.Sprintf("%d kills, %d pauses, slowest start %s", kills, pauses, slowest.Round(time.Millisecond))
	})
}

// countUnderLoad calls counters through nodes, while they are tormented until its ctx ends or sooner, and
// proves that they are linearizable and count each acknowledged Add once.
func countUnderLoad(t *testing.T, random *rand.Rand, nodes []*node, length time.Duration, torment func(context.Context) string) {
	// Callers go on for as long as the torment lasts, and give up only long after it.
	ctx, cancel := context.WithTimeout(t.Context(), length)
	defer cancel()
	patience, giveUp := context.WithTimeout(t.Context(), length+time.Minute)
	defer giveUp()

	keys := []string{"a", "b", "c", "d", "e", "f"}
	patient := map[string]*atomic.Int64{} // how many callers of a key may still go away
	for _, key := range keys {
		patient[key] = &atomic.Int64{}
		patient[key].Store(8)
	}
	seen := &counterHistory{began: time.Now()}
	var callers sync.WaitGroup
	var adds, gets, lost atomic.Int64
	for client := range 32 {
		caller := dialled(nodes)
		if client%2 == 1 {
			caller = nodes[client/2%len(nodes)].plain(client)
		}
		own := rand.New(rand.NewPCG(random.Uint64(), 0))
		callers.Go(func() {
			for ctx.Err() == nil {
				op := operation{key: keys[own.IntN(len(keys))], add: own.IntN(3) > 0}
				call, leave := patience, context.CancelFunc(func() {})
				// A caller that goes away without an answer. What it asked for may happen at any later time, so
				// checking takes time exponential in how many there are of a key.
				if own.IntN(200) == 0 && patient[op.key].Add(-1) >= 0 {
					call, leave = context.WithTimeout(patience, upTo(own, 5*time.Millisecond))
				}
				called := seen.now()
				value, err := caller(call, op)
				gone := call.Err() != nil || actor.CodeOf(err) == actor.DeadlineExceeded // the node may say so first
				leave()
				switch {
				case err == nil:
					seen.record(client, op, called, value)
					if op.add {
						adds.Add(1)
					} else {
						gets.Add(1)
					}
				case !gone:
					t.Errorf("%+v: %v", op, err)
					return
				case op.add:
					seen.record(client, op, called, unanswered)
					lost.Add(1)
				}
			}
		})
	}
	troubles := torment(ctx)
	cancel()
	callers.Wait()

	final := map[string]int64{}
	for _, key := range keys {
		response, err := bench.Counter(cluster.Dial(nil, urls(nodes)...), key).Get(patience, &benchv1.GetRequest{})
		if err != nil {
			t.Fatal(err)
		}
		final[key] = response.Value
	}
	began := time.Now()
	seen.check(t, final)
	t.Logf("%s; %d Adds and %d Gets answered, %d Adds not; history checked in %s",
		troubles, adds.Load(), gets.Load(), lost.Load(), time.Since(began).Round(time.Millisecond))
}

func urls(nodes []*node) (all []string) {
	for _, n := range nodes {
		all = append(all, n.url)
	}
	return all
}

// callFunc makes a call and returns the counter's value.
type callFunc func(context.Context, operation) (int64, error)

// dialled calls through the Go stub, which retries by itself.
func dialled(nodes []*node) callFunc {
	client := cluster.Dial(nil, urls(nodes)...)
	return func(ctx context.Context, op operation) (int64, error) {
		for {
			var value int64
			var err error
			if op.add {
				var response *benchv1.AddResponse
				response, err = bench.Counter(client, op.key).Add(ctx, &benchv1.AddRequest{Amount: 1})
				value = response.GetValue()
			} else {
				var response *benchv1.GetResponse
				response, err = bench.Counter(client, op.key).Get(ctx, &benchv1.GetRequest{})
				value = response.GetValue()
			}
			if !op.add && actor.CodeOf(err) == actor.Unavailable && ctx.Err() == nil {
				continue // a Get may be repeated by hand; an Add with another key would be another one
			}
			return value, err
		}
	}
}

// plain calls as curl does: a JSON body, an Idempotency-Key, and a loop.
func (n *node) plain(client int) callFunc {
	sender := &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 4}}
	number := 0
	return func(ctx context.Context, op operation) (int64, error) {
		number++
		path, body := "/bench.v1.CounterService/Get", fmt.Sprintf(`{"name":%q}`, op.key)
		headers := []string{"Idempotency-Key", fmt.Sprintf("%d-%d", client, number)}
		if op.add {
			path, body = "/bench.v1.CounterService/Add", fmt.Sprintf(`{"name":%q,"amount":"1"}`, op.key)
		}
		for {
			a, err := n.post(ctx, sender, path, body, headers...)
			switch {
			case err == nil && a.status == http.StatusOK:
				var response struct {
					Value string `json:"value"`
				}
				if err := json.Unmarshal([]byte(a.body), &response); err != nil {
					return 0, fmt.Errorf("%q: %w", a.body, err)
				}
				if response.Value == "" {
					return 0, nil
				}
				return strconv.ParseInt(response.Value, 10, 64)
			case err == nil && a.Code != "unavailable":
				return 0, fmt.Errorf("HTTP %d %s", a.status, a.body)
			}
			select {
			case <-ctx.Done():
				return 0, ctx.Err()
			case <-time.After(10 * time.Millisecond):
			}
		}
	}
}

// TestKillDurable kills a node while DURABLE handlers take steps that are seen outside: each is
// seen, and never again after the next one was.
func TestKillDurable(t *testing.T) {
	random := choices(t)
	outside := filepath.Join(t.TempDir(), "effects")
	n := newNode(t, t.TempDir(), nodeSettings{Partitions: 8, EffectsFile: outside})
	n.start()
	length := *chaosFor / 2
	if testing.Short() {
		length = min(length, 3*time.Second)
	}
	ctx, cancel := context.WithTimeout(t.Context(), length)
	defer cancel()
	patience, giveUp := context.WithTimeout(t.Context(), length+time.Minute)
	defer giveUp()

	const stepsEach = 8
	var callers sync.WaitGroup
	var mu sync.Mutex
	finished := map[string]bool{}
	for client := range 16 {
		caller := cluster.Dial(nil, n.url)
		callers.Go(func() {
			for number := 0; ctx.Err() == nil; number++ {
				id := fmt.Sprintf("%d-%d", client, number)
				response, err := bench.Steps(caller).Run10(patience, &benchv1.Run10Request{Id: id, Steps: stepsEach})
				if err != nil || response.Steps != stepsEach {
					t.Errorf("%s: %v %v", id, response, err)
					return
				}
				mu.Lock()
				finished[id] = true
				mu.Unlock()
			}
		})
	}
	kills, pauses, _ := n.torment(ctx, random)
	callers.Wait()

	text, err := os.ReadFile(outside)
	if err != nil {
		t.Fatal(err)
	}
	next := map[string]int{} // the step that must be seen next
	again := 0
	for line := range strings.Lines(string(text)) {
		id, number, _ := strings.Cut(strings.TrimSpace(line), " ")
		step, err := strconv.Atoi(number)
		if err != nil {
			t.Fatalf("%q", line)
		}
		switch want := next[id]; step {
		case want:
			next[id]++
		case want - 1:
			again++ // at least once, until its result is durable
		default:
			t.Errorf("%s: step %d was seen after step %d", id, step, want-1)
		}
	}
	for id := range finished {
		if next[id] != stepsEach {
			t.Errorf("%s returned, and %d of its %d steps were seen", id, next[id], stepsEach)
		}
	}
	if len(finished) == 0 {
		t.Error("no call finished")
	}
	t.Logf("%d kills, %d pauses, %d calls of %d steps, %d steps seen again", kills, pauses, len(finished), stepsEach, again)
}
