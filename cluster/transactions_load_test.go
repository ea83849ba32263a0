package cluster_test

import (
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/perdure/perdure/actor"
	"github.com/perdure/perdure/cluster"
)

// move is a script that takes one from a thing and gives it to another.
func (s *stage) move(from, to string) string {
	return s.on(from+" to "+to, func(ctx actor.Context) (string, error) {
		if _, err := s.do(ctx, from, "add -1"); err != nil {
			return "", err
		}
		_, err := s.do(ctx, to, "add 1")
		return fmt.Sprint(ctx.Attempt()), err
	})
}

// TestTransactionHotKeys: 64 callers want two things in opposite orders, and sums of both are
// taken beside them. Everybody gets through, no sum is torn, and none is ever run again.
func TestTransactionHotKeys(t *testing.T) {
	for name, opts := range map[string][]cluster.Option{
		"several partitions": {cluster.WithPartitions(8)}, "one partition": {cluster.WithPartitions(1)},
	} {
		t.Run(name, func(t *testing.T) {
			s := newStage(t, append(opts, cluster.WithInMemory())...)
			moves := []string{s.move("hot-a", "hot-b"), s.move("hot-b", "hot-a")}
			end := time.Now().Add(2 * time.Second)
			if testing.Short() {
				end = time.Now().Add(200 * time.Millisecond)
			}
			var all sync.WaitGroup
			var made, tries, sums atomic.Int64
			var net [64]int64
			var slowest [64 + 4]time.Duration
			for caller := range 64 {
				all.Go(func() {
					for n := caller; time.Now().Before(end) && !t.Failed(); n++ {
						began := time.Now()
						attempt, err := s.batch(t.Context(), moves[n%2])
						slowest[caller] = max(slowest[caller], time.Since(began))
						if err != nil {
							t.Errorf("caller %d: %v", caller, err)
							return
						}
						var tried int64
						if _, err := fmt.Sscan(attempt, &tried); err != nil {
							t.Error(err)
						}
						made.Add(1)
						tries.Add(tried)
						net[caller] += int64(1 - 2*(n%2))
					}
				})
			}
			for reader := range 4 {
				all.Go(func() {
					for time.Now().Before(end) && !t.Failed() {
						began := time.Now()
						if total, err := s.total(t.Context(), []string{"hot-a", "hot-b"}); err != nil || total != 0 {
							t.Errorf("a total: %d, %v", total, err)
						}
						slowest[64+reader] = max(slowest[64+reader], time.Since(began))
						sums.Add(1)
					}
				})
			}
			all.Wait()
			var moved int64
			var slowestMove, slowestSum time.Duration
			for caller := range 64 {
				moved += net[caller]
				slowestMove = max(slowestMove, slowest[caller])
			}
			for reader := range 4 {
				slowestSum = max(slowestSum, slowest[64+reader])
			}
			s.values(fmt.Sprintf("hot-a=%d hot-b=%d", -moved, moved))
			s.free("hot-a", "hot-b")
			t.Logf("%d moves in %d tries, the slowest took %s; %d sums, the slowest took %s; wound %d, blocked %d, lost %d, other %d",
				made.Load(), tries.Load(), slowestMove, sums.Load(), slowestSum, s.retries("wound"), s.retries("blocked"), s.retries("lost"), s.retries("other"))
		})
	}
}

// TestTransactionTotals: money on the move between many things, and never a sum that is torn or
// run again.
func TestTransactionTotals(t *testing.T) {
	s := newStage(t, cluster.WithPartitions(8), cluster.WithInMemory())
	keys := hundred()[:10]
	for _, key := range keys {
		s.must(s.do(t.Context(), key, "add 100"))
	}
	var stop atomic.Bool
	var all sync.WaitGroup
	for caller := range 16 {
		all.Go(func() {
			for n := 0; !stop.Load(); n++ {
				from := (caller + n) % len(keys)
				to := (from + 1 + n%(len(keys)-1)) % len(keys)
				s.must(s.batch(t.Context(), s.move(keys[from], keys[to])))
			}
		})
	}
	for range 300 {
		if total, err := s.total(t.Context(), keys); err != nil || total != 1000 {
			t.Fatalf("total %d, %v", total, err)
		}
	}
	stop.Store(true)
	all.Wait()
}

// TestTransactionReadAfterAnswer: whoever was answered sees what was answered, with the real
// log and store, and so does the next process.
func TestTransactionReadAfterAnswer(t *testing.T) {
	dir := t.TempDir()
	s := newStage(t, cluster.WithDataDir(dir), cluster.WithPartitions(8))
	const callers, each = 8, 50
	var all sync.WaitGroup
	for caller := range callers {
		all.Go(func() {
			from, to := fmt.Sprint("from-", caller), fmt.Sprint("to-", caller)
			move := s.move(from, to)
			for n := 1; n <= each; n++ {
				s.must(s.batch(t.Context(), move))
				var both sync.WaitGroup
				both.Go(func() { s.values(fmt.Sprintf("%s=%d", from, -n)) })
				both.Go(func() { s.values(fmt.Sprintf("%s=%d", to, n)) })
				both.Wait()
			}
		})
	}
	all.Wait()
	stopNode(t, s.node)
	again := newStage(t, cluster.WithDataDir(dir))
	for caller := range callers {
		again.values(fmt.Sprintf("from-%d=%d to-%d=%d", caller, -each, caller, each))
		again.free(fmt.Sprint("from-", caller), fmt.Sprint("to-", caller))
	}
}
