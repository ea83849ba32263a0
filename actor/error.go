package actor

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"
)

// Error is a failure with a code. A handler that returns an error with an *Error in its chain
// ends its invocation: code, message and details reach the caller, the text that %w wrapped
// around it does not. Any other error ends only the attempt of a DURABLE or RUN handler, which
// is then tried again by its retry policy.
//
// An Error is immutable and safe for concurrent use.
type Error struct {
	code    Code
	message string
	details []*anypb.Any
	cause   error
}

// ErrCanceled is what a wait returns, once, after the invocation was cancelled; a wait for what is
// complete already returns that, and the next one the error. Later steps work, so a handler can
// clean up before it returns the error. Its code is [Canceled].
var ErrCanceled error = &Error{code: Canceled, message: "the invocation was cancelled"}

// NewError makes an Error from its parts, as they come over a wire or out of a record. Handlers
// use [Errorf]. A code out of range becomes [Unknown]. It keeps details.
func NewError(code Code, message string, details ...*anypb.Any) *Error {
	return &Error{code: validCode(code), message: message, details: details}
}

// Errorf makes an error that ends the invocation, with the code and a message for the caller.
// The format may have one %w: what it wraps is found by errors.Is in this process and does not
// travel.
func Errorf(code Code, format string, args ...any) error {
	formatted := fmt.Errorf(format, args...)
	return &Error{code: validCode(code), message: formatted.Error(), cause: errors.Unwrap(formatted)}
}

// Terminal makes err end the invocation: its text is the message for the caller. It returns nil
// for a nil err.
func Terminal(code Code, err error) error {
	if err == nil {
		return nil
	}
	return &Error{code: validCode(code), message: messageOf(err), cause: err}
}

// messageOf is err's text, without the code if it is an *Error itself.
func messageOf(err error) string {
	if coded, ok := err.(*Error); ok { //nolint:errorlint // text around an *Error is kept here
		return coded.message
	}
	return err.Error()
}

// WithDetails returns err with details added, which clients read beside code and message. An
// err without a code gets [Unknown] and so becomes terminal. A detail that cannot be encoded is
// left out and the message says so. It returns nil for a nil err.
func WithDetails(err error, details ...proto.Message) error {
	if err == nil {
		return nil
	}
	detailed := &Error{code: Unknown, message: err.Error(), cause: err}
	if coded, ok := errors.AsType[*Error](err); ok {
		detailed.code, detailed.message, detailed.details = coded.code, coded.message, slices.Clone(coded.details)
	}
	for _, detail := range details {
		packed, packErr := anypb.New(detail)
		if packErr != nil {
			detailed.message += fmt.Sprintf(" (a detail is missing: %v)", packErr)
			continue
		}
		detailed.details = append(detailed.details, packed)
	}
	return detailed
}

// CodeOf is the code of the first *Error in err's chain; [DeadlineExceeded] or [Canceled] for
// the errors of package context; [Unknown] for any other error; 0 for nil.
func CodeOf(err error) Code {
	if err == nil {
		return 0
	}
	if coded, ok := errors.AsType[*Error](err); ok {
		return coded.code
	}
	switch {
	case isContinueAsNew(err):
		return FailedPrecondition
	case errors.Is(err, context.DeadlineExceeded):
		return DeadlineExceeded
	case errors.Is(err, context.Canceled):
		return Canceled
	}
	return Unknown
}

func validCode(code Code) Code {
	if code < Canceled || code > Unauthenticated {
		return Unknown
	}
	return code
}

// Code is what kind of failure it is.
func (e *Error) Code() Code { return e.code }

// Message is the text for the caller, without the code.
func (e *Error) Message() string { return e.message }

// Details are the messages added by [WithDetails]. The caller must not change them.
func (e *Error) Details() []*anypb.Any { return e.details }

// Error is "code: message".
func (e *Error) Error() string {
	if e.message == "" {
		return e.code.String()
	}
	return e.code.String() + ": " + e.message
}

// Unwrap is the error that [Errorf] or [Terminal] was given, in the process that made it.
func (e *Error) Unwrap() error { return e.cause }
