package engine

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/perdure/perdure/internal/invocation"
	recordv1 "github.com/perdure/perdure/internal/record/v1"
	"github.com/perdure/perdure/internal/transaction"
)

// root is what an invocation has more while it is the root of a transaction: the coordinator's
// side, in memory only.
type root struct {
	*transaction.Coordinator
	// result and entries of the handler, once it has ended.
	result  *recordv1.Result
	entries []*recordv1.Entry
	// blocked is the key that the next try waits for before it begins, while it does.
	blocked *recordv1.Died
	// hidden are objects of this partition that READ handlers wait for.
	hidden []invocation.Object
	// parked: the next try begins with the next Tick.
	parked bool
	// byReader: it was asked to give way to one that only reads.
	byReader bool
}

// handedOn reports whether a participant decides about the transaction that l is the root of. From
// then on l must not be written down: a successor that found it would run it again.
func (l *live) handedOn() bool { return l.root != nil && l.root.HandedOn() }

// outgoing is a call that was not answered yet.
type outgoing struct {
	to   uint32
	peer *recordv1.Peer
	at   int64
}

func (ev *Call) evaluate(e *Engine, now int64) error {
	l := e.attempt(ev.ID, ev.Attempt)
	if l == nil {
		return nil
	}
	e.changed = true
	in := ev.Invoke
	target := targetOf(in.GetTarget())
	in.Chain = l.row.Chain
	if l.target.Key != "" {
		in.Chain = append(l.row.Chain[:len(l.row.Chain):len(l.row.Chain)], l.row.Target)
	}
	outer := uint32(len(l.row.Chain))
	if l.call != nil {
		outer = l.call.join.Outer
	}
	if refusal := refuseCall(in, target, outer); refusal != nil {
		e.effect(&Notify{ID: l.id, Completion: &recordv1.Completion{Entry: ev.Index, Result: refusal, At: now}})
		return nil
	}
	if e.holdBack(l, ev, now) {
		return nil
	}
	if len(e.early) > 0 {
		for _, earlier := range e.earlierCalls(l) {
			e.makeCall(l, earlier, outer, now)
		}
	}
	e.makeCall(l, ev, outer, now)
	return e.settle(now)
}

func (e *Engine) makeCall(l *live, ev *Call, outer uint32, now int64) {
	in, target := ev.Invoke, targetOf(ev.Invoke.Target)
	writes := invocation.Mode(in.Mode) != invocation.ModeRead
	var age *transaction.Age
	if l.call != nil {
		age = &l.call.branch.Age
	} else {
		if l.root == nil {
			e.begin(l, now)
		}
		if age = &l.root.Age; age.Reader && writes {
			age.Reader = false
			if len(l.root.Members()) > 0 {
				e.tellMembers(l, &recordv1.Peer{Message: &recordv1.Peer_Writes{Writes: &recordv1.Writes{}}})
			}
		}
	}
	envelope, join, kept := transaction.NewJoin[Tell, outgoing](age)
	join.From, join.Caller, join.Attempt, join.Index, join.Invoke, join.Outer = e.config.Partition, l.id[:], ev.Attempt, ev.Index, in, outer
	to := e.config.Partition
	if target.Key != "" {
		to = invocation.PartitionOf(target.Hash(), e.config.Partitions)
	}
	var id transaction.ID
	if c := l.call; c != nil {
		id = c.branch.ID
		join.Wounded, join.Try, join.Part = c.branch.Wounded, c.join.Try, c.branch.number
		join.Path = []byte(c.path.Child(ev.Index))
		// What was undone before this call began, the callee may meet too.
		join.Undone = transaction.RecordPaths(transaction.AddPaths(c.undone, c.join.Undone))
		c.members = transaction.AddCalled(c.members, to)
	} else {
		c := l.root
		c.Called(to)
		id = c.ID
		join.Wounded, join.Try = c.Wounded, l.row.Attempt
		join.Path, join.Undone = []byte(transaction.Path("").Child(ev.Index)), transaction.RecordPaths(c.Undone())
		in.DeadlineAt = earlier(in.DeadlineAt, l.since+e.limit(l))
	}
	in.DeadlineAt = earlier(in.DeadlineAt, l.row.DeadlineAt)
	if l.calls == nil {
		l.calls = map[uint32]*outgoing{}
	}
	*kept = outgoing{to, &envelope.Peer, now}
	l.calls[ev.Index] = kept
	e.post(to, id, false, envelope)
}

// earlier is the earlier of two instants of which 0 is never.
func earlier(a, b int64) int64 {
	if a == 0 || b != 0 && b < a {
		return b
	}
	return a
}

// refuseCall says why a transaction can't make a call.
func refuseCall(in *recordv1.Invoke, target invocation.Target, outer uint32) *recordv1.Result {
	mode := invocation.Mode(in.GetMode())
	if mode != invocation.ModeTransaction && mode != invocation.ModeRead {
		return failure(codeFailedPrecondition, "a transaction can't call %s, which is %s: Send it, or make the calling handler mode: DURABLE", target, mode)
	}
	if len(in.Chain) >= transaction.MaxDepth {
		return failure(codeResourceExhausted, "%s would be call %d of a chain of calls that wait for each other, more than the %d there may be", target, len(in.Chain)+1, transaction.MaxDepth)
	}
	if target.Key == "" {
		return nil
	}
	chain := in.Chain
	if mode == invocation.ModeRead {
		chain = chain[min(int(outer), len(chain)):] // It reads beside those that wait for the transaction.
	}
	return cycleIn(chain, target)
}

// begin makes an invocation the root of a transaction.
func (e *Engine) begin(l *live, now int64) {
	l.root = &root{}
	if l.spread == 0 {
		l.spread = now
	}
	e.newTry(l, !l.holdsKey(), now)
	if l.lock != nil {
		e.locks.Spread(l.lock, l.root.ID, l.root.Age)
	}
	e.roots[l.id] = l
}

func (e *Engine) newTry(l *live, reader bool, now int64) {
	l.root.Coordinator = &transaction.Coordinator{
		ID:    transaction.ID{Root: l.id, Sequence: e.nextSequence()},
		Age:   transaction.Age{At: l.row.CreatedAt, Root: l.id, Reader: reader},
		Phase: transaction.Running, Since: now,
	}
}

// tellMembers takes a message to everybody whom a transaction has called.
func (e *Engine) tellMembers(l *live, peer *recordv1.Peer) {
	for _, partition := range l.root.Members() {
		e.tell(partition, l.root.ID, false, peer)
	}
}

// rootOf is the root of a try that is under way here, or nil.
func (e *Engine) rootOf(id transaction.ID) *live {
	if l := e.roots[id.Root]; l != nil && l.root.ID == id {
		return l
	}
	return nil
}

// wound asks a root to give way as soon as it would have to wait.
func (e *Engine) wound(l *live, byReader bool) {
	if l.root != nil {
		l.root.byReader = l.root.byReader || byReader
	}
	if l.root == nil || l.root.Wounded || l.root.Phase != transaction.Running || bugWound {
		return
	}
	e.changed = true
	l.root.Wounded = true
	e.tellMembers(l, &recordv1.Peer{Message: &recordv1.Peer_Wounded{Wounded: &recordv1.Wounded{}}})
}

// answered takes the answer to a call.
func (e *Engine) answered(id transaction.ID, answer *recordv1.Joined, now int64) error {
	caller, _ := invocation.IDFromBytes(answer.Caller)
	l := e.live[caller]
	if l == nil || l.calls[answer.Index] == nil || answer.Index != 0 && (!l.running || l.row.Attempt != answer.Attempt) {
		return nil
	}
	undone := transaction.AddPaths(nil, answer.Undone)
	switch {
	case l.call != nil && l.call.branch.number != answer.Part:
		return nil // It answers what the handler called before it began anew.
	case l.call != nil && l.call.branch.ID == id:
		l.call.members = append(l.call.members, answer.Members...)
		l.call.undone = transaction.AddPaths(l.call.undone, answer.Undone)
	case l.root != nil && l.root.ID == id:
		l.root.Undo(undone...)
		if !l.root.Answered(answer.Members) {
			return e.retry(l, RetryLost, nil, now)
		}
	default:
		return nil
	}
	e.changed = true
	delete(l.calls, answer.Index)
	if answer.Index == 0 {
		return e.reserved(l, now)
	}
	var told struct {
		effect     Notify
		completion recordv1.Completion
	}
	told.completion.Entry, told.completion.Result, told.completion.At = answer.Index, answer.Result, now
	told.effect.ID, told.effect.Completion = l.id, &told.completion
	e.effect(&told.effect)
	return nil
}

// died takes a participant's word that the try can't commit.
func (e *Engine) died(id transaction.ID, died *recordv1.Died, now int64) error {
	l := e.rootOf(id)
	if l == nil {
		e.inquired(id, died.From, 0)
		return nil
	}
	if l.root.Phase != transaction.Running {
		return nil
	}
	switch {
	case died.Durable:
		return e.retry(l, RetryBlocked, died, now)
	case died.Blocked != nil:
		return e.retry(l, RetryWound, died, now)
	}
	return e.retry(l, RetryOther, nil, now)
}

// retry gives a try up and begins the next one, with the age of the first. If it had to wait for
// a key, the next one waits for that before it holds any other: beginning at once it would be in
// the way of the same transactions again (256 callers on hot keys then ran nothing but tries).
func (e *Engine) retry(l *live, reason RetryReason, blocked *recordv1.Died, now int64) error {
	e.changed = true
	e.effect(&TransactionRetried{reason})
	reader := l.root.Age.Reader
	if l.root.byReader && !reader {
		l.lostToReaders++
	}
	if blocked.GetDurable() {
		e.fed(l) // That may last, and may itself wait for one that only reads.
	} else if l.lostToReaders >= e.lostPatience() {
		e.starve(l, now)
	}
	if l.running {
		l.running = false
		e.effect(&AbortAttempt{ID: l.id, Reason: "the transaction begins anew"})
	}
	e.giveUp(l, now)
	l.root = &root{blocked: blocked}
	e.newTry(l, reader, now)
	l.row.Status = recordv1.Status_STATUS_QUEUED
	if l.lock != nil {
		e.locks.Release(l.lock)
	}
	if blocked != nil {
		if l.lock != nil {
			l.lock = nil
			if err := e.queueStored(l); err != nil {
				return err
			}
		}
		return e.reserve(l, now)
	}
	// What is lost once may be there the next time. A participant that goes on saying no is not
	// asked as fast as it can answer.
	if l.unlucky++; l.unlucky > maxUnlucky {
		l.lock, l.root.parked = nil, true
		if err := e.queueStored(l); err != nil {
			return err
		}
		return e.settle(now)
	}
	return e.again(l, now)
}

// maxUnlucky is how many tries that ended for no reason of the transaction's own are followed by
// another one at once.
const maxUnlucky = 3

// again starts the next try, once the root has its own key.
func (e *Engine) again(l *live, now int64) error {
	if !l.holdsKey() {
		if err := e.settle(now); err != nil {
			return err
		}
		return e.start(l, now)
	}
	// Until it calls something it is a call like any other, and nobody's elder.
	delete(e.roots, l.id)
	l.root = nil
	if l.lock == nil {
		if e.lock(l) == transaction.Waits {
			if err := e.queueStored(l); err != nil {
				return err
			}
			return e.settle(now)
		}
	} else if e.locks.Return(l.lock) == transaction.Waits {
		if err := e.queueStored(l); err != nil {
			return err
		}
		return e.settle(now)
	}
	if err := e.settle(now); err != nil {
		return err
	}
	return e.start(l, now)
}

// queueStored writes that a stored root waits for its key again.
func (e *Engine) queueStored(l *live) error {
	l.row.Status = recordv1.Status_STATUS_QUEUED
	if !l.stored {
		return nil
	}
	l.row.InboxSeq = cmp.Or(l.row.InboxSeq, e.nextSequence())
	return e.store(l)
}

// reserve waits for a key with nothing held.
func (e *Engine) reserve(l *live, now int64) error {
	blocked := l.root.blocked
	to := invocation.PartitionOf(targetOf(blocked.Blocked).Hash(), e.config.Partitions)
	mode := invocation.ModeTransaction
	if blocked.Shared {
		mode = invocation.ModeRead
	}
	l.root.Called(to)
	envelope, join, kept := transaction.NewJoin[Tell, outgoing](&l.root.Age)
	join.From, join.Caller, join.Path, join.Try = e.config.Partition, l.id[:], []byte(transaction.Path("").Child(0)), l.row.Attempt+1
	join.Invoke, join.Reserve = &recordv1.Invoke{Target: blocked.Blocked, Mode: uint32(mode)}, true
	*kept = outgoing{to, &envelope.Peer, now}
	l.calls = map[uint32]*outgoing{0: kept}
	e.post(to, l.root.ID, false, envelope)
	return e.settle(now)
}

// reserved begins the try that has waited for a key. One without a key of its own goes on
// holding that one. The root of an object would have to wait for its own key with that held:
// it lets go of it, and has waited its turn.
func (e *Engine) reserved(l *live, now int64) error {
	l.root.blocked = nil
	if l.holdsKey() {
		e.giveUp(l, now)
		return e.again(l, now)
	}
	return e.start(l, now)
}

// giveUp ends a try everywhere, with all that it wanted to write.
func (e *Engine) giveUp(l *live, now int64) {
	for _, partition := range l.root.Unpromised() {
		e.tell(partition, l.root.ID, false, &recordv1.Peer{Message: &recordv1.Peer_Rollback{Rollback: &recordv1.Rollback{Promised: true}}})
	}
	e.showOwn(l)
	l.calls = nil
}

// rollBack ends the transaction of a root that completes without having committed.
func (e *Engine) rollBack(l *live, now int64) {
	e.giveUp(l, now)
	e.endTransaction(l, false, now)
}

func (e *Engine) endTransaction(l *live, committed bool, now int64) {
	e.showOwn(l)
	e.effect(&TransactionEnded{Committed: committed, Took: now - l.spread})
	delete(e.roots, l.id)
	l.root = nil
}

func (ev *Tick) evaluate(e *Engine, now int64) error {
	for _, l := range e.sortedRoots() {
		c := l.root
		if l.since != 0 && now-l.since >= e.limit(l) {
			if err := e.tooLong(l, now); err != nil {
				return err
			}
			continue
		}
		if c.parked {
			c.parked = false
			if err := e.again(l, now); err != nil {
				return err
			}
			continue
		}
		e.repeat(c.ID, l, now)
		if c.Wounded {
			e.tellMembers(l, &recordv1.Peer{Message: &recordv1.Peer_Wounded{Wounded: &recordv1.Wounded{}}})
		}
		if (c.Phase == transaction.Preparing || c.Phase == transaction.RollingBack) && transaction.Overdue(c.Since, now) {
			e.askToPrepare(l, 0)
		}
	}
	for _, id := range slices.SortedFunc(maps.Keys(e.decisions), transaction.ID.Compare) {
		if d := e.decisions[id]; transaction.Overdue(d.told, now) {
			d.told = now
			e.tellCommit(id, d.waiting)
		}
	}
	for _, b := range e.sortedBranches() {
		for _, path := range slices.Sorted(maps.Keys(b.calls)) {
			e.repeat(b.ID, b.calls[path], now)
		}
		switch {
		case !transaction.Overdue(b.Since, now):
		case b.Broken != "":
			e.tellDied(b)
		case b.coordinator == e.config.Partition:
			if e.rootOf(b.ID) == nil {
				e.drop(b)
				break
			}
			fallthrough
		default:
			e.inquire(b)
		}
	}
	e.locks.Remind()
	if err := e.letBegin(now); err != nil {
		return err
	}
	return e.settle(now)
}

// repeat makes the calls of a handler again whose answers are late.
func (e *Engine) repeat(id transaction.ID, l *live, now int64) {
	for _, index := range slices.Sorted(maps.Keys(l.calls)) {
		if call := l.calls[index]; call.to != e.config.Partition && transaction.Overdue(call.at, now) {
			call.at = now
			e.tell(call.to, id, false, call.peer)
		}
	}
}

// limit is how long all tries of a transaction may take together, in milliseconds.
func (e *Engine) limit(l *live) int64 {
	return cmp.Or(l.row.StepTimeoutMs, e.config.TransactionTimeout)
}

// stillWaiting ends a transaction whose calls wait for each other.
func (e *Engine) stillWaiting(l *live, inquire *recordv1.Inquire, now int64) error {
	circle := l.root.Waits(inquire.From, inquire.Waits)
	if circle == nil || l.root.Phase != transaction.Running {
		return nil
	}
	var text strings.Builder
	for _, w := range circle {
		fmt.Fprintf(&text, "; %s waits for the end of %s", targetOf(w.Target), targetOf(w.ForTarget))
	}
	return e.complete(l, recordv1.Status_STATUS_FAILED, failure(codeFailedPrecondition,
		"%s: calls of the transaction wait for each other for ever%s. Await one before making the other", l.target, text.String()), now)
}

// tooLong ends a transaction whose time is over.
func (e *Engine) tooLong(l *live, now int64) error {
	c := l.root
	if c.Alone {
		return e.complete(l, recordv1.Status_STATUS_FAILED, failure(codeUnavailable,
			"%s: partition %d, which decides, did not say whether the transaction committed", l.target, c.Unpromised()[0]), now)
	}
	reason := fmt.Sprintf("try %d was %s", l.row.Attempt, c.Phase)
	if c.blocked != nil {
		reason = "it waited for " + waitsFor(c.blocked)
	}
	if l.running {
		l.running = false
		e.effect(&AbortAttempt{ID: l.id, Reason: "the transaction took too long"})
	}
	return e.complete(l, recordv1.Status_STATUS_FAILED, failure(codeDeadlineExceeded,
		"%s did not end within %d ms, the most a transaction may take with all its tries; %s; nothing of it took effect", l.target, e.limit(l), reason), now)
}

// waitsFor names the key that a try waits for before it begins.
func waitsFor(blocked *recordv1.Died) string {
	text := targetOf(blocked.Blocked).Object().String()
	if blocked.Durable {
		text += ", which a DURABLE handler holds"
	}
	return text
}
