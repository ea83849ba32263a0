package transporttest

import (
	"bytes"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/perdure/perdure/cluster/transport"
)

func framesInOrder(t *testing.T, make Factory) {
	a, b := Start(t, make, 1, nil), Start(t, make, 2, nil)
	Connect(a, b)
	Reach(t, a, b)
	Reach(t, b, a)
	const count = 5000
	for i := range count {
		a.Send(2, uint8(i%7), fmt.Append(nil, i))
		b.Send(1, 9, nil)
	}
	Eventually(t, "all frames", func() bool { return len(b.Frames()) == count && len(a.Frames()) == count })
	for i, frame := range b.Frames() {
		if want := fmt.Sprintf("1/%d/%d", i%7, i); frame != want {
			t.Fatalf("frame %d is %q, want %q", i, frame, want)
		}
	}
	if met := a.Met(); !slices.Equal(met, []string{"2 version 1 build 2"}) {
		t.Errorf("OnPeer was told %q", met)
	}
	// To nobody, and to itself: nothing happens.
	a.Send(77, 1, nil)
	a.Send(1, 1, nil)
}

func framesBlocked(t *testing.T, make Factory) {
	const queue = 1 << 20
	small := func(n *Node) { n.Config.Limits.QueueBytes, n.Config.Limits.FrameBytes = queue, queue }
	a := Start(t, make, 1, small)
	blocked := chanOf()
	b := Start(t, make, 2, func(n *Node) {
		small(n)
		n.OnFrame = func(uint64, uint8, []byte) { <-blocked }
	})
	t.Cleanup(func() {
		select {
		case <-blocked:
		default:
			close(blocked)
		}
	})
	Connect(a, b)
	Reach(t, a, b)
	// Far more than queue and connection hold: Send must drop what is too much, not block.
	frame := bytes.Repeat([]byte("x"), 64<<10)
	const count = 1000
	started := time.Now()
	for range count {
		a.Send(2, 1, frame)
	}
	if took := time.Since(started); took > 5*time.Second {
		t.Errorf("sending to a node that doesn't read took %v", took)
	}
	// Calls have a connection of their own.
	if response, err := a.Call(t.Context(), 2, "m", nil); err != nil || string(response) != "1 m " {
		t.Errorf("a call beside blocked frames: %q %v", response, err)
	}
	close(blocked)
	Eventually(t, "frames flow again", func() bool {
		a.Send(2, 2, []byte("again"))
		frames := b.Frames()
		return len(frames) > 0 && frames[len(frames)-1] == "1/2/again"
	})
	if got := len(b.Frames()); got >= count {
		t.Errorf("%d frames came, so none was dropped although %d bytes fit", got, queue)
	}
}

func framesTooLarge(t *testing.T, make Factory) {
	a := Start(t, make, 1, func(n *Node) { n.Config.Limits.FrameBytes = 1000 })
	b := Start(t, make, 2, func(n *Node) { n.Config.Limits.FrameBytes = 1000 })
	Connect(a, b)
	Reach(t, a, b)
	a.Send(2, 1, bytes.Repeat([]byte("x"), 1001))
	a.Send(2, 1, bytes.Repeat([]byte("y"), 1000))
	Eventually(t, "the frame of the largest size", func() bool { return len(b.Frames()) == 1 })
	if frame := b.Frames()[0]; frame != "1/1/"+strings.Repeat("y", 1000) {
		t.Errorf("got %.20q", frame)
	}
}

func reconnect(t *testing.T, make Factory) {
	a, b := Start(t, make, 1, nil), Start(t, make, 2, nil)
	Connect(a, b)
	Reach(t, a, b)
	for round := range 3 {
		b.Stop()
		a.Send(2, 1, []byte("lost"))
		address := b.Address
		b = Start(t, make, 2, func(n *Node) { n.Config.Listen = address })
		Connect(a, b)
		Reach(t, a, b)
		Reach(t, b, a)
		if response, err := a.Call(t.Context(), 2, "m", []byte("r")); err != nil || string(response) != "1 m r" {
			t.Fatalf("round %d: a call after the restart: %q %v", round, response, err)
		}
	}
}

func addressChanges(t *testing.T, make Factory) {
	a, b := Start(t, make, 1, nil), Start(t, make, 2, nil)
	Connect(a, b)
	Reach(t, a, b)
	b.Stop()
	b = Start(t, make, 2, nil)
	Connect(a, b)
	Reach(t, a, b)
	if response, err := a.Call(t.Context(), 2, "m", []byte("r")); err != nil || string(response) != "1 m r" {
		t.Fatalf("a call after the move: %q %v", response, err)
	}
	// Left out is disconnected.
	a.SetAddresses(map[uint64]string{})
	a.Send(2, 3, []byte("late"))
	expectUnreachable(t, a, 2)
	Connect(a, b)
	Reach(t, a, b)
	if frames := b.Frames(); len(frames) != 0 {
		t.Errorf("a frame to a node without an address came: %q", frames)
	}
}

func expectUnreachable(t *testing.T, from *Node, to uint64) {
	t.Helper()
	_, err := from.Call(t.Context(), to, "m", nil)
	mustBe(t, err, transport.ErrUnreachable)
}
