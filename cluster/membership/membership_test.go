package membership_test

import (
	"context"
	"encoding/base64"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/perdure/perdure/cluster/membership"
)

// world has nodes on one network, in a bubble.
type world struct {
	t       *testing.T
	network *membership.Network
	mu      sync.Mutex
	cut     func(from, to string) bool
}

func simulate(t *testing.T, test func(w *world)) {
	synctest.Test(t, func(t *testing.T) {
		w := &world{t: t}
		t.Cleanup(func() { time.Sleep(10 * time.Second) }) // the last of the library's goroutines
		w.network = membership.NewNetwork(func(from, to string) bool {
			w.mu.Lock()
			defer w.mu.Unlock()
			return w.cut != nil && w.cut(from, to)
		})
		test(w)
	})
}

// part cuts what f says, nothing if it is nil.
func (w *world) part(f func(from, to string) bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.cut = f
}

type node struct {
	*membership.Membership
	w    *world
	id   uint64
	at   string
	stop func()
	mu   sync.Mutex
	told []string
	logs *logs
}

func address(id uint64) string { return fmt.Sprintf("10.0.0.%d:7375", id) }

// start starts a node whose seed is node 1.
func (w *world) start(id uint64, change func(c *membership.Config)) *node {
	w.t.Helper()
	n := &node{w: w, id: id, logs: &logs{}}
	config := membership.Config{
		NodeID: id, Bind: address(id), Seeds: []string{address(1)}, Network: w.network, Logger: slog.New(slog.NewTextHandler(n.logs, nil)),
		Meta: membership.Meta{ClusterID: "c", Transport: fmt.Sprintf("t%d", id), Partitions: 64},
		OnShared: func(from uint64, key string, value []byte) {
			n.mu.Lock()
			defer n.mu.Unlock()
			n.told = append(n.told, fmt.Sprintf("%d/%s/%s", from, key, value))
		},
	}
	if change != nil {
		change(&config)
	}
	n.at = config.Bind
	var err error
	if n.Membership, err = membership.New(config); err != nil {
		w.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		if err := n.Run(ctx); err != nil {
			w.t.Errorf("node %d: %v", id, err)
		}
	}()
	n.stop = sync.OnceFunc(func() {
		cancel()
		<-done
	})
	w.t.Cleanup(n.stop)
	<-n.Ready()
	return n
}

// crash makes the node silent at once; it goes on for itself.
func (n *node) crash() { n.w.network.Crash(n.at) }

type logs struct {
	mu   sync.Mutex
	text strings.Builder
}

func (l *logs) Write(line []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(line)
}

func (l *logs) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}

func (n *node) shared() []string {
	n.mu.Lock()
	defer n.mu.Unlock()
	return slices.Clone(n.told)
}

// sees are the nodes with what they seem to be, such as "1 2 3:dead".
func (n *node) sees() string {
	var list []string
	for _, member := range n.Members() {
		text := fmt.Sprint(member.NodeID)
		if member.State != membership.Alive {
			text += ":" + member.State.String()
		}
		list = append(list, text)
	}
	return strings.Join(list, " ")
}

// expect waits until all nodes see the same, and returns how long that took.
func (w *world) expect(most time.Duration, want string, nodes ...*node) time.Duration {
	w.t.Helper()
	started := time.Now()
	for {
		synctest.Wait()
		if !slices.ContainsFunc(nodes, func(n *node) bool { return n.sees() != want }) {
			return time.Since(started)
		}
		if time.Since(started) > most {
			for _, n := range nodes {
				w.t.Errorf("node %d sees %q, want %q", n.id, n.sees(), want)
			}
			w.t.Fatalf("after %v", most)
		}
		time.Sleep(10 * time.Millisecond)
	}
}

// until waits for a condition.
func (w *world) until(most time.Duration, what string, condition func() bool) {
	w.t.Helper()
	for started := time.Now(); !condition(); time.Sleep(10 * time.Millisecond) {
		if time.Since(started) > most {
			w.t.Fatalf("waited %v for: %s", most, what)
		}
	}
}

func (w *world) startAll(count uint64) []*node {
	var nodes []*node
	for id := uint64(1); id <= count; id++ {
		nodes = append(nodes, w.start(id, nil))
	}
	return nodes
}

func TestNodesFindEachOther(t *testing.T) {
	simulate(t, func(w *world) {
		nodes := w.startAll(5)
		t.Logf("found after %v", w.expect(soon, "1 2 3 4 5", nodes...))
		second := nodes[0].Members()[1]
		if second.NodeID != 2 || second.Transport != "t2" || second.Partitions != 64 || second.ClusterID != "c" || second.Gossip != address(2) || second.Self || !nodes[1].Members()[1].Self {
			t.Errorf("node 1 knows of node 2: %+v", second)
		}
		if err := nodes[1].SetMeta(func(meta *membership.Meta) { meta.Draining, meta.Transport = true, "elsewhere" }); err != nil {
			t.Fatal(err)
		}
		for {
			changed := nodes[4].Changed()
			if second := nodes[4].Members()[1]; second.Draining && second.Transport == "elsewhere" {
				break
			}
			<-changed
		}
		if err := nodes[1].SetMeta(func(meta *membership.Meta) { meta.Zone = strings.Repeat("z", 500) }); err == nil || !strings.Contains(err.Error(), "zone (500)") {
			t.Errorf("more than gossip takes: %v", err)
		}
	})
}

func TestCrashIsNoticed(t *testing.T) {
	simulate(t, func(w *world) {
		nodes := w.startAll(5)
		w.expect(soon, "1 2 3 4 5", nodes...)
		nodes[2].crash()
		took := w.expect(15*time.Second, "1 2 3:dead 4 5", nodes[0], nodes[1], nodes[3], nodes[4])
		t.Logf("a crash is noticed by all after %v", took)
		if took < time.Second {
			t.Error("nothing answered and that was taken for death at once")
		}
		nodes[4].stop()
		took = w.expect(3*time.Second, "1 2 3:dead 4 5:left", nodes[0], nodes[1], nodes[3])
		t.Logf("a leave is noticed by all after %v", took)
	})
}

// TestPartitionHeals: the library alone would never look for members it found dead.
func TestPartitionHeals(t *testing.T) {
	simulate(t, func(w *world) {
		nodes := w.startAll(5)
		w.expect(soon, "1 2 3 4 5", nodes...)
		// The seed is on one side only.
		w.part(func(from, to string) bool { return (from <= address(2)) != (to <= address(2)) })
		w.expect(30*time.Second, "1 2 3:dead 4:dead 5:dead", nodes[:2]...)
		w.expect(30*time.Second, "1:dead 2:dead 3 4 5", nodes[2:]...)
		if err := nodes[0].Share("k", []byte("meanwhile")); err != nil {
			t.Fatal(err)
		}
		time.Sleep(10 * time.Minute)
		w.expect(0, "1 2 3:dead 4:dead 5:dead", nodes[:2]...)
		w.part(nil)
		t.Logf("healed after %v", w.expect(time.Minute, "1 2 3 4 5", nodes...))
		time.Sleep(15 * time.Second)
		if told := nodes[4].shared(); !slices.Contains(told, "1/k/meanwhile") {
			t.Errorf("node 5 was told %q", told)
		}
	})
}

// TestPartitionHealsWithoutSeeds: the only seed has gone for good, so that those who were found dead
// are all there is to ask.
func TestPartitionHealsWithoutSeeds(t *testing.T) {
	simulate(t, func(w *world) {
		nodes := w.startAll(5)
		w.expect(soon, "1 2 3 4 5", nodes...)
		nodes[0].stop()
		w.expect(5*time.Second, "1:left 2 3 4 5", nodes[1:]...)
		w.part(func(from, to string) bool { return (from <= address(2)) != (to <= address(2)) })
		w.expect(30*time.Second, "1:left 2 3:dead 4:dead 5:dead", nodes[1])
		time.Sleep(10 * time.Minute)
		w.expect(0, "1:left 2:dead 3 4 5", nodes[2:]...)
		w.part(nil)
		t.Logf("healed after %v", w.expect(time.Minute, "1:left 2 3 4 5", nodes[1:]...))
	})
}

// TestPartitionHealsAfterHours: those who look for each other don't give up. There are only two, each alone, and the
// seed has gone for good: nodes that have others to talk to take a minute and a half of CPU for five hours.
func TestPartitionHealsAfterHours(t *testing.T) {
	simulate(t, func(w *world) {
		nodes := w.startAll(3)
		w.expect(soon, "1 2 3", nodes...)
		nodes[0].stop()
		w.expect(5*time.Second, "1:left 2 3", nodes[1:]...)
		w.part(func(from, to string) bool { return from != to })
		w.expect(30*time.Second, "1:left 2 3:dead", nodes[1])
		w.expect(30*time.Second, "1:left 2:dead 3", nodes[2])
		time.Sleep(5 * time.Hour) // of the bubble
		w.expect(0, "1:left 2 3:dead", nodes[1])
		w.expect(0, "1:left 2:dead 3", nodes[2])
		w.part(nil)
		t.Logf("healed after %v", w.expect(time.Minute, "1:left 2 3", nodes[1:]...))
	})
}

func TestRestartElsewhere(t *testing.T) {
	simulate(t, func(w *world) {
		nodes := w.startAll(3)
		w.expect(soon, "1 2 3", nodes...)
		// Another address at once, while the others still take the former process for alive.
		nodes[1].crash()
		again := w.start(2, func(c *membership.Config) {
			c.Bind, c.Meta.Transport = address(20), "new"
		})
		began := time.Now()
		for _, n := range []*node{nodes[0], nodes[2], again} {
			w.until(time.Minute, "the node at its new address", func() bool { return n.sees() == "1 2 3" && n.Members()[1].Transport == "new" })
		}
		if took := time.Since(began); took > 2*time.Second {
			t.Errorf("the node was found at its new address after %v: when the former process was found dead, no sooner", took)
		}
		// The former process is found dead, and that is not the node.
		for range 600 {
			time.Sleep(100 * time.Millisecond)
			for _, n := range []*node{nodes[0], nodes[2], again} {
				if second := n.Members()[1]; n.sees() != "1 2 3" || second.Transport != "new" || second.Gossip != address(20) {
					t.Fatalf("node %d sees %s and of node 2: %+v", n.id, n.sees(), second)
				}
			}
		}
		// And the same address.
		again.stop()
		w.expect(5*time.Second, "1 2:left 3", nodes[0], nodes[2])
		third := w.start(2, func(c *membership.Config) { c.Bind = address(20) })
		w.expect(soon, "1 2 3", nodes[0], nodes[2], third)
	})
}

func TestTwinIsReported(t *testing.T) {
	simulate(t, func(w *world) {
		nodes := w.startAll(2)
		twin := w.start(2, func(c *membership.Config) { c.Bind = address(30) })
		time.Sleep(2 * time.Minute)
		for _, n := range []*node{nodes[1], twin} {
			if !strings.Contains(n.logs.String(), "another process has this node's id") {
				t.Errorf("%s logged: %s", n.at, n.logs)
			}
		}
	})
}

func TestOtherClusterIsExcluded(t *testing.T) {
	simulate(t, func(w *world) {
		ours := w.startAll(3)
		other := func(c *membership.Config) { c.Meta.ClusterID = "d" }
		theirs := []*node{w.start(11, func(c *membership.Config) { other(c); c.Seeds = nil }),
			w.start(12, func(c *membership.Config) { other(c); c.Seeds = []string{address(11), address(2)} })}
		w.expect(soon, "1 2 3", ours...)
		w.expect(soon, "11 12", theirs...)
		time.Sleep(5 * time.Minute)
		w.expect(0, "1 2 3", ours...)
		w.expect(0, "11 12", theirs...)
		if log := theirs[1].logs.String(); !strings.Contains(log, "two clusters share") {
			t.Errorf("node 12 logged: %s", log)
		}
		// A node without a cluster takes the one it finds, and only that. Several, since the order in
		// which seeds answer is chance.
		counts := map[string]int{"c": 3, "d": 2}
		for id := uint64(20); id < 26; id++ {
			joining := w.start(id, func(c *membership.Config) {
				c.Meta.ClusterID, c.Meta.Joining, c.Seeds = "", true, []string{address(3), address(11)}
			})
			w.until(time.Minute, "a cluster is found", func() bool { return joining.ClusterID() != "" })
			counts[joining.ClusterID()]++
			time.Sleep(20 * time.Second)
			if own := joining.Members(); len(own) != counts[joining.ClusterID()] {
				t.Errorf("node %d of cluster %s sees %s", id, joining.ClusterID(), joining.sees())
			}
		}
		time.Sleep(5 * time.Minute)
		for _, n := range append(slices.Clone(ours), theirs...) {
			members := n.Members()
			if len(members) != counts[n.ClusterID()] {
				t.Errorf("node %d of cluster %s sees %s", n.id, n.ClusterID(), n.sees())
			}
			for _, member := range members {
				if member.ClusterID != n.ClusterID() || member.Joining != (member.NodeID >= 20) {
					t.Errorf("node %d of cluster %s has the member %+v", n.id, n.ClusterID(), member)
				}
			}
		}
		t.Logf("members: %v", counts)
	})
}

// keys writes a keyring file.
func keys(t *testing.T, path string, names ...string) {
	t.Helper()
	var text strings.Builder
	for _, name := range names {
		fmt.Fprintln(&text, "# "+name)
		fmt.Fprintln(&text, base64.StdEncoding.EncodeToString([]byte(strings.Repeat(name, 32)[:32])))
	}
	if err := os.WriteFile(path, []byte(text.String()), 0o600); err != nil {
		t.Fatal(err)
	}
}

func TestKeyringRotates(t *testing.T) {
	dir := t.TempDir()
	simulate(t, func(w *world) {
		path := func(id uint64) string { return filepath.Join(dir, fmt.Sprint(id)) }
		var nodes []*node
		for id := range uint64(3) {
			keys(t, path(id+1), "old")
			nodes = append(nodes, w.start(id+1, func(c *membership.Config) { c.KeyringFile = path(c.NodeID) }))
		}
		w.expect(soon, "1 2 3", nodes...)
		for _, step := range [][]string{{"old", "new"}, {"new", "old"}, {"new"}} {
			for id := range uint64(3) {
				keys(t, path(id+1), step...)
				time.Sleep(20 * time.Second) // one after the other
				w.expect(0, "1 2 3", nodes...)
			}
		}
		time.Sleep(time.Minute)
		w.expect(0, "1 2 3", nodes...)
		// Somebody with the old key only, and one without any, is not heard, and hears nothing.
		keys(t, path(4), "old")
		late := w.start(4, func(c *membership.Config) { c.KeyringFile = path(4) })
		plain := w.start(5, nil)
		time.Sleep(5 * time.Minute)
		w.expect(0, "1 2 3", nodes...)
		w.expect(0, "4", late)
		w.expect(0, "5", plain)
		if !strings.Contains(late.logs.String(), "could not be joined") {
			t.Errorf("the node with the old key logged: %s", late.logs)
		}
		// A broken file changes nothing.
		if err := os.WriteFile(path(2), []byte("not base64!\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Minute)
		w.expect(0, "1 2 3", nodes...)
		if log := nodes[1].logs.String(); strings.Count(log, "keyring cannot be used") != 1 || !strings.Contains(log, "line 1") {
			t.Errorf("node 2 logged: %s", log)
		}
		keys(t, path(4), "new")
		w.expect(time.Minute, "1 2 3 4", append(nodes, late)...)
	})
}

func TestKeyringMistakes(t *testing.T) {
	path := filepath.Join(t.TempDir(), "keys")
	for _, test := range []struct{ content, want string }{
		{"", "has no key"}, {"# only\n\n", "has no key"}, {"AAAA\n", "3 bytes"}, {"%%%\n", "line 1"},
		{"AAAAAAAAAAAAAAAAAAAAAA==\nAAAAAAAAAAAAAAAAAAAAAA==\n", "twice"},
	} {
		if err := os.WriteFile(path, []byte(test.content), 0o600); err != nil {
			t.Fatal(err)
		}
		_, err := membership.New(membership.Config{NodeID: 1, Bind: "127.0.0.1:0", KeyringFile: path})
		if err == nil || !strings.Contains(err.Error(), test.want) || !strings.Contains(err.Error(), path) {
			t.Errorf("%q: %v, want an error with %q", test.content, err, test.want)
		}
		if err != nil && strings.Contains(err.Error(), "AAAA") {
			t.Errorf("the error shows a key: %v", err)
		}
	}
}

// TestSeedsByName: a headless service has an address for each node, which come and go.
func TestSeedsByName(t *testing.T) {
	simulate(t, func(w *world) {
		var mu sync.Mutex
		var addresses []netip.Addr
		set := func(ids ...byte) {
			mu.Lock()
			defer mu.Unlock()
			addresses = nil
			for _, id := range ids {
				addresses = append(addresses, netip.AddrFrom4([4]byte{10, 0, 0, id}))
			}
		}
		byName := func(c *membership.Config) {
			c.Seeds = []string{"gossip.example:7375"}
			c.LookUp = func(_ context.Context, host string) ([]netip.Addr, error) {
				mu.Lock()
				defer mu.Unlock()
				if host != "gossip.example" {
					return nil, fmt.Errorf("resolve %s", host)
				}
				return slices.Clone(addresses), nil
			}
		}
		// At first the name has no address; then those of nodes that are gone, too.
		nodes := []*node{w.start(1, byName), w.start(2, byName), w.start(3, byName)}
		time.Sleep(time.Minute)
		for _, n := range nodes {
			w.expect(0, fmt.Sprint(n.id), n)
			if !strings.Contains(n.logs.String(), "gossip.example") {
				t.Errorf("node %d logged: %s", n.id, n.logs)
			}
		}
		set(99, 2, 98)
		t.Logf("found after %v", w.expect(time.Minute, "1 2 3", nodes...))
		// Nodes that never met, on both sides of a cut, of which only the name tells.
		w.part(func(from, to string) bool { return (from == address(4)) != (to == address(4)) })
		fourth := w.start(4, byName)
		time.Sleep(10 * time.Minute)
		w.expect(0, "4", fourth)
		w.part(nil)
		w.expect(time.Minute, "1 2 3 4", append(nodes, fourth)...)
	})
}

func TestKnownMembersOutliveTheProcess(t *testing.T) {
	path := filepath.Join(t.TempDir(), "known.json")
	simulate(t, func(w *world) {
		nodes := w.startAll(3)
		known := func(c *membership.Config) { c.KnownFile = path }
		fourth := w.start(4, known)
		w.expect(soon, "1 2 3 4", append(nodes, fourth)...)
		fourth.stop()
		content, err := os.ReadFile(path)
		if want := `{"version":1,"gossip":["10.0.0.1:7375","10.0.0.2:7375","10.0.0.3:7375"]}` + "\n"; err != nil || string(content) != want {
			t.Errorf("the file has %s %v, want %s", content, err, want)
		}
		// The only seed is gone.
		nodes[0].stop()
		again := w.start(4, known)
		w.until(time.Minute, "known members are found", func() bool { return again.sees() == "2 3 4" || again.sees() == "1:left 2 3 4" })
		again.stop()
		// A damaged file is no reason not to start.
		if err := os.WriteFile(path, []byte("{"), 0o600); err != nil {
			t.Fatal(err)
		}
		w.start(4, func(c *membership.Config) {
			known(c)
			c.Seeds = []string{address(2)}
		})
		w.expect(soon, "1:left 2 3 4", nodes[1], nodes[2])
	})
}

func TestDeadAreForgotten(t *testing.T) {
	simulate(t, func(w *world) {
		short := func(c *membership.Config) { c.Timing.Forget = 5 * time.Minute }
		nodes := []*node{w.start(1, short), w.start(2, func(c *membership.Config) { c.Timing.Forget = 7 * time.Minute }), w.start(3, short)}
		w.expect(soon, "1 2 3", nodes...)
		if err := nodes[2].Share("k", []byte("v")); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Minute)
		nodes[2].crash()
		w.expect(20*time.Second, "1 2 3:dead", nodes[:2]...)
		time.Sleep(4 * time.Minute)
		w.expect(0, "1 2 3:dead", nodes[:2]...)
		time.Sleep(2 * time.Minute)
		w.expect(0, "1 2", nodes[0])
		w.expect(0, "1 2 3:dead", nodes[1])
		time.Sleep(2 * time.Minute)
		w.expect(0, "1 2", nodes[:2]...)
		// Neither does a node that forgets later bring it back.
		if told := nodes[0].shared(); len(told) != 1 {
			t.Errorf("node 1 was told %q", told)
		}
		// Nobody tells a new node of it.
		fourth := w.start(4, short)
		w.expect(soon, "1 2 4", nodes[0], nodes[1], fourth)
		time.Sleep(time.Minute)
		if told := fourth.shared(); len(told) != 0 {
			t.Errorf("a new node was told %q", told)
		}
	})
}
