package inprocess

import "sync"

// parked are the handlers that wait and keep their goroutine, longest first. When there are too
// many, those that have waited longest are unwound, to be replayed when what they wait for is
// there.
type parked struct {
	most int
	mu   struct {
		sync.Mutex
		count       int
		first, last *durable
	}
}

// enter adds a handler that begins to wait.
func (p *parked) enter(d *durable) {
	p.mu.Lock()
	defer p.mu.Unlock()
	d.park.before, d.park.waits = p.mu.last, true
	if p.mu.last != nil {
		p.mu.last.park.after = d
	} else {
		p.mu.first = d
	}
	p.mu.last = d
	p.mu.count++
	for p.mu.count > p.most {
		oldest := p.mu.first
		p.removeLocked(oldest)
		oldest.park.tired.Store(true)
		oldest.awaken()
	}
}

// leave takes one out that no longer waits.
func (p *parked) leave(d *durable) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if d.park.waits {
		p.removeLocked(d)
	}
}

func (p *parked) removeLocked(d *durable) {
	if d.park.before != nil {
		d.park.before.park.after = d.park.after
	} else {
		p.mu.first = d.park.after
	}
	if d.park.after != nil {
		d.park.after.park.before = d.park.before
	} else {
		p.mu.last = d.park.before
	}
	d.park.before, d.park.after, d.park.waits = nil, nil, false
	p.mu.count--
}
