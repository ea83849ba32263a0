// Package engine decides what happens: given an event (a call, a journal step, a fired timer,
// a message) and a view of a partition's data, it says which rows change and what the leader
// must do. It is the only place that knows what an invocation's life is.
//
// # Model
//
// Evaluate is a function of the engine's memory, the view, the event and the time that comes
// with it. It has no clock, goroutine, lock, disk, network or randomness, so scripts and
// random programs test it (testdata/*.txt), and a simulator can run it. The engine's memory is
// the leader's only: Recover rebuilds what matters of it from the view.
//
//	event ──► Evaluate ──► mutations   rows to write: they become one record of the log
//	                  └──► effects     what to do; those that leave the partition (Reply,
//	                                   SendMessage, Ack) wait until the record is durable
//
// # A key's life
//
// An exclusive invocation of an object (TRANSACTION, DURABLE, RUN) holds the object's key from
// start to completion, suspended or not. Others wait in the object's inbox, first in first
// out. A TRANSACTION called directly is volatile: nothing of it is written until it commits,
// in one record. Everything else is written when it is accepted.
//
// # Files
//
// accept, start, finish, complete, tell, retry, suspend, cancel, operate, restart (with restart_copy, for
// what takes several records) and recover are the
// transitions of an invocation; entry_*.go is one kind of journal entry each; message.go is
// what comes of messages between partitions, which outbox keeps, and timer.go what fires; schedule.go is
// what internal/schedule needs of rows and timers; flow.go is what an invocation does with its permits, flow_limit.go what
// internal/limit/asker needs to ask for them and internal/limit/owner to give them, and rules.go how all
// partitions come to the same rules for limits. transaction_*.go is what internal/transaction needs of
// rows, attempts and messages: _root the side of the coordinator, _call a call that is part of a
// transaction, _commit how one ends, _lock what becomes of those who wait for a key.
package engine

import (
	"cmp"
	"errors"

	"google.golang.org/protobuf/proto"

	"github.com/perdure/perdure/internal/draft"
	"github.com/perdure/perdure/internal/engine/outbox"
	"github.com/perdure/perdure/internal/inbox"
	"github.com/perdure/perdure/internal/invocation"
	"github.com/perdure/perdure/internal/journal/renew"
	"github.com/perdure/perdure/internal/journal/tries"
	"github.com/perdure/perdure/internal/limit/asker"
	"github.com/perdure/perdure/internal/limit/owner"
	recordv1 "github.com/perdure/perdure/internal/record/v1"
	"github.com/perdure/perdure/internal/schedule"
	"github.com/perdure/perdure/internal/table"
	"github.com/perdure/perdure/internal/transaction"
)

// View is the data of the partition as all events evaluated so far have left it, durable or
// not.
type View = draft.View

// Mutation is one row to write or to delete.
type Mutation = draft.Mutation

// Output is what an event comes to. Its slices belong to the engine and are valid until the
// next Evaluate.
type Output struct {
	Mutations []Mutation
	Effects   []Effect
	// Lazy: nothing waits for the mutations; they may ride with a later record.
	Lazy bool
	// Damaged says, after Recover, which rows could not be read. What they belong to stands
	// still; everything else goes on.
	Damaged []error
}

// HandOnLevel is the feature level of promises about which a participant decides: see Config.HandOn.
const HandOnLevel = 2

// Config of an engine. All fields are required but the limits.
type Config struct {
	// Partition is this partition's number and Partitions how many there are.
	Partition  uint32
	Partitions uint32
	// MaxInbox is how many invocations may wait for one key. 0 is 100,000.
	MaxInbox int
	// Signals bounds those of a workflow that nobody has received.
	Signals inbox.Bounds
	// TransactionTimeout bounds all tries of a transaction together, in milliseconds. 0 is 30 s.
	TransactionTimeout int64
	// MaxWriteBytes and MaxWrites bound what one transaction writes in one partition. 0 is
	// 1.75 MiB and 5,000.
	MaxWriteBytes int
	MaxWrites     int
	// Next says when a schedule is due next: the engine knows no calendar. Without one there are
	// no schedules.
	Next schedule.Next
	// JournalPage is how many entries an attempt is started with; it reads the others as it comes
	// to them. 0 is 64.
	JournalPage int
	// CopyBytes is about what of a journal is copied at a time, and PurgeRows how many rows of it are
	// removed. 0 is 512 KiB and 2,000.
	CopyBytes int
	PurgeRows int
	// Patience is how many transactions that only read may take a key that an older invocation
	// waits for, before younger ones of that kind are held back for it. 0 is 64.
	Patience int
	// HandOn reports whether a participant may decide about a transaction: see
	// transaction.Coordinator. All nodes must know how. Nil: none may.
	HandOn func() bool
	// Deployment is what the next attempt of an invocation will run on, tied to the one that has fed its
	// journal last, or to none. Nil, or "": nothing is noted.
	Deployment func(target invocation.Target, tied string) string
}

// Engine is the memory of a partition's leader. It belongs to one goroutine.
type Engine struct {
	config Config
	view   View
	// epoch and counter make sequences that grow across leaderships without being stored.
	epoch   uint64
	counter uint64

	// Every invocation that is queued, running or backing off. Scheduled, suspended and paused
	// ones are in the store only: there may be millions.
	live map[invocation.ID]*live
	// locks are the keys that are held, and who waits for them.
	locks *transaction.Locks
	// roots are the invocations whose handlers have called other objects in a transaction.
	roots map[invocation.ID]*live
	// branches are the tries of transactions that hold or want a key of this partition.
	branches map[transaction.ID]*branch
	// decisions are the transactions that have committed and of which some participants have
	// not written their part yet.
	decisions map[transaction.ID]*decision
	// unreadable are promises whose rows are damaged.
	unreadable map[transaction.ID]bool
	// starving are older invocations, anywhere, beside which no transaction begins that only reads,
	// by their id, and early are the calls with which some would have begun.
	starving transaction.Starving
	early    []*Call
	// told are messages from this partition to itself, for the event in progress.
	told []*recordv1.Peer
	// name is the last transaction that was written of.
	name  named
	words transaction.Words[Tell]
	// applied is whom the writes of a transaction's calls are applied for, whose target changes.
	applied *live
	// Tokens to answer when an invocation completes; only while there are any.
	waiters map[invocation.ID][]Token
	// outbox is what goes to other partitions. One that it watches has not heard of the last change of
	// the rules; toldAll waits until there are none.
	outbox  *outbox.Outbox
	toldAll []Token
	// copies are the invocations that are being given the entries which they were restarted with.
	copies renew.Copying
	// limits that this partition owns, the asker for permits of these and others, and permits that it has
	// answered itself with, for the event in progress, which came at now.
	limits  *owner.Limits
	asker   asker.Asker
	permits []*recordv1.Permit
	now     int64
	// accepting are one-way requests that hear of their invocation once it is sure to be taken.
	accepting map[invocation.ID][]Token
	// draft is what the event in progress has written, over the view.
	draft draft.Draft
	// changed: the event in progress has changed the engine's memory.
	changed bool
	// resumed is the invocation that the event in progress resumes on a deployment.
	resumed invocation.ID
	// recovering: Recover is at work, which must not write a row for each invocation it starts.
	recovering bool

	out Output
}

// live is an invocation that the leader keeps in memory.
type live struct {
	id     invocation.ID
	target invocation.Target
	row    *recordv1.Invocation
	// stored: the row is in the view. A TRANSACTION called directly is not until it ends.
	stored bool
	// running: attempt row.Attempt has been started and has not ended.
	running bool
	// input of a journaled invocation that has just been accepted: its journal is empty, so
	// the first attempt need not look. nil otherwise.
	input *recordv1.Input
	// journal length, loaded with the attempt.
	entries uint32
	// moved: the row in the store does not say on which deployment the attempt runs.
	moved bool
	// receives: the journal has a Receive entry, or was not looked at.
	receives bool
	// writes: the journal has a write to the object.
	writes bool
	// tried are the Run entries of which something is kept until they complete.
	tried tries.Open
	// lock is its hold on its object's key, or its place in the inbox; nil without either. That of
	// a journaled one is not part of this struct, which a suspended one does not keep.
	lock *transaction.Request
	own  transaction.Request
	// since is when the first attempt of this leadership began: what bounds a TRANSACTION's tries.
	since int64
	// spread is when its handler called another object for the first time.
	spread int64
	// lostToReaders counts tries that gave way to those that only read, and until starvesUntil
	// younger ones are held back for this one; 0 is never.
	lostToReaders int
	starvesUntil  int64
	// unlucky counts tries that ended because a participant was lost.
	unlucky int
	// denied: a participant that was asked to decide said that it has not. That may be wrong: if this
	// leadership is over and does not know it, the next one may have let the participant forget it. So
	// what follows must not take effect without a record of this one.
	denied bool
	// answered: the outcome is durable in the partition that decided.
	answered bool
	// root is set once its handler has called another object: it is a transaction's root.
	root *root
	// call is set for a call that is part of a transaction.
	call *call
	// calls that its handler has made in a transaction and that were not answered.
	calls map[uint32]*outgoing
}

// New makes the engine of a partition that has just become the leader in epoch. Call Recover
// before the first Evaluate.
func New(config Config, view View, epoch uint64) *Engine {
	config.MaxInbox = cmp.Or(config.MaxInbox, 100_000)
	config.Signals = config.Signals.WithDefaults()
	config.TransactionTimeout = cmp.Or(config.TransactionTimeout, 30_000)
	config.MaxWriteBytes = cmp.Or(config.MaxWriteBytes, 7<<18)
	config.MaxWrites = cmp.Or(config.MaxWrites, 5000)
	if config.Next == nil {
		config.Next = func(*recordv1.Timetable, int64) (int64, error) { return 0, errors.New("there is no calendar here") }
	}
	config.JournalPage = cmp.Or(config.JournalPage, 64)
	config.PurgeRows, config.CopyBytes = cmp.Or(config.PurgeRows, purgeRows), cmp.Or(config.CopyBytes, 512<<10)
	config.Patience = cmp.Or(config.Patience, 64)
	e := &Engine{
		config:     config,
		view:       view,
		draft:      draft.New(view),
		epoch:      epoch,
		live:       map[invocation.ID]*live{},
		locks:      transaction.NewLocks(config.Patience),
		roots:      map[invocation.ID]*live{},
		branches:   map[transaction.ID]*branch{},
		decisions:  map[transaction.ID]*decision{},
		unreadable: map[transaction.ID]bool{},
		waiters:    map[invocation.ID][]Token{},
		copies:     renew.Copying{},

		words:   transaction.WordsOf[Tell](config.Partition),
		applied: &live{row: &recordv1.Invocation{Mode: uint32(invocation.ModeTransaction)}},
	}
	e.outbox = outbox.New(&e.draft)
	e.limits = owner.New(flowHost{e}, &e.draft, config.Partition)
	e.asker = asker.New(flowHost{e}, e.limits, config.Partition, config.Partitions)
	return e
}

// Evaluate decides about one event at an instant (milliseconds since 1970 UTC). An error means
// that the view could not be read or holds what it should not, and names the row: nothing is
// written then. If Changed says so, the engine's memory is no longer what the rows say, and
// the leadership must start over.
func (e *Engine) Evaluate(event Event, now int64) (*Output, error) {
	e.out.Mutations, e.out.Effects, e.out.Lazy = nil, e.out.Effects[:0], false
	e.changed, e.now = false, now
	e.draft.Reset()
	err := event.evaluate(e, now)
	for err == nil && (len(e.told) > 0 || len(e.permits) > 0) {
		if len(e.permits) > 0 {
			permit := e.permits[0]
			e.permits = e.permits[1:]
			err = e.permit(permit, now)
			continue
		}
		peer := e.told[0]
		e.told = e.told[1:]
		err = e.hear(peer, now)
	}
	e.told, e.permits = nil, nil
	if err != nil {
		e.out.Effects = e.out.Effects[:0]
		e.outbox.Undo()
		return &e.out, err
	}
	e.out.Mutations = e.draft.Mutations()
	return &e.out, nil
}

// Changed reports whether the last Evaluate changed the engine's memory, which after an error
// nothing undoes.
func (e *Engine) Changed() bool { return e.changed }

// Live is how many invocations the leader holds in memory, and Held how many keys are held.
func (e *Engine) Live() (live, held int) { return len(e.live), e.locks.Held() }

// Queued is how many wait for a key.
func (e *Engine) Queued() (count int) { return e.locks.Queued() }

func (e *Engine) nextSequence() uint64 {
	e.counter++
	return e.epoch<<32 | e.counter&0xffffffff
}

func (e *Engine) effect(effect Effect) { e.out.Effects = append(e.out.Effects, effect) }

func (e *Engine) put(key, value []byte) { e.draft.Put(key, value) }

func (e *Engine) delete(key []byte) { e.draft.Delete(key) }

// get reads through the mutations of the event in progress.
func (e *Engine) get(key []byte) ([]byte, bool, error) { return e.draft.Get(key) }

// scan reads through the mutations of the event in progress.
func (e *Engine) scan(lower, upper []byte, fn func(key, value []byte) bool) error {
	return e.draft.Scan(lower, upper, fn)
}

func (e *Engine) putMessage(key []byte, m proto.Message) error { return e.draft.PutMessage(key, m) }

func (e *Engine) getMessage(key []byte, m proto.Message) (bool, error) {
	return e.draft.GetMessage(key, m)
}

func (e *Engine) getNumber(key []byte) (uint64, error) { return table.GetNumber(&e.draft, key) }

func targetOf(t *recordv1.Target) invocation.Target {
	return invocation.Target{Service: t.GetService(), Key: t.GetKey(), Handler: t.GetHandler()}
}
