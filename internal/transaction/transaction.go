// Package transaction is the protocol by which handlers of several objects take effect
// together or not at all: who holds which key, who gives way to whom, what a participant has
// promised and what the coordinator has decided. It is pure: internal/engine feeds it, writes
// its rows and carries its messages.
//
// # Roles
//
//	root         the TRANSACTION handler that a caller called
//	coordinator  the leader of the root's partition
//	participant  the leader of a partition where the transaction has called an object
//	try          one run of the root's handler; a transaction that gives way has several
//
// # Locks
//
// A key's inbox is its lock (Locks). A call inside a transaction takes the key and keeps it
// until the end of the transaction: exclusively for a TRANSACTION handler, shared for a READ
// handler (strict two-phase locking). Whoever is older wins (wound-wait, Rosenkrantz, Stearns
// and Lewis 1978), with one addition: a wounded transaction gives way only when it has to
// wait for a key itself. Most end before that, so most wounds cost nothing. Waiting goes from
// younger to older only, and so never in a circle:
//
//	wanted by        held by a younger one   by an older one   by a call   by a DURABLE handler
//	a transaction    wounds it, waits        waits             waits       gives way, waits with nothing
//	to read          the same                the same          waits       reads beside it
//
// "Call" is an invocation that is no part of a transaction. It holds one key and wants no
// other; when it does, it is the root of a transaction from then on. A DURABLE handler may hold
// its key for days, so nobody who holds a key waits for it. One that has only read so far is
// older than all that write, so it is never the one to give way to them; but while somebody older
// starves it does not begin (Starving).
//
// # Commit
//
//	root's handler ends
//	  nothing outside its partition      one record
//	  else  Prepare ─► those who write   each writes its row Prepared, from which on nobody
//	                                     reads its objects, and says yes
//	                   those who read    each says yes when what was read is durable
//	        Prepare ─► those who read    finally: each says yes if nothing was lost, and lets go
//	        all have said yes            one record in the root's partition: the decision, the
//	                                     result, what that partition has to write itself
//	        Commit ─► those who write    again and again until they have; they let go
//
// If the root's partition has nothing to write, not even the result, the coordinator hands the
// decision on to the last participant (Coordinator.HandOn): the others promise as above, naming
// who decides, and then that one commits what it has to write and the decision by one record, in
// the place of a promise. Whoever has promised asks it and not the coordinator; to end such a
// promise, one must know that it has not decided and never will.
//
// A try is named by the epoch of its coordinator's leadership and a counter (ID). Records of
// an earlier epoch can't be committed once a later one has begun (see cluster/replica), so a
// coordinator that has neither a decision's row nor the try in memory knows that it never
// committed and never will: absence is the abort. A participant that hears nothing asks. The same
// goes for one that decides, whose part of the try is named by its own epoch and a counter.
package transaction

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"fmt"
	"strings"

	"github.com/cespare/xxhash/v2"

	"github.com/perdure/perdure/internal/invocation"
	recordv1 "github.com/perdure/perdure/internal/record/v1"
)

// ID names one try at a transaction.
type ID struct {
	// Root is the invocation that began it; it lives in the coordinator's partition.
	Root invocation.ID
	// Sequence has the coordinator's epoch in its upper 32 bits.
	Sequence uint64
}

// Epoch is the leadership of the coordinator, its lower 32 bits.
func (id ID) Epoch() uint64 { return id.Sequence >> 32 }

// Compare orders tries.
func (id ID) Compare(other ID) int {
	return cmp.Or(bytes.Compare(id.Root[:], other.Root[:]), cmp.Compare(id.Sequence, other.Sequence))
}

// String is for people.
func (id ID) String() string {
	return fmt.Sprintf("%s/%d.%d", id.Root, id.Epoch(), uint32(id.Sequence))
}

// Record is the id as a message has it.
func (id ID) Record() *recordv1.TransactionID {
	return &recordv1.TransactionID{Root: id.Root[:], Sequence: id.Sequence}
}

// IDOf reads what Record made.
func IDOf(r *recordv1.TransactionID) (ID, bool) {
	root, ok := invocation.IDFromBytes(r.GetRoot())
	return ID{root, r.GetSequence()}, ok
}

// Age decides who gives way. It stays the same in all tries, but for Reader.
type Age struct {
	// At is when the root was accepted, in milliseconds since 1970.
	At   int64
	Root invocation.ID
	// Reader: it has called nothing but READ handlers so far.
	Reader bool
}

// Before reports whether a is the older.
func (a Age) Before(b Age) bool {
	switch {
	case a.Reader != b.Reader:
		return a.Reader
	case a.At != b.At:
		return a.At < b.At
	}
	return bytes.Compare(a.Root[:], b.Root[:]) < 0
}

// Fill makes a message say the age. It shares the memory of Root, which never changes.
func (a *Age) Fill(r *recordv1.TransactionAge) {
	r.At, r.Root, r.Reader = a.At, a.Root[:], a.Reader
}

// AgeOf reads what Record made.
func AgeOf(r *recordv1.TransactionAge) Age {
	root, _ := invocation.IDFromBytes(r.GetRoot())
	return Age{r.GetAt(), root, r.GetReader()}
}

// Path is which call of a transaction one is: four bytes for each level, the index of the call
// in the handler that makes it. The root's is "".
type Path string

// Child is the path of a call that the handler at p makes.
func (p Path) Child(index uint32) Path {
	return p + Path([]byte{byte(index >> 24), byte(index >> 16), byte(index >> 8), byte(index)})
}

// Under reports whether p is the call at root, or was made on its behalf.
func (p Path) Under(root Path) bool { return strings.HasPrefix(string(p), string(root)) }

// CallID names a call of a try. Nobody asks for it by that: it ends with the try.
func CallID(id ID, path Path, target invocation.Target) invocation.ID {
	name := binary.BigEndian.AppendUint64(id.Root[:], id.Sequence)
	name = append(name, path...)
	var unique [16]byte
	binary.BigEndian.PutUint64(unique[:], xxhash.Sum64(name))
	binary.BigEndian.PutUint64(unique[8:], xxhash.Sum64(append(name, "2"...)))
	return invocation.NewID(target.Hash(), unique)
}

// Phase is how far a try is. The numbers are those of routing.TransactionPhase.
type Phase uint8

// The phases. A participant is Running or Prepared.
const (
	Running     Phase = 1
	Preparing   Phase = 2
	Prepared    Phase = 3
	Committed   Phase = 4
	RollingBack Phase = 5
)

var phases = [...]string{"", "running", "preparing", "prepared", "committed", "rolling back"}

// String is the phase in words.
func (p Phase) String() string {
	if int(p) < len(phases) {
		return phases[p]
	}
	return "unknown"
}
