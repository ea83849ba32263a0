package nodelog

import (
	"errors"
	"fmt"
	"time"

	"github.com/perdure/perdure/storage/vfs"
)

// reserveBytes at the end of a segment are kept for frames that only record truncations: with
// the disk full they are what lets segments be deleted.
func reserveBytes(segmentBytes int64) int64 { return min(64<<10, segmentBytes/8) }

// frameBuilder collects the records of one frame and what they will do to the index.
type frameBuilder struct {
	// buf starts with room for the frame header.
	buf     []byte
	effects []effect
}

// effect is a record with the place it has in the frame.
type effect struct {
	record
	at, size, crc uint32 // of the record; at counts from the frame's start
}

// keepBufBytes is the largest buffer kept for the next frame.
const keepBufBytes = 1 << 20

func (b *frameBuilder) start() {
	if cap(b.buf) > keepBufBytes {
		b.buf = nil
	}
	if b.buf == nil {
		b.buf = make([]byte, 0, 16<<10)
	}
	b.buf = b.buf[:frameHeaderBytes]
	clear(b.effects) // or it would keep the last frame's data alive
	b.effects = b.effects[:0]
}

func (b *frameBuilder) add(r record) {
	at := len(b.buf)
	b.buf = appendRecord(b.buf, r)
	e := effect{record: r, at: uint32(at), size: uint32(len(b.buf) - at)}
	if r.kind == recordEntry || r.kind == recordCarried {
		e.crc = checksum(b.buf[at:])
	}
	b.effects = append(b.effects, e)
}

// insert puts a prefix before the records.
func (b *frameBuilder) insert(prefix []byte) {
	buf := make([]byte, 0, len(b.buf)+len(prefix))
	buf = append(buf, b.buf[:frameHeaderBytes]...)
	buf = append(buf, prefix...)
	b.buf = append(buf, b.buf[frameHeaderBytes:]...)
	for i := range b.effects {
		b.effects[i].at += uint32(len(prefix))
	}
}

// Append makes the writes durable, all or none of them. The errors to expect: ErrNoSpace (try
// again later), ErrFenced, ErrClosed, and for an entry outside the group's bounds one that
// names them; except with ErrFenced, nothing was written. Entries' data is kept, not copied.
func (l *Log) Append(writes []GroupWrite) error {
	l.writeMu.Lock()
	defer l.writeMu.Unlock()
	if err := l.writable(); err != nil {
		return err
	}
	if err := l.checkWrites(writes); err != nil {
		return err
	}
	if len(writes) == 0 {
		return nil
	}
	return l.write(func() {
		l.carryForward()
		for _, w := range writes {
			if w.Reset != nil {
				l.frame.add(record{kind: recordReset, group: w.Group, index: w.Reset.Index, term: w.Reset.Term})
			}
			for _, e := range w.Entries {
				l.frame.add(record{kind: recordEntry, group: w.Group, index: e.Index, term: e.Term, entryKind: e.Kind, data: e.Data})
			}
			if w.State != nil {
				l.frame.add(record{kind: recordState, group: w.Group, data: w.State})
			}
		}
	})
}

// Reset empties a group so that it continues behind index, whose term is given: for a
// snapshot that was installed. Its state is kept; a caller whose state refers to entries
// adjusts it in the next Append. Durable, with Append's errors.
func (l *Log) Reset(group uint32, index, term uint64) error {
	return l.appendOne(record{kind: recordReset, group: group, index: index, term: term})
}

// Remove forgets a group and its state. Durable, with Append's errors. An unknown group is no
// error.
func (l *Log) Remove(group uint32) error {
	return l.appendOne(record{kind: recordRemove, group: group})
}

func (l *Log) appendOne(r record) error {
	l.writeMu.Lock()
	defer l.writeMu.Unlock()
	if err := l.writable(); err != nil {
		return err
	}
	return l.write(func() { l.frame.add(r) })
}

// write makes a frame of the pending truncations and what fill adds, and commits it. If the
// disk is full, it tries once more after deleting what the truncations free.
func (l *Log) write(fill func()) error {
	for retried := false; ; retried = true {
		taken := l.takeTruncations()
		fill()
		err := l.commit(taken)
		if retried || !errors.Is(err, ErrNoSpace) || !l.makeRoom() {
			return err
		}
	}
}

func (l *Log) writable() error {
	switch {
	case l.closed:
		return ErrClosed
	case l.fenced != nil:
		return l.fenced
	}
	return nil
}

// fence stops all writing: after a failed write or sync the kernel may have dropped dirty
// pages and will report success the next time, so nothing may be built on this file until it
// was read back.
func (l *Log) fence(cause error) error {
	l.fenced = fmt.Errorf("%w: %w", ErrFenced, cause)
	l.counts.fenced.Store(true)
	l.logger.Error("node log fenced", "path", l.opts.Dir, "error", cause)
	return l.fenced
}

// checkWrites refuses what would leave a gap or touch truncated entries.
func (l *Log) checkWrites(writes []GroupWrite) error {
	clear(l.firsts)
	clear(l.lasts)
	total := int64(frameHeaderBytes)
	l.mu.RLock()
	defer l.mu.RUnlock()
	for _, w := range writes {
		if len(w.State) > MaxStateBytes {
			return fmt.Errorf("nodelog: group %d: state of %d bytes is above the bound of %d", w.Group, len(w.State), MaxStateBytes)
		}
		total += int64(len(w.State)) + 48
		if w.Reset != nil {
			l.firsts[w.Group], l.lasts[w.Group] = w.Reset.Index+1, w.Reset.Index
		}
		if len(w.Entries) == 0 {
			continue
		}
		first, last := uint64(1), uint64(0)
		if g := l.mu.groups[w.Group]; g != nil {
			first, last = g.first(), g.last()
		}
		if earlier, ok := l.firsts[w.Group]; ok {
			first = earlier
		}
		if earlier, ok := l.lasts[w.Group]; ok {
			last = earlier
		}
		from := w.Entries[0].Index
		if from < first {
			return fmt.Errorf("nodelog: group %d: append at index %d, first is %d: %w", w.Group, from, first, ErrCompacted)
		}
		if from > last+1 {
			return fmt.Errorf("nodelog: group %d: append at index %d leaves a gap behind the last index %d", w.Group, from, last)
		}
		for i, e := range w.Entries {
			if e.Index != from+uint64(i) {
				return fmt.Errorf("nodelog: group %d: entry %d of the append has index %d, want %d: indexes must be contiguous", w.Group, i, e.Index, from+uint64(i))
			}
			total += int64(len(e.Data)) + 40
		}
		l.lasts[w.Group] = from + uint64(len(w.Entries)) - 1
	}
	if total > maxFrameBytes/2 {
		return fmt.Errorf("nodelog: append of about %d bytes is above the bound of %d: split it", total, maxFrameBytes/2)
	}
	return nil
}

// commit writes the frame, syncs it and applies it. taken is put back if it was not written.
func (l *Log) commit(taken truncations) error {
	if err := l.place(); err != nil {
		l.putBack(taken)
		return err
	}
	if err := l.writeFrame(); err != nil {
		l.putBack(taken)
		return err
	}
	l.apply(taken)
	return nil
}

// place makes sure that the current segment has room for the frame and, if the frame is the
// segment's first, puts the checkpoint at its head.
func (l *Log) place() error {
	limit := l.current.capacity - reserveBytes(l.current.capacity)
	if l.current.end == segmentHeaderBytes {
		l.frame.insert(l.checkpoint())
		if l.current.end+int64(len(l.frame.buf)) <= limit {
			return nil
		}
		// Too large even for an empty segment: it gets a larger one. The checkpoint stays.
		return l.rotate(int64(len(l.frame.buf)))
	}
	if l.current.end+int64(len(l.frame.buf)) <= limit {
		return nil
	}
	checkpoint := l.checkpoint()
	if err := l.rotate(int64(len(l.frame.buf) + len(checkpoint))); err != nil {
		return err
	}
	l.frame.insert(checkpoint)
	return nil
}

// checkpoint encodes the bounds and state of every group, so that the segments before are
// needed for their live entries only.
func (l *Log) checkpoint() []byte {
	l.mu.RLock()
	defer l.mu.RUnlock()
	dst := appendRecord(nil, record{kind: recordCheckpoint, count: uint64(len(l.mu.groups))})
	for id, g := range l.mu.groups {
		dst = appendRecord(dst, record{kind: recordGroup, group: id, index: g.truncIndex, term: g.truncTerm, last: g.last(), data: g.state})
	}
	return dst
}

// rotate makes the next segment and seals the current one. In this order, because then a seal
// without a next segment, and a next segment without its predecessor's frames, are damage and
// never an innocent crash.
func (l *Log) rotate(frameBytes int64) error {
	capacity := max(l.opts.SegmentBytes, segmentHeaderBytes+frameBytes)
	// The reserve is a share of the capacity, so room for it is added until it fits.
	for segmentHeaderBytes+frameBytes > capacity-reserveBytes(capacity) {
		capacity += reserveBytes(capacity)
	}
	if err := l.checkFree(capacity); err != nil {
		l.starved.Store(true)
		return err
	}
	header := segmentHeader{
		id: l.id, number: l.current.number + 1, capacity: capacity,
		previousSequence: l.sequence, previousEnd: l.current.end,
	}
	next, err := createSegment(l.opts.FS, l.opts.Dir, header)
	if err != nil {
		return l.abandonSegment(header.number, err)
	}
	l.starved.Store(false)
	l.counts.syncs.Add(1)
	l.counts.written.Add(segmentHeaderBytes)
	sealed := l.current
	err = l.writeMarker(frameSeal)
	if err == nil {
		err = l.sync(sealed)
	}
	l.mu.Lock()
	l.mu.segments = append(l.mu.segments, next)
	l.mu.Unlock()
	l.current = next
	if err != nil {
		return l.fence(fmt.Errorf("seal %s: %w", sealed.path, err))
	}
	return nil
}

// writeFrame writes and syncs the frame at the end of the current segment.
func (l *Log) writeFrame() error {
	s, buf := l.current, l.frame.buf
	payload := buf[frameHeaderBytes:]
	frameHeader{
		length: uint32(len(payload)), sequence: l.sequence + 1, segment: s.number, offset: uint32(s.end),
		payloadCRC: checksum(payload), kind: frameData,
	}.put(buf, l.id)
	l.marked = false
	n, err := s.file.WriteAt(buf, s.end)
	l.counts.written.Add(uint64(n))
	if vfs.IsNoSpace(err) {
		return l.undo(s, n, err)
	}
	if err != nil {
		return l.fence(fmt.Errorf("write %s at offset %d: %w", s.path, s.end, err))
	}
	if err := l.sync(s); err != nil {
		return l.fence(err)
	}
	s.end += int64(len(buf))
	l.sequence++
	l.markable = true
	l.counts.appends.Add(1)
	l.counts.durable.Store(l.sequence)
	return nil
}

// undo wipes a frame that the disk had no room for. Wiping, not truncating: a file shorter
// than it was allocated is how recovery knows one that lost its end.
func (l *Log) undo(s *segment, written int, cause error) error {
	if written > 0 {
		if _, err := s.file.WriteAt(make([]byte, written), s.end); err != nil {
			return l.fence(fmt.Errorf("write %s at offset %d: %w; wipe: %w", s.path, s.end, cause, err))
		}
		if err := l.sync(s); err != nil {
			return l.fence(fmt.Errorf("write %s at offset %d: %w; wipe: %w", s.path, s.end, cause, err))
		}
	}
	return fmt.Errorf("%w: write %s: %w", ErrNoSpace, s.path, cause)
}

func (l *Log) sync(s *segment) error {
	start := time.Now()
	err := s.file.Sync()
	l.counts.lastSync.Store(int64(time.Since(start)))
	l.counts.syncs.Add(1)
	if err != nil {
		return fmt.Errorf("sync %s: %w", s.path, err)
	}
	return nil
}

// writeMarker writes, without syncing, that the last frame was synced. Where no room is left
// there is no marker; the next segment's header then says the same.
func (l *Log) writeMarker(kind frameKind) error {
	s := l.current
	if s.end+frameHeaderBytes > s.capacity {
		return nil
	}
	var buf [frameHeaderBytes]byte
	frameHeader{sequence: l.sequence, segment: s.number, offset: uint32(s.end), kind: kind}.put(buf[:], l.id)
	if _, err := s.file.WriteAt(buf[:], s.end); err != nil {
		return err
	}
	l.counts.written.Add(frameHeaderBytes)
	l.marked = true
	return nil
}

// apply makes a durable frame visible.
func (l *Log) apply(taken truncations) {
	base := uint32(l.current.end) - uint32(len(l.frame.buf))
	number := l.current.number
	l.mu.Lock()
	l.current.checkpointed = true
	l.mu.drop(taken.gone)
	for _, e := range l.frame.effects {
		loc := location{term: e.term, segment: number, offset: base + e.at, size: e.size, crc: e.crc}
		switch e.kind {
		case recordEntry:
			l.mu.put(e.group, e.index, loc)
			if l.mu.cacheLimit > 0 {
				l.mu.cache(e.group, Entry{Index: e.index, Term: e.term, Kind: e.entryKind, Data: e.data})
			}
		case recordCarried:
			l.mu.carry(e.group, e.index, loc)
		case recordState:
			l.mu.ensure(e.group).state = cloneState(e.data)
		case recordReset:
			l.mu.reset(e.group, e.index, e.term)
		case recordRemove:
			l.mu.remove(e.group)
		}
	}
	l.mu.evict()
	deletable := l.mu.deletable()
	l.mu.Unlock()
	l.upkeep.appended(deletable > 0)
}
