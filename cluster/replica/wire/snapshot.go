package wire

import (
	"encoding/binary"
	"fmt"
	"hash/crc32"
)

// snapshotFormat is the first byte of a header.
const snapshotFormat = 1

// Header says what a snapshot is of.
type Header struct {
	// Life is the sender's.
	Life uint64
	// Applied is the row by which the store says how far it is, as the sender's store has it.
	Applied []byte
	// Message is the raft message that the snapshot belongs to.
	Message []byte
}

// AppendHeader encodes a header.
func AppendHeader(dst []byte, h Header) []byte {
	dst = append(dst, snapshotFormat)
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
	h := Header{Life: d.uvarint(), Applied: d.bytes(), Message: d.bytes()}
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

// Totals add up a snapshot, on either side.
type Totals struct {
	Rows, Bytes uint64
	sum         uint32
	ended       bool
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
	t.Rows += rows
	t.Bytes += uint64(len(body))
	t.sum = crc32.Update(t.sum, castagnoli, body)
}

// End returns the last chunk.
func (t *Totals) End() []byte {
	buf := []byte{0, 0, 0, 0, chunkEnd}
	buf = binary.AppendUvarint(buf, t.Rows)
	buf = binary.AppendUvarint(buf, t.Bytes)
	buf = binary.BigEndian.AppendUint32(buf, t.sum)
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
		if sum := binary.BigEndian.Uint32(d.src); rows != t.Rows || bytes != t.Bytes || sum != t.sum {
			return fmt.Errorf("snapshot: %w: %d rows of %d bytes were sent, %d of %d arrived", ErrChecksum, rows, bytes, t.Rows, t.Bytes)
		}
		t.ended = true
		return nil
	}
	return fmt.Errorf("snapshot: %w: chunk of kind %d", ErrVersion, kind)
}

// Ended is whether the last chunk was read and everything before it was there.
func (t *Totals) Ended() bool { return t.ended }
