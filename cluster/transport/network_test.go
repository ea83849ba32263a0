package transport_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/perdure/perdure/cluster/transport"
	. "github.com/perdure/perdure/cluster/transport/transporttest"
)

type noHandler struct{}

func (noHandler) Frame(uint64, uint8, []byte) {}
func (noHandler) Call(context.Context, uint64, string, []byte) ([]byte, error) {
	return nil, nil
}
func (noHandler) Stream(context.Context, uint64, string, []byte, func() ([]byte, error)) ([]byte, error) {
	return nil, nil
}

// silent is a listener that takes connections, counts them and says nothing.
func silent(t *testing.T, read bool) (address string, accepted *atomic.Int32) {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	accepted = new(atomic.Int32)
	var group sync.WaitGroup
	group.Go(func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			accepted.Add(1)
			group.Go(func() {
				defer conn.Close()
				if read {
					_, _ = io.Copy(io.Discard, conn)
					return
				}
				<-t.Context().Done()
			})
		}
	})
	t.Cleanup(func() {
		listener.Close()
		group.Wait()
	})
	return listener.Addr().String(), accepted
}

// TestSilence: something answers the port and never a word comes.
func TestSilence(t *testing.T) {
	a := Start(t, tcp, 1, func(n *Node) {
		n.Config.Timing.Ping, n.Config.Timing.PingTimeout, n.Config.Timing.Hello = 50*time.Millisecond, 50*time.Millisecond, 100*time.Millisecond
	})
	address, accepted := silent(t, false)
	a.SetAddresses(map[uint64]string{2: address})
	_, err := a.Call(t.Context(), 2, "m", nil)
	if !errors.Is(err, transport.ErrUnknown) || errors.Is(err, transport.ErrUnreachable) {
		t.Errorf("a call without an answer: %v", err)
	}
	// Both the call's and, again and again, the frames' connection.
	Eventually(t, "several attempts", func() bool { return accepted.Load() > 3 })
	started := time.Now()
	for range 100_000 {
		a.Send(2, 1, make([]byte, 1000))
	}
	if took := time.Since(started); took > 5*time.Second {
		t.Errorf("100,000 frames to silence took %v", took)
	}
	status := a.Messenger.(*transport.Transport).Peers()[0]
	if status.Connected || status.Trouble == nil || status.DroppedFrames == 0 || status.NodeID != 2 || status.Address != address {
		t.Errorf("status %+v", status)
	}
}

// TestCut: a proxy between two nodes cuts all connections at once, often, while calls are under
// way. No call may take effect twice, nor one that was "not delivered" at all.
func TestCut(t *testing.T) {
	var mu sync.Mutex
	seen := map[string]int{}
	b := Start(t, tcp, 2, func(n *Node) {
		n.OnCall = func(_ context.Context, _ uint64, _ string, request []byte) ([]byte, error) {
			mu.Lock()
			defer mu.Unlock()
			seen[string(request)]++
			return request, nil
		}
	})
	proxy := newProxy(t, b.Address)
	a := Start(t, tcp, 1, nil)
	a.SetAddresses(map[uint64]string{2: proxy.address})
	type answer struct {
		request string
		err     error
	}
	answers := make(chan answer)
	var group sync.WaitGroup
	stop := make(chan struct{})
	for worker := range 8 {
		group.Go(func() {
			for i := 0; ; i++ {
				select {
				case <-stop:
					return
				default:
				}
				request := fmt.Sprintf("%d/%d", worker, i)
				_, err := a.Call(t.Context(), 2, "m", []byte(request))
				answers <- answer{request, err}
			}
		})
	}
	group.Go(func() {
		defer close(stop)
		for range 15 {
			before := proxy.accepted.Load()
			proxy.cut()
			// Calls have made a new connection.
			for proxy.accepted.Load() == before {
				time.Sleep(time.Millisecond)
			}
			time.Sleep(5 * time.Millisecond)
		}
	})
	go func() {
		group.Wait()
		close(answers)
	}()
	var fine, unknown, unreachable int
	for answer := range answers {
		mu.Lock()
		times := seen[answer.request]
		mu.Unlock()
		switch {
		case times > 1:
			t.Fatalf("%s took effect %d times (%v)", answer.request, times, answer.err)
		case answer.err == nil && times == 1:
			fine++
		case errors.Is(answer.err, transport.ErrUnknown):
			unknown++
		case errors.Is(answer.err, transport.ErrUnreachable) && times == 0:
			unreachable++
		default:
			t.Fatalf("%s took effect %d times and gave %v", answer.request, times, answer.err)
		}
	}
	t.Logf("%d fine, %d unknown, %d not delivered", fine, unknown, unreachable)
	if fine == 0 || unknown+unreachable == 0 {
		t.Error("nothing was cut, or nothing came through")
	}
	Reach(t, a, b)
}

// TestNodeThatComesBackIsReached: as soon as it connects, without waiting for the next try.
func TestNodeThatComesBackIsReached(t *testing.T) {
	a := Start(t, tcp, 1, func(n *Node) { n.Config.Timing.Retry, n.Config.Timing.RetryMax = time.Hour, time.Hour })
	b := Start(t, tcp, 2, nil)
	address := b.Address
	b.Stop()
	a.SetAddresses(map[uint64]string{2: address})
	Eventually(t, "a failed attempt", func() bool {
		trouble := a.Messenger.(*transport.Transport).Peers()[0].Trouble
		return strings.Contains(trouble.Error(), "connect to")
	})
	b = Start(t, tcp, 2, func(n *Node) { n.Config.Listen = address })
	b.SetAddresses(map[uint64]string{1: a.Address})
	Reach(t, a, b)
}

// TestStall: a node that takes nothing for long is given up, for frames and for streams, though its
// connections answer pings.
func TestStall(t *testing.T) {
	a := Start(t, tcp, 1, func(n *Node) { n.Config.Timing.Stall = 100 * time.Millisecond })
	release := make(chan struct{})
	b := Start(t, tcp, 2, func(n *Node) {
		n.OnFrame = func(uint64, uint8, []byte) { <-release }
		n.OnStream = func(context.Context, uint64, string, []byte, func() ([]byte, error)) ([]byte, error) {
			<-release
			return nil, nil
		}
	})
	released := sync.OnceFunc(func() { close(release) })
	t.Cleanup(released)
	Connect(a, b)
	Reach(t, a, b)
	_, err := a.Stream(t.Context(), 2, "m", nil, func() ([]byte, error) { return make([]byte, 256<<10), nil })
	if !errors.Is(err, transport.ErrUnknown) || !strings.Contains(err.Error(), "stopped reading") {
		t.Errorf("a stream that stalls: %v", err)
	}
	Eventually(t, "the connection is given up", func() bool {
		a.Send(2, 1, make([]byte, 256<<10))
		trouble := a.Messenger.(*transport.Transport).Peers()[0].Trouble
		return trouble != nil && strings.Contains(trouble.Error(), "stopped reading")
	})
	released()
	Eventually(t, "frames flow again", func() bool {
		a.Send(2, 2, []byte("again"))
		frames := b.Frames()
		return len(frames) > 0 && frames[len(frames)-1] == "1/2/again"
	})
}

// proxy forwards TCP and can cut it.
type proxy struct {
	address  string
	accepted atomic.Int32
	mu       sync.Mutex
	conns    []net.Conn
}

func newProxy(t *testing.T, to string) *proxy {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	p := &proxy{address: listener.Addr().String()}
	var group sync.WaitGroup
	group.Go(func() {
		for {
			in, err := listener.Accept()
			if err != nil {
				return
			}
			out, err := net.Dial("tcp", to)
			if err != nil {
				in.Close()
				continue
			}
			p.mu.Lock()
			p.conns = append(p.conns, in, out)
			p.mu.Unlock()
			p.accepted.Add(1)
			pipe := func(to, from net.Conn) {
				_, _ = io.Copy(to, from)
				to.Close()
				from.Close()
			}
			group.Go(func() { pipe(in, out) })
			group.Go(func() { pipe(out, in) })
		}
	})
	t.Cleanup(func() {
		listener.Close()
		p.cut()
		group.Wait()
	})
	return p
}

func (p *proxy) cut() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, conn := range p.conns {
		conn.Close()
	}
	p.conns = nil
}

// TestConnectionsAreReplaced: by age, without losing a frame, their order, or a call.
func TestConnectionsAreReplaced(t *testing.T) {
	young := func(n *Node) { n.Config.Timing.ConnectionAge = 50 * time.Millisecond }
	b := Start(t, tcp, 2, nil) // which would cut off connections of twice that age, and a loaded machine needs time
	proxy := newProxy(t, b.Address)
	a := Start(t, tcp, 1, young)
	a.SetAddresses(map[uint64]string{2: proxy.address})
	Reach(t, a, b)
	sent := 0
	for before := proxy.accepted.Load(); proxy.accepted.Load() < before+12; sent++ {
		a.Send(2, 1, fmt.Append(nil, sent))
		if response, err := a.Call(t.Context(), 2, "m", nil); err != nil || string(response) != "1 m " {
			t.Fatalf("call %d: %q %v", sent, response, err)
		}
	}
	Eventually(t, "all frames", func() bool { return len(b.Frames()) == sent })
	for i, frame := range b.Frames() {
		if frame != fmt.Sprintf("1/1/%d", i) {
			t.Fatalf("frame %d is %q", i, frame)
		}
	}
	if met := a.Met(); len(met) != 1 {
		t.Errorf("OnPeer was told of %d connections, and only the first is news", len(met))
	}
	if peers := a.Messenger.(*transport.Transport).Peers(); peers[0].DroppedFrames > 0 {
		t.Logf("%d frames were dropped before the first connection", peers[0].DroppedFrames)
	}
}

// TestOversizedMessageIsRefused: limits hold against peers that don't keep to them.
func TestOversizedMessageIsRefused(t *testing.T) {
	var reached atomic.Bool
	b := Start(t, tcp, 2, func(n *Node) {
		n.Config.Limits.FrameBytes, n.Config.Limits.RequestBytes = 1000, 1000
		n.OnCall = func(_ context.Context, _ uint64, _ string, request []byte) ([]byte, error) {
			reached.Store(true)
			return nil, nil
		}
		n.OnFrame = func(uint64, uint8, []byte) { reached.Store(true) }
	})
	a := Start(t, tcp, 1, nil)
	a.SetAddresses(map[uint64]string{2: b.Address})
	Reach(t, a, b)
	if _, err := a.Call(t.Context(), 2, "m", make([]byte, 10<<20)); err == nil || reached.Load() {
		t.Errorf("a large request: %v", err)
	}
	a.Send(2, 1, make([]byte, 10<<20))
	Reach(t, a, b) // on a new connection
	if reached.Load() {
		t.Error("a large frame came")
	}
}

func TestPanicOfHandlerIsNotTheNodes(t *testing.T) {
	b := Start(t, tcp, 2, func(n *Node) {
		n.OnCall = func(context.Context, uint64, string, []byte) ([]byte, error) { panic("bug") }
	})
	a := Start(t, tcp, 1, nil)
	Connect(a, b)
	if _, err := a.Call(t.Context(), 2, "m", nil); !errors.Is(err, transport.ErrUnknown) {
		t.Errorf("got %v", err)
	}
	Reach(t, a, b)
}

func TestConfigReportsAllProblems(t *testing.T) {
	_, err := transport.New(transport.Config{Listen: "nowhere", Versions: transport.Versions{Min: 3, Max: 2}, Limits: transport.Limits{Calls: -1, QueueBytes: 10}})
	if err == nil {
		t.Fatal("no error")
	}
	for _, word := range []string{"node id", "Handler", "versions 3 to 2", "Limits.Calls is -1", "Limits.QueueBytes is 10", `"nowhere"`} {
		if !strings.Contains(err.Error(), word) {
			t.Errorf("%q is not in: %v", word, err)
		}
	}
}

func TestRunsOnce(t *testing.T) {
	a := Start(t, tcp, 1, nil)
	if err := a.Run(t.Context()); err == nil {
		t.Error("a second Run began")
	}
	a.Stop()
	unused, _ := tcp(t, transport.Config{NodeID: 1, ClusterID: "c", Handler: noHandler{}})
	if err := unused.(*transport.Transport).Close(); err != nil {
		t.Error(err)
	}
	if err := unused.Run(t.Context()); err == nil {
		t.Error("Run after Close began")
	}
}
