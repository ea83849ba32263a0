package cluster_test

import (
	"context"
	"encoding/binary"
	"errors"
	"flag"
	"fmt"
	"hash/fnv"
	"io"
	"log/slog"
	"os"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/perdure/perdure/actor"
	"github.com/perdure/perdure/cluster"
)

var (
	longEntries = flag.Int("long.entries", 4000, "entries of the journal of TestLongJournal; make long has 100,000")
	longBytes   = flag.Int64("long.bytes", 40<<20, "bytes of all results of TestLongJournal; make long has 1 GB")
)

// TestLongJournal: a handler makes very many runs, suspends, and is replayed. What it holds in
// memory does not grow with its journal, and the results are the same.
func TestLongJournal(t *testing.T) {
	countsAttempts(t)
	const batch = 200
	batches := *longEntries / batch
	each := int(*longBytes) / (batches * batch)
	s := newStage(t, cluster.WithDataDir(t.TempDir()), cluster.WithPartitions(1), cluster.WithInactivityTimeout(time.Nanosecond),
		cluster.WithLogger(slog.New(slog.NewTextHandler(io.Discard, nil))))
	defer stopNode(t, s.node)
	var replayed, ran atomic.Int64
	var woken atomic.Pointer[time.Time]
	var waits atomic.Pointer[string]
	name := s.on("long", func(ctx actor.Context) (string, error) {
		if ctx.Attempt() > 1 {
			now := time.Now()
			woken.Store(&now)
		}
		sum := fnv.New64a()
		var first actor.Future[*wrapperspb.BytesValue]
		for number := range batches {
			var runs []actor.Future[*wrapperspb.BytesValue]
			for i := range batch {
				runs = append(runs, actor.RunAsync(ctx, "produce", func(context.Context) (*wrapperspb.BytesValue, error) {
					ran.Add(1)
					data := make([]byte, each)
					binary.BigEndian.PutUint64(data, uint64(number*batch+i))
					return wrapperspb.Bytes(data), nil
				}))
			}
			if first == nil {
				first = runs[0]
			}
			for _, run := range runs {
				got, err := run.Await(ctx)
				if err != nil {
					return "", err
				}
				sum.Write(got.GetValue()) //nolint:errcheck // of a hash
			}
		}
		text := fmt.Sprint(sum.Sum64())
		replayed.Store(time.Now().UnixNano())
		wake := actor.NewAwakeable[*mixin](ctx)
		id := wake.ID()
		waits.Store(&id)
		if _, err := wake.Await(ctx); err != nil {
			return "", err
		}
		again, err := first.Await(ctx) // long forgotten by now
		if err != nil || len(again.GetValue()) != each {
			return "", errors.Join(err, fmt.Errorf("the first result has %d bytes", len(again.GetValue())))
		}
		return text, nil
	})
	before, peak := heap(), newPeak()
	began := time.Now()
	flow, err := s.send(t.Context(), s.things.Methods[keep], "k", name)
	s.must(nil, err)
	for s.status(flow.ID()) != "INVOCATION_STATUS_SUSPENDED" {
		time.Sleep(10 * time.Millisecond)
	}
	took := time.Since(began)
	s.must(nil, actor.ResolveAwakeable(t.Context(), s.client, *waits.Load(), &mixin{}))
	got, err := s.attach(flow)
	if err != nil || got == "" {
		t.Fatalf("got %q, %v", got, err)
	}
	replay := time.Unix(0, replayed.Load()).Sub(*woken.Load())
	if runs := int(ran.Load()); runs != batches*batch {
		t.Errorf("%d runs were made, want %d: a replay makes none", runs, batches*batch)
	}
	t.Logf("%d entries, %d MB of results: recorded in %s, replayed in %s (%.0f entries/s, %.0f MB/s); heap %d MB before, %d MB at most; resident %d MB at most",
		batches*batch, *longBytes>>20, took.Round(time.Millisecond), replay.Round(time.Millisecond), float64(batches*batch)/replay.Seconds(),
		float64(*longBytes>>20)/replay.Seconds(), before>>20, peak.stop()>>20, resident()>>20)
	status, body := s.post("/perdure.admin.v1.AdminService/GetInvocation", fmt.Sprintf(`{"invocationId":%q,"pageSize":10,"pageToken":"%d"}`, flow.ID(), batches*batch-5))
	if status != 200 || strings.Count(body, `"index"`) != 6 {
		t.Errorf("the end of the journal: %d %s", status, body)
	}
}

// status of an invocation as the admin service says it.
func (s *stage) status(id string) string {
	s.t.Helper()
	code, body := s.post("/perdure.admin.v1.AdminService/GetInvocation", fmt.Sprintf(`{"invocationId":%q,"pageSize":1}`, id))
	if code != 200 {
		s.t.Fatalf("status of %s: %d %s", id, code, body)
	}
	_, text, _ := strings.Cut(body, `"status":"`)
	text, _, _ = strings.Cut(text, `"`)
	return text
}

func heap() uint64 {
	var stats runtime.MemStats
	runtime.ReadMemStats(&stats)
	return stats.HeapInuse
}

// peak is the most the heap had.
type peak struct {
	done chan struct{}
	most chan uint64
}

func newPeak() *peak {
	p := &peak{make(chan struct{}), make(chan uint64)}
	go func() {
		most := heap()
		for {
			select {
			case <-p.done:
				p.most <- most
				return
			case <-time.After(200 * time.Millisecond):
				most = max(most, heap())
			}
		}
	}()
	return p
}

func (p *peak) stop() uint64 {
	close(p.done)
	return <-p.most
}

// resident is the most physical memory that the process had, 0 if nobody knows.
func resident() (bytes int64) {
	data, err := os.ReadFile("/proc/self/status")
	if err != nil {
		return 0
	}
	for line := range strings.Lines(string(data)) {
		if text, ok := strings.CutPrefix(line, "VmHWM:"); ok {
			_, _ = fmt.Sscanf(strings.TrimSpace(text), "%d", &bytes)
		}
	}
	return bytes << 10
}

var resultBytes = flag.Int64("long.result", 0, "bytes of the result of TestLargestResult, which is skipped without; make long has 512 MiB")

// TestLargestResult says what one large result costs: to record it, to replay it, and in memory.
func TestLargestResult(t *testing.T) {
	if *resultBytes == 0 {
		t.Skip("for make long: it takes as much memory as the machine of a test may not have")
	}
	s := newStage(t, cluster.WithDataDir(t.TempDir()), cluster.WithPartitions(1), cluster.WithInactivityTimeout(time.Nanosecond))
	defer stopNode(t, s.node)
	var ran, returned, recorded, began, replayed time.Time
	var most [2]uint64
	var awakeable string
	name := s.on("large", func(ctx actor.Context) (string, error) {
		began = time.Now()
		peak := newPeak()
		got, err := actor.Run(ctx, "download", func(context.Context) (*wrapperspb.BytesValue, error) {
			ran = time.Now()
			data := make([]byte, *resultBytes)
			for i := 0; i < len(data); i += 64 {
				binary.BigEndian.PutUint64(data[i:], uint64(i))
			}
			returned = time.Now()
			return wrapperspb.Bytes(data), nil
		})
		if err != nil {
			return "", err
		}
		if ctx.Attempt() == 1 {
			recorded, most[0] = time.Now(), peak.stop()
		} else {
			replayed, most[1] = time.Now(), peak.stop()
		}
		if len(got.GetValue()) != int(*resultBytes) || binary.BigEndian.Uint64(got.GetValue()[len(got.GetValue())-64:]) != uint64(len(got.GetValue())-64) {
			return "", fmt.Errorf("the value has %d bytes that are others", len(got.GetValue()))
		}
		wake := actor.NewAwakeable[*mixin](ctx)
		awakeable = wake.ID()
		_, err = wake.Await(ctx)
		return "done", err
	})
	before := heap()
	flow, err := s.send(t.Context(), s.things.Methods[keep], "k", name)
	s.must(nil, err)
	for s.status(flow.ID()) != "INVOCATION_STATUS_SUSPENDED" {
		time.Sleep(10 * time.Millisecond) // polling a real node; make long has no timeout
	}
	after := resident()
	s.must(nil, actor.ResolveAwakeable(t.Context(), s.client, awakeable, &mixin{}))
	if got, err := s.attach(flow); got != "done" || err != nil {
		t.Fatal(got, err)
	}
	t.Logf("%d MB: made in %s, recorded in %s, read in a replay in %s; heap %d MB before, %d MB at most while it was recorded and %d MB while it was replayed; resident %d MB at most, %d MB until it was suspended",
		*resultBytes>>20, returned.Sub(ran).Round(time.Millisecond), recorded.Sub(returned).Round(time.Millisecond), replayed.Sub(began).Round(time.Millisecond),
		before>>20, most[0]>>20, most[1]>>20, resident()>>20, after>>20)
}
