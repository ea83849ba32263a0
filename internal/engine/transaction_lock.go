package engine

import (
	"github.com/perdure/perdure/internal/invocation"
	recordv1 "github.com/perdure/perdure/internal/record/v1"
	"github.com/perdure/perdure/internal/transaction"
)

// lock asks for the key of an invocation that is no part of a transaction.
func (e *Engine) lock(l *live) transaction.Answer {
	l.lock = &l.own
	if l.mode().Journaled() {
		l.lock = &transaction.Request{} // A suspended one keeps it, and nothing else.
	}
	*l.lock = transaction.Request{Owner: l, Object: l.target.Object(), Kind: transaction.Call}
	if l.mode().Journaled() {
		l.lock.Owner, l.lock.Kind = l.id, transaction.Durable
	}
	return e.locks.Acquire(l.lock)
}

// heldBy finds the hold of an invocation that was not in memory.
func (e *Engine) heldBy(l *live) *transaction.Request {
	if !l.holdsKey() {
		return nil
	}
	for _, r := range e.locks.Holders(l.target.Object()) {
		if r.Owner == any(l.id) {
			return r
		}
	}
	return nil
}

// unlock ends an invocation's hold on its key, or its wait for it, and goes on with those whose
// turn it is.
func (e *Engine) unlock(l *live, now int64) error {
	if l.lock != nil {
		e.locks.Release(l.lock)
		l.lock = nil
	}
	return e.settle(now)
}

// settle sees to what an operation on the locks came to.
func (e *Engine) settle(now int64) error {
	for {
		c, ok := e.locks.Next()
		if !ok {
			return nil
		}
		var err error
		switch owner := c.Request.Owner.(type) {
		case invocation.ID:
			l := e.live[owner]
			switch {
			case l == nil:
			case c.What == transaction.Granted:
				err = e.start(l, now)
			case c.What == transaction.Passed:
				e.starve(l, now)
			}
		case *live:
			switch c.What {
			case transaction.Granted:
				err = e.start(owner, now)
			case transaction.InTheWay:
				e.wound(owner, c.Reader)
			case transaction.Passed:
				e.starve(owner, now)
			}
		case *transaction.Hold:
			b := e.branches[owner.Participant.ID]
			switch {
			case b == nil:
			case c.What == transaction.Granted:
				err = e.next(b, owner, now)
			case c.What == transaction.InTheWay:
				e.tell(b.coordinator, b.ID, false, &recordv1.Peer{Message: &recordv1.Peer_Wound{Wound: &recordv1.Wound{From: e.config.Partition, Reader: c.Reader}}})
			case c.What == transaction.Passed:
				e.tell(b.coordinator, b.ID, false, &recordv1.Peer{Message: &recordv1.Peer_Passed{Passed: &recordv1.Passed{}}})
			case c.Request.Waiting():
				err = e.stuck(b, owner, c.Request.Shared && !c.Request.Upgrading())
			}
		}
		if err != nil {
			return err
		}
	}
}

// stuck gives a try up that must not wait for a key: the next one waits for it with nothing
// held, and so in nobody's way.
func (e *Engine) stuck(b *branch, hold *transaction.Hold, shared bool) error {
	died := &recordv1.Died{Blocked: hold.Target, Shared: shared}
	for _, h := range e.locks.Holders(hold.Request.Object) {
		if h.Kind == transaction.Durable && !died.Shared {
			died.Durable = true
			return e.breakOff(b, "a DURABLE handler holds "+hold.Request.Object.String(), died)
		}
	}
	return e.breakOff(b, "it gives way to an older transaction", died)
}

// overtakeReaders ends the tries that have read an object beside the DURABLE handler that is
// about to write it: that must not wait for them.
func (e *Engine) overtakeReaders(l *live) {
	if !l.mode().Journaled() || l.target.Key == "" {
		return
	}
	for _, r := range e.locks.Holders(l.target.Object()) {
		if hold, ok := r.Owner.(*transaction.Hold); ok && r.Beside && hold.Participant.Broken == "" {
			if b := e.branches[hold.Participant.ID]; b != nil {
				b.Overtaken = true // One that has promised says so when it is asked to confirm.
				_ = e.breakOff(b, l.target.String()+" wrote what it had read", &recordv1.Died{})
			}
		}
	}
}
