package actortest

import (
	"fmt"
	"slices"
	"sync"
	"testing/synctest"
	"time"
)

// kind is what sort of thing a move is.
type kind uint8

const (
	kindSay        kind = iota // an attempt tells its partition something
	kindStart                  // an attempt begins
	kindRecord                 // a record becomes durable
	kindRun                    // the closure of a Run may begin
	kindMessage                // a message reaches another partition
	kindReply                  // a caller outside hears the answer
	kindLead                   // a partition gets a leader
	kindCall                   // a caller outside asks
	kindCompletion             // an attempt hears that an entry completed, or a closure returns
)

// move is one thing that can happen next. Everything between partitions, attempts, callers and the
// disk is one; the driver makes them one at a time.
type move struct {
	kind kind
	// lane orders moves: those of one lane happen as they came.
	lane string
	// number is the move's place in its lane.
	number uint64
	// text says what happens, for the trace.
	text string
	// notBefore delays it; zero is now.
	notBefore time.Time
	// of is the attempt that it is about; it is forgotten if that is aborted. nil: of none.
	of *attempt
	do func()
}

func (m *move) String() string { return m.text }

// agenda is the moves to be made.
type agenda struct {
	mu struct {
		sync.Mutex
		posted []*move
		count  map[string]uint64
		closed bool
	}
	arrived chan struct{} // of one

	// What follows belongs to the driver.
	pending []*move
}

func newAgenda() *agenda {
	t := &agenda{arrived: make(chan struct{}, 1)}
	t.mu.count = map[string]uint64{}
	return t
}

// post lays down a move. It may be called from any goroutine; those that run at once cannot tell
// which of them was first, so the driver puts what it finds in an order of its own.
func (a *agenda) post(m *move) {
	a.mu.Lock()
	m.number = a.mu.count[m.lane]
	a.mu.count[m.lane]++
	if !a.mu.closed {
		a.mu.posted = append(a.mu.posted, m)
	}
	a.mu.Unlock()
	select {
	case a.arrived <- struct{}{}:
	default:
	}
}

// close makes later moves vanish.
func (a *agenda) close() {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.mu.closed, a.mu.posted = true, nil
}

// collect takes over what was posted since.
func (a *agenda) collect() (arrived []*move) {
	a.mu.Lock()
	arrived, a.mu.posted = a.mu.posted, nil
	a.mu.Unlock()
	slices.SortFunc(arrived, func(x, y *move) int {
		switch {
		case x.lane != y.lane && x.lane < y.lane, x.lane == y.lane && x.number < y.number:
			return -1
		}
		return 1
	})
	return arrived
}

// ready are the moves that can be made at an instant, in the order in which they came, and the
// instant at which there are more; zero if there are none that wait for time.
func (a *agenda) ready(now time.Time) (ready []*move, next time.Time) {
	a.pending = slices.DeleteFunc(a.pending, func(m *move) bool { return m.of != nil && m.of.isAborted() })
	lanes := map[string]bool{}
	for _, m := range a.pending {
		blocked := lanes[m.lane] || m.of != nil && m.kind != kindStart && !m.of.isStarted()
		lanes[m.lane] = true
		switch {
		case blocked:
		case m.notBefore.After(now):
			if next.IsZero() || m.notBefore.Before(next) {
				next = m.notBefore
			}
		default:
			ready = append(ready, m)
		}
	}
	return ready, next
}

func (a *agenda) take(m *move) {
	if at := slices.Index(a.pending, m); at >= 0 {
		a.pending = slices.Delete(a.pending, at, at+1)
	}
}

// discard forgets moves of some kinds.
func (a *agenda) discard(kinds ...kind) {
	a.pending = slices.DeleteFunc(a.pending, func(m *move) bool { return slices.Contains(kinds, m.kind) })
}

// tooLong is how much fake time may pass without a move before a scenario counts as stuck.
const tooLong = 2 * 365 * 24 * time.Hour

// movesPerTick is after how many moves a millisecond passes: callers that always have more to ask
// would stop the clock for good, and what waits for time would starve.
const movesPerTick = 50

// drive makes the moves, one at a time: between two of them everything runs until all goroutines
// wait, which is what makes a run a function of the plan's decisions.
func (n *Node) drive() {
	defer close(n.driven)
	hurried := 0 // moves since time passed
	for {
		synctest.Wait()
		select {
		case <-n.stop:
			return
		default:
		}
		now := time.Now()
		for _, m := range n.agenda.collect() {
			n.agenda.pending = append(n.agenda.pending, n.plan.arrive(n, m, now)...)
		}
		if !n.declaring.Load() && n.plan.strike(n) {
			continue
		}
		ready, next := n.agenda.ready(now)
		m, until := n.plan.choose(n, ready, now)
		if m != nil {
			n.agenda.take(m)
			n.trace(m.text)
			n.moves.Add(1)
			m.do()
			if hurried++; hurried%movesPerTick == 0 {
				time.Sleep(time.Millisecond)
			}
			continue
		}
		hurried = 0
		if until.IsZero() || !next.IsZero() && next.Before(until) {
			until = next
		}
		n.idle(until)
	}
}

// idle lets time pass until something arrives, or until an instant unless that is zero.
func (n *Node) idle(until time.Time) {
	wait := tooLong
	if !until.IsZero() {
		wait = time.Until(until)
	}
	timer := time.NewTimer(wait)
	defer timer.Stop()
	n.quiet.Store(until.IsZero())
	defer n.quiet.Store(false)
	select {
	case <-n.agenda.arrived:
	case <-n.stop:
	case <-n.gone:
		<-n.stop
	case <-timer.C:
		if until.IsZero() {
			n.stuck()
		}
	}
}

// stuck fails the test, with what is unfinished, and sends whoever waits away.
func (n *Node) stuck() {
	text := fmt.Sprintf("nothing has happened for %d days of fake time: what the scenario waits for does not come", tooLong/(24*time.Hour))
	for _, line := range n.unfinished() {
		text += "\n\t" + line
	}
	n.t.Error(text)
	n.giveUp()
	n.cancel()
}

func (n *Node) trace(text string) {
	line := fmt.Sprintf("%12s  %s", time.Since(n.began).Round(time.Microsecond), text)
	n.log.Lock()
	defer n.log.Unlock()
	n.log.lines = append(n.log.lines, line)
}
