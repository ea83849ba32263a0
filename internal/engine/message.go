package engine

import (
	"fmt"

	"github.com/perdure/perdure/internal/invocation"
	recordv1 "github.com/perdure/perdure/internal/record/v1"
	"github.com/perdure/perdure/internal/table"
)

// send puts a message in the outbox. Each pair of partitions has its own sequence without
// gaps, which is all the receiver needs to take every message once.
func (e *Engine) send(to uint32, message *recordv1.Message) error {
	last, ok := e.sent[to]
	if !ok {
		var err error
		if last, err = e.getNumber(table.Sequence(to)); err != nil {
			return err
		}
	}
	last++
	e.sent[to] = last
	e.put(table.Sequence(to), table.AppendNumber(nil, last))
	if err := e.putMessage(table.Outbox(to, last), message); err != nil {
		return err
	}
	e.effect(&SendMessage{To: to, Sequence: last, Message: message})
	return nil
}

func (ev *Deliver) evaluate(e *Engine, now int64) error {
	key := table.Delivered(ev.From)
	last, err := e.getNumber(key)
	if err != nil {
		return err
	}
	if ev.Sequence <= last && !bugDedup {
		// The ack was lost, or the sender does not know it yet.
		e.effect(&Ack{To: ev.From, Sequence: last})
		return nil
	}
	if ev.Sequence > last+1 {
		return nil // One before it is on its way again: taking this one now would lose that.
	}
	e.put(key, table.AppendNumber(nil, ev.Sequence))
	e.effect(&Ack{To: ev.From, Sequence: ev.Sequence})
	switch m := ev.Message.GetMessage().(type) {
	case *recordv1.Message_Invoke:
		return e.accept(m.Invoke, 0, true, false, now)
	case *recordv1.Message_Attach:
		return e.attachCaller(m.Attach, now)
	case *recordv1.Message_Complete:
		id, ok := invocation.IDFromBytes(m.Complete.GetInvocationId())
		if !ok || m.Complete.Completion == nil {
			return nil
		}
		return e.callCompletion(id, m.Complete.Callee, m.Complete.Completion, now)
	case *recordv1.Message_Cancel:
		id, _ := invocation.IDFromBytes(m.Cancel.GetInvocationId())
		_, err := e.cancel(id, false, now)
		return err
	case *recordv1.Message_CancelCall:
		return e.cancelCall(m.CancelCall, now)
	case *recordv1.Message_CompleteAwakeable:
		return e.applyCompleteAwakeable(m.CompleteAwakeable, now)
	case *recordv1.Message_CompletePromise:
		_, err := e.completePromise(targetOf(m.CompletePromise.Target).Object(), m.CompletePromise.Name, m.CompletePromise.Result, now)
		return err
	case *recordv1.Message_Acquire:
		return e.asked(m.Acquire, ev.From, now)
	case *recordv1.Message_Permit:
		return e.permit(m.Permit, now)
	case *recordv1.Message_Release:
		return e.limits.Release(m.Release, now)
	case *recordv1.Message_ScheduledEnd:
		return e.scheduledEnded(m.ScheduledEnd, now)
	case *recordv1.Message_Rules:
		return e.limits.ChangeRules(m.Rules, now)
	}
	return fmt.Errorf("message %d from partition %d is of a kind this version does not know", ev.Sequence, ev.From)
}

func (ev *Acked) evaluate(e *Engine, _ int64) error {
	e.out.Lazy = true
	e.rulesTold(ev.By, ev.Sequence)
	// From where the last one ended: deleted rows leave traces that a scan from the start
	// would pass again and again.
	from := e.acked[ev.By] + 1
	deleted, err := e.draft.DeleteRange(table.Outbox(ev.By, from), table.Outbox(ev.By, ev.Sequence+1), purgeRows)
	if err == nil && deleted < purgeRows {
		e.acked[ev.By] = max(e.acked[ev.By], ev.Sequence)
	}
	return err
}
