package partition

import (
	"errors"
	"fmt"

	"google.golang.org/protobuf/proto"

	"github.com/perdure/perdure/internal/engine"
	"github.com/perdure/perdure/internal/invoker"
	"github.com/perdure/perdure/internal/journal/pages"
	"github.com/perdure/perdure/internal/partition/fit"
	"github.com/perdure/perdure/internal/partition/overlay"
	recordv1 "github.com/perdure/perdure/internal/record/v1"
)

// say has the partition hear it, if the attempt is not superseded by then. What one of an earlier
// leadership says is not even posted.
func (a *attempt) say(it item) {
	if l := a.partition.leading.Load(); l != nil && (l.epoch == a.epoch || bugEpoch) {
		it.from = a
		a.partition.post(it)
	}
}

// heeds reports whether what an attempt says counts: only if it is the one that runs now. Its
// invocation's id and its number are also another one's, in this leadership or the next: a recovered
// attempt is not written down, and a call of a transaction that is made again after it was rolled back
// here begins with the number of the try.
func (l *leadership) heeds(a *attempt) bool {
	return l.attempts[a.id] == a || bugEpoch && a.epoch != l.epoch
}

// refuse ends an invocation whose step could not be recorded.
func (a *attempt) refuse(refused *recordv1.Error) {
	a.say(item{
		event:   &engine.Finish{ID: a.id, Attempt: a.number, Result: &recordv1.Result{Error: refused}},
		refused: errors.New(refused.Message),
	})
}

// record is what an attempt may write at once.
func (c *Config) record() fit.Record {
	return fit.Record{Bytes: c.MaxEntryBytes, Writes: c.MaxEntryWrites}
}

// Append implements invoker.Host.
func (a *attempt) Append(of *invoker.Attempt, index uint32, entry *recordv1.Entry) {
	if refused := a.partition.config.record().Entry(of.Target, entry); refused != nil {
		a.refuse(refused)
		return
	}
	a.say(item{event: &engine.Append{ID: a.id, Attempt: a.number, Index: index, Entry: entry}})
}

// Call implements invoker.Host.
func (a *attempt) Call(of *invoker.Attempt, index uint32, invoke *recordv1.Invoke) {
	if refused := a.partition.config.record().Refuse(of.Target, "Call "+targetOf(invoke).String(), proto.Size(invoke)); refused != nil {
		a.refuse(refused)
		return
	}
	a.say(item{event: &engine.Call{ID: a.id, Attempt: a.number, Index: index, Invoke: invoke}})
}

// AwaitDurable implements invoker.Host.
func (a *attempt) AwaitDurable(_ *invoker.Attempt, granted func()) {
	a.say(item{granted: granted})
}

// ended is what an attempt reads whose leadership is over.
type ended struct{}

func (ended) Get([]byte) ([]byte, bool, error) { return nil, false, overlay.ErrClosed }

func (ended) Scan(_, _ []byte, _ func(_, _ []byte) bool) error { return overlay.ErrClosed }

// Journal implements invoker.Host.
func (a *attempt) Journal(of *invoker.Attempt) invoker.Journal {
	var rows pages.Rows = ended{}
	if l := a.partition.leading.Load(); l != nil && l.epoch == a.epoch {
		rows = l.view
	}
	return pages.New(rows, a.id, of.Entries, func(err error) {
		if !errors.Is(err, overlay.ErrClosed) { // To try again what is damaged would not help.
			a.say(item{event: &engine.Quarantine{ID: a.id, Cause: err}})
		}
	})
}

// Retry implements invoker.Host.
func (a *attempt) Retry(_ *invoker.Attempt, index uint32, tries *recordv1.RunTries) {
	a.say(item{event: &engine.RetryRun{ID: a.id, Attempt: a.number, Index: index, Tries: tries}})
}

// Complete implements invoker.Host.
func (a *attempt) Complete(of *invoker.Attempt, index uint32, result *recordv1.Result) {
	if refused := a.partition.config.record().Refuse(of.Target, fmt.Sprintf("what the Run of entry %d returned", index), proto.Size(result)); refused != nil {
		a.refuse(refused)
		return
	}
	a.say(item{event: &engine.CompleteRun{ID: a.id, Attempt: a.number, Index: index, Result: result}})
}

// Part implements invoker.Host.
func (a *attempt) Part(_ *invoker.Attempt, index, number uint32, part []byte) {
	a.say(item{event: &engine.RunPart{ID: a.id, Attempt: a.number, Index: index, Number: number, Value: part}})
}

// CompleteParts implements invoker.Host.
func (a *attempt) CompleteParts(_ *invoker.Attempt, index uint32, parts *recordv1.Parts) {
	a.say(item{event: &engine.CompleteRun{ID: a.id, Attempt: a.number, Index: index, Parts: parts}})
}

// Finish implements invoker.Host.
func (a *attempt) Finish(of *invoker.Attempt, o *invoker.Outcome) {
	var event engine.Event
	switch {
	case o.Result != nil:
		if refused := a.partition.config.record().Outcome(of.Target, o); refused != nil {
			o.Result = &recordv1.Result{Error: refused}
		}
		event = &engine.Finish{ID: a.id, Attempt: a.number, Result: o.Result, Entries: o.Entries, Entry: o.Entry, Unhosted: o.Unhosted}
	case o.Lost:
		restart := &engine.Restart{ID: a.id, Attempt: a.number}
		if o.Anew {
			restart.Since = a.partition.config.Now().UnixMilli()
		}
		event = restart
	case o.ContinueAsNew != nil:
		if refused := a.partition.config.record().Refuse(of.Target, "the request with which it continues as new", len(o.ContinueAsNew)); refused != nil {
			event = &engine.Finish{ID: a.id, Attempt: a.number, Result: &recordv1.Result{Error: refused}}
			break
		}
		event = &engine.ContinueAsNew{ID: a.id, Attempt: a.number, Input: o.ContinueAsNew}
	case o.Suspended:
		suspend := &engine.Suspend{ID: a.id, Attempt: a.number, WaitingFor: o.WaitingFor, WaitingUntil: o.WaitingUntil}
		if !o.WakeAt.IsZero() {
			suspend.WakeAt = o.WakeAt.UnixMilli()
		}
		event = suspend
	default:
		event = &engine.Fail{ID: a.id, Attempt: a.number, Error: o.Retry, Divergence: o.Divergence, RetryAfter: o.RetryAfter.Milliseconds(), Entry: o.Entry, Stack: o.Stack, Pause: o.Pause}
	}
	a.say(item{event: event})
}
