package engine

import (
	"cmp"
	"fmt"

	"github.com/perdure/perdure/internal/invocation"
	"github.com/perdure/perdure/internal/journal/pages"
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
	kept := &pages.Kept{}
	if ev.From > 0 {
		if kept, refused = e.keepEntries(l, ev.From, len(input)); refused != nil {
			return refused, nil
		}
		if refused, err = e.rewind(l, ev.From, len(input), kept); refused != nil || err != nil {
			return refused, err
		}
	}
	if err := e.copyJournal(ev.New, input, kept, now); err != nil {
		return nil, err
	}
	return nil, e.enter(e.renewed(l, ev, input, now), true, now)
}

func (e *Engine) damagedJournal(l *live, err error) *recordv1.Result {
	return failure(codeDataLoss, "%s can't be restarted, its data is damaged: %v", l.target, err)
}

// keepEntries reads the first entries of a journal, up to from.
func (e *Engine) keepEntries(l *live, from uint32, bytes int) (kept *pages.Kept, refused *recordv1.Result) {
	kept, err := pages.Keep(&e.draft, l.id, l.row.JournalStart, from, e.config.MaxWriteBytes-bytes, e.config.MaxWrites/2)
	switch err := err.(type) {
	case nil:
		return kept, nil
	case *pages.KeepError:
		if err.TooMany {
			return nil, failure(codeResourceExhausted, "the entries up to %d are more than the %d bytes or the %d entries that a restart copies: keep fewer, or none",
				from, e.config.MaxWriteBytes, e.config.MaxWrites/2)
		}
		return nil, failure(codeInvalidArgument, "%s can't be restarted from there: %v", l.target, err)
	}
	return nil, e.damagedJournal(l, err)
}

// renewed is the new invocation, with what its .proto said when the old one was accepted.
func (e *Engine) renewed(old *live, ev *RestartAsNew, input []byte, now int64) *live {
	in := &recordv1.Invoke{
		InvocationId: ev.New[:], Target: old.row.Target, Mode: old.row.Mode, Input: input, Retry: old.row.Retry, Flow: old.row.Flow,
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

// copyJournal gives the new invocation its request and the entries it keeps.
func (e *Engine) copyJournal(to invocation.ID, input []byte, kept *pages.Kept, now int64) error {
	request := &recordv1.Entry{At: now, Entry: &recordv1.Entry_Input{Input: &recordv1.Input{Value: input}}}
	if err := e.putMessage(table.Journal(to, kept.Start), request); err != nil {
		return err
	}
	for i, entry := range kept.Entries {
		index := kept.Start + uint32(i) + 1
		if err := e.putMessage(table.Journal(to, index), entry); err != nil {
			return err
		}
		c := kept.Completions[index]
		if sleep := entry.GetSleep(); sleep != nil && c == nil {
			e.armTimer(table.Timer{At: sleep.Until, Kind: table.TimerSleep, ID: to, Entry: index})
		}
		if c != nil {
			if err := e.putMessage(table.Completion(to, index), c); err != nil {
				return err
			}
		}
	}
	return nil
}

// rewind takes the object back to where it was after entry from: what the handler makes of the
// entries that it keeps depends on it. That can be done if nobody else has written since.
func (e *Engine) rewind(l *live, from uint32, input int, kept *pages.Kept) (refused *recordv1.Result, err error) {
	if l.row.JournalWrites == pages.WritesOf(false) {
		return nil, nil
	}
	writes, bytes, err := kept.Rewind(&e.draft, l.id)
	switch err := err.(type) {
	case nil:
	case *pages.KeepError:
		return failure(codeResourceExhausted, "what %s wrote to its object behind entry %d is taken back, and there are %v: keep more entries, or none", l.target, from, err), nil
	default:
		return e.damagedJournal(l, err), nil
	}
	if len(writes) == 0 {
		return nil, nil
	}
	rows := len(writes) + len(kept.Entries)
	if bytes += input + kept.Bytes; bytes > e.config.MaxWriteBytes || 2*rows > e.config.MaxWrites {
		return failure(codeResourceExhausted, "to take back what %s wrote to its object behind entry %d, %d rows of %d bytes are written together with the entries, more than the %d rows or %d bytes that fit: restart from the beginning",
			l.target, from, rows, bytes, e.config.MaxWrites/2, e.config.MaxWriteBytes), nil
	}
	o := l.target.Object()
	if len(e.locks.Holders(o)) > 0 {
		return failure(codeFailedPrecondition, "%s is busy: a restart that keeps entries takes its state back to where it was then, which must not be while another handler runs. Try again, or restart from the beginning", o), nil
	}
	for _, w := range writes {
		key, what := table.State(o), "its state"
		if w.Table != "" {
			key, what = table.Row(o, w.Table, w.Key), fmt.Sprintf("row %q of its table %s", w.Key, w.Table)
		}
		value, has, err := e.get(key)
		if err != nil {
			return nil, err
		}
		if !w.IsLeft(value, has) {
			return failure(codeFailedPrecondition, "%s has changed since: %s is not what this invocation left, so it can't go on from entry %d. Restart from the beginning", o, what, from), nil
		}
	}
	for _, w := range writes {
		if w.Table == "" {
			e.setState(l, &recordv1.SetState{Value: w.Then, Clear: !w.HasThen})
			continue
		}
		if err := e.putRow(l, &recordv1.TablePut{Table: w.Table, Key: w.Key, Value: w.Then, Delete: !w.HasThen}); err != nil {
			return nil, err
		}
	}
	return nil, nil
}
