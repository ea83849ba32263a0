package engine

import (
	"fmt"
	"slices"
	"strings"

	"github.com/perdure/perdure/internal/invocation"
	"github.com/perdure/perdure/internal/transaction"
)

// Underway is how many transactions over several objects are coordinated here, and how many
// this partition has promised to commit and not heard of yet.
func (e *Engine) Underway() (coordinated, prepared int) {
	for _, b := range e.branches {
		if b.Phase == transaction.Prepared {
			prepared++
		}
	}
	return len(e.roots), prepared
}

// Transactions is what the leader knows of transactions over several objects: those under way,
// and those of which somebody has to hear yet.
func (e *Engine) Transactions() []transaction.Status {
	var all []transaction.Status
	for _, l := range e.sortedRoots() {
		c := l.root
		s := transaction.Status{
			ID: c.ID, Coordinator: true, Phase: c.Phase, Target: l.target, At: c.Age.At, Since: c.Since, Try: max(l.row.Attempt, 1), Members: c.Members(),
		}
		switch {
		case c.blocked != nil:
			s.Reason = "its next try waits for " + waitsFor(c.blocked)
		case c.parked:
			s.Reason = "a participant was lost several times; its next try begins within a second"
		case c.Alone:
			s.Reason = "waits for the participant that decides"
		case c.Phase == transaction.Preparing:
			s.Reason = "waits for the participants to promise"
		case c.Phase == transaction.RollingBack:
			s.Reason = "its handler has failed; waits until what it read is durable"
		case c.Wounded:
			s.Reason = "gives way to an older transaction as soon as it has to wait"
		}
		all = append(all, s)
	}
	for id, d := range e.decisions {
		s := transaction.Status{ID: id, Coordinator: true, Phase: transaction.Committed, At: d.at, Since: d.at, Reason: "waits until its participants have written their part"}
		s.Members = slices.Clone(d.waiting)
		all = append(all, s)
	}
	for _, b := range e.sortedBranches() {
		s := transaction.Status{ID: b.ID, Phase: b.Phase, At: b.Age.At, Since: b.Since}
		for _, hold := range b.Holds {
			lock := transaction.LockStatus{Object: hold.Request.Object, Shared: hold.Request.Shared}
			switch {
			case hold.Request.Held() || hold.Request.Object.Key == "":
				s.Held = append(s.Held, lock)
				continue
			case !hold.Request.Waiting():
				continue // It was not to wait for it, and the try is broken.
			}
			lock.By = e.holders(hold.Request.Object)
			s.Waiting = append(s.Waiting, lock)
			s.Reason = "waits for " + lock.Object.String() + ", held by " + strings.Join(lock.By, ", ")
		}
		switch {
		case b.Broken != "":
			s.Reason = "waits for its coordinator to take it back: " + b.Broken
		case b.Phase == transaction.Prepared:
			s.Reason = fmt.Sprintf("has promised to commit and waits for the decision of partition %d", b.coordinator)
		}
		all = append(all, s)
	}
	return all
}

// holders names those who hold a key.
func (e *Engine) holders(object invocation.Object) []string {
	var names []string
	for _, r := range e.locks.Holders(object) {
		switch owner := r.Owner.(type) {
		case invocation.ID:
			names = append(names, owner.String())
		case *live:
			names = append(names, owner.id.String())
		case *transaction.Hold:
			names = append(names, "the transaction of "+owner.Participant.ID.Root.String())
		}
	}
	return names
}
