package journal

import (
	"bytes"
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

// Keep says why the first entries of a journal, up to from, cannot begin the journal of another
// invocation; nil if they can. The first entry has the index start+1.
func Keep(start uint32, journal []*recordv1.Entry, completions map[uint32]*recordv1.Completion, from uint32) error {
	switch last := start + uint32(len(journal)); {
	case from == 0:
		return nil
	case from <= start:
		return fmt.Errorf("entry %d is of a run before it continued as new: its journal begins after entry %d", from, start)
	case from > last:
		return fmt.Errorf("entry %d is behind the end of its journal, which is %d", from, last)
	}
	for i, entry := range journal[:from-start] {
		index := start + uint32(i) + 1
		switch wait := entry.GetWait(); {
		case entry.GetSleep() != nil: // Its timer is set again.
		case Completes(entry) && completions[index] == nil:
			return fmt.Errorf("entry %d (%s) has no result, which a replay would need: keep the entries before it, up to %d", index, Describe(entry), index-1)
		case completions[index].GetParts() != nil:
			return fmt.Errorf("entry %d (%s) has a result of %d bytes, which is larger than a record and is not copied: keep the entries before it, up to %d",
				index, Describe(entry), completions[index].GetParts().GetBytes(), index-1)
		case wait.GetOutcome() == recordv1.WaitOutcome_WAIT_OUTCOME_CANCELLED || wait.GetCancelHeard():
			return fmt.Errorf("with entry %d its handler heard that it was cancelled, and would again: keep the entries before it, up to %d", index, index-1)
		}
	}
	return nil
}

// Write is what becomes of the object's state, or of a row of its tables, if an invocation goes
// back to an entry of its journal.
type Write struct {
	// Table and Key are those of a row; Table is empty for the state.
	Table, Key string
	// Left is the value that the journal left behind.
	Left    []byte
	HasLeft bool
	// Then is the value after the entry.
	Then    []byte
	HasThen bool
}

// Rewind finds what a journal has written, as it was after its entry from. It holds a value or two of
// each row that was written, and no entry.
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
	w.Left, w.HasLeft = value, has
	if index <= r.from {
		r.bytes += len(value) - len(w.Then)
		w.Then, w.HasThen = value, has
	}
}

// Writes is what it comes to, in the order of the first writes, and the bytes of all Then with the
// names of their rows.
func (r *Rewind) Writes() (writes []Write, bytes int) { return r.writes, r.bytes }

// IsLeft reports whether a value is what the journal left behind.
func (w Write) IsLeft(value []byte, has bool) bool {
	return has == w.HasLeft && (!has || bytes.Equal(value, w.Left))
}
