package replica

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/perdure/perdure/cluster/replica/stream"
)

var (
	worldSeed = flag.Uint64("world.seed", 0, "run only this seed of TestWorlds")
	worldFrom = flag.Uint64("world.from", 1, "the first seed of TestWorlds and TestElections")
	worldRuns = flag.Uint64("world.runs", 3, "how many seeds TestWorlds and TestElections run")
)

// keptSeeds found something once. Goroutines and elections are not a function of the seed alone, so
// a seed is a kind of trouble rather than a run.
var keptSeeds = []uint64{}

func TestWorlds(t *testing.T) {
	var seeds []uint64
	if *worldSeed != 0 {
		seeds = []uint64{*worldSeed}
	} else {
		seeds = slices.Clone(keptSeeds)
		for i := range *worldRuns {
			seeds = append(seeds, *worldFrom+i)
		}
	}
	for _, seed := range seeds {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) { runWorld(t, seed) })
		})
	}
}

// runWorld lets a cluster of five nodes live through a minute of crashes, bad networks, full and slow
// disks, changes of members and hand-overs, heals it and looks whether it is whole.
func runWorld(t *testing.T, seed uint64) {
	w := newWorld(t, seed, 5, 0, 1)
	random := w.chance()
	retain := 1 << (8 + random.IntN(8)) // from nearly nothing, so that snapshots are needed
	w.adjust = func(c *Config) {
		random := w.chance() // nodes are started by several goroutines
		c.RetainBytes = retain
		c.idleTicks = 1 + random.IntN(10)
		if random.IntN(2) == 0 {
			c.snapshotChunkBytes = 100 + random.IntN(2000)
		}
		c.SnapshotBytesPerSecond = 1 << (16 + random.IntN(10))
		if random.IntN(3) == 0 {
			c.MaxBacklogBytes = 4 << 10
		}
		if random.IntN(3) == 0 {
			c.MaxApplyBytes = 300
		}
	}
	for _, n := range w.nodes {
		n.start()
	}
	defer w.stopAll()
	for _, id := range w.groups {
		w.grow(id, 1, 2, 3)
	}
	if t.Failed() {
		return
	}
	if random.IntN(3) == 0 {
		w.fullDisks.Store(5)
	}

	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	for _, id := range w.groups {
		wg.Go(func() { w.proposeFor(ctx, id, w.chance()) })
		wg.Go(func() { w.readFor(ctx, id, w.chance()) })
		wg.Go(func() { w.reconfigureFor(ctx, id, w.chance()) })
	}
	wg.Go(func() { w.troubleFor(ctx, w.chance()) })
	time.Sleep(time.Duration(20+random.IntN(40)) * time.Second)
	cancel()
	wg.Wait()

	w.heal()
	for _, id := range w.groups {
		w.grow(id, 1, 2, 3, 4, 5)
		w.proposing(id, 5)
	}
	w.agree()
	time.Sleep(stream.ReceiverPatience) // on the fake clock: until then parts of snapshots are kept, and looking is expensive
	w.until("rubbish to be deleted", time.Minute, w.clean)
	if testing.Verbose() {
		t.Logf("seed %d: %d and %d records, %d snapshots, %d epochs", seed, w.history.count(0), w.history.count(1), w.snapshots(), len(w.history.mu.leaders))
	}
}

func (w *world) heal() {
	w.fullDisks.Store(0)
	w.net.change(func() {
		w.net.mu.calm = true
		clear(w.net.mu.cut)
	})
	for _, n := range w.nodes {
		if w.current(n.id) == nil {
			n.start()
		}
	}
}

func pause(ctx context.Context, d time.Duration) bool {
	select {
	case <-time.After(d):
		return true
	case <-ctx.Done():
		return false
	}
}

// proposeFor proposes on every node that believes it leads.
func (w *world) proposeFor(ctx context.Context, id GroupID, random *rand.Rand) {
	for pause(ctx, time.Duration(random.IntN(20))*time.Millisecond) {
		if random.IntN(300) == 0 { // long enough for the group to sleep
			pause(ctx, time.Duration(random.IntN(6000))*time.Millisecond)
		}
		for _, n := range w.nodes {
			if r := w.current(n.id); r != nil {
				for range random.IntN(4) {
					r.listeners[id].propose()
				}
			}
		}
	}
}

// readFor asks nodes that believe they lead whether they do. One that is told so must not have
// been succeeded by a leader whose records were acknowledged before.
func (w *world) readFor(ctx context.Context, id GroupID, random *rand.Rand) {
	var reads sync.WaitGroup
	defer reads.Wait()
	for pause(ctx, time.Duration(random.IntN(50))*time.Millisecond) {
		for _, n := range w.nodes {
			r := w.current(n.id)
			if r == nil {
				continue
			}
			l := r.listeners[id]
			l.mu.Lock()
			epoch := l.mu.epoch
			l.mu.Unlock()
			if epoch == 0 {
				continue
			}
			acked, _ := w.history.latest(id)
			reads.Go(func() {
				ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
				defer cancel()
				err := r.groups[id].ReadBarrier(ctx)
				l.mu.Lock()
				after := l.mu.epoch
				l.mu.Unlock()
				switch {
				case err == nil && after == epoch && acked > epoch && !r.isDead():
					w.t.Errorf("partition %d: node %d may read in epoch %d, and epoch %d had acknowledged before", id, n.id, epoch, acked)
				case err != nil && !errors.Is(err, ErrNotLeader) && ctx.Err() == nil:
					w.t.Errorf("partition %d: read barrier: %v", id, err)
				}
			})
		}
	}
}

// reconfigureFor changes members and leaders.
func (w *world) reconfigureFor(ctx context.Context, id GroupID, random *rand.Rand) {
	for pause(ctx, time.Duration(200+random.IntN(3000))*time.Millisecond) {
		r := w.leader(id)
		if r == nil {
			continue
		}
		s := r.groups[id].Status()
		if s.Epoch == 0 {
			continue
		}
		if random.IntN(4) == 0 {
			to := s.Voters[random.IntN(len(s.Voters))]
			if err := r.groups[id].TransferLeadership(to); err != nil && !errors.Is(err, ErrNotLeader) && !errors.Is(err, ErrBehind) && !errors.Is(err, ErrInvalid) {
				w.t.Errorf("transfer: %v", err)
			}
			continue
		}
		change := Change{Expect: s.Members}
		voters := len(s.Voters)
		for _, n := range w.nodes {
			i := slices.IndexFunc(s.Peers, func(p PeerStatus) bool { return p.Node == n.id })
			switch {
			case n.id == r.node.id:
			case i < 0:
				if random.IntN(2) == 0 {
					change.AddLearners = append(change.AddLearners, n.id)
				}
			case slices.Contains(s.Learners, n.id):
				if s.Peers[i].CaughtUp && random.IntN(3) > 0 {
					change.Promote = append(change.Promote, n.id)
					voters++
				} else if random.IntN(6) == 0 {
					change.Remove = append(change.Remove, n.id)
				}
			case voters > 2 && random.IntN(4) == 0:
				voters--
				if random.IntN(3) == 0 {
					change.Demote = append(change.Demote, n.id)
				} else {
					change.Remove = append(change.Remove, n.id)
				}
			}
		}
		short, cancel := context.WithTimeout(ctx, 3*time.Second)
		err := r.groups[id].Reconfigure(short, change)
		if err != nil && !errors.Is(err, ErrChanged) && !errors.Is(err, ErrNotLeader) && !errors.Is(err, ErrUnknown) && !errors.Is(err, ErrBehind) && !errors.Is(err, ErrInvalid) && short.Err() == nil {
			w.t.Errorf("reconfigure: %v", err)
		}
		cancel()
	}
}

// troubleFor makes trouble, some of it at once.
func (w *world) troubleFor(ctx context.Context, random *rand.Rand) {
	for pause(ctx, time.Duration(100+random.IntN(3000))*time.Millisecond) {
		n := w.nodes[random.IntN(len(w.nodes))]
		switch random.IntN(9) {
		case 0, 1, 2:
			n.crash()
			if !pause(ctx, time.Duration(random.IntN(4000))*time.Millisecond) {
				return
			}
			n.start()
		case 3: // half a cluster loses power
			for _, n := range w.nodes {
				if random.IntN(2) == 0 {
					n.crash()
				}
			}
			pause(ctx, time.Duration(random.IntN(1000))*time.Millisecond)
			for _, n := range w.nodes {
				if w.current(n.id) == nil {
					n.start()
				}
			}
		case 4:
			if r := w.leader(w.groups[random.IntN(len(w.groups))]); r != nil {
				n = r.node
			}
			w.net.change(func() {
				for _, other := range w.nodes {
					w.net.mu.cut[[2]uint64{n.id, other.id}] = true
					w.net.mu.cut[[2]uint64{other.id, n.id}] = true
				}
			})
			pause(ctx, time.Duration(2000+random.IntN(2000))*time.Millisecond) // it believes for a while that it leads
		case 5:
			w.net.change(func() {
				for range 4 {
					w.net.mu.cut[[2]uint64{uint64(random.IntN(5) + 1), uint64(random.IntN(5) + 1)}] = true
				}
			})
		case 6:
			w.net.change(func() {
				w.net.mu.calm = false
				w.net.mu.loss = random.Float64() * 0.3
				w.net.mu.delay = time.Duration(1+random.IntN(60)) * time.Millisecond
			})
		case 7:
			w.net.change(func() {
				w.net.mu.calm = true
				clear(w.net.mu.cut)
			})
		case 8:
			n.stop()
			n.start()
		}
		if random.IntN(3) == 0 {
			w.net.change(func() { clear(w.net.mu.cut) })
		}
	}
}

// clean is whether the stores hold rows of what the applied rows name, and no others.
func (w *world) clean() bool {
	for _, n := range w.nodes {
		for _, key := range n.store.Keys() {
			if key[0] == 0xff {
				if key[2] == 's' || key[2] == 'p' {
					return false
				}
				continue
			}
			id := GroupID(key[0])<<8 | GroupID(key[1])
			if at := storedAt(w.t, n.store, id); at.index == 0 || at.generation != key[2] {
				return false
			}
		}
	}
	return true
}

// TestElections makes nodes lose their power just after they voted, with candidates that hear little of
// each other. A vote that was not on the disk is then given twice.
func TestElections(t *testing.T) {
	for i := range *worldRuns {
		seed := *worldFrom + i
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) { runElections(t, seed) })
		})
	}
}

func runElections(t *testing.T, seed uint64) {
	w := newWorld(t, seed, 3, 0, 1, 2, 3)
	w.adjust = func(c *Config) { c.RetainBytes = 1 << 10 }
	for _, n := range w.nodes {
		n.start()
	}
	defer w.stopAll()
	for _, id := range w.groups {
		w.grow(id, 1, 2, 3)
	}
	if t.Failed() {
		return
	}
	random := w.chance()
	var mu sync.Mutex
	fate := w.chance() // guarded by mu
	var crashes sync.WaitGroup
	crashing := map[uint64]bool{}
	calm := false
	voted := func(n *worldNode) {
		mu.Lock()
		defer mu.Unlock()
		if calm || crashing[n.id] || fate.IntN(2) == 0 {
			return
		}
		crashing[n.id] = true
		crashes.Go(func() {
			n.crash()
			n.start()
			mu.Lock()
			crashing[n.id] = false
			mu.Unlock()
		})
	}
	w.voters.Store(&voted)
	w.net.change(func() { w.net.mu.calm, w.net.mu.loss, w.net.mu.delay = false, 0.05, 150*time.Millisecond })
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	for _, id := range w.groups {
		wg.Go(func() {
			for pause(ctx, 200*time.Millisecond) {
				if r := w.leader(id); r != nil {
					r.listeners[id].propose()
				}
			}
		})
	}
	for range 40 { // leaders are not heard until they give up, and then vote like the others
		for _, id := range w.groups {
			if r := w.leader(id); r != nil {
				w.net.change(func() {
					for _, n := range w.nodes {
						w.net.mu.cut[[2]uint64{r.node.id, n.id}] = true
					}
				})
			}
		}
		time.Sleep(time.Duration(500+random.IntN(1000)) * time.Millisecond)
		w.net.change(func() { clear(w.net.mu.cut) })
		time.Sleep(time.Duration(1000+random.IntN(2000)) * time.Millisecond)
	}
	mu.Lock()
	calm = true
	mu.Unlock()
	cancel()
	wg.Wait()
	crashes.Wait()
	w.heal()
	for _, id := range w.groups {
		w.proposing(id, 5)
	}
	w.agree()
	if testing.Verbose() {
		t.Logf("seed %d: %d epochs", seed, len(w.history.mu.leaders))
	}
}
