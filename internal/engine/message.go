package engine

import (
	"fmt"

	"github.com/perdure/perdure/internal/invocation"
	recordv1 "github.com/perdure/perdure/internal/record/v1"
)

// send takes a message to another partition.
func (e *Engine) send(to uint32, message *recordv1.Message) error {
	sequence, err := e.outbox.Add(to, message)
	if err != nil {
		return err
	}
	e.effect(&SendMessage{To: to, Sequence: sequence, Message: message})
	return nil
}

func (ev *Deliver) evaluate(e *Engine, now int64) error {
	take, ack, err := e.outbox.Take(ev.From, ev.Sequence)
	if ack != 0 {
		e.effect(&Ack{To: ev.From, Sequence: ack})
	}
	if !take || err != nil {
		return err
	}
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
	return e.outbox.Acked(ev.By, ev.Sequence)
}
