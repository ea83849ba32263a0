package partition

import (
	"context"
	"fmt"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/perdure/perdure/cluster/replica"
	"github.com/perdure/perdure/internal/invocation"
	"github.com/perdure/perdure/internal/invoker"
	recordv1 "github.com/perdure/perdure/internal/record/v1"
	"github.com/perdure/perdure/storage"
	"github.com/perdure/perdure/storage/badgerstore"
	"github.com/perdure/perdure/storage/nodelog"
)

// adder is an invoker whose TRANSACTION adds its input to the state and returns the sum, and
// whose READ returns the state.
type adder struct{}

func (adder) Start(a *invoker.Attempt) invoker.Running {
	n, _ := strconv.Atoi(string(a.Input))
	sum, _ := strconv.Atoi(string(a.State))
	value := []byte(strconv.Itoa(sum + n))
	a.Host.Finish(a, &invoker.Outcome{
		Result:  &recordv1.Result{Value: value},
		Entries: []*recordv1.Entry{{Entry: &recordv1.Entry_SetState{SetState: &recordv1.SetState{Value: value}}}},
	})
	return adder{}
}

func (adder) Read(_ context.Context, r *invoker.Read) *recordv1.Result {
	return &recordv1.Result{Value: r.State}
}

func (adder) Notify(uint32, *recordv1.Completion) {}
func (adder) Cancel()                             {}
func (adder) Abort(error)                         {}

func request(key string, n int, mode invocation.Mode) *recordv1.Invoke {
	t := invocation.Target{Service: "bench.v1.CounterService", Key: key, Handler: "Add"}
	id := invocation.NewID(t.Hash(), uuid.Must(uuid.NewV7()))
	return &recordv1.Invoke{
		InvocationId: id[:], Target: &recordv1.Target{Service: t.Service, Key: t.Key, Handler: t.Handler},
		Mode: uint32(mode), Input: []byte(strconv.Itoa(n)),
	}
}

// node is a router over a real log and store in a directory.
type node struct {
	*Router
	stop func()
}

func startNode(t testing.TB, dir string, partitions uint32, inv invoker.Invoker) *node {
	t.Helper()
	log, err := nodelog.Open(nodelog.Options{Dir: dir + "/log", MinFreeBytes: -1})
	if err != nil {
		t.Fatal(err)
	}
	store, err := badgerstore.Open(badgerstore.Options{Dir: dir + "/store"})
	if err != nil {
		t.Fatal(err)
	}
	return startOn(t, log, store, partitions, inv, func() {
		if err := store.Close(); err != nil {
			t.Error(err)
		}
		if err := log.Close(); err != nil {
			t.Error(err)
		}
	})
}

func startOn(t testing.TB, log replica.Log, store storage.Store, partitions uint32, inv invoker.Invoker, closed func()) *node {
	t.Helper()
	var groups []replica.GroupID
	for id := range partitions {
		groups = append(groups, replica.GroupID(id+1))
	}
	host, err := replica.Open(replica.Config{Log: log, Store: store, NodeID: 1, Groups: groups, Found: true})
	if err != nil {
		t.Fatal(err)
	}
	router, err := NewRouter(Config{Invoker: inv, Partitions: partitions}, func(id uint32, p *Partition) Group {
		return host.Attach(replica.GroupID(id), p)
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	var all sync.WaitGroup
	all.Go(func() {
		if err := host.Run(ctx); err != nil {
			t.Errorf("host: %v", err)
		}
	})
	all.Go(func() { _ = router.Run(ctx) })
	n := &node{Router: router, stop: func() { cancel(); all.Wait(); closed() }}
	ready, stopWaiting := context.WithTimeout(ctx, 30*time.Second)
	defer stopWaiting()
	if err := router.Ready(ready); err != nil {
		n.stop()
		t.Fatal(err)
	}
	return n
}

func TestCallsAreAppliedOnceInOrderAndSurviveRestart(t *testing.T) {
	dir := t.TempDir()
	const keys, callers, each = 5, 8, 50
	n := startNode(t, dir, 4, adder{})
	var all sync.WaitGroup
	seen := make([]map[string]bool, keys)
	var mu sync.Mutex
	for c := range callers {
		all.Go(func() {
			for i := range each {
				key := (c + i) % keys
				res, err := n.Call(t.Context(), request(fmt.Sprint("k", key), 1, invocation.ModeTransaction))
				if err != nil {
					t.Error(err)
					return
				}
				mu.Lock()
				if seen[key] == nil {
					seen[key] = map[string]bool{}
				}
				if seen[key][string(res.Value)] {
					t.Errorf("key %d: the sum %s was returned twice", key, res.Value)
				}
				seen[key][string(res.Value)] = true
				mu.Unlock()
			}
		})
	}
	all.Wait()
	n.stop()
	n = startNode(t, dir, 4, adder{})
	defer n.stop()
	for key := range keys {
		res, err := n.Read(t.Context(), request(fmt.Sprint("k", key), 0, invocation.ModeRead))
		if err != nil {
			t.Fatal(err)
		}
		if want := strconv.Itoa(len(seen[key])); string(res.Value) != want {
			t.Errorf("key %d after restart: %s, want %s", key, res.Value, want)
		}
	}
}

func BenchmarkAdd(b *testing.B) {
	for _, callers := range []int{1, 64, 256} {
		for _, keys := range []int{1, 1000} {
			b.Run(fmt.Sprintf("callers=%d/keys=%d", callers, keys), func(b *testing.B) {
				n := startNode(b, b.TempDir(), 64, adder{})
				defer n.stop()
				b.ResetTimer()
				b.ReportAllocs()
				work := make(chan int, b.N)
				for i := range b.N {
					work <- i
				}
				close(work)
				var all sync.WaitGroup
				for range callers {
					all.Go(func() {
						for i := range work {
							if _, err := n.Call(context.Background(), request(fmt.Sprint("k", i%keys), 1, invocation.ModeTransaction)); err != nil {
								b.Error(err)
								return
							}
						}
					})
				}
				all.Wait()
				b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "calls/s")
			})
		}
	}
}
