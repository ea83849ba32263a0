package engine

import (
	"github.com/perdure/perdure/internal/invocation"
	recordv1 "github.com/perdure/perdure/internal/record/v1"
	"github.com/perdure/perdure/internal/schedule"
)

// Effect is something the leader does. The set is closed: the types below. Gated effects leave
// the partition and wait until everything evaluated so far is durable; the others only touch
// attempts, whose own words are gated in turn.
type Effect interface {
	// Gated reports whether the effect must wait for the log.
	Gated() bool
}

// Reply answers a Token. Result is nil for an answer that only says "durable", or for the
// one that says Missing.
type Reply struct {
	Token  Token
	Result *recordv1.Result
	// Existed: a one-way request met an invocation of the same id.
	Existed bool
	// Refused: the request itself failed; Result.Error says why.
	Refused bool
	// Durable: it says what is durable in another partition, and holds whoever leads this one.
	Durable bool
}

// StartAttempt runs a handler.
type StartAttempt struct {
	ID       invocation.ID
	Row      *recordv1.Invocation
	Input    []byte
	State    []byte
	HasState bool
	// Journal is the beginning of the journal, and Completions are those of its entries up to
	// Known. Entries is the index of the last entry.
	Journal     []*recordv1.Entry
	Completions map[uint32]*recordv1.Completion
	Known       uint32
	Entries     uint32
	// LookAhead: the entries after Journal may write to the object.
	LookAhead bool
	// Tries of Run entries that have failed and have no completion.
	Tries           map[uint32]*recordv1.RunTries
	CancelRequested bool
	// Joined: it is a call that is part of a transaction. Stored: it is kept, whoever made it.
	Joined, Stored bool
	// Since is when the first attempt of this leadership began, in milliseconds since 1970.
	Since int64
	// Writes are the rows that earlier calls of the same transaction wrote to the object.
	Writes []*recordv1.Entry
}

// Notify gives a completion to a running attempt.
type Notify struct {
	ID         invocation.ID
	Completion *recordv1.Completion
}

// CancelAttempt tells a running attempt that its invocation was cancelled.
type CancelAttempt struct{ ID invocation.ID }

// AbortAttempt unwinds the running attempt of an invocation, whose words no longer count. Of one
// invocation at most one attempt runs: what an effect on attempts is about is the one that the last
// StartAttempt before it, in the order of effects, began.
type AbortAttempt struct {
	ID     invocation.ID
	Reason string
}

// EndAttempt says that the attempt the event came from is over.
type EndAttempt struct{ ID invocation.ID }

// EndInvocation says, for the trace, that an invocation has ended after its last attempt had: a
// transaction's root.
type EndInvocation struct {
	ID  invocation.ID
	Row *recordv1.Invocation
}

// SendMessage takes a message to another partition. It is repeated until an Acked comes.
type SendMessage struct {
	To       uint32
	Sequence uint64
	Message  *recordv1.Message
}

// Ack tells another partition that its messages up to Sequence are durable here.
type Ack struct {
	To       uint32
	Sequence uint64
}

// Tell takes a message about a transaction to another partition, which may lose it.
type Tell struct {
	To   uint32
	Peer *recordv1.Peer
	// Promise: it may be said only when everything evaluated so far is durable.
	Promise bool
	// Confirm: it may be said only by who leads the partition at a moment after it was evaluated. A
	// later leader may know otherwise.
	Confirm bool
	told    Told
}

// Event is what the other partition is given. It shares the message.
func (e *Tell) Event() *Told {
	e.told.Peer = e.Peer
	return &e.told
}

// Hide keeps READ handlers from an object: a transaction that will write it may have committed
// already.
type Hide struct{ Object invocation.Object }

// Show ends a Hide.
type Show struct{ Object invocation.Object }

// TransactionEnded says, for the metrics, that a transaction over several objects has ended.
type TransactionEnded struct {
	Committed bool
	// Took is in milliseconds, from the root's first call.
	Took int64
}

// TransactionRetried says, for the metrics, that a transaction begins anew.
type TransactionRetried struct{ Reason RetryReason }

// RetryReason is why a transaction begins anew.
type RetryReason uint8

// The reasons.
const (
	// RetryWound: it gave way to an older one.
	RetryWound RetryReason = 1
	// RetryBlocked: a DURABLE handler held a key it wanted.
	RetryBlocked RetryReason = 2
	// RetryLost: a participant lost what it knew, with its leadership.
	RetryLost RetryReason = 3
	// RetryOther: a DURABLE handler wrote what it had read.
	RetryOther RetryReason = 4
)

// ScheduleMoved says, for the metrics, what became of due times of a schedule.
type ScheduleMoved struct{ schedule.Moved }

// CopyOn asks for a CopyEntries: the slice before it is durable, so that however much there is to copy
// takes a slice of memory at a time.
type CopyOn struct{ CopyEntries }

// ArmTimer says that a timer was written for that instant.
type ArmTimer struct{ At int64 }

// Gated is true unless what a reply says is known to be durable.
func (e *Reply) Gated() bool { return !e.Durable }

// Gated is false: what the attempt says is gated.
func (*StartAttempt) Gated() bool { return false }

// Gated is false: a Run that follows from it is gated.
func (*Notify) Gated() bool { return false }

// Gated is false.
func (*CancelAttempt) Gated() bool { return false }

// Gated is false.
func (*AbortAttempt) Gated() bool { return false }

// Gated is false.
func (*EndAttempt) Gated() bool { return false }

// Gated is false: what it leads to is.
func (*EndInvocation) Gated() bool { return false }

// Gated is true: a message must not be sent that a crash takes back.
func (*SendMessage) Gated() bool { return true }

// Gated is true: the sender forgets the message.
func (*Ack) Gated() bool { return true }

// Gated reports whether it is a promise.
func (e *Tell) Gated() bool { return e.Promise }

// Gated is false: it must hold before the promise is made.
func (*Hide) Gated() bool { return false }

// Gated is true: READ handlers see what is durable.
func (*Show) Gated() bool { return true }

// Gated is true: it has not ended before.
func (*TransactionEnded) Gated() bool { return true }

// Gated is false.
func (*TransactionRetried) Gated() bool { return false }

// Gated is true: what a crash takes back happens again.
func (*ScheduleMoved) Gated() bool { return true }

// Gated is true: it waits for the slice before.
func (*CopyOn) Gated() bool { return true }

// Gated is false: a timer that fires too early finds nothing to do.
func (*ArmTimer) Gated() bool { return false }
