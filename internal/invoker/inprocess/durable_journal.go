package inprocess

import (
	"maps"
	"runtime"
	"slices"

	"github.com/perdure/perdure/actor"
	"github.com/perdure/perdure/internal/invoker"
	"github.com/perdure/perdure/internal/journal"
	recordv1 "github.com/perdure/perdure/internal/record/v1"
	"github.com/perdure/perdure/internal/stress"
)

// maxHeldBytes is about how much of its completions an attempt keeps in memory; it reads the others
// again when the handler asks for them. Those that one wait is for are kept all the same.
var maxHeldBytes = stress.Few[int64](2<<20, 1<<10)

// heldBytes is about what a completion takes.
func heldBytes(completion *recordv1.Completion) int64 {
	const head = 200
	return int64(head + len(completion.GetResult().GetValue()))
}

// beginJournal sets the attempt to the start of its journal. It must not block.
func (d *durable) beginJournal() {
	attempt := d.attempt
	last := attempt.Start + uint32(len(attempt.Journal))
	if attempt.Entries > last {
		d.cursor = journal.Streamed(attempt.Start, attempt.Journal, attempt.Entries, d.page)
	} else {
		d.cursor = journal.CursorFrom(attempt.Start, attempt.Journal)
	}
	d.mu.completions = maps.Clone(attempt.Completions)
	for _, completion := range attempt.Completions {
		d.held.Add(heldBytes(completion))
	}
	if attempt.Known > attempt.Start {
		d.unknownLocked(attempt.Known, last)
	}
}

// lookAhead finds the first writes in the part of the journal that the attempt was not started
// with.
func (d *durable) lookAhead() {
	if !d.attempt.LookAhead {
		return
	}
	for index := d.attempt.Start + uint32(len(d.attempt.Journal)) + 1; index <= d.attempt.Entries; {
		d.unwindIfStopped()
		entries, err := d.journal().Entries(index)
		if err != nil {
			d.unread(err)
		}
		d.data.look(entries)
		index += uint32(len(entries))
	}
}

func (d *durable) journal() invoker.Journal {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.mu.journal == nil {
		d.mu.journal = d.attempt.Host.Journal(d.attempt)
	}
	return d.mu.journal
}

// page reads the entries from index on, and their completions, as the replay comes to them.
func (d *durable) page(index uint32) []*recordv1.Entry {
	d.steps.Add(1) // Reading is progress.
	d.unwindIfStopped()
	entries, err := d.journal().Entries(index)
	if err != nil {
		d.unread(err)
	}
	last := index + uint32(len(entries)) - 1
	completions, known, err := d.journal().Completions(index, last)
	if err != nil {
		d.unread(err)
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	for at, completion := range completions {
		d.completeLocked(at, completion)
	}
	d.unknownLocked(known, last)
	return entries
}

// unknownLocked notes that the completions of the entries after known were not read.
func (d *durable) unknownLocked(known, last uint32) {
	for index := known + 1; index <= last; index++ {
		if d.mu.completions[index] == nil {
			d.mu.away.add(index - d.attempt.Start)
		}
	}
}

// unread ends the attempt because its journal can't be read. If it was stopped, that is why: the
// journal may be gone.
func (d *durable) unread(err error) {
	d.unwindIfStopped()
	d.Fail(actor.Errorf(actor.DataLoss, "%w", err))
}

// completion is how an entry completed, nil if it has not. A value in parts is not in it.
func (d *durable) completion(index uint32) *recordv1.Completion {
	d.mu.Lock()
	completion, away := d.mu.completions[index], d.mu.away.has(index-d.attempt.Start)
	d.mu.Unlock()
	if completion != nil || !away {
		return completion
	}
	completion, err := d.journal().Completion(index)
	if err != nil {
		d.unread(err)
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.mu.away.remove(index - d.attempt.Start) // One that comes later is told.
	if completion != nil {
		d.completeLocked(index, completion)
	}
	return d.mu.completions[index]
}

// recall reads again the completions of entries that are waited for, so that all that are there
// are in mu.completions. They stay until the handler's next step.
func (d *durable) recall(indexes []uint32) {
	for _, index := range indexes {
		d.completion(index)
	}
}

// shed forgets old completions once there are many.
func (d *durable) shed() {
	if d.held.Load() < maxHeldBytes {
		return
	}
	d.mu.Lock()
	old, own := slices.Sorted(maps.Keys(d.mu.completions)), d.mu.own
	d.mu.Unlock()
	// A result of this attempt is read where its record is: only what was taken there can be
	// read again.
	if own && !d.gate() {
		runtime.Goexit()
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	for index, value := range d.mu.large {
		d.held.Add(-int64(len(value)))
		delete(d.mu.large, index)
	}
	for _, index := range old {
		if d.held.Load() < maxHeldBytes/2 {
			break
		}
		d.held.Add(-heldBytes(d.mu.completions[index]))
		delete(d.mu.completions, index)
		d.mu.away.add(index - d.attempt.Start)
	}
}

// bits is a set of small numbers, which costs nothing while they are below 64.
type bits struct {
	first uint64
	rest  []uint64
}

func (b *bits) has(n uint32) bool {
	if n < 64 {
		return b.first&(1<<n) != 0
	}
	at := int(n/64) - 1
	return at < len(b.rest) && b.rest[at]&(1<<(n%64)) != 0
}

func (b *bits) add(n uint32) {
	if n < 64 {
		b.first |= 1 << n
		return
	}
	at := int(n/64) - 1
	if at >= len(b.rest) {
		b.rest = append(b.rest, make([]uint64, at+1-len(b.rest))...)
	}
	b.rest[at] |= 1 << (n % 64)
}

func (b *bits) remove(n uint32) {
	if n < 64 {
		b.first &^= 1 << n
	} else if at := int(n/64) - 1; at < len(b.rest) {
		b.rest[at] &^= 1 << (n % 64)
	}
}
