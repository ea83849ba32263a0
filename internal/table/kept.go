package table

import (
	"encoding/binary"
)

// The kinds of rows that an object has.
const (
	KindState   = tableState
	KindRow     = tableRow
	KindPromise = tablePromise
	KindSignal  = tableSignal
)

// ObjectsOf is the range of all rows of a kind.
func ObjectsOf(kind byte) (lower, upper []byte) { return []byte{kind}, []byte{kind + 1} }

// ParseService returns the service of a row of an object, and the key after the last row of that
// kind and service.
func ParseService(key []byte) (service string, next []byte, err error) {
	if len(key) == 0 {
		return "", nil, ErrMalformedKey
	}
	n, size := binary.Uvarint(key[1:])
	if size <= 0 || n > uint64(len(key)-1-size) {
		return "", nil, ErrMalformedKey
	}
	end := 1 + size + int(n)
	return string(key[1+size : end]), Successor(key[:end]), nil
}
