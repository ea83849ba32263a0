// Package gate holds back attempts until it is known that this build may run them: a node leads partitions, and is
// given attempts, before its cluster has said that its services fit what is kept.
package gate

import (
	"context"
	"sync"

	"github.com/perdure/perdure/internal/invoker"
	recordv1 "github.com/perdure/perdure/internal/record/v1"
	"github.com/perdure/perdure/internal/routing"
)

// Gate is an Invoker that runs nothing before Open. Its methods are safe for concurrent use.
type Gate struct {
	local  invoker.Invoker
	opened chan struct{}
	mu     struct {
		sync.Mutex
		held map[*held]bool // nil once it is open
	}
}

var _ invoker.Invoker = (*Gate)(nil)

// New makes a gate that is closed, before local.
func New(local invoker.Invoker) *Gate {
	g := &Gate{local: local, opened: make(chan struct{})}
	g.mu.held = map[*held]bool{}
	return g
}

// Open lets everything through, from now on. It is called once.
func (g *Gate) Open() {
	g.mu.Lock()
	waiting := g.mu.held
	g.mu.held = nil
	g.mu.Unlock()
	close(g.opened)
	for h := range waiting {
		// Another attempt begins with what has become of the invocation meanwhile, so that nothing of it is kept here.
		h.attempt.Host.Finish(h.attempt, &invoker.Outcome{Lost: true, Anew: h.attempt.Stored && !h.attempt.Mode.Journaled()})
	}
}

// IsOpen reports whether it was opened.
func (g *Gate) IsOpen() bool {
	select {
	case <-g.opened:
		return true
	default:
		return false
	}
}

// Start implements invoker.Invoker.
func (g *Gate) Start(attempt *invoker.Attempt) invoker.Running {
	g.mu.Lock()
	if g.mu.held != nil {
		defer g.mu.Unlock()
		h := &held{g, attempt}
		g.mu.held[h] = true
		return h
	}
	g.mu.Unlock()
	return g.local.Start(attempt)
}

// Read implements invoker.Invoker.
func (g *Gate) Read(ctx context.Context, read *invoker.Read) *recordv1.Result {
	select {
	case <-g.opened:
		return g.local.Read(ctx, read)
	case <-ctx.Done():
		read.Unhosted = &invoker.Unhosted{Cause: routing.Errorf(routing.CodeUnavailable, "%s: the node is starting: %v", read.Target, context.Cause(ctx))}
		return nil
	}
}

// held is an attempt that has not begun.
type held struct {
	gate    *Gate
	attempt *invoker.Attempt
}

var _ invoker.Unplaced = (*held)(nil)

// Notify implements invoker.Running.
func (*held) Notify(uint32, *recordv1.Completion) {}

// Cancel implements invoker.Running.
func (*held) Cancel() {}

// Abort implements invoker.Running.
func (h *held) Abort(error) {
	h.gate.mu.Lock()
	defer h.gate.mu.Unlock()
	delete(h.gate.mu.held, h)
}

// Waiting implements invoker.Unplaced.
func (h *held) Waiting() bool {
	h.gate.mu.Lock()
	defer h.gate.mu.Unlock()
	return h.gate.mu.held[h]
}
