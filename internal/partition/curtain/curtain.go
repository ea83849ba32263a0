// Package curtain keeps READ handlers from objects that a transaction may have written already,
// until what it has written is known.
package curtain

import (
	"context"
	"sync"
	"sync/atomic"

	"github.com/perdure/perdure/internal/invocation"
)

// Hidden are the objects that READ handlers must not look at yet. A transaction's caller may
// have its answer, from the coordinator, before the participant has written what it promised:
// whoever reads the object after that answer must see it. The zero value hides nothing. Its methods
// are safe for concurrent use.
type Hidden struct {
	// count is len(mu.objects): nearly always 0, and then a READ takes no lock.
	count atomic.Int32
	// waiting are the READ handlers in Await.
	waiting atomic.Int32
	mu      struct {
		sync.Mutex
		objects map[invocation.Object]*curtain
	}
}

// curtain hides one object from the promise of one transaction on, or of several: the next may
// promise before what the one before wrote is durable.
type curtain struct {
	promises int
	shown    chan struct{} // nil as long as nobody waits
}

// Hide hides an object once more.
func (h *Hidden) Hide(o invocation.Object) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.mu.objects == nil {
		h.mu.objects = map[invocation.Object]*curtain{}
	}
	c := h.mu.objects[o]
	if c == nil {
		c = &curtain{}
		h.mu.objects[o] = c
		h.count.Store(int32(len(h.mu.objects)))
	}
	c.promises++
}

// Show takes back one Hide.
func (h *Hidden) Show(o invocation.Object) {
	h.mu.Lock()
	defer h.mu.Unlock()
	c := h.mu.objects[o]
	if c == nil {
		return
	}
	if c.promises--; c.promises == 0 {
		delete(h.mu.objects, o)
		h.count.Store(int32(len(h.mu.objects)))
		c.open()
	}
}

func (c *curtain) open() {
	if c.shown != nil {
		close(c.shown)
	}
}

// Clear lets everybody go on, who then find that nobody leads here.
func (h *Hidden) Clear() {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, c := range h.mu.objects {
		c.open()
	}
	clear(h.mu.objects)
	h.count.Store(0)
}

// Await waits until an object is not hidden; before it does, it calls hurry.
func (h *Hidden) Await(ctx context.Context, o invocation.Object, hurry func()) error {
	if h.count.Load() == 0 {
		return nil
	}
	h.waiting.Add(1)
	defer h.waiting.Add(-1)
	for {
		h.mu.Lock()
		c := h.mu.objects[o]
		if c == nil {
			h.mu.Unlock()
			return nil
		}
		if c.shown == nil {
			c.shown = make(chan struct{})
		}
		shown := c.shown
		h.mu.Unlock()
		hurry()
		select {
		case <-shown:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// Waiting reports whether anybody is in Await.
func (h *Hidden) Waiting() bool { return h.waiting.Load() > 0 }
