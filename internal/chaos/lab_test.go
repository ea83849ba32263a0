//go:build linux

package chaos

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net"
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

func freeAddress(t *testing.T) string {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	return listener.Addr().String()
}

// labs counts those of this process: what one leaves behind is gone only after a while.
var labs atomic.Int32

// wire makes a namespace for each node, and a bridge between them.
func (l *lab) wire(count int) {
	l.t.Helper()
	if os.Geteuid() != 0 {
		l.t.Skip("network namespaces are for root: links can't be cut")
	}
	if _, err := exec.LookPath("ip"); err != nil {
		l.t.Skip("ip (of iproute2) is not installed: links can't be cut")
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
		l.t.Skipf("this machine permits no bridges, so links can't be cut: %v %s", err, out)
	}
	l.ip("addr", "add", fmt.Sprintf("10.213.%d.254/24", third), "dev", l.bridge)
	l.ip("link", "set", l.bridge, "up")
	for i := range count {
		name, outer := fmt.Sprint(mark, "n", i), fmt.Sprint(mark, "v", i)
		if out, err := exec.Command("ip", "netns", "add", name).CombinedOutput(); err != nil {
			l.t.Skipf("this machine permits no network namespaces, so links can't be cut: %v %s", err, out)
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

// torment breaks nodes and links until ctx ends, and mends everything then.
func (l *lab) torment(ctx context.Context, random *rand.Rand) string {
	l.t.Helper()
	counts := map[string]int{}
	for ctx.Err() == nil {
		i := random.IntN(len(l.nodes))
		j := (i + 1 + random.IntN(len(l.nodes)-1)) % len(l.nodes)
		what := []string{"kills", "kills", "stops", "pauses", "pairs killed", "cut off", "cut off", "cut in two", "cut one way"}[random.IntN(9)]
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
		}
		select {
		case <-ctx.Done():
		case <-time.After(200*time.Millisecond + upTo(random, 3*time.Second)):
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
