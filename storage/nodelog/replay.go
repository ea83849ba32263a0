package nodelog

import (
	"bytes"
	"hash/crc32"
)

func checksum(b []byte) uint32 { return crc32.Checksum(b, castagnoli) }

// replay applies the records of a verified frame. A record that contradicts what came before
// is damage, although every checksum holds.
func (r *recovery) replay(s *segment, payload []byte, offset int64, first bool) error {
	at := 0
	for at < len(payload) {
		rec, n, err := decodeRecord(payload[at:])
		here := offset + int64(at)
		if err != nil {
			return r.damage(s.path, here, "%v", err)
		}
		if first != (rec.kind == recordCheckpoint) {
			return r.damage(s.path, here, "a segment's first record, and no other, must be a checkpoint; this one is of kind %d", rec.kind)
		}
		loc := location{term: rec.term, segment: s.number, offset: uint32(here), size: uint32(n), crc: checksum(payload[at : at+n])}
		at += n
		if !first {
			if reason := r.apply(rec, loc); reason != "" {
				return r.damage(s.path, here, "group %d: %s", rec.group, reason)
			}
			continue
		}
		first = false
		n, reason := r.checkpoint(payload[at:], rec.count)
		if reason != "" {
			return r.damage(s.path, here, "%s", reason)
		}
		at += n
	}
	return nil
}

// checkpoint takes the groups from the first checkpoint and compares them with every later
// one. It returns the bytes used.
func (r *recovery) checkpoint(src []byte, count uint64) (used int, reason string) {
	if r.replayed && count != uint64(len(r.index.groups)) {
		return 0, "the checkpoint has another number of groups than the segments before it"
	}
	for range count {
		rec, n, err := decodeRecord(src[used:])
		if err != nil || rec.kind != recordGroup || rec.last < rec.index {
			return 0, "the checkpoint is malformed"
		}
		used += n
		g := r.index.groups[rec.group]
		if !r.replayed {
			if g != nil || rec.last-rec.index > 1<<32 {
				return 0, "the checkpoint is malformed"
			}
			g = r.index.ensure(rec.group)
			g.truncIndex, g.truncTerm = rec.index, rec.term
			g.locations = make([]location, rec.last-rec.index)
			g.state = cloneState(rec.data)
			continue
		}
		if g == nil || rec.last != g.last() || rec.index < g.truncIndex || !bytes.Equal(rec.data, g.state) {
			return 0, "the checkpoint contradicts the segments before it"
		}
		// A truncation that had not been recorded when the segment was made.
		r.truncate(rec.group, g, rec.index, rec.term)
	}
	return used, ""
}

// cloneState returns nil for an empty state: both mean that there is none.
func cloneState(state []byte) []byte {
	if len(state) == 0 {
		return nil
	}
	return bytes.Clone(state)
}

func (r *recovery) truncate(id uint32, g *group, index, term uint64) {
	if index > g.truncIndex {
		r.index.drop(r.index.truncate(id, g, index, term))
	}
}

func (r *recovery) apply(rec record, loc location) (reason string) {
	g := r.index.groups[rec.group]
	switch rec.kind {
	case recordEntry:
		last := uint64(0)
		if g != nil {
			last = g.last()
		}
		if rec.index == 0 || rec.index > last+1 {
			return "an entry leaves a gap behind the last one"
		}
		r.index.put(rec.group, rec.index, loc)
	case recordCarried:
		if g != nil && rec.index >= g.first() && rec.index <= g.last() {
			old := g.locations[rec.index-g.first()]
			if old.segment != 0 && old.term != rec.term {
				return "a carried entry has another term than the one it repeats"
			}
		}
		r.index.carry(rec.group, rec.index, loc)
	case recordState:
		r.index.ensure(rec.group).state = cloneState(rec.data)
	case recordTruncate:
		if g == nil {
			return "a truncation of a group that is not there"
		}
		r.truncate(rec.group, g, rec.index, rec.term)
	case recordReset:
		r.index.reset(rec.group, rec.index, rec.term)
	case recordRemove:
		r.index.remove(rec.group)
	default:
		return "a record that only a checkpoint may have"
	}
	return ""
}
