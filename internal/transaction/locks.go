package transaction

import (
	"cmp"
	"maps"
	"slices"

	"github.com/perdure/perdure/internal/invocation"
)

// Kind is who asks for a key.
type Kind uint8

// The kinds.
const (
	// Call is an invocation that holds this key only and ends by itself.
	Call Kind = 1
	// Durable is a DURABLE or RUN handler: it may keep the key for as long as it likes.
	Durable Kind = 2
	// Root was a Call until its handler called another object.
	Root Kind = 3
	// Branch is what a transaction holds of other objects.
	Branch Kind = 4
)

// Request is somebody who holds a key or waits for it. The fields are set by its owner, and
// changed only by the methods of Locks once it was given to Acquire.
type Request struct {
	// Owner is for whoever made it.
	Owner  any
	Object invocation.Object
	Kind   Kind
	// Shared with others that read. Only a Branch does.
	Shared bool
	// ID and Age of the transaction: of a Root or Branch.
	ID  ID
	Age Age
	// Alone: the transaction holds no key at all, so that it may wait for anybody.
	Alone bool
	// Wounded: it must not wait any more.
	Wounded bool
	// Prepared: it waits for nothing, whatever becomes of others.
	Prepared bool
	// Beside: it reads while a DURABLE handler holds the key.
	Beside bool

	held      bool
	waiting   bool
	upgrading bool
	told      bool // that it is in an older one's way
	// passed counts those that only read and took the key, or a better place, while it was the
	// first to wait that does not.
	passed int
}

// Held reports whether it has the key.
func (r *Request) Held() bool { return r.held }

// Waiting reports whether it waits for the key, or to have for itself what it shares.
func (r *Request) Waiting() bool { return r.waiting }

// Upgrading reports whether it shares the key and waits to have it alone.
func (r *Request) Upgrading() bool { return r.upgrading }

// Locks are the keys of a partition. A key that nobody holds is not in it.
type Locks struct {
	keys    map[invocation.Object]*key
	changes []Change
	waiting int
	// contended are the keys that transactions wait for: few, where keys may be millions.
	contended map[invocation.Object]*key
	// patience is how often a request is passed before a Passed says so.
	patience int
}

// key is a lock. It has holders as long as it is there: one, or several that share it, and
// perhaps a DURABLE handler beside those.
type key struct {
	holders []*Request
	queue   []*Request
	// branches counts the transactions in the queue: without one, which is the rule, nothing
	// has to look at the whole of it.
	branches int
	first    [1]*Request // holders' memory while there is one
}

// Change is what an operation on the locks came to, besides its answer.
type Change struct {
	Request *Request
	What    What
	// By whom a holder is InTheWay: one that has only read so far.
	Reader bool
}

// What happened to a request.
type What uint8

const (
	// Granted: a request that waited has the key.
	Granted What = 1
	// InTheWay: a holder is waited for by an older transaction.
	InTheWay What = 2
	// Stuck: a transaction must not wait for this key: it is wounded, or a DURABLE handler
	// holds it. The request waits on until it is released.
	Stuck What = 3
	// Passed: a request waits while one transaction after the other takes the key to read.
	Passed What = 4
)

// Answer is how a request was met.
type Answer uint8

const (
	// Has: it holds the key.
	Has Answer = 1
	// Waits: Granted follows, or Stuck.
	Waits Answer = 2
	// Blocked: it must not wait, since a DURABLE handler holds the key. It was not taken.
	Blocked Answer = 3
	// Yields: it must not wait, since it is wounded. It was not taken.
	Yields Answer = 4
)

// NewLocks makes locks that nobody holds. patience is how many transactions that only read may
// pass a request before Passed says so, and again after as many more.
func NewLocks(patience int) *Locks {
	return &Locks{keys: map[invocation.Object]*key{}, contended: map[invocation.Object]*key{}, patience: patience}
}

// Next takes the oldest change that was not taken yet.
func (l *Locks) Next() (Change, bool) {
	if len(l.changes) == 0 {
		return Change{}, false
	}
	c := l.changes[0]
	l.changes = l.changes[1:]
	if len(l.changes) == 0 {
		l.changes = nil
	}
	return c, true
}

// Held is how many keys are held, and Queued how many requests wait.
func (l *Locks) Held() int { return len(l.keys) }

// Queued is how many requests wait for a key.
func (l *Locks) Queued() int { return l.waiting }

// Holders are those who hold a key, and Queue those who wait for it, first come first. The
// slices belong to Locks.
func (l *Locks) Holders(object invocation.Object) []*Request {
	if k := l.keys[object]; k != nil {
		return k.holders
	}
	return nil
}

// Queue is who waits for a key.
func (l *Locks) Queue(object invocation.Object) []*Request {
	if k := l.keys[object]; k != nil {
		return k.queue
	}
	return nil
}

// Acquire asks for a key. A request that is Blocked or Yields has been left out.
func (l *Locks) Acquire(r *Request) Answer {
	k := l.keys[r.Object]
	if k == nil {
		k = &key{}
		k.holders = k.first[:0]
		l.keys[r.Object] = k
	}
	if k.admits(r, len(k.queue)) {
		l.pass(k, r, 0)
		k.hold(r)
		k.check(l, false)
		return Has
	}
	if r.Kind == Branch {
		switch {
		case r.Wounded && !r.Alone:
			return Yields
		case !r.Alone && k.durable() && !r.Shared:
			return Blocked
		}
	}
	l.wait(k, r)
	return Waits
}

// Upgrade asks for a key that r shares to be r's alone.
func (l *Locks) Upgrade(r *Request) Answer {
	k := l.keys[r.Object]
	if len(k.holders) == 1 {
		r.Shared = false
		k.check(l, false)
		return Has
	}
	switch {
	case r.Wounded:
		return Yields
	case k.durable():
		return Blocked
	}
	r.upgrading = true
	l.wait(k, r)
	return Waits
}

// wait puts r in the queue: calls first come first served; a transaction before those that are
// younger, so that waiting goes from younger to older; one that holds the key already first.
func (l *Locks) wait(k *key, r *Request) {
	at := len(k.queue)
	for i, q := range k.queue {
		if r.Kind != Branch || k.branches == 0 && !r.upgrading {
			break
		}
		if r.upgrading && !q.upgrading || q.Kind == Branch && r.upgrading == q.upgrading && r.Age.Before(q.Age) {
			at = i
			break
		}
	}
	l.enqueue(k, r, at)
	l.pass(k, r, at)
	k.check(l, false)
}

// pass notes that r, which only reads, comes before those that wait in the queue from a place
// on. Who waits for a DURABLE handler does not wait for r.
func (l *Locks) pass(k *key, r *Request, from int) {
	if len(k.queue) == 0 || r.Kind != Branch || !r.Shared || !r.Age.Reader || k.durable() {
		return
	}
	for _, q := range k.queue[from:] {
		if q.Kind == Branch && q.Age.Reader {
			continue
		}
		if q.passed++; q.passed%l.patience == 0 {
			l.changes = append(l.changes, Change{Request: q, What: Passed})
		}
		return
	}
}

func (l *Locks) enqueue(k *key, r *Request, at int) {
	k.queue = slices.Insert(k.queue, at, r)
	r.waiting = true
	l.waiting++
	if r.Kind == Branch {
		k.branches++
		l.contended[r.Object] = k
	}
}

func (l *Locks) dequeue(k *key, at int) {
	r := k.queue[at]
	if at == 0 {
		k.queue[0] = nil
		k.queue = k.queue[1:] // A queue may be long, and this is its usual end.
	} else {
		k.queue = slices.Delete(k.queue, at, at+1)
	}
	r.waiting = false
	l.waiting--
	if r.Kind == Branch {
		if k.branches--; k.branches == 0 {
			delete(l.contended, r.Object)
		}
	}
}

// Return puts a call whose transaction has given way back in front of its key's queue, behind
// the older transactions it gave way to.
func (l *Locks) Return(r *Request) Answer {
	r.Kind, r.Prepared = Call, false
	k := l.keys[r.Object]
	if k == nil {
		return l.Acquire(r)
	}
	at := 0
	for i, q := range k.queue {
		if k.branches == 0 {
			break
		}
		if q.Kind == Branch && q.Age.Before(r.Age) {
			at = i + 1
		}
	}
	l.enqueue(k, r, at)
	return Waits
}

// Release ends a request, whether it holds the key or waits.
func (l *Locks) Release(r *Request) {
	k := l.keys[r.Object]
	if k == nil {
		return
	}
	if r.waiting {
		l.dequeue(k, slices.Index(k.queue, r))
		r.upgrading = false
	}
	if r.held {
		k.holders = slices.DeleteFunc(k.holders, func(h *Request) bool { return h == r })
		r.held, r.Beside, r.told = false, false, false
	}
	l.grant(r.Object, k)
}

// Withdraw ends the wait of a request. One that shares the key goes on sharing it.
func (l *Locks) Withdraw(r *Request) {
	k := l.keys[r.Object]
	if k == nil || !r.waiting {
		return
	}
	l.dequeue(k, slices.Index(k.queue, r))
	r.upgrading = false
	l.grant(r.Object, k)
}

// grant gives the key to those whose turn it is.
func (l *Locks) grant(object invocation.Object, k *key) {
	for i := 0; i < len(k.queue); {
		r := k.queue[i]
		if !k.admits(r, i) {
			i++
			if len(k.holders) == 1 && !k.holders[0].Shared && k.holders[0].Kind != Durable {
				break // It shares with nobody.
			}
			continue
		}
		l.dequeue(k, i)
		k.hold(r)
		l.changes = append(l.changes, Change{Request: r, What: Granted})
	}
	if len(k.holders) == 0 && len(k.queue) == 0 {
		delete(l.keys, object)
		return
	}
	k.check(l, false)
}

// Spread makes a call the root of a transaction.
func (l *Locks) Spread(r *Request, id ID, age Age) {
	r.Kind, r.ID, r.Age = Root, id, age
	if k := l.keys[r.Object]; k != nil {
		k.check(l, false)
	}
}

// Writes makes a transaction that has only read one that writes: older ones need not wait for
// it any more.
func (l *Locks) Writes(r *Request) {
	r.Age.Reader = false
	if k := l.keys[r.Object]; k != nil {
		k.check(l, false)
	}
}

// Wound marks a request of a transaction that must not wait any more.
func (l *Locks) Wound(r *Request) {
	r.Wounded = true
	if r.waiting && !r.Alone {
		l.changes = append(l.changes, Change{Request: r, What: Stuck})
	}
}

// NotAlone ends that a request may wait for anybody: its transaction holds something by now. It
// has waited for the key before, with a leader who is gone; what waits here was asked late.
func (l *Locks) NotAlone(r *Request) {
	if !r.Alone {
		return
	}
	r.Alone = false
	if r.Wounded && r.waiting {
		l.changes = append(l.changes, Change{Request: r, What: Stuck})
	}
	if k := l.keys[r.Object]; k != nil {
		k.check(l, false)
	}
}

// Remind repeats every InTheWay that still holds: the first may have been lost.
func (l *Locks) Remind() {
	for _, object := range sorted(l.contended) {
		l.contended[object].check(l, true)
	}
}

// Objects are those whose keys are held, sorted.
func (l *Locks) Objects() []invocation.Object { return sorted(l.keys) }

func sorted(keys map[invocation.Object]*key) []invocation.Object {
	return slices.SortedFunc(maps.Keys(keys), func(a, b invocation.Object) int {
		return cmp.Or(cmp.Compare(a.Service, b.Service), cmp.Compare(a.Key, b.Key))
	})
}

// admits reports whether r, which is or would be at place in the queue, may have the key now.
func (k *key) admits(r *Request, place int) bool {
	for _, h := range k.holders {
		if h != r && !compatible(r, h) {
			return false
		}
	}
	if r.upgrading {
		return true
	}
	if r.Shared && k.durable() {
		return true // It reads beside the DURABLE handler, for which the others wait for as long as it likes.
	}
	for _, q := range k.queue[:place] {
		// One that holds other keys and wants to read does not wait for those in the queue who
		// wait for readers: that could be a circle that no age forbids. Older transactions are
		// no part of such.
		if r.Shared && !r.Alone && (q.Kind != Branch || q.Alone || r.Age.Before(q.Age)) {
			continue
		}
		if r.Shared && q.Shared && !q.upgrading { // One that upgrades would wait for ever behind those that come to read.
			continue
		}
		return false
	}
	return true
}

// compatible reports whether r may have the key while h has it.
func compatible(r, h *Request) bool {
	return r.Shared && !r.upgrading && (h.Shared || h.Kind == Durable)
}

func (k *key) hold(r *Request) {
	r.held, r.Alone = true, false
	if r.upgrading {
		r.upgrading, r.Shared = false, false
		return // It is among the holders.
	}
	r.Beside = k.durable()
	k.holders = append(k.holders, r)
}

// durable reports whether a DURABLE handler holds the key.
func (k *key) durable() bool {
	for _, h := range k.holders {
		if h.Kind == Durable {
			return true
		}
	}
	return false
}

// check looks for holders in the way of older transactions, and for transactions that wait for
// a DURABLE handler though they hold something.
func (k *key) check(l *Locks, again bool) {
	if k.branches == 0 {
		return
	}
	for _, q := range k.queue {
		if q.Kind != Branch || q.Alone {
			continue
		}
		for _, h := range k.holders {
			switch {
			case h == q || compatible(q, h):
			case h.Kind == Durable:
				l.changes = append(l.changes, Change{Request: q, What: Stuck})
			case h.Kind == Call || h.Prepared || h.told && !again || !q.Age.Before(h.Age):
			default:
				h.told = true
				l.changes = append(l.changes, Change{Request: h, What: InTheWay, Reader: q.Age.Reader})
			}
		}
	}
}
