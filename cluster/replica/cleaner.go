package replica

import (
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/perdure/perdure/cluster/replica/rows"
	"github.com/perdure/perdure/storage"
)

// cleaner deletes generations that nothing refers to, in the background.
type cleaner struct {
	host *Host
	wake chan struct{}
	// from is how far the first of the queue is deleted: the store would pass over what is deleted, one
	// by one, each time. Owned by run.
	from []byte
	mu   struct {
		sync.Mutex
		queue []rubbish // the first is being deleted
		last  map[GroupID]uint8
	}
}

// rubbish is a generation of a group's rows.
type rubbish struct {
	group      GroupID
	generation uint8
}

// cleanBytes and cleanRows bound a batch of deletions.
const (
	cleanBytes = 256 << 10
	cleanRows  = 2000
)

func (c *cleaner) init(h *Host) {
	c.host, c.wake = h, make(chan struct{}, 1)
	c.mu.last = make(map[GroupID]uint8)
}

// find looks for what a crash left. A group has the generation that its applied row names, and no
// other.
func (c *cleaner) find() error {
	if c.host.cfg.Peers == nil {
		return nil // no snapshot was received, and none will be
	}
	view := c.host.cfg.Store.Snapshot()
	defer view.Release()
	for _, g := range c.host.order {
		used := uint8(g.generation.Load())
		for generation, more := 0, true; more && generation <= 255; {
			from := rows.Prefix(uint32(g.id), uint8(generation))
			upper := rows.Prefix(uint32(g.id+1), 0)
			more = false
			if err := view.Scan(from[:], upper[:], func(key, _ []byte) bool {
				generation, more = int(key[rows.PrefixBytes-1]), true
				return false
			}); err != nil {
				return fmt.Errorf("partition %d: look for what a crash left: %w", g.id, err)
			}
			if !more {
				break
			}
			kept, ok := c.host.partials.Generation(uint32(g.id))
			if absent := g.applyState.index == 0 && g.loopState.node == nil; (absent || uint8(generation) != used) && !(ok && uint8(generation) == kept) {
				c.enqueue(g, uint8(generation))
			}
			generation++
		}
		c.mu.last[g.id] = used
		if g.applyState.index == 0 && g.loopState.node == nil {
			generation := c.fresh(g)
			g.applyState.generation = generation
			g.generation.Store(uint32(generation))
		}
	}
	return nil
}

// fresh returns a generation of the group that has no rows.
func (c *cleaner) fresh(g *Group) uint8 {
	c.mu.Lock()
	defer c.mu.Unlock()
	for range 256 {
		c.mu.last[g.id]++
		r := rubbish{g.id, c.mu.last[g.id]}
		if kept, ok := c.host.partials.Generation(uint32(g.id)); ok && kept == r.generation {
			continue
		}
		if !slices.Contains(c.mu.queue, r) && uint32(r.generation) != g.generation.Load() {
			return r.generation
		}
	}
	panic("replica: all generations of a partition are being deleted")
}

func (c *cleaner) enqueue(g *Group, generation uint8) {
	c.mu.Lock()
	c.mu.queue = append(c.mu.queue, rubbish{g.id, generation})
	c.mu.Unlock()
	c.signal()
}

func (c *cleaner) signal() {
	select {
	case c.wake <- struct{}{}:
	default:
	}
}

// start begins to clean, if there can be something to; the channel is closed when it has ended with
// the host.
func (c *cleaner) start() <-chan struct{} {
	done := make(chan struct{})
	if c.host.cfg.Peers == nil {
		close(done)
		return done
	}
	go func() {
		defer close(done)
		c.run()
	}()
	return done
}

func (c *cleaner) run() {
	for {
		again, err := c.host.partials.GiveUpOld()
		if err != nil && !errors.Is(err, storage.ErrNoSpace) {
			return // the host has ended, or does
		}
		c.mu.Lock()
		var next rubbish
		waiting := len(c.mu.queue) > 0
		if waiting {
			next = c.mu.queue[0]
		}
		c.mu.Unlock()
		if waiting {
			more, err := c.clean(next)
			if errors.Is(err, ErrStopped) {
				return
			}
			if err != nil && !errors.Is(err, storage.ErrNoSpace) {
				c.host.intake.fail(fmt.Errorf("partition %d: delete an old generation: %w", next.group, err))
				return
			}
			if err == nil && !more {
				c.mu.Lock()
				c.mu.queue = c.mu.queue[1:]
				c.mu.Unlock()
				c.from = nil
			}
			if err == nil {
				if c.host.hasEnded() {
					return
				}
				continue
			}
		}
		// Deletions need space, too: then it is tried again later.
		pause := c.host.cfg.RetryDelay
		if !waiting && err == nil {
			pause = again
		}
		timer := time.NewTimer(pause)
		if pause == 0 {
			timer.Stop()
		}
		select {
		case <-c.wake:
		case <-timer.C:
		case <-c.host.ended:
			timer.Stop()
			return
		}
		timer.Stop()
	}
}

// clean deletes some rows of a generation, behind those that it deleted before, and returns whether there
// may be more.
func (c *cleaner) clean(r rubbish) (more bool, err error) {
	view := c.host.cfg.Store.Snapshot()
	there := rows.NewView(view, rows.Prefix(uint32(r.group), r.generation))
	var batch storage.Batch
	var last []byte
	err = there.Scan(c.from, nil, func(key, _ []byte) bool {
		if batch.Bytes() >= cleanBytes || batch.Len() >= min(cleanRows, c.host.limits.Writes) {
			more = true
			return false
		}
		last = slices.Clone(key)
		batch.Delete(there.Key(key))
		return true
	})
	view.Release()
	if err != nil || batch.Len() == 0 {
		return false, err
	}
	if err := c.host.write(&batch); err != nil {
		return more, err
	}
	c.from = append(last, 0)
	return more, nil
}
