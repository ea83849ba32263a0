package sim

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"time"

	"github.com/perdure/perdure/cluster/replica"
	"github.com/perdure/perdure/internal/peer"
)

// network is what nodes of a cluster reach each other by. A link is cut in one direction or in
// both; one that is not loses, doubles and delays what it carries, as the seed wants, until all is calm.
type network struct {
	world   *world
	postman *postman
	mu      struct {
		sync.Mutex
		nodes   []*node // by number; nil while it is down
		cut     map[[2]int]bool
		changed chan struct{} // closed when a link or a node changes
		second  time.Duration // of the world, that sent counts
		sent    int
	}
}

// mostFrames is what nodes may send in a second. Two that answer each other without end, without coming to
// anything, would otherwise keep a simulation going until its test's deadline.
const mostFrames = 20_000

// isTooMuch counts a frame.
func (net *network) isTooMuch() bool {
	net.mu.Lock()
	defer net.mu.Unlock()
	if second := time.Since(net.world.began).Truncate(time.Second); second != net.mu.second {
		net.mu.second, net.mu.sent = second, 0
	}
	net.mu.sent++
	return net.mu.sent > mostFrames
}

func newNetwork(w *world, nodes int) *network {
	net := &network{world: w, postman: newPostman()}
	net.mu.nodes, net.mu.cut, net.mu.changed = make([]*node, nodes), map[[2]int]bool{}, make(chan struct{})
	return net
}

func (net *network) set(change func()) {
	net.mu.Lock()
	defer net.mu.Unlock()
	change()
	close(net.mu.changed)
	net.mu.changed = make(chan struct{})
}

// join makes a node reachable.
func (net *network) join(n *node) { net.set(func() { net.mu.nodes[n.number] = n }) }

// leave makes it unreachable, for ever: its successor on the same disks is another process.
func (net *network) leave(n *node) {
	net.set(func() {
		if net.mu.nodes[n.number] == n {
			net.mu.nodes[n.number] = nil
		}
	})
}

// heal mends all links.
func (net *network) heal() { net.set(func() { clear(net.mu.cut) }) }

// sever cuts a direction.
func (net *network) sever(from, to int) { net.set(func() { net.mu.cut[[2]int{from, to}] = true }) }

// reach returns the node that what is sent now arrives at, or nil.
func (net *network) reach(from *node, to uint64) (*node, <-chan struct{}) {
	net.mu.Lock()
	defer net.mu.Unlock()
	at := int(to) - 1
	if at < 0 || at >= len(net.mu.nodes) || net.mu.nodes[from.number] != from || from.dead.Load() || net.mu.cut[[2]int{from.number, at}] {
		return nil, net.mu.changed
	}
	return net.mu.nodes[at], net.mu.changed
}

// carry takes something one way.
func (net *network) carry(from *node, to uint64, deliver func(*node)) {
	chance := net.world.network
	if net.isTooMuch() {
		net.world.fail("nodes sent %d frames in a second, and node %d goes on", mostFrames, from.id())
		return
	}
	arrive := func() {
		if n, _ := net.reach(from, to); n != nil && !n.dead.Load() {
			deliver(n)
		}
	}
	if net.world.calm.Load() {
		// As a real one: what one node sends another arrives in order, or not at all.
		net.postman.postInOrder([2]int{from.number, int(to) - 1}, chance.between(20*time.Microsecond, 500*time.Microsecond), arrive)
		return
	}
	switch fate := chance.intn(1000); {
	case fate < 20: // lost
	case fate < 40:
		net.postman.post(chance.between(0, 30*time.Millisecond), arrive)
		net.postman.post(chance.between(0, time.Millisecond), arrive)
	case fate < 100:
		net.postman.post(chance.between(0, 40*time.Millisecond), arrive)
	default:
		net.postman.post(chance.between(20*time.Microsecond, 500*time.Microsecond), arrive)
	}
}

// raftLink is how a host reaches others.
type raftLink struct {
	net  *network
	from *node
}

// Send implements replica.Peers.
func (l raftLink) Send(to uint64, frame []byte) {
	l.from.standStill() // This is the host's loop: no tick passes either.
	l.net.world.events.bytes("raft", l.from.number+1, int(to), frame)
	l.net.carry(l.from, to, func(n *node) {
		l.net.world.events.bytes("raft arrives", l.from.number+1, int(to), frame)
		if err := n.host.Receive(l.from.id(), frame); err != nil {
			l.net.world.fail("node %d does not understand node %d: %v", n.id(), l.from.id(), err)
		}
	})
}

var errCut = fmt.Errorf("%w: the connection broke", replica.ErrLost)

// SendSnapshot implements replica.Peers.
func (l raftLink) SendSnapshot(to uint64, group uint32, header []byte, source replica.SnapshotSource, done func([]byte, error)) {
	go func() {
		defer source.Close()
		n, _ := l.net.reach(l.from, to)
		if n == nil {
			done(nil, errCut)
			return
		}
		ctx, cancel := context.WithCancel(context.Background())
		defer cancel()
		done(n.host.ReceiveSnapshot(ctx, l.from.id(), group, header, func() ([]byte, error) {
			time.Sleep(l.net.world.network.between(100*time.Microsecond, 3*time.Millisecond))
			if now, _ := l.net.reach(l.from, to); now != n || n.dead.Load() {
				return nil, errCut
			}
			chunk, err := source.Next()
			if err != nil && !errors.Is(err, io.EOF) {
				l.net.world.trace("snapshot of partition %d from node %d: %v", group, l.from.id(), err)
			}
			return chunk, err
		}))
	}()
}

// peerLink is how a router reaches others.
type peerLink struct {
	net  *network
	from *node
}

// Send implements peer.Network.
func (l peerLink) Send(to uint64, frame []byte) {
	l.from.standStill()
	l.net.world.events.bytes("peer", l.from.number+1, int(to), frame)
	l.net.carry(l.from, to, func(n *node) {
		l.net.world.events.bytes("peer arrives", l.from.number+1, int(to), frame)
		if err := n.server.Frame(l.from.id(), frame); err != nil {
			l.net.world.fail("node %d does not understand node %d: %v", n.id(), l.from.id(), err)
		}
	})
}

// patience is how long it takes to notice that a node does not answer any more.
const patience = 2 * time.Second

// Call implements peer.Network. A request goes over a connection: what breaks that after it was
// sent leaves open whether it was heard.
func (l peerLink) Call(ctx context.Context, to uint64, _ string, request []byte) ([]byte, error) {
	return l.ask(ctx, to, func(ctx context.Context, n *node) ([]byte, error) { return n.server.Call(ctx, l.from.id(), request) })
}

// attempts is Config.Call of a remote.Invoker.
func (l peerLink) attempts(ctx context.Context, to uint64, request []byte) ([]byte, error) {
	return l.ask(ctx, to, func(ctx context.Context, n *node) ([]byte, error) { return n.attempts.Serve(ctx, l.from.id(), request) })
}

func (l peerLink) ask(ctx context.Context, to uint64, answered func(context.Context, *node) ([]byte, error)) ([]byte, error) {
	n, _ := l.net.reach(l.from, to)
	if n == nil {
		return nil, fmt.Errorf("%w: node %d", peer.ErrUnreachable, to)
	}
	transit := func() bool {
		time.Sleep(l.net.world.network.between(20*time.Microsecond, time.Millisecond))
		return l.net.world.calm.Load() || l.net.world.network.intn(200) != 0
	}
	l.from.standStill()
	if !transit() {
		return nil, errCut
	}
	if now, _ := l.net.reach(l.from, to); now != n || n.dead.Load() {
		return nil, errCut
	}
	type answer struct {
		data []byte
		err  error
	}
	came := make(chan answer, 1)
	asking, cancel := context.WithCancel(ctx)
	defer cancel()
	go func() {
		n.standStill()
		data, err := answered(asking, n)
		n.standStill()
		came <- answer{data, err}
	}()
	for {
		now, changed := l.net.back(n, l.from)
		if !now {
			// As TCP: whoever waits learns of it late, or never if it heals.
			select {
			case <-time.After(l.net.world.load.brief(patience)):
				return nil, errCut
			case <-changed:
				continue
			case <-ctx.Done():
				return nil, ctx.Err()
			}
		}
		select {
		case got := <-came:
			l.net.world.events.bytes("response", int(to), l.from.number+1, got.data)
			if !transit() {
				return nil, errCut
			}
			if still, _ := l.net.back(n, l.from); !still {
				return nil, errCut
			}
			return got.data, got.err
		case <-changed:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

// back reports whether answers of a process reach another.
func (net *network) back(from, to *node) (bool, <-chan struct{}) {
	n, changed := net.reach(from, to.id())
	return n == to, changed
}
