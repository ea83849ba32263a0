package nodelog

import (
	"errors"
	"fmt"
	"io"
)

// Entries returns a group's entries from lo up to, not including, hi: at least one, and as
// many more as stay within maxBytes, counted as stored (data plus about ten bytes each).
// Errors: ErrCompacted, ErrUnavailable, ErrClosed, and a *DamageError if the disk does not
// give back what was written. Data must not be changed.
func (l *Log) Entries(group uint32, lo, hi uint64, maxBytes uint64) ([]Entry, error) {
	plan, err := l.planRead(group, lo, hi, maxBytes)
	if err != nil || len(plan.entries) == 0 {
		return plan.entries, err
	}
	for start := 0; start < len(plan.stored); {
		end := plan.span(start)
		if err == nil {
			err = plan.read(group, start, end)
		}
		start = end
	}
	for _, s := range plan.segments {
		_ = s.release()
	}
	if err != nil {
		return nil, err
	}
	return plan.entries, nil
}

// readPlan is what a read takes out of the index under the lock.
type readPlan struct {
	lo uint64
	// entries are the result; the first len(stored) are still to be read.
	entries []Entry
	stored  []location
	// segments are referenced, by number, once each.
	segments map[uint32]*segment
}

func (l *Log) planRead(group uint32, lo, hi, maxBytes uint64) (readPlan, error) {
	l.mu.RLock()
	defer l.mu.RUnlock()
	if l.mu.closed {
		return readPlan{}, ErrClosed
	}
	if lo >= hi {
		return readPlan{}, nil
	}
	g := l.mu.groups[group]
	if g == nil || hi > g.last()+1 {
		return readPlan{}, fmt.Errorf("nodelog: group %d: entries %d to %d: %w", group, lo, hi-1, ErrUnavailable)
	}
	if lo < g.first() {
		return readPlan{}, fmt.Errorf("nodelog: group %d: entries %d to %d: %w", group, lo, hi-1, ErrCompacted)
	}
	locations := g.locations[lo-g.first() : hi-g.first()]
	n, size := 0, uint64(0)
	for _, loc := range locations {
		if size += uint64(loc.size); n > 0 && size > maxBytes {
			break
		}
		n++
	}
	plan := readPlan{lo: lo, entries: make([]Entry, n)}
	stored := 0
	if cached := g.cachedFirst(); cached > lo {
		stored = int(min(cached-lo, uint64(n)))
	}
	if stored < n {
		at := lo + uint64(stored) - g.cachedFirst()
		copy(plan.entries[stored:], g.cached[at:])
	}
	if stored == 0 {
		return plan, nil
	}
	plan.stored = append([]location(nil), locations[:stored]...)
	plan.segments = make(map[uint32]*segment)
	for _, loc := range plan.stored {
		if plan.segments[loc.segment] == nil {
			s := l.mu.segment(loc.segment)
			s.refs.Add(1)
			plan.segments[loc.segment] = s
		}
	}
	return plan, nil
}

const (
	// spanBytes and gapBytes bound the reads that fetch neighbouring entries at once.
	spanBytes = 1 << 20
	gapBytes  = 16 << 10
)

// span returns the end of the run of stored entries that one read fetches.
func (p *readPlan) span(start int) int {
	first, end := p.stored[start], start+1
	for ; end < len(p.stored); end++ {
		before, loc := p.stored[end-1], p.stored[end]
		if loc.segment != first.segment || loc.offset < before.offset+before.size ||
			loc.offset-before.offset-before.size > gapBytes || loc.offset+loc.size-first.offset > spanBytes {
			break
		}
	}
	return end
}

func (p *readPlan) read(group uint32, start, end int) error {
	first, last := p.stored[start], p.stored[end-1]
	s := p.segments[first.segment]
	buf := make([]byte, last.offset+last.size-first.offset)
	if err := readAt(s, buf, first.offset); err != nil {
		return err
	}
	for i := start; i < end; i++ {
		loc := p.stored[i]
		at := loc.offset - first.offset
		e, err := decodeEntry(s, buf[at:at+loc.size:at+loc.size], group, p.lo+uint64(i), loc)
		if err != nil {
			return err
		}
		p.entries[i] = e
	}
	return nil
}

func readOne(s *segment, group uint32, index uint64, loc location) (Entry, error) {
	buf := make([]byte, loc.size)
	if err := readAt(s, buf, loc.offset); err != nil {
		return Entry{}, err
	}
	return decodeEntry(s, buf, group, index, loc)
}

func readAt(s *segment, buf []byte, offset uint32) error {
	n, err := s.file.ReadAt(buf, int64(offset))
	if n == len(buf) {
		return nil
	}
	if errors.Is(err, io.EOF) {
		return &DamageError{File: s.path, Offset: int64(offset), Reason: "the file is shorter than what was written to it"}
	}
	return fmt.Errorf("nodelog: read %s at offset %d: %w", s.path, offset, err)
}

// decodeEntry verifies a stored entry against the checksum of what was written.
func decodeEntry(s *segment, buf []byte, group uint32, index uint64, loc location) (Entry, error) {
	if checksum(buf) != loc.crc {
		return Entry{}, &DamageError{File: s.path, Offset: int64(loc.offset),
			Reason: fmt.Sprintf("entry %d of group %d does not match its checksum", index, group)}
	}
	r, n, err := decodeRecord(buf)
	if err != nil || n != len(buf) || r.kind != recordEntry && r.kind != recordCarried ||
		r.group != group || r.index != index || r.term != loc.term {
		return Entry{}, &DamageError{File: s.path, Offset: int64(loc.offset),
			Reason: fmt.Sprintf("found another record where entry %d of group %d was written", index, group)}
	}
	return Entry{Index: r.index, Term: r.term, Kind: r.entryKind, Data: r.data}, nil
}
