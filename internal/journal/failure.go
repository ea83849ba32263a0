package journal

import (
	"strings"

	recordv1 "github.com/perdure/perdure/internal/record/v1"
)

// What is kept of failures: an invocation's row is written with each of its transitions, and the
// failures with it.
const (
	maxFailures     = 10
	maxMessageBytes = 1 << 10
	maxStackBytes   = 4 << 10
)

// AddFailure adds the newest failure to those that are kept of an invocation, and forgets the
// oldest if there are too many. The first stays: it is often the one that explains the others.
// What it keeps is cut to a bounded size.
func AddFailure(kept []*recordv1.Failure, failed *recordv1.Failure) []*recordv1.Failure {
	for _, earlier := range kept {
		earlier.Stack = ""
	}
	if len(kept) >= maxFailures {
		kept = append(kept[:1:1], kept[len(kept)-maxFailures+2:]...)
	}
	failed.Error = &recordv1.Error{Code: failed.Error.GetCode(), Message: clip(failed.Error.GetMessage(), maxMessageBytes)}
	failed.Step = clip(failed.Step, maxMessageBytes)
	failed.Stack = clip(failed.Stack, maxStackBytes)
	return append(kept, failed)
}

// clip cuts text to a number of bytes. What a handler says may be cut within a letter, or may not
// be text at all, and is kept in a field that must be.
func clip(text string, most int) string {
	if len(text) > most {
		text = text[:most] + "…"
	}
	return strings.ToValidUTF8(text, "\ufffd")
}
