package transport

import (
	"context"
	"testing"
	"time"
)

// waiting answers calls once it is released, whatever becomes of them.
type waiting struct {
	nobody
	begun, release chan struct{}
}

func (w *waiting) Call(context.Context, uint64, string, []byte) ([]byte, error) {
	w.begun <- struct{}{}
	<-w.release
	return nil, nil
}

func newWaiting() *waiting {
	return &waiting{begun: make(chan struct{}, 10), release: make(chan struct{})}
}

// runs begins a transport; stop ends it, and fails the test if it goes on.
func runs(t *testing.T, config Config) (transport *Transport, stop func()) {
	t.Helper()
	config.ClusterID, config.Listen = "c", "127.0.0.1:0"
	transport, err := New(config)
	if err != nil {
		t.Fatal(err)
	}
	running, cancel := context.WithCancel(t.Context())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		if err := transport.Run(running); err != nil {
			t.Error(err)
		}
	}()
	<-transport.Ready()
	return transport, func() {
		t.Helper()
		cancel()
		select {
		case <-ended:
		case <-time.After(20 * time.Second):
			t.Errorf("node %d does not stop", config.NodeID)
		}
	}
}

// TestHandlerThatHeedsNothing is left behind: a READ handler of users, for one, which may never end.
func TestHandlerThatHeedsNothing(t *testing.T) {
	handler := newWaiting()
	defer close(handler.release)
	callee, stopCallee := runs(t, Config{NodeID: 2, Handler: handler, Timing: Timing{Drain: 10 * time.Millisecond, Heed: 10 * time.Millisecond}})
	caller, stopCaller := runs(t, Config{NodeID: 1, Handler: nobody{}})
	defer stopCaller()
	caller.SetAddresses(map[uint64]string{2: callee.Addr().String()})
	called := make(chan error, 1)
	go func() {
		_, err := caller.Call(t.Context(), 2, "", nil)
		called <- err
	}()
	<-handler.begun
	stopCallee()
	if err := <-called; err == nil {
		t.Error("the call was answered")
	}
}

// TestStopCutsCallsOfAnEarlierConnection: whoever waits for an answer over a connection that was replaced since is told
// so when this node stops, like all others.
func TestStopCutsCallsOfAnEarlierConnection(t *testing.T) {
	handler := newWaiting()
	callee, stopCallee := runs(t, Config{NodeID: 2, Handler: handler})
	defer stopCallee()
	defer close(handler.release)
	age := 50 * time.Millisecond
	caller, stopCaller := runs(t, Config{NodeID: 1, Handler: nobody{}, Timing: Timing{ConnectionAge: age}})
	caller.SetAddresses(map[uint64]string{2: callee.Addr().String()})
	called := make(chan error, 2)
	for range 2 {
		go func() {
			_, err := caller.Call(context.Background(), 2, "", nil)
			called <- err
		}()
		<-handler.begun
		time.Sleep(2 * age) // the connection is too old then, and the next call makes one of its own
	}
	stopCaller()
	for range 2 {
		select {
		case err := <-called:
			if err == nil {
				t.Error("a call was answered")
			}
		case <-time.After(20 * time.Second):
			t.Fatal("a call goes on though its node has stopped")
		}
	}
}
