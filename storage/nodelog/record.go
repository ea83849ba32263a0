package nodelog

import (
	"encoding/binary"
	"errors"
	"fmt"
)

// recordKind is the first byte of a record. Numbers are on disk: never reuse one.
type recordKind uint8

const (
	// recordCheckpoint: count of recordGroup records that follow. Starts each segment.
	recordCheckpoint recordKind = 1
	// recordGroup: group, truncation index and term, last index, state.
	recordGroup recordKind = 2
	// recordEntry: group, index, term, kind, data. Drops what the group had from index on.
	recordEntry recordKind = 3
	// recordCarried: like recordEntry, but only says that the same entry is now here too.
	recordCarried recordKind = 4
	// recordState: group, state.
	recordState recordKind = 5
	// recordTruncate: group, index, term. Entries up to index are not needed any more.
	recordTruncate recordKind = 6
	// recordReset: group, index, term. The group is empty and continues behind index.
	recordReset recordKind = 7
	// recordRemove: group. It never was.
	recordRemove recordKind = 8
)

// record is any record, decoded. data aliases the payload it was decoded from.
type record struct {
	kind      recordKind
	group     uint32
	index     uint64 // of an entry, a truncation or a reset
	term      uint64
	last      uint64 // recordGroup
	count     uint64 // recordCheckpoint
	entryKind uint8
	data      []byte // of an entry, or a state
}

var errBadRecord = errors.New("record cut short")

// appendRecord encodes r: kind byte, then its fields as uvarints, lengths before bytes.
func appendRecord(dst []byte, r record) []byte {
	dst = append(dst, byte(r.kind))
	if r.kind == recordCheckpoint {
		return binary.AppendUvarint(dst, r.count)
	}
	dst = binary.AppendUvarint(dst, uint64(r.group))
	switch r.kind {
	case recordGroup:
		dst = binary.AppendUvarint(dst, r.index)
		dst = binary.AppendUvarint(dst, r.term)
		dst = binary.AppendUvarint(dst, r.last)
	case recordEntry, recordCarried:
		dst = binary.AppendUvarint(dst, r.index)
		dst = binary.AppendUvarint(dst, r.term)
		dst = append(dst, r.entryKind)
	case recordTruncate, recordReset:
		dst = binary.AppendUvarint(dst, r.index)
		return binary.AppendUvarint(dst, r.term)
	case recordRemove:
		return dst
	}
	dst = binary.AppendUvarint(dst, uint64(len(r.data)))
	return append(dst, r.data...)
}

// decodeRecord decodes the first record of src and returns how many bytes it takes.
func decodeRecord(src []byte) (r record, n int, err error) {
	d := decoder{src: src}
	r.kind = recordKind(d.byte())
	if r.kind == recordCheckpoint {
		r.count = d.uvarint()
		return r, d.at, d.err
	}
	group := d.uvarint()
	if group > 1<<32-1 {
		return r, 0, fmt.Errorf("group number %d is above 32 bits", group)
	}
	r.group = uint32(group)
	switch r.kind {
	case recordGroup:
		r.index, r.term, r.last = d.uvarint(), d.uvarint(), d.uvarint()
		r.data = d.bytes()
	case recordEntry, recordCarried:
		r.index, r.term, r.entryKind = d.uvarint(), d.uvarint(), d.byte()
		r.data = d.bytes()
	case recordState:
		r.data = d.bytes()
	case recordTruncate, recordReset:
		r.index, r.term = d.uvarint(), d.uvarint()
	case recordRemove:
	default:
		if d.err == nil {
			d.err = fmt.Errorf("record of unknown kind %d", r.kind)
		}
	}
	return r, d.at, d.err
}

type decoder struct {
	src []byte
	at  int
	err error
}

func (d *decoder) fail() {
	if d.err == nil {
		d.err = errBadRecord
	}
}

func (d *decoder) byte() byte {
	if d.err != nil || d.at >= len(d.src) {
		d.fail()
		return 0
	}
	d.at++
	return d.src[d.at-1]
}

func (d *decoder) uvarint() uint64 {
	if d.err != nil {
		return 0
	}
	v, n := binary.Uvarint(d.src[d.at:])
	if n <= 0 {
		d.fail()
		return 0
	}
	d.at += n
	return v
}

func (d *decoder) bytes() []byte {
	n := d.uvarint()
	if d.err != nil || n > uint64(len(d.src)-d.at) {
		d.fail()
		return nil
	}
	d.at += int(n)
	return d.src[d.at-int(n) : d.at : d.at]
}
