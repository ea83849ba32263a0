// Package wire is what replicas of different nodes say to each other, as bytes: frames of messages,
// and snapshots as a stream of chunks. It knows nothing of what the messages mean.
package wire

import (
	"encoding/binary"
	"errors"
	"fmt"
)

// Errors that callers branch on.
var (
	// ErrMalformed says that bytes are not what the format allows. Bytes on the wire are those
	// of a node of this cluster, so it is a mistake of a build or a broken connection.
	ErrMalformed = errors.New("malformed")
	// ErrVersion says that the other node speaks a newer format than this build.
	ErrVersion = errors.New("format version is newer than this build")
	// ErrChecksum says that bytes of a snapshot changed on the way.
	ErrChecksum = errors.New("checksum mismatch")
)

// frameFormat is the first byte of a frame.
const frameFormat = 1

// Kind says what an item of a frame is. Numbers are on the wire: never reuse one.
type Kind uint8

const (
	// KindRaft is a raft message.
	KindRaft Kind = 1
	// KindStranger tells a node that the sender's configuration of the group does not have it. Data
	// is an Opinion.
	KindStranger Kind = 2
	// KindQuestion asks a leader whether the sender is a member of the group.
	KindQuestion Kind = 3
	// KindVerdict is a leader's answer that it is not. Data is an Opinion.
	KindVerdict Kind = 4
	// KindBeat is a Beat. Its item's group is any of those, as that of an Echo.
	KindBeat Kind = 5
	// KindEcho is an Echo.
	KindEcho Kind = 6
)

// Item is a message about one group.
type Item struct {
	Group uint32
	Kind  Kind
	// Life is how often the sender's replica of the group was dropped: what is said about an
	// earlier life is not true of this one.
	Life uint64
	Data []byte
}

// AppendItem adds an item to a frame; dst is empty or a frame so far.
func AppendItem(dst []byte, item Item) []byte {
	if len(dst) == 0 {
		dst = append(dst, frameFormat)
	}
	dst = binary.AppendUvarint(dst, uint64(item.Group))
	dst = append(dst, byte(item.Kind))
	dst = binary.AppendUvarint(dst, item.Life)
	dst = binary.AppendUvarint(dst, uint64(len(item.Data)))
	return append(dst, item.Data...)
}

// ItemBytes is at most what an item adds to a frame beside its data.
const ItemBytes = 5 + 1 + 2*binary.MaxVarintLen64

// DecodeFrame calls fn with each item, whose Data aliases the frame, and stops at its first error.
func DecodeFrame(frame []byte, fn func(Item) error) error {
	if len(frame) == 0 {
		return fmt.Errorf("frame: %w: empty", ErrMalformed)
	}
	if frame[0] != frameFormat {
		return fmt.Errorf("frame: %w: %d, this build knows %d", ErrVersion, frame[0], frameFormat)
	}
	d := decoder{src: frame[1:]}
	for len(d.src) > 0 {
		group := d.uvarint()
		item := Item{Group: uint32(group), Kind: Kind(d.byte()), Life: d.uvarint(), Data: d.bytes()}
		if d.bad || group > 1<<32-1 {
			return fmt.Errorf("frame: %w: %d bytes before its end", ErrMalformed, len(d.src))
		}
		if err := fn(item); err != nil {
			return err
		}
	}
	return nil
}

// Opinion is what a node knows of who belongs to a group.
type Opinion struct {
	// Term and Index say as of when; only of a verdict.
	Term, Index uint64
	// Leader is who leads as far as the sender knows, or 0.
	Leader uint64
}

// AppendOpinion encodes an opinion.
func AppendOpinion(dst []byte, o Opinion) []byte {
	dst = binary.AppendUvarint(dst, o.Term)
	dst = binary.AppendUvarint(dst, o.Index)
	return binary.AppendUvarint(dst, o.Leader)
}

// DecodeOpinion decodes an opinion.
func DecodeOpinion(data []byte) (Opinion, error) {
	d := decoder{src: data}
	o := Opinion{Term: d.uvarint(), Index: d.uvarint(), Leader: d.uvarint()}
	if d.bad {
		return Opinion{}, fmt.Errorf("opinion: %w", ErrMalformed)
	}
	return o, nil
}

// decoder takes values off src. After a mistake it is bad and returns zeros.
type decoder struct {
	src []byte
	bad bool
}

func (d *decoder) byte() byte {
	if len(d.src) == 0 {
		d.bad = true
		return 0
	}
	b := d.src[0]
	d.src = d.src[1:]
	return b
}

func (d *decoder) uvarint() uint64 {
	v, n := binary.Uvarint(d.src)
	if n <= 0 {
		d.bad, d.src = true, nil
		return 0
	}
	d.src = d.src[n:]
	return v
}

func (d *decoder) bytes() []byte {
	n := d.uvarint()
	if d.bad || n > uint64(len(d.src)) {
		d.bad, d.src = true, nil
		return nil
	}
	b := d.src[:n:n]
	d.src = d.src[n:]
	return b
}
