package routing

import (
	"fmt"

	"google.golang.org/protobuf/types/known/anypb"
)

// Code says why a router could not do what was asked. The numbers are those of gRPC and
// Connect, as in recordv1.Error, so the edge passes them on without a table.
type Code uint32

// The codes a Router fails with.
const (
	CodeCanceled           Code = 1
	CodeInvalidArgument    Code = 3
	CodeDeadlineExceeded   Code = 4
	CodeNotFound           Code = 5
	CodeAlreadyExists      Code = 6
	CodeResourceExhausted  Code = 8
	CodeFailedPrecondition Code = 9
	CodeUnimplemented      Code = 12
	CodeInternal           Code = 13
	CodeUnavailable        Code = 14
	CodeDataLoss           Code = 15
)

// Error is a router's failure. Message goes to the caller as it is.
type Error struct {
	Code    Code
	Message string
	// Details go to the caller as they are. May be nil.
	Details []*anypb.Any
	// Cause is for the log only. May be nil.
	Cause error
	// Elsewhere is for other nodes only: it is set if the partition is not led where it was asked.
	Elsewhere *Elsewhere
}

// Errorf makes an Error.
func Errorf(code Code, format string, args ...any) *Error {
	return &Error{Code: code, Message: fmt.Sprintf(format, args...)}
}

// Error is the message, with the cause if there is one.
func (e *Error) Error() string {
	if e.Cause != nil {
		return e.Message + ": " + e.Cause.Error()
	}
	return e.Message
}

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.Cause }

// Elsewhere says that the node that was asked does not lead the partition.
type Elsewhere struct {
	Partition uint32
	// Leader is the node that leads it, in Term, as far as the one that was asked knows; 0 if it
	// knows of none.
	Leader, Term uint64
	// Untouched: the request had no effect, and never will. Otherwise it may have been accepted
	// before the leadership ended.
	Untouched bool
}
