// Package asker is the side of flow control that asks: which permit an invocation asks for next, of whom, and what it
// gives back. The side that gives is internal/limit/owner.
//
// # Model
//
// An attempt starts when its invocation has the key and a permit of each of its limits, asked for one
// after the other in the order of Flow.Limits; and without an attempt there is no permit, but for limits that
// are until_done. So whoever waits for a permit may hold its key, whoever holds a permit runs, and
// neither waits for the other: decision 17.
//
// What an invocation holds and has asked for is in the Flow of its row, which is kept with it. An Asker
// has no memory of its own.
package asker

import (
	"github.com/cespare/xxhash/v2"

	"github.com/perdure/perdure/internal/invocation"
	"github.com/perdure/perdure/internal/limit/owner"
	recordv1 "github.com/perdure/perdure/internal/record/v1"
)

// Host is what an Asker needs of the engine that it is part of.
type Host interface {
	// Touch says that an invocation's flow changes.
	Touch()
	// Sequence is a number that is higher each time, over leaderships too.
	Sequence() uint64
	// Send puts a message to another partition in the outbox.
	Send(to uint32, message *recordv1.Message) error
}

// Asker asks for the invocations of one partition.
type Asker struct {
	host Host
	// own are the limits that belong to the partition itself.
	own                   *owner.Limits
	partition, partitions uint32
}

// New is for a partition of so many.
func New(host Host, own *owner.Limits, partition, partitions uint32) Asker {
	return Asker{host: host, own: own, partition: partition, partitions: partitions}
}

// Invocation is one that asks.
type Invocation struct {
	ID        invocation.ID
	CreatedAt int64
	// Begun: it has had an attempt.
	Begun bool
	// Awaited: somebody waits to hear that it is taken.
	Awaited bool
}

// FlowOf is the flow of a new invocation's row. The one in the request is shared: it may be in
// a message that is sent again.
func FlowOf(in *recordv1.Flow) *recordv1.Flow {
	if in == nil {
		return nil
	}
	return &recordv1.Flow{Limits: in.Limits, Tenant: in.Tenant, Priority: in.Priority, LimitKey: in.LimitKey}
}

// Limited reports whether a request is under any limit.
func Limited(in *recordv1.Invoke) bool { return len(in.Flow.GetLimits()) > 0 }

// Waits reports whether an invocation waits for a permit.
func Waits(f *recordv1.Flow) bool { return f.GetAsk() != 0 }

// WaitsUnheard reports whether it may do so without having asked for word of its place: a bound by a rule is
// news.
func WaitsUnheard(f *recordv1.Flow) bool { return Waits(f) && f.Limits[f.Held].MaxQueue == 0 }

// MayBeRefused reports whether an invocation may turn out not to be taken, because too many wait.
func (a *Asker) MayBeRefused(f *recordv1.Flow) bool {
	if f == nil || f.Firm {
		return false
	}
	for _, limit := range f.Limits {
		if a.mayRefuse(limit) {
			return true
		}
	}
	return false
}

// mayRefuse reports whether a limit refuses whoever finds too many waiting, as far as is known here.
func (a *Asker) mayRefuse(limit *recordv1.Limit) bool {
	return limit.MaxQueue != 0 || a.own.MayRefuse(limit.Name)
}

// ownerOf is the partition that a limit of an invocation belongs to.
func (a *Asker) ownerOf(limit *recordv1.Limit, id invocation.ID) uint32 {
	if limit.GetLocal() {
		return id.Partition(a.partitions)
	}
	return invocation.PartitionOf(xxhash.Sum64String(limit.GetName()), a.partitions)
}

// Ask reports whether an invocation has all its permits, and asks for the next otherwise, unless it has. If
// that belongs to this partition and is not given at once, the answer says whether the invocation waits
// or is refused.
func (a *Asker) Ask(f *recordv1.Flow, of Invocation, now int64) (all bool, answer *recordv1.Permit, err error) {
	for int(f.Held) < len(f.Limits) {
		limit := f.Limits[f.Held]
		switch {
		case Waits(f):
			return false, nil, nil
		case of.Begun && limit.Concurrency == 0:
			f.Held++
			continue
		}
		a.host.Touch()
		f.Ask, f.AskedAt = a.host.Sequence(), now
		acquire := &recordv1.Acquire{
			Limit: limit, InvocationId: of.ID[:], Number: f.Ask, Tenant: f.Tenant, Priority: f.Priority,
			Begun: of.Begun, Firm: f.Firm, Tell: !f.Firm && (a.mayRefuse(limit) || of.Awaited), CreatedAt: of.CreatedAt,
		}
		if to := a.ownerOf(limit, of.ID); to != a.partition {
			return false, nil, a.host.Send(to, &recordv1.Message{Message: &recordv1.Message_Acquire{Acquire: acquire}})
		}
		permit, err := a.own.Acquire(acquire, a.partition, now)
		if err != nil {
			return false, nil, err
		}
		if permit.Permission == recordv1.Permission_PERMISSION_REFUSED || permit.Permission == recordv1.Permission_PERMISSION_WAITS {
			return false, permit, nil
		}
		f.Ask = 0
		f.Held++
	}
	return true, nil, nil
}

// Take takes the answer to an ask. One that is not to what the invocation asks for now is not taken.
func Take(f *recordv1.Flow, p *recordv1.Permit) (taken bool) {
	if f == nil || f.Ask != p.Number {
		return false
	}
	switch p.Permission {
	case recordv1.Permission_PERMISSION_WAITS:
	case recordv1.Permission_PERMISSION_REFUSED:
		f.Ask = 0
	default:
		f.Ask = 0
		f.Held++
	}
	return true
}

// GiveBack returns an invocation's permits and ends its wait for one. Those of limits that are
// until_done it keeps, unless all are asked for; they come first among its limits.
func (a *Asker) GiveBack(f *recordv1.Flow, id invocation.ID, all bool, now int64) error {
	if Waits(f) {
		limit := f.Limits[f.Held]
		f.Ask = 0
		a.host.Touch()
		if err := a.Release(limit, id, 0, now); err != nil {
			return err
		}
	}
	for ; f.Held > 0; f.Held-- {
		limit := f.Limits[f.Held-1]
		if limit.UntilDone && !all {
			break
		}
		if limit.Concurrency > 0 {
			a.host.Touch()
			if err := a.Release(limit, id, 0, now); err != nil {
				return err
			}
		}
	}
	return nil
}

// Release tells a limit's owner that an invocation needs no permit of it: that of an ask by its number, or
// any if it is 0.
func (a *Asker) Release(limit *recordv1.Limit, id invocation.ID, number uint64, now int64) error {
	r := &recordv1.Release{Limit: limit, InvocationId: id[:], Number: number}
	if to := a.ownerOf(limit, id); to != a.partition {
		return a.host.Send(to, &recordv1.Message{Message: &recordv1.Message_Release{Release: r}})
	}
	return a.own.Release(r, now)
}
