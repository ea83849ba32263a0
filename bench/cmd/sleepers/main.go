// Command sleepers measures what invocations cost that sleep: a million of them on one node, each
// suspended until its timer wakes it.
//
//	go run ./bench/cmd/sleepers -count 1000000 -after 5m -spread 5m
//
// It reports how fast they are made, what memory and disk they take while they sleep, and how
// many wake in a second and how late.
package main

import (
	"context"
	"flag"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"runtime/pprof"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/perdure/perdure/actor"
	"github.com/perdure/perdure/cluster"
	shopv1 "github.com/perdure/perdure/examples/orders/gen/shop/v1"
	"github.com/perdure/perdure/examples/orders/gen/shop/v1/shopv1perdure"
)

func main() {
	count := flag.Int("count", 100_000, "sleepers")
	callers := flag.Int("callers", 256, "callers that make them")
	after := flag.Duration("after", time.Minute, "when the first one wakes, from the start: making them must take less")
	spread := flag.Duration("spread", 0, "time over which they wake; 0: all at one instant")
	dir := flag.String("dir", "", "where the data goes; a temporary directory if empty")
	profile := flag.String("cpuprofile", "", "where to write a CPU profile of the time in which they wake")
	flag.Parse()
	if err := run(*count, *callers, *after, *spread, *dir, *profile); err != nil {
		fmt.Fprintln(os.Stderr, "sleepers:", err)
		os.Exit(1)
	}
}

// sleeper is a workflow that sleeps until its own instant.
type sleeper struct {
	shopv1perdure.UnimplementedOrderHandler
	until func(key string) time.Time
	// late is by how many milliseconds each woke too late.
	late  []int32
	first atomic.Int64
	woken atomic.Int64
	last  atomic.Int64
	// all is closed when the last one has woken.
	all chan struct{}
}

// Run implements shopv1perdure.OrderHandler.
func (s *sleeper) Run(ctx shopv1perdure.OrderRunContext, _ *shopv1.RunRequest) (*shopv1.RunResponse, error) {
	until := s.until(ctx.Key())
	if err := actor.Sleep(ctx, until.Sub(ctx.Now())); err != nil {
		return nil, err
	}
	//perdurevet:ignore clock how late it really is, which is what is measured; no step depends on it
	now := time.Now()
	s.first.CompareAndSwap(0, now.UnixNano())
	n := int(s.woken.Add(1))
	if n <= len(s.late) {
		//perdurevet:ignore global the measurement is the process's; a replay would count as one more
		s.late[n-1] = int32(now.Sub(until).Milliseconds())
	}
	s.last.Store(now.UnixNano())
	if n == len(s.late) {
		close(s.all)
	}
	return &shopv1.RunResponse{}, nil
}

func run(count, callers int, after, spread time.Duration, dir, profile string) error {
	if dir == "" {
		var err error
		if dir, err = os.MkdirTemp("", "perdure-sleepers-"); err != nil {
			return err
		}
		defer os.RemoveAll(dir)
	}
	began := time.Now()
	handler := &sleeper{late: make([]int32, count), all: make(chan struct{}), until: func(key string) time.Time {
		number, _ := strconv.Atoi(key)
		return began.Add(after + time.Duration(float64(spread)*float64(number)/float64(count)))
	}}
	node := cluster.NewNode(cluster.WithTelemetry(cluster.Telemetry{Prometheus: true}),
		cluster.WithDataDir(dir), cluster.WithListen("127.0.0.1:0"), cluster.WithInactivityTimeout(time.Nanosecond), cluster.WithRetention(time.Hour),
		cluster.WithLogger(slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelWarn}))))
	shopv1perdure.RegisterOrderHandler(node, handler)
	if err := node.Start(context.Background()); err != nil {
		return err
	}
	defer func() { _ = node.Shutdown(context.Background()) }()
	runtime.GC()
	before := heap()
	client := node.Client()
	if err := each(count, callers, func(ctx context.Context, i int) error {
		_, err := shopv1perdure.Order(client, strconv.Itoa(i)).RunSend(ctx, &shopv1.RunRequest{})
		return err
	}); err != nil {
		return err
	}
	took := time.Since(began)
	fmt.Printf("made: %d in %.1f s, %.0f a second\n", count, took.Seconds(), float64(count)/took.Seconds())
	if err := settle(node.URL(), began.Add(after)); err != nil {
		return err
	}
	runtime.GC()
	fmt.Printf("asleep: heap %d MiB before, %d MiB now (%d bytes each); resident %d MiB; on disk %d MiB (%d bytes each); %d goroutines\n",
		before>>20, heap()>>20, max(int64(heap())-int64(before), 0)/int64(count), resident()>>20, size(dir)>>20, size(dir)/int64(count), runtime.NumGoroutine())
	if early := handler.woken.Load(); early > 0 {
		return fmt.Errorf("%d woke before all were made: raise -after", early)
	}
	if profile != "" {
		time.Sleep(time.Until(began.Add(after)))
		stop, err := profiled(profile)
		if err != nil {
			return err
		}
		defer stop()
	}
	select {
	case <-handler.all:
	case <-time.After(time.Until(began.Add(after + spread + 30*time.Minute))):
		return fmt.Errorf("only %d of %d woke", handler.woken.Load(), count)
	}
	woke := time.Duration(handler.last.Load() - handler.first.Load())
	slices.Sort(handler.late)
	at := func(share float64) int32 { return handler.late[min(int(share*float64(count)), count-1)] }
	fmt.Printf("woken: %d in %.1f s, %.0f a second; late by %d ms (median), %d ms (99 %%), %d ms (most); resident %d MiB\n",
		count, woke.Seconds(), float64(count)/woke.Seconds(), at(0.5), at(0.99), at(1), resident()>>20)
	return nil
}

// profiled records what the CPU does until stop is called.
func profiled(path string) (stop func(), err error) {
	file, err := os.Create(path)
	if err != nil {
		return nil, err
	}
	if err := pprof.StartCPUProfile(file); err != nil {
		return nil, err
	}
	return func() {
		pprof.StopCPUProfile()
		_ = file.Close()
	}, nil
}

// settle waits until all are asleep and the store has what they wrote. The node says so itself: all
// starts are acknowledged, so what is not asleep is in memory, and what is not in the store is in the
// overlay or the backlog. Two looks must agree, since a record may be on its way between the two.
func settle(node string, deadline time.Time) error {
	for quiet := 0; quiet < 2; time.Sleep(50 * time.Millisecond) { // How often to ask, no guess of how long it takes.
		levels, err := measure(node)
		if err != nil {
			return err
		}
		quiet++
		for _, name := range unsettled {
			level, ok := levels[name]
			if ok && level == 0 {
				continue
			}
			if quiet = 0; time.Now().After(deadline) {
				return fmt.Errorf("when the first ones wake, %s is %d and not 0: not all are asleep and in the store; raise -after", name, level)
			}
		}
	}
	return nil
}

// unsettled are 0 once all that was made is asleep and in the store.
var unsettled = []string{
	"perdure_invocations_live", "perdure_attempts_running", "perdure_outbox_unacknowledged", "perdure_backlog_size_bytes", "perdure_overlay_size_bytes",
}

// measure is what the node says of itself now, by the names of its metrics. What it was too busy to
// say is not there.
func measure(node string) (map[string]int64, error) {
	response, err := http.Get(node + "/metrics") //nolint:noctx // the process ends with it
	if err != nil {
		return nil, err
	}
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	levels := map[string]int64{}
	for line := range strings.Lines(string(text)) {
		name, value, _ := strings.Cut(strings.TrimSpace(line), " ")
		if level, err := strconv.ParseFloat(value, 64); err == nil {
			levels[name] = int64(level)
		}
	}
	return levels, err
}

// each calls fn for 0 to count-1 from many goroutines, and returns the first error.
func each(count, callers int, fn func(ctx context.Context, i int) error) error {
	ctx, cancel := context.WithCancelCause(context.Background())
	defer cancel(nil)
	var next atomic.Int64
	var all sync.WaitGroup
	for range callers {
		all.Go(func() {
			for i := int(next.Add(1)) - 1; i < count && ctx.Err() == nil; i = int(next.Add(1)) - 1 {
				if err := fn(ctx, i); err != nil {
					cancel(err)
				}
			}
		})
	}
	all.Wait()
	return context.Cause(ctx)
}

func heap() uint64 {
	var stats runtime.MemStats
	runtime.ReadMemStats(&stats)
	return stats.HeapAlloc
}

func resident() int64 {
	status, _ := os.ReadFile("/proc/self/status")
	for line := range strings.SplitSeq(string(status), "\n") {
		if value, ok := strings.CutPrefix(line, "VmRSS:"); ok {
			kib, _ := strconv.ParseInt(strings.Fields(value)[0], 10, 64)
			return kib << 10
		}
	}
	return 0
}

// size is what the files below dir occupy.
func size(dir string) (total int64) {
	_ = filepath.WalkDir(dir, func(_ string, entry fs.DirEntry, err error) error {
		if err == nil && entry.Type().IsRegular() {
			if info, err := entry.Info(); err == nil {
				total += info.Size()
			}
		}
		return nil
	})
	return total
}
