// Package memory is a network of transports inside one process, for simulations: delays, losses
// and cuts as a function says, and time by the time package alone, so that it runs under
// testing/synctest. It passes the same conformance suite as the network's own transport.
//
// What it does not have is connections that break by themselves: a call fails only because of
// Config.Admit, a cut link, or a node that stops.
package memory

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/perdure/perdure/cluster/transport"
)

// Kind is what of a transport a message belongs to.
type Kind uint8

// The kinds of messages.
const (
	// Hello opens the way for frames.
	Hello Kind = iota
	// Frame is one frame.
	Frame
	// Request is a call's request, a stream's header, or one of its chunks.
	Request
	// Response is that of a call or stream.
	Response
)

// Message is one message about to cross a link.
type Message struct {
	From, To uint64
	Kind     Kind
	// Of a frame: whose it is.
	FrameKind uint8
	// Of a call or stream.
	Method string
	Bytes  int
}

// Fate is what becomes of a message. The zero value is delivery at once.
type Fate struct {
	// Lost messages don't arrive; the link stands. Only frames can be lost so: for the others it
	// is Cut.
	Lost bool
	// Cut means that no connection can be made, and what waits for an answer waits for the
	// timeouts of the network.
	Cut bool
	// Delay until it arrives. Frames of one node to another stay in order.
	Delay time.Duration
}

// Network connects transports by their address.
type Network struct {
	fate func(Message) Fate
	mu   struct {
		sync.Mutex
		nodes map[string]*Transport
	}
}

// NewNetwork makes a network. fate decides over every message and is called by many goroutines;
// nil delivers all.
func NewNetwork(fate func(Message) Fate) *Network {
	if fate == nil {
		fate = func(Message) Fate { return Fate{} }
	}
	n := &Network{fate: fate}
	n.mu.nodes = map[string]*Transport{}
	return n
}

// Transport is a transport.Messenger of a Network.
type Transport struct {
	network *Network
	config  transport.Config
	ready   chan struct{}
	mu      struct {
		sync.Mutex
		clusterID string
		running   context.Context // nil before Run
		stopping  bool
		links     map[uint64]*link
		inbound   map[uint64]*inbound
		calls     int
		quiet     chan struct{} // made when stopping: closed when there are no calls
	}
	goroutines sync.WaitGroup
}

// inbound is what one other node has under way here.
type inbound struct {
	calls, streams int
	// delivering has room for one: a frame is with the handler, of this connection or of the one
	// before. It is no mutex, for under testing/synctest time would stand still for who waits.
	delivering chan struct{}
}

func (t *Transport) inboundLocked(from uint64) *inbound {
	in := t.mu.inbound[from]
	if in == nil {
		in = &inbound{delivering: make(chan struct{}, 1)}
		t.mu.inbound[from] = in
	}
	return in
}

var _ transport.Messenger = (*Transport)(nil)

// New makes a transport, reached at config.Listen while it runs.
func (n *Network) New(config transport.Config) (*Transport, error) {
	config = config.WithDefaults()
	if err := config.Validate(); err != nil {
		return nil, err
	}
	t := &Transport{network: n, config: config, ready: make(chan struct{})}
	t.mu.clusterID = config.ClusterID
	t.mu.links, t.mu.inbound = map[uint64]*link{}, map[uint64]*inbound{}
	return t, nil
}

func (n *Network) at(address string) *Transport {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.mu.nodes[address]
}

// SetClusterID tells the id of the cluster that this node has joined.
func (t *Transport) SetClusterID(id string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.mu.clusterID = id
}

// Ready is closed once Run carries traffic.
func (t *Transport) Ready() <-chan struct{} { return t.ready }

// Run implements transport.Messenger.
func (t *Transport) Run(ctx context.Context) error {
	running, stop := context.WithCancel(context.WithoutCancel(ctx))
	defer stop()
	t.network.mu.Lock()
	if t.network.mu.nodes[t.config.Listen] != nil {
		t.network.mu.Unlock()
		return fmt.Errorf("transport: listen on %s: the address is in use", t.config.Listen)
	}
	t.network.mu.nodes[t.config.Listen] = t
	t.network.mu.Unlock()
	t.mu.Lock()
	if t.mu.running != nil {
		t.mu.Unlock()
		return errors.New("transport: run: it was run before; make a new one")
	}
	t.mu.running = running
	for _, l := range t.mu.links {
		t.goroutines.Go(l.run)
	}
	close(t.ready)
	t.mu.Unlock()

	<-ctx.Done()
	quiet := make(chan struct{})
	t.mu.Lock()
	t.mu.stopping, t.mu.quiet = true, quiet
	if t.mu.calls == 0 {
		close(quiet)
	}
	t.mu.Unlock()
	timer := time.NewTimer(t.config.Timing.Drain)
	defer timer.Stop()
	select {
	case <-quiet:
	case <-timer.C:
	}
	t.network.mu.Lock()
	delete(t.network.mu.nodes, t.config.Listen)
	t.network.mu.Unlock()
	t.mu.Lock()
	for id, l := range t.mu.links {
		l.cancel()
		delete(t.mu.links, id)
	}
	stop()
	t.mu.Unlock()
	t.goroutines.Wait()
	return nil
}

// SetAddresses implements transport.Messenger.
func (t *Transport) SetAddresses(addresses map[uint64]string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.mu.running != nil && t.mu.running.Err() != nil {
		return
	}
	for id, address := range addresses {
		if l := t.mu.links[id]; l != nil && l.address == address || id == t.config.NodeID || address == "" {
			continue
		} else if l != nil {
			l.cancel()
		}
		l := newLink(t, id, address)
		t.mu.links[id] = l
		if t.mu.running != nil {
			t.goroutines.Go(l.run)
		}
	}
	for id, l := range t.mu.links {
		if addresses[id] == "" {
			l.cancel()
			delete(t.mu.links, id)
		}
	}
}

func (t *Transport) link(to uint64) *link {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.mu.running == nil || t.mu.running.Err() != nil {
		return nil
	}
	return t.mu.links[to]
}

// Send implements transport.Messenger.
func (t *Transport) Send(to uint64, kind uint8, frame []byte) {
	t.mu.Lock()
	l := t.mu.links[to]
	t.mu.Unlock()
	if l != nil {
		l.push(kind, frame)
	}
}

// check is the callee's side of a hello.
func (t *Transport) check(caller *Transport, to uint64, method string) (uint32, *transport.Refused) {
	caller.mu.Lock()
	callersCluster := caller.mu.clusterID
	caller.mu.Unlock()
	hello := caller.config.Hello(callersCluster, to)
	t.mu.Lock()
	clusterID, stopping := t.mu.clusterID, t.mu.stopping
	t.mu.Unlock()
	if stopping {
		return 0, &transport.Refused{Node: t.config.NodeID, Reason: transport.ReasonNotReady, Message: "this node is stopping"}
	}
	version, refused := t.config.Check(clusterID, hello, method)
	if refused != nil && refused.Reason == transport.ReasonCalleeTooOld && t.config.OnTooOld != nil {
		t.config.OnTooOld(refused)
	}
	return version, refused
}

// sleep waits; it reports false if a context ended first.
func sleep(d time.Duration, contexts ...context.Context) bool {
	for _, ctx := range contexts {
		if ctx.Err() != nil {
			return false
		}
	}
	if d <= 0 {
		return true
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	first, second := contexts[0].Done(), contexts[len(contexts)-1].Done()
	select {
	case <-timer.C:
		return true
	case <-first:
	case <-second:
	}
	return false
}
