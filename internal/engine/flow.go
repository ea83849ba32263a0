package engine

import (
	"cmp"
	"fmt"

	"google.golang.org/protobuf/types/known/anypb"

	"github.com/perdure/perdure/internal/invocation"
	"github.com/perdure/perdure/internal/limit/asker"
	recordv1 "github.com/perdure/perdure/internal/record/v1"
	"github.com/perdure/perdure/internal/retry"
	"github.com/perdure/perdure/internal/table"
)

// Flow control, what an invocation does with permits. How it asks for them and gives them back is in
// internal/limit/asker, how they are given in internal/limit/owner.

// mayBeRefused reports whether an invocation may turn out not to be taken, because too many wait.
func (e *Engine) mayBeRefused(l *live) bool { return e.asker.MayBeRefused(l.row.Flow) }

// firm makes sure that an invocation is not refused any more, and reports whether that is news.
func (e *Engine) firm(l *live) (changed bool) {
	if l.row.Flow == nil || l.row.Flow.Firm {
		return false
	}
	e.taken(l)
	return true
}

// unheard reports whether an invocation may have asked for a permit without asking for word of its place: a
// bound by a rule is news.
func (e *Engine) unheard(l *live) bool {
	return asker.WaitsUnheard(l.row.Flow) && e.accepting[l.id] == nil
}

// waitsForPermit reports whether a queued invocation has its key and waits for a limit.
func (l *live) waitsForPermit() bool { return asker.Waits(l.row.Flow) }

// taken ends that an invocation may be refused: who waited to hear of that is told.
func (e *Engine) taken(l *live) {
	if l.row.Flow == nil {
		return
	}
	l.row.Flow.Firm = true
	for _, token := range e.accepting[l.id] {
		e.effect(&Reply{Token: token})
	}
	delete(e.accepting, l.id)
}

// accepts has a one-way request wait until its invocation is sure to be taken.
func (e *Engine) accepts(l *live, token Token) {
	if e.accepting == nil {
		e.accepting = map[invocation.ID][]Token{}
	}
	e.accepting[l.id] = append(e.accepting[l.id], token)
}

// admit reports whether an invocation may start. If not, it has asked for what it lacks and
// waits for that, or was refused.
func (e *Engine) admit(l *live, now int64) (bool, error) {
	before := l.row.Flow.Ask
	ok, err := e.permitted(l, now)
	switch {
	case ok || err != nil || completed(l.row.Status):
		return ok, err
	case before != 0 && l.row.Flow.Ask == before && l.row.Status == recordv1.Status_STATUS_QUEUED:
		return false, nil // It waits as it did.
	}
	e.live[l.id] = l
	l.row.Status = recordv1.Status_STATUS_QUEUED
	l.row.WaitingFor, l.row.WaitingUntil, l.row.RetryAt = nil, nil, 0
	return false, e.store(l)
}

// permitted reports whether an invocation has all its permits, and asks for the next otherwise.
func (e *Engine) permitted(l *live, now int64) (bool, error) {
	of := asker.Invocation{ID: l.id, CreatedAt: l.row.CreatedAt, Begun: l.row.StartedAt != 0, Awaited: e.accepting[l.id] != nil}
	all, answer, err := e.asker.Ask(l.row.Flow, of, now)
	switch {
	case err != nil:
		return false, err
	case answer.GetPermission() == recordv1.Permission_PERMISSION_REFUSED:
		return false, e.discard(l, answer, now)
	case all, answer != nil:
		e.taken(l)
	}
	return all, nil
}

// permit takes the answer to an ask.
func (e *Engine) permit(p *recordv1.Permit, now int64) error {
	id, _ := invocation.IDFromBytes(p.GetInvocationId())
	l, err := e.loadLive(id)
	if err != nil {
		return err
	}
	if l == nil || completed(l.row.Status) || !asker.Take(l.row.Flow, p) {
		// It has taken its ask back; so the owner knows, but for one whose row was damaged.
		if p.Permission == recordv1.Permission_PERMISSION_GRANTED {
			return e.asker.Release(p.Limit, id, p.Number, now)
		}
		return nil
	}
	e.changed = true
	switch p.Permission {
	case recordv1.Permission_PERMISSION_WAITS:
		e.taken(l)
		return e.store(l)
	case recordv1.Permission_PERMISSION_REFUSED:
		if l.row.Flow.Firm {
			return e.start(l, now) // Somebody was promised it meanwhile: it asks again, and waits.
		}
		return e.discard(l, p, now)
	}
	return e.start(l, now)
}

// rest gives permits back if an invocation's status is one without an attempt, to be stored.
func (e *Engine) rest(l *live) error {
	switch l.row.Status {
	case recordv1.Status_STATUS_SUSPENDED, recordv1.Status_STATUS_BACKING_OFF, recordv1.Status_STATUS_PAUSED:
		return e.asker.GiveBack(l.row.Flow, l.id, false, e.now)
	}
	return nil
}

// discard undoes that an invocation was accepted: too many wait for one of its limits. A caller
// that tries again with the same idempotency key is no repetition of it.
func (e *Engine) discard(l *live, p *recordv1.Permit, now int64) error {
	e.changed = true
	row := l.row
	limit := row.Flow.Limits[row.Flow.Held]
	row.Flow.Ask = 0
	most := cmp.Or(p.MaxQueue, limit.MaxQueue)
	waiting := fmt.Sprintf("%d calls wait for its limit %s, and no more than %d may", p.Waiting, limit.Name, most)
	if most < 0 {
		waiting = fmt.Sprintf("its limit %s lets no more begin now, and none wait", limit.Name)
	}
	result := exhausted(p.RetryAfterMs, "%s is refused: %s; try again in %s", l.target, waiting, retry.Lasting(p.RetryAfterMs))
	for _, token := range append(e.accepting[l.id], e.waiters[l.id]...) {
		e.effect(&Reply{Token: token, Result: result, Refused: true})
	}
	delete(e.accepting, l.id)
	delete(e.waiters, l.id)
	for _, caller := range append([]*recordv1.Caller{row.Caller}, row.Waiters...) {
		if caller == nil {
			continue
		}
		if err := e.completeCaller(caller, l.id[:], result, now); err != nil {
			return err
		}
	}
	row.Status = recordv1.Status_STATUS_FAILED
	delete(e.live, l.id)
	e.delete(table.ActiveKey(l.id))
	e.delete(table.Invocation(l.id))
	if l.mode().Journaled() {
		e.delete(table.Journal(l.id, 0))
	}
	if row.DeadlineAt != 0 {
		e.delete(table.Timer{At: row.DeadlineAt, Kind: table.TimerDeadline, ID: l.id}.Key())
	}
	if err := e.asker.GiveBack(row.Flow, l.id, true, now); err != nil {
		return err
	}
	return e.unlock(l, now)
}

// retryInbox is the hint, in milliseconds, for one who found a key's inbox full.
const retryInbox = 1000

// exhausted is a failure with the hint when to try again.
func exhausted(retryAfter int64, format string, args ...any) *recordv1.Result {
	result := failure(codeResourceExhausted, format, args...)
	result.Error.Details = []*anypb.Any{retry.Info(retryAfter)}
	return result
}

// maxInbox is how many may wait for the key of a request's object.
func (e *Engine) maxInbox(in *recordv1.Invoke) int {
	return cmp.Or(int(in.MaxInbox), e.config.MaxInbox)
}
