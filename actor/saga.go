package actor

import (
	"context"
	"errors"
	"fmt"
	"slices"
)

// Saga collects what would undo the steps of a DURABLE handler. Its zero value is empty and
// ready; it belongs to the handler's goroutine.
type Saga struct{ undo []func(context.Context) error }

// Add registers how to undo the step just made. To be safe against a failure whose outcome is
// unknown, register before the step and let undo cope with a step that never happened.
func (s *Saga) Add(undo func(ctx context.Context) error) { s.undo = append(s.undo, undo) }

// Fail undoes what was added, last first, and returns err as a terminal error, to be returned by
// the handler. An undo that fails with a terminal error does not stop the others and is named in
// the error that Fail returns; one that fails otherwise ends the attempt, which is tried again.
// After a cancel the steps of an undo work. It does nothing and returns err if that is nil or a
// [ContinueAsNew].
func (s *Saga) Fail(ctx context.Context, err error) error {
	if err == nil || isContinueAsNew(err) {
		return err
	}
	var failed []error
	for _, undo := range slices.Backward(s.undo) {
		undoErr := undo(ctx)
		if undoErr == nil {
			continue
		}
		if _, terminal := errors.AsType[*Error](undoErr); !terminal {
			return undoErr
		}
		failed = append(failed, undoErr)
	}
	s.undo = nil
	if len(failed) > 0 {
		return &Error{
			code: CodeOf(err), cause: err,
			message: fmt.Sprintf("%s; undoing it failed too: %v", messageOf(err), errors.Join(failed...)),
		}
	}
	if _, terminal := errors.AsType[*Error](err); terminal {
		return err
	}
	return Terminal(CodeOf(err), err)
}
