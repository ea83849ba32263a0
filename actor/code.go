package actor

import "strconv"

// Code says what kind of failure an [Error] is. The numbers and the names are those of Connect
// and gRPC, so they mean the same to clients in any language. There is no code for success: an
// error always has one of the codes from 1 to 16.
type Code uint32

// The codes.
const (
	// Canceled: the caller or an operator called it off.
	Canceled Code = 1
	// Unknown: a failure that says nothing about its kind.
	Unknown Code = 2
	// InvalidArgument: the request is wrong whatever the state of the object.
	InvalidArgument Code = 3
	// DeadlineExceeded: there was no answer in time.
	DeadlineExceeded Code = 4
	// NotFound: what the request names does not exist.
	NotFound Code = 5
	// AlreadyExists: what the request would create exists.
	AlreadyExists Code = 6
	// PermissionDenied: the caller may not do this.
	PermissionDenied Code = 7
	// ResourceExhausted: a quota or a stock is used up.
	ResourceExhausted Code = 8
	// FailedPrecondition: the object is not in a state that allows this.
	FailedPrecondition Code = 9
	// Aborted: called off because of a conflict; trying again may work.
	Aborted Code = 10
	// OutOfRange: past the end of something.
	OutOfRange Code = 11
	// Unimplemented: there is no such handler, or not yet.
	Unimplemented Code = 12
	// Internal: something that should never happen did.
	Internal Code = 13
	// Unavailable: not reachable now; trying again is safe and may work.
	Unavailable Code = 14
	// DataLoss: stored data is missing or unreadable.
	DataLoss Code = 15
	// Unauthenticated: the caller has not said who it is.
	Unauthenticated Code = 16
)

var codeNames = [...]string{
	Canceled: "canceled", Unknown: "unknown", InvalidArgument: "invalid_argument",
	DeadlineExceeded: "deadline_exceeded", NotFound: "not_found", AlreadyExists: "already_exists",
	PermissionDenied: "permission_denied", ResourceExhausted: "resource_exhausted",
	FailedPrecondition: "failed_precondition", Aborted: "aborted", OutOfRange: "out_of_range",
	Unimplemented: "unimplemented", Internal: "internal", Unavailable: "unavailable",
	DataLoss: "data_loss", Unauthenticated: "unauthenticated",
}

// String is the code's name on the wire, such as "failed_precondition".
func (c Code) String() string {
	if c >= Canceled && c <= Unauthenticated {
		return codeNames[c]
	}
	return "code_" + strconv.FormatUint(uint64(c), 10)
}
