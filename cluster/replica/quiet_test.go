package replica

import (
	"context"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/perdure/perdure/cluster/replica/wire"
)

// asleep is on how many nodes a group sleeps.
func (w *world) asleep(id GroupID) (n int) {
	for _, node := range w.nodes {
		if r := w.current(node.id); r != nil {
			_ = r.host.ask(func(*loop) {
				if r.groups[id].loopState.asleep {
					n++
				}
			})
		}
	}
	return n
}

func sleeping(t *testing.T) *world {
	w := newWorld(t, 1, 3, 1, 2)
	for _, n := range w.nodes {
		n.start()
	}
	for _, id := range w.groups {
		w.waitLeader(id)
		w.grow(id, 1, 2, 3)
		w.proposing(id, 5)
	}
	w.untilAsleep()
	return w
}

func (w *world) untilAsleep() {
	w.t.Helper()
	for _, id := range w.groups {
		if !w.until(fmt.Sprintf("partition %d to sleep", id), time.Minute, func() bool { return w.asleep(id) == 3 }) {
			for _, node := range w.nodes {
				if r := w.current(node.id); r != nil {
					_ = r.host.ask(func(l *loop) {
						ls := &r.groups[id].loopState
						w.t.Logf("node %d at tick %d: %+v, leading %v, commit %d, stored %d, last %d, echoes %v", node.id, l.ticks, ls.quietState, ls.leading, ls.commit, ls.stored, ls.log.last, l.beats.echoes)
					})
				}
			}
		}
	}
}

// TestIdleGroupsSleep: groups in which nothing happens send nothing but beats, for as long as nothing happens,
// and take what comes at once.
func TestIdleGroupsSleep(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := sleeping(t)
		defer w.stopAll()
		kinds := map[wire.Kind]int{}
		w.net.change(func() {
			w.net.mu.seen = func(item wire.Item) { kinds[item.Kind]++ }
		})
		time.Sleep(time.Minute) // of the fake clock, in which nothing happens
		w.net.change(func() { w.net.mu.seen = nil })
		if kinds[wire.KindRaft] > 0 || kinds[wire.KindBeat] == 0 || kinds[wire.KindEcho] == 0 {
			t.Errorf("in a minute of nothing: %v", kinds)
		}
		if n := w.asleep(1) + w.asleep(2); n != 6 {
			t.Errorf("%d of 6 replicas sleep after a minute", n)
		}
		began := time.Now()
		if err := w.leader(1).groups[1].ReadBarrier(t.Context()); err != nil {
			t.Error(err)
		}
		w.proposing(1, 3)
		if took := time.Since(began); took > 100*time.Millisecond {
			t.Errorf("a read and a write took %v", took)
		}
		if w.asleep(2) != 3 {
			t.Error("a group was woken by what another did")
		}
		w.untilAsleep()
		w.agree()
	})
}

// TestLeaderIsLostInSleep: the leader's node loses its power, or its links, while the group sleeps. Another one
// leads soon, the old one notices, and says to nobody meanwhile that it leads.
func TestLeaderIsLostInSleep(t *testing.T) {
	for _, how := range []string{"power", "links", "links to it", "links from it"} {
		t.Run(how, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := sleeping(t)
				defer w.stopAll()
				old := w.leader(1)
				lost := time.Now()
				if how == "power" {
					old.node.crash()
				} else {
					w.net.change(func() {
						for _, n := range w.nodes {
							w.net.mu.cut[[2]uint64{n.id, old.node.id}] = how != "links from it"
							w.net.mu.cut[[2]uint64{old.node.id, n.id}] = how != "links to it"
						}
					})
				}
				if how == "links" || how == "links from it" {
					go func() {
						ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
						defer cancel()
						if err := old.groups[1].ReadBarrier(ctx); err == nil {
							t.Error("a leader that reaches nobody says that it leads")
						}
					}()
				}
				// How long it takes is measured in TestLostLeaders.
				w.until("another leader", 12*time.Second, func() bool { r := w.leader(1); return r != nil && r != old })
				t.Logf("another leader after %v", time.Since(lost))
				if how != "power" {
					w.until("the old leader to notice", 2*time.Second, func() bool {
						l := old.listeners[1]
						l.mu.Lock()
						defer l.mu.Unlock()
						return l.mu.epoch == 0
					})
				}
				w.heal()
				w.proposing(1, 5)
				w.untilAsleep()
				w.agree()
			})
		})
	}
}

// TestFollowerIsLostInSleep: a follower's node restarts while its groups sleep, and they sleep again.
func TestFollowerIsLostInSleep(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := sleeping(t)
		defer w.stopAll()
		leader := w.leader(1)
		follower := w.node(leader.node.id%3 + 1)
		follower.crash()
		w.until("the group to wake", 2*time.Second, func() bool { return w.asleep(1) == 0 })
		follower.start()
		w.untilAsleep()
		w.proposing(1, 5)
		w.agree()
	})
}
