package memory_test

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/perdure/perdure/cluster/transport"
	"github.com/perdure/perdure/cluster/transport/memory"
	. "github.com/perdure/perdure/cluster/transport/transporttest"
)

// world is a network with a fate that can change, and two nodes that have met.
func world(t *testing.T, fate *atomic.Pointer[func(memory.Message) memory.Fate]) (a, b *Node) {
	network := memory.NewNetwork(func(m memory.Message) memory.Fate {
		if f := fate.Load(); f != nil {
			return (*f)(m)
		}
		return memory.Fate{}
	})
	make := factory(network)
	a, b = Start(t, make, 1, nil), Start(t, make, 2, nil)
	Connect(a, b)
	Reach(t, a, b)
	Reach(t, b, a)
	return a, b
}

func TestDelay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var fate atomic.Pointer[func(memory.Message) memory.Fate]
		a, b := world(t, &fate)
		// Each frame takes less long than the one before, and still they keep their order.
		left := 100 * time.Millisecond
		f := func(m memory.Message) memory.Fate {
			if m.Kind == memory.Frame {
				left -= 10 * time.Millisecond
				return memory.Fate{Delay: left}
			}
			return memory.Fate{Delay: 30 * time.Millisecond}
		}
		fate.Store(&f)
		started := time.Now()
		for i := range 5 {
			a.Send(2, 1, fmt.Append(nil, i))
		}
		Eventually(t, "five frames", func() bool { return len(b.Frames()) == 5 })
		for i, frame := range b.Frames() {
			if frame != fmt.Sprintf("1/1/%d", i) {
				t.Errorf("frame %d is %s", i, frame)
			}
		}
		if took := time.Since(started); took < 90*time.Millisecond || took > 100*time.Millisecond {
			t.Errorf("frames took %v", took)
		}
		started = time.Now()
		if _, err := a.Call(t.Context(), 2, "m", nil); err != nil {
			t.Fatal(err)
		}
		if took := time.Since(started); took != 60*time.Millisecond {
			t.Errorf("a call took %v, want 30 ms each way", took)
		}
	})
}

func TestLoss(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var fate atomic.Pointer[func(memory.Message) memory.Fate]
		a, b := world(t, &fate)
		f := func(m memory.Message) memory.Fate {
			return memory.Fate{Lost: m.Kind == memory.Frame && m.FrameKind == 7}
		}
		fate.Store(&f)
		a.Send(2, 7, []byte("lost"))
		a.Send(2, 8, []byte("kept"))
		synctest.Wait()
		if frames := b.Frames(); len(frames) != 1 || frames[0] != "1/8/kept" {
			t.Errorf("got %q", frames)
		}
	})
}

func TestCut(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var fate atomic.Pointer[func(memory.Message) memory.Fate]
		a, b := world(t, &fate)
		// One way only: what goes from 1 to 2 is cut.
		oneWay := func(m memory.Message) memory.Fate { return memory.Fate{Cut: m.From == 1} }
		fate.Store(&oneWay)
		started := time.Now()
		_, err := a.Call(t.Context(), 2, "m", nil)
		if !errors.Is(err, transport.ErrUnreachable) || time.Since(started) != Timing.Dial {
			t.Errorf("a call over a cut link: %v after %v", err, time.Since(started))
		}
		// The request arrives, the response does not.
		_, err = b.Call(t.Context(), 1, "m", nil)
		if !errors.Is(err, transport.ErrUnknown) {
			t.Errorf("a call whose response is cut off: %v", err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
		defer cancel()
		if _, err = b.Call(ctx, 1, "m", nil); !errors.Is(err, context.DeadlineExceeded) || !errors.Is(err, transport.ErrUnknown) {
			t.Errorf("a deadline on a cut link: %v", err)
		}
		for range 30 {
			a.Send(2, 1, []byte("lost"))
			b.Send(1, 1, []byte("kept"))
			time.Sleep(time.Second)
		}
		if len(b.Frames()) != 0 || len(a.Frames()) != 30 {
			t.Errorf("%d frames crossed the cut, %d of 30 came the other way", len(b.Frames()), len(a.Frames()))
		}
		fate.Store(nil)
		Reach(t, a, b)
	})
}
