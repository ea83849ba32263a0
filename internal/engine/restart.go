package engine

import (
	"cmp"

	"github.com/perdure/perdure/internal/invocation"
	"github.com/perdure/perdure/internal/journal"
	"github.com/perdure/perdure/internal/journal/renew"
	recordv1 "github.com/perdure/perdure/internal/record/v1"
	"github.com/perdure/perdure/internal/table"
)

func (ev *RestartAsNew) evaluate(e *Engine, now int64) error {
	return e.operate(ev.ID, ev.Token, func(l *live) (*recordv1.Result, error) { return e.restartAsNew(l, ev, now) })
}

// restartAsNew starts another invocation with the request and the first entries of one that has
// ended.
func (e *Engine) restartAsNew(l *live, ev *RestartAsNew, now int64) (refused *recordv1.Result, err error) {
	if existing, err := e.loadLive(ev.New); err != nil || existing != nil {
		return nil, err // It was asked for before.
	}
	switch {
	case !completed(l.row.Status):
		return failure(codeFailedPrecondition, "%s has not ended: only what has is restarted. Cancel or kill it first, or resume it if it is paused", l.target), nil
	case l.mode() == invocation.ModeRun:
		return failure(codeFailedPrecondition, "%s is a workflow's run, of which there is one for each key: purge it, which forgets its state and promises too, and run it again", l.target), nil
	case l.mode() != invocation.ModeDurable:
		return failure(codeFailedPrecondition, "%s is a %s handler, whose request is not kept: call it again", l.target, l.mode()), nil
	}
	request := &recordv1.Entry{}
	switch has, err := e.getMessage(table.Journal(l.id, l.row.JournalStart), request); {
	case err != nil:
		return e.damagedJournal(l, err), nil
	case !has:
		return failure(codeFailedPrecondition, "the journal of %s is not kept any more, and with it its request: call it again", l.target), nil
	}
	input := request.GetInput().GetValue()
	budget := e.sliceBytes() - len(input)
	if ev.From > 0 {
		rewound, refused, err := e.keepEntries(l, ev)
		if refused != nil || err != nil {
			return refused, err
		}
		budget -= rewound
	}
	if err := e.copyJournal(l, ev, request, budget, now); err != nil {
		return nil, err
	}
	return nil, e.enter(e.renewed(l, ev, input, now), true, now)
}

func (e *Engine) damagedJournal(l *live, err error) *recordv1.Result {
	return failure(codeDataLoss, "%s can't be restarted, its data is damaged: %v", l.target, err)
}

// keepEntries refuses to keep the entries of an invocation that can't be kept, and takes back what it
// wrote behind them, which are so many bytes.
func (e *Engine) keepEntries(l *live, ev *RestartAsNew) (rewound int, refused *recordv1.Result, err error) {
	found := ev.Survey
	if found == nil || ev.Epoch != e.epoch || found.CreatedAt != l.row.CreatedAt || found.CompletedAt != l.row.CompletedAt {
		return 0, failure(codeUnavailable, "%s changed while its journal was looked at: try again", l.target), nil
	}
	switch refusal := found.Refused.(type) {
	case nil:
		return e.rewind(l, ev.From, found.Writes)
	case *renew.Refusal:
		code := uint32(codeInvalidArgument)
		if refusal.TooLarge {
			code = codeResourceExhausted
		}
		return 0, failure(code, "%s can't be restarted from entry %d: %v", l.target, ev.From, refusal), nil
	}
	return 0, e.damagedJournal(l, found.Refused), nil
}

// renewed is the new invocation, with what its .proto said when the old one was accepted.
func (e *Engine) renewed(old *live, ev *RestartAsNew, input []byte, now int64) *live {
	in := &recordv1.Invoke{
		InvocationId: ev.New[:], Target: old.row.Target, Mode: old.row.Mode, Input: input, Retry: old.row.Retry, Flow: old.row.Flow, Headers: old.row.Headers,
		RetentionMs: old.row.RetentionMs, JournalRetentionMs: old.row.JournalRetentionMs, StepTimeoutMs: old.row.StepTimeoutMs,
	}
	if old.row.DeadlineAt != 0 {
		in.DeadlineAt = now + old.row.DeadlineAt - max(old.row.CreatedAt, old.row.DueAt)
		e.armTimer(table.Timer{At: in.DeadlineAt, Kind: table.TimerDeadline, ID: ev.New})
	}
	l := &live{id: ev.New, target: old.target, row: rowOf(in, now), receives: true}
	l.row.Input = nil
	e.taken(l) // An operator's word is not refused.
	for _, origin := range old.row.Origins {
		if origin.Entries < ev.From {
			l.row.Origins = append(l.row.Origins, origin)
		}
	}
	// Also without an entry kept: it says where the invocation comes from.
	l.row.Origins = append(l.row.Origins, &recordv1.RestartOrigin{InvocationId: old.id[:], StartedAt: cmp.Or(old.row.ContinuedAt, old.row.StartedAt), Entries: ev.From})
	if ev.From > 0 {
		l.row.JournalStart = old.row.JournalStart // Entries speak of one another by their indexes.
	}
	return l
}

// rewind takes the object back to where it was after entry from: what the handler makes of the
// entries that it keeps depends on it. That can be done if nobody else has written since.
func (e *Engine) rewind(l *live, from uint32, writes []journal.Write) (bytes int, refused *recordv1.Result, err error) {
	if len(writes) == 0 {
		return 0, nil, nil
	}
	o := l.target.Object()
	if len(e.locks.Holders(o)) > 0 {
		return 0, failure(codeFailedPrecondition, "%s is busy: a restart that keeps entries takes its state back to where it was then, which must not be while another handler runs. Try again, or restart from the beginning", o), nil
	}
	if changed, err := renew.Changed(&e.draft, o, writes); changed != "" || err != nil {
		return 0, failure(codeFailedPrecondition, "%s has changed since: %s is not what this invocation left, so it can't go on from entry %d. Restart from the beginning", o, changed, from), err
	}
	for _, w := range writes {
		bytes += len(w.Then)
		if w.Table == "" {
			e.setState(l, &recordv1.SetState{Value: w.Then, Clear: !w.HasThen})
			continue
		}
		if err := e.putRow(l, &recordv1.TablePut{Table: w.Table, Key: w.Key, Value: w.Then, Delete: !w.HasThen}); err != nil {
			return 0, nil, err
		}
	}
	return bytes, nil, nil
}
