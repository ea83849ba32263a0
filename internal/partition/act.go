package partition

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/perdure/perdure/internal/engine"
	"github.com/perdure/perdure/internal/invocation"
	"github.com/perdure/perdure/internal/invoker"
	"github.com/perdure/perdure/internal/journal/pages"
	"github.com/perdure/perdure/internal/partition/fit"
	"github.com/perdure/perdure/internal/partition/rows"
	recordv1 "github.com/perdure/perdure/internal/record/v1"
)

// act does what an effect says.
func (p *Partition) act(l *leadership, effect engine.Effect) {
	switch e := effect.(type) {
	case *engine.Reply:
		p.answer(e.Token, reply{result: e.Result, existed: e.Existed, refused: e.Refused})
	case *engine.StartAttempt:
		p.start(l, e)
	case *engine.Notify:
		if a := l.attempts[e.ID]; a != nil {
			a.touch()
			a.running.Notify(e.Completion.Entry, e.Completion)
		}
	case *engine.CancelAttempt:
		if a := l.attempts[e.ID]; a != nil {
			a.running.Cancel()
		}
	case *engine.AbortAttempt:
		p.abort(l, e.ID, errors.New(e.Reason))
	case *engine.EndAttempt:
		if a := l.attempts[e.ID]; a != nil {
			delete(l.attempts, e.ID)
			p.ended(l, e.ID, a)
		}
	case *engine.EndInvocation:
		p.record(l, e.ID, e.Row)
	case *engine.SendMessage:
		p.dispatch(l, e)
	case *engine.Ack:
		p.toPartition(e.To, &engine.Acked{By: p.id, Sequence: e.Sequence})
	case *engine.Tell:
		p.toPartition(e.To, e.Event())
		if !l.ticking {
			l.ticking = true
			l.checkAt(time.Now().Add(checkEvery))
		}
	case *engine.Hide:
		p.hidden.Hide(e.Object)
	case *engine.Show:
		p.hidden.Show(e.Object)
	case *engine.TransactionEnded:
		p.meter.TransactionEnded(e.Committed, time.Duration(e.Took)*time.Millisecond)
	case *engine.PermitGranted:
		p.meter.PermitGranted(e.Limit, time.Duration(e.Waited)*time.Millisecond)
	case *engine.PermitRefused:
		p.meter.PermitRefused(e.Limit)
	case *engine.TransactionRetried:
		p.meter.TransactionRetried(reasonOf(e.Reason))
	case *engine.ScheduleMoved:
		p.meter.ScheduleMoved(e.Fired, e.Skipped, e.Missed)
		for _, late := range e.Late {
			p.meter.ScheduleFired(time.Duration(late) * time.Millisecond)
		}
	case *engine.CopyOn:
		p.postEvent(&e.CopyEntries)
	case *engine.ArmTimer:
		l.nextTimer, l.timerFloor = min(l.nextTimer, e.At), min(l.timerFloor, e.At)
	}
}

func (p *Partition) abort(l *leadership, id invocation.ID, cause error) {
	if a := l.attempts[id]; a != nil {
		delete(l.attempts, id)
		a.running.Abort(cause)
		p.ended(l, id, a)
	}
}

// start hands an attempt to the invoker.
func (p *Partition) start(l *leadership, e *engine.StartAttempt) {
	if cause, condemned := p.poison.invocations[e.ID]; condemned {
		p.postEvent(&engine.Quarantine{ID: e.ID, Cause: cause}) // It would break this leadership too.
		return
	}
	row := e.Row
	target := invocation.Target{Service: row.Target.GetService(), Key: row.Target.GetKey(), Handler: row.Target.GetHandler()}
	mode := invocation.Mode(row.Mode)
	timeout := time.Duration(row.StepTimeoutMs) * time.Millisecond
	switch {
	case mode.Journaled():
		timeout = 0 // The invoker looks after it: it knows a handler that waits from one that hangs.
	case timeout <= 0 && mode == invocation.ModeTransaction:
		timeout = p.config.TransactionTimeout
	case timeout <= 0:
		timeout = p.config.StepTimeout
	}
	a := &attempt{stored: e.Stored && !e.Joined, row: row, number: row.Attempt, mode: mode, timeout: timeout}
	a.touch()
	if mode == invocation.ModeTransaction && !e.Joined {
		// All tries of a transaction together. A clock that went back since the first makes it no longer.
		a.deadline = time.Now().Add(min(time.UnixMilli(e.Since).Add(timeout).Sub(p.config.Now()), timeout))
	}
	l.attempts[e.ID] = a
	if !a.deadline.IsZero() {
		l.checkAt(a.deadline)
	}
	if p.meter != nil {
		a.meter = p.meter.Handler(target.Service, target.Handler)
		a.meter.AttemptStarted()
	}
	if mode == invocation.ModeRead && !e.Joined {
		p.startRead(l, a, e, target)
		return
	}
	started := &invoker.Attempt{
		ID:              e.ID,
		Number:          row.Attempt,
		Target:          target,
		Mode:            mode,
		Input:           e.Input,
		State:           e.State,
		HasState:        e.HasState,
		Tables:          rows.Tables(l.view, target.Object()),
		Writes:          e.Writes,
		Journal:         e.Journal,
		Completions:     e.Completions,
		Entries:         e.Entries,
		Known:           e.Known,
		LookAhead:       e.LookAhead,
		EntryBytes:      min(p.config.MaxEntryBytes, fit.WholeBytes),
		ResultBytes:     p.config.MaxResultBytes,
		Tries:           e.Tries,
		CancelRequested: e.CancelRequested,
		Origins:         row.Origins,
		Traceparent:     p.traceparent(e),
		StartedAt:       time.UnixMilli(cmp.Or(row.ContinuedAt, row.StartedAt)),
		Start:           row.JournalStart,
		Flow:            row.Flow,
		Headers:         row.Headers,
		Deployment:      row.Deployment,
		Earlier:         slices.Clone(row.EarlierDeployments),
		Stored:          e.Stored && !e.Joined,
		Host:            l.host,
	}
	if mode == invocation.ModeRead {
		started.Promise = rows.Promise(l.view, target.Object())
	}
	if row.DeadlineAt != 0 {
		started.Deadline = time.UnixMilli(row.DeadlineAt)
	}
	started.Chain = row.Chain
	if mode.Exclusive() && target.Key != "" {
		started.Chain = append(row.Chain[:len(row.Chain):len(row.Chain)], row.Target)
	}
	a.running = p.config.Invoker.Start(started)
}

// startRead runs a READ handler that another handler called: it has an invocation, since the
// call came as a message.
func (p *Partition) startRead(l *leadership, a *attempt, e *engine.StartAttempt, target invocation.Target) {
	ctx, cancel := context.WithTimeout(context.Background(), a.timeout)
	a.running = readRunning{cancel}
	number, id, from := e.Row.Attempt, e.ID, host{p, l.epoch}
	in := &recordv1.Invoke{InvocationId: id[:], Target: e.Row.Target, Mode: e.Row.Mode, Input: e.Input, Traceparent: p.traceparent(e), Headers: e.Row.Headers}
	// Its snapshot is of what is durable: the caller's own writes, and all it was told, must be
	// in it.
	p.grant(l, func() { p.runRead(ctx, cancel, in, id, number, from) })
}

func (p *Partition) runRead(ctx context.Context, cancel context.CancelFunc, in *recordv1.Invoke, id invocation.ID, number uint32, from host) {
	p.reads.Go(func() {
		defer cancel()
		result, err := p.read(ctx, in)
		if _, none := errors.AsType[*invoker.Unhosted](err); none { // it waits, and sees what there is then
			from.post(item{event: &engine.Restart{ID: id, Attempt: number}})
			return
		}
		if err != nil {
			result = &recordv1.Result{Error: &recordv1.Error{Code: codeOf(err), Message: err.Error()}}
		} else if refused := p.config.record().Refuse(targetOf(in), "its response to another handler", proto.Size(result)); refused != nil {
			result = &recordv1.Result{Error: refused}
		}
		from.post(item{event: &engine.Finish{ID: id, Attempt: number, Result: result}})
	})
}

type readRunning struct{ cancel context.CancelFunc }

func (readRunning) Notify(uint32, *recordv1.Completion) {}
func (r readRunning) Cancel()                           { r.cancel() }
func (r readRunning) Abort(error)                       { r.cancel() }

// touch starts the attempt's time anew, if it has any.
func (a *attempt) touch() {
	if a.timeout > 0 {
		a.deadline = time.Now().Add(a.timeout)
	}
}

// touch notes that an attempt made a step.
func (p *Partition) touch(l *leadership, event engine.Event) {
	if id, ok := spokenFor(event); ok {
		if a := l.attempts[id]; a != nil {
			a.touch()
		}
	}
}

// host is how the attempts of one leadership talk to the partition.
type host struct {
	partition *Partition
	epoch     uint64
}

// post drops what an attempt of an earlier leadership says.
func (h host) post(it item) {
	if l := h.partition.leading.Load(); l != nil && (l.epoch == h.epoch || bugEpoch) {
		it.epoch = h.epoch
		h.partition.post(it)
	}
}

// refuse ends an invocation whose step could not be recorded.
func (h host) refuse(a *invoker.Attempt, refused *recordv1.Error) {
	h.post(item{
		event: &engine.Finish{ID: a.ID, Attempt: a.Number, Result: &recordv1.Result{Error: refused}},
		id:    a.ID, number: a.Number, refused: errors.New(refused.Message),
	})
}

// record is what an attempt may write at once.
func (c *Config) record() fit.Record {
	return fit.Record{Bytes: c.MaxEntryBytes, Writes: c.MaxEntryWrites}
}

// Append implements invoker.Host.
func (h host) Append(a *invoker.Attempt, index uint32, entry *recordv1.Entry) {
	if refused := h.partition.config.record().Entry(a.Target, entry); refused != nil {
		h.refuse(a, refused)
		return
	}
	h.post(item{event: &engine.Append{ID: a.ID, Attempt: a.Number, Index: index, Entry: entry}})
}

// Call implements invoker.Host.
func (h host) Call(a *invoker.Attempt, index uint32, invoke *recordv1.Invoke) {
	if refused := h.partition.config.record().Refuse(a.Target, "Call "+targetOf(invoke).String(), proto.Size(invoke)); refused != nil {
		h.refuse(a, refused)
		return
	}
	h.post(item{event: &engine.Call{ID: a.ID, Attempt: a.Number, Index: index, Invoke: invoke}})
}

// AwaitDurable implements invoker.Host.
func (h host) AwaitDurable(a *invoker.Attempt, granted func()) {
	h.post(item{granted: granted, id: a.ID, number: a.Number})
}

// ended is what an attempt reads whose leadership is over.
type ended struct{}

func (ended) Get([]byte) ([]byte, bool, error) { return nil, false, errViewClosed }

func (ended) Scan(_, _ []byte, _ func(_, _ []byte) bool) error { return errViewClosed }

// Journal implements invoker.Host.
func (h host) Journal(a *invoker.Attempt) invoker.Journal {
	var rows pages.Rows = ended{}
	if l := h.partition.leading.Load(); l != nil && l.epoch == h.epoch {
		rows = l.view
	}
	return pages.New(rows, a.ID, a.Entries, func(err error) {
		if !errors.Is(err, errViewClosed) { // To try again what is damaged would not help.
			h.post(item{event: &engine.Quarantine{ID: a.ID, Cause: err}})
		}
	})
}

// Retry implements invoker.Host.
func (h host) Retry(a *invoker.Attempt, index uint32, tries *recordv1.RunTries) {
	h.post(item{event: &engine.RetryRun{ID: a.ID, Attempt: a.Number, Index: index, Tries: tries}})
}

// Complete implements invoker.Host.
func (h host) Complete(a *invoker.Attempt, index uint32, result *recordv1.Result) {
	if refused := h.partition.config.record().Refuse(a.Target, fmt.Sprintf("what the Run of entry %d returned", index), proto.Size(result)); refused != nil {
		h.refuse(a, refused)
		return
	}
	h.post(item{event: &engine.CompleteRun{ID: a.ID, Attempt: a.Number, Index: index, Result: result}})
}

// Part implements invoker.Host.
func (h host) Part(a *invoker.Attempt, index, number uint32, part []byte) {
	h.post(item{event: &engine.RunPart{ID: a.ID, Attempt: a.Number, Index: index, Number: number, Value: part}})
}

// CompleteParts implements invoker.Host.
func (h host) CompleteParts(a *invoker.Attempt, index uint32, parts *recordv1.Parts) {
	h.post(item{event: &engine.CompleteRun{ID: a.ID, Attempt: a.Number, Index: index, Parts: parts}})
}

// Finish implements invoker.Host.
func (h host) Finish(a *invoker.Attempt, o *invoker.Outcome) {
	var event engine.Event
	switch {
	case o.Result != nil:
		if refused := h.partition.config.record().Outcome(a.Target, o); refused != nil {
			o.Result = &recordv1.Result{Error: refused}
		}
		event = &engine.Finish{ID: a.ID, Attempt: a.Number, Result: o.Result, Entries: o.Entries, Entry: o.Entry, Unhosted: o.Unhosted}
	case o.Lost:
		restart := &engine.Restart{ID: a.ID, Attempt: a.Number}
		if o.Anew {
			restart.Since = h.partition.config.Now().UnixMilli()
		}
		event = restart
	case o.ContinueAsNew != nil:
		if refused := h.partition.config.record().Refuse(a.Target, "the request with which it continues as new", len(o.ContinueAsNew)); refused != nil {
			event = &engine.Finish{ID: a.ID, Attempt: a.Number, Result: &recordv1.Result{Error: refused}}
			break
		}
		event = &engine.ContinueAsNew{ID: a.ID, Attempt: a.Number, Input: o.ContinueAsNew}
	case o.Suspended:
		suspend := &engine.Suspend{ID: a.ID, Attempt: a.Number, WaitingFor: o.WaitingFor, WaitingUntil: o.WaitingUntil}
		if !o.WakeAt.IsZero() {
			suspend.WakeAt = o.WakeAt.UnixMilli()
		}
		event = suspend
	default:
		event = &engine.Fail{ID: a.ID, Attempt: a.Number, Error: o.Retry, Divergence: o.Divergence, RetryAfter: o.RetryAfter.Milliseconds(), Entry: o.Entry, Stack: o.Stack, Pause: o.Pause}
	}
	h.post(item{event: event})
}
