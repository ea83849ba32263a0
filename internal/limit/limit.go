// Package limit decides who may begin: it is the state of one limit, which bounds how many
// invocations are under way at once, how many begin in a time, and how many may wait.
//
// # Model
//
// An invocation asks. It is granted, waits, or is refused because too many wait already. Those
// that wait are in one order, which is the whole of the policy:
//
//  1. what has begun before (it was suspended, say) goes before what has not: it holds things
//     that others wait for. It needs no token of the rate, since it has had one;
//  2. the higher priority goes first;
//  3. of one priority, tenants take turns, however many of each wait (start-time fair queuing
//     with every cost 1, which is deficit round robin without the rounds);
//  4. of one tenant, first come first served.
//
// The third is a number, the rank, given on arrival and never changed: as many as the tenant's
// invocations before it, but no less than the rank of whoever began last. So the order is that
// of a key (Ask.Before), and a queue that was written down in it is read back in it.
//
// The rate is a bucket of tokens in integers: each millisecond adds Rate.Count units, a token is
// Rate.Per units. Nothing is rounded, so nothing drifts.
//
// A Limit belongs to one goroutine. It has no clock: instants come as milliseconds since 1970.
package limit

import (
	"cmp"
	"container/heap"
	"math"

	"github.com/perdure/perdure/internal/invocation"
)

// NoQueue as Settings.MaxQueue refuses whoever can't begin at once.
const NoQueue = -1

// None as Settings.Concurrency lets nobody run.
const None = -1

// MaxPriority is the highest priority, and -MaxPriority the lowest.
const MaxPriority = 100

// Bounds of Settings: no sum or product of them overflows.
const (
	MaxCount = 1_000_000_000
	MaxPer   = 366 * 24 * 60 * 60 * 1000
)

// Rate is how many may begin in a time. The zero value is any number.
type Rate struct {
	// Count tokens come in every Per milliseconds, evenly.
	Count, Per int64
	// Burst is how many tokens may be there at once, and are at first.
	Burst int64
}

// Settings of a limit. The zero value limits nothing.
type Settings struct {
	// Concurrency is how many permits there are, 0 for any number, None for none.
	Concurrency int
	Rate        Rate
	// MaxQueue is how many may wait, 0 for any number, NoQueue for none.
	MaxQueue int
}

// Ask is one invocation that wants to begin.
type Ask struct {
	ID invocation.ID
	// Number tells it from an earlier ask of the same invocation.
	Number uint64
	// Partition is where the invocation is.
	Partition uint32
	Tenant    string
	// Priority is from -MaxPriority to MaxPriority.
	Priority int32
	// Begun: it has begun before.
	Begun bool
	// Holds: it keeps a permit until Release.
	Holds bool
	// Firm: it can't be refused any more.
	Firm bool
	// At is when it asked.
	At int64
	// Sequence is the order of arrival.
	Sequence uint64
	// Rank is its turn among tenants; Ask sets it for those that wait.
	Rank uint64

	place int // in the heap
}

// Band is the first part of the order: what has begun, then priorities from high to low.
func (a *Ask) Band() uint8 {
	if a.Begun {
		return 0
	}
	return uint8(1 + MaxPriority - min(max(a.Priority, -MaxPriority), MaxPriority))
}

// Before is the order in which those that wait begin.
func (a *Ask) Before(b *Ask) bool {
	return cmp.Or(cmp.Compare(a.Band(), b.Band()), cmp.Compare(a.Rank, b.Rank), cmp.Compare(a.Sequence, b.Sequence)) < 0
}

// Permit is what a granted Ask holds.
type Permit struct {
	Number    uint64
	Partition uint32
	Tenant    string
	// At is when it was granted.
	At int64
}

// Answer to an Ask.
type Answer uint8

const (
	// Granted: it may begin.
	Granted Answer = 1
	// Waits: Next returns it when it is its turn.
	Waits Answer = 2
	// Refused: too many wait.
	Refused Answer = 3
)

// Limit is the state of one limit.
type Limit struct {
	settings Settings
	held     map[invocation.ID]Permit
	waiting  map[invocation.ID]*Ask
	queue    queue
	bands    map[uint8]*band
	// level is how full the bucket is, in units, and at when that was.
	level, at int64
	// pace is the usual time between two that begin while others wait, in milliseconds times
	// 16; 0 while it is not known. begun is when the last one did.
	pace, begun int64
}

// band is where the tenants of one band stand.
type band struct {
	// virtual is the rank of whoever began last.
	virtual uint64
	// next is the least rank of a tenant's next ask, if that is more than virtual.
	next    map[string]uint64
	waiting int
}

// New makes a limit that nobody uses, with its bucket full.
func New(settings Settings, now int64) *Limit {
	l := &Limit{settings: settings, at: now}
	l.level = l.capacity()
	return l
}

// Restore makes a limit with the bucket that Bucket returned. Follow it with Hold and Queue.
func Restore(settings Settings, level, at int64) *Limit {
	l := &Limit{settings: settings, at: at}
	l.level = min(max(level, 0), l.capacity())
	return l
}

// Hold restores a permit.
func (l *Limit) Hold(id invocation.ID, permit Permit) { l.hold(id, permit) }

// Queue restores one that waits, with the rank it had.
func (l *Limit) Queue(a *Ask) {
	b := l.band(a.Band())
	if b.waiting == 0 || a.Rank < b.virtual {
		b.virtual = a.Rank
	}
	b.next[a.Tenant] = max(b.next[a.Tenant], a.Rank+1)
	l.push(b, a)
}

// Settings are what New or Set was given.
func (l *Limit) Settings() Settings { return l.settings }

// Set changes the settings. Permits that are held stay so, those that wait too; the bucket
// keeps its tokens, as far as they fit.
func (l *Limit) Set(settings Settings, now int64) {
	l.refill(now)
	before := l.settings.Rate
	l.settings = settings
	switch after := settings.Rate; {
	case after.Count == 0:
		l.level = 0
	case before.Count == 0:
		l.level = l.capacity()
	case before.Per != after.Per:
		l.level = min(l.level/before.Per, after.Burst) * after.Per
	}
	l.level = min(l.level, l.capacity())
}

// Held is how many permits are held, and Waiting how many wait.
func (l *Limit) Held() int { return len(l.held) }

// Waiting is how many wait.
func (l *Limit) Waiting() int { return len(l.queue) }

// Bucket is what Restore needs.
func (l *Limit) Bucket() (level, at int64) { return l.level, l.at }

// Tokens is how many tokens are there now, rounded down; 0 without a rate.
func (l *Limit) Tokens(now int64) int64 {
	if l.settings.Rate.Count == 0 {
		return 0
	}
	l.refill(now)
	return l.level / l.settings.Rate.Per
}

// Ask lets a begin, wait, or neither. An invocation asks once at a time.
func (l *Limit) Ask(a *Ask, now int64) Answer {
	l.refill(now)
	if l.may(a) && (len(l.queue) == 0 || a.Band() < l.queue[0].Band()) {
		l.grant(a, now)
		return Granted
	}
	if most := l.settings.MaxQueue; most != 0 && !a.Begun && !a.Firm && len(l.queue) >= max(most, 0) {
		return Refused
	}
	b := l.band(a.Band())
	a.Rank = max(b.virtual, b.next[a.Tenant])
	b.next[a.Tenant] = a.Rank + 1
	l.push(b, a)
	return Waits
}

// Next is the next that waited and may begin now. Call it until it returns false, whenever
// Release, Set or time has passed.
func (l *Limit) Next(now int64) (*Ask, bool) {
	l.refill(now)
	if len(l.queue) == 0 || !l.may(l.queue[0]) {
		return nil, false
	}
	a := l.queue[0]
	if l.begun != 0 && now >= l.begun {
		l.pace += (min(now-l.begun, MaxPer)*16 - l.pace) / 8
	}
	l.remove(a)
	if b := l.bands[a.Band()]; b != nil {
		b.virtual = max(b.virtual, a.Rank)
		b.forget()
	}
	l.grant(a, now)
	return a, true
}

// Release ends an invocation's permit, or its wait, if number is that of its ask, or 0. It
// returns the ask that waited, if one did.
func (l *Limit) Release(id invocation.ID, number uint64) (waited *Ask, found bool) {
	if permit, ok := l.held[id]; ok && (number == 0 || permit.Number == number) {
		delete(l.held, id)
		return nil, true
	}
	if a := l.waiting[id]; a != nil && (number == 0 || a.Number == number) {
		l.remove(a)
		return a, true
	}
	return nil, false
}

// Has reports whether an invocation holds a permit or waits.
func (l *Limit) Has(id invocation.ID) bool {
	_, held := l.held[id]
	return held || l.waiting[id] != nil
}

// Wake is when to look again: Next may return somebody then, or the limit may be Idle. 0: not
// before something happens.
func (l *Limit) Wake(now int64) int64 {
	rate := l.settings.Rate
	if rate.Count == 0 {
		return 0
	}
	l.refill(now)
	missing := l.capacity() - l.level
	if len(l.queue) > 0 {
		head := l.queue[0]
		if l.full(head) || head.Begun {
			return 0
		}
		missing = rate.Per - l.level
	} else if len(l.held) > 0 {
		return 0
	}
	if missing <= 0 {
		return 0
	}
	return l.at + (missing+rate.Count-1)/rate.Count
}

// Idle reports whether a new Limit would be the same.
func (l *Limit) Idle(now int64) bool {
	if len(l.held) > 0 || len(l.queue) > 0 {
		return false
	}
	l.refill(now)
	return l.level == l.capacity()
}

// Bounds of RetryAfter, in milliseconds, and what it is while nothing is known.
const (
	minRetryAfter     = 100
	maxRetryAfter     = 60_000
	unknownRetryAfter = 1000
)

// RetryAfter is when one that was refused may hope for a place, in milliseconds: about when half
// of those that wait will have begun.
func (l *Limit) RetryAfter(now int64) int64 {
	l.refill(now)
	ahead := int64(len(l.queue)/2 + 1)
	wait := int64(unknownRetryAfter)
	if l.pace > 0 {
		wait = ahead * l.pace / 16
	}
	if rate := l.settings.Rate; rate.Count > 0 {
		wait = (ahead*rate.Per - l.level + rate.Count - 1) / rate.Count
		if l.pace > 0 {
			wait = max(wait, ahead*l.pace/16)
		}
	}
	return min(max(wait, minRetryAfter), maxRetryAfter)
}

// may reports whether a could begin if nobody else waited.
func (l *Limit) may(a *Ask) bool {
	return !l.full(a) && (a.Begun || l.settings.Rate.Count == 0 || l.level >= l.settings.Rate.Per)
}

// full reports whether a needs a permit and there is none.
func (l *Limit) full(a *Ask) bool {
	most := l.settings.Concurrency
	return a.Holds && most != 0 && len(l.held) >= max(most, 0)
}

func (l *Limit) grant(a *Ask, now int64) {
	if !a.Begun && l.settings.Rate.Count > 0 {
		l.level -= l.settings.Rate.Per
	}
	l.begun = now
	if a.Holds {
		l.hold(a.ID, Permit{a.Number, a.Partition, a.Tenant, now})
	}
}

func (l *Limit) hold(id invocation.ID, permit Permit) {
	if l.held == nil {
		l.held = map[invocation.ID]Permit{}
	}
	l.held[id] = permit
}

func (l *Limit) capacity() int64 { return l.settings.Rate.Burst * l.settings.Rate.Per }

// setBack is how far behind the last instant another one must be to count as a clock that was set
// back, in milliseconds. One that is less far behind has been overtaken by another event, and
// moving to it would bring the time between the two twice.
const setBack = 60_000

// refill adds what time has brought. A clock that was set back brings nothing, and takes nothing.
func (l *Limit) refill(now int64) {
	elapsed := now - l.at
	if elapsed < 0 && elapsed > -setBack {
		return
	}
	l.at = now
	if rate := l.settings.Rate; rate.Count > 0 && elapsed > 0 {
		missing := l.capacity() - l.level
		if elapsed > missing/rate.Count {
			l.level = l.capacity()
		} else {
			l.level += elapsed * rate.Count
		}
	}
}

func (l *Limit) band(number uint8) *band {
	b := l.bands[number]
	if b == nil {
		if l.bands == nil {
			l.bands = map[uint8]*band{}
		}
		b = &band{next: map[string]uint64{}}
		l.bands[number] = b
	}
	return b
}

// forget drops the tenants that have no turn to wait for, once they are most of all.
func (b *band) forget() {
	if len(b.next) <= 2*b.waiting+16 {
		return
	}
	for tenant, rank := range b.next {
		if rank <= b.virtual {
			delete(b.next, tenant)
		}
	}
}

func (l *Limit) push(b *band, a *Ask) {
	if l.waiting == nil {
		l.waiting = map[invocation.ID]*Ask{}
	}
	if len(l.queue) == 0 {
		l.begun = 0 // What began when nobody waited says nothing of the pace.
	}
	b.waiting++
	l.waiting[a.ID] = a
	heap.Push(&l.queue, a)
}

func (l *Limit) remove(a *Ask) {
	heap.Remove(&l.queue, a.place)
	delete(l.waiting, a.ID)
	if b := l.bands[a.Band()]; b != nil {
		if b.waiting--; b.waiting == 0 {
			delete(l.bands, a.Band()) // With nobody left, whose turn it is says nothing.
		}
	}
	if len(l.queue) == 0 {
		l.queue = nil // It may have been long.
	}
}

// queue is a heap in the order of Before.
type queue []*Ask

func (q queue) Len() int           { return len(q) }
func (q queue) Less(i, j int) bool { return q[i].Before(q[j]) }
func (q queue) Swap(i, j int) {
	q[i], q[j] = q[j], q[i]
	q[i].place, q[j].place = i, j
}

// Push is for container/heap.
func (q *queue) Push(x any) {
	a := x.(*Ask)
	a.place = len(*q)
	*q = append(*q, a)
}

// Pop is for container/heap.
func (q *queue) Pop() any {
	last := len(*q) - 1
	a := (*q)[last]
	(*q)[last] = nil
	*q = (*q)[:last]
	return a
}

// MaxBurst is the largest burst whose bucket can be counted.
func MaxBurst(per int64) int64 {
	if per <= 0 {
		return 0
	}
	return min(MaxCount, math.MaxInt64/4/per)
}
