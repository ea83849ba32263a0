package wire

import (
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"hash/crc32"
)

// snapshotFormat is the first byte of a header. Format 1 could not go on behind a chunk.
const snapshotFormat = 2

// Header says what a snapshot is of.
type Header struct {
	// Life is the sender's.
	Life uint64
	// Applied is the row by which the store says how far it is, as the sender's store has it.
	Applied []byte
	// Message is the raft message that the snapshot belongs to.
	Message []byte
	// Number tells the snapshots of one leadership apart: no two have the same.
	Number uint64
	// Asks is set if nothing follows: it is asked behind which chunk to go on. The answer is a Position.
	Asks bool
	// Skip is how many chunks don't follow, since the receiver said that it has them.
	Skip uint64
}

// Identity is the same for all streams of a snapshot, and no other's.
func (h Header) Identity() [sha256.Size]byte {
	h.Asks, h.Skip = false, 0
	return sha256.Sum256(AppendHeader(nil, h))
}

// AppendHeader encodes a header.
func AppendHeader(dst []byte, h Header) []byte {
	dst = append(dst, snapshotFormat, 0)
	if h.Asks {
		dst[len(dst)-1] = 1
	}
	dst = binary.AppendUvarint(dst, h.Number)
	dst = binary.AppendUvarint(dst, h.Skip)
	dst = binary.AppendUvarint(dst, h.Life)
	dst = binary.AppendUvarint(dst, uint64(len(h.Applied)))
	dst = append(dst, h.Applied...)
	dst = binary.AppendUvarint(dst, uint64(len(h.Message)))
	return append(dst, h.Message...)
}

// DecodeHeader decodes a header; what it returns aliases data.
func DecodeHeader(data []byte) (Header, error) {
	if len(data) == 0 {
		return Header{}, fmt.Errorf("snapshot header: %w: empty", ErrMalformed)
	}
	if data[0] != snapshotFormat {
		return Header{}, fmt.Errorf("snapshot header: %w: %d, this build knows %d", ErrVersion, data[0], snapshotFormat)
	}
	d := decoder{src: data[1:]}
	h := Header{Asks: d.byte() == 1, Number: d.uvarint(), Skip: d.uvarint(), Life: d.uvarint(), Applied: d.bytes(), Message: d.bytes()}
	if d.bad || len(d.src) > 0 {
		return Header{}, fmt.Errorf("snapshot header: %w", ErrMalformed)
	}
	return h, nil
}

// A chunk is a checksum (4 bytes, big endian) of what follows, a byte that says what that is, and
// rows or the end: how many rows and bytes the snapshot has, and a checksum of all chunks of rows.
const (
	chunkRows = 0
	chunkEnd  = 1
	chunkHead = 5
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// Position is a place between two chunks: what is before it.
type Position struct {
	Chunks, Rows, Bytes uint64
	// Sum is a checksum of all chunks before.
	Sum uint32
}

// AppendPosition encodes a position.
func AppendPosition(dst []byte, p Position) []byte {
	for _, field := range [...]uint64{p.Chunks, p.Rows, p.Bytes, uint64(p.Sum)} {
		dst = binary.AppendUvarint(dst, field)
	}
	return dst
}

// DecodePosition decodes a position, and nothing else.
func DecodePosition(data []byte) (Position, error) {
	d := decoder{src: data}
	p := Position{Chunks: d.uvarint(), Rows: d.uvarint(), Bytes: d.uvarint()}
	sum := d.uvarint()
	if d.bad || len(d.src) > 0 || sum > 1<<32-1 {
		return Position{}, fmt.Errorf("snapshot position: %w", ErrMalformed)
	}
	p.Sum = uint32(sum)
	return p, nil
}

// Totals add up a snapshot, on either side. To set Position is to go on from there.
type Totals struct {
	Position
	ended bool
}

// Chunk collects rows.
type Chunk struct {
	buf  []byte
	rows uint64
}

// Add adds a row, which it copies.
func (c *Chunk) Add(key, value []byte) {
	if len(c.buf) == 0 {
		c.buf = append(c.buf, 0, 0, 0, 0, chunkRows)
	}
	c.buf = binary.AppendUvarint(c.buf, uint64(len(key)))
	c.buf = append(c.buf, key...)
	c.buf = binary.AppendUvarint(c.buf, uint64(len(value)))
	c.buf = append(c.buf, value...)
	c.rows++
}

// Bytes is the chunk's size so far.
func (c *Chunk) Bytes() int { return len(c.buf) }

// Take returns the chunk as bytes, counted, and starts the next one.
func (t *Totals) Take(c *Chunk) []byte {
	buf := c.buf
	t.count(c.rows, buf[chunkHead:])
	binary.BigEndian.PutUint32(buf, crc32.Checksum(buf[4:], castagnoli))
	*c = Chunk{}
	return buf
}

func (t *Totals) count(rows uint64, body []byte) {
	t.Chunks++
	t.Rows += rows
	t.Bytes += uint64(len(body))
	t.Sum = crc32.Update(t.Sum, castagnoli, body)
}

// End returns the last chunk.
func (t *Totals) End() []byte {
	buf := []byte{0, 0, 0, 0, chunkEnd}
	buf = binary.AppendUvarint(buf, t.Rows)
	buf = binary.AppendUvarint(buf, t.Bytes)
	buf = binary.BigEndian.AppendUint32(buf, t.Sum)
	binary.BigEndian.PutUint32(buf, crc32.Checksum(buf[4:], castagnoli))
	t.ended = true
	return buf
}

// Read verifies a chunk, adds it to the totals and calls fn with each of its rows, which alias it.
func (t *Totals) Read(chunk []byte, fn func(key, value []byte)) error {
	if t.ended {
		return fmt.Errorf("snapshot: %w: a chunk behind the last one", ErrMalformed)
	}
	if len(chunk) < chunkHead {
		return fmt.Errorf("snapshot: %w: a chunk of %d bytes", ErrMalformed, len(chunk))
	}
	if crc32.Checksum(chunk[4:], castagnoli) != binary.BigEndian.Uint32(chunk) {
		return fmt.Errorf("snapshot: %w in a chunk of %d bytes behind row %d", ErrChecksum, len(chunk), t.Rows)
	}
	kind, body := chunk[4], chunk[chunkHead:]
	d := decoder{src: body}
	switch kind {
	case chunkRows:
		rows := uint64(0)
		for len(d.src) > 0 {
			key, value := d.bytes(), d.bytes()
			if d.bad {
				return fmt.Errorf("snapshot: %w: row %d", ErrMalformed, t.Rows+rows+1)
			}
			fn(key, value)
			rows++
		}
		t.count(rows, body)
		return nil
	case chunkEnd:
		rows, bytes := d.uvarint(), d.uvarint()
		if d.bad || len(d.src) != 4 {
			return fmt.Errorf("snapshot: %w: its end", ErrMalformed)
		}
		if sum := binary.BigEndian.Uint32(d.src); rows != t.Rows || bytes != t.Bytes || sum != t.Sum {
			return fmt.Errorf("snapshot: %w: %d rows of %d bytes were sent, %d of %d arrived", ErrChecksum, rows, bytes, t.Rows, t.Bytes)
		}
		t.ended = true
		return nil
	}
	return fmt.Errorf("snapshot: %w: chunk of kind %d", ErrVersion, kind)
}

// Ended is whether the last chunk was read and everything before it was there.
func (t *Totals) Ended() bool { return t.ended }
