package ingress

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"strings"

	"buf.build/gen/go/bufbuild/protovalidate/protocolbuffers/go/buf/validate"
	"connectrpc.com/connect/v2"
	"connectrpc.com/connect/v2/connectproto"
	"google.golang.org/protobuf/types/known/anypb"

	"github.com/perdure/perdure/actor"
	recordv1 "github.com/perdure/perdure/internal/record/v1"
	"github.com/perdure/perdure/internal/routing"
	"github.com/perdure/perdure/internal/telemetry"
)

// Errors travel as what they are until wire gives them a code; the types below say which of
// the kinds an error is that has none of its own.

// handlerError is the recorded failure of a handler.
type handlerError struct{ failure *recordv1.Error }

func (e *handlerError) Error() string { return e.failure.GetMessage() }

// receiveError is a request that could not be read or decoded.
type receiveError struct{ cause error }

func (e *receiveError) Error() string { return e.cause.Error() }
func (e *receiveError) Unwrap() error { return e.cause }

// validationError is a request that the validator refused.
type validationError struct {
	method string
	cause  error
}

func (e *validationError) Error() string { return e.cause.Error() }
func (e *validationError) Unwrap() error { return e.cause }

// wire is the one place where an error gets its code for the caller.
func (i *Ingress) wire(ctx context.Context, c *call, err error) *connect.Error {
	if handler, ok := errors.AsType[*handlerError](err); ok {
		return fromRecord(handler.failure)
	}
	if received, ok := errors.AsType[*receiveError](err); ok {
		return i.notReceived(received)
	}
	if refused, ok := errors.AsType[*validationError](err); ok {
		return notValid(refused)
	}
	if routed, ok := errors.AsType[*routing.Error](err); ok {
		if routed.Cause != nil {
			i.logFailure(ctx, c, slog.LevelWarn, err)
		}
		return withDetails(connect.NewError(validCode(uint32(routed.Code)), routed.Message).WithCause(err), routed.Details)
	}
	if coded, ok := errors.AsType[*actor.Error](err); ok {
		return withDetails(connect.NewError(validCode(uint32(coded.Code())), coded.Message()), coded.Details())
	}
	switch {
	case errors.Is(err, context.DeadlineExceeded):
		return connect.NewError(connect.CodeDeadlineExceeded, c.late("the caller's deadline passed")).WithCause(err)
	case errors.Is(err, context.Canceled):
		return connect.NewError(connect.CodeCanceled, c.late("the caller went away")).WithCause(err)
	}
	if already, ok := errors.AsType[*connect.Error](err); ok {
		if already.Code() == connect.CodeInternal {
			i.logFailure(ctx, c, slog.LevelError, err)
		}
		return already
	}
	i.logFailure(ctx, c, slog.LevelError, err)
	return connect.NewError(connect.CodeInternal, "the node failed; its log says more").WithCause(err)
}

// late says what became of a call that its caller no longer waits for.
func (c *call) late(what string) string {
	if c == nil || !c.accepted || c.method.desc.Mode == actor.ModeRead {
		return what
	}
	return fmt.Sprintf("%s; invocation %s goes on", what, c.id)
}

func (i *Ingress) logFailure(ctx context.Context, c *call, level slog.Level, err error) {
	attributes := []slog.Attr{slog.Any(telemetry.KeyError, err)}
	if c != nil {
		attributes = append(attributes, slog.String(telemetry.KeyService, c.method.desc.Service),
			slog.String(telemetry.KeyHandler, c.method.desc.Name), slog.String(telemetry.KeyInvocationID, c.id.String()))
	}
	i.log.LogAttrs(ctx, level, "call failed", attributes...)
}

func fromRecord(failure *recordv1.Error) *connect.Error {
	return withDetails(connect.NewError(validCode(failure.GetCode()), failure.GetMessage()), failure.GetDetails())
}

func withDetails(err *connect.Error, details []*anypb.Any) *connect.Error {
	for _, detail := range details {
		// An Any is taken apart, never encoded, so this cannot fail.
		if packed, packErr := connectproto.NewErrorDetail(detail); packErr == nil {
			err = err.WithDetail(packed)
		}
	}
	return err
}

func validCode(code uint32) connect.Code {
	if code < uint32(connect.CodeCanceled) || code > uint32(connect.CodeUnauthenticated) {
		return connect.CodeUnknown
	}
	return connect.Code(code)
}

func (i *Ingress) notReceived(err *receiveError) *connect.Error {
	if decoding, ok := errors.AsType[*decodeError](err); ok {
		return connect.NewError(connect.CodeInvalidArgument, decoding.reason)
	}
	// Looked for before the caller's own deadline: both are errors of the kind "timeout".
	if errors.Is(err, os.ErrDeadlineExceeded) && !errors.Is(err, context.DeadlineExceeded) {
		return connect.Errorf(connect.CodeDeadlineExceeded, "the request's body did not arrive within %s", i.config.BodyTimeout)
	}
	if errors.Is(err, io.ErrUnexpectedEOF) {
		return connect.NewError(connect.CodeInvalidArgument, "the request's body ended early")
	}
	coded, ok := errors.AsType[*connect.Error](err)
	switch {
	case !ok:
		return connect.NewError(connect.CodeInvalidArgument, "the request could not be read").WithCause(err)
	case coded.Code() == connect.CodeResourceExhausted:
		return connect.Errorf(connect.CodeResourceExhausted,
			"the request is larger than %d bytes, the most this node accepts: split it, or keep what is large elsewhere and send where it is; MaxMessageBytes of the node may be raised", i.config.MaxMessageBytes)
	}
	return coded
}

// notValid keeps a validator's own code and details if it has them. Violations of
// protovalidate are recognised by what they can turn into, so that its CEL engine is linked
// only into programs that use it.
func notValid(err *validationError) *connect.Error {
	if coded, ok := errors.AsType[*actor.Error](err.cause); ok {
		return withDetails(connect.NewError(validCode(uint32(coded.Code())), coded.Message()), coded.Details())
	}
	var violated interface{ ToProto() *validate.Violations }
	if errors.As(err.cause, &violated) {
		violations := violated.ToProto()
		answer := connect.NewError(connect.CodeInvalidArgument, describe(err.method, violations))
		if detail, packErr := connectproto.NewErrorDetail(violations); packErr == nil {
			answer = answer.WithDetail(detail)
		}
		return answer
	}
	return connect.NewError(connect.CodeInvalidArgument, err.method+": "+err.cause.Error())
}

func describe(method string, violations *validate.Violations) string {
	var text strings.Builder
	text.WriteString(method)
	for n, violation := range violations.GetViolations() {
		text.WriteString([]string{": ", "; "}[min(n, 1)])
		for at, element := range violation.GetField().GetElements() {
			if at > 0 {
				text.WriteByte('.')
			}
			text.WriteString(element.GetFieldName())
		}
		text.WriteByte(' ')
		text.WriteString(violation.GetMessage())
	}
	return text.String()
}

// outcomeOf is what the metrics call the end of a call: err as it was before wire, and after.
func outcomeOf(err error, wired *connect.Error) telemetry.Outcome {
	if _, ok := errors.AsType[*handlerError](err); ok {
		return telemetry.OutcomeFailed
	}
	if errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) {
		return telemetry.OutcomeAbandoned
	}
	switch wired.Code() {
	case connect.CodeUnavailable, connect.CodeInternal, connect.CodeDataLoss, connect.CodeUnknown:
		return telemetry.OutcomeUnavailable
	}
	return telemetry.OutcomeFailed
}
