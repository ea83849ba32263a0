//go:build linux

package chaos

import (
	"flag"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"runtime/debug"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/perdure/perdure/cluster/registry"
	"github.com/perdure/perdure/storage/nodelog"
)

// The tag perdure_next makes the program of the version to come: it reads, and writes once it may, records
// that this one does not read. See packages registry and rows.
const nextTag = "perdure_next"

// buildNext builds the next program beside what the test does meanwhile. With a planted bug in this one, it has it too.
func buildNext(t *testing.T) (program func() string) {
	path := filepath.Join(t.TempDir(), "next")
	tags := nextTag
	if info, ok := debug.ReadBuildInfo(); ok {
		for _, setting := range info.Settings {
			if setting.Key == "-tags" {
				tags += "," + setting.Value
			}
		}
	}
	build := sync.OnceValue(func() error {
		out, err := exec.CommandContext(t.Context(), "go", "test", "-c", "-vet=off", "-tags", tags, "-o", path, ".").CombinedOutput()
		if err != nil {
			err = fmt.Errorf("build the next program: %w: %s", err, out)
		}
		return err
	})
	go build()
	return func() string {
		t.Helper()
		if err := build(); err != nil {
			t.Fatal(err)
		}
		return path
	}
}

// TestRollingUpgrade replaces the program of three nodes, one after the other, by the next one, while callers with
// the Go stub go on: no call of theirs fails, no money is lost, and each takes effect once. Records of the next
// program's format are written after the last node has it and not before, and a node with the old
// program is refused from then on.
func TestRollingUpgrade(t *testing.T) {
	t.Parallel() // with the timers, which mostly wait
	random := choices(t)
	began, old, next := time.Now(), os.Args[0], buildNext(t)
	stage := func(what string) { t.Logf("%s after %s", what, time.Since(began).Round(time.Millisecond)) }
	l := newLab(t, 3, false)
	l.start()
	c := startCustomers(t, random, l.nodes)
	l.settled(3)
	c.more(200)
	next()
	stage("settled")
	for i, n := range l.nodes {
		n.stop()
		stage("a node was stopped")
		if newest := newestFormat(t, n); newest != 1 {
			t.Fatalf("before the last node was replaced, node %d was given records of format %d", i+1, newest)
		}
		n.program = next()
		c.more(50) // they go on with two of three
		n.start()
		l.settled(3) // with leaders of both versions
		stage("leaders are even again")
		c.more(200)
		if i == 0 && flag.Lookup("chaos.for").DefValue != chaosFor.String() {
			l.swap(random, []string{old, n.program})
		}
		if i < 2 {
			l.written(registry.FeatureLevel)
		}
	}
	l.written(registry.FeatureLevel + 1)
	stage("the level rose")
	c.more(200)

	last := l.nodes[2]
	last.stop()
	stage("stopped")
	if newest := newestFormat(t, last); newest != 2 {
		t.Errorf("all nodes have the next program, and the newest records are of format %d", newest)
	}
	last.program = old
	stranger := newNode(t, t.TempDir(), labSettings)
	stranger.flags = []string{"--cluster", freeAddress(t), "--cluster-transport", freeAddress(t), "--join", l.nodes[0].flags[1]}
	for who, n := range map[string]*node{"a node whose program is the old one again": last, "a new node with the old program": stranger} {
		n.said.take()
		n.launch()
		code, said := n.wait(time.Minute), n.said.take() // it ends, however slow the machine
		if code != 1 {
			t.Errorf("%s ends with exit code %d", who, code)
		}
		if strings.Contains(said, "serving on") {
			t.Errorf("%s serves before it ends:\n%s", who, said)
		}
		for _, want := range []string{"program is too old for", fmt.Sprint("reads records up to feature level ", registry.FeatureLevel), fmt.Sprint("may write level ", registry.FeatureLevel+1), "start it with the version that the other nodes have"} {
			if !strings.Contains(said, want) {
				t.Errorf("%s does not say %q:\n%s", who, want, said)
			}
		}
	}
	stage("the old program was refused")
	last.program = next()
	last.start()
	l.settled(3)
	c.finish()
}

// swap lets nodes have one program and then the other for a while, killed or stopped, with the level held.
func (l *lab) swap(random *rand.Rand, programs []string) {
	l.t.Helper()
	l.set("feature-level-limit", strconv.Itoa(registry.FeatureLevel))
	swaps := 0
	for end := time.Now().Add(*chaosFor / 4); time.Now().Before(end); swaps++ {
		n := l.nodes[random.IntN(len(l.nodes))]
		if random.IntN(2) == 0 {
			n.kill()
		} else {
			n.stop()
		}
		n.program = programs[random.IntN(len(programs))]
		n.start()
		if random.IntN(3) == 0 {
			l.settled(3)
		}
	}
	l.nodes[0].stop()
	l.nodes[0].program = programs[1]
	l.nodes[0].start()
	for _, n := range l.nodes[1:] {
		if n.program != programs[0] {
			n.stop()
			n.program = programs[0]
			n.start()
		}
	}
	l.settled(3)
	l.written(registry.FeatureLevel)
	l.set("feature-level-limit", "0")
	l.t.Logf("%d nodes were given one program or the other", swaps)
}

// written waits until every node knows that records up to a level may be written.
func (l *lab) written(level uint32) {
	l.t.Helper()
	for _, n := range l.nodes {
		for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(50 * time.Millisecond) { // polling another process
			state, err := n.cluster(l.t.Context())
			if err == nil && state.GetFeatureLevel() == level {
				break
			}
			if time.Now().After(deadline) || state.GetFeatureLevel() > level {
				l.t.Fatalf("%s writes records up to feature level %d, not %d: %v", n.address, state.GetFeatureLevel(), level, err)
			}
		}
	}
}

// set sets one of the cluster's settings.
func (l *lab) set(name, value string) {
	l.t.Helper()
	a, err := l.nodes[0].post(l.t.Context(), http.DefaultClient, "/perdure.admin.v1.ClusterService/SetClusterSetting", fmt.Sprintf(`{"name":%q,"value":%q}`, name, value))
	if err != nil || a.status != http.StatusOK {
		l.t.Fatalf("set %s: %v %s", name, err, a.body)
	}
}

// newestFormat looks into the log of a node that is stopped: a record begins with its format.
func newestFormat(t *testing.T, n *node) (newest byte) {
	t.Helper()
	log, err := nodelog.Open(nodelog.Options{Dir: filepath.Join(n.dir, "log"), Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := log.Close(); err != nil {
			t.Error(err)
		}
	}()
	records := 0
	for _, group := range log.Groups() {
		first, last := log.Bounds(group)
		for first <= last {
			entries, err := log.Entries(group, first, last+1, 1<<20)
			if err != nil || len(entries) == 0 {
				t.Fatalf("group %d from %d to %d: %d entries, %v", group, first, last, len(entries), err)
			}
			for _, entry := range entries {
				if entry.Kind == 0 && len(entry.Data) > 0 {
					records++
					newest = max(newest, entry.Data[0])
				}
			}
			first = entries[len(entries)-1].Index + 1
		}
	}
	if records == 0 {
		t.Errorf("%s has no records in its log", n.dir)
	}
	return newest
}
