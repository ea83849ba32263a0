package pages

import (
	"fmt"
	"math"

	"google.golang.org/protobuf/proto"

	"github.com/perdure/perdure/internal/invocation"
	"github.com/perdure/perdure/internal/journal"
	recordv1 "github.com/perdure/perdure/internal/record/v1"
	"github.com/perdure/perdure/internal/table"
)

// Kept is what a new invocation has of the journal of another.
type Kept struct {
	// Start is the index of the request: the entry Start+i+1 is Entries[i].
	Start       uint32
	Entries     []*recordv1.Entry
	Completions map[uint32]*recordv1.Completion
	// Bytes of all of these.
	Bytes int
}

// KeepError says why entries can't be kept, or what they have written not be taken back.
type KeepError struct {
	// TooMany: they have more bytes, or are more, than was allowed.
	TooMany bool
	text    string
}

// Error implements error.
func (e *KeepError) Error() string { return e.text }

// Keep reads the entries of a journal up to from, and their completions: so many bytes and entries at
// most. It reads no more of the journal than that. Any error but a *KeepError is of the data.
func Keep(rows Rows, id invocation.ID, start, from uint32, mostBytes, mostEntries int) (*Kept, error) {
	kept, fits := &Kept{Start: start}, true
	if from > start {
		err := walk(rows, id, start+1, upTo(from), func(_ uint32, entry *recordv1.Entry, bytes int) bool {
			kept.Bytes += bytes
			kept.Entries = append(kept.Entries, entry)
			fits = kept.Bytes <= mostBytes && len(kept.Entries) <= mostEntries
			return fits
		})
		if err == nil && fits {
			kept.Completions, fits, err = completions(rows, id, start+1, upTo(from), mostBytes-kept.Bytes)
		}
		if err != nil {
			return nil, err
		}
	}
	if !fits {
		return nil, &KeepError{TooMany: true, text: "too many"}
	}
	if err := journal.Keep(start, kept.Entries, kept.Completions, from); err != nil {
		return nil, &KeepError{text: err.Error()}
	}
	for _, c := range kept.Completions {
		kept.Bytes += proto.Size(c)
	}
	return kept, nil
}

// What Rewind reads of the entries behind those that are kept. That takes some 40 ms.
const (
	maxRewoundEntries = 10_000
	maxRewoundBytes   = 16 << 20
)

// Rewind is what becomes of what the journal has written if it goes back to the entries that are
// kept, and the bytes of it. It fails with a *KeepError if there are too many entries behind those.
func (k *Kept) Rewind(rows Rows, id invocation.ID) (writes []journal.Write, bytes int, err error) {
	from := k.Start + uint32(len(k.Entries))
	r := journal.NewRewind(from)
	for i, entry := range k.Entries {
		r.Note(k.Start+uint32(i)+1, entry)
	}
	looked := 0
	err = walk(rows, id, upTo(from), math.MaxUint32, func(index uint32, entry *recordv1.Entry, size int) bool {
		looked++
		bytes += size
		r.Note(index, entry)
		return looked <= maxRewoundEntries && bytes <= maxRewoundBytes
	})
	if err != nil {
		return nil, 0, err
	}
	if looked > maxRewoundEntries || bytes > maxRewoundBytes {
		return nil, 0, &KeepError{TooMany: true, text: fmt.Sprintf("more than the %d entries or %d bytes that are looked at for it", maxRewoundEntries, maxRewoundBytes)}
	}
	writes, bytes = r.Writes()
	return writes, bytes, nil
}

// upTo is the end of a range of entries that has the entry last.
func upTo(last uint32) uint32 { return uint32(min(uint64(last)+1, math.MaxUint32)) }

// walk calls fn with the entries lower ≤ index < upper of a journal, in order, and the size of their rows,
// until fn returns false.
func walk(rows Rows, id invocation.ID, lower, upper uint32, fn func(index uint32, entry *recordv1.Entry, bytes int) bool) error {
	next := lower
	var decodeErr error
	err := rows.Scan(table.Journal(id, lower), table.Journal(id, upper), func(key, value []byte) bool {
		entry := &recordv1.Entry{}
		var index uint32
		if index, decodeErr = table.ParseEntry(key); decodeErr == nil {
			decodeErr = proto.Unmarshal(value, entry)
		}
		if decodeErr == nil && index != next {
			decodeErr = fmt.Errorf("entry %d is missing, entry %d follows", next, index)
		}
		next++
		return decodeErr == nil && fn(index, entry, len(value))
	})
	if err == nil {
		err = decodeErr
	}
	if err != nil {
		return fmt.Errorf("journal of %s: %w", id, err)
	}
	return nil
}

// completions are those of the entries lower ≤ index < upper, without values in parts, as far as they
// have so many bytes in all. If there are more than that, all is false.
func completions(rows Rows, id invocation.ID, lower, upper uint32, most int) (found map[uint32]*recordv1.Completion, all bool, err error) {
	found, all = map[uint32]*recordv1.Completion{}, true
	var decodeErr error
	err = rows.Scan(table.Completion(id, lower), table.Completion(id, upper), func(_, value []byte) bool {
		if most -= len(value); most < 0 {
			all = false
			return false
		}
		c := &recordv1.Completion{}
		if decodeErr = proto.Unmarshal(value, c); decodeErr == nil {
			found[c.Entry] = c
		}
		return decodeErr == nil
	})
	if err == nil {
		err = decodeErr
	}
	if err != nil {
		return nil, false, fmt.Errorf("completions of %s: %w", id, err)
	}
	return found, all, nil
}
