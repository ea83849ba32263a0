package engine

import (
	"cmp"
	"fmt"

	"github.com/cespare/xxhash/v2"
	"google.golang.org/protobuf/types/known/anypb"

	"github.com/perdure/perdure/internal/invocation"
	recordv1 "github.com/perdure/perdure/internal/record/v1"
	"github.com/perdure/perdure/internal/retry"
	"github.com/perdure/perdure/internal/table"
)

// Flow control, the invocation's side. An attempt starts when its invocation has the key and a
// permit of each of its limits, asked for one after the other in the order of Flow.Limits; and
// without an attempt there is no permit, but for limits that are until_done. So whoever waits
// for a permit may hold its key, whoever holds a permit runs, and neither waits for the other:
// decision 17. The owner's side is internal/limit/owner.

// flowOf is the flow of a new invocation's row. The one in the request is shared: it may be in
// a message that is sent again.
func flowOf(in *recordv1.Flow) *recordv1.Flow {
	if in == nil {
		return nil
	}
	return &recordv1.Flow{Limits: in.Limits, Tenant: in.Tenant, Priority: in.Priority, LimitKey: in.LimitKey}
}

// limited reports whether a request is under any limit.
func limited(in *recordv1.Invoke) bool { return len(in.Flow.GetLimits()) > 0 }

// mayBeRefused reports whether an invocation may turn out not to be taken, because too many wait.
func (e *Engine) mayBeRefused(l *live) bool {
	f := l.row.Flow
	if f == nil || f.Firm {
		return false
	}
	for _, limit := range f.Limits {
		if e.mayRefuse(limit) {
			return true
		}
	}
	return false
}

// mayRefuse reports whether a limit refuses whoever finds too many waiting, as far as is known here.
func (e *Engine) mayRefuse(limit *recordv1.Limit) bool {
	return limit.MaxQueue != 0 || e.limits.MayRefuse(limit.Name)
}

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
	f := l.row.Flow
	return f.GetAsk() != 0 && f.Limits[f.Held].MaxQueue == 0 && e.accepting[l.id] == nil
}

// waitsForPermit reports whether a queued invocation has its key and waits for a limit.
func (l *live) waitsForPermit() bool { return l.row.Flow.GetAsk() != 0 }

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

// ownerOf is the partition that a limit of an invocation belongs to.
func (e *Engine) ownerOf(limit *recordv1.Limit, id invocation.ID) uint32 {
	if limit.GetLocal() {
		return id.Partition(e.config.Partitions)
	}
	return invocation.PartitionOf(xxhash.Sum64String(limit.GetName()), e.config.Partitions)
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
	f := l.row.Flow
	for int(f.Held) < len(f.Limits) {
		limit, begun := f.Limits[f.Held], l.row.StartedAt != 0
		switch {
		case f.Ask != 0:
			return false, nil
		case begun && limit.Concurrency == 0:
			f.Held++
			continue
		}
		e.changed = true
		f.Ask, f.AskedAt = e.nextSequence(), now
		acquire := &recordv1.Acquire{
			Limit: limit, InvocationId: l.id[:], Number: f.Ask, Tenant: f.Tenant, Priority: f.Priority,
			Begun: begun, Firm: f.Firm, Tell: !f.Firm && (e.mayRefuse(limit) || e.accepting[l.id] != nil), CreatedAt: l.row.CreatedAt,
		}
		if to := e.ownerOf(limit, l.id); to != e.config.Partition {
			return false, e.send(to, &recordv1.Message{Message: &recordv1.Message_Acquire{Acquire: acquire}})
		}
		permit, err := e.limits.Acquire(acquire, e.config.Partition, now)
		switch {
		case err != nil:
			return false, err
		case permit.Permission == recordv1.Permission_PERMISSION_REFUSED:
			return false, e.discard(l, permit, now)
		case permit.Permission == recordv1.Permission_PERMISSION_WAITS:
			e.taken(l)
			return false, nil
		}
		f.Ask = 0
		f.Held++
	}
	e.taken(l)
	return true, nil
}

// permit takes the answer to an ask.
func (e *Engine) permit(p *recordv1.Permit, now int64) error {
	id, _ := invocation.IDFromBytes(p.GetInvocationId())
	l, err := e.loadLive(id)
	if err != nil {
		return err
	}
	if l == nil || completed(l.row.Status) || l.row.Flow == nil || l.row.Flow.Ask != p.Number {
		// It has taken its ask back; so the owner knows, but for one whose row was damaged.
		if p.Permission == recordv1.Permission_PERMISSION_GRANTED {
			return e.release(p.Limit, id, p.Number, now)
		}
		return nil
	}
	e.changed = true
	f := l.row.Flow
	switch p.Permission {
	case recordv1.Permission_PERMISSION_WAITS:
		e.taken(l)
		return e.store(l)
	case recordv1.Permission_PERMISSION_REFUSED:
		f.Ask = 0
		if f.Firm {
			return e.start(l, now) // Somebody was promised it meanwhile: it asks again, and waits.
		}
		return e.discard(l, p, now)
	}
	f.Ask = 0
	f.Held++
	return e.start(l, now)
}

// giveBack returns an invocation's permits and ends its wait for one. Those of limits that are
// until_done it keeps, unless all are asked for; they come first among its limits.
func (e *Engine) giveBack(l *live, all bool, now int64) error {
	f := l.row.Flow
	if f.Ask != 0 {
		limit := f.Limits[f.Held]
		f.Ask, e.changed = 0, true
		if err := e.release(limit, l.id, 0, now); err != nil {
			return err
		}
	}
	for ; f.Held > 0; f.Held-- {
		limit := f.Limits[f.Held-1]
		if limit.UntilDone && !all {
			break
		}
		if limit.Concurrency > 0 {
			e.changed = true
			if err := e.release(limit, l.id, 0, now); err != nil {
				return err
			}
		}
	}
	return nil
}

// rest gives permits back if an invocation's status is one without an attempt, to be stored.
func (e *Engine) rest(l *live) error {
	switch l.row.Status {
	case recordv1.Status_STATUS_SUSPENDED, recordv1.Status_STATUS_BACKING_OFF, recordv1.Status_STATUS_PAUSED:
		return e.giveBack(l, false, e.now)
	}
	return nil
}

// release tells a limit's owner that an invocation needs no permit of it.
func (e *Engine) release(limit *recordv1.Limit, id invocation.ID, number uint64, now int64) error {
	r := &recordv1.Release{Limit: limit, InvocationId: id[:], Number: number}
	if to := e.ownerOf(limit, id); to != e.config.Partition {
		return e.send(to, &recordv1.Message{Message: &recordv1.Message_Release{Release: r}})
	}
	return e.limits.Release(r, now)
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
	if err := e.giveBack(l, true, now); err != nil {
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
