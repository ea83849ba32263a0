//go:build unix

package chaos

import (
	"fmt"
	"math/rand/v2"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	benchv1 "github.com/perdure/perdure/bench/gen/bench/v1"
	bench "github.com/perdure/perdure/bench/gen/bench/v1/benchv1perdure"
	"github.com/perdure/perdure/cluster"
)

// residentBytes of the process, and the most it ever had.
func (n *node) residentBytes() (now, most int64) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", n.command.Process.Pid))
	if err != nil {
		return 0, 0 // not Linux: not known
	}
	for line := range strings.Lines(string(text)) {
		fields := strings.Fields(line)
		if len(fields) < 2 {
			continue
		}
		kilobytes, _ := strconv.ParseInt(fields[1], 10, 64) // other lines do not count
		switch fields[0] {
		case "VmRSS:":
			now = kilobytes << 10
		case "VmHWM:":
			most = kilobytes << 10
		}
	}
	return now, most
}

// TestTimersOutliveKills: many delayed sends, two kills, and each takes effect once, not early
// and, once the node is back, not late.
func TestTimersOutliveKills(t *testing.T) {
	t.Parallel()
	count, spread := *chaosTimers, *chaosSpread
	if testing.Short() {
		count, spread = min(count, 2_000), min(spread, 5*time.Second)
	}
	if raced {
		count, spread = min(count, 5_000), min(spread, 20*time.Second)
	}
	random := choices(t)
	outside := filepath.Join(t.TempDir(), "effects")
	n := newNode(t, t.TempDir(), nodeSettings{Partitions: 8, EffectsFile: outside})
	n.start()
	const callers = 32
	key := func(number int) string { return fmt.Sprint(timerPrefix, number) }
	began := time.Now()
	// None is due before all are there: sending takes a while.
	first := began.Add(time.Duration(count) * time.Millisecond / 2)
	var senders sync.WaitGroup
	for caller := range callers {
		own := rand.New(rand.NewPCG(random.Uint64(), 0))
		client := &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 1}, Timeout: 20 * time.Second}
		senders.Go(func() {
			for number := caller; number < count; number += callers {
				due := first.Add(upTo(own, spread))
				got, err := n.post(t.Context(), client, "/bench.v1.CounterService/Add",
					fmt.Sprintf(`{"name":%q,"amount":"%d"}`, key(number), due.UnixMilli()),
					"Idempotency-Key", key(number), "Perdure-Delay", max(time.Until(due), 0).String()) // sending may take longer than planned
				if err != nil || got.status != http.StatusOK {
					t.Errorf("%s: %v %s", key(number), err, got.body)
					return
				}
			}
		})
	}
	senders.Wait()
	if t.Failed() {
		return
	}
	sent := time.Since(began)
	if time.Now().After(first) {
		t.Logf("sending took %s: some were due before the kill", sent)
	}
	n.kill()
	opened := n.start()
	time.Sleep(time.Until(first.Add(spread / 2))) // until half of them are due
	now, most := n.residentBytes()
	n.kill()
	reopened := n.start()
	returned := time.Now()

	client := cluster.Dial(nil, n.url)
	deadline := first.Add(spread + 30*time.Second)
	var mu sync.Mutex
	wrong := map[string]int64{}
	var readers sync.WaitGroup
	time.Sleep(time.Until(first.Add(spread)))
	for reader := range callers {
		readers.Go(func() {
			for number := reader; number < count; number += callers {
				var value int64
				for {
					response, err := bench.Counter(client, key(number)).Get(t.Context(), &benchv1.GetRequest{})
					if err != nil {
						t.Error(err)
						return
					}
					if value = response.Value; value > 0 || time.Now().After(deadline) {
						break
					}
					time.Sleep(10 * time.Millisecond) // polling another process
				}
				if value != 1 {
					mu.Lock()
					wrong[key(number)] = value
					mu.Unlock()
				}
			}
		})
	}
	readers.Wait()
	for name, value := range wrong {
		t.Errorf("%s fired %d times; %d of %d are wrong", name, value, len(wrong), count)
		break
	}
	after, mostAfter := n.residentBytes()

	// The file may name a timer twice, if a kill came between its handler and its commit.
	text, err := os.ReadFile(outside)
	if err != nil {
		t.Fatal(err)
	}
	seen := map[string]bool{}
	var late []int64
	for line := range strings.Lines(string(text)) {
		name, number, _ := strings.Cut(strings.TrimSpace(line), " ")
		millis, err := strconv.ParseInt(number, 10, 64)
		if err != nil {
			t.Fatalf("%q", line)
		}
		if millis < -5 { // the delay was cut to whole milliseconds on its way
			t.Errorf("%s fired %d ms early", name, -millis)
		}
		seen[name] = true
		late = append(late, millis)
	}
	slices.Sort(late)
	t.Logf("%d timers sent in %s, starts after kills %s and %s, back %s after half time",
		count, sent.Round(time.Millisecond), opened.Round(time.Millisecond), reopened.Round(time.Millisecond), returned.Sub(first.Add(spread/2)).Round(time.Millisecond))
	t.Logf("fired %d, %d of them twice (a kill before the commit); late p50 %d ms, p99 %d ms, most %d ms; resident %d MiB (peak %d) before the second kill, %d MiB (peak %d) after",
		len(seen), len(late)-len(seen), late[len(late)/2], late[len(late)*99/100], late[len(late)-1], now>>20, most>>20, after>>20, mostAfter>>20)
	if !raced && (most > 512<<20 || mostAfter > 512<<20) {
		t.Errorf("resident memory peaked at %d and %d MiB", most>>20, mostAfter>>20)
	}
}
