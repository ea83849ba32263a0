package table

import (
	"encoding/binary"
	"errors"
)

// A state of version 1 is the message as it is, as all were before there were versions. One of a
// later version has this byte before its version: no message begins with it, since fields count
// from 1, so that a build that knows no versions refuses the state instead of misreading it.
const versioned = 0

// ErrStateVersion is of a state whose version can't be read.
var ErrStateVersion = errors.New("table: malformed version of a state")

// AppendState appends a state message as it is stored.
func AppendState(dst []byte, version uint32, message []byte) []byte {
	if version > 1 {
		dst = binary.AppendUvarint(append(dst, versioned), uint64(version))
	}
	return append(dst, message...)
}

// ParseState returns the version, from 1, and the message of a stored state.
func ParseState(value []byte) (version uint32, message []byte, err error) {
	if len(value) == 0 || value[0] != versioned {
		return 1, value, nil
	}
	n, size := binary.Uvarint(value[1:])
	if size <= 0 || n < 2 || n > 1<<32-1 {
		return 0, nil, ErrStateVersion
	}
	return uint32(n), value[1+size:], nil
}
