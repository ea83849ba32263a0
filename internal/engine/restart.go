package engine

import (
	"cmp"
	"fmt"

	"google.golang.org/protobuf/proto"

	"github.com/perdure/perdure/internal/invocation"
	"github.com/perdure/perdure/internal/journal"
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
	input, entries, completions, err := pages.Whole(overlaid{e}, l.id, l.row.JournalStart)
	if err != nil {
		return failure(codeDataLoss, "%s can't be restarted, its data is damaged: %v", l.target, err), nil
	}
	if _, kept, err := e.get(table.Journal(l.id, l.row.JournalStart)); err != nil || !kept {
		return failure(codeFailedPrecondition, "the journal of %s is not kept any more, and with it its request: call it again", l.target), err
	}
	if err := journal.Keep(l.row.JournalStart, entries, completions, ev.From); err != nil {
		return failure(codeInvalidArgument, "%s can't be restarted from there: %v", l.target, err), nil
	}
	if ev.From > 0 {
		if refused, err = e.rewind(l, entries, ev.From); refused != nil || err != nil {
			return refused, err
		}
	}
	if refused, err = e.copyJournal(l, ev, input, entries, completions, now); refused != nil || err != nil {
		return refused, err
	}
	return nil, e.enter(e.renewed(l, ev, input, now), true, now)
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
func (e *Engine) copyJournal(old *live, ev *RestartAsNew, input []byte, entries []*recordv1.Entry, completions map[uint32]*recordv1.Completion, now int64) (refused *recordv1.Result, err error) {
	start := uint32(0)
	if ev.From > 0 {
		start = old.row.JournalStart
	}
	kept := ev.From - start
	bytes := len(input)
	put := func(key []byte, m proto.Message) error {
		bytes += proto.Size(m)
		if bytes > e.config.MaxWriteBytes {
			return nil // It is refused below.
		}
		return e.putMessage(key, m)
	}
	if err := put(table.Journal(ev.New, start), &recordv1.Entry{At: now, Entry: &recordv1.Entry_Input{Input: &recordv1.Input{Value: input}}}); err != nil {
		return nil, err
	}
	for i, entry := range entries[:kept] {
		index := start + uint32(i) + 1
		if err := put(table.Journal(ev.New, index), entry); err != nil {
			return nil, err
		}
		if sleep := entry.GetSleep(); sleep != nil && completions[index] == nil {
			e.armTimer(table.Timer{At: sleep.Until, Kind: table.TimerSleep, ID: ev.New, Entry: index})
		}
		if c := completions[index]; c != nil {
			if err := put(table.Completion(ev.New, index), c); err != nil {
				return nil, err
			}
		}
	}
	if bytes > e.config.MaxWriteBytes || 2*int(kept) > e.config.MaxWrites {
		e.out.Mutations, e.out.Effects = e.out.Mutations[:0], e.out.Effects[:0]
		e.forgetIndex()
		return failure(codeResourceExhausted, "the first %d entries have %d bytes, and a restart copies at most %d bytes and %d entries: keep fewer, or none",
			kept, bytes, e.config.MaxWriteBytes, e.config.MaxWrites/2), nil
	}
	return nil, nil
}

// rewind takes the object back to where it was after entry from: what the handler makes of the
// entries that it keeps depends on it. That can be done if nobody else has written since.
func (e *Engine) rewind(l *live, entries []*recordv1.Entry, from uint32) (refused *recordv1.Result, err error) {
	writes := journal.Rewind(l.row.JournalStart, entries, from)
	if len(writes) == 0 {
		return nil, nil
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
