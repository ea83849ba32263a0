// Command sleepers measures what invocations cost that sleep: a million of them on one node, each
// suspended until its timer wakes it.
//
//	go run ./bench/cmd/sleepers -count 1000000 -after 10m -spread 5m
//
// It reports how fast they are made, what memory and disk they take while they sleep, and how
// many wake in a second and how late.
package main

import (
	"bytes"
	"context"
	"errors"
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

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"

	"github.com/perdure/perdure/actor"
	"github.com/perdure/perdure/cluster"
	shopv1 "github.com/perdure/perdure/examples/orders/gen/shop/v1"
	"github.com/perdure/perdure/examples/orders/gen/shop/v1/shopv1perdure"
	adminv1 "github.com/perdure/perdure/proto/perdure/admin/v1"
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
	if n := s.woken.Add(1); int(n) <= len(s.late) {
		s.late[n-1] = int32(now.Sub(until).Milliseconds())
	}
	s.last.Store(now.UnixNano())
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
	handler := &sleeper{late: make([]int32, count), until: func(key string) time.Time {
		number, _ := strconv.Atoi(key)
		return began.Add(after + time.Duration(float64(spread)*float64(number)/float64(count)))
	}}
	node := cluster.NewNode(cluster.WithDataDir(dir), cluster.WithListen("127.0.0.1:0"), cluster.WithInactivityTimeout(time.Nanosecond), cluster.WithRetention(time.Hour),
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
	deadline := began.Add(after + spread + 30*time.Minute)
	for int(handler.woken.Load()) < count {
		if time.Now().After(deadline) {
			return fmt.Errorf("only %d of %d woke", handler.woken.Load(), count)
		}
		time.Sleep(10 * time.Millisecond)
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

// settle waits until all are asleep and the store has what they wrote: until no invocation has
// anything to do and no partition applies records any more.
func settle(node string, deadline time.Time) error {
	for {
		time.Sleep(100 * time.Millisecond) // polling
		if time.Now().After(deadline) {
			return errors.New("the last ones are not asleep when the first ones wake: raise -after")
		}
		busy, err := anyBusy(node)
		if err != nil {
			return err
		}
		if busy {
			continue
		}
		before, err := applied(node)
		if err != nil {
			return err
		}
		time.Sleep(300 * time.Millisecond) // far longer than a batch takes
		after, err := applied(node)
		if err != nil {
			return err
		}
		if slices.Equal(before, after) {
			return nil
		}
	}
}

// anyBusy reports whether an invocation is neither asleep nor done.
func anyBusy(node string) (bool, error) {
	request := &adminv1.ListInvocationsRequest{PageSize: 1, Status: []adminv1.InvocationStatus{
		adminv1.InvocationStatus_INVOCATION_STATUS_SCHEDULED, adminv1.InvocationStatus_INVOCATION_STATUS_QUEUED,
		adminv1.InvocationStatus_INVOCATION_STATUS_RUNNING, adminv1.InvocationStatus_INVOCATION_STATUS_BACKING_OFF,
	}}
	for {
		found := &adminv1.ListInvocationsResponse{}
		if err := call(node, "ListInvocations", request, found); err != nil {
			return false, err
		}
		if len(found.GetInvocations()) > 0 || found.GetNextPageToken() == "" {
			return len(found.GetInvocations()) > 0, nil
		}
		request.PageToken = found.GetNextPageToken()
	}
}

// applied are the indexes of the last records in the store, by partition.
func applied(node string) ([]uint64, error) {
	found := &adminv1.GetNodeResponse{}
	err := call(node, "GetNode", &adminv1.GetNodeRequest{}, found)
	var indexes []uint64
	for _, partition := range found.GetPartitions() {
		indexes = append(indexes, partition.GetAppliedIndex())
	}
	return indexes, err
}

// call calls an rpc of the node's AdminService.
func call(node, name string, in, out proto.Message) error {
	body, err := protojson.Marshal(in)
	if err != nil {
		return err
	}
	response, err := http.Post(node+"/perdure.admin.v1.AdminService/"+name, "application/json", bytes.NewReader(body)) //nolint:noctx // the process ends with it
	if err != nil {
		return err
	}
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	if err == nil && response.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s: %s %s", name, response.Status, text)
	}
	if err != nil {
		return err
	}
	return protojson.UnmarshalOptions{DiscardUnknown: true}.Unmarshal(text, out)
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
