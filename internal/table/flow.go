package table

import (
	"encoding/binary"

	"github.com/perdure/perdure/internal/invocation"
)

func named(table byte, name string, extra int) []byte {
	return appendText(append(make([]byte, 0, 1+2+len(name)+extra), table), name)
}

// Limit is the key of a limit's row, which the rows of its permits follow.
func Limit(name string) []byte { return named(tableLimit, name, 0) }

// Permit is the key of the permit that an invocation holds.
func Permit(name string, id invocation.ID) []byte {
	return append(named(tableLimit, name, invocation.IDBytes), id[:]...)
}

// LimitsFrom is the range of the limits from name on, in the order of their keys, with their
// permits.
func LimitsFrom(name string) (lower, upper []byte) {
	if name == "" {
		return []byte{tableLimit}, []byte{tableLimit + 1}
	}
	return named(tableLimit, name, 0), []byte{tableLimit + 1}
}

// PermitsOf is the range of a limit's permits.
func PermitsOf(name string) (lower, upper []byte) {
	prefix := named(tableLimit, name, 0)
	return append(prefix[:len(prefix):len(prefix)], 0), Successor(prefix)
}

// ParseLimit returns what Limit, or Permit, was given; id is zero for a limit.
func ParseLimit(key []byte) (name string, id invocation.ID, err error) {
	name, rest, err := parseNamed(tableLimit, key)
	if err != nil || len(rest) != 0 && len(rest) != invocation.IDBytes {
		return "", id, ErrMalformedKey
	}
	copy(id[:], rest)
	if len(rest) > 0 && id.IsZero() {
		return "", id, ErrMalformedKey
	}
	return name, id, nil
}

// Wait is the key of one that waits for a permit: those of a limit are in the order in which
// they begin.
func Wait(name string, band uint8, rank, sequence uint64) []byte {
	key := append(named(tableWait, name, 17), band)
	return binary.BigEndian.AppendUint64(binary.BigEndian.AppendUint64(key, rank), sequence)
}

// WaitsOf is the range of those that wait for a permit of a limit, and WaitsAll that of all.
func WaitsOf(name string) (lower, upper []byte) {
	prefix := named(tableWait, name, 0)
	return prefix, Successor(prefix)
}

// WaitsAll is the range of all that wait for permits.
func WaitsAll() (lower, upper []byte) { return []byte{tableWait}, []byte{tableWait + 1} }

// ParseWait returns what Wait was given.
func ParseWait(key []byte) (name string, band uint8, rank, sequence uint64, err error) {
	name, rest, err := parseNamed(tableWait, key)
	if err != nil || len(rest) != 17 {
		return "", 0, 0, 0, ErrMalformedKey
	}
	return name, rest[0], binary.BigEndian.Uint64(rest[1:]), binary.BigEndian.Uint64(rest[9:]), nil
}

// Rule is the key of a rule for limits. Names sort as they are.
func Rule(name string) []byte {
	return append(append(make([]byte, 0, 1+len(name)), tableRule), name...)
}

// RuleBook is the key of what is known of all rules together; it comes before them.
func RuleBook() []byte { return Rule("") }

// RulesAll is the range of the rule book, with all rules.
func RulesAll() (lower, upper []byte) { return []byte{tableRule}, []byte{tableRule + 1} }

// ParseRule returns what Rule was given, and nothing for the RuleBook.
func ParseRule(key []byte) (name string, err error) {
	if len(key) == 0 || key[0] != tableRule {
		return "", ErrMalformedKey
	}
	return string(key[1:]), nil
}

func parseNamed(table byte, key []byte) (name string, rest []byte, err error) {
	if len(key) == 0 || key[0] != table {
		return "", nil, ErrMalformedKey
	}
	n, size := binary.Uvarint(key[1:])
	if size <= 0 || n > uint64(len(key)-1-size) {
		return "", nil, ErrMalformedKey
	}
	rest = key[1+size:]
	return string(rest[:n]), rest[n:], nil
}
