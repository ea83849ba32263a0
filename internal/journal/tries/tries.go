// Package tries keeps what there is of the Run entries of an invocation until they complete: how often their closures
// have failed, and the parts of a value that is larger than a record. It is pure.
package tries

import (
	"fmt"

	"google.golang.org/protobuf/proto"

	"github.com/perdure/perdure/internal/draft"
	"github.com/perdure/perdure/internal/invocation"
	recordv1 "github.com/perdure/perdure/internal/record/v1"
	"github.com/perdure/perdure/internal/table"
)

// settledParts is how many parts that an earlier attempt has left one event removes.
const settledParts = 1000

// Open are the Run entries of one invocation that have a row of their tries, each with the number of
// parts that there may be of its value. What fails leaves it as it was. nil has none.
type Open map[uint32]uint32

// Load reads how often Runs of a journal have failed that have no result yet.
func Load(rows *draft.Draft, id invocation.ID) (open Open, all map[uint32]*recordv1.RunTries, err error) {
	var decodeErr error
	lower, upper := table.TriesOf(id)
	err = rows.Scan(lower, upper, func(key, value []byte) bool {
		tries := &recordv1.RunTries{}
		index, err := table.ParseEntry(key)
		if err == nil {
			err = proto.Unmarshal(value, tries)
		}
		if err != nil {
			decodeErr = fmt.Errorf("decode row %q: %w", key, err)
			return false
		}
		if all == nil {
			all, open = map[uint32]*recordv1.RunTries{}, Open{}
		}
		all[index], open[index] = tries, tries.Parts
		return true
	})
	if err == nil {
		err = decodeErr
	}
	return open, all, err
}

// Failed keeps that the closure of an entry has failed, and will be tried again.
func (o *Open) Failed(rows *draft.Draft, id invocation.ID, index uint32, tries *recordv1.RunTries) error {
	if parts := (*o)[index]; parts > 0 { // of an attempt that got as far as a value
		tries = proto.CloneOf(tries) // The attempt reads it.
		tries.Parts = parts
	}
	return o.put(rows, id, index, tries)
}

// Part keeps a part of what the closure of an entry returned, over that of an earlier attempt. The row of
// the entry's tries says how many there may be, so that none is left when the entry completes or goes.
func (o *Open) Part(rows *draft.Draft, id invocation.ID, index, number uint32, value []byte) error {
	if parts, known := (*o)[index]; number >= parts {
		tries := &recordv1.RunTries{}
		if known {
			if _, err := rows.GetMessage(table.Tries(id, index), tries); err != nil {
				return err
			}
		}
		tries.Parts = number + 1
		if err := o.put(rows, id, index, tries); err != nil {
			return err
		}
	}
	rows.Put(table.Part(id, index, number), value)
	return nil
}

func (o *Open) put(rows *draft.Draft, id invocation.ID, index uint32, tries *recordv1.RunTries) error {
	if err := rows.PutMessage(table.Tries(id, index), tries); err != nil {
		return err
	}
	if *o == nil {
		*o = Open{}
	}
	(*o)[index] = tries.Parts
	return nil
}

// Settle removes what was kept of an entry that completes with so many parts, and the parts that an
// earlier attempt wrote and this one did not. If those are more than an event should remove, they stay
// with the row that counts them, and go when the entry does. An error says that parts are missing; open,
// that there was anything.
func (o Open) Settle(rows *draft.Draft, id invocation.ID, index, parts uint32) (open bool, err error) {
	written, open := o[index]
	if parts > written {
		return open, fmt.Errorf("invocation %s: the result of entry %d is in %d parts, of which %d came", id, index, parts, written)
	}
	if !open {
		return false, nil
	}
	delete(o, index)
	if written > parts+settledParts {
		return true, nil
	}
	rows.Delete(table.Tries(id, index))
	for number := parts; number < written; number++ {
		rows.Delete(table.Part(id, index, number))
	}
	return true, nil
}
