package transport_test

import (
	"bytes"
	"context"
	"io"
	"log/slog"
	"net"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"github.com/perdure/perdure/cluster/transport"
)

// reports adds the median and the 99th percentile of what one operation took.
func reports(b *testing.B, took []time.Duration) {
	slices.Sort(took)
	b.ReportMetric(float64(took[len(took)/2].Nanoseconds())/1e3, "p50-µs")
	b.ReportMetric(float64(took[len(took)*99/100].Nanoseconds())/1e3, "p99-µs")
}

// BenchmarkFloor is a bare TCP ping-pong of 256 bytes.
func BenchmarkFloor(b *testing.B) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	defer listener.Close()
	go func() {
		conn, err := listener.Accept()
		if err != nil {
			return
		}
		defer conn.Close()
		message := make([]byte, 256)
		for {
			if _, err := io.ReadFull(conn, message); err != nil {
				return
			}
			if _, err := conn.Write(message); err != nil {
				return
			}
		}
	}()
	conn, err := net.Dial("tcp", listener.Addr().String())
	if err != nil {
		b.Fatal(err)
	}
	defer conn.Close()
	message := make([]byte, 256)
	var took []time.Duration
	for b.Loop() {
		started := time.Now()
		if _, err := conn.Write(message); err != nil {
			b.Fatal(err)
		}
		if _, err := io.ReadFull(conn, message); err != nil {
			b.Fatal(err)
		}
		took = append(took, time.Since(started))
	}
	reports(b, took)
}

type benchHandler struct {
	frames chan []byte
	count  atomic.Int64
}

func (h *benchHandler) Frame(_ uint64, kind uint8, frame []byte) {
	if kind == 0 {
		h.frames <- frame
		return
	}
	h.count.Add(1)
}

func (*benchHandler) Call(_ context.Context, _ uint64, _ string, request []byte) ([]byte, error) {
	return request, nil
}

func (*benchHandler) Stream(_ context.Context, _ uint64, _ string, _ []byte, next func() ([]byte, error)) ([]byte, error) {
	for {
		if _, err := next(); err != nil {
			return nil, nil
		}
	}
}

// pair starts two connected transports.
func pair(b *testing.B) (from *transport.Transport, handler *benchHandler) {
	ctx, cancel := context.WithCancel(b.Context())
	done := make(chan error, 2)
	addresses := map[uint64]string{}
	var both []*transport.Transport
	for id := range uint64(2) {
		handler = &benchHandler{frames: make(chan []byte, 1)}
		t, err := transport.New(transport.Config{NodeID: id + 1, ClusterID: "c", Listen: "127.0.0.1:0", Handler: handler, Logger: slog.New(slog.DiscardHandler)})
		if err != nil {
			b.Fatal(err)
		}
		if err := t.Listen(ctx); err != nil {
			b.Fatal(err)
		}
		addresses[id+1] = t.Addr().String()
		both = append(both, t)
		go func() { done <- t.Run(ctx) }()
	}
	b.Cleanup(func() {
		cancel()
		for range both {
			if err := <-done; err != nil {
				b.Error(err)
			}
		}
	})
	for _, t := range both {
		<-t.Ready()
		t.SetAddresses(addresses)
	}
	both[0].Send(2, 0, nil)
	<-handler.frames
	if _, err := both[0].Call(ctx, 2, "m", nil); err != nil {
		b.Fatal(err)
	}
	return both[0], handler
}

// BenchmarkCall is one call of 256 bytes after another.
func BenchmarkCall(b *testing.B) {
	from, _ := pair(b)
	request := make([]byte, 256)
	var took []time.Duration
	b.ReportAllocs()
	for b.Loop() {
		started := time.Now()
		if _, err := from.Call(b.Context(), 2, "m", request); err != nil {
			b.Fatal(err)
		}
		took = append(took, time.Since(started))
	}
	reports(b, took)
}

// BenchmarkCallParallel has 64 callers.
func BenchmarkCallParallel(b *testing.B) {
	from, _ := pair(b)
	request := make([]byte, 256)
	b.SetParallelism(32)
	b.ReportAllocs()
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			if _, err := from.Call(b.Context(), 2, "m", request); err != nil {
				b.Error(err)
				return
			}
		}
	})
}

// BenchmarkSend is one frame of 256 bytes until its handler has it, on an idle connection.
func BenchmarkSend(b *testing.B) {
	from, handler := pair(b)
	var took []time.Duration
	b.ReportAllocs()
	for b.Loop() {
		frame := make([]byte, 256)
		started := time.Now()
		from.Send(2, 0, frame)
		<-handler.frames
		took = append(took, time.Since(started))
	}
	reports(b, took)
}

// BenchmarkSendMany is the cost of a frame of 256 bytes among as many as can be sent.
func BenchmarkSendMany(b *testing.B) {
	from, handler := pair(b)
	b.ReportAllocs()
	b.SetBytes(256)
	var sent int64
	for b.Loop() {
		from.Send(2, 1, make([]byte, 256))
		for sent++; sent-handler.count.Load() > 50_000; {
			time.Sleep(100 * time.Microsecond)
		}
	}
	for handler.count.Load() < sent {
		time.Sleep(100 * time.Microsecond)
	}
}

// BenchmarkStream is a chunk of 256 KiB of a long stream.
func BenchmarkStream(b *testing.B) {
	from, _ := pair(b)
	chunk := bytes.Repeat([]byte{1}, 256<<10)
	b.SetBytes(int64(len(chunk)))
	left := b.N
	if _, err := from.Stream(b.Context(), 2, "m", nil, func() ([]byte, error) {
		if left == 0 {
			return nil, io.EOF
		}
		left--
		return chunk, nil
	}); err != nil {
		b.Fatal(err)
	}
}
