package history

import (
	"slices"
	"sync"
	"time"
)

// Recorder collects a history from concurrent callers. Times are of one monotonic clock, from
// NewRecorder on. Its methods are safe for concurrent use.
type Recorder struct {
	began time.Time
	mu    struct {
		sync.Mutex
		txns  []Txn
		ended []bool
	}
}

// NewRecorder returns an empty one.
func NewRecorder() *Recorder { return &Recorder{began: time.Now()} }

// Pending is a transaction that has begun. Exactly one of its methods is called, when the
// caller knows; of several calls the first counts. They keep the lists inside the operations.
type Pending struct {
	recorder *Recorder
	index    int
}

// Begin notes that process is about to call a transaction: call it right before. The operations
// are those it is going to make, as far as they are known (reads as ReadUnknown); they count if
// the transaction never ends, so that what it may have appended is not taken for garbage.
func (r *Recorder) Begin(process int, planned ...Op) Pending {
	planned = slices.Clone(planned)
	r.mu.Lock()
	defer r.mu.Unlock()
	index := len(r.mu.txns)
	// The clock is read last: a beginning noted too early only makes the check weaker, but
	// waiting for the lock would make it so for every caller.
	r.mu.txns = append(r.mu.txns, Txn{
		ID: index, Process: process, Ops: planned, Outcome: Unknown, Began: int64(time.Since(r.began)),
	})
	r.mu.ended = append(r.mu.ended, false)
	return Pending{recorder: r, index: index}
}

// Committed notes that the caller was told that the transaction took effect, with all operations
// it made and what its reads returned.
func (p Pending) Committed(ops ...Op) { p.end(Committed, ops) }

// Aborted notes that the caller was told that nothing of it happened. The appends it tried are
// needed to recognize them in reads.
func (p Pending) Aborted(ops ...Op) { p.end(Aborted, ops) }

// Unknown notes that the caller cannot tell: a timeout, a broken connection. The appends it
// tried must be given, reads as far as they are known.
func (p Pending) Unknown(ops ...Op) { p.end(Unknown, ops) }

func (p Pending) end(outcome Outcome, ops []Op) {
	// Before the lock: the answer is here now.
	now := int64(time.Since(p.recorder.began))
	ops = slices.Clone(ops)
	r := p.recorder
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.mu.ended[p.index] {
		return
	}
	r.mu.ended[p.index] = true
	txn := &r.mu.txns[p.index]
	txn.Outcome, txn.Ops, txn.Ended = outcome, ops, now
}

// History returns what was recorded so far, in the order of beginnings. Transactions that have
// not ended are Unknown, with the operations given to Begin.
func (r *Recorder) History() []Txn {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.mu.txns)
}
