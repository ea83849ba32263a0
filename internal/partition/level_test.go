package partition

import (
	"context"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"

	"github.com/perdure/perdure/internal/invocation"
)

// TestNoncesWaitForTheLastNode: while a node of the cluster may refuse ids of awakeables with a nonce, none
// are made. Then those of a run have its nonce, in each attempt.
func TestNoncesWaitForTheLastNode(t *testing.T) {
	var level atomic.Uint32
	level.Store(NonceLevel - 1)
	inv := &manual{}
	withPartition(t, inv, func(t *testing.T, r *Router, g *fakeGroup) {
		g.lead()
		var all sync.WaitGroup
		defer all.Wait()
		all.Go(func() {
			if _, err := r.Send(context.Background(), request("k", 1, invocation.ModeDurable)); err != nil {
				t.Error(err)
			}
		})
		synctest.Wait()
		g.commit()
		for i := range 3 {
			synctest.Wait()
			a := inv.attempt(i)
			if a == nil {
				t.Fatalf("attempt %d was not started", i)
			}
			var want uint64
			if level.Load() == NonceLevel {
				want = a.ID.Nonce(a.StartedAt.UnixMilli())
			}
			if a.Nonce != want || !a.StartedAt.Equal(inv.attempt(0).StartedAt) {
				t.Errorf("at level %d the nonce is %d, not %d", level.Load(), a.Nonce, want)
			}
			level.Store(NonceLevel)
			g.stepDown()
			g.lead()
		}
	}, func(c *Config) { c.WrittenLevel = level.Load })
}
