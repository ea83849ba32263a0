package inprocess

import (
	"context"
	"errors"
	"sync"
	"time"
)

// task is an attempt as the pool sees it.
type task interface {
	// perform runs the attempt. It may end the goroutine with runtime.Goexit.
	perform(w *worker)
	// progress counts steps; limit is the longest time the count may stay, 0 while it may.
	progress() (steps uint64, limit time.Duration)
	Abort(cause error)
}

// pool reuses goroutines, whose grown stacks and scheduling are the larger part of what a small
// handler costs.
type pool struct {
	maxIdle int
	// expire is told of a task that made no progress within its limit.
	expire func(task)
	ended  sync.WaitGroup // workers, RunAsync closures, the watch
	stop   chan struct{}

	mu struct {
		sync.Mutex
		idle     []*worker
		all      map[*worker]struct{}
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

var errClosed = errors.New("the node is shutting down")

func (p *pool) configure(maxIdle int, expire func(task)) {
	p.maxIdle, p.expire = maxIdle, expire
	p.stop = make(chan struct{})
	p.mu.all = make(map[*worker]struct{})
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
		p.mu.idle[last] = nil
		p.mu.idle = p.mu.idle[:last]
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

// goClosure runs fn on a goroutine that close waits for. It reports false after close.
func (p *pool) goClosure(fn func()) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.mu.closed {
		return false
	}
	p.ended.Go(fn)
	return true
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

// close stops taking tasks, aborts those running and waits for all goroutines.
func (p *pool) close(ctx context.Context) error {
	p.mu.Lock()
	first := !p.mu.closed
	p.mu.closed = true
	idle := p.mu.idle
	p.mu.idle = nil
	workers := make([]*worker, 0, len(p.mu.all))
	for w := range p.mu.all {
		workers = append(workers, w)
	}
	p.mu.Unlock()
	if first {
		close(p.stop)
		for _, w := range idle {
			close(w.tasks)
		}
	}
	for _, w := range workers {
		w.mu.Lock()
		current := w.mu.current
		w.mu.Unlock()
		if current != nil {
			current.Abort(errClosed)
		}
	}
	done := make(chan struct{})
	go func() { // ends with the last handler, however long that takes
		p.ended.Wait()
		close(done)
	}()
	select {
	case <-done:
		return nil
	case <-ctx.Done():
		return errors.Join(errors.New("close: handlers are still running: they make no steps and do not heed their context"), ctx.Err())
	}
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
		w.mu.Lock()
		current := w.mu.current
		w.mu.Unlock()
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
