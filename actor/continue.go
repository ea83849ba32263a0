package actor

import (
	"errors"

	"google.golang.org/protobuf/proto"
)

// ContinueAsNew is what a DURABLE or RUN handler returns to begin anew with another request and
// an empty journal, so that one that goes on for ever never has a long one:
//
//	return nil, actor.ContinueAsNew(&pollv1.RunRequest{Cursor: cursor})
//
// The invocation stays the same: its id, its object's key and state, signals nobody has received,
// and whoever waits for its result. The request must be the handler's own message; its key may be
// left out. What the handler has not awaited is left behind: a call goes on and nobody hears its
// result, a signal that a Receive has taken already is lost. [Context.Attempt] goes on counting;
// a timeout of the whole invocation goes on running.
//
// It is all or nothing, also in a crash. Handlers of other modes fail with
// [FailedPrecondition].
func ContinueAsNew(req proto.Message) error { return &ContinueAsNewError{Request: req} }

// ContinueAsNewError is the error that [ContinueAsNew] makes. It is a type of its own so that the
// tests of a handler can look at the request.
type ContinueAsNewError struct {
	// Request that the handler begins anew with.
	Request proto.Message
}

// Error says what it is, for whoever returns it where it means nothing.
func (e *ContinueAsNewError) Error() string {
	return "ContinueAsNew: only a DURABLE or RUN handler can return it"
}

// RequestOf is the request as a handler of m gets it, with its object's key filled in. It is for
// the runtime; an error says what is wrong with the request.
func (e *ContinueAsNewError) RequestOf(m *MethodDesc, key string) (proto.Message, error) {
	wanted := m.NewRequest().ProtoReflect().Descriptor().FullName()
	if e.Request == nil || !e.Request.ProtoReflect().IsValid() {
		return nil, Errorf(InvalidArgument, "ContinueAsNew of %s with nothing: it begins anew with a %s", m.FullName(), wanted)
	}
	if got := e.Request.ProtoReflect().Descriptor().FullName(); got != wanted {
		return nil, Errorf(InvalidArgument, "ContinueAsNew of %s with a %s: it begins anew with a %s", m.FullName(), got, wanted)
	}
	req, err := m.withKey(e.Request, key)
	if err != nil {
		return nil, Errorf(InvalidArgument, "ContinueAsNew: an invocation keeps its object: %w", err)
	}
	return req, nil
}

// isContinueAsNew reports whether a handler that returned err wants to begin anew.
func isContinueAsNew(err error) bool {
	_, ok := errors.AsType[*ContinueAsNewError](err)
	return ok
}
