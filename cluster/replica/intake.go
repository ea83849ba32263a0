package replica

import (
	"sync"
)

// intake is how everything reaches the loop: a queue under a mutex and a channel of one slot
// that says there is something. A channel per message was rejected: at 64 proposers its locking
// and wake-ups cost more than all of Raft.
type intake struct {
	wake   chan struct{}
	gather int // gatherProposals, but in tests

	mu struct {
		sync.Mutex
		arrivals
		started bool
		closed  bool // no more proposals
		// appending is set while a sync is under way. Proposals then wait for it to end, or for
		// gather of them to be there: each round of the loop has a price per group, and
		// a record that is stepped early is not on disk any sooner than the next sync.
		appending bool

		// backlogBytes is what was proposed, or read back from the log, and is not in the store
		// yet: the sum of Group.mu.backlogBytes.
		backlogBytes int
	}
}

// gatherProposals is how many proposals are worth a round of their own while a sync is under way,
// so that the next append is prepared meanwhile.
const gatherProposals = 32

// arrivals is what gathered since the loop last looked.
type arrivals struct {
	proposals []proposal
	appends   []*appendBatch
	applies   []applyNotice
	broken    []*Group // got a proposal that was not the next one
	failure   error    // ends Run

	messages     []incoming // from other nodes
	messageBytes int
	barriers     []*barrier
	calls        []func(*loop) // run on the loop's goroutine
}

// proposal is a record on its way into the log. data is the entry.
type proposal struct {
	group           *Group
	epoch, sequence uint64
	data            []byte
}

// applyNotice says how far a group's store is.
type applyNotice struct {
	group       *Group
	index, term uint64
	void        error // set if a record of term voidTerm had no effect
	voidTerm    uint64
	halted      error // set if the entry after index cannot be applied
	installed   []*install
	dropped     bool // the store has nothing of the group any more
}

func (in *intake) start() bool {
	in.mu.Lock()
	defer in.mu.Unlock()
	first := !in.mu.started
	in.mu.started = true
	return first
}

func (in *intake) close() {
	in.mu.Lock()
	defer in.mu.Unlock()
	in.mu.closed = true
}

func (in *intake) failure() error {
	in.mu.Lock()
	defer in.mu.Unlock()
	return in.mu.failure
}

func (in *intake) signal() {
	select {
	case in.wake <- struct{}{}:
	default:
	}
}

// fail ends Run with err, unless something did before.
func (in *intake) fail(err error) {
	in.mu.Lock()
	if in.mu.failure == nil {
		in.mu.failure = err
	}
	in.mu.Unlock()
	in.signal()
}

// append notes that a sync begins; appended, that it ended.
func (in *intake) append() {
	in.mu.Lock()
	in.mu.appending = true
	in.mu.Unlock()
}

func (in *intake) appended(batch *appendBatch) {
	in.mu.Lock()
	in.mu.appending = false
	in.mu.appends = append(in.mu.appends, batch)
	in.mu.Unlock()
	in.signal()
}

// take moves what gathered to into, whose old slices are used for what comes next.
func (in *intake) take(into *arrivals) {
	clear(into.proposals)
	clear(into.appends)
	clear(into.applies)
	clear(into.broken)
	clear(into.messages)
	clear(into.barriers)
	clear(into.calls)
	in.mu.Lock()
	defer in.mu.Unlock()
	failure := in.mu.failure
	*into, in.mu.arrivals = in.mu.arrivals, arrivals{
		proposals: into.proposals[:0], appends: into.appends[:0],
		applies: into.applies[:0], broken: into.broken[:0], messages: into.messages[:0],
		barriers: into.barriers[:0], calls: into.calls[:0],
		failure: failure,
	}
}

// adjust changes a group's backlog by delta bytes.
func (in *intake) adjust(g *Group, delta int) {
	if delta == 0 {
		return
	}
	in.mu.Lock()
	defer in.mu.Unlock()
	in.mu.backlogBytes += delta
	g.mu.backlogBytes += delta
}
