package table

import (
	"encoding/binary"
	"fmt"

	"github.com/perdure/perdure/internal/invocation"
	recordv1 "github.com/perdure/perdure/internal/record/v1"
)

// Active is the value of an Active row: what a new leader must know of an invocation without
// reading its row, so that a hundred thousand suspended ones cost one scan.
type Active struct {
	Status recordv1.Status
	// Object is set if the invocation holds or waits for that object's key.
	Object invocation.Object
	// InboxSequence orders those that wait for a key.
	InboxSequence uint64
}

// Append appends the row's value to dst.
func (a Active) Append(dst []byte) []byte {
	dst = append(dst, byte(a.Status))
	dst = binary.AppendUvarint(dst, a.InboxSequence)
	return appendText(appendText(dst, a.Object.Service), a.Object.Key)
}

// ParseActive reads an Active row's value.
func ParseActive(value []byte) (Active, error) {
	if len(value) < 2 {
		return Active{}, ErrMalformedKey
	}
	a := Active{Status: recordv1.Status(value[0])}
	rest := value[1:]
	sequence, n := binary.Uvarint(rest)
	if n <= 0 {
		return Active{}, ErrMalformedKey
	}
	a.InboxSequence, rest = sequence, rest[n:]
	for _, text := range []*string{&a.Object.Service, &a.Object.Key} {
		size, n := binary.Uvarint(rest)
		if n <= 0 || size > uint64(len(rest)-n) {
			return Active{}, ErrMalformedKey
		}
		*text, rest = string(rest[n:n+int(size)]), rest[n+int(size):]
	}
	return a, nil
}

// AppendNumber and ParseNumber are the values of counters.
func AppendNumber(dst []byte, n uint64) []byte { return binary.AppendUvarint(dst, n) }

// ParseNumber reads a counter; a missing one (nil) is 0.
func ParseNumber(value []byte) (uint64, error) {
	if value == nil {
		return 0, nil
	}
	n, size := binary.Uvarint(value)
	if size != len(value) {
		return 0, ErrMalformedKey
	}
	return n, nil
}

// Reader is where rows are read from.
type Reader interface {
	// Get returns the value of a key.
	Get(key []byte) (value []byte, ok bool, err error)
}

// GetNumber reads a row that is a number, 0 if it is not there.
func GetNumber(rows Reader, key []byte) (uint64, error) {
	value, _, err := rows.Get(key)
	if err != nil {
		return 0, err
	}
	n, err := ParseNumber(value)
	if err != nil {
		return 0, fmt.Errorf("decode row %q: %w", key, err)
	}
	return n, nil
}
