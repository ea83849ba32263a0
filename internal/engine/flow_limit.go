package engine

import (
	"encoding/binary"
	"fmt"
	"strings"

	"github.com/cespare/xxhash/v2"
	"google.golang.org/protobuf/proto"

	"github.com/perdure/perdure/internal/invocation"
	"github.com/perdure/perdure/internal/limit"
	recordv1 "github.com/perdure/perdure/internal/record/v1"
	"github.com/perdure/perdure/internal/table"
)

// Flow control, the owner's side: each limit belongs to one partition, which is what makes it
// exact. Its rows are the limit, a row for each permit, and a row for each that waits, in the
// order in which they begin.

// ownedLimit is a limit of this partition that somebody uses.
type ownedLimit struct {
	*limit.Limit
	// record is what was declared; nil if its row was damaged and nobody has asked since.
	record *recordv1.Limit
	name   string
	// setAt is when the invocation was made whose settings count.
	setAt int64
	// timer is the id its timers have, and armed the instant of the next, 0 without one.
	timer invocation.ID
	armed int64
	// dirty: its row is not what it was.
	dirty bool
}

// limits are those of this partition, by name and by the id of their timers.
type limits struct {
	named  map[string]*ownedLimit
	timers map[invocation.ID]*ownedLimit
}

func settingsOf(l *recordv1.Limit) limit.Settings {
	s := limit.Settings{
		Concurrency: int(l.GetConcurrency()), MaxQueue: int(l.GetMaxQueue()),
		Rate: limit.Rate{Count: max(l.GetRateCount(), 0), Per: max(l.GetRatePerMs(), 1), Burst: max(l.GetBurst(), 1)},
	}
	if s.Rate.Count == 0 {
		s.Rate = limit.Rate{}
	}
	return s
}

// PermitGranted says, for the metrics, that an invocation has a permit of a limit.
type PermitGranted struct {
	Limit string
	// Waited is in milliseconds.
	Waited int64
}

// PermitRefused says, for the metrics, that too many wait for a limit.
type PermitRefused struct{ Limit string }

// Gated is true: it has begun only then.
func (*PermitGranted) Gated() bool { return true }

// Gated is true.
func (*PermitRefused) Gated() bool { return true }

// ownLimit finds a limit, or makes it, or gives it the settings of a newer invocation.
func (e *Engine) ownLimit(declared *recordv1.Limit, createdAt, now int64) *ownedLimit {
	own := e.limits.named[declared.GetName()]
	switch {
	case own == nil:
		own = &ownedLimit{Limit: limit.New(settingsOf(declared), now), record: declared, setAt: createdAt, dirty: true}
		e.addLimit(own, declared.GetName())
	case own.record == nil || createdAt > own.setAt:
		own.setAt = createdAt
		if own.record == nil || own.Settings() != settingsOf(declared) {
			own.Set(settingsOf(declared), now)
			own.dirty = true
		}
		own.record = declared
	}
	return own
}

func (e *Engine) addLimit(own *ownedLimit, name string) {
	own.name, own.timer = name, e.limitTimer(name)
	if e.limits.named == nil {
		e.limits = limits{map[string]*ownedLimit{}, map[invocation.ID]*ownedLimit{}}
	}
	e.limits.named[name], e.limits.timers[own.timer] = own, own
}

// limitTimer is the id that timers of a limit have: no invocation's.
func (e *Engine) limitTimer(name string) invocation.ID {
	var unique [16]byte
	binary.BigEndian.PutUint64(unique[:], xxhash.Sum64String(name))
	binary.BigEndian.PutUint64(unique[8:], xxhash.Sum64String(name+"2"))
	return invocation.NewID(uint64(e.config.Partition-1), unique)
}

// acquire answers an ask.
func (e *Engine) acquire(a *recordv1.Acquire, from uint32, now int64) (*recordv1.Permit, error) {
	id, ok := invocation.IDFromBytes(a.GetInvocationId())
	if !ok || a.Limit.GetName() == "" {
		return nil, fmt.Errorf("partition %d asks for a permit without naming the limit or the invocation", from)
	}
	e.changed = true
	own := e.ownLimit(a.Limit, a.CreatedAt, now)
	ask := &limit.Ask{
		ID: id, Number: a.Number, Partition: from, Tenant: a.Tenant, Priority: a.Priority,
		Begun: a.Begun, Holds: a.Limit.Concurrency > 0, Firm: a.Firm, At: now, Sequence: e.nextSequence(),
	}
	e.withdraw(own, id, 0) // It has one ask at a time; an earlier one's release was lost with a damaged row.
	if own.Waiting() > 0 { // What came since (a token, a permit more) is for those that wait.
		if err := e.serve(own, now); err != nil {
			return nil, err
		}
		e.addIfGone(own)
	}
	permit := &recordv1.Permit{InvocationId: id[:], Number: a.Number, Permission: recordv1.Permission(own.Ask(ask, now))}
	switch permit.Permission {
	case recordv1.Permission_PERMISSION_GRANTED:
		permit.Limit = a.Limit
		if err := e.grant(own, ask, now); err != nil {
			return nil, err
		}
	case recordv1.Permission_PERMISSION_WAITS:
		err := e.putMessage(table.Wait(own.name, ask.Band(), ask.Rank, ask.Sequence), &recordv1.WaitRow{
			InvocationId: id[:], Number: ask.Number, Partition: ask.Partition, Tenant: ask.Tenant, Priority: ask.Priority,
			Begun: ask.Begun, Holds: ask.Holds, Firm: ask.Firm, At: now,
		})
		if err != nil {
			return nil, err
		}
	case recordv1.Permission_PERMISSION_REFUSED:
		permit.Waiting, permit.RetryAfterMs = uint32(own.Waiting()), own.RetryAfter(now)
		e.effect(&PermitRefused{Limit: declaredName(own.name)})
	}
	return permit, e.keepLimit(own, now)
}

// addIfGone takes a limit up again that serve found unused.
func (e *Engine) addIfGone(own *ownedLimit) {
	if e.limits.named[own.name] == nil {
		own.dirty = true
		e.addLimit(own, own.name)
	}
}

// grant writes that an invocation has a permit.
func (e *Engine) grant(own *ownedLimit, a *limit.Ask, now int64) error {
	own.dirty = own.dirty || own.Settings().Rate.Count > 0
	e.effect(&PermitGranted{Limit: declaredName(own.name), Waited: now - a.At})
	if !a.Holds {
		return nil
	}
	return e.putMessage(table.Permit(own.name, a.ID), &recordv1.PermitRow{Number: a.Number, Partition: a.Partition, Tenant: a.Tenant, At: now})
}

// released ends a permit, or a wait for one.
func (e *Engine) released(r *recordv1.Release, now int64) error {
	id, _ := invocation.IDFromBytes(r.GetInvocationId())
	own := e.limits.named[r.Limit.GetName()]
	if own == nil || !e.withdraw(own, id, r.Number) {
		return nil
	}
	return e.serve(own, now)
}

// withdraw removes what an invocation has of a limit.
func (e *Engine) withdraw(own *ownedLimit, id invocation.ID, number uint64) bool {
	waited, found := own.Release(id, number)
	switch {
	case !found:
		return false
	case waited != nil:
		e.delete(table.Wait(own.name, waited.Band(), waited.Rank, waited.Sequence))
	default:
		e.delete(table.Permit(own.name, id))
	}
	e.changed = true
	return true
}

// maxGrants is how many one event lets begin: each is a start and rows, and an event is one
// record at most.
const maxGrants = 256

// serve lets those begin whose turn it is.
func (e *Engine) serve(own *ownedLimit, now int64) error {
	for granted := 0; own.record != nil; granted++ {
		if granted == maxGrants {
			e.armTimer(table.Timer{At: now, Kind: table.TimerLimit, ID: own.timer})
			break
		}
		a, ok := own.Next(now)
		if !ok {
			break
		}
		e.changed = true
		e.delete(table.Wait(own.name, a.Band(), a.Rank, a.Sequence))
		if err := e.grant(own, a, now); err != nil {
			return err
		}
		err := e.answerAsk(a.Partition, &recordv1.Permit{
			InvocationId: a.ID[:], Number: a.Number, Permission: recordv1.Permission_PERMISSION_GRANTED, Limit: own.record,
		})
		if err != nil {
			return err
		}
	}
	return e.keepLimit(own, now)
}

// keepLimit writes a limit's row if it has changed, and sees to it that it is looked at in time.
func (e *Engine) keepLimit(own *ownedLimit, now int64) error {
	if own.record == nil {
		return nil
	}
	if own.Idle(now) {
		e.changed = true
		e.delete(table.Limit(own.name))
		delete(e.limits.named, own.name)
		delete(e.limits.timers, own.timer)
		return nil
	}
	if at := own.Wake(now); at != 0 && (own.armed == 0 || at < own.armed) {
		e.changed = true
		own.armed = at
		e.armTimer(table.Timer{At: at, Kind: table.TimerLimit, ID: own.timer})
	}
	if !own.dirty {
		return nil
	}
	own.dirty = false
	level, at := own.Bucket()
	return e.putMessage(table.Limit(own.name), &recordv1.LimitRow{Limit: own.record, SetAt: own.setAt, Level: level, LevelAt: at})
}

// fireLimit looks at a limit again, now that time has passed.
func (e *Engine) fireLimit(timer table.Timer, now int64) error {
	own := e.limits.timers[timer.ID]
	if own == nil {
		e.out.Lazy = true
		return nil
	}
	if own.armed <= timer.At {
		own.armed, e.changed = 0, true
	}
	return e.serve(own, now)
}

// answerAsk takes an answer to whoever asked: once the event in progress is evaluated, if that
// is here.
func (e *Engine) answerAsk(to uint32, p *recordv1.Permit) error {
	if to == e.config.Partition {
		e.permits = append(e.permits, p)
		return nil
	}
	return e.send(to, &recordv1.Message{Message: &recordv1.Message_Permit{Permit: p}})
}

// asked takes an ask of another partition.
func (e *Engine) asked(a *recordv1.Acquire, from uint32, now int64) error {
	p, err := e.acquire(a, from, now)
	if err != nil || p.Permission == recordv1.Permission_PERMISSION_WAITS && !a.Tell {
		return err
	}
	return e.answerAsk(from, p)
}

// recoverLimits reads the limits of this partition, with all who hold a permit or wait.
func (e *Engine) recoverLimits(now int64) error {
	damaged := func(key []byte, err error) {
		e.out.Damaged = append(e.out.Damaged, fmt.Errorf("row %s: %w", table.Describe(key), err))
	}
	find := func(name string) *ownedLimit {
		own := e.limits.named[name]
		if own == nil { // Its row is damaged: whoever asks next says what its settings are.
			own = &ownedLimit{Limit: limit.New(limit.Settings{}, now)}
			e.addLimit(own, name)
		}
		return own
	}
	lower, upper := table.LimitsFrom("")
	err := e.view.Scan(lower, upper, func(key, value []byte) bool {
		name, id, err := table.ParseLimit(key)
		limitRow, permitRow := &recordv1.LimitRow{}, &recordv1.PermitRow{}
		switch {
		case err != nil:
		case id.IsZero():
			err = proto.Unmarshal(value, limitRow)
		default:
			err = proto.Unmarshal(value, permitRow)
		}
		switch {
		case err != nil:
			damaged(key, err)
		case id.IsZero():
			own := &ownedLimit{Limit: limit.Restore(settingsOf(limitRow.Limit), limitRow.Level, limitRow.LevelAt), record: limitRow.Limit, setAt: limitRow.SetAt}
			e.addLimit(own, name)
		default:
			if own := find(name); !bugLimit {
				own.Hold(id, limit.Permit{Number: permitRow.Number, Partition: permitRow.Partition, Tenant: permitRow.Tenant, At: permitRow.At})
			}
		}
		return true
	})
	if err != nil {
		return err
	}
	lower, upper = table.WaitsAll()
	return e.view.Scan(lower, upper, func(key, value []byte) bool {
		row := &recordv1.WaitRow{}
		name, band, rank, sequence, err := table.ParseWait(key)
		if err == nil {
			err = proto.Unmarshal(value, row)
		}
		id, ok := invocation.IDFromBytes(row.InvocationId)
		a := &limit.Ask{
			ID: id, Number: row.Number, Partition: row.Partition, Tenant: row.Tenant, Priority: row.Priority,
			Begun: row.Begun, Holds: row.Holds, Firm: row.Firm, At: row.At, Sequence: sequence, Rank: rank,
		}
		if err == nil && (!ok || a.Band() != band) {
			err = fmt.Errorf("it is not the row of that key")
		}
		if err != nil {
			damaged(key, err)
			return true
		}
		find(name).Queue(a)
		return true
	})
}

// declaredName is a limit's name without what it counts apart: there may be any number of those.
func declaredName(name string) string {
	declared, _, _ := strings.Cut(name, "=")
	return declared
}
