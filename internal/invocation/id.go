// Package invocation is the vocabulary that every layer shares: what an invocation is called,
// what it is aimed at, which mode and status it has, and which partition it lives in. It
// imports nothing of this project.
package invocation

import (
	"crypto/sha256"
	"encoding/base32"
	"encoding/binary"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/cespare/xxhash/v2"
)

// IDBytes is the length of an ID: 8 bytes of partition hash and 16 that tell invocations of
// one partition apart.
const IDBytes = 24

// ID names one invocation for ever. It carries the hash that decides its partition, so any
// node can route by id alone. The zero value is no invocation.
type ID [IDBytes]byte

const idPrefix = "inv_"

// Lower-case base32 sorts as the bytes do and survives URLs, double clicks and phones.
var idEncoding = base32.NewEncoding("0123456789abcdefghjkmnpqrstvwxyz").WithPadding(base32.NoPadding)

// NewID makes an id from a partition hash and 16 unique bytes (see uuid.NewV7).
func NewID(hash uint64, unique [16]byte) ID {
	var id ID
	binary.BigEndian.PutUint64(id[:8], hash)
	copy(id[8:], unique[:])
	return id
}

// DerivedID makes the id of a call with an idempotency key, of a WORKFLOW's run, or of a call
// made by an entry of another invocation: the same target and discriminator always have the
// same id, so that deduplication is a lookup by id.
func DerivedID(target Target, kind string, discriminator ...string) ID {
	// Parts are length-prefixed, so that ("ab","c") and ("a","bc") differ.
	digest := sha256.New()
	var size [8]byte
	for _, part := range append([]string{kind, target.Service, target.Key, target.Handler}, discriminator...) {
		binary.BigEndian.PutUint64(size[:], uint64(len(part)))
		digest.Write(size[:])
		digest.Write([]byte(part))
	}
	sum := digest.Sum(nil)
	hash := target.Hash()
	if target.Key == "" { // A SERVICE has no key: spread its calls by their own identity.
		hash = binary.BigEndian.Uint64(sum[16:24])
	}
	return NewID(hash, [16]byte(sum[:16]))
}

// ErrBadID is returned by ParseID.
var ErrBadID = errors.New("not an invocation id")

// ParseID reads what String wrote.
func ParseID(text string) (ID, error) {
	var id ID
	digits, ok := strings.CutPrefix(text, idPrefix)
	if !ok || len(digits) != idEncoding.EncodedLen(IDBytes) {
		return id, fmt.Errorf("%q is %w: it is %q followed by %d letters and digits", clip(text), ErrBadID, idPrefix, idEncoding.EncodedLen(IDBytes))
	}
	if _, err := idEncoding.Decode(id[:], []byte(digits)); err != nil {
		return ID{}, fmt.Errorf("%q is %w: %v", clip(text), ErrBadID, err)
	}
	if id.String() != text { // line breaks, which base32 skips, and bits beyond the last byte
		return ID{}, fmt.Errorf("%q is %w", clip(text), ErrBadID)
	}
	return id, nil
}

func clip(text string) string {
	if len(text) > 80 {
		return text[:80] + "…"
	}
	return text
}

// IDFromBytes reads an id from a record; ok is false unless data has IDBytes bytes.
func IDFromBytes(data []byte) (id ID, ok bool) {
	if len(data) != IDBytes {
		return ID{}, false
	}
	return ID(data), true
}

// String is the form users see: "inv_" and 39 letters and digits.
func (id ID) String() string {
	out := make([]byte, len(idPrefix)+idEncoding.EncodedLen(IDBytes))
	copy(out, idPrefix)
	idEncoding.Encode(out[len(idPrefix):], id[:])
	return string(out)
}

// IsZero reports whether id is no invocation.
func (id ID) IsZero() bool { return id == ID{} }

// Hash is the partition hash the id carries.
func (id ID) Hash() uint64 { return binary.BigEndian.Uint64(id[:8]) }

// Partition is the partition, from 1 to count, that the invocation lives in.
func (id ID) Partition(count uint32) uint32 { return PartitionOf(id.Hash(), count) }

const awakeablePrefix = "awk_"

// NonceBytes is the length of a nonce.
const NonceBytes = 5

// Nonce tells one run of an id from the next: an id that is derived from a key begins anew after it
// was purged, or when its retention is over, with entries of the same indexes. The nonce is made of
// the id and of when the run began, in milliseconds since 1970 UTC, as the ids of its calls and its
// random numbers are, so it is the same in every attempt. It is never 0.
func (id ID) Nonce(startedAt int64) uint64 {
	digest := sha256.New()
	digest.Write(id[:])
	digest.Write(binary.BigEndian.AppendUint64(nil, uint64(startedAt)))
	var low [8]byte
	copy(low[8-NonceBytes:], digest.Sum(nil))
	return max(binary.BigEndian.Uint64(low[:]), 1)
}

// AwakeableID names the awakeable that an invocation made as a journal entry.
type AwakeableID struct {
	Invocation ID
	Entry      uint32
	// Nonce of the run that made it. 0: the entry was made for a cluster with nodes that knew of none.
	Nonce uint64
}

// String is the form users see: "awk_", the id's 39 letters and digits, and the entry's index; then
// the nonce's 8, if it is not 0.
func (a AwakeableID) String() string {
	text := awakeablePrefix + strings.TrimPrefix(a.Invocation.String(), idPrefix) + "_" + strconv.FormatUint(uint64(a.Entry), 10)
	if a.Nonce != 0 {
		text += "_" + idEncoding.EncodeToString(binary.BigEndian.AppendUint64(nil, a.Nonce)[8-NonceBytes:])
	}
	return text
}

// ErrBadAwakeableID is returned by ParseAwakeableID.
var ErrBadAwakeableID = errors.New("not an awakeable id")

// ParseAwakeableID reads what AwakeableID.String wrote.
func ParseAwakeableID(text string) (AwakeableID, error) {
	rest, ok := strings.CutPrefix(text, awakeablePrefix)
	digits, rest, found := strings.Cut(rest, "_")
	if ok && found {
		index, nonce, _ := strings.Cut(rest, "_")
		id, err := ParseID(idPrefix + digits)
		entry, numErr := strconv.ParseUint(index, 10, 32)
		a := AwakeableID{Invocation: id, Entry: uint32(entry)}
		if last, nonceErr := idEncoding.DecodeString(nonce); err == nil && numErr == nil && nonceErr == nil && len(last) <= NonceBytes {
			a.Nonce = binary.BigEndian.Uint64(append(make([]byte, 8-len(last)), last...))
			if a.String() == text {
				return a, nil
			}
		}
	}
	return AwakeableID{}, fmt.Errorf("%q is %w: it is what a handler's awakeable said its ID() is", clip(text), ErrBadAwakeableID)
}

// PartitionOf maps a hash to a partition from 1 to count (group 0 is the cluster's own).
func PartitionOf(hash uint64, count uint32) uint32 { return uint32(hash%uint64(count)) + 1 }

// Hash decides the target's partition: all handlers of one object share it. Frozen: a change
// would lose every object (see TestHashIsFrozen).
func (t Target) Hash() uint64 {
	var d xxhash.Digest
	d.Reset()
	_, _ = d.WriteString(t.Service)
	_, _ = d.Write([]byte{0})
	_, _ = d.WriteString(t.Key)
	return d.Sum64()
}
