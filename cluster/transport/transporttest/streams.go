package transporttest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/perdure/perdure/cluster/transport"
)

// chunks returns a source of n chunks of size bytes; the i-th is full of i.
func chunks(n, size int) func() ([]byte, error) {
	i := 0
	return func() ([]byte, error) {
		if i == n {
			return nil, io.EOF
		}
		i++
		return bytes.Repeat([]byte{byte(i)}, size), nil
	}
}

func stream(t *testing.T, make Factory) {
	a := Start(t, make, 1, nil)
	b := Start(t, make, 2, func(n *Node) {
		n.OnStream = func(_ context.Context, from uint64, method string, header []byte, next func() ([]byte, error)) ([]byte, error) {
			count, size := 0, 0
			for {
				chunk, err := next()
				if errors.Is(err, io.EOF) {
					break
				} else if err != nil {
					return nil, err
				}
				count++
				for _, b := range chunk {
					if b != byte(count) {
						return nil, fmt.Errorf("chunk %d has a byte %d", count, b)
					}
				}
				size += len(chunk)
			}
			if _, err := next(); err != io.EOF {
				return nil, fmt.Errorf("after the end: %v", err)
			}
			if method == "fail" {
				return nil, &transport.Error{Code: 5, Message: "no room"}
			}
			return fmt.Appendf(nil, "%d %s %s %d %d", from, method, header, count, size), nil
		}
	})
	Connect(a, b)
	for _, test := range []struct{ count, size int }{{0, 0}, {1, 0}, {1, 1}, {100, 1 << 20}} {
		want := fmt.Sprintf("1 snapshot head %d %d", test.count, test.count*test.size)
		if response, err := a.Stream(t.Context(), 2, "snapshot", []byte("head"), chunks(test.count, test.size)); err != nil || string(response) != want {
			t.Errorf("got %q %v, want %q", response, err, want)
		}
	}
	_, err := a.Stream(t.Context(), 2, "fail", nil, chunks(3, 10))
	if coded, ok := errors.AsType[*transport.Error](err); !ok || coded.Code != 5 || coded.Message != "no room" {
		t.Errorf("the handler's error came as %v", err)
	}
	_, err = a.Stream(t.Context(), 7, "m", nil, chunks(1, 1))
	mustBe(t, err, transport.ErrUnreachable)
}

func streamBackPressure(t *testing.T, make Factory) {
	a := Start(t, make, 1, nil)
	read := chanOf()
	b := Start(t, make, 2, func(n *Node) {
		n.OnStream = func(_ context.Context, _ uint64, _ string, _ []byte, next func() ([]byte, error)) ([]byte, error) {
			<-read
			for {
				if _, err := next(); err != nil {
					return nil, nil
				}
			}
		}
	})
	Connect(a, b)
	Reach(t, a, b)
	var sent atomic.Int64
	const size, most = 256 << 10, 1000
	source := func() ([]byte, error) {
		if sent.Add(1) > most {
			return nil, io.EOF
		}
		return make2(size), nil
	}
	failed := make1()
	go func() {
		_, err := a.Stream(context.Background(), 2, "m", nil, source)
		failed <- err
	}()
	// While the handler doesn't read, the source stops being asked; frames and calls go on.
	Eventually(t, "the stream began", func() bool { return sent.Load() > 1 })
	last := int64(-1)
	for rounds := 0; rounds < 20; {
		if now := sent.Load(); now == last {
			rounds++
		} else {
			last, rounds = now, 0
		}
		if _, err := a.Call(t.Context(), 2, "m", make2(1000)); err != nil {
			t.Fatalf("a call beside a stream that waits: %v", err)
		}
	}
	if bytes := last * size; bytes > 32<<20 {
		t.Errorf("%d bytes were taken from the source although nothing was read", bytes)
	}
	a.Send(2, 1, []byte("beside"))
	Eventually(t, "a frame beside a stream that waits", func() bool { return len(b.Frames()) == 1 })
	close(read)
	if err := <-failed; err != nil {
		t.Errorf("the stream: %v", err)
	}
}

// streamWaits: what waits for a handler that doesn't read ends when its caller wants, and when its
// node stops.
func streamWaits(t *testing.T, make Factory) {
	a := Start(t, make, 1, nil)
	release := chanOf()
	b := Start(t, make, 2, func(n *Node) {
		n.OnStream = func(context.Context, uint64, string, []byte, func() ([]byte, error)) ([]byte, error) {
			<-release // whatever becomes of the caller
			return nil, nil
		}
		n.OnFrame = func(uint64, uint8, []byte) { <-release }
	})
	t.Cleanup(func() { close(release) })
	Connect(a, b)
	Reach(t, a, b)
	begin := func(ctx context.Context) (sent *atomic.Int64, failed chan error) {
		sent, failed = new(atomic.Int64), make1()
		go func() {
			_, err := a.Stream(ctx, 2, "m", nil, func() ([]byte, error) {
				sent.Add(1)
				return make2(256 << 10), nil
			})
			failed <- err
		}()
		last := int64(-1)
		for rounds := 0; rounds < 30; time.Sleep(time.Millisecond) {
			if now := sent.Load(); now == last && now > 0 {
				rounds++
			} else {
				last, rounds = now, 0
			}
		}
		return sent, failed
	}
	ended := func(what string, failed chan error, want error) {
		t.Helper()
		select {
		case err := <-failed:
			mustBe(t, err, transport.ErrUnknown)
			if want != nil {
				mustBe(t, err, want)
			}
		case <-time.After(10 * time.Second):
			t.Fatalf("%s: the stream went on", what)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	_, failed := begin(ctx)
	cancel()
	ended("cancelled", failed, context.Canceled)
	ctx, cancel = context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	_, failed = begin(ctx)
	ended("deadline", failed, context.DeadlineExceeded)
	_, failed = begin(t.Context())
	for range 1000 { // frames wait as well
		a.Send(2, 1, make2(64<<10))
	}
	stopped := chanOf()
	go func() {
		defer close(stopped)
		a.Stop()
	}()
	ended("stopped", failed, nil)
	select {
	case <-stopped:
	case <-time.After(10 * time.Second):
		t.Fatal("the node did not stop")
	}
}

func make2(size int) []byte { return make([]byte, size) }

func streamEarly(t *testing.T, make Factory) {
	a := Start(t, make, 1, nil)
	b := Start(t, make, 2, func(n *Node) {
		n.OnStream = func(_ context.Context, _ uint64, method string, _ []byte, next func() ([]byte, error)) ([]byte, error) {
			if method == "fail" {
				return nil, &transport.Error{Code: 6, Message: "have it"}
			}
			_, err := next()
			return []byte("enough"), err
		}
	})
	Connect(a, b)
	endless := func() ([]byte, error) { return make2(64 << 10), nil }
	if response, err := a.Stream(t.Context(), 2, "m", nil, endless); err != nil || string(response) != "enough" {
		t.Errorf("got %q %v", response, err)
	}
	_, err := a.Stream(t.Context(), 2, "fail", nil, endless)
	if coded, ok := errors.AsType[*transport.Error](err); !ok || coded.Code != 6 {
		t.Errorf("got %v", err)
	}
}

func streamCut(t *testing.T, make Factory) {
	a := Start(t, make, 1, func(n *Node) { n.Config.Limits.FrameBytes = 1 << 20 })
	heard := make1()
	b := Start(t, make, 2, func(n *Node) {
		n.OnStream = func(_ context.Context, _ uint64, _ string, _ []byte, next func() ([]byte, error)) ([]byte, error) {
			for {
				if _, err := next(); err != nil {
					heard <- err
					return nil, err
				}
			}
		}
	})
	Connect(a, b)
	broken := errors.New("disk")
	cut := func(what string, want error, ctx context.Context, source func() ([]byte, error)) {
		t.Helper()
		_, err := a.Stream(ctx, 2, "m", nil, source)
		mustBe(t, err, transport.ErrUnknown)
		if want != nil && !errors.Is(err, want) {
			t.Errorf("%s: Stream returned %v, want %v in it", what, err, want)
		}
		if err := <-heard; errors.Is(err, io.EOF) {
			t.Errorf("%s: the handler took the cut for the end", what)
		}
	}
	failing := func(fail func() ([]byte, error)) func() ([]byte, error) {
		left := chunks(3, 100)
		return func() ([]byte, error) {
			if chunk, err := left(); err == nil {
				return chunk, nil
			}
			return fail()
		}
	}
	cut("source fails", broken, t.Context(), failing(func() ([]byte, error) { return nil, broken }))
	cut("chunk too large", nil, t.Context(), failing(func() ([]byte, error) { return make2(1<<20 + 1), nil }))
	ctx, cancel := context.WithCancel(t.Context())
	cut("cancelled", context.Canceled, ctx, failing(func() ([]byte, error) { cancel(); return []byte("x"), nil }))
}

func streamsLimited(t *testing.T, make Factory) {
	few := func(n *Node) { n.Config.Limits.Streams = 2 }
	a := Start(t, make, 1, few)
	var now atomic.Int32
	release := chanOf()
	b := Start(t, make, 2, func(n *Node) {
		few(n)
		n.OnStream = func(context.Context, uint64, string, []byte, func() ([]byte, error)) ([]byte, error) {
			now.Add(1)
			<-release
			return nil, nil
		}
	})
	Connect(a, b)
	var group sync.WaitGroup
	for range 2 {
		group.Go(func() {
			if _, err := a.Stream(t.Context(), 2, "m", nil, chunks(1, 1)); err != nil {
				t.Errorf("a stream within the limit: %v", err)
			}
		})
	}
	Eventually(t, "two streams under way", func() bool { return now.Load() == 2 })
	_, err := a.Stream(t.Context(), 2, "m", nil, chunks(1, 1))
	mustBe(t, err, transport.ErrUnreachable)
	close(release)
	group.Wait()
}
