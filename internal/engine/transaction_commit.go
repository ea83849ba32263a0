package engine

import (
	"fmt"
	"slices"

	"google.golang.org/protobuf/proto"

	recordv1 "github.com/perdure/perdure/internal/record/v1"
	"github.com/perdure/perdure/internal/table"
	"github.com/perdure/perdure/internal/transaction"
)

// decision is a transaction that has committed and of which somebody has to hear yet.
type decision struct {
	at      int64
	waiting []uint32
	// told is when they were told last.
	told int64
	// damaged: who has to hear of it can't be read, so it is never known that all have.
	damaged bool
}

// finishRoot ends a root's handler. Its transaction commits if it succeeded. If not, nothing
// takes effect; but its caller hears of the error only when what it has read is known to be
// durable.
func (e *Engine) finishRoot(l *live, result *recordv1.Result, entries []*recordv1.Entry, now int64) error {
	l.running, e.changed = false, true
	e.effect(&EndAttempt{ID: l.id})
	c := l.root
	if result.GetError() != nil && now-l.since >= e.limit(l) {
		return e.tooLong(l, now) // The end of a callee's ctx says less about why than this does.
	}
	own := e.branches[c.ID]
	if own != nil {
		own.Undo(c.Undone())
		switch {
		case own.Broken != "", result.GetError() == nil && e.orphaned(own, c.Parts(), c.Undone()):
			return e.retry(l, RetryOther, nil, now)
		case own.Torn && result.GetError() == nil:
			result = torn(l.target.String())
		}
	}
	if result.GetError() == nil {
		bytes, writes := transaction.SizeOf(entries)
		if own != nil {
			more, moreWrites := own.Size()
			bytes, writes = bytes+more, writes+moreWrites
		}
		if refused := e.tooMuch(l.target.String, bytes+proto.Size(result), writes); refused != nil {
			result = &recordv1.Result{Error: refused}
		}
	}
	return e.conclude(l, result, entries, now)
}

// torn is what becomes of a transaction of which one part has seen what another took back.
func torn(of string) *recordv1.Result {
	return failure(codeFailedPrecondition,
		"%s: a call has seen what another call of the same transaction wrote, and that one failed later. Await one before making the other", of)
}

// conclude asks the participants, if there are others than this partition.
func (e *Engine) conclude(l *live, result *recordv1.Result, entries []*recordv1.Entry, now int64) error {
	c := l.root
	c.result, c.entries, c.Since = result, entries, now
	c.Phase = transaction.Preparing
	if l.lock != nil {
		l.lock.Prepared = true // It waits for nothing any more.
	}
	if result.GetError() != nil {
		c.Phase = transaction.RollingBack
	}
	if !slices.ContainsFunc(c.Members(), func(partition uint32) bool { return partition != e.config.Partition }) {
		return e.decide(l, now)
	}
	// One that has read its own state must not be overtaken by what depends on that. Several are not
	// asked so after a try that was lost: what it met may be there still.
	if c.Phase == transaction.Preparing && !l.denied && e.branches[c.ID] == nil && len(entries) == 0 && l.lock == nil &&
		!l.stored && l.row.RetentionMs <= 0 && l.row.Caller == nil && len(l.row.Waiters) == 0 {
		c.HandOn(e.config.Partition, l.unlucky == 0 && e.config.HandOn != nil && e.config.HandOn())
	}
	e.askToPrepare(l, 0)
	if bugDecision && c.Phase == transaction.Preparing {
		return e.decide(l, now)
	}
	return nil
}

// hideOwn hides what this partition is going to write, as participants do that have promised:
// see Coordinator.Prepare.
func (e *Engine) hideOwn(l *live, own *branch) {
	if len(l.root.hidden) > 0 || l.root.Phase != transaction.Preparing {
		return
	}
	if l.target.Key != "" && len(l.root.entries) > 0 {
		l.root.hidden = append(l.root.hidden, l.target.Object())
	}
	if own != nil {
		for _, hold := range own.Holds {
			if hold.Request.Object.Key != "" && len(hold.Entries()) > 0 {
				l.root.hidden = append(l.root.hidden, hold.Request.Object)
			}
		}
	}
	for _, object := range l.root.hidden {
		e.effect(&Hide{object})
	}
}

func (e *Engine) showOwn(l *live) {
	for _, object := range l.root.hidden {
		e.effect(&Show{object})
	}
	l.root.hidden = nil
}

// askToPrepare asks those whose answer is missing. Before it asks finally, this partition does
// what others have done then: it hides what it is going to write, and what was read here is
// durable.
func (e *Engine) askToPrepare(l *live, only uint32) {
	own := e.branches[l.root.ID]
	final := l.root.Final(e.config.Partition)
	if final {
		e.hideOwn(l, own)
	}
	l.root.Prepare(e.config.Partition, func(partition uint32, prepare *recordv1.Prepare) {
		if only == 0 || partition == only {
			e.post(partition, l.root.ID, final && (own != nil || l.lock != nil), transaction.NewPrepare[Tell](prepare))
		}
	})
}

// prepare answers a coordinator that wants to commit, or to know that what was read is durable.
func (e *Engine) prepare(id transaction.ID, m *recordv1.Prepare, now int64) error {
	b := e.branches[id]
	coordinator := id.Root.Partition(e.config.Partitions)
	envelope, vote := transaction.NewVote[Tell]()
	vote.From, vote.Final = e.config.Partition, m.Final
	say := func() {
		if vote.Yes || len(m.Writers) > 0 {
			e.assure(coordinator, id, vote.Yes, envelope)
		} else { // It can only cost another try.
			e.post(coordinator, id, false, envelope)
		}
	}
	if len(m.Writers) > 0 && (b == nil || b.number != m.Epoch) {
		// Its decision stays until the coordinator has heard of it: without one it never committed.
		vote.Yes = e.decisions[id] != nil
		vote.Committed = vote.Yes
		say()
		return nil
	}
	if m.Alone && (b == nil || b.number != m.Epoch) && uint32(m.Epoch>>32) != uint32(e.epoch) {
		vote.Refused = failure(codeUnavailable, "partition %d lost its leader while it was asked to commit, and can't say whether it had; nothing else took effect", e.config.Partition).Error
	}
	if b == nil {
		say() // Another leadership ran the calls, or it has said yes and had nothing to write.
		return nil
	}
	e.changed = true
	switch b.Phase {
	case transaction.Prepared:
		// What was read beside a DURABLE handler is confirmed when everybody who writes has promised.
		// A later leadership does not know what that has written since, nor whether it was there.
		vote.Confirm = (b.Beside() || b.number == 0 && b.Shares()) && !m.Final
		vote.Yes = !m.Discard && (!m.Final || b.number == m.Epoch && !b.Overtaken)
		say()
		return nil
	case transaction.Committed:
		vote.Yes, vote.Committed = true, true
		say()
		return nil
	}
	if !m.Discard {
		b.Undo(transaction.AddPaths(nil, m.Undone))
	}
	if m.Epoch != b.number || b.Broken != "" || !m.Discard && e.orphaned(b, m.Parts, transaction.AddPaths(nil, m.Undone)) {
		e.drop(b)
		say()
		return e.settle(now)
	}
	vote.Yes = true
	bytes, writes := b.Size()
	refused := e.tooMuch(func() string { return fmt.Sprint("partition ", e.config.Partition) }, bytes, writes)
	switch {
	case m.Discard || !b.Writes() && !b.Torn && len(m.Writers) == 0:
		vote.Reader = true
		if m.Final {
			e.drop(b)
		}
	case b.Torn:
		vote.Yes, vote.Refused = false, torn(fmt.Sprint("partition ", e.config.Partition)).Error
		e.drop(b)
	case refused != nil:
		vote.Yes, vote.Refused = false, refused
		e.drop(b)
	case m.Alone:
		if err := e.applyBranch(b, now); err != nil {
			return err
		}
		vote.Committed = true
		e.drop(b)
		if len(m.Writers) > 0 {
			if err := e.announce(id, m.Writers, now, coordinator); err != nil {
				return err
			}
			break
		}
		// Asked or called again, it must not begin anew: nobody else knows that it has committed.
		b.Phase, b.Since, b.Holds = transaction.Committed, now, nil
		clear(b.calls)
		e.branches[id] = b
	default:
		vote.Confirm, b.Decider = b.Beside() && !m.Final, m.Decider
		b.coordinator = b.Coordinator(e.config.Partitions)
		if err := e.promise(b, now); err != nil {
			// What can't be written now never can: not in another try either.
			vote.Yes, vote.Refused = false, failure(codeInternal, "partition %d can't promise what the transaction writes: %v", e.config.Partition, err).Error
			e.drop(b)
		}
	}
	say()
	return e.settle(now)
}

// promise makes a participant prepared: from the record on it commits if the coordinator says
// so, whatever happens to this leadership. After an error it is as it was, but for what waits.
func (e *Engine) promise(b *branch, now int64) error {
	b.Since = now
	b.Holds = slices.DeleteFunc(b.Holds, func(hold *transaction.Hold) bool {
		if hold.Request.Waiting() { // For a call whose caller has failed.
			e.locks.Withdraw(&hold.Request)
			return !hold.Request.Held()
		}
		return false
	})
	if err := e.putMessage(table.Prepared(b.ID.Root, b.ID.Sequence), b.Record(e.nameOf(b.ID))); err != nil {
		return err
	}
	b.Phase = transaction.Prepared
	for _, hold := range b.Holds {
		hold.Running, hold.Waiting = nil, nil
		hold.Request.Prepared = true
		if bugUnlock {
			e.releaseHold(hold)
		}
		e.hide(hold)
	}
	for _, l := range b.calls {
		if l.running {
			l.running = false
			e.effect(&AbortAttempt{ID: l.id, Reason: "its caller has failed"})
		}
		delete(e.live, l.id)
	}
	clear(b.calls)
	return nil
}

func (e *Engine) hide(hold *transaction.Hold) {
	if hold.Request.Object.Key != "" && len(hold.Entries()) > 0 {
		e.effect(&Hide{hold.Request.Object})
	}
}

// voted takes a participant's answer.
func (e *Engine) voted(id transaction.ID, vote *recordv1.Vote, now int64) error {
	l := e.rootOf(id)
	if l == nil {
		return nil
	}
	c := l.root
	asked := c.Alone
	if !c.Heeds(vote) {
		return nil
	}
	e.changed, l.denied = true, l.denied || asked && !vote.Yes
	if vote.Refused != nil && c.Phase == transaction.Preparing {
		return e.end(l, recordv1.Status_STATUS_FAILED, &recordv1.Result{Error: vote.Refused}, now)
	}
	if vote.Committed && c.Alone {
		l.answered = true
		if len(c.Writers()) > 0 { // It may forget it.
			e.post(vote.From, id, false, e.words.Committed())
		} else {
			e.tell(vote.From, id, false, &recordv1.Peer{Message: &recordv1.Peer_Rollback{Rollback: &recordv1.Rollback{}}})
		}
		return e.finished(l, now)
	}
	switch c.Vote(e.config.Partition, vote) {
	case transaction.Decided:
		return e.decide(l, now)
	case transaction.NextRound:
		e.askToPrepare(l, 0)
	case transaction.Lost:
		return e.retry(l, RetryLost, nil, now)
	}
	return nil
}

// decide ends a transaction: if its root succeeded, all that this partition has to write, the
// root's result and the decision are one record, and that is the commit.
func (e *Engine) decide(l *live, now int64) error {
	c := l.root
	own := e.branches[c.ID]
	if own != nil && own.Broken != "" { // while the votes were on their way
		return e.retry(l, RetryOther, nil, now)
	}
	if c.result.GetError() == nil {
		for _, entry := range c.entries {
			if err := e.apply(l, 0, entry, now); err != nil {
				return err
			}
		}
		if own != nil {
			// A call whose caller failed before it did may have ended since the root has.
			own.Undo(c.Undone())
			if err := e.applyBranch(own, now); err != nil {
				return err
			}
		}
		if err := e.announce(c.ID, c.Writers(), now); err != nil {
			return err
		}
	}
	if own != nil {
		e.drop(own)
	}
	return e.finished(l, now)
}

// finished completes a root whose transaction has its outcome everywhere.
func (e *Engine) finished(l *live, now int64) error {
	result := l.root.result
	e.endTransaction(l, result.GetError() == nil, now)
	return e.complete(l, statusOf(l, result), result, now)
}

// announce writes the decision, and tells every participant that has promised. It is told again
// until it has written its part, and so are others that have not heard of it; the decision stays
// as long.
func (e *Engine) announce(id transaction.ID, writers []uint32, now int64, others ...uint32) error {
	if len(writers) == 0 {
		return nil
	}
	e.tellCommit(id, writers)
	d := &decision{at: now, waiting: slices.Concat(writers, others), told: now}
	e.decisions[id] = d
	return e.putMessage(table.Decision(id.Root, id.Sequence), &recordv1.Decision{Id: e.nameOf(id), At: now, Participants: d.waiting})
}

// tellCommit is gated: nobody may hear of a decision that is not durable.
func (e *Engine) tellCommit(id transaction.ID, participants []uint32) {
	for _, partition := range participants {
		e.post(partition, id, true, e.words.Commit())
	}
}

// commitBranch makes what a participant has promised take effect. Nothing waits for the record
// but READ handlers: what the keys' next holders do depends on it anyway. A participant without
// the promise has kept it before, and its answer was lost.
func (e *Engine) commitBranch(id transaction.ID, from uint32, now int64) error {
	b := e.branches[id]
	if e.unreadable[id] {
		return fmt.Errorf("transaction %s has committed, and what partition %d promised to write can't be read", id, e.config.Partition)
	}
	e.out.Lazy = true
	e.assure(from, id, true, e.words.Committed())
	if b == nil {
		return nil
	}
	e.changed = true
	if b.Phase != transaction.Prepared {
		e.drop(b) // It was begun by a call that was repeated and came after the end.
		return e.settle(now)
	}
	if err := e.applyBranch(b, now); err != nil {
		return err
	}
	return e.forgetPromise(b, now)
}

// committed notes that a participant has written its part. With the last one the decision is
// no longer needed.
func (e *Engine) committed(id transaction.ID, from uint32) {
	d := e.decisions[id]
	if d == nil {
		return
	}
	e.changed = true
	e.out.Lazy = true
	d.waiting = slices.DeleteFunc(slices.Clone(d.waiting), func(p uint32) bool { return p == from })
	if len(d.waiting) == 0 && !d.damaged {
		delete(e.decisions, id)
		e.delete(table.Decision(id.Root, id.Sequence))
	}
}

// forgetPromise ends a participant that has written its part, or is not to.
func (e *Engine) forgetPromise(b *branch, now int64) error {
	e.delete(table.Prepared(b.ID.Root, b.ID.Sequence))
	for _, hold := range b.Holds {
		if hold.Request.Object.Key != "" && len(hold.Entries()) > 0 {
			e.effect(&Show{hold.Request.Object})
		}
	}
	e.drop(b)
	return e.settle(now)
}

func (e *Engine) rollBackBranch(b *branch, promised bool, now int64) error {
	if b.Phase == transaction.Prepared {
		if b.Decider != nil && !promised {
			return nil // By a coordinator that does not know whether its predecessor has handed the decision on.
		}
		return e.forgetPromise(b, now)
	}
	e.drop(b)
	return e.settle(now)
}

// applyBranch writes what the calls of a try want to write here.
func (e *Engine) applyBranch(b *branch, now int64) error {
	for _, hold := range b.Holds {
		e.applied.target = targetOf(hold.Target)
		for _, entry := range hold.Entries() {
			if err := e.apply(e.applied, 0, entry, now); err != nil {
				return err
			}
		}
	}
	return nil
}

// inquired answers a participant that has heard nothing of a try: one that is neither under way
// nor decided never committed and never will. A later leadership's tries are not this one's to
// judge. part is that of this partition, if it is to decide; 0: it is the coordinator.
func (e *Engine) inquired(id transaction.ID, from uint32, part uint64) {
	if d := e.decisions[id]; d != nil {
		e.tellCommit(id, []uint32{from})
		return
	}
	b := e.branches[id]
	switch {
	case part == 0 && (e.rootOf(id) != nil || id.Epoch() > e.epoch&0xffffffff):
		return
	case part>>32 > e.epoch&0xffffffff || part != 0 && b != nil && b.number == part:
		return
	}
	rollback := &envelope{}
	rollback.Peer.Message = &recordv1.Peer_Rollback{Rollback: &recordv1.Rollback{Promised: part != 0}}
	e.assure(from, id, false, rollback)
}
