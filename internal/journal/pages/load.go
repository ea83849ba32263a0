package pages

import (
	"fmt"

	"google.golang.org/protobuf/proto"

	"github.com/perdure/perdure/internal/invocation"
	recordv1 "github.com/perdure/perdure/internal/record/v1"
	"github.com/perdure/perdure/internal/table"
)

// Beginning is what an attempt is started with: the first entries of a journal, all of them if it
// is short.
type Beginning struct {
	Input   []byte
	Entries []*recordv1.Entry
	// Completions are those of the entries up to Known.
	Completions map[uint32]*recordv1.Completion
	Known       uint32
	// Last is the index of the journal's last entry, and More says that it is not in Entries.
	Last uint32
	More bool
	// Receives, Writes and Runs: Entries have a Receive, a write to the object, a Run.
	Receives, Writes, Runs bool
}

// Writes reports whether an entry is a write to the object's state or tables.
func Writes(entry *recordv1.Entry) bool {
	return entry.GetSetState() != nil || entry.GetTablePut() != nil
}

// WritesOf is what a row says of its journal.
func WritesOf(some bool) recordv1.JournalWrites {
	if some {
		return recordv1.JournalWrites_JOURNAL_WRITES_SOME
	}
	return recordv1.JournalWrites_JOURNAL_WRITES_NONE
}

// shortEntries is up to how many entries a journal is read row by row: that costs less than scans,
// which begin in each file of the store, while most of the files can tell a key that they lack it.
const shortEntries = 4

// Load reads the beginning of a journal that follows the entry start, its request: at most so many
// entries. The entry known is there, if it is not 0.
func Load(rows Rows, id invocation.ID, start, known uint32, most int) (*Beginning, error) {
	if entries := max(known, start) - start; entries <= shortEntries && int(entries) <= most {
		if b, err := short(rows, id, start, start+entries); b != nil || err != nil {
			return b, err
		}
	}
	b := &Beginning{Last: start}
	budget, found := journalPageBytes, false
	var decodeErr error
	page := start + uint32(most)
	err := rows.Scan(table.Journal(id, start), table.Journal(id, page+2), func(key, value []byte) bool {
		index, err := table.ParseEntry(key)
		if err == nil && found && index != b.Last+1 {
			err = fmt.Errorf("entry %d follows entry %d", index, b.Last)
		}
		if b.More = index > page || budget <= 0 && index > start+1; b.More || err != nil {
			decodeErr = err
			return false
		}
		entry := &recordv1.Entry{}
		if decodeErr = proto.Unmarshal(value, entry); decodeErr != nil {
			return false
		}
		if index == start {
			found, b.Input = true, entry.GetInput().GetValue()
			return true
		}
		budget -= len(value)
		b.add(index, entry)
		return true
	})
	if err == nil {
		err = decodeErr
	}
	if err == nil && !found {
		err = fmt.Errorf("entry %d, the request, is missing", start)
	}
	last := b.Last
	if err == nil && b.More {
		b.Last, err = end(rows, id, max(last, known))
	}
	if err != nil {
		return nil, fmt.Errorf("journal of %s: %w", id, err)
	}
	return b, b.load(rows, id, start, last)
}

func (b *Beginning) add(index uint32, entry *recordv1.Entry) {
	b.Last = index
	b.Entries = append(b.Entries, entry)
	b.Receives, b.Writes, b.Runs = b.Receives || entry.GetReceive() != nil, b.Writes || Writes(entry), b.Runs || entry.GetRun() != nil
}

// short reads a journal that ends with the entry last, if nothing has been added since and it is
// not large. It returns nil if either is so.
func short(rows Rows, id invocation.ID, start, last uint32) (*Beginning, error) {
	b := &Beginning{Last: start, Known: last, Completions: map[uint32]*recordv1.Completion{}}
	size := 0
	read := func(key []byte, into proto.Message) (bool, error) {
		value, ok, err := rows.Get(key)
		if err == nil && ok {
			size += len(value)
			err = proto.Unmarshal(value, into)
		}
		return ok, err
	}
	if _, more, err := rows.Get(table.Journal(id, last+1)); more || err != nil {
		return nil, err
	}
	for index := start; index <= last; index++ {
		entry := &recordv1.Entry{}
		ok, err := read(table.Journal(id, index), entry)
		switch {
		case err == nil && !ok && index == start:
			err = fmt.Errorf("entry %d, the request, is missing", start)
		case err == nil && !ok:
			err = fmt.Errorf("entry %d is missing", index)
		}
		if err != nil {
			return nil, fmt.Errorf("journal of %s: %w", id, err)
		}
		if index == start {
			b.Input, size = entry.GetInput().GetValue(), 0
			continue
		}
		b.add(index, entry)
		if Writes(entry) || entry.GetVersion() != nil {
			continue // these never complete
		}
		completion := &recordv1.Completion{}
		if ok, err = read(table.Completion(id, index), completion); err != nil {
			return nil, fmt.Errorf("completions of %s: %w", id, err)
		}
		if ok {
			b.Completions[index] = completion
		}
	}
	if size > journalPageBytes {
		return nil, nil // it is read in pages
	}
	return b, nil
}

func (b *Beginning) load(rows Rows, id invocation.ID, first, last uint32) error {
	b.Completions, b.Known = map[uint32]*recordv1.Completion{}, last
	budget := journalPageBytes
	var decodeErr error
	err := rows.Scan(table.Completion(id, first+1), table.Completion(id, last+1), func(key, value []byte) bool {
		if budget <= 0 {
			var index uint32
			if index, decodeErr = table.ParseEntry(key); decodeErr == nil {
				b.Known = index - 1
			}
			return false
		}
		budget -= len(value)
		c := &recordv1.Completion{}
		if decodeErr = proto.Unmarshal(value, c); decodeErr == nil {
			b.Completions[c.Entry] = c
		}
		return decodeErr == nil
	})
	if err == nil {
		err = decodeErr
	}
	if err != nil {
		return fmt.Errorf("completions of %s: %w", id, err)
	}
	return nil
}

// end finds the last entry of a journal, of which one is known. Entries have no gaps, so it takes
// a few reads however long the journal is.
func end(rows Rows, id invocation.ID, known uint32) (uint32, error) {
	has := func(index uint32) (bool, error) {
		_, ok, err := rows.Get(table.Journal(id, index))
		return ok, err
	}
	least, step := known, uint32(1)
	for {
		ok, err := has(least + step)
		if err != nil {
			return 0, err
		}
		if !ok {
			break
		}
		least += step
		step *= 2
	}
	most := least + step // which is not there
	for most-least > 1 {
		middle := least + (most-least)/2
		ok, err := has(middle)
		if err != nil {
			return 0, err
		}
		if ok {
			least = middle
		} else {
			most = middle
		}
	}
	return least, nil
}
