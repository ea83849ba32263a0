package replica

import (
	"errors"
	"slices"
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
	testLeftAlone(t, func(t *testing.T, w *world, left, other *worldNode) {
		if err := w.reconfigure(Change{Remove: []uint64{other.id}}); err != nil {
			t.Fatal(err)
		}
		w.until("the other to drop its replica", time.Minute, func() bool { return !w.current(other.id).groups[1].Status().Replica })
	})
}

// The same with a change that was in a log at a start, and is committed only then: as long as the store does not have it, the
// other keeps its replica, and its vote.
func TestLeftAloneByAnEarlierChange(t *testing.T) {
	testLeftAlone(t, func(t *testing.T, w *world, left, other *worldNode) {
		w.net.change(func() { w.net.mu.cut[[2]uint64{left.id, other.id}] = true })
		r := w.current(left.id)
		g := r.groups[1]
		change := Change{Expect: g.Status().Members, Remove: []uint64{other.id}}
		var before uint64
		if err := r.host.ask(func(l *loop) {
			before = g.loopState.log.last
			l.reconfigureTo(g, change, make(chan error, 1))
		}); err != nil {
			t.Fatal(err)
		}
		w.until("the change to be durable where it was made", 10*time.Second, func() bool {
			_, last := left.log.Bounds(1)
			return last > before
		})
		left.crash()
		w.net.change(func() { clear(w.net.mu.cut) })
		left.start()
		w.until("the other to know that it is no member", time.Minute, func() bool {
			return slices.Equal(w.current(other.id).groups[1].Status().Voters, []uint64{left.id})
		})
		time.Sleep(time.Minute) // on the fake clock: it asks, and has no answer
		if !w.current(other.id).groups[1].Status().Replica {
			t.Error("the other has dropped its replica")
		}
	})
}

// testLeftAlone takes power from the node that is left of two, after a change that its store, which is full, does not have.
func testLeftAlone(t *testing.T, remove func(t *testing.T, w *world, left, other *worldNode)) {
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
			full[left.id].Store(true)
			remove(t, w, left, w.node(3-left.id))
			left.crash()
			full[left.id].Store(false)
			left.start()
			w.until("the one that is left to lead", time.Minute, func() bool { return w.current(left.id).groups[1].Status().Epoch != 0 })
			w.proposing(1, 5)
		})
	}
}
