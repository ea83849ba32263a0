package inprocess

import (
	"errors"
	"fmt"
	"strings"

	"google.golang.org/protobuf/proto"

	"github.com/perdure/perdure/actor"
	recordv1 "github.com/perdure/perdure/internal/record/v1"
	"github.com/perdure/perdure/internal/routing"
)

// What travels of an error: more is in the node's log. The row of an invocation has it, and for
// callers it is in a header.
const (
	maxMessageBytes = 16 << 10
	maxDetailBytes  = 64 << 10
)

// errorRecord is the part of an error that travels: of an *actor.Error in its chain the code, the
// message and the details, without the text around it; of any other error the text. A row takes no
// text that is not utf-8. What is too large is cut: the code must arrive.
func errorRecord(err error) *recordv1.Error {
	failure := &recordv1.Error{Code: uint32(actor.CodeOf(err)), Message: err.Error()}
	if coded, ok := errors.AsType[*actor.Error](err); ok {
		failure = &recordv1.Error{Code: uint32(coded.Code()), Message: coded.Message(), Details: coded.Details()}
	}
	if refused, ok := errors.AsType[*routing.Error](err); ok && !isCoded(err) {
		failure = &recordv1.Error{Code: uint32(refused.Code), Message: refused.Message, Details: refused.Details}
	}
	if all := len(failure.Message); all > maxMessageBytes {
		failure.Message = fmt.Sprintf("%s… (the message has %d bytes, of which the first %d are shown)", failure.Message[:maxMessageBytes], all, maxMessageBytes)
	}
	failure.Message = strings.ToValidUTF8(failure.Message, "\uFFFD")
	bytes := 0
	for _, detail := range failure.Details {
		bytes += len(detail.GetValue())
	}
	if bytes > maxDetailBytes {
		failure.Message += fmt.Sprintf(" (its details are left out: they have %d bytes, and at most %d are kept)", bytes, maxDetailBytes)
		failure.Details = nil
	}
	return failure
}

func errorResult(failure *recordv1.Error) *recordv1.Result { return &recordv1.Result{Error: failure} }

// resultRecord is a value, or the failure if there is one.
func resultRecord(value []byte, failure *actor.Error) *recordv1.Result {
	if failure != nil {
		return errorResult(errorRecord(failure))
	}
	return &recordv1.Result{Value: value}
}

// resultParts is what a recorded result means to a handler.
func resultParts(result *recordv1.Result) ([]byte, error) {
	if failure := result.GetError(); failure != nil {
		return nil, actor.NewError(actor.Code(failure.GetCode()), failure.GetMessage(), failure.GetDetails()...)
	}
	return result.GetValue(), nil
}

func isCoded(err error) bool {
	_, ok := errors.AsType[*actor.Error](err)
	return ok
}

// decodeInput makes the request of a handler.
func (m *method) decodeInput(input []byte) (proto.Message, error) {
	req := m.desc.NewRequest()
	if err := proto.Unmarshal(input, req); err != nil {
		return nil, actor.Errorf(actor.InvalidArgument, "the request is not a %s: %w", req.ProtoReflect().Descriptor().FullName(), err)
	}
	return req, nil
}

// encodeResponse is the result of a handler that returned resp without an error; nil is empty.
func (m *method) encodeResponse(resp proto.Message) *recordv1.Result {
	if resp == nil || !resp.ProtoReflect().IsValid() {
		return &recordv1.Result{}
	}
	value, err := proto.MarshalOptions{Deterministic: true}.Marshal(resp)
	if err != nil {
		return errorResult(&recordv1.Error{Code: uint32(actor.Internal), Message: fmt.Sprintf("the response of %s cannot be encoded: %v", m.desc.FullName(), err)})
	}
	return &recordv1.Result{Value: value}
}
