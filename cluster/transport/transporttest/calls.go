package transporttest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/perdure/perdure/cluster/transport"
)

// mustBe checks that err matches want and says something, and that it is only one of delivered or
// not.
func mustBe(t *testing.T, err error, want error) {
	t.Helper()
	if !errors.Is(err, want) {
		t.Fatalf("got error %v, want one that is %v", err, want)
	}
	if errors.Is(err, transport.ErrUnreachable) && errors.Is(err, transport.ErrUnknown) {
		t.Fatalf("the error is both, unreachable and unknown: %v", err)
	}
}

func call(t *testing.T, make Factory) {
	a := Start(t, make, 1, nil)
	b := Start(t, make, 2, func(n *Node) {
		n.OnCall = func(_ context.Context, from uint64, method string, request []byte) ([]byte, error) {
			switch method {
			case "coded":
				return nil, fmt.Errorf("wrapped: %w", &transport.Error{Code: 9, Message: "no", Details: []byte{0, 1, 255}})
			case "plain":
				return nil, errors.New("plain \xff")
			case "empty":
				return nil, nil
			}
			return fmt.Appendf(nil, "%d %s %s", from, method, request), nil
		}
	})
	Connect(a, b)
	if response, err := a.Call(t.Context(), 2, "echo", []byte("hi")); err != nil || string(response) != "1 echo hi" {
		t.Fatalf("got %q %v", response, err)
	}
	if response, err := a.Call(t.Context(), 2, "empty", nil); err != nil || len(response) != 0 {
		t.Errorf("an empty response: %q %v", response, err)
	}
	_, err := a.Call(t.Context(), 2, "coded", nil)
	coded, ok := errors.AsType[*transport.Error](err)
	if !ok || coded.Code != 9 || coded.Message != "no" || !bytes.Equal(coded.Details, []byte{0, 1, 255}) {
		t.Errorf("the handler's error came as %#v", err)
	}
	if errors.Is(err, transport.ErrUnknown) || errors.Is(err, transport.ErrUnreachable) {
		t.Errorf("a handler's error says that its outcome is not known: %v", err)
	}
	_, err = a.Call(t.Context(), 2, "plain", nil)
	if coded, ok := errors.AsType[*transport.Error](err); !ok || coded.Code != 2 || !strings.HasPrefix(coded.Message, "plain ") {
		t.Errorf("a plain error came as %#v", err)
	}
	var group sync.WaitGroup
	for i := range 300 {
		group.Go(func() {
			want := fmt.Sprintf("1 echo %d", i)
			if response, err := a.Call(t.Context(), 2, "echo", fmt.Append(nil, i)); err != nil || string(response) != want {
				t.Errorf("got %q %v, want %q", response, err, want)
			}
		})
	}
	group.Wait()
}

func callTooLarge(t *testing.T, make Factory) {
	var reached atomic.Bool
	a := Start(t, make, 1, func(n *Node) { n.Config.Limits.RequestBytes = 1000 })
	b := Start(t, make, 2, func(n *Node) {
		n.Config.Limits.RequestBytes = 1000
		n.OnCall = func(_ context.Context, _ uint64, method string, request []byte) ([]byte, error) {
			if method == "grow" {
				return append(request, 'y'), nil
			}
			reached.Store(len(request) > 1000)
			return request, nil
		}
	})
	Connect(a, b)
	most := bytes.Repeat([]byte("x"), 1000)
	if response, err := a.Call(t.Context(), 2, "same", most); err != nil || !bytes.Equal(response, most) {
		t.Errorf("a request of the largest size: %d bytes, %v", len(response), err)
	}
	_, err := a.Call(t.Context(), 2, "same", append(most, 'x'))
	mustBe(t, err, transport.ErrUnreachable)
	if !strings.Contains(err.Error(), "1001") || !strings.Contains(err.Error(), "1000") {
		t.Errorf("the error has no size and bound: %v", err)
	}
	_, err = a.Call(t.Context(), 2, "grow", most)
	if coded, ok := errors.AsType[*transport.Error](err); !ok || coded.Code != 8 {
		t.Errorf("too large a response: %v", err)
	}
	if reached.Load() {
		t.Error("the request that was too large reached the handler")
	}
}

func callUnreachable(t *testing.T, make Factory) {
	a, b := Start(t, make, 1, nil), Start(t, make, 2, nil)
	expectUnreachable(t, a, 2) // no address yet
	Connect(a, b)
	if _, err := a.Call(t.Context(), 2, "m", nil); err != nil {
		t.Fatal(err)
	}
	expectUnreachable(t, a, 1) // itself
	b.Stop()
	Eventually(t, "calls to a node that stopped are unreachable", func() bool {
		_, err := a.Call(t.Context(), 2, "m", nil)
		return errors.Is(err, transport.ErrUnreachable)
	})
	if _, err := b.Call(t.Context(), 1, "m", nil); !errors.Is(err, transport.ErrUnreachable) {
		t.Errorf("a call by a transport that stopped: %v", err)
	}
}

func callCancelled(t *testing.T, make Factory) {
	a := Start(t, make, 1, nil)
	begun, ended := chanOf(), chanOf()
	b := Start(t, make, 2, func(n *Node) {
		n.OnCall = func(ctx context.Context, _ uint64, _ string, _ []byte) ([]byte, error) {
			close(begun)
			<-ctx.Done()
			close(ended)
			return nil, ctx.Err()
		}
	})
	Connect(a, b)
	ctx, cancel := context.WithCancel(t.Context())
	go func() {
		<-begun
		cancel()
	}()
	_, err := a.Call(ctx, 2, "m", nil)
	mustBe(t, err, transport.ErrUnknown)
	mustBe(t, err, context.Canceled)
	<-ended // the handler was told
	_, err = a.Call(ctx, 2, "m", nil)
	mustBe(t, err, context.Canceled)
}

func callsLimited(t *testing.T, make Factory) {
	few := func(n *Node) { n.Config.Limits.Calls = 3 }
	a := Start(t, make, 1, few)
	var now atomic.Int32
	release := chanOf()
	b := Start(t, make, 2, func(n *Node) {
		few(n)
		n.OnCall = func(context.Context, uint64, string, []byte) ([]byte, error) {
			now.Add(1)
			<-release
			return nil, nil
		}
	})
	Connect(a, b)
	var group sync.WaitGroup
	for range 3 {
		group.Go(func() {
			if _, err := a.Call(t.Context(), 2, "m", nil); err != nil {
				t.Errorf("a call within the limit: %v", err)
			}
		})
	}
	Eventually(t, "three calls under way", func() bool { return now.Load() == 3 })
	_, err := a.Call(t.Context(), 2, "m", nil)
	mustBe(t, err, transport.ErrUnreachable)
	if refused, ok := errors.AsType[*transport.Refused](err); !ok || refused.Reason != transport.ReasonBusy {
		t.Errorf("one call too many: %v", err)
	}
	close(release)
	group.Wait()
	if _, err := a.Call(t.Context(), 2, "m", nil); err != nil {
		t.Errorf("a call after the others ended: %v", err)
	}
}

func stopWithCalls(t *testing.T, make Factory) {
	a := Start(t, make, 1, nil)
	begun := chanOf()
	b := Start(t, make, 2, func(n *Node) {
		n.OnCall = func(ctx context.Context, _ uint64, _ string, _ []byte) ([]byte, error) {
			close(begun)
			<-ctx.Done()
			return nil, ctx.Err()
		}
	})
	Connect(a, b)
	failed := make1()
	go func() {
		_, err := a.Call(context.Background(), 2, "m", nil)
		failed <- err
	}()
	<-begun
	b.Stop()
	err := <-failed
	// Either the handler's error still came, or the outcome is unknown; never "not delivered".
	if _, ok := errors.AsType[*transport.Error](err); !ok {
		mustBe(t, err, transport.ErrUnknown)
	}
}

func make1() chan error { return make(chan error, 1) }

func stopDrains(t *testing.T, make Factory) {
	a := Start(t, make, 1, nil)
	begun, answer := chanOf(), chanOf()
	b := Start(t, make, 2, func(n *Node) {
		n.Config.Timing.Drain = Timing.Dial * 10
		n.OnCall = func(_ context.Context, _ uint64, method string, _ []byte) ([]byte, error) {
			if method == "other" { // before it stops
				return nil, nil
			}
			close(begun)
			<-answer
			return []byte("done"), nil
		}
	})
	Connect(a, b)
	got := make1()
	go func() {
		response, err := a.Call(context.Background(), 2, "m", nil)
		if err == nil && string(response) != "done" {
			err = fmt.Errorf("got %q", response)
		}
		got <- err
	}()
	<-begun
	stopped := chanOf()
	go func() {
		defer close(stopped)
		b.Stop()
	}()
	Eventually(t, "a node that stops refuses calls", func() bool {
		_, err := a.Call(t.Context(), 2, "other", nil)
		refused, ok := errors.AsType[*transport.Refused](err)
		return ok && refused.Reason == transport.ReasonNotReady
	})
	close(answer)
	if err := <-got; err != nil {
		t.Errorf("the call under way when the node began to stop: %v", err)
	}
	<-stopped
}

func wrongCluster(t *testing.T, make Factory) {
	a := Start(t, make, 1, nil)
	b := Start(t, make, 2, func(n *Node) { n.Config.ClusterID = "other" })
	Connect(a, b)
	expectRefused(t, a, 2, transport.ReasonWrongCluster, "cluster c", "cluster other")
	if frames := b.Frames(); len(frames) != 0 {
		t.Errorf("frames of another cluster came: %q", frames)
	}
}

// expectRefused checks that frames, calls and streams to a node are refused.
func expectRefused(t *testing.T, from *Node, to uint64, reason transport.Reason, words ...string) {
	t.Helper()
	check := func(what string, err error) {
		t.Helper()
		refused, ok := errors.AsType[*transport.Refused](err)
		if !ok || refused.Reason != reason || refused.Node != to {
			t.Fatalf("%s: got %v, want a refusal of node %d because of %s", what, err, to, reason)
		}
		mustBe(t, err, transport.ErrUnreachable)
		for _, word := range words {
			if !strings.Contains(err.Error(), word) {
				t.Errorf("%s: the refusal %q does not say %q", what, err, word)
			}
		}
	}
	_, err := from.Call(t.Context(), to, "m", nil)
	check("call", err)
	_, err = from.Stream(t.Context(), to, "m", nil, func() ([]byte, error) { return []byte("chunk"), nil })
	check("stream", err)
	Eventually(t, fmt.Sprintf("frames are refused because of %s", reason), func() bool {
		from.Send(to, 1, []byte("refused"))
		return slices.ContainsFunc(from.Refusals(), func(refused *transport.Refused) bool { return refused.Reason == reason && refused.Node == to })
	})
}

func wrongNode(t *testing.T, make Factory) {
	a, b := Start(t, make, 1, nil), Start(t, make, 2, nil)
	a.SetAddresses(map[uint64]string{3: b.Address})
	check := func(from *Node, to uint64) {
		_, err := from.Call(t.Context(), to, "m", nil)
		if refused, ok := errors.AsType[*transport.Refused](err); !ok || refused.Reason != transport.ReasonWrongNode {
			t.Fatalf("got %v", err)
		}
	}
	check(a, 3)
	// A copy of a node calls the original.
	twin := Start(t, make, 2, nil)
	twin.SetAddresses(map[uint64]string{1: b.Address})
	check(twin, 1)
	// Corrected, it works at once.
	Connect(a, b)
	Reach(t, a, b)
}

func notMember(t *testing.T, make Factory) {
	var member atomic.Bool
	a := Start(t, make, 1, nil)
	b := Start(t, make, 2, func(n *Node) {
		n.Config.Admit = func(node uint64) error {
			if node == 1 && !member.Load() {
				return fmt.Errorf("look-up: %w", transport.ErrNotMember)
			}
			return nil
		}
	})
	Connect(a, b)
	expectRefused(t, a, 2, transport.ReasonNotMember, "0000000000000001")
	if frames := b.Frames(); len(frames) != 0 {
		t.Errorf("frames of a node that is no member came: %q", frames)
	}
	member.Store(true)
	Reach(t, a, b)
	if _, err := a.Call(t.Context(), 2, "m", nil); err != nil {
		t.Errorf("a call of a member: %v", err)
	}
}

func removed(t *testing.T, make Factory) {
	var gone atomic.Bool
	a := Start(t, make, 1, nil)
	b := Start(t, make, 2, func(n *Node) {
		n.Config.Admit = func(uint64) error {
			if gone.Load() {
				return transport.ErrRemoved
			}
			return nil
		}
	})
	Connect(a, b)
	Reach(t, a, b)
	gone.Store(true) // while it is connected
	expectRefused(t, a, 2, transport.ReasonRemoved, "removed", "new node")
	refusals := a.Refusals()
	if last := refusals[len(refusals)-1]; !errors.Is(last, transport.ErrRemoved) {
		t.Errorf("OnRefused was told %v", last)
	}
	if frames := b.Frames(); len(frames) != 0 {
		t.Errorf("frames of a removed node came: %q", frames)
	}
}

func versions(t *testing.T, make Factory) {
	speaks := func(low, high uint32) func(n *Node) {
		return func(n *Node) { n.Config.Versions = transport.Versions{Min: low, Max: high} }
	}
	a, b := Start(t, make, 1, speaks(1, 2)), Start(t, make, 2, speaks(2, 3))
	Connect(a, b)
	Reach(t, a, b)
	if met := a.Met(); !slices.Equal(met, []string{"2 version 2 build 2"}) {
		t.Errorf("OnPeer was told %q", met)
	}
	c := Start(t, make, 3, speaks(4, 5))
	Connect(a, b, c)
	expectRefused(t, a, 3, transport.ReasonVersion, "versions 4 to 5", "versions 1 to 2", "build 3", "upgrade")
	expectRefused(t, c, 1, transport.ReasonVersion, "upgrade")
}

// levels: nodes of which one reads less than the other knows to be written refuse each other, whoever
// calls, and the one that is too old hears of it.
func levels(t *testing.T, make Factory) {
	var written atomic.Uint32
	a := Start(t, make, 1, func(n *Node) {
		n.Config.FeatureLevel, n.Config.WrittenLevel, n.Config.OpenMethods = 2, written.Load, []string{"join"}
	})
	old := Start(t, make, 2, nil)
	Connect(a, old)
	Reach(t, a, old)
	Reach(t, old, a)
	if len(old.Outdated())+len(a.Outdated()) != 0 {
		t.Error("a node was told that it is too old before anybody wrote what it does not read")
	}
	written.Store(2)
	expectRefused(t, old, 1, transport.ReasonCallerTooOld, "0000000000000002", "build 2", "up to feature level 1", "level 2", "start it with the version", "build 1")
	if len(old.Outdated()) != 0 {
		t.Error("OnTooOld was told of a call that another node refused")
	}
	if _, err := old.Call(t.Context(), 1, "join", nil); err == nil {
		t.Error("a node that is too old may join")
	}
	expectRefused(t, a, 2, transport.ReasonCalleeTooOld, "0000000000000002", "build 2", "up to feature level 1", "level 2", "start it with the version", "build 1")
	if len(old.Outdated()) == 0 || len(a.Outdated()) != 0 {
		t.Errorf("OnTooOld was told %v, and at the node that is not %v", old.Outdated(), a.Outdated())
	}
	// What it is replaced by is let in.
	old.Stop()
	replaced := Start(t, make, 2, func(n *Node) { n.Config.FeatureLevel = 3 })
	Connect(a, replaced)
	Reach(t, a, replaced)
	Reach(t, replaced, a)
}

// levelRises: what is sent when records of a higher level may just be written arrives, though the node is asked first
// whether it reads them and nothing is sent after it.
func levelRises(t *testing.T, make Factory) {
	var written atomic.Uint32
	a := Start(t, make, 1, func(n *Node) { n.Config.FeatureLevel, n.Config.WrittenLevel = 2, written.Load })
	b := Start(t, make, 2, func(n *Node) { n.Config.FeatureLevel = 2 })
	Connect(a, b)
	Reach(t, a, b)
	written.Store(2)
	a.Send(2, 1, []byte("the last"))
	Eventually(t, "the frame", func() bool { return slices.Equal(b.Frames(), []string{"1/1/the last"}) })
}

// claims: what a node says of its log comes with every call and batch of frames, as it is then.
func claims(t *testing.T, make Factory) {
	var durable, heard atomic.Uint64
	a := Start(t, make, 1, func(n *Node) {
		n.Config.Log = func() transport.LogClaim {
			return transport.LogClaim{Process: 7, Opened: 3, Durable: durable.Load()}
		}
	})
	b := Start(t, make, 2, func(n *Node) {
		n.Config.CheckLog = func(node uint64, said transport.LogClaim) error {
			if node != 1 || said.Process != 7 || said.Opened != 3 {
				return fmt.Errorf("node %d says %+v", node, said)
			}
			heard.Store(max(heard.Load(), said.Durable))
			if said.Durable == 13 {
				return errors.New("it is an earlier copy")
			}
			return nil
		}
	})
	Connect(a, b)
	durable.Store(4)
	if _, err := a.Call(t.Context(), 2, "m", nil); err != nil || heard.Load() != 4 {
		t.Fatalf("a call: %v; heard of %d frames", err, heard.Load())
	}
	Reach(t, a, b)
	durable.Store(5)
	a.Send(2, 1, []byte("x"))
	Eventually(t, "a frame", func() bool { return len(b.Frames()) == 1 })
	if heard.Load() != 5 {
		t.Errorf("with the frame came that there are %d", heard.Load())
	}
	durable.Store(13)
	expectRefused(t, a, 2, transport.ReasonStale, "it is an earlier copy")
	// The other way nothing is said, and nobody looks.
	if _, err := b.Call(t.Context(), 1, "m", nil); err != nil {
		t.Error(err)
	}
}

func joining(t *testing.T, make Factory) {
	a := Start(t, make, 1, func(n *Node) { n.Config.ClusterID = "" })
	b := Start(t, make, 2, func(n *Node) {
		n.Config.OpenMethods = []string{"join"}
		n.Config.Admit = func(uint64) error { return transport.ErrNotMember }
	})
	Connect(a, b)
	if response, err := a.Call(t.Context(), 2, "join", []byte("me")); err != nil || string(response) != "1 join me" {
		t.Fatalf("a node that joins: %q %v", response, err)
	}
	expectRefused(t, a, 2, transport.ReasonNotMember)
	expectRefused(t, b, 1, transport.ReasonNotReady)
	a.Messenger.(interface{ SetClusterID(string) }).SetClusterID("c")
	if _, err := b.Call(t.Context(), 1, "m", nil); err != nil {
		t.Errorf("a call to a node that has joined: %v", err)
	}
	// Of another cluster, and not of none.
	c := Start(t, make, 3, func(n *Node) { n.Config.ClusterID = "other" })
	c.SetAddresses(map[uint64]string{2: b.Address})
	_, err := c.Call(t.Context(), 2, "join", nil)
	if refused, ok := errors.AsType[*transport.Refused](err); !ok || refused.Reason != transport.ReasonWrongCluster {
		t.Errorf("a node of another cluster asks to join: %v", err)
	}
}
