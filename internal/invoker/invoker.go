// Package invoker is the seam between a partition, which decides and records, and whatever
// runs handlers. internal/invoker/inprocess runs Go handlers in this process, internal/invoker/remote
// has other nodes run them; nothing here knows of Go functions.
//
// An attempt is one try at running an invocation's handler. The partition starts it with all
// it needs (input, state, journal) and the attempt talks back through its Host, which no other
// attempt has: what a superseded one says is ignored. An invocation's id and an attempt's number
// don't tell attempts apart, for both may be another one's, even in one leadership.
package invoker

import (
	"context"
	"time"

	"github.com/perdure/perdure/internal/invocation"
	recordv1 "github.com/perdure/perdure/internal/record/v1"
)

// Invoker runs handlers. Its methods are safe for concurrent use.
type Invoker interface {
	// Start begins an attempt at an exclusive handler, one of a SERVICE, or a READ handler that
	// is part of a transaction, and returns without waiting for it. It is called on the
	// partition's goroutine and must not block.
	Start(attempt *Attempt) Running
	// Read runs a READ handler on the caller's goroutine and returns its result; nil if no node can run
	// it now, and then read.Unhosted says why.
	Read(ctx context.Context, read *Read) *recordv1.Result
}

// Running is the partition's hold on an attempt. Its methods do not block and are safe for
// concurrent use.
type Running interface {
	// Notify tells that the journal entry index has its completion.
	Notify(index uint32, completion *recordv1.Completion)
	// Cancel tells that the invocation was cancelled: its next or current wait ends so.
	Cancel()
	// Abort unwinds the handler at its next step and cancels its context: the attempt was
	// superseded, killed, or the partition lost its leadership. Nothing it says counts any more.
	Abort(cause error)
}

// Unplaced is a Running whose attempt may have to wait for a node that can run it.
type Unplaced interface {
	// Waiting reports whether it does, at this instant: its time has not begun then.
	Waiting() bool
}

// Attempt is what a partition asks an Invoker to run. Everything but Host is read-only.
type Attempt struct {
	ID     invocation.ID
	Number uint32
	Target invocation.Target
	Mode   invocation.Mode
	// Input is the request in protobuf's binary form.
	Input []byte
	// State is the object's state message as this attempt finds it; see
	// recordv1.SetState.Previous for what a replay starts from.
	State    []byte
	HasState bool
	// Tables reads the object's tables as they are now, this attempt's own writes included
	// once they were appended.
	Tables Tables
	// Writes are the rows (TablePut entries, in order) that earlier calls of the same
	// transaction wrote to this object: they lie over Tables, as State already has the state
	// that those calls left. They are not this attempt's to write.
	Writes []*recordv1.Entry
	// Promise returns how a promise of the object was completed, nil while it is not. Set for a
	// READ handler only.
	Promise func(name string) (*recordv1.Result, error)
	// Start is the index of the entry before the journal: 0, until the handler has continued as
	// new.
	Start uint32
	// Journal holds entries already recorded: entry Start+i+1 is Journal[i]. Entries is the index
	// of the last one; those that Journal does not hold are read by Host.Journal.
	Journal []*recordv1.Entry
	Entries uint32
	// Completions of Journal's entries, by index. Those of entries after Known are read by
	// Host.Journal, if Known is not the last entry of Journal; so is one whose value is in Parts.
	Completions map[uint32]*recordv1.Completion
	Known       uint32
	// LookAhead: the entries after Journal may write to the object.
	LookAhead bool
	// EntryBytes is what one entry, or one completion, takes; a Run may return ResultBytes, which
	// go in parts. 0: nothing goes in parts.
	EntryBytes  int
	ResultBytes int
	// Tries of Run entries without a completion that have failed.
	Tries map[uint32]*recordv1.RunTries
	// Deployment is the build of the handlers that is to run it, if it has a journal. An Invoker
	// that reaches several goes by it.
	Deployment string
	// Earlier are other deployments that have fed the journal, the one that began it first.
	Earlier []string
	// CancelRequested: cancelled before this attempt, and no Wait entry says so yet.
	CancelRequested bool
	// Origins are the invocations whose entries the journal begins with: while those replay, time
	// and random numbers are theirs.
	Origins []*recordv1.RestartOrigin
	// Chain holds the objects that the call chain leading here holds exclusively, this
	// attempt's own target last. It goes into the Invoke of every call made.
	Chain       []*recordv1.Target
	Traceparent string
	// Flow is the invocation's tenant, priority and limit key, which what it calls has too; nil
	// without any.
	Flow *recordv1.Flow
	// Headers of the call, sorted by name.
	Headers []*recordv1.Header
	// StartedAt is when the first attempt began, or when the handler continued as new for the
	// last time: the invocation's time before its first entry.
	StartedAt time.Time
	// Nonce is that of the ids of the awakeables that this attempt makes: see invocation.ID.Nonce.
	// 0: there may be nodes that can't read ids with one.
	Nonce uint64
	// Deadline of the invocation, zero for none.
	Deadline time.Time
	// Stored: it is kept until it ends, and waits for what it needs as long as it takes.
	Stored bool
	// Host is this attempt's alone.
	Host Host
}

// Host is how attempts talk to their partition. Its methods do not block and may be called
// from any goroutine; the calls of one attempt take effect in program order.
type Host interface {
	// Append records entry index (from Attempt.Start+1, without gaps) of a DURABLE or RUN handler.
	Append(attempt *Attempt, index uint32, entry *recordv1.Entry)
	// Call makes call index (from 1) of a TRANSACTION handler, or of a READ handler that is part
	// of a transaction: the callee becomes part of the transaction. The result comes by Notify,
	// as the completion of entry index. invoke has no id, caller, chain and traceparent is the
	// step's; the host keeps it.
	Call(attempt *Attempt, index uint32, invoke *recordv1.Invoke)
	// AwaitDurable calls granted, once, when everything this attempt has appended before is
	// durable: the gate before a Run closure starts. It is not called if that never happens
	// (the attempt is aborted then). granted must not block.
	AwaitDurable(attempt *Attempt, granted func())
	// Retry records that the closure of the Run entry index has failed and will be tried again.
	Retry(attempt *Attempt, index uint32, tries *recordv1.RunTries)
	// Complete records the result of the Run entry index.
	Complete(attempt *Attempt, index uint32, result *recordv1.Result)
	// Part records a part of the value of the Run entry index, numbered from 0. The host keeps it.
	// Whoever sends many should let AwaitDurable go between some of them.
	Part(attempt *Attempt, index, number uint32, part []byte)
	// CompleteParts is Complete for a value that is in parts, all of which were sent.
	CompleteParts(attempt *Attempt, index uint32, parts *recordv1.Parts)
	// Journal reads what was recorded of the attempt's invocation.
	Journal(attempt *Attempt) Journal
	// Finish ends the attempt. Exactly one Finish is sent by an attempt that was not aborted.
	Finish(attempt *Attempt, outcome *Outcome)
}

// Outcome is how an attempt ended. Exactly one of Result, ContinueAsNew, Retry, Suspended and Lost is
// set.
type Outcome struct {
	// Result ends the invocation: a response, or a terminal error.
	Result *recordv1.Result
	// Unhosted, beside Result, an error: no node could run it.
	Unhosted bool
	// Entries are what a TRANSACTION wants to take effect with its result, in program order:
	// SetState, TablePut, Send, CompletePromise, CompleteAwakeable, CancelInvocation. Ignored
	// when Result is an error.
	Entries []*recordv1.Entry
	// ContinueAsNew is the request with which a DURABLE or RUN handler begins anew, with an empty
	// journal; not nil, though it may be empty.
	ContinueAsNew []byte
	// Retry: a DURABLE or RUN attempt failed with an error that is not terminal; the
	// partition starts another by the policy.
	Retry *recordv1.Error
	// Divergence is set if Retry is one.
	Divergence *recordv1.Divergence
	// Pause: beside Retry, another attempt here would fail too; the invocation waits for an operator.
	Pause bool
	// RetryAfter, if positive, is the wait the error itself asked for.
	RetryAfter time.Duration
	// Entry is the newest of the journal that the handler had made or met when it failed, 0 if that
	// is not known. Stack is that of a panic.
	Entry uint32
	Stack string
	// Suspended: the handler was unwound while it waited; any of WaitingFor's completions
	// (or a cancel) wakes it.
	Suspended  bool
	WaitingFor []uint32
	// WaitingUntil, if set, is what wakes it instead.
	WaitingUntil *recordv1.Condition
	// WakeAt, unless zero, wakes it too.
	WakeAt time.Time
	// Lost: the node that ran it is lost. The partition starts another at once, which is no failure of
	// the handler's. Anew, beside it: until now it waited for a node, and its time begins now.
	Lost bool
	Anew bool
}

// Tables reads the tables of one object. Its methods are safe for concurrent use.
type Tables interface {
	// Get returns one row.
	Get(table, key string) (value []byte, ok bool, err error)
	// Len is the number of rows.
	Len(table string) (int, error)
	// Scan calls fn with the rows whose key is ≥ from, in ascending key order, until fn
	// returns false. The values are fn's to keep.
	Scan(table, from string, fn func(key string, value []byte) bool) error
}

// Journal reads the journal of a running attempt as it is now: also what is not durable. It is for
// one goroutine; its methods may block for the disk. They fail when the invocation is gone, of
// which an Abort tells too.
type Journal interface {
	// Entries returns the entries from index on: at least one, and not more than fit some memory.
	Entries(index uint32) ([]*recordv1.Entry, error)
	// Completions returns those of the entries first to last that are there, up to known: there
	// may be more than fit some memory. One whose value is in Parts is without it.
	Completions(first, last uint32) (completions map[uint32]*recordv1.Completion, known uint32, err error)
	// Completion returns that of one entry, nil while there is none. One whose value is in Parts is
	// without it.
	Completion(index uint32) (*recordv1.Completion, error)
	// Parts returns parts of the value of an entry, from the one numbered first on: at least one, and
	// not more than fit some memory.
	Parts(index, first uint32) ([][]byte, error)
}

// Read is one call of a READ handler: everything it sees is one snapshot.
type Read struct {
	ID          invocation.ID
	Target      invocation.Target
	Input       []byte
	State       []byte
	HasState    bool
	Tables      Tables
	Traceparent string
	Headers     []*recordv1.Header
	// Promise returns how a promise of the object was completed; nil while it is not.
	Promise func(name string) (*recordv1.Result, error)
	// Complete makes a CompletePromise or CompleteAwakeable entry durable before it returns.
	Complete func(ctx context.Context, entry *recordv1.Entry) error
	// Call runs another READ handler.
	Call func(ctx context.Context, invoke *recordv1.Invoke) (*recordv1.Result, error)
	// Unhosted is set by an Invoker that returns no result.
	Unhosted *Unhosted
}

// Unhosted is that no node can run a handler now.
type Unhosted struct{ Cause error }

// Error is the cause's.
func (u *Unhosted) Error() string { return u.Cause.Error() }

// Unwrap returns the cause.
func (u *Unhosted) Unwrap() error { return u.Cause }
