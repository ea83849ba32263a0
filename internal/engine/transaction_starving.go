package engine

import (
	"slices"

	"github.com/perdure/perdure/internal/invocation"
	recordv1 "github.com/perdure/perdure/internal/record/v1"
	"github.com/perdure/perdure/internal/transaction"
)

// lostPatience is how many tries may be lost to readers.
func (e *Engine) lostPatience() int { return max(1, e.config.Patience/16) }

// starve asks all partitions to hold younger readers back: see transaction.Starving.
func (e *Engine) starve(l *live, now int64) {
	age := transaction.Age{At: l.row.CreatedAt, Root: l.id}
	if now < l.starvesUntil || e.starving.HoldsBack(age, now) {
		return // They are; if for somebody older, then those too that are younger than l.
	}
	e.changed, l.starvesUntil = true, now+transaction.HeldBackFor
	e.tellStarving(l, age, false)
}

// fed ends what starve has begun.
func (e *Engine) fed(l *live) {
	if l.starvesUntil != 0 {
		e.changed, l.starvesUntil = true, 0
		e.tellStarving(l, transaction.Age{At: l.row.CreatedAt, Root: l.id}, true)
	}
}

func (e *Engine) tellStarving(l *live, age transaction.Age, over bool) {
	record := &recordv1.TransactionAge{}
	age.Fill(record)
	word := &recordv1.Peer_Starving{Starving: &recordv1.Starving{Age: record, Over: over}}
	for partition := uint32(1); partition <= e.config.Partitions; partition++ {
		e.tell(partition, transaction.ID{Root: l.id}, false, &recordv1.Peer{Message: word})
	}
}

// heardStarving takes what another partition, or this one, says of one of its invocations.
func (e *Engine) heardStarving(m *recordv1.Starving, now int64) error {
	age := transaction.AgeOf(m.Age)
	e.changed = true
	if !m.Over {
		e.starving.Note(age, now)
		return nil
	}
	e.starving.Over(age.Root)
	return e.letBegin(now)
}

// holdBack keeps the call with which a transaction would begin that only reads, or the next call
// of the same handler, if somebody older starves.
func (e *Engine) holdBack(l *live, ev *Call, now int64) bool {
	if e.starving.Len() == 0 || l.call != nil || l.root != nil || l.holdsKey() ||
		invocation.Mode(ev.Invoke.GetMode()) != invocation.ModeRead || !e.starving.HoldsBack(transaction.Age{At: l.row.CreatedAt, Root: l.id}, now) {
		return false
	}
	e.early = append(e.early, ev)
	return true
}

// earlierCalls takes those calls of a handler that were held back: with the next one it goes on.
func (e *Engine) earlierCalls(l *live) (own []*Call) {
	e.early = slices.DeleteFunc(e.early, func(ev *Call) bool {
		if ev.ID != l.id {
			return false
		}
		if ev.Attempt == l.row.Attempt {
			own = append(own, ev)
		}
		return true
	})
	return own
}

// letBegin makes the calls that were held back, unless somebody starves still.
func (e *Engine) letBegin(now int64) error {
	early := e.early
	e.early = nil
	for _, ev := range early {
		if err := ev.evaluate(e, now); err != nil {
			return err
		}
	}
	return nil
}
