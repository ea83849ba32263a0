package nodelog

import (
	"fmt"
	"path/filepath"

	"github.com/perdure/perdure/storage/vfs"
)

// truncations are those that a frame is about to record.
type truncations struct {
	groups []uint32
	gone   []released
}

// TruncatePrefix says that a group's entries up to index, whose term is given, are no longer
// needed. It returns at once: the entries are gone from Bounds and Entries, the point is
// written with the next Append, Reset or Remove, and until then a crash brings them back. An
// index below the first entry changes nothing; one above the last or of another term is a
// mistake that is logged and ignored, for after a snapshot there is Reset.
func (l *Log) TruncatePrefix(group uint32, index, term uint64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	g := l.mu.groups[group]
	if g == nil || index < g.first() || l.mu.closed {
		return
	}
	if index > g.last() {
		l.logger.Error("truncation above the last entry ignored", "partition", group, "index", index, "last", g.last())
		return
	}
	if have := g.locations[index-g.first()].term; have != term {
		l.logger.Error("truncation with another term ignored", "partition", group, "index", index, "term", term, "have", have)
		return
	}
	l.mu.gone = append(l.mu.gone, l.mu.truncate(group, g, index, term)...)
	l.mu.truncated[group] = struct{}{}
	if l.starved.Load() {
		l.upkeep.wake()
	}
}

// takeTruncations starts a frame with the truncations that are not on disk yet.
func (l *Log) takeTruncations() truncations {
	l.frame.start()
	l.mu.Lock()
	defer l.mu.Unlock()
	taken := truncations{gone: l.mu.gone}
	l.mu.gone = nil
	for id := range l.mu.truncated {
		taken.groups = append(taken.groups, id)
		if g := l.mu.groups[id]; g != nil {
			l.frame.add(record{kind: recordTruncate, group: id, index: g.truncIndex, term: g.truncTerm})
		}
	}
	clear(l.mu.truncated)
	return taken
}

// putBack undoes takeTruncations for a frame that was not written.
func (l *Log) putBack(taken truncations) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.mu.gone = append(taken.gone, l.mu.gone...)
	for _, id := range taken.groups {
		l.mu.truncated[id] = struct{}{}
	}
}

// makeRoom deletes what it can while no new segment can be made; writeMu is held. It is done
// here and not left to the background goroutine so that an append does not fail for lack of
// the space that it could free itself.
func (l *Log) makeRoom() (deleted bool) {
	before := l.Stats().Segments
	l.relieve()
	l.deleteSegments()
	return l.Stats().Segments < before
}

// relieve records truncations in the reserve of the current segment if that frees a segment.
// It is for the time in which no new segment can be made; writeMu is held.
func (l *Log) relieve() {
	if !l.starved.Load() || l.fenced != nil || l.closed || !l.wouldFreeSegment() {
		return
	}
	taken := l.takeTruncations()
	if l.current.end == segmentHeaderBytes {
		l.frame.insert(l.checkpoint())
	}
	if l.current.end+int64(len(l.frame.buf))+frameHeaderBytes > l.current.capacity {
		l.putBack(taken)
		return
	}
	if err := l.writeFrame(); err != nil {
		l.putBack(taken)
		l.logger.Warn("truncations not recorded", "path", l.opts.Dir, "error", err)
		return
	}
	l.apply(taken)
}

// wouldFreeSegment is whether pending truncations hold the last live entries of the oldest
// segment.
func (l *Log) wouldFreeSegment() bool {
	l.mu.RLock()
	defer l.mu.RUnlock()
	oldest := l.mu.segments[0]
	if oldest == l.current || len(l.mu.gone) == 0 {
		return false
	}
	live := 0
	for _, n := range oldest.liveEntries {
		live += n
	}
	for _, r := range l.mu.gone {
		if r.segment == oldest.number {
			live -= r.entries
		}
	}
	return live == 0
}

// checkFree refuses a new file that would leave less than the free-space watermark.
func (l *Log) checkFree(need int64) error {
	free, err := l.opts.FS.FreeBytes(l.opts.Dir)
	if err != nil {
		return fmt.Errorf("nodelog: free space of %s: %w", l.opts.Dir, err)
	}
	if want := uint64(need) + uint64(l.opts.MinFreeBytes); free < want {
		return fmt.Errorf("%w: %s has %d bytes free, a segment of %d bytes must leave %d: free some space",
			ErrNoSpace, l.opts.Dir, free, need, l.opts.MinFreeBytes)
	}
	return nil
}

// abandonSegment decides what a failed attempt to make a segment means. Without its header
// the file is blank and recovery ignores it, so the log stays usable. Once a header may be on
// disk, no further frame may go to the segment before it, which that header says has ended.
func (l *Log) abandonSegment(number uint32, cause error) error {
	path := filepath.Join(l.opts.Dir, segmentName(number))
	if !vfs.IsNoSpace(cause) {
		return l.fence(cause)
	}
	head := make([]byte, segmentHeaderUsed)
	if file, err := l.opts.FS.Open(path); err == nil {
		n, _ := file.ReadAt(head, 0)
		_ = file.Close()
		if !allZero(head[:n]) {
			return l.fence(cause)
		}
		if err := l.opts.FS.Remove(path); err != nil {
			l.logger.Warn("blank segment not removed", "path", path, "error", err)
		}
	}
	l.starved.Store(true)
	return fmt.Errorf("%w: %s: %w", ErrNoSpace, l.opts.Dir, cause)
}

// carryBytes bounds what one append carries forward, so that it stays fast.
const carryBytes = 256 << 10

// carryForward adds to the frame live entries of the oldest segment if few of them are all
// that keeps it in a long log. At most half a segment is moved to free a whole one, which
// bounds the extra writing to what the appends themselves write.
func (l *Log) carryForward() {
	oldest, found := l.carryable()
	if oldest == nil {
		return
	}
	for _, f := range found {
		e, err := readOne(oldest, f.group, f.index, f.loc)
		if err != nil {
			// The reader of that entry gets the error; the append is not to blame.
			oldest.unreadable = true
			l.logger.Error("old entries not carried forward", "path", oldest.path, "error", err)
			break
		}
		l.counts.carried.Add(uint64(f.loc.size))
		l.frame.add(record{kind: recordCarried, group: f.group, index: e.Index, term: e.Term, entryKind: e.Kind, data: e.Data})
	}
	_ = oldest.release()
}

type carried struct {
	group uint32
	index uint64
	loc   location
}

// carryable returns the oldest segment, referenced, and entries to move out of it, or nil.
func (l *Log) carryable() (*segment, []carried) {
	l.mu.RLock()
	defer l.mu.RUnlock()
	if len(l.mu.segments) <= l.opts.CarryAfterSegments {
		return nil, nil
	}
	oldest := l.mu.segments[0]
	if oldest.unreadable || oldest.liveBytes > oldest.capacity/2 || oldest == l.current {
		return nil, nil
	}
	var found []carried
	var size int64
	for id := range oldest.liveEntries {
		g := l.mu.groups[id]
		if g == nil {
			continue
		}
		for i, loc := range g.locations {
			if loc.segment != oldest.number {
				continue
			}
			found = append(found, carried{group: id, index: g.first() + uint64(i), loc: loc})
			if size += int64(loc.size); size > carryBytes {
				break
			}
		}
		if size > carryBytes {
			break
		}
	}
	if len(found) == 0 {
		return nil, nil
	}
	oldest.refs.Add(1)
	return oldest, found
}
