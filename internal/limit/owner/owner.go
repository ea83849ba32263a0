// Package owner is the side of flow control that gives: the limits that belong to one partition. Each
// limit belongs to exactly one, which is what makes it exact.
//
// # Model
//
// Invocations, of this partition or others, ask (Acquire) and let go (Release); time passes (Fire); an
// operator's rules change what limits let (ChangeRules). The rows of a limit are the limit, one for
// each permit, and one for each that waits, in the order in which they begin. The rows of the rule
// book are in every partition, so that a limit and the rule that counts for it are of one log: a
// leader that comes next lets no more than the one before it.
//
// A Limits belongs to its engine's goroutine and has its faults: an event whose evaluation fails
// leaves it as it is not in the rows.
package owner

import (
	"encoding/binary"
	"fmt"
	"slices"

	"github.com/cespare/xxhash/v2"

	"github.com/perdure/perdure/internal/draft"
	"github.com/perdure/perdure/internal/invocation"
	"github.com/perdure/perdure/internal/limit"
	"github.com/perdure/perdure/internal/limit/rule"
	recordv1 "github.com/perdure/perdure/internal/record/v1"
	"github.com/perdure/perdure/internal/table"
)

// Host is what Limits needs of the engine that it is part of.
type Host interface {
	// Touch says that memory changes.
	Touch()
	// Sequence is a number that is higher each time, over leaderships too.
	Sequence() uint64
	// Arm writes a timer.
	Arm(timer table.Timer)
	// Answer takes the answer to an ask of a partition to it, after the event in progress if it is
	// this one.
	Answer(to uint32, permit *recordv1.Permit) error
	// Granted and Refused are for the metrics. waited is in milliseconds.
	Granted(limit string, waited int64)
	Refused(limit string)
}

// owned is a limit of this partition that somebody uses.
type owned struct {
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

// Limits are those of one partition that somebody uses, and the rules.
type Limits struct {
	host      Host
	rows      *draft.Draft
	partition uint32
	named     map[string]*owned
	// timers are the limits by the id of their timers.
	timers map[invocation.ID]*owned
	book   rule.Book
	// retuned are the names of limits, in order, that let something else since a change of the rules, and
	// have not let those begin who may now; under a new leader, all that somebody waited for.
	retuned []string
}

// New is without limits. Rows are read and written through the draft of the event in progress.
func New(host Host, rows *draft.Draft, partition uint32) *Limits {
	return &Limits{host: host, rows: rows, partition: partition, named: map[string]*owned{}, timers: map[invocation.ID]*owned{}}
}

// declared is what a limit lets as its .proto says.
func declared(l *recordv1.Limit) limit.Settings {
	s := limit.Settings{
		Concurrency: int(l.GetConcurrency()), MaxQueue: int(l.GetMaxQueue()),
		Rate: limit.Rate{Count: max(l.GetRateCount(), 0), Per: max(l.GetRatePerMs(), 1), Burst: max(l.GetBurst(), 1)},
	}
	if s.Rate.Count == 0 {
		s.Rate = limit.Rate{}
	}
	return s
}

// settings is what a limit lets by the rules.
func (l *Limits) settings(record *recordv1.Limit) limit.Settings {
	return rule.Apply(l.book.Of(record.GetName()), declared(record))
}

// own finds a limit, or makes it, or gives it the settings of a newer invocation.
func (l *Limits) own(record *recordv1.Limit, createdAt, now int64) *owned {
	own := l.named[record.GetName()]
	switch {
	case own == nil:
		own = &owned{Limit: limit.New(l.settings(record), now), record: record, setAt: createdAt, dirty: true}
		l.add(own, record.GetName())
	case own.record == nil || createdAt > own.setAt:
		own.setAt = createdAt
		if own.record == nil || declared(own.record) != declared(record) {
			own.Set(l.settings(record), now)
			own.dirty = true
		}
		own.record = record
	}
	return own
}

func (l *Limits) add(own *owned, name string) {
	own.name, own.timer = name, l.TimerID(name)
	l.named[name], l.timers[own.timer] = own, own
}

// TimerID is the id that timers of a limit have: no invocation's.
func (l *Limits) TimerID(name string) invocation.ID {
	var unique [16]byte
	binary.BigEndian.PutUint64(unique[:], xxhash.Sum64String(name))
	binary.BigEndian.PutUint64(unique[8:], xxhash.Sum64String(name+"2"))
	return invocation.NewID(uint64(l.partition-1), unique)
}

// Acquire answers an ask of a partition.
func (l *Limits) Acquire(a *recordv1.Acquire, from uint32, now int64) (*recordv1.Permit, error) {
	id, ok := invocation.IDFromBytes(a.GetInvocationId())
	if !ok || a.Limit.GetName() == "" {
		return nil, fmt.Errorf("partition %d asks for a permit without naming the limit or the invocation", from)
	}
	l.host.Touch()
	own := l.own(a.Limit, a.CreatedAt, now)
	ask := &limit.Ask{
		ID: id, Number: a.Number, Partition: from, Tenant: a.Tenant, Priority: a.Priority,
		Begun: a.Begun, Holds: a.Limit.Concurrency > 0, Firm: a.Firm, At: now, Sequence: l.host.Sequence(),
	}
	l.withdraw(own, id, 0) // It has one ask at a time; an earlier one's release was lost with a damaged row.
	if own.Waiting() > 0 { // What came since (a token, a permit more) is for those that wait.
		if _, err := l.serve(own, maxGrants, now); err != nil {
			return nil, err
		}
		l.addIfGone(own)
	}
	permit := &recordv1.Permit{InvocationId: id[:], Number: a.Number, Permission: recordv1.Permission(own.Ask(ask, now))}
	switch permit.Permission {
	case recordv1.Permission_PERMISSION_GRANTED:
		permit.Limit = a.Limit
		if err := l.grant(own, ask, now); err != nil {
			return nil, err
		}
	case recordv1.Permission_PERMISSION_WAITS:
		err := l.rows.PutMessage(table.Wait(own.name, ask.Band(), ask.Rank, ask.Sequence), &recordv1.WaitRow{
			InvocationId: id[:], Number: ask.Number, Partition: ask.Partition, Tenant: ask.Tenant, Priority: ask.Priority,
			Begun: ask.Begun, Holds: ask.Holds, Firm: ask.Firm, At: now,
		})
		if err != nil {
			return nil, err
		}
	case recordv1.Permission_PERMISSION_REFUSED:
		permit.Waiting, permit.RetryAfterMs, permit.MaxQueue = uint32(own.Waiting()), own.RetryAfter(now), int32(own.Settings().MaxQueue)
		l.host.Refused(declaredName(own.name))
	}
	return permit, l.keep(own, now)
}

// addIfGone takes a limit up again that serve found unused.
func (l *Limits) addIfGone(own *owned) {
	if l.named[own.name] == nil {
		own.dirty = true
		l.add(own, own.name)
	}
}

// grant writes that an invocation has a permit.
func (l *Limits) grant(own *owned, a *limit.Ask, now int64) error {
	own.dirty = own.dirty || own.Settings().Rate.Count > 0
	l.host.Granted(declaredName(own.name), now-a.At)
	if !a.Holds {
		return nil
	}
	return l.rows.PutMessage(table.Permit(own.name, a.ID), &recordv1.PermitRow{Number: a.Number, Partition: a.Partition, Tenant: a.Tenant, At: now})
}

// Release ends a permit, or a wait for one.
func (l *Limits) Release(r *recordv1.Release, now int64) error {
	id, _ := invocation.IDFromBytes(r.GetInvocationId())
	own := l.named[r.Limit.GetName()]
	if own == nil || !l.withdraw(own, id, r.Number) {
		return nil
	}
	_, err := l.serve(own, maxGrants, now)
	return err
}

// withdraw removes what an invocation has of a limit.
func (l *Limits) withdraw(own *owned, id invocation.ID, number uint64) bool {
	waited, found := own.Release(id, number)
	switch {
	case !found:
		return false
	case waited != nil:
		l.rows.Delete(table.Wait(own.name, waited.Band(), waited.Rank, waited.Sequence))
	default:
		l.rows.Delete(table.Permit(own.name, id))
	}
	l.host.Touch()
	return true
}

// maxGrants is how many one event lets begin: each is a start and rows, and an event is one
// record at most.
const maxGrants = 256

// serve lets those begin whose turn it is, at most so many, and sees to it that the others do soon.
func (l *Limits) serve(own *owned, most int, now int64) (granted int, err error) {
	for ; own.record != nil; granted++ {
		if granted == most {
			l.host.Arm(table.Timer{At: now, Kind: table.TimerLimit, ID: own.timer})
			break
		}
		a, ok := own.Next(now)
		if !ok {
			break
		}
		l.host.Touch()
		l.rows.Delete(table.Wait(own.name, a.Band(), a.Rank, a.Sequence))
		if err := l.grant(own, a, now); err != nil {
			return granted, err
		}
		err := l.host.Answer(a.Partition, &recordv1.Permit{
			InvocationId: a.ID[:], Number: a.Number, Permission: recordv1.Permission_PERMISSION_GRANTED, Limit: own.record,
		})
		if err != nil {
			return granted, err
		}
	}
	return granted, l.keep(own, now)
}

// keep writes a limit's row if it has changed, and sees to it that it is looked at in time.
func (l *Limits) keep(own *owned, now int64) error {
	if own.record == nil {
		return nil
	}
	if own.Idle(now) {
		l.host.Touch()
		l.rows.Delete(table.Limit(own.name))
		delete(l.named, own.name)
		delete(l.timers, own.timer)
		return nil
	}
	if at := own.Wake(now); at != 0 && (own.armed == 0 || at < own.armed) {
		l.host.Touch()
		own.armed = at
		l.host.Arm(table.Timer{At: at, Kind: table.TimerLimit, ID: own.timer})
	}
	if !own.dirty {
		return nil
	}
	own.dirty = false
	level, at := own.Bucket()
	row := &recordv1.LimitRow{Limit: own.record, SetAt: own.setAt, Level: level, LevelAt: at}
	if rate := own.Settings().Rate; rate != declared(own.record).Rate {
		row.Counted = &recordv1.Rate{Count: rate.Count, PerMs: rate.Per, Burst: rate.Burst}
	}
	return l.rows.PutMessage(table.Limit(own.name), row)
}

// Fire looks at a limit again, now that time has passed. It reports whether there was anything to
// look at.
func (l *Limits) Fire(timer table.Timer, now int64) (found bool, err error) {
	if timer.ID == l.TimerID("") {
		return true, l.serveRetuned(now)
	}
	own := l.timers[timer.ID]
	if own == nil {
		return false, nil
	}
	if own.armed <= timer.At {
		own.armed = 0
		l.host.Touch()
	}
	_, err = l.serve(own, maxGrants, now)
	return true, err
}

// ChangeRules makes a change of the rule book and gives the limits that it is about what they let
// now. Whoever waits and may begin now does so, in this event or, if they are many, in the next ones.
func (l *Limits) ChangeRules(change *recordv1.Rules, now int64) error {
	l.host.Touch()
	if err := l.book.Take(change); err != nil {
		return fmt.Errorf("rules, version %d: %w", change.GetVersion(), err)
	}
	for _, name := range change.Remove {
		l.rows.Delete(table.Rule(name))
	}
	for _, r := range change.Set {
		if err := l.rows.PutMessage(table.Rule(r.Name), r); err != nil {
			return err
		}
	}
	if err := l.rows.PutMessage(table.RuleBook(), &recordv1.RuleBook{Version: change.Version}); err != nil {
		return err
	}
	for name, own := range l.named {
		if l.retune(own, now) && own.Waiting() > 0 {
			l.retuned = append(l.retuned, name)
		}
	}
	slices.Sort(l.retuned)
	l.retuned = slices.Compact(l.retuned)
	return l.serveRetuned(now)
}

// retune gives a limit what it lets by the rules, and reports whether that is something else. Its row is
// written with the next thing that becomes of it: until then a new leader, which has the rules, comes to
// the same or, of the bucket, to less.
func (l *Limits) retune(own *owned, now int64) (changed bool) {
	if own.record == nil {
		return false
	}
	settings := l.settings(own.record)
	if settings == own.Settings() {
		return false
	}
	own.Set(settings, now)
	own.dirty = true
	return true
}

// serveRetuned lets those begin whose turn it is since rules have changed.
func (l *Limits) serveRetuned(now int64) error {
	l.host.Touch()
	for most := maxGrants; len(l.retuned) > 0; l.retuned = l.retuned[1:] {
		if most <= 0 {
			l.host.Arm(table.Timer{At: now, Kind: table.TimerLimit, ID: l.TimerID("")})
			return nil
		}
		own := l.named[l.retuned[0]]
		if own == nil {
			continue // Nobody uses it any more.
		}
		granted, err := l.serve(own, most, now)
		if err != nil {
			return err
		}
		most -= granted + 1 // A limit that is looked at may write its row and a timer.
	}
	l.retuned = nil
	return nil
}

// Book is the rule book, not to be changed.
func (l *Limits) Book() *rule.Book { return &l.book }

// MayRefuse reports whether a rule lets a limit refuse whoever asks.
func (l *Limits) MayRefuse(name string) bool {
	return l.book.Of(name).GetMaxQueue().GetMost() != 0
}
