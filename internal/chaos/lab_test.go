//go:build linux

package chaos

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

// lab is a cluster of processes, each in a network namespace of its own, so that the links between
// them can be cut. Without namespaces they share this machine's loopback, and links hold.
type lab struct {
	t     *testing.T
	nodes []*node
	// links are the bridge's ends, by node; nil without namespaces.
	links  []string
	names  []string // of the namespaces
	hosts  []string // of the nodes
	bridge string
	paused []bool
}

// labSettings are short of everything, so that snapshots and new replicas happen.
var labSettings = nodeSettings{Partitions: 8}

// newLab makes nodes that are not started. cutting says that links will be cut.
func newLab(t *testing.T, count int, cutting bool) *lab {
	t.Helper()
	l := &lab{t: t, paused: make([]bool, count)}
	if cutting {
		l.wire(count)
	}
	dir := t.TempDir()
	var join []string
	for i := range count {
		n := newNode(t, filepath.Join(dir, fmt.Sprint("node", i+1)), labSettings)
		gossip, transport := freeAddress(t), freeAddress(t)
		if cutting {
			n.address, gossip, transport = l.hosts[i]+":7373", l.hosts[i]+":7374", l.hosts[i]+":7375"
			n.url = "http://" + n.address
			n.prefix = []string{"ip", "netns", "exec", l.names[i]}
		}
		n.flags = []string{"--cluster", gossip, "--cluster-transport", transport, "--remote-admin"}
		if i > 0 {
			n.flags = append(n.flags, "--join", strings.Join(join, ","))
		}
		join = append(join, gossip)
		l.nodes = append(l.nodes, n)
	}
	return l
}

// labs counts those of this process: what one leaves behind is gone only after a while.
var labs atomic.Int32

// What .ci/run sets where it has found that a machine permits it: there a test that is left out would be left
// out without anybody noticing.
const (
	mustCut   = "PERDURE_CHAOS_MUST_CUT"   // links, with namespaces and a bridge
	mustMount = "PERDURE_CHAOS_MUST_MOUNT" // files as disks
)

// lacking skips a test for want of what it says, or fails it where the environment says that it is there.
func lacking(t *testing.T, must, format string, arguments ...any) {
	t.Helper()
	if os.Getenv(must) != "" {
		t.Fatalf(format+" (and "+must+" is set, so that this is no reason to skip)", arguments...)
	}
	t.Skipf(format, arguments...)
}

// wire makes a namespace for each node, and a bridge between them.
func (l *lab) wire(count int) {
	l.t.Helper()
	if os.Geteuid() != 0 {
		lacking(l.t, mustCut, "network namespaces are for root: links can't be cut")
	}
	if _, err := exec.LookPath("ip"); err != nil {
		lacking(l.t, mustCut, "ip (of iproute2) is not installed: links can't be cut")
	}
	sweepOnce.Do(sweep)
	lab := int(labs.Add(1))
	number := os.Getpid()*labsPerProcess + lab // other tests may run beside this one
	mark := mark(os.Getpid(), lab)
	third := 1 + number%250
	l.bridge = mark + "b"
	l.t.Cleanup(func() {
		for _, name := range l.names {
			_ = exec.Command("ip", "netns", "del", name).Run()
		}
		_ = exec.Command("ip", "link", "del", l.bridge).Run()
	})
	if out, err := exec.Command("ip", "link", "add", l.bridge, "type", "bridge").CombinedOutput(); err != nil {
		lacking(l.t, mustCut, "this machine permits no bridges, so links can't be cut: %v %s", err, out)
	}
	l.ip("addr", "add", fmt.Sprintf("10.213.%d.254/24", third), "dev", l.bridge)
	l.ip("link", "set", l.bridge, "up")
	for i := range count {
		name, outer := fmt.Sprint(mark, "n", i), fmt.Sprint(mark, "v", i)
		if out, err := exec.Command("ip", "netns", "add", name).CombinedOutput(); err != nil {
			lacking(l.t, mustCut, "this machine permits no network namespaces, so links can't be cut: %v %s", err, out)
		}
		l.names = append(l.names, name)
		l.links = append(l.links, outer)
		host := fmt.Sprintf("10.213.%d.%d", third, i+1)
		l.hosts = append(l.hosts, host)
		l.ip("link", "add", outer, "type", "veth", "peer", "name", "eth0", "netns", name)
		l.ip("link", "set", outer, "master", l.bridge, "up")
		l.ip("-n", name, "addr", "add", host+"/24", "dev", "eth0")
		l.ip("-n", name, "link", "set", "eth0", "up")
		l.ip("-n", name, "link", "set", "lo", "up")
	}
}

func (l *lab) ip(arguments ...string) {
	l.t.Helper()
	if out, err := exec.Command("ip", arguments...).CombinedOutput(); err != nil {
		l.t.Fatalf("ip %s: %v %s", strings.Join(arguments, " "), err, out)
	}
}

// start brings all nodes up, the founder first.
func (l *lab) start() {
	l.t.Helper()
	for _, n := range l.nodes {
		n.start()
	}
}

// isolate cuts a node off from everybody, callers too.
func (l *lab) isolate(i int) { l.ip("link", "set", l.links[i], "down") }

// mute keeps what node a sends from node b; the other direction holds.
func (l *lab) mute(a, b int) {
	l.ip("-n", l.names[a], "route", "replace", "blackhole", l.hosts[b]+"/32")
}

// seclude cuts a node off from the other nodes, and not from callers: it is the minority, and must refuse.
func (l *lab) seclude(i int) {
	for j := range l.nodes {
		if j != i {
			l.mute(i, j)
			l.mute(j, i)
		}
	}
}

// heal mends every link.
func (l *lab) heal() {
	for a := range l.links {
		l.ip("link", "set", l.links[a], "up")
		for b := range l.hosts {
			if a != b { // there may be no such route
				_ = exec.Command("ip", "-n", l.names[a], "route", "del", "blackhole", l.hosts[b]+"/32").Run()
			}
		}
	}
}

// pause stops a process until resume, past any lease.
func (l *lab) pause(i int) {
	if n := l.nodes[i]; n.command != nil && !l.paused[i] {
		if err := n.command.Process.Signal(syscall.SIGSTOP); err != nil {
			l.t.Fatal(err)
		}
		l.paused[i] = true
	}
}

func (l *lab) resume(i int) {
	if l.paused[i] {
		l.paused[i] = false
		if err := l.nodes[i].command.Process.Signal(syscall.SIGCONT); err != nil {
			l.t.Fatal(err)
		}
	}
}

func (l *lab) kill(i int) {
	l.paused[i] = false
	l.nodes[i].kill()
}

// recover mends everything and brings all nodes back.
func (l *lab) recover() {
	l.t.Helper()
	if l.links != nil {
		l.heal()
	}
	for i, n := range l.nodes {
		l.resume(i)
		if n.command == nil {
			n.launch()
		}
	}
	for _, n := range l.nodes {
		if err := n.ready(30 * time.Second); err != nil {
			l.t.Fatalf("after everything was mended: %v", err)
		}
	}
}

// remains is how long it is until the deadline of ctx, which has one.
func remains(ctx context.Context) time.Duration {
	deadline, _ := ctx.Deadline()
	return time.Until(deadline)
}

// torment breaks nodes and links until ctx ends, and mends everything then.
func (l *lab) torment(ctx context.Context, random *rand.Rand) string {
	l.t.Helper()
	counts := map[string]int{}
	for ctx.Err() == nil {
		i := random.IntN(len(l.nodes))
		j := (i + 1 + random.IntN(len(l.nodes)-1)) % len(l.nodes)
		what := []string{"kills", "kills", "stops", "pauses", "pairs killed", "cut off", "cut off", "cut in two", "cut one way", "cut from nodes"}[random.IntN(10)]
		if l.links == nil && strings.HasPrefix(what, "cut") {
			what = "kills"
		}
		counts[what]++
		switch what {
		case "kills":
			l.kill(i)
		case "stops": // in order: it hands over what it leads
			l.nodes[i].stop()
		case "pairs killed":
			l.kill(i)
			l.kill(j)
		case "pauses":
			l.pause(i)
		case "cut off":
			l.isolate(i)
		case "cut in two":
			l.mute(i, j)
			l.mute(j, i)
		case "cut one way":
			l.mute(i, j)
		case "cut from nodes":
			l.seclude(i)
		}
		lasts := 200*time.Millisecond + upTo(random, 3*time.Second)
		// Half of the pauses are so long that others have led for seconds when the node wakes, if as much time is
		// left for other faults.
		if long := 4*time.Second + upTo(random, 4*time.Second); what == "pauses" && random.IntN(2) == 0 && remains(ctx) > 2*long {
			lasts = long
			counts["long pauses"]++
		}
		select {
		case <-ctx.Done():
		case <-time.After(lasts):
		}
		l.recover()
		select {
		case <-ctx.Done():
		case <-time.After(upTo(random, time.Second)):
		}
	}
	l.recover()
	return fmt.Sprint(counts)
}
