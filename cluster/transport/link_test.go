package transport

import (
	"context"
	"errors"
	"net"
	"sync"
	"testing"
	"time"
)

// TestLinkIsNotHeldForTheTransport: whoever needs a connection doesn't hold the link's lock while it waits for the
// transport's, which SetAddresses holds when it takes the links' locks: both would wait for ever.
func TestLinkIsNotHeldForTheTransport(t *testing.T) {
	transport, err := New(Config{NodeID: 1, ClusterID: "c", Listen: "127.0.0.1:0", Handler: nobody{}})
	if err != nil {
		t.Fatal(err)
	}
	transport.SetAddresses(map[uint64]string{2: "127.0.0.1:1"})
	calls := &(*transport.peers.Load())[2].calls
	acquired := make(chan error, 1)
	transport.mu.Lock()
	go func() {
		_, err := calls.acquire(t.Context())
		acquired <- err
	}()
	begun := func() bool {
		if !calls.mu.TryLock() {
			return false
		}
		defer calls.mu.Unlock()
		return calls.mu.attempt != nil
	}
	for until := time.Now().Add(20 * time.Second); !begun(); time.Sleep(time.Millisecond) { // polls a goroutine that waits for a lock
		if time.Now().After(until) {
			t.Error("it waits for the transport and holds the link")
			break
		}
	}
	transport.mu.Unlock()
	if err := <-acquired; !errors.Is(err, errNotRunning) {
		t.Errorf("before Run: %v", err)
	}
	// What could not begin keeps nothing from the next.
	if _, err := calls.acquire(t.Context()); !errors.Is(err, errNotRunning) {
		t.Errorf("before Run, again: %v", err)
	}
}

type nobody struct{}

func (nobody) Frame(uint64, uint8, []byte) {}

func (nobody) Call(context.Context, uint64, string, []byte) ([]byte, error) { return nil, nil }

func (nobody) Stream(context.Context, uint64, string, []byte, func() ([]byte, error)) ([]byte, error) {
	return nil, nil
}

// TestConnectionToWhereANodeWas: a node that moves while a connection to it is made is not called where it was, be
// it that somebody else answers there.
func TestConnectionToWhereANodeWas(t *testing.T) {
	begin := func(node uint64) *Transport {
		transport, err := New(Config{NodeID: node, ClusterID: "c", Listen: "127.0.0.1:0", Handler: nobody{}})
		if err != nil {
			t.Fatal(err)
		}
		if err := transport.Listen(t.Context()); err != nil {
			t.Fatal(err)
		}
		return transport
	}
	caller, moved, other := begin(1), begin(2), begin(3)
	was, is := other.Addr().String(), moved.Addr().String()
	begun, goOn := make(chan struct{}, 2), make(chan struct{})
	dial := caller.http.DialContext
	caller.http.DialContext = func(ctx context.Context, network, address string) (net.Conn, error) {
		if address == was {
			begun <- struct{}{}
			<-goOn
		}
		return dial(ctx, network, address)
	}
	running, stop := context.WithCancel(t.Context())
	var all sync.WaitGroup
	defer all.Wait()
	defer stop()
	for _, transport := range []*Transport{caller, moved, other} {
		all.Go(func() { _ = transport.Run(running) })
		<-transport.Ready()
	}
	caller.SetAddresses(map[uint64]string{2: was})
	called := make(chan error, 1)
	go func() {
		_, err := caller.Call(t.Context(), 2, "", nil)
		called <- err
	}()
	<-begun // for frames
	<-begun // for calls
	caller.SetAddresses(map[uint64]string{2: is})
	close(goOn)
	if err := <-called; err != nil {
		t.Errorf("a call while it moves: %v", err)
	}
	if _, err := caller.Call(t.Context(), 2, "", nil); err != nil {
		t.Errorf("a call after that: %v", err)
	}
}
