package nodelog

import (
	"bytes"
	"errors"
	"testing"
)

var fuzzID = logID{1, 2, 3}

// seedRecords has one record of every kind.
func seedRecords() []record {
	return []record{
		{kind: recordCheckpoint, count: 1},
		{kind: recordGroup, group: 7, index: 3, term: 2, last: 5, data: []byte("state")},
		{kind: recordEntry, group: 7, index: 6, term: 2, entryKind: 1, data: []byte("entry")},
		{kind: recordCarried, group: 7, index: 5, term: 2, data: []byte("carried")},
		{kind: recordState, group: 7, data: []byte("state")},
		{kind: recordTruncate, group: 7, index: 4, term: 2},
		{kind: recordReset, group: 7, index: 9, term: 3},
		{kind: recordRemove, group: 7},
	}
}

// FuzzFrameHeader looks for frames in arbitrary bytes. What is taken for one must be one: its
// header, written again, gives the bytes it was read from.
func FuzzFrameHeader(f *testing.F) {
	frame := make([]byte, frameHeaderBytes)
	frameHeader{length: 5, sequence: 9, segment: 2, offset: 3, kind: frameData}.put(frame, fuzzID)
	f.Add(append([]byte("PND"), frame...), uint32(2))
	f.Add(frame[:frameHeaderBytes-1], uint32(2))
	f.Add(bytes.Repeat([]byte("PNDL"), 20), uint32(0))
	f.Fuzz(func(t *testing.T, content []byte, segment uint32) {
		at := findFrameHeader(content, 0, fuzzID, segment)
		if at < 0 {
			return
		}
		h, ok := parseFrameHeader(content[at:], fuzzID, segment, uint32(at))
		if !ok {
			t.Fatalf("a header found at %d does not parse", at)
		}
		again := make([]byte, frameHeaderBytes)
		h.put(again, fuzzID)
		if !bytes.Equal(again, content[at:at+frameHeaderBytes]) {
			t.Errorf("header %+v at %d: written again %x, read from %x", h, at, again, content[at:at+frameHeaderBytes])
		}
	})
}

// FuzzDecodeRecord reads arbitrary bytes as a record. What decodes must stay within what it was
// given and encode to something that decodes to the same.
func FuzzDecodeRecord(f *testing.F) {
	for _, r := range seedRecords() {
		f.Add(appendRecord(nil, r))
	}
	f.Add([]byte{byte(recordEntry), 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1})
	f.Fuzz(func(t *testing.T, src []byte) {
		r, n, err := decodeRecord(src)
		if err != nil {
			return
		}
		if n <= 0 || n > len(src) {
			t.Fatalf("a record of %d bytes in %d", n, len(src))
		}
		again, _, err := decodeRecord(appendRecord(nil, r))
		if err != nil || again.kind != r.kind || again.group != r.group || again.index != r.index || again.term != r.term ||
			again.last != r.last || again.count != r.count || again.entryKind != r.entryKind || !bytes.Equal(again.data, r.data) {
			t.Errorf("encoded again: %+v, %v; want %+v", again, err, r)
		}
	})
}

// maxFuzzedEntries is what a checkpoint may claim a group to have. Up to 2^32 entries pass for
// intact, whose locations alone would be more than the memory of the machine that fuzzes.
const maxFuzzedEntries = 1 << 16

// FuzzReplay replays arbitrary payloads of frames whose checksums hold: what no disk does, but
// another version, or a defect of this one, might. It must end with an index or with damage.
func FuzzReplay(f *testing.F) {
	all := seedRecords()
	var first, rest []byte
	for _, r := range all[:2] {
		first = appendRecord(first, r)
	}
	for _, r := range all[2:] {
		rest = appendRecord(rest, r)
	}
	f.Add(first, rest)
	f.Add(appendRecord(nil, record{kind: recordCheckpoint}), rest)
	f.Add(rest, first)
	f.Fuzz(func(t *testing.T, first, rest []byte) {
		for _, payload := range [][]byte{first, rest} {
			for len(payload) > 0 {
				r, n, err := decodeRecord(payload)
				if err != nil {
					break
				}
				if r.kind == recordGroup && r.last-r.index > maxFuzzedEntries {
					t.Skip("too many entries")
				}
				payload = payload[n:]
			}
		}
		s := newSegment(1, "1.seg", nil, 1<<20)
		r := recovery{log: &Log{}, index: &index{groups: map[uint32]*group{}, segments: []*segment{s}}, id: fuzzID}
		err := r.replay(s, first, segmentHeaderBytes, true)
		if err == nil {
			r.replayed = true
			err = r.replay(s, rest, segmentHeaderBytes+int64(len(first)), false)
		}
		if err != nil {
			damage, ok := errors.AsType[*DamageError](err)
			if !ok || damage.File != s.path || damage.Offset < segmentHeaderBytes || damage.Offset > segmentHeaderBytes+int64(len(first)+len(rest)) {
				t.Errorf("replay failed with %v", err)
			}
			return
		}
		live := 0
		for id, g := range r.index.groups {
			for _, l := range g.locations {
				if l.segment != 0 {
					live++
				}
			}
			if g.last() < g.truncIndex {
				t.Errorf("group %d ends at %d and is truncated at %d", id, g.last(), g.truncIndex)
			}
		}
		counted := 0
		for _, n := range s.liveEntries {
			counted += n
		}
		if counted != live {
			t.Errorf("the segment counts %d live entries, the groups have %d", counted, live)
		}
	})
}
