package transaction

import (
	"slices"

	"google.golang.org/protobuf/proto"

	"github.com/perdure/perdure/internal/invocation"
	recordv1 "github.com/perdure/perdure/internal/record/v1"
)

// Participant is what a partition holds of a try: keys, and what its calls want to write.
type Participant struct {
	ID    ID
	Age   Age
	Phase Phase // Running or Prepared
	// Since is when the phase began, in milliseconds since 1970.
	Since int64
	// Wounded: an older transaction waits for this one, which must not wait any more.
	Wounded bool
	// Broken says why the try can't commit any more; "" while it can.
	Broken string
	// Decider is the participant that decides about the promise; nil: the coordinator does.
	Decider *recordv1.Member
	// Overtaken: a DURABLE handler has written what was read beside it, after the promise.
	Overtaken bool
	// Torn: a call has seen what another call of the transaction wrote, which was taken back.
	Torn bool
	// Holds are the keys, in the order in which they were first wanted.
	Holds []*Hold
}

// Hold is one key of a participant.
type Hold struct {
	Request     Request
	Participant *Participant
	// Target of a call to the object; its handler means nothing.
	Target *recordv1.Target
	// writes of calls that have succeeded, oldest first.
	writes []write
	// sights are the calls that began when there were writes.
	sights []sight
	// Running is the call whose handler is at work here, and Waiting those of the same
	// transaction that wait for its end. They are the engine's.
	Running any
	Waiting []any
}

// write is what one call wants to write.
type write struct {
	path    Path
	entries []*recordv1.Entry
}

// sight is a call that has seen the first so many writes of other calls.
type sight struct {
	path   Path
	writes int
}

// NewParticipant begins a try.
func NewParticipant(id ID, age Age, now int64) *Participant {
	return &Participant{ID: id, Age: age, Phase: Running, Since: now}
}

// Find returns what the try holds of an object, or wants; nil for nothing.
func (p *Participant) Find(object invocation.Object) *Hold {
	for _, h := range p.Holds {
		if h.Request.Object == object {
			return h
		}
	}
	return nil
}

// Want makes the hold of an object that is not there yet. The key must be acquired.
func (p *Participant) Want(target *recordv1.Target, shared bool) *Hold {
	h := &Hold{Participant: p, Target: target}
	h.Request = Request{
		Owner: h, Object: invocation.Object{Service: target.GetService(), Key: target.GetKey()},
		Kind: Branch, Shared: shared, ID: p.ID, Age: p.Age, Wounded: p.Wounded,
	}
	p.Holds = append(p.Holds, h)
	return h
}

// Write adds what a call that has succeeded wants to write.
func (h *Hold) Write(path Path, entries []*recordv1.Entry) {
	if len(entries) > 0 {
		h.writes = append(h.writes, write{path, entries})
	}
}

// Sees notes that a call begins: it sees what others have written so far.
func (h *Hold) Sees(path Path) {
	if len(h.writes) > 0 {
		h.sights = append(h.sights, sight{path, len(h.writes)})
	}
}

// Entries is all there is to write, oldest first.
func (h *Hold) Entries() []*recordv1.Entry {
	if len(h.writes) == 1 {
		return h.writes[0].entries
	}
	var all []*recordv1.Entry
	for _, w := range h.writes {
		all = append(all, w.entries...)
	}
	return all
}

// State is the object's state as the transaction's calls have left it; wrote is false if none
// of them has set it.
func (h *Hold) State() (value []byte, has, wrote bool) {
	for _, w := range slices.Backward(h.writes) {
		for _, entry := range slices.Backward(w.entries) {
			if set := entry.GetSetState(); set != nil {
				return set.Value, !set.Clear, true
			}
		}
	}
	return nil, false, false
}

// Rows are the rows that the transaction's calls have written, oldest first.
func (h *Hold) Rows() []*recordv1.Entry {
	var rows []*recordv1.Entry
	for _, w := range h.writes {
		for _, entry := range w.entries {
			if entry.GetTablePut() != nil {
				rows = append(rows, entry)
			}
		}
	}
	return rows
}

// Beside reports whether it has read an object that a DURABLE handler may write meanwhile.
func (p *Participant) Beside() bool {
	return slices.ContainsFunc(p.Holds, func(h *Hold) bool { return h.Request.Beside })
}

// Shares reports whether it has read an object that it does not write.
func (p *Participant) Shares() bool {
	return slices.ContainsFunc(p.Holds, func(h *Hold) bool { return h.Request.Shared })
}

// Writes reports whether there is anything to write.
func (p *Participant) Writes() bool {
	return slices.ContainsFunc(p.Holds, func(h *Hold) bool { return len(h.writes) > 0 })
}

// Undo takes back what calls at or below the paths have written. If another call has seen that,
// the try is Torn: two calls at one time have got in each other's way, and another try would
// most likely end the same.
func (p *Participant) Undo(paths []Path) {
	if len(paths) == 0 {
		return
	}
	for _, h := range p.Holds {
		kept, gone := h.writes[:0], make([]int, len(h.sights))
		for i, w := range h.writes {
			at := slices.IndexFunc(paths, w.path.Under)
			if at < 0 {
				kept = append(kept, w)
				continue
			}
			for j, s := range h.sights {
				if s.writes <= i {
					continue
				}
				gone[j]++
				// A call that fails too, but by itself, has told its caller what it saw.
				p.Torn = p.Torn || !s.path.Under(paths[at])
			}
		}
		clear(h.writes[len(kept):])
		h.writes = kept
		for j := range h.sights {
			h.sights[j].writes -= gone[j]
		}
	}
}

// Coordinator is the partition that knows what becomes of the try, of so many.
func (p *Participant) Coordinator(partitions uint32) uint32 {
	if p.Decider != nil {
		return p.Decider.Partition
	}
	return p.ID.Root.Partition(partitions)
}

// Size is how much there is to write: its bytes, and the number of writes.
func (p *Participant) Size() (bytes, writes int) {
	for _, h := range p.Holds {
		more, moreWrites := SizeOf(h.Entries())
		bytes, writes = bytes+more, writes+moreWrites
	}
	return bytes, writes
}

// SizeOf is the bytes of entries, and their number.
func SizeOf(entries []*recordv1.Entry) (bytes, writes int) {
	for _, entry := range entries {
		bytes += proto.Size(entry)
	}
	return bytes, len(entries)
}

// Record is the promise as a row has it; name is that of its ID.
func (p *Participant) Record(name *recordv1.TransactionID) *recordv1.Prepared {
	var all struct { // One allocation for what most have.
		row  recordv1.Prepared
		age  recordv1.TransactionAge
		one  recordv1.PreparedObject
		list [1]*recordv1.PreparedObject
	}
	p.Age.Fill(&all.age)
	all.row.Id, all.row.Age, all.row.At, all.row.Objects, all.row.Decider = name, &all.age, p.Since, all.list[:0], p.Decider
	for i, h := range p.Holds {
		object := &all.one
		if i > 0 {
			object = &recordv1.PreparedObject{}
		}
		object.Target, object.Entries, object.Shared = h.Target, h.Entries(), h.Request.Shared
		all.row.Objects = append(all.row.Objects, object)
	}
	return &all.row
}

// Restore makes the participant that Record wrote down. Its keys must be acquired.
func Restore(row *recordv1.Prepared) (*Participant, bool) {
	id, ok := IDOf(row.GetId())
	p := NewParticipant(id, AgeOf(row.GetAge()), row.GetAt())
	p.Phase, p.Decider = Prepared, row.GetDecider()
	for _, object := range row.GetObjects() {
		if object.GetTarget() == nil {
			ok = false
			continue
		}
		h := p.Want(object.Target, object.Shared)
		h.Request.Prepared = true
		h.Write("", object.Entries)
	}
	return p, ok
}
