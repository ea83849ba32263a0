// Package transporttest is what every transport.Messenger must pass, and how a Transport is tried
// by others.
package transporttest

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"testing"
	"time"

	"github.com/perdure/perdure/cluster/transport"
)

// Factory makes a Messenger of config, and says where it will be reached once it runs. If
// config.Listen is empty it chooses an address.
type Factory func(t *testing.T, config transport.Config) (messenger transport.Messenger, address string)

// Suite says how to run the tests.
type Suite struct {
	// Make makes the messengers that are tested.
	Make Factory
	// Bubble runs each test, in a testing/synctest bubble or not.
	Bubble func(t *testing.T, test func(t *testing.T))
}

// Run runs the suite.
func Run(t *testing.T, suite Suite) {
	for _, test := range []struct {
		name string
		run  func(t *testing.T, make Factory)
	}{
		{"frames in order", framesInOrder}, {"frames of a node that blocks", framesBlocked}, {"frames too large", framesTooLarge},
		{"reconnect", reconnect}, {"address changes", addressChanges},
		{"call", call}, {"call too large", callTooLarge}, {"call unreachable", callUnreachable}, {"call cancelled", callCancelled},
		{"calls limited", callsLimited}, {"stop with calls under way", stopWithCalls}, {"last calls are answered", stopDrains},
		{"stream", stream}, {"stream has back-pressure", streamBackPressure}, {"stream waits", streamWaits}, {"stream answered early", streamEarly}, {"stream cut", streamCut}, {"streams limited", streamsLimited},
		{"wrong cluster", wrongCluster}, {"wrong node", wrongNode}, {"not a member", notMember}, {"removed", removed}, {"versions", versions}, {"levels", levels}, {"level rises", levelRises}, {"claims", claims}, {"joining", joining},
	} {
		t.Run(test.name, func(t *testing.T) {
			suite.Bubble(t, func(t *testing.T) { test.run(t, suite.Make) })
		})
	}
}

// Node is a running Messenger with a handler that remembers what came.
type Node struct {
	transport.Messenger
	Config  transport.Config
	Address string
	// OnCall and OnStream answer, if set before the first one.
	OnCall   func(ctx context.Context, from uint64, method string, request []byte) ([]byte, error)
	OnStream func(ctx context.Context, from uint64, method string, header []byte, next func() ([]byte, error)) ([]byte, error)
	OnFrame  func(from uint64, kind uint8, frame []byte)

	t    *testing.T
	stop context.CancelFunc
	done chan struct{}
	mu   struct {
		sync.Mutex
		frames  []string
		refused []*transport.Refused
		old     []*transport.Refused
		peers   []string
	}
}

// Timing is quick, for tests.
var Timing = transport.Timing{
	Dial: time.Second, Retry: 10 * time.Millisecond, RetryMax: 100 * time.Millisecond,
	RefusedRetry: 20 * time.Millisecond, RefusedRetryMax: 100 * time.Millisecond, Drain: 100 * time.Millisecond,
}

// Start starts a node; change may change its configuration and handlers before.
func Start(t *testing.T, make Factory, id uint64, change func(n *Node)) *Node {
	t.Helper()
	n := &Node{t: t, Config: transport.Config{
		NodeID: id, ClusterID: "c", Build: fmt.Sprintf("build %d", id), Timing: Timing, Logger: slog.New(slog.DiscardHandler),
	}}
	if change != nil {
		change(n)
	}
	n.Config.Handler = handler{n}
	n.Config.OnRefused = func(refused *transport.Refused) {
		n.mu.Lock()
		defer n.mu.Unlock()
		n.mu.refused = append(n.mu.refused, refused)
	}
	n.Config.OnTooOld = func(refused *transport.Refused) {
		n.mu.Lock()
		defer n.mu.Unlock()
		n.mu.old = append(n.mu.old, refused)
	}
	n.Config.OnPeer = func(node uint64, version uint32, build string) {
		n.mu.Lock()
		defer n.mu.Unlock()
		n.mu.peers = append(n.mu.peers, fmt.Sprintf("%d version %d %s", node, version, build))
	}
	n.Messenger, n.Address = make(t, n.Config)
	ctx, stop := context.WithCancel(context.Background())
	n.stop, n.done = stop, chanOf()
	go func() {
		defer close(n.done)
		if err := n.Run(ctx); err != nil {
			t.Errorf("node %d: %v", id, err)
		}
	}()
	t.Cleanup(n.Stop)
	<-n.Messenger.(interface{ Ready() <-chan struct{} }).Ready()
	return n
}

func chanOf() chan struct{} { return make(chan struct{}) }

// Stop stops the node and waits for it.
func (n *Node) Stop() {
	n.stop()
	<-n.done
}

// Frames are what came, in order, as "from/kind/text".
func (n *Node) Frames() []string {
	n.mu.Lock()
	defer n.mu.Unlock()
	return append([]string(nil), n.mu.frames...)
}

// Outdated is what OnTooOld was told.
func (n *Node) Outdated() []*transport.Refused {
	n.mu.Lock()
	defer n.mu.Unlock()
	return append([]*transport.Refused(nil), n.mu.old...)
}

// Refusals are what OnRefused was told.
func (n *Node) Refusals() []*transport.Refused {
	n.mu.Lock()
	defer n.mu.Unlock()
	return append([]*transport.Refused(nil), n.mu.refused...)
}

// Met is what OnPeer was told, as "node version v build".
func (n *Node) Met() []string {
	n.mu.Lock()
	defer n.mu.Unlock()
	return append([]string(nil), n.mu.peers...)
}

// Connect tells every node the addresses of all.
func Connect(nodes ...*Node) {
	addresses := map[uint64]string{}
	for _, n := range nodes {
		addresses[n.Config.NodeID] = n.Address
	}
	for _, n := range nodes {
		n.SetAddresses(addresses)
	}
}

// Eventually waits until condition holds.
func Eventually(t *testing.T, what string, condition func() bool) {
	t.Helper()
	deadline := time.Now().Add(20 * time.Second)
	for !condition() {
		if time.Now().After(deadline) {
			t.Fatalf("waited 20 s for: %s", what)
		}
		time.Sleep(time.Millisecond)
	}
}

// Reach sends frames of kind 255 until one arrives, so that the connection stands.
func Reach(t *testing.T, from, to *Node) {
	t.Helper()
	Eventually(t, fmt.Sprintf("node %d reaches node %d", from.Config.NodeID, to.Config.NodeID), func() bool {
		from.Send(to.Config.NodeID, 255, nil)
		to.mu.Lock()
		defer to.mu.Unlock()
		return to.mu.frames != nil
	})
	// Let those under way arrive, then forget them.
	from.Send(to.Config.NodeID, 254, nil)
	Eventually(t, "the last of the first frames", func() bool {
		to.mu.Lock()
		defer to.mu.Unlock()
		if n := len(to.mu.frames); n > 0 && to.mu.frames[n-1] == fmt.Sprintf("%d/254/", from.Config.NodeID) {
			to.mu.frames = nil
			return true
		}
		return false
	})
}

type handler struct{ n *Node }

func (h handler) Frame(from uint64, kind uint8, frame []byte) {
	if h.n.OnFrame != nil && kind < 254 {
		h.n.OnFrame(from, kind, frame)
	}
	h.n.mu.Lock()
	defer h.n.mu.Unlock()
	h.n.mu.frames = append(h.n.mu.frames, fmt.Sprintf("%d/%d/%s", from, kind, frame))
}

func (h handler) Call(ctx context.Context, from uint64, method string, request []byte) ([]byte, error) {
	if h.n.OnCall != nil {
		return h.n.OnCall(ctx, from, method, request)
	}
	return fmt.Appendf(nil, "%d %s %s", from, method, request), nil
}

func (h handler) Stream(ctx context.Context, from uint64, method string, header []byte, next func() ([]byte, error)) ([]byte, error) {
	return h.n.OnStream(ctx, from, method, header, next)
}
