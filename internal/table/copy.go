package table

import (
	"encoding/binary"

	"github.com/perdure/perdure/internal/invocation"
)

// Copy is the value of a row that an invocation has as long as it is given the first entries of the
// journal of another one, which it was restarted from. It does not start before it has them all.
type Copy struct {
	Source invocation.ID
	// Through is the last entry that it is given.
	Through uint32
	// Next is the entry that is copied next, and Part the first part of its value that is not yet.
	Next, Part uint32
}

// Done reports whether all is copied.
func (c Copy) Done() bool { return c.Next > c.Through }

// Append appends the row's value to dst.
func (c Copy) Append(dst []byte) []byte {
	dst = append(dst, c.Source[:]...)
	for _, n := range []uint32{c.Through, c.Next, c.Part} {
		dst = binary.AppendUvarint(dst, uint64(n))
	}
	return dst
}

// ParseCopy reads a Copy row's value.
func ParseCopy(value []byte) (Copy, error) {
	if len(value) < invocation.IDBytes {
		return Copy{}, ErrMalformedKey
	}
	c := Copy{Source: invocation.ID(value[:invocation.IDBytes])}
	rest := value[invocation.IDBytes:]
	for _, into := range []*uint32{&c.Through, &c.Next, &c.Part} {
		n, size := binary.Uvarint(rest)
		if size <= 0 || n > 1<<32-1 {
			return Copy{}, ErrMalformedKey
		}
		*into, rest = uint32(n), rest[size:]
	}
	if len(rest) > 0 {
		return Copy{}, ErrMalformedKey
	}
	return c, nil
}

// CopyKey is the key of an invocation's Copy.
func CopyKey(id invocation.ID) []byte { return byID(tableCopy, id, 0) }

// CopyAll is the range of all Copy rows.
func CopyAll() (lower, upper []byte) { return []byte{tableCopy}, []byte{tableCopy + 1} }
