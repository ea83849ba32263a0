package sim

import (
	"slices"
	"sync"
	"time"
)

// postman brings all frames to where they go, on one goroutine: it is not in a hurry, since nothing else passes in an
// instant of fake time. A goroutine for each frame grew a stack for each, which was an eighth of a seed's time.
type postman struct {
	alarm *time.Timer // when the next letter is due
	ended chan struct{}
	mu    struct {
		sync.Mutex
		letters []letter // that which is due first is the last
		last    map[[2]int]time.Time
		closed  bool
	}
}

// letter is a frame that is on its way.
type letter struct {
	at      time.Time
	deliver func()
}

func newPostman() *postman {
	p := &postman{alarm: time.NewTimer(time.Hour), ended: make(chan struct{})}
	p.mu.last = map[[2]int]time.Time{}
	go p.run()
	return p
}

// post has something delivered after a while. deliver must not wait for anything.
func (p *postman) post(after time.Duration, deliver func()) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.putLocked(letter{time.Now().Add(after), deliver})
}

// postInOrder is post behind all that went the same way so.
func (p *postman) postInOrder(way [2]int, after time.Duration, deliver func()) {
	p.mu.Lock()
	defer p.mu.Unlock()
	at := time.Now().Add(after)
	if last := p.mu.last[way]; !at.After(last) {
		at = last.Add(1)
	}
	p.mu.last[way] = at
	p.putLocked(letter{at, deliver})
}

func (p *postman) putLocked(l letter) {
	i, _ := slices.BinarySearchFunc(p.mu.letters, l, func(a, b letter) int { return b.at.Compare(a.at) })
	p.mu.letters = slices.Insert(p.mu.letters, i, l)
	if i == len(p.mu.letters)-1 {
		p.alarm.Reset(time.Until(l.at))
	}
}

func (p *postman) run() {
	defer close(p.ended)
	for {
		<-p.alarm.C
		p.mu.Lock()
		for !p.mu.closed && len(p.mu.letters) > 0 {
			first := len(p.mu.letters) - 1
			next := p.mu.letters[first]
			if wait := time.Until(next.at); wait > 0 {
				p.alarm.Reset(wait)
				break
			}
			p.mu.letters[first] = letter{}
			p.mu.letters = p.mu.letters[:first]
			p.mu.Unlock()
			next.deliver()
			p.mu.Lock()
		}
		closed := p.mu.closed
		p.mu.Unlock()
		if closed {
			return
		}
	}
}

// close forgets what is on its way.
func (p *postman) close() {
	p.mu.Lock()
	p.mu.closed = true
	p.alarm.Reset(0)
	p.mu.Unlock()
	<-p.ended
}
