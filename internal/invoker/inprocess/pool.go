package inprocess

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/perdure/perdure/actor"
)

// task is an attempt as the pool sees it. Its text names it.
type task interface {
	fmt.Stringer
	// perform runs the attempt. It may end the goroutine with runtime.Goexit.
	perform(w *worker)
	// progress counts steps; limit is the longest time the count may stay, 0 while it may.
	progress() (steps uint64, limit time.Duration)
	Abort(cause error)
}

// aside is work of an attempt on a goroutine that is no worker.
type aside struct {
	step string
	of   fmt.Stringer
}

func (a *aside) String() string { return a.step + " of " + a.of.String() }

// pool reuses goroutines, whose grown stacks and scheduling are the larger part of what a small
// handler costs.
type pool struct {
	maxIdle int
	// expire is told of a task that made no progress within its limit.
	expire func(task)
	ended  sync.WaitGroup // workers, what is in mu.others, the watch
	stop   chan struct{}

	mu struct {
		sync.Mutex
		idle     []*worker
		all      map[*worker]struct{}
		others   map[fmt.Stringer]struct{} // asides, and READ handlers
		watching bool
		every    time.Duration // of the watch; 0: nothing to watch
		closed   bool
	}
}

// worker is one goroutine of the pool.
type worker struct {
	tasks chan task // of one: a send never blocks, since only idle workers are sent to
	// id is the goroutine's, set when it starts.
	id uintptr

	mu struct {
		sync.Mutex
		current task
	}
	// Read and written by the watch only.
	seen      task
	seenSteps uint64
	since     time.Time
}

var errClosed = actor.NewError(actor.Unavailable, "the node is shutting down")

func (p *pool) configure(maxIdle int, expire func(task)) {
	p.maxIdle, p.expire = maxIdle, expire
	p.stop = make(chan struct{})
	p.mu.all = make(map[*worker]struct{})
	p.mu.others = make(map[fmt.Stringer]struct{})
}

// run starts the task on an idle or a new worker.
func (p *pool) run(started task) {
	p.mu.Lock()
	if p.mu.closed {
		p.mu.Unlock()
		started.Abort(errClosed)
		return
	}
	if last := len(p.mu.idle) - 1; last >= 0 {
		w := p.mu.idle[last]
		p.mu.idle = slices.Delete(p.mu.idle, last, last+1)
		p.mu.Unlock()
		w.tasks <- started
		return
	}
	w := &worker{tasks: make(chan task, 1)}
	p.mu.all[w] = struct{}{}
	p.ended.Add(1)
	if !p.mu.watching && p.mu.every > 0 {
		p.mu.watching = true
		p.ended.Add(1)
		go p.watch()
	}
	p.mu.Unlock()
	w.tasks <- started
	go p.work(w)
}

// goAside runs fn on a goroutine that close waits for. It reports false after close.
func (p *pool) goAside(work *aside, fn func()) bool {
	if !p.enter(work) {
		return false
	}
	go func() {
		defer p.leave(work)
		fn()
	}()
	return true
}

// enter makes close wait for the leave of what runs on no worker, and abort it if it can be. It
// reports false after close; then no leave must follow.
func (p *pool) enter(other fmt.Stringer) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.mu.closed {
		return false
	}
	p.mu.others[other] = struct{}{}
	p.ended.Add(1)
	return true
}

func (p *pool) leave(other fmt.Stringer) {
	p.mu.Lock()
	delete(p.mu.others, other)
	p.mu.Unlock()
	p.ended.Done()
}

func (p *pool) work(w *worker) {
	defer p.retire(w) // also when a task ends with runtime.Goexit
	w.id = currentGoroutine()
	for next := range w.tasks {
		w.set(next)
		select {
		case <-p.stop: // close may have looked before the task was set
			next.Abort(errClosed)
		default:
		}
		next.perform(w)
		w.set(nil)
		if !p.rest(w) {
			return
		}
	}
}

// rest makes w idle; it reports false if there are enough idle workers.
func (p *pool) rest(w *worker) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.mu.closed || len(p.mu.idle) >= p.maxIdle {
		return false
	}
	p.mu.idle = append(p.mu.idle, w)
	return true
}

func (p *pool) retire(w *worker) {
	p.mu.Lock()
	delete(p.mu.all, w)
	p.mu.Unlock()
	w.set(nil)
	p.ended.Done()
}

func (w *worker) set(current task) {
	w.mu.Lock()
	w.mu.current = current
	w.mu.Unlock()
}

func (w *worker) task() task {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.mu.current
}

// close stops taking tasks, aborts those running and waits for all goroutines.
func (p *pool) close(ctx context.Context) error {
	p.mu.Lock()
	first := !p.mu.closed
	p.mu.closed = true
	idle := p.mu.idle
	p.mu.idle = nil
	workers := slices.Collect(maps.Keys(p.mu.all))
	others := slices.Collect(maps.Keys(p.mu.others))
	p.mu.Unlock()
	if first {
		close(p.stop)
		for _, w := range idle {
			close(w.tasks)
		}
	}
	for _, w := range workers {
		if current := w.task(); current != nil {
			current.Abort(errClosed)
		}
	}
	for _, other := range others {
		if running, ok := other.(interface{ Abort(error) }); ok {
			running.Abort(errClosed)
		}
	}
	done := make(chan struct{})
	go func() { // ends with the last handler, however long that takes
		p.ended.Wait()
		close(done)
	}()
	var late <-chan time.Time
	for ended := ctx.Done(); ; ended = nil {
		select {
		case <-done:
			return nil
		case <-ended:
		case <-late:
			if names := p.names(); names != "" { // else the last goroutines are about to end
				return fmt.Errorf("close: still running, since it makes no steps and does not heed its context: %s: %w", names, ctx.Err())
			}
		}
		late = time.After(100 * time.Millisecond) // what was aborted needs a moment to end
	}
}

// names are those that run, in the order of the alphabet.
func (p *pool) names() string {
	p.mu.Lock()
	names := make([]string, 0, len(p.mu.others))
	for other := range p.mu.others {
		names = append(names, other.String())
	}
	for w := range p.mu.all {
		if current := w.task(); current != nil {
			names = append(names, current.String())
		}
	}
	p.mu.Unlock()
	slices.Sort(names)
	const most = 8
	if more := len(names) - most; more > 0 {
		names = append(names[:most], fmt.Sprintf("%d more", more))
	}
	return strings.Join(names, ", ")
}

// watchEvery makes the watch notice limits as short as limit.
func (p *pool) watchEvery(limit time.Duration) {
	if limit <= 0 {
		return
	}
	// A timeout is noticed up to a quarter late; finer would wake an idle node for nothing.
	every := max(limit/4, time.Millisecond)
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.mu.every == 0 || every < p.mu.every {
		p.mu.every = every
	}
}

// watch finds tasks that make no progress. It looks at counters from outside instead of having a
// timer in each attempt, which would cost every short handler a clock reading.
func (p *pool) watch() {
	defer p.ended.Done()
	p.mu.Lock()
	every := p.mu.every
	p.mu.Unlock()
	ticker := time.NewTicker(every)
	defer ticker.Stop()
	for {
		select {
		case <-p.stop:
			return
		case now := <-ticker.C:
			for _, expired := range p.look(now) {
				p.expire(expired)
			}
			p.mu.Lock()
			if p.mu.every != every {
				every = p.mu.every
				ticker.Reset(every)
			}
			p.mu.Unlock()
		}
	}
}

func (p *pool) look(now time.Time) (expired []task) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for w := range p.mu.all {
		current := w.task()
		if current == nil {
			w.seen = nil
			continue
		}
		steps, limit := current.progress()
		if current != w.seen || steps != w.seenSteps || limit == 0 {
			w.seen, w.seenSteps, w.since = current, steps, now
			continue
		}
		if now.Sub(w.since) >= limit {
			expired = append(expired, current)
			w.since = now
		}
	}
	return expired
}
