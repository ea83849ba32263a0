package journal

import (
	"crypto/sha256"
	"fmt"

	recordv1 "github.com/perdure/perdure/internal/record/v1"
)

// Completes reports whether an entry has its result later, as a Completion under its index. Of a
// kind that this version does not know it is taken to have one.
func Completes(entry *recordv1.Entry) bool {
	switch entry.GetEntry().(type) {
	case *recordv1.Entry_Input, *recordv1.Entry_Send, *recordv1.Entry_SetState, *recordv1.Entry_TablePut, *recordv1.Entry_CompletePromise,
		*recordv1.Entry_CompleteAwakeable, *recordv1.Entry_Wait, *recordv1.Entry_CancelInvocation, *recordv1.Entry_Version, *recordv1.Entry_StopTimer:
		return false
	}
	return true
}

// Keep says why an entry cannot be in the journal that another invocation begins with; nil if it
// can. has: it has its result.
func Keep(index uint32, entry *recordv1.Entry, has bool) error {
	switch wait := entry.GetWait(); {
	case entry.GetSleep() != nil: // Its timer is set again.
	case Completes(entry) && !has:
		return fmt.Errorf("entry %d (%s) has no result, which a replay would need: keep the entries before it, up to %d", index, Brief(entry), index-1)
	case wait.GetOutcome() == recordv1.WaitOutcome_WAIT_OUTCOME_CANCELLED || wait.GetCancelHeard():
		return fmt.Errorf("with entry %d its handler heard that it was cancelled, and would again: keep the entries before it, up to %d", index, index-1)
	}
	return nil
}

// Write is what becomes of the object's state, or of a row of its tables, if an invocation goes
// back to an entry of its journal.
type Write struct {
	// Table and Key are those of a row; Table is empty for the state.
	Table, Key string
	// left is the hash of the value that the journal left behind: values of all rows together may be
	// more than memory holds.
	left    [sha256.Size]byte
	hasLeft bool
	// Then is the value after the entry.
	Then    []byte
	HasThen bool
}

// Rewind finds what a journal has written, as it was after its entry from. It holds a value of each
// row that was written, and no entry.
type Rewind struct {
	from   uint32
	writes []Write
	known  map[rowName]int
	bytes  int
}

type rowName struct{ table, key string }

// NewRewind begins a Rewind: give it all entries of the journal, in order.
func NewRewind(from uint32) *Rewind { return &Rewind{from: from, known: map[rowName]int{}} }

// Note takes in an entry.
func (r *Rewind) Note(index uint32, entry *recordv1.Entry) {
	if set := entry.GetSetState(); set != nil {
		r.note(rowName{}, index, set.GetValue(), !set.GetClear(), set.GetPrevious(), set.GetHadPrevious())
	}
	if put := entry.GetTablePut(); put != nil {
		r.note(rowName{put.GetTable(), put.GetKey()}, index, put.GetValue(), !put.GetDelete(), put.GetPrevious(), put.GetHadPrevious())
	}
}

func (r *Rewind) note(of rowName, index uint32, value []byte, has bool, previous []byte, hadPrevious bool) {
	at, ok := r.known[of]
	if !ok {
		at = len(r.writes)
		r.known[of] = at
		r.writes = append(r.writes, Write{Table: of.table, Key: of.key, Then: previous, HasThen: hadPrevious})
		r.bytes += len(of.table) + len(of.key) + len(previous)
	}
	w := &r.writes[at]
	w.left, w.hasLeft = sha256.Sum256(value), has
	if index <= r.from {
		r.bytes += len(value) - len(w.Then)
		w.Then, w.HasThen = value, has
	}
}

// Writes is what it comes to, in the order of the first writes.
func (r *Rewind) Writes() []Write { return r.writes }

// Size is how many Writes there are, and the bytes of all Then with the names of their rows.
func (r *Rewind) Size() (writes, bytes int) { return len(r.writes), r.bytes }

// IsLeft reports whether a value is what the journal left behind.
func (w Write) IsLeft(value []byte, has bool) bool {
	return has == w.hasLeft && (!has || sha256.Sum256(value) == w.left)
}
