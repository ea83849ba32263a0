package storage

import (
	"encoding/binary"
	"errors"
	"fmt"
)

// MaxValueBytes is the largest value a batch takes: larger ones must be split by the layer
// above. Below 512 KiB Badger never uses its value log, whose garbage collection is where its
// data bugs were.
const MaxValueBytes = 512<<10 - 1

// MaxKeyBytes is the longest key a batch takes. Badger's tables hold key lengths in 16 bits.
const MaxKeyBytes = 64_000

// Op is one write of a batch.
type Op struct {
	// Key of the row, at most MaxKeyBytes long.
	Key []byte
	// Value to write, at most MaxValueBytes; nil if Delete is set.
	Value []byte
	// Delete removes the row; that there is none is no error.
	Delete bool
}

// Batch is a list of writes that take effect together. A later write of a key wins.
// The zero value is ready to use. It is not safe for concurrent use.
type Batch struct {
	ops   []Op
	bytes int
}

// Put sets key to value. The batch keeps both slices: they must not change until it is
// committed.
func (b *Batch) Put(key, value []byte) {
	b.ops = append(b.ops, Op{Key: key, Value: value})
	b.bytes += len(key) + len(value)
}

// Delete removes key, whether it exists or not. The batch keeps the slice.
func (b *Batch) Delete(key []byte) {
	b.ops = append(b.ops, Op{Key: key, Delete: true})
	b.bytes += len(key)
}

// Ops returns the writes in order. The slice belongs to the batch.
func (b *Batch) Ops() []Op { return b.ops }

// Len is the number of writes.
func (b *Batch) Len() int { return len(b.ops) }

// Bytes is the size of all keys and values.
func (b *Batch) Bytes() int { return b.bytes }

// CheckSizes returns ErrTooLarge, naming the key, for the first key above MaxKeyBytes or value
// above MaxValueBytes. Backends call it.
func (b *Batch) CheckSizes() error {
	for _, op := range b.ops {
		if len(op.Key) > MaxKeyBytes {
			return fmt.Errorf("%w: a key of %d bytes, at most %d: %.40q", ErrTooLarge, len(op.Key), MaxKeyBytes, op.Key)
		}
		if len(op.Value) > MaxValueBytes {
			return fmt.Errorf("%w: a value of %d bytes, at most %d: split it; key %.40q", ErrTooLarge, len(op.Value), MaxValueBytes, op.Key)
		}
	}
	return nil
}

// Reset empties the batch and keeps its memory.
func (b *Batch) Reset() {
	clear(b.ops)
	b.ops, b.bytes = b.ops[:0], 0
}

// ErrMalformed is returned by Decode for bytes that AppendEncoded did not write.
var ErrMalformed = errors.New("storage: malformed batch")

// AppendEncoded appends the batch's encoding to dst: for each write, uvarint(len(key))<<1|delete,
// the key, and for a put uvarint(len(value)) and the value.
func (b *Batch) AppendEncoded(dst []byte) []byte {
	for _, op := range b.ops {
		head := uint64(len(op.Key)) << 1
		if op.Delete {
			head |= 1
		}
		dst = binary.AppendUvarint(dst, head)
		dst = append(dst, op.Key...)
		if !op.Delete {
			dst = binary.AppendUvarint(dst, uint64(len(op.Value)))
			dst = append(dst, op.Value...)
		}
	}
	return dst
}

// DecodeBatch calls fn for each write of an encoding, in order. The slices alias data.
// It returns ErrMalformed, with the offset, for damaged input; fn may have been called before.
func DecodeBatch(data []byte, fn func(op Op)) error {
	take := func(at, n uint64) ([]byte, error) {
		if n > uint64(len(data))-at {
			return nil, fmt.Errorf("%w: %d bytes wanted at offset %d of %d", ErrMalformed, n, at, len(data))
		}
		return data[at : at+n : at+n], nil
	}
	for at := uint64(0); at < uint64(len(data)); {
		head, n := binary.Uvarint(data[at:])
		if n <= 0 {
			return fmt.Errorf("%w: bad key length at offset %d", ErrMalformed, at)
		}
		at += uint64(n)
		key, err := take(at, head>>1)
		if err != nil {
			return err
		}
		at += uint64(len(key))
		op := Op{Key: key, Delete: head&1 == 1}
		if !op.Delete {
			size, n := binary.Uvarint(data[at:])
			if n <= 0 {
				return fmt.Errorf("%w: bad value length at offset %d", ErrMalformed, at)
			}
			at += uint64(n)
			if op.Value, err = take(at, size); err != nil {
				return err
			}
			at += uint64(len(op.Value))
		}
		fn(op)
	}
	return nil
}
