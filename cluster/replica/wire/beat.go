package wire

import (
	"encoding/binary"
	"fmt"
)

// A Beat tells a node, in place of heartbeats, that the sender leads groups in which nothing happens, and what
// their logs end with.
type Beat struct {
	// Number counts the sender's beats.
	Number uint64
	Groups []BeatGroup
}

// BeatGroup is one of the groups of a beat.
type BeatGroup struct {
	Group uint32
	// Term is that of the leadership, and Index the last of the log, which is committed.
	Term, Index uint64
}

// AppendBeat encodes a beat.
func AppendBeat(dst []byte, b Beat) []byte {
	dst = binary.AppendUvarint(dst, b.Number)
	dst = binary.AppendUvarint(dst, uint64(len(b.Groups)))
	for _, g := range b.Groups {
		dst = binary.AppendUvarint(dst, uint64(g.Group))
		dst = binary.AppendUvarint(dst, g.Term)
		dst = binary.AppendUvarint(dst, g.Index)
	}
	return dst
}

// DecodeBeat decodes a beat.
func DecodeBeat(data []byte) (Beat, error) {
	d := decoder{src: data}
	b := Beat{Number: d.uvarint()}
	n := d.uvarint()
	if n > uint64(len(d.src))/3 {
		return Beat{}, fmt.Errorf("beat: %w: %d groups in %d bytes", ErrMalformed, n, len(d.src))
	}
	b.Groups = make([]BeatGroup, n)
	for i := range b.Groups {
		group := d.uvarint()
		b.Groups[i] = BeatGroup{Group: uint32(group), Term: d.uvarint(), Index: d.uvarint()}
		d.bad = d.bad || group > 1<<32-1
	}
	if d.bad || len(d.src) > 0 {
		return Beat{}, fmt.Errorf("beat: %w", ErrMalformed)
	}
	return b, nil
}

// An Echo answers a beat: all is as it says, but with some groups.
type Echo struct {
	// Number is that of the beat.
	Number uint64
	Not    []uint32
}

// AppendEcho encodes an echo.
func AppendEcho(dst []byte, e Echo) []byte {
	dst = binary.AppendUvarint(dst, e.Number)
	for _, group := range e.Not {
		dst = binary.AppendUvarint(dst, uint64(group))
	}
	return dst
}

// DecodeEcho decodes an echo.
func DecodeEcho(data []byte) (Echo, error) {
	d := decoder{src: data}
	e := Echo{Number: d.uvarint()}
	for len(d.src) > 0 && !d.bad {
		group := d.uvarint()
		e.Not = append(e.Not, uint32(group))
		d.bad = d.bad || group > 1<<32-1
	}
	if d.bad {
		return Echo{}, fmt.Errorf("echo of a beat: %w", ErrMalformed)
	}
	return e, nil
}
