package renew

import (
	"fmt"

	"google.golang.org/protobuf/proto"

	"github.com/perdure/perdure/internal/draft"
	"github.com/perdure/perdure/internal/invocation"
	"github.com/perdure/perdure/internal/journal"
	recordv1 "github.com/perdure/perdure/internal/record/v1"
	"github.com/perdure/perdure/internal/table"
)

// sliceRows is how many rows a slice has at most, however small they are.
const sliceRows = 1000

// slice is what of a journal is copied by one event.
type slice struct {
	draft *draft.Draft
	to    invocation.ID
	at    table.Copy
	bytes int // left
	rows  int // left
	// timers of sleeps that are not over.
	timers []table.Timer
}

// Slice copies entries of a journal, with their results, to the invocation to, from where at stands:
// about so many bytes, and a row more at most. It returns where it stands then, and the timers of
// sleeps that are not over, which are to be armed. After an error nothing that the draft holds may
// be written.
//
// Rows go in the order of entries, the parts of a value before its completion, and before them a row
// of tries that says how many there may be, as when they were recorded: whatever removes the
// journal of an invocation finds all there is.
func Slice(d *draft.Draft, to invocation.ID, at table.Copy, bytes int) (table.Copy, []table.Timer, error) {
	s := &slice{draft: d, to: to, at: at, bytes: bytes, rows: sliceRows}
	for s.room() && !s.at.Done() {
		if err := s.entry(); err != nil {
			return at, nil, fmt.Errorf("journal of %s: %w", at.Source, err)
		}
	}
	return s.at, s.timers, nil
}

func (s *slice) room() bool { return s.bytes > 0 && s.rows > 0 }

func (s *slice) put(key, value []byte) {
	s.draft.Put(key, value)
	s.bytes -= len(key) + len(value)
	s.rows--
}

// entry copies the next entry, or what there is room for of the parts of its value.
func (s *slice) entry() error {
	from, index := s.at.Source, s.at.Next
	encoded, ok, err := s.draft.Get(table.Journal(from, index))
	switch {
	case err != nil:
		return err
	case !ok:
		return fmt.Errorf("entry %d is missing", index)
	}
	entry := &recordv1.Entry{}
	if err := proto.Unmarshal(encoded, entry); err != nil {
		return fmt.Errorf("entry %d: %w", index, err)
	}
	completion, has, err := s.draft.Get(table.Completion(from, index))
	if err != nil {
		return err
	}
	if err := journal.Keep(index, entry, has); err != nil {
		return err
	}
	parts, err := journal.PartsIn(completion)
	if err != nil {
		return fmt.Errorf("completion of entry %d: %w", index, err)
	}
	if all, err := s.parts(parts); !all || err != nil {
		return err
	}
	s.put(table.Journal(s.to, index), encoded)
	if has {
		s.put(table.Completion(s.to, index), completion)
	} else if sleep := entry.GetSleep(); sleep != nil {
		s.timers = append(s.timers, table.Timer{At: sleep.GetUntil(), Kind: table.TimerSleep, ID: s.to, Entry: index})
	}
	s.at.Next, s.at.Part = index+1, 0
	return nil
}

// parts copies those of a value, and reports whether it got to the last.
func (s *slice) parts(count uint32) (all bool, err error) {
	if count == 0 {
		return true, nil
	}
	index := s.at.Next
	tries := table.Tries(s.to, index)
	if s.at.Part == 0 {
		if err := s.draft.PutMessage(tries, &recordv1.RunTries{Parts: count}); err != nil {
			return false, err
		}
	}
	for ; s.at.Part < count; s.at.Part++ {
		if !s.room() {
			return false, nil
		}
		part, ok, err := s.draft.Get(table.Part(s.at.Source, index, s.at.Part))
		if err == nil && !ok {
			err = fmt.Errorf("part %d of %d of the result of entry %d is missing", s.at.Part, count, index)
		}
		if err != nil {
			return false, err
		}
		s.put(table.Part(s.to, index, s.at.Part), part)
	}
	s.draft.Delete(tries)
	return true, nil
}
