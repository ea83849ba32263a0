package engine

import (
	"github.com/perdure/perdure/internal/invocation"
	"github.com/perdure/perdure/internal/journal/renew"
	recordv1 "github.com/perdure/perdure/internal/record/v1"
	"github.com/perdure/perdure/internal/table"
)

// Token names somebody outside the partition who waits for an answer. 0 is nobody.
type Token uint64

// Event is something the engine decides about. The set is closed: the types below.
type Event interface {
	evaluate(e *Engine, now int64) error
}

// Invoke asks for an invocation. With a Token and without OneWay the answer is its result;
// with OneWay the answer comes once the invocation is durable. Repeatable: the same request may
// come again, or has come, because its answer can get lost between nodes.
type Invoke struct {
	Invoke     *recordv1.Invoke
	Token      Token
	OneWay     bool
	Repeatable bool
}

// Attach waits for the end of an invocation.
type Attach struct {
	ID    invocation.ID
	Token Token
}

// Hangup says that the one behind Token no longer waits for an invocation.
type Hangup struct {
	ID    invocation.ID
	Token Token
}

// Cancel asks an invocation to stop; with Kill it ends where it is.
type Cancel struct {
	ID    invocation.ID
	Kill  bool
	Token Token
}

// Pause makes an invocation stand still until a Resume.
type Pause struct {
	ID    invocation.ID
	Token Token
}

// Resume starts the next attempt of an invocation that is paused, backs off or is suspended. Deployment,
// unless "", is what one that has begun must go on with.
type Resume struct {
	ID         invocation.ID
	Deployment string
	Token      Token
}

// Purge forgets an invocation that has ended.
type Purge struct {
	ID    invocation.ID
	Token Token
}

// RestartAsNew starts the invocation New, of the same object, with the request of ID, which has
// ended, and with its journal up to the entry From. Survey is of that journal, made in the leadership
// of Epoch; nil if From is 0.
type RestartAsNew struct {
	ID     invocation.ID
	New    invocation.ID
	From   uint32
	Survey *renew.Survey
	Epoch  uint64
	Token  Token
}

// CopyEntries goes on giving an invocation the entries that it was restarted with, from where At
// stands.
type CopyEntries struct {
	ID invocation.ID
	At table.Copy
}

// Append records an entry of a running attempt.
type Append struct {
	ID      invocation.ID
	Attempt uint32
	Index   uint32
	Entry   *recordv1.Entry
}

// RunPart records a part of what the closure of a Run entry returned, which is larger than a record.
// It counts once a CompleteRun says that there are all.
type RunPart struct {
	ID      invocation.ID
	Attempt uint32
	Index   uint32
	Number  uint32
	Value   []byte
}

// CompleteRun records the result of a Run entry, or, instead of a Result, that it is in Parts.
type CompleteRun struct {
	ID      invocation.ID
	Attempt uint32
	Index   uint32
	Result  *recordv1.Result
	Parts   *recordv1.Parts
}

// RetryRun records that the closure of a Run entry has failed and will be tried again.
type RetryRun struct {
	ID      invocation.ID
	Attempt uint32
	Index   uint32
	Tries   *recordv1.RunTries
}

// Finish ends an attempt with its invocation's result. Entries are a TRANSACTION's.
type Finish struct {
	ID      invocation.ID
	Attempt uint32
	Result  *recordv1.Result
	Entries []*recordv1.Entry
	// Entry is the newest that the handler had made or met, 0 if it is not known.
	Entry uint32
	// Unhosted: no node could run it, as Result says. What is not stored was never called then.
	Unhosted bool
}

// Fail ends an attempt with an error that is not terminal. RetryAfter (milliseconds) is what
// the error itself asked for, 0 for nothing. Divergence is set if the error is one. Entry is the
// newest that the handler had made or met, 0 if it is not known; Stack is that of a panic.
type Fail struct {
	ID         invocation.ID
	Attempt    uint32
	Error      *recordv1.Error
	Divergence *recordv1.Divergence
	RetryAfter int64
	Entry      uint32
	Stack      string
	// Pause: another attempt here would fail too, so the invocation waits for an operator.
	Pause bool
}

// Suspend ends an attempt whose handler was unwound while it waited. A completion of any of
// WaitingFor wakes it, or of enough of WaitingUntil if that is set, and so does the instant WakeAt
// (milliseconds since 1970 UTC) if it is not 0.
type Suspend struct {
	ID           invocation.ID
	Attempt      uint32
	WaitingFor   []uint32
	WaitingUntil *recordv1.Condition
	WakeAt       int64
}

// ContinueAsNew ends an attempt whose handler begins anew: with another input, an empty journal,
// and everything else of the invocation as it is.
type ContinueAsNew struct {
	ID      invocation.ID
	Attempt uint32
	Input   []byte
}

// TimeOut ends an attempt that took longer than it may, which was After milliseconds.
type TimeOut struct {
	ID      invocation.ID
	Attempt uint32
	After   int64
}

// Restart replaces an attempt by the next one, at once and without counting as a failure.
type Restart struct {
	ID      invocation.ID
	Attempt uint32
	Since   int64 // when its time begins anew, 0: it does not
}

// Quarantine pauses an invocation that broke the evaluation of an event: an operator decides.
type Quarantine struct {
	ID    invocation.ID
	Cause error
}

// CompleteAwakeable resolves or rejects an awakeable from outside.
type CompleteAwakeable struct {
	ID     invocation.AwakeableID
	Result *recordv1.Result
	Token  Token
}

// CompletePromise resolves or rejects a promise of an object, on behalf of a READ handler.
type CompletePromise struct {
	Object invocation.Object
	Name   string
	Result *recordv1.Result
	Token  Token
}

// Fire says that a timer is due.
type Fire struct{ Timer table.Timer }

// Deliver is a message from another partition.
type Deliver struct {
	From     uint32
	Sequence uint64
	Message  *recordv1.Message
}

// Call is a call that the handler of a TRANSACTION makes, or a READ handler that is part of a
// transaction. The callee becomes part of the transaction; its result is the completion of entry
// Index.
type Call struct {
	ID      invocation.ID
	Attempt uint32
	Index   uint32
	Invoke  *recordv1.Invoke
}

// Told is a message about a transaction from another partition, which may have been lost,
// doubled or late.
type Told struct{ Peer *recordv1.Peer }

// Tick comes about once a second as long as Busy says so: what was not answered is asked again,
// and transactions that take too long end.
type Tick struct{}

// Reached says that another partition has a leader again: what it has not answered it is asked again at once,
// whether that is late or not.
type Reached struct{ Partition uint32 }

// Acked says that another partition has made every message up to Sequence durable.
type Acked struct {
	By       uint32
	Sequence uint64
}
