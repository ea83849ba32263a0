// Package pages reads a journal part by part, so that an attempt at a handler with very many steps
// holds a few of them in memory at a time.
package pages

import (
	"errors"
	"fmt"

	"google.golang.org/protobuf/proto"

	"github.com/perdure/perdure/internal/invocation"
	"github.com/perdure/perdure/internal/journal"
	recordv1 "github.com/perdure/perdure/internal/record/v1"
	"github.com/perdure/perdure/internal/stress"
	"github.com/perdure/perdure/internal/table"
)

// journalPageBytes is about what a page of a journal takes; one row may be more.
const journalPageBytes = 256 << 10

var (
	// partsBytes is about what one read of a value in parts takes: fewer, and an attempt on another
	// node would spend its time on the way there and back.
	partsBytes = stress.Few(1<<20, 1)
	// A page looks at a window of entries, for a scan collects what is not in the store yet for
	// all of its range. It grows while entries are small.
	firstWindow = stress.Few[uint32](16, 1)
	maxWindow   = stress.Few[uint32](512, 3)
	// Begin is how many entries an attempt is started with; 0 is the engine's own default.
	Begin = stress.Few(0, 2)
)

// Journal reads an attempt's journal as it is now, durable or not: entries do not change once
// they are written, and nobody but the attempt adds any. It needs no snapshot for that. It is an
// invoker.Journal.
type Journal struct {
	rows Rows
	id   invocation.ID
	// end is the last entry that the attempt was started with.
	end uint32
	// damaged is told of rows that can't be read.
	damaged func(error)

	window, most uint32
}

// Rows is what a journal is read from.
type Rows interface {
	// Get returns the value of a key.
	Get(key []byte) (value []byte, ok bool, err error)
	// Scan calls fn for lower ≤ key < upper in ascending order until fn returns false.
	Scan(lower, upper []byte, fn func(key, value []byte) bool) error
}

// New reads the journal of id, which ends with the entry end. damaged is told of each error.
func New(rows Rows, id invocation.ID, end uint32, damaged func(error)) *Journal {
	return &Journal{rows: rows, id: id, end: end, damaged: damaged, window: firstWindow, most: maxWindow}
}

// Entries implements invoker.Journal.
func (j *Journal) Entries(index uint32) ([]*recordv1.Entry, error) {
	if index > j.end {
		return nil, fmt.Errorf("journal of %s: entry %d is after its end, %d", j.id, index, j.end)
	}
	var entries []*recordv1.Entry
	bytes := 0
	last := min(j.end, index+j.window-1)
	err := j.scan(table.Journal(j.id, index), table.Journal(j.id, last+1), func(at uint32, value []byte) error {
		if bytes > journalPageBytes {
			return errPageFull
		}
		bytes += len(value)
		if want := index + uint32(len(entries)); at != want {
			return fmt.Errorf("entry %d is missing, entry %d follows", want, at)
		}
		entry := &recordv1.Entry{}
		entries = append(entries, entry)
		return proto.Unmarshal(value, entry)
	})
	if err == nil && len(entries) == 0 {
		err = fmt.Errorf("entry %d is missing", index)
	}
	if err != nil {
		return nil, j.failed(fmt.Errorf("journal of %s: %w", j.id, err))
	}
	j.resize(bytes)
	return entries, nil
}

// Completions implements invoker.Journal.
func (j *Journal) Completions(first, last uint32) (completions map[uint32]*recordv1.Completion, known uint32, err error) {
	completions = map[uint32]*recordv1.Completion{}
	window, bytes := firstWindow, 0
	for known = first - 1; known < last; {
		until, cut := min(last, known+window), uint32(0)
		err := j.scan(table.Completion(j.id, known+1), table.Completion(j.id, until+1), func(at uint32, value []byte) error {
			if bytes > journalPageBytes {
				cut = at
				return errPageFull
			}
			bytes += len(value)
			completion := &recordv1.Completion{}
			completions[at] = completion
			return proto.Unmarshal(value, completion)
		})
		switch {
		case err != nil:
			return nil, 0, j.failed(fmt.Errorf("completions of %s: %w", j.id, err))
		case cut != 0:
			return completions, cut - 1, nil
		}
		known = until
		if bytes > journalPageBytes/8 {
			break
		}
		window = min(2*window, j.most)
	}
	return completions, known, nil
}

// Completion implements invoker.Journal.
func (j *Journal) Completion(index uint32) (*recordv1.Completion, error) {
	completion := &recordv1.Completion{}
	value, ok, err := j.rows.Get(table.Completion(j.id, index))
	if err == nil && ok {
		err = proto.Unmarshal(value, completion)
	}
	if err != nil {
		return nil, j.failed(fmt.Errorf("completion %d of %s: %w", index, j.id, err))
	}
	if !ok {
		return nil, nil
	}
	return completion, nil
}

// Parts implements invoker.Journal.
func (j *Journal) Parts(index, first uint32) ([][]byte, error) {
	var parts [][]byte
	for bytes := 0; bytes < partsBytes; {
		part, ok, err := j.rows.Get(table.Part(j.id, index, first+uint32(len(parts))))
		if err == nil && !ok && len(parts) == 0 {
			err = fmt.Errorf("part %d is missing", first)
		}
		if err != nil {
			return nil, j.failed(fmt.Errorf("completion %d of %s: %w", index, j.id, err))
		}
		if !ok {
			break
		}
		parts = append(parts, part)
		bytes += len(part)
	}
	return parts, nil
}

// Joined is a completion with its value, if that is in parts; another as it is.
func Joined(rows Rows, id invocation.ID, completion *recordv1.Completion) (*recordv1.Completion, error) {
	parts := completion.GetParts()
	if parts == nil {
		return completion, nil
	}
	value, err := journal.Join(parts, func(first uint32) ([][]byte, error) {
		part, ok, err := rows.Get(table.Part(id, completion.GetEntry(), first))
		if !ok {
			return nil, err
		}
		return [][]byte{part}, err
	})
	if err != nil {
		return nil, err
	}
	return &recordv1.Completion{Entry: completion.GetEntry(), Result: &recordv1.Result{Value: value}, At: completion.GetAt()}, nil
}

func (j *Journal) failed(err error) error {
	j.damaged(err)
	return err
}

var errPageFull = errors.New("the page is full")

// scan calls fn until it fails, with errPageFull if there is enough.
func (j *Journal) scan(lower, upper []byte, fn func(index uint32, value []byte) error) error {
	var fnErr error
	err := j.rows.Scan(lower, upper, func(key, value []byte) bool {
		var index uint32
		if index, fnErr = table.ParseEntry(key); fnErr == nil {
			fnErr = fn(index, value)
		}
		return fnErr == nil
	})
	if err == nil && !errors.Is(fnErr, errPageFull) {
		err = fnErr
	}
	return err
}

func (j *Journal) resize(bytes int) {
	switch {
	case bytes < journalPageBytes/4:
		j.window = min(2*j.window, j.most)
	case bytes > journalPageBytes:
		j.window = max(j.window/2, 1)
	}
}
