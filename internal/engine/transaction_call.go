package engine

import (
	"bytes"
	"cmp"
	"maps"
	"slices"

	"github.com/perdure/perdure/internal/invocation"
	"github.com/perdure/perdure/internal/limit/asker"
	recordv1 "github.com/perdure/perdure/internal/record/v1"
	"github.com/perdure/perdure/internal/transaction"
)

// branch is the participant's side of a try: what it holds of this partition's objects.
type branch struct {
	*transaction.Participant
	// coordinator is the partition that decides.
	coordinator uint32
	// number tells it from one that a late call of the same try begins anew after this one has
	// ended, here or in another leadership: only the one that answered the calls may promise. 0 is
	// a promise that an earlier leadership has made.
	number uint64
	// died is what the coordinator was told when it broke.
	died *recordv1.Died
	// calls that have been made here, those that have ended too: their answers may be asked for
	// again.
	calls map[transaction.Path]*live
}

// call is what an invocation has more that is a call inside a transaction. It has no row: it
// is gone with its try.
type call struct {
	branch *branch
	hold   *transaction.Hold
	path   transaction.Path
	join   *recordv1.Join
	// members and undone are what its own calls have added.
	members []*recordv1.Member
	undone  []transaction.Path
	// answer once it has ended: a Joined.
	answer *recordv1.Peer
}

// hear takes a message about a transaction.
func (e *Engine) hear(peer *recordv1.Peer, now int64) error {
	id, ok := transaction.IDOf(peer.GetId())
	if !ok {
		return nil
	}
	e.name = named{id, peer.Id}
	switch m := peer.Message.(type) {
	case *recordv1.Peer_Join:
		return e.joinTransaction(id, m.Join, now)
	case *recordv1.Peer_Joined:
		return e.answered(id, m.Joined, now)
	case *recordv1.Peer_Prepare:
		return e.prepare(id, m.Prepare, now)
	case *recordv1.Peer_Vote:
		return e.voted(id, m.Vote, now)
	case *recordv1.Peer_Died:
		return e.died(id, m.Died, now)
	case *recordv1.Peer_Inquire:
		if l := e.rootOf(id); l != nil {
			e.bringUpToDate(l, m.Inquire.From)
			return e.stillWaiting(l, m.Inquire, now)
		}
		e.inquired(id, m.Inquire.From, m.Inquire.Part)
		return nil
	case *recordv1.Peer_Commit:
		if e.rootOf(id) != nil { // It was handed on, and the answer is late.
			return e.voted(id, &recordv1.Vote{From: m.Commit.From, Yes: true, Committed: true}, now)
		}
		return e.commitBranch(id, cmp.Or(m.Commit.From, id.Root.Partition(e.config.Partitions)), now)
	case *recordv1.Peer_Committed:
		e.committed(id, m.Committed.From)
		return nil
	case *recordv1.Peer_Wound:
		if l := e.rootOf(id); l != nil {
			e.wound(l, m.Wound.Reader)
			return nil
		}
		e.inquired(id, m.Wound.From, 0)
		return nil
	case *recordv1.Peer_Passed:
		if l := e.rootOf(id); l != nil {
			e.starve(l, now)
		}
		return nil
	case *recordv1.Peer_Starving:
		return e.heardStarving(m.Starving, now)
	}
	b := e.branches[id]
	if b == nil {
		return nil
	}
	e.changed = true
	switch m := peer.Message.(type) {
	case *recordv1.Peer_Rollback:
		e.passOn(b, peer)
		return e.rollBackBranch(b, m.Rollback.Promised, now)
	case *recordv1.Peer_Wounded:
		if !b.Wounded {
			b.Wounded = true
			e.passOn(b, peer)
			for _, hold := range b.Holds {
				e.locks.Wound(&hold.Request)
			}
		}
	case *recordv1.Peer_Writes:
		if b.Age.Reader {
			e.passOn(b, peer)
		}
		e.writes(b)
	}
	return e.settle(now)
}

// orphaned reports whether one of the calls was made by a handler that has run anew since, in
// another leadership of its partition: it may not make that call again, or make another one.
func (e *Engine) orphaned(b *branch, parts []*recordv1.Member, undone []transaction.Path) bool {
	for path, l := range b.calls {
		from := l.call.join.From
		if from != e.config.Partition && !slices.ContainsFunc(undone, path.Under) && !transaction.HasPart(parts, from, l.call.join.Part) {
			return true
		}
	}
	return false
}

// passOn repeats the coordinator's word to partitions that calls from here have reached, and of
// which it knows nothing before they answer.
func (e *Engine) passOn(b *branch, peer *recordv1.Peer) {
	told := map[uint32]bool{e.config.Partition: true}
	for _, path := range slices.Sorted(maps.Keys(b.calls)) {
		calls := b.calls[path].calls
		for _, index := range slices.Sorted(maps.Keys(calls)) {
			if to := calls[index].to; !told[to] {
				told[to] = true
				e.tell(to, b.ID, false, &recordv1.Peer{Message: peer.Message})
			}
		}
	}
}

// bringUpToDate repeats to a participant what it may have missed.
func (e *Engine) bringUpToDate(l *live, partition uint32) {
	if l.root.Wounded {
		e.tell(partition, l.root.ID, false, &recordv1.Peer{Message: &recordv1.Peer_Wounded{Wounded: &recordv1.Wounded{}}})
	}
	if !l.root.Age.Reader {
		e.tell(partition, l.root.ID, false, &recordv1.Peer{Message: &recordv1.Peer_Writes{Writes: &recordv1.Writes{}}})
	}
}

func (ev *Told) evaluate(e *Engine, now int64) error { return e.hear(ev.Peer, now) }

// writes makes a try one that does not only read.
func (e *Engine) writes(b *branch) {
	if !b.Age.Reader {
		return
	}
	b.Age.Reader = false
	for _, hold := range b.Holds {
		e.locks.Writes(&hold.Request)
	}
}

// joinTransaction makes a call part of its transaction: its handler runs as soon as the try has the key.
func (e *Engine) joinTransaction(id transaction.ID, join *recordv1.Join, now int64) error {
	in, path := join.Invoke, transaction.Path(join.Path)
	if in.GetTarget() == nil {
		return nil
	}
	b := e.branches[id]
	if b == nil {
		b = &branch{
			Participant: transaction.NewParticipant(id, transaction.AgeOf(join.Age), now),
			coordinator: id.Root.Partition(e.config.Partitions), number: e.nextSequence(), calls: map[transaction.Path]*live{},
		}
		b.Wounded = join.Wounded
		if b.coordinator == e.config.Partition && e.rootOf(id) == nil {
			return nil
		}
		e.branches[id] = b
	}
	e.changed = true
	if known := b.calls[path]; known != nil {
		if known.call.join.Part != join.Part { // Its caller may ask for something else now.
			return e.breakOff(b, "the handler that called "+known.target.String()+" began anew", &recordv1.Died{})
		}
		if known.call.answer != nil {
			e.answer(known)
		}
		return nil
	}
	if b.Phase != transaction.Running || b.Broken != "" {
		return nil // It is late: the try ends without it.
	}
	b.Undo(transaction.AddPaths(nil, join.Undone))
	if !join.Age.GetReader() {
		e.writes(b)
	}
	target := targetOf(in.Target)
	l, row := newCall()
	l.id, l.target = transaction.CallID(id, path, target), target
	l.call.branch, l.call.path, l.call.join = b, path, join
	row.Target, row.Mode, row.CreatedAt, row.Traceparent, row.DeadlineAt = in.Target, in.Mode, now, in.Traceparent, in.DeadlineAt
	row.Input, row.Headers, row.StepTimeoutMs, row.Chain, row.Attempt = in.Input, in.Headers, in.StepTimeoutMs, in.Chain, join.Try-1
	row.Flow = asker.FlowOf(in.Flow) // For what it sends; its limits don't count, its root has begun.
	b.calls[path] = l
	if !join.Reserve {
		e.live[l.id] = l
	}
	return e.seekKey(b, l, now)
}

// newCall is a call that is part of a transaction, with its row: one allocation.
func newCall() (*live, *recordv1.Invocation) {
	var all struct {
		live live
		call call
		row  recordv1.Invocation
	}
	all.live.call, all.live.row = &all.call, &all.row
	return &all.live, &all.row
}

// seekKey runs a call if its try has the key, and asks for the key otherwise.
func (e *Engine) seekKey(b *branch, l *live, now int64) error {
	hold := b.Find(l.target.Object())
	if l.target.Key == "" {
		hold = nil // Nobody holds what has no key: each call is for itself.
	}
	if hold != nil {
		l.call.hold = hold
		hold.Waiting = append(hold.Waiting, l)
		if hold.Running != nil || hold.Request.Waiting() {
			l.row.Status = recordv1.Status_STATUS_QUEUED
			if !l.call.join.Reserve {
				e.locks.NotAlone(&hold.Request)
			}
			return e.settle(now)
		}
		return e.next(b, hold, now)
	}
	hold = b.Want(l.row.Target, l.mode() == invocation.ModeRead)
	l.call.hold = hold
	hold.Waiting = append(hold.Waiting, l)
	if l.target.Key == "" {
		return e.next(b, hold, now)
	}
	hold.Request.Alone = l.call.join.Reserve
	switch e.locks.Acquire(&hold.Request) {
	case transaction.Has:
		return e.next(b, hold, now)
	case transaction.Blocked, transaction.Yields:
		return e.stuck(b, hold, hold.Request.Shared)
	}
	l.row.Status = recordv1.Status_STATUS_QUEUED
	return e.settle(now)
}

// next runs the next call of a try on an object whose key it has.
func (e *Engine) next(b *branch, hold *transaction.Hold, now int64) error {
	if hold.Running != nil || len(hold.Waiting) == 0 || b.Broken != "" {
		return e.settle(now)
	}
	l := hold.Waiting[0].(*live)
	if hold.Request.Shared && l.mode() != invocation.ModeRead {
		if hold.Request.Waiting() {
			return nil
		}
		switch e.locks.Upgrade(&hold.Request) {
		case transaction.Has:
		case transaction.Blocked, transaction.Yields:
			return e.stuck(b, hold, false)
		default:
			return e.settle(now)
		}
	}
	hold.Waiting = hold.Waiting[1:]
	if err := e.settle(now); err != nil {
		return err
	}
	if l.call.join.Reserve {
		return e.finishCall(l, &recordv1.Result{}, nil, now)
	}
	hold.Running = l
	hold.Sees(l.call.path)
	return e.start(l, now)
}

// finishCall ends a call: the caller gets its result, and what it wants to write waits for the
// end of the transaction. What a call that fails has done, and had done on its behalf, is
// taken back.
func (e *Engine) finishCall(l *live, result *recordv1.Result, entries []*recordv1.Entry, now int64) error {
	e.changed = true
	c := l.call
	if l.running {
		l.running = false
		e.effect(&EndAttempt{ID: l.id})
	}
	delete(e.live, l.id)
	undone := c.undone
	switch {
	case result.GetError() == nil:
		c.hold.Write(c.path, entries)
	case len(c.members) > 0:
		undone = []transaction.Path{c.path}
		c.branch.Undo(undone)
	}
	envelope, answer, own := transaction.NewJoined[Tell]()
	own.Partition, own.Epoch, own.Writes = e.config.Partition, c.branch.number, c.branch.Writes()
	answer.From, answer.Caller, answer.Attempt, answer.Index, answer.Result = e.config.Partition, c.join.Caller, c.join.Attempt, c.join.Index, result
	answer.Part = c.join.Part
	answer.Members = append(transaction.AppendKnown(answer.Members, c.members), own)
	answer.Undone = transaction.RecordPaths(undone)
	c.answer = &envelope.Peer
	e.post(c.join.From, c.branch.ID, false, envelope)
	if c.hold.Running == any(l) {
		c.hold.Running = nil
	}
	return e.next(c.branch, c.hold, now)
}

func (e *Engine) answer(l *live) {
	c := l.call
	e.tell(c.join.From, c.branch.ID, false, c.answer)
}

// breakOff says that a try can't commit. It keeps its keys until the coordinator takes it
// back: a call that came late would otherwise find them free and begin the try anew, without
// what it has written so far.
func (e *Engine) breakOff(b *branch, why string, died *recordv1.Died) error {
	if b.Broken != "" || b.Phase != transaction.Running {
		return nil
	}
	e.changed = true
	died.From = e.config.Partition
	b.Broken, b.died = why, died
	e.tellDied(b)
	return nil
}

func (e *Engine) tellDied(b *branch) {
	if b.died == nil { // Undo broke it.
		b.died = &recordv1.Died{From: e.config.Partition}
	}
	e.tell(b.coordinator, b.ID, false, &recordv1.Peer{Message: &recordv1.Peer_Died{Died: b.died}})
}

// drop forgets a try here: its handlers are stopped and its keys go to others.
func (e *Engine) drop(b *branch) {
	e.changed = true
	delete(e.branches, b.ID)
	for _, path := range sortedPaths(b.calls) {
		l := b.calls[path]
		if l.running {
			l.running = false
			e.effect(&AbortAttempt{ID: l.id, Reason: "the transaction was rolled back"})
		}
		delete(e.live, l.id)
	}
	for _, hold := range b.Holds {
		e.releaseHold(hold)
	}
}

// sortedPaths is nothing without calls, as those have that have promised.
func sortedPaths(calls map[transaction.Path]*live) []transaction.Path {
	if len(calls) == 0 {
		return nil
	}
	return slices.Sorted(maps.Keys(calls))
}

func (e *Engine) releaseHold(hold *transaction.Hold) {
	if hold.Request.Held() || hold.Request.Waiting() {
		e.locks.Release(&hold.Request)
	}
}

func (e *Engine) sortedRoots() []*live {
	return slices.SortedFunc(maps.Values(e.roots), func(a, b *live) int { return bytes.Compare(a.id[:], b.id[:]) })
}

// sortedBranches are in an order that is the same in each run of a test, unlike that of a map.
func (e *Engine) sortedBranches() []*branch {
	return slices.SortedFunc(maps.Values(e.branches), func(a, b *branch) int { return a.ID.Compare(b.ID) })
}

// Busy reports whether there is anything that Tick would look after.
func (e *Engine) Busy() bool {
	return len(e.roots) > 0 || len(e.branches) > 0 || len(e.decisions) > 0 || len(e.early) > 0
}

// tooMuch refuses what one transaction wants to write in this partition if it would not fit a
// record. of says who writes; it is called only then.
func (e *Engine) tooMuch(of func() string, bytes, writes int) *recordv1.Error {
	switch {
	case bytes > e.config.MaxWriteBytes:
		return failure(codeResourceExhausted, "%s: the transaction writes %d bytes to objects of one partition, more than the %d that fit one record: split it", of(), bytes, e.config.MaxWriteBytes).Error
	case writes > e.config.MaxWrites:
		return failure(codeResourceExhausted, "%s: the transaction makes %d writes and sends in one partition, more than the %d that fit one record: split it", of(), writes, e.config.MaxWrites).Error
	}
	return nil
}

// selfWaits are the calls that wait for others of their own transaction.
func (b *branch) selfWaits() []*recordv1.SelfWait {
	var waits []*recordv1.SelfWait
	for _, hold := range b.Holds {
		running, _ := hold.Running.(*live)
		if running == nil {
			continue
		}
		for _, waiting := range hold.Waiting {
			l := waiting.(*live)
			waits = append(waits, &recordv1.SelfWait{
				Path: []byte(l.call.path), For: []byte(running.call.path), Target: l.row.Target, ForTarget: running.row.Target,
			})
		}
	}
	return waits
}
