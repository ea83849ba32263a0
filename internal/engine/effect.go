package engine

import (
	"github.com/perdure/perdure/internal/invocation"
	recordv1 "github.com/perdure/perdure/internal/record/v1"
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
}

// StartAttempt runs a handler.
type StartAttempt struct {
	ID              invocation.ID
	Row             *recordv1.Invocation
	Input           []byte
	State           []byte
	HasState        bool
	Journal         []*recordv1.Entry
	Completions     map[uint32]*recordv1.Completion
	CancelRequested bool
}

// Notify gives a completion to a running attempt.
type Notify struct {
	ID         invocation.ID
	Completion *recordv1.Completion
}

// CancelAttempt tells a running attempt that its invocation was cancelled.
type CancelAttempt struct{ ID invocation.ID }

// AbortAttempt unwinds a running attempt, whose words no longer count.
type AbortAttempt struct {
	ID     invocation.ID
	Reason string
}

// EndAttempt says that the attempt the event came from is over.
type EndAttempt struct{ ID invocation.ID }

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

// ArmTimer says that a timer was written for that instant.
type ArmTimer struct{ At int64 }

// Gated is true: a reply says that something is durable.
func (*Reply) Gated() bool { return true }

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

// Gated is true: a message must not be sent that a crash takes back.
func (*SendMessage) Gated() bool { return true }

// Gated is true: the sender forgets the message.
func (*Ack) Gated() bool { return true }

// Gated is false: a timer that fires too early finds nothing to do.
func (*ArmTimer) Gated() bool { return false }
