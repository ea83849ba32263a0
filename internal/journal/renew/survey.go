// Package renew is what a restart that keeps entries needs of journals: it looks whether a journal
// has what another invocation can begin with, finds what is to be taken back of what its handler
// wrote, and copies entries and their results, values in parts too, a slice at a time.
package renew

import (
	"fmt"
	"math"

	"google.golang.org/protobuf/proto"

	"github.com/perdure/perdure/internal/draft"
	"github.com/perdure/perdure/internal/invocation"
	"github.com/perdure/perdure/internal/journal"
	recordv1 "github.com/perdure/perdure/internal/record/v1"
	"github.com/perdure/perdure/internal/table"
)

// Bounds are what fits a record.
type Bounds struct {
	// Bytes of a row, or of all that is taken back together with the request.
	Bytes int
	// Writes are rows that are taken back, twice over: a row of a table is written with its count.
	Writes int
}

// Survey is what was found in the journal of an invocation that has ended. Such a journal does not
// change before it is purged, so the survey may be made beside the goroutine that owns the rows.
type Survey struct {
	// CreatedAt and CompletedAt tell the invocation from another one of the same id.
	CreatedAt, CompletedAt int64
	// Refused says why the entries can't be kept; nil if they can. Any but a *Refusal is of damaged data.
	Refused error
	// Writes are to be taken back.
	Writes []journal.Write
}

// Refusal says why a restart can't keep the entries that it was to.
type Refusal struct {
	// TooLarge: something does not fit a record.
	TooLarge bool
	text     string
}

// Error implements error.
func (r *Refusal) Error() string { return r.text }

// window is how many entries are looked at in one scan.
const window = 512

// slack is how often what is to be taken back may be more than a record, while it is looked for: what
// the handler wrote later may be smaller.
const slack = 16

type surveyor struct {
	rows      draft.View
	id        invocation.ID
	from      uint32
	most      Bounds
	rewind    *journal.Rewind
	completed [window]bool
}

// Of looks at the journal of an invocation of which the entries up to from are to be kept. It reads
// all of them and, if the handler has written anything, those behind them, and holds one of them
// at a time. From time to time it asks whether to go on, and fails with what that says. If the
// invocation is not there, or has not ended, the survey is empty.
func Of(rows draft.View, id invocation.ID, from uint32, most Bounds, proceed func() error) (*Survey, error) {
	survey, row := &Survey{}, &recordv1.Invocation{}
	found, err := read(rows, table.Invocation(id), row)
	if err != nil {
		survey.Refused = fmt.Errorf("invocation %s: %w", id, err)
	}
	if err != nil || !found || row.GetStatus() < recordv1.Status_STATUS_SUCCEEDED {
		return survey, nil
	}
	survey.CreatedAt, survey.CompletedAt = row.GetCreatedAt(), row.GetCompletedAt()
	s := &surveyor{rows: rows, id: id, from: from, most: most}
	start := row.GetJournalStart()
	if from <= start {
		survey.Refused = &Refusal{text: fmt.Sprintf("entry %d is of a run before it continued as new: its journal begins after entry %d", from, start)}
		return survey, nil
	}
	if row.GetJournalWrites() != recordv1.JournalWrites_JOURNAL_WRITES_NONE {
		s.rewind = journal.NewRewind(from)
	}
	var stopped error
	survey.Writes, survey.Refused = s.look(start, func() bool {
		stopped = proceed()
		return stopped == nil
	})
	return survey, stopped
}

func read(rows draft.View, key []byte, into proto.Message) (bool, error) {
	value, ok, err := rows.Get(key)
	if err == nil && ok {
		err = proto.Unmarshal(value, into)
	}
	return ok, err
}

func (s *surveyor) look(start uint32, proceed func() bool) (writes []journal.Write, refused error) {
	request := &recordv1.Entry{}
	if _, err := read(s.rows, table.Journal(s.id, start), request); err != nil {
		return nil, fmt.Errorf("journal of %s: %w", s.id, err)
	}
	next := start + 1
	for next <= s.from || s.rewind != nil {
		if !proceed() {
			return nil, nil
		}
		found, err := s.window(next)
		if err != nil {
			return nil, err
		}
		if next += found; found == window || next > s.from && s.rewind == nil {
			continue
		}
		err = s.scan(table.Journal, next, math.MaxUint32-1, func(index uint32, _ []byte) error { return s.missing(next, index) })
		if err != nil {
			return nil, err
		}
		break
	}
	if next <= s.from {
		return nil, &Refusal{text: fmt.Sprintf("entry %d is behind the end of its journal, which is %d", s.from, next-1)}
	}
	if s.rewind == nil {
		return nil, nil
	}
	return s.rewind.Writes(), s.fits(len(request.GetInput().GetValue()), 1)
}

// window looks at the entries from first on, and says how many it found: fewer than a window at the
// end of the journal.
func (s *surveyor) window(first uint32) (found uint32, err error) {
	if first <= s.from {
		s.completed = [window]bool{}
		err := s.scan(table.Completion, first, min(s.from, last(first)), func(index uint32, value []byte) error {
			s.completed[index-first] = true
			return s.row(index, "its result", value)
		})
		if err != nil {
			return 0, err
		}
	}
	end := last(first)
	if s.rewind == nil {
		end = min(end, s.from)
	}
	err = s.scan(table.Journal, first, end, func(index uint32, value []byte) error {
		if index != first+found {
			return s.missing(first+found, index)
		}
		found++
		entry := &recordv1.Entry{}
		if err := proto.Unmarshal(value, entry); err != nil {
			return fmt.Errorf("journal of %s: entry %d: %w", s.id, index, err)
		}
		if index <= s.from {
			if err := journal.Keep(index, entry, s.completed[index-first]); err != nil {
				return &Refusal{text: err.Error()}
			}
			if err := s.row(index, journal.Brief(entry), value); err != nil {
				return err
			}
		}
		if s.rewind == nil {
			return nil
		}
		s.rewind.Note(index, entry)
		return s.fits(0, slack)
	})
	return found, err
}

func (s *surveyor) missing(index, next uint32) error {
	return fmt.Errorf("journal of %s: entry %d is missing, entry %d follows", s.id, index, next)
}

// last is the last entry of a window.
func last(first uint32) uint32 { return uint32(min(uint64(first)+window, math.MaxUint32)) - 1 }

// row refuses what was written when a record could be larger.
func (s *surveyor) row(index uint32, what string, value []byte) error {
	if len(value) <= s.most.Bytes {
		return nil
	}
	return &Refusal{TooLarge: true, text: fmt.Sprintf("entry %d (%s) has %d bytes, more than the %d that fit a record of this node: keep the entries before it, up to %d, or give the node the memory that it had", index, what, len(value), s.most.Bytes, index-1)}
}

// fits refuses what can't be taken back in one record, or times as much.
func (s *surveyor) fits(request, times int) error {
	rows, bytes := s.rewind.Size()
	if bytes += request; bytes <= times*s.most.Bytes && 2*rows <= times*s.most.Writes {
		return nil
	}
	return &Refusal{TooLarge: true, text: fmt.Sprintf("what it wrote to its object is taken back at once, which are %d rows of %d bytes together with its request, more than the %d rows or %d bytes that fit a record: restart from the beginning",
		rows, bytes, s.most.Writes/2, s.most.Bytes)}
}

// scan calls fn for the rows of the entries first to last.
func (s *surveyor) scan(key func(invocation.ID, uint32) []byte, first, last uint32, fn func(index uint32, value []byte) error) error {
	var fnErr error
	err := s.rows.Scan(key(s.id, first), key(s.id, last+1), func(key, value []byte) bool {
		var index uint32
		if index, fnErr = table.ParseEntry(key); fnErr == nil {
			fnErr = fn(index, value)
		}
		return fnErr == nil
	})
	if fnErr != nil {
		return fnErr
	}
	return err
}

// Changed names what of an object is not as the journal has left it; "" if all is.
func Changed(rows draft.View, o invocation.Object, writes []journal.Write) (what string, err error) {
	for _, w := range writes {
		key, what := table.State(o), "its state"
		if w.Table != "" {
			key, what = table.Row(o, w.Table, w.Key), fmt.Sprintf("row %q of its table %s", w.Key, w.Table)
		}
		if value, has, err := rows.Get(key); err != nil || !w.IsLeft(value, has) {
			return what, err
		}
	}
	return "", nil
}
