package replica

import (
	"errors"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/perdure/perdure/storage"
)

// A leadership that is on its way to a node which stops to be a voter meanwhile: the group goes on, though nothing
// is left that ticks.
func TestTransferToWhoIsRemoved(t *testing.T) {
	for name, change := range map[string]func(other uint64) Change{
		"removed": func(other uint64) Change { return Change{Remove: []uint64{other}} },
		"demoted": func(other uint64) Change { return Change{Demote: []uint64{other}} },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t, 1, 2, 1)
				for _, n := range w.nodes {
					n.start()
				}
				defer w.stopAll()
				w.grow(1, 1, 2)
				w.proposing(1, 5)
				r := w.waitLeader(1)
				g, other := r.groups[1], 3-r.node.id
				c := change(other)
				c.Expect = g.Status().Members
				changed := make(chan error, 1)
				var transferred error
				if err := r.host.ask(func(l *loop) {
					l.reconfigureTo(g, c, changed)
					transferred = l.transferTo(g, other)
				}); err != nil || transferred != nil {
					t.Fatal(err, transferred)
				}
				began := time.Now()
				w.proposing(1, 50) // more than were on their way before
				if took := time.Since(began); took > 5*time.Second {
					t.Errorf("nobody led for %v", took)
				}
				if err := <-changed; err != nil && !errors.Is(err, ErrUnknown) {
					t.Error(err)
				}
			})
		})
	}
}

// fullStore has no space while full.
type fullStore struct {
	storage.Store
	full *atomic.Bool
}

func (s fullStore) Commit(batch *storage.Batch) error {
	if s.full.Load() {
		return storage.ErrNoSpace
	}
	return s.Store.Commit(batch)
}

// A voter that is left alone, and loses its power once the other has dropped its replica and before its own store
// knows, leads again: it has no vote to ask for.
func TestLeftAlone(t *testing.T) {
	for seed := range uint64(10) {
		synctest.Test(t, func(t *testing.T) {
			w := newWorld(t, seed, 2, 1)
			full := map[uint64]*atomic.Bool{1: {}, 2: {}}
			w.adjust = func(c *Config) { c.Store = fullStore{c.Store, full[c.NodeID]} }
			for _, n := range w.nodes {
				n.start()
			}
			defer w.stopAll()
			w.grow(1, 1, 2)
			left := w.waitLeader(1).node
			other := 3 - left.id
			full[left.id].Store(true)
			if err := w.reconfigure(Change{Remove: []uint64{other}}); err != nil {
				t.Fatal(err)
			}
			w.until("the other to drop its replica", time.Minute, func() bool { return !w.current(other).groups[1].Status().Replica })
			left.crash()
			full[left.id].Store(false)
			left.start()
			w.until("the one that is left to lead", time.Minute, func() bool { return w.current(left.id).groups[1].Status().Epoch != 0 })
			w.proposing(1, 5)
		})
	}
}
