package transport

import (
	"errors"
	"fmt"
)

var (
	// ErrUnreachable marks a Call or Stream that certainly did not reach the other node's Handler:
	// it can be sent again, or elsewhere.
	ErrUnreachable = errors.New("not delivered")
	// ErrUnknown marks a Call or Stream that failed after it may have reached the other node's
	// Handler: whether it took effect is not known.
	ErrUnknown = errors.New("outcome unknown")
	// ErrNotMember is for Config.Admit to return, or wrap, for a node the cluster doesn't know.
	ErrNotMember = errors.New("not a member of the cluster")
	// ErrRemoved is for Config.Admit to return, or wrap, for a node that was removed for good.
	ErrRemoved = errors.New("removed from the cluster")
)

// Error is what a Handler returned for a Call or Stream, kept as it was across the network. What
// code and details mean, caller and handler agree on. A handler's error of another type arrives
// as an Error with code 2 (unknown) and its text.
type Error struct {
	// Code is a number; 0 is never sent, and arrives as 2.
	Code uint32
	// Message is for people.
	Message string
	// Details are bytes, at most as many as a response may have.
	Details []byte
}

// Error implements error.
func (e *Error) Error() string { return e.Message }

// codeUnknown is that of Connect and gRPC.
const codeUnknown = 2

// handlerError is err as it crosses the network.
func handlerError(err error) *Error {
	if coded, ok := errors.AsType[*Error](err); ok {
		if coded.Code != 0 {
			return coded
		}
		return &Error{Code: codeUnknown, Message: coded.Message, Details: coded.Details}
	}
	return &Error{Code: codeUnknown, Message: err.Error()}
}

// Reason is why a node refused another.
type Reason uint32

// The reasons of a Refused. Their numbers are those of the wire.
const (
	// ReasonWrongCluster: the callee is a node of another cluster.
	ReasonWrongCluster Reason = 1
	// ReasonWrongNode: the callee is another node than the one meant.
	ReasonWrongNode Reason = 2
	// ReasonNotMember: the callee knows no such node as the caller.
	ReasonNotMember Reason = 3
	// ReasonRemoved: the caller was removed from the cluster, for good.
	ReasonRemoved Reason = 4
	// ReasonVersion: there is no protocol version that both speak.
	ReasonVersion Reason = 5
	// ReasonBusy: the caller has too much under way with the callee.
	ReasonBusy Reason = 6
	// ReasonNotReady: the callee has joined no cluster yet, or is stopping.
	ReasonNotReady Reason = 7
	// ReasonCallerTooOld: the caller's program can't read what may be written in the cluster.
	ReasonCallerTooOld Reason = 8
	// ReasonCalleeTooOld: the callee's program can't.
	ReasonCalleeTooOld Reason = 9
	// ReasonStale: the caller's data directory is older than what its node has acknowledged.
	ReasonStale Reason = 10
)

// String is the reason in a few words.
func (r Reason) String() string {
	switch r {
	case ReasonWrongCluster:
		return "wrong cluster"
	case ReasonWrongNode:
		return "wrong node"
	case ReasonNotMember:
		return "not a member"
	case ReasonRemoved:
		return "removed"
	case ReasonVersion:
		return "no common version"
	case ReasonBusy:
		return "busy"
	case ReasonNotReady:
		return "not ready"
	case ReasonCallerTooOld:
		return "caller too old"
	case ReasonCalleeTooOld:
		return "callee too old"
	case ReasonStale:
		return "older data"
	}
	return fmt.Sprintf("reason %d", uint32(r))
}

// Refused is an answer of another node that did nothing with what was sent to it, and why. It
// matches ErrUnreachable, and by reason ErrNotMember and ErrRemoved.
type Refused struct {
	// Node is who refused.
	Node uint64
	// Reason is for programs, Message for people: it says what to do.
	Reason  Reason
	Message string
}

// Error implements error.
func (r *Refused) Error() string {
	return fmt.Sprintf("node %016x refused: %s", r.Node, r.Message)
}

// Is makes errors.Is find the sentinels.
func (r *Refused) Is(target error) bool {
	switch target {
	case ErrUnreachable:
		return true
	case ErrNotMember:
		return r.Reason == ReasonNotMember
	case ErrRemoved:
		return r.Reason == ReasonRemoved
	}
	return false
}
