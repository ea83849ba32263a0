package chaos

import (
	"context"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// mountSmall gives a file system of its own, or skips the test: a mount needs root.
func mountSmall(t *testing.T, bytes int64) string {
	t.Helper()
	dir := t.TempDir()
	if err := syscall.Mount("chaos", dir, "tmpfs", 0, fmt.Sprintf("size=%d", bytes)); err != nil {
		lacking(t, mustMount, "a small file system cannot be mounted here (%v): the full disk is not tested", err)
	}
	t.Cleanup(func() {
		if err := syscall.Unmount(dir, 0); err != nil {
			t.Errorf("unmount %s: %v", dir, err)
		}
	})
	return dir
}

// freeBytes of the file system of dir.
func freeBytes(t *testing.T, dir string) int64 {
	t.Helper()
	var stat syscall.Statfs_t
	if err := syscall.Statfs(dir, &stat); err != nil {
		t.Fatal(err)
	}
	return int64(stat.Bavail) * stat.Bsize
}

// fill writes a file that leaves so much free.
func fill(t *testing.T, path string, leave int64) {
	t.Helper()
	file, err := os.OpenFile(path, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	block := make([]byte, 1<<20)
	for free := freeBytes(t, filepath.Dir(path)); free > leave; free = freeBytes(t, filepath.Dir(path)) {
		if _, err := file.Write(block[:min(int64(len(block)), free-leave)]); err != nil {
			t.Logf("filler: %v", err)
			return
		}
	}
}

// adder adds to many counters and remembers what was acknowledged.
type adder struct {
	n  *node
	mu struct {
		sync.Mutex
		values  map[string]int
		refused map[string]int // by code
		samples map[string]string
	}
}

func newAdder(n *node) *adder {
	a := &adder{n: n}
	a.mu.values, a.mu.refused, a.mu.samples = map[string]int{}, map[string]int{}, map[string]string{}
	return a
}

// run adds from 16 callers, each on its own keys, until ctx ends or enough calls were refused.
func (a *adder) run(ctx context.Context, enough int) {
	var callers sync.WaitGroup
	client := &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 16}, Timeout: 20 * time.Second}
	padding := strings.Repeat("x", 40_000)
	for caller := range 16 {
		callers.Go(func() {
			for number := 0; ctx.Err() == nil; number++ {
				key := fmt.Sprintf("%d/%d", caller, number%50)
				// A run of steps with a large id is what fills the disk; the Adds are what is checked.
				_, _ = a.n.post(ctx, client, "/bench.v1.StepsService/Run10", fmt.Sprintf(`{"id":%q,"steps":1}`, padding))
				got, err := a.n.post(ctx, client, "/bench.v1.CounterService/Add", fmt.Sprintf(`{"name":%q,"amount":"1"}`, key))
				a.mu.Lock()
				switch {
				case ctx.Err() != nil:
				case err != nil:
					a.mu.refused["transport"]++
					a.mu.samples["transport"] = err.Error()
				case got.status == http.StatusOK:
					a.mu.values[key]++
				default:
					a.mu.refused[got.Code]++
					a.mu.samples[got.Code] = got.body
				}
				total := 0
				for _, count := range a.mu.refused {
					total += count
				}
				a.mu.Unlock()
				if total >= enough {
					return
				}
			}
		})
	}
	callers.Wait()
}

// check proves that nothing acknowledged is missing. A call that got an error may have counted.
func (a *adder) check(t *testing.T, full bool) {
	t.Helper()
	a.mu.Lock()
	defer a.mu.Unlock()
	client := &http.Client{Timeout: 10 * time.Second}
	for key, acknowledged := range a.mu.values {
		got, err := a.n.post(t.Context(), client, "/bench.v1.CounterService/Get", fmt.Sprintf(`{"name":%q}`, key))
		if err != nil || got.status != http.StatusOK {
			if full && err == nil && got.Code == "unavailable" {
				continue // its partition has no leader before there is space
			}
			t.Errorf("get %s: %v %s", key, err, got.body)
			return
		}
		var value int
		if _, err := fmt.Sscanf(strings.ReplaceAll(got.body, " ", ""), `{"value":"%d"}`, &value); err != nil || value < acknowledged {
			t.Errorf("%s: %s; %d Adds were acknowledged", key, got.body, acknowledged)
		}
	}
}

// succeeds waits until an Add works again.
func (a *adder) succeeds(t *testing.T, within time.Duration) (time.Duration, string) {
	t.Helper()
	client := &http.Client{Timeout: 5 * time.Second}
	began, last := time.Now(), ""
	for time.Since(began) < within {
		got, err := a.n.post(t.Context(), client, "/bench.v1.CounterService/Add", `{"name":"probe","amount":"1"}`)
		if err == nil && got.status == http.StatusOK {
			return time.Since(began), ""
		}
		last = fmt.Sprint(err, got.body)
		time.Sleep(20 * time.Millisecond) // polling another process
	}
	return 0, last
}

// readyUnless waits until the node serves, or says a text, and reports which. It may go on, or end, after the text.
func (n *node) readyUnless(text string) bool {
	n.t.Helper()
	for deadline := time.Now().Add(time.Minute); ; {
		err := n.ready(100 * time.Millisecond)
		if err == nil {
			return true
		}
		if n.said.count(text) > 0 {
			return false
		}
		if !n.alive() || time.Now().After(deadline) {
			n.t.Fatalf("it neither serves nor says %q: %v\n%s", text, err, n.said.tail(4_000))
		}
	}
}

// TestFullDisk fills the disk under a node: calls say so, the process lives on, nothing
// acknowledged is lost, and freeing space is all the cure it needs.
func TestFullDisk(t *testing.T) {
	for name, leave := range map[string]int64{"full at once": 0, "fills up": 150 << 20, "just below the watermark": 60 << 20} {
		t.Run(name, func(t *testing.T) {
			if testing.Short() && leave > 0 {
				t.Skip("with -short only a disk that is full at once")
			}
			disk := mountSmall(t, 600<<20)
			n := newNode(t, filepath.Join(disk, "data"), nodeSettings{Partitions: 8, MemoryBytes: 128 << 20})
			n.start()
			load := newAdder(n)
			warm, cancel := context.WithTimeout(t.Context(), 500*time.Millisecond)
			load.run(warm, 1<<30)
			cancel()
			filler := filepath.Join(disk, "filler")
			fill(t, filler, leave)
			// How long it takes to fill 90 MB is the machine's affair: calls end this, not time.
			ctx, cancel := context.WithTimeout(t.Context(), 4*time.Minute)
			load.run(ctx, 200)
			cancel()
			if !n.alive() {
				t.Fatalf("the process ended with %v", n.command.ProcessState)
			}
			load.mu.Lock()
			codes := load.mu.refused
			for code, sample := range load.mu.samples {
				t.Logf("%d calls refused with %s: %s", codes[code], code, sample)
				if code != "unavailable" && code != "resource_exhausted" || !strings.Contains(sample, "disk is full") && !strings.Contains(sample, "waiting for the disk") {
					t.Errorf("%s: %s does not say that the disk is full", code, sample)
				}
			}
			if len(codes) == 0 {
				t.Error("nothing was refused")
			}
			load.mu.Unlock()
			ready, err := http.Get(n.url + "/readyz")
			if err != nil {
				t.Fatal(err)
			}
			t.Logf("%d bytes free, readyz says HTTP %d", freeBytes(t, disk), ready.StatusCode)
			_ = ready.Body.Close()
			load.check(t, true) // what it acknowledged, it still tells, or nothing

			if err := os.Remove(filler); err != nil {
				t.Fatal(err)
			}
			after, why := load.succeeds(t, 15*time.Second)
			if why != "" {
				t.Errorf("15 s after space was freed: %s", why)
			} else {
				t.Logf("calls succeed again by themselves %s after space was freed", after.Round(time.Millisecond))
			}
			load.check(t, false)

			// And full at the moment of a kill: the node must open, or say why it does not.
			fill(t, filler, leave)
			n.kill()
			n.said.take()
			n.launch()
			serves, fails := n.readyUnless("too little free disk space"), n.said.count(" start: ") > 0
			if err := os.Remove(filler); err != nil {
				t.Fatal(err)
			}
			switch {
			case serves:
			case fails:
				t.Log("a start on the full disk fails")
				n.wait(20 * time.Second)
				n.start()
			default:
				t.Log("a start on the full disk waits for space")
				if err := n.ready(15 * time.Second); err != nil {
					t.Errorf("space was freed: %v", err)
				}
			}
			if _, why := load.succeeds(t, 15*time.Second); why != "" {
				t.Errorf("after the restart: %s", why)
			}
			load.check(t, false)
		})
	}
}
