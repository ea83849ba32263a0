// Package rows says how a host's rows lie in its store: under which keys, how many of them fit one
// batch, and how the log's entries carry them there.
package rows

import (
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/perdure/perdure/storage"
)

const (
	// PrefixBytes is the length of what begins each key of a group.
	PrefixBytes = 3
	// MaxGroup is the highest group: 0xffff is the prefix of the host's own keys.
	MaxGroup = 0xfffe
)

const maxPayloadKeyBytes = storage.MaxKeyBytes - PrefixBytes

// Prefix begins every key of a group's generation: uint16 big endian, uint8.
func Prefix(group uint32, generation uint8) [PrefixBytes]byte {
	return [PrefixBytes]byte{byte(group >> 8), byte(group), generation}
}

// Own is a kind of the host's own rows, of which each group has one at most. They are under the system
// prefix and a letter.
type Own [3]byte

// The kinds: how far a group is applied, how far it will be once a snapshot that is wholly here is in use,
// and of which snapshot a part is here.
var (
	Applied = Own{0xff, 0xff, 'a'}
	Staged  = Own{0xff, 0xff, 's'}
	Partial = Own{0xff, 0xff, 'p'}
)

// Key is that of a group's row.
func (o Own) Key(group uint32) []byte { return binary.BigEndian.AppendUint32(o[:len(o):len(o)], group) }

// Group is the group of a row, by its key.
func (o Own) Group(key []byte) (group uint32, ok bool) {
	if len(key) != len(o)+4 || Own(key[:len(o)]) != o {
		return 0, false
	}
	return binary.BigEndian.Uint32(key[len(o):]), true
}

// Scan calls fn with all rows of the kind, until it returns false.
func (o Own) Scan(store storage.Snapshot, fn func(key, value []byte) bool) error {
	upper := o
	upper[len(upper)-1]++
	return store.Scan(o[:], upper[:], fn)
}

// View is the store's snapshot seen through one prefix. It is safe for concurrent use, as the snapshot is.
type View struct {
	store        storage.Snapshot
	lower, upper [PrefixBytes]byte // the prefix, and the first one after it
}

// NewView makes a view of a snapshot, which it releases.
func NewView(store storage.Snapshot, prefix [PrefixBytes]byte) *View {
	upper := prefix
	for i := PrefixBytes - 1; i >= 0; i-- {
		if upper[i]++; upper[i] != 0 {
			break // never runs out: groups stay below 0xffff
		}
	}
	return &View{store: store, lower: prefix, upper: upper}
}

// Key is the store's key of a key in the view.
func (v *View) Key(key []byte) []byte { return append(v.lower[:PrefixBytes:PrefixBytes], key...) }

// Get implements storage.Snapshot.
func (v *View) Get(key []byte) ([]byte, bool, error) { return v.store.Get(v.Key(key)) }

// Scan implements storage.Snapshot.
func (v *View) Scan(lower, upper []byte, fn func(key, value []byte) bool) error {
	to := v.upper[:]
	if upper != nil {
		to = v.Key(upper)
	}
	return v.store.Scan(v.Key(lower), to, func(key, value []byte) bool { return fn(key[PrefixBytes:], value) })
}

// Release implements storage.Snapshot.
func (v *View) Release() { v.store.Release() }

// Errors that callers branch on.
var (
	// ErrMalformed says that bytes are not what the format allows.
	ErrMalformed = errors.New("malformed")
	// ErrNewerFormat says that they are of a newer build.
	ErrNewerFormat = errors.New("replica: format version is newer than this build")
	// ErrTooLarge says that a payload is more than the store could take.
	ErrTooLarge = errors.New("replica: record too large")
)

// Record is what an entry of the log holds: Payload is the mutations of (Epoch, Sequence).
type Record struct {
	Epoch, Sequence uint64
	Payload         []byte
}

// RecordFormat is the newest format that this build reads, with all before it. The first byte of a record
// says its format.
const RecordFormat = byte(len(formatLevels))

// formatOf is the newest format that whoever reads records up to a feature level reads: see package registry.
func formatOf(level uint32) byte {
	format := byte(1)
	for format < RecordFormat && (formatLevels[format] <= level || bugLevel) {
		format++
	}
	return format
}

const recordHeaderBytes = 1 + 2*binary.MaxVarintLen64 // at most

// EncodeRecord puts the header before the payload, in the newest format that nodes of a feature level read.
func EncodeRecord(level uint32, epoch, sequence uint64, payload []byte) []byte {
	data := make([]byte, 0, recordHeaderBytes+len(payload))
	data = append(data, formatOf(level))
	data = binary.AppendUvarint(data, epoch)
	data = binary.AppendUvarint(data, sequence)
	return append(data, payload...)
}

// DecodeRecord reads an entry, whose memory the payload shares. Errors: ErrMalformed, ErrNewerFormat.
func DecodeRecord(data []byte) (Record, error) {
	if len(data) == 0 || data[0] == 0 {
		return Record{}, ErrMalformed
	}
	if data[0] > RecordFormat {
		return Record{}, fmt.Errorf("%w: %d, this build knows up to %d", ErrNewerFormat, data[0], RecordFormat)
	}
	epoch, n := binary.Uvarint(data[1:])
	if n <= 0 {
		return Record{}, ErrMalformed
	}
	at := 1 + n
	sequence, n := binary.Uvarint(data[at:])
	if n <= 0 {
		return Record{}, ErrMalformed
	}
	return Record{epoch, sequence, data[at+n:]}, nil
}

// Limits bound one record, and what is merged into one batch of the store.
type Limits struct{ Bytes, Writes int }

// LimitsOf leaves room in a batch of the store, and in maxBytes, for the applied rows of so many groups.
func LimitsOf(store storage.Store, maxBytes, groups int) (Limits, error) {
	const appliedRowBytes = 512
	l := Limits{Bytes: maxBytes, Writes: 30_000}
	if store, ok := store.(interface{ MaxBatchBytes() int }); ok {
		l.Bytes = min(l.Bytes, store.MaxBatchBytes()-appliedRowBytes*groups)
	}
	if store, ok := store.(interface{ MaxBatchOps() int }); ok {
		l.Writes = min(l.Writes, store.MaxBatchOps()-groups)
	}
	if l.Bytes <= 0 || l.Writes <= 0 {
		return l, fmt.Errorf("replica: a batch of the store has no room for the state of %d groups; raise the store's memory budget", groups)
	}
	return l, nil
}

// Check refuses what could not be applied later: once in the log, a record that the store cannot take would
// halt the group on every replica. Errors are ErrTooLarge and storage.ErrMalformed.
func (l Limits) Check(payload []byte) error {
	writes, longestKey, longestValue := 0, 0, 0
	err := storage.DecodeBatch(payload, func(op storage.Op) {
		writes++
		longestKey = max(longestKey, len(op.Key))
		longestValue = max(longestValue, len(op.Value))
	})
	switch {
	case err != nil:
		return err
	case len(payload)+PrefixBytes*writes > l.Bytes:
		return fmt.Errorf("%w: %d bytes, at most %d; split it", ErrTooLarge, len(payload)+PrefixBytes*writes, l.Bytes)
	case writes > l.Writes:
		return fmt.Errorf("%w: %d writes, at most %d; split it", ErrTooLarge, writes, l.Writes)
	case longestKey > maxPayloadKeyBytes:
		return fmt.Errorf("%w: a key of %d bytes, at most %d", ErrTooLarge, longestKey, maxPayloadKeyBytes)
	case longestValue > storage.MaxValueBytes:
		return fmt.Errorf("%w: a value of %d bytes, at most %d; split it", ErrTooLarge, longestValue, storage.MaxValueBytes)
	}
	return nil
}

// Split cuts a batch of Puts into what the store takes at once.
func (l Limits) Split(batch *storage.Batch) []*storage.Batch {
	if batch.Bytes() <= l.Bytes && batch.Len() <= l.Writes {
		return []*storage.Batch{batch}
	}
	var parts []*storage.Batch
	part := &storage.Batch{}
	for _, op := range batch.Ops() {
		if size := len(op.Key) + len(op.Value); part.Len() > 0 && (part.Bytes()+size > l.Bytes || part.Len() >= l.Writes) {
			parts, part = append(parts, part), &storage.Batch{}
		}
		part.Put(op.Key, op.Value)
	}
	return append(parts, part)
}

// TakeUvarints reads up to six numbers from the beginning of data. Error: ErrMalformed.
func TakeUvarints(data []byte, count int) (fields [6]uint64, rest []byte, err error) {
	for i := range count {
		value, n := binary.Uvarint(data)
		if n <= 0 {
			return fields, nil, ErrMalformed
		}
		fields[i], data = value, data[n:]
	}
	return fields, data, nil
}
