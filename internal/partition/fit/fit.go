// Package fit refuses what does not fit a record of the log, with an error that says what it is, how
// large it is, how large it may be and what to do.
package fit

import (
	"cmp"
	"fmt"

	"google.golang.org/protobuf/proto"

	"github.com/perdure/perdure/internal/invoker"
	"github.com/perdure/perdure/internal/journal"
	recordv1 "github.com/perdure/perdure/internal/record/v1"
	"github.com/perdure/perdure/internal/routing"
)

// WholeBytes is what a Run returns at once even if a record could take more, so that nobody waits for
// long behind it.
const WholeBytes = 7 << 18

// Record is what one step, or one TRANSACTION, may write.
type Record struct {
	Bytes int
	// Writes are the writes and sends of a TRANSACTION.
	Writes int
}

// Refuse is nil for what has no more bytes than fit.
func (r Record) Refuse(target fmt.Stringer, what string, bytes int) *recordv1.Error {
	if bytes <= r.Bytes {
		return nil
	}
	return &recordv1.Error{Code: uint32(routing.CodeResourceExhausted), Message: fmt.Sprintf(
		"%s: %s has %d bytes, more than the %d that fit one record: split it over several steps or calls, or keep it elsewhere and pass on where it is", target, what, bytes, r.Bytes)}
}

// Message refuses a message that is too large; nil for one that is not.
func (r Record) Message(target fmt.Stringer, what string, message proto.Message) error {
	if refused := r.Refuse(target, what, proto.Size(message)); refused != nil {
		return routing.Errorf(routing.CodeResourceExhausted, "%s", refused.Message)
	}
	return nil
}

// Entry refuses a step that is too large.
func (r Record) Entry(target fmt.Stringer, entry *recordv1.Entry) *recordv1.Error {
	bytes := proto.Size(entry)
	if bytes <= r.Bytes {
		return nil
	}
	what := journal.Brief(entry)
	if len(entry.GetSetState().GetPrevious())+len(entry.GetTablePut().GetPrevious()) > 0 {
		what += ", with the value that it replaces," // which a replay needs
	}
	return r.Refuse(target, what, bytes)
}

// Outcome refuses what a handler returned, with all that it writes besides.
func (r Record) Outcome(target fmt.Stringer, o *invoker.Outcome) *recordv1.Error {
	what, bytes := "its response", proto.Size(o.Result)
	for _, entry := range o.Entries {
		what = "all that it writes, sends and returns"
		bytes += proto.Size(entry)
	}
	return cmp.Or(r.Refuse(target, what, bytes), r.many(target, len(o.Entries)))
}

func (r Record) many(target fmt.Stringer, writes int) *recordv1.Error {
	if writes <= r.Writes {
		return nil
	}
	return &recordv1.Error{Code: uint32(routing.CodeResourceExhausted), Message: fmt.Sprintf(
		"%s made %d writes and sends, more than the %d that fit one record: split it over several calls", target, writes, r.Writes)}
}
