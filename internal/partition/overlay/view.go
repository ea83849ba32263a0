// Package overlay is what a partition reads: the store, and over it the writes of its records that
// are not in the store yet, each reader's as of the record that it may see.
package overlay

import (
	"encoding/binary"
	"errors"
	"fmt"
	"sync"
	"unsafe"

	"github.com/tidwall/btree"

	"github.com/perdure/perdure/internal/engine"
	"github.com/perdure/perdure/internal/table"
	"github.com/perdure/perdure/storage"
)

// View is the partition's data: the store, and over it the writes of every record that is not
// in the store yet. Each write keeps the sequence of its record, so that the leader sees all
// of them, READ handlers only those that are durable, and a handler that started on a snapshot
// goes on seeing that one.
//
// The partition's goroutine writes; handlers and READ calls read concurrently.
type View struct {
	mu struct {
		sync.RWMutex
		overlay *btree.Map[string, *cell]
		// batches lists what each record not in the store wrote, oldest first.
		batches []batch
		// base is the store as of applied: it holds every record up to that one.
		base    *base
		applied uint64
		// durable is the newest record on disk; applied ≤ durable.
		durable uint64
		bytes   int
		// pins counts the snapshots in use by the applied they were taken at.
		pins map[uint64]int
		// chunked: there may be values in parts, so whoever overwrites must look.
		chunked bool
	}
	// scratch is encode's.
	scratch storage.Batch
}

// cell is what records not in the store have made of a key. It is in the overlay as long as it has
// versions, oldest first.
type cell struct {
	key      string
	versions []version
	first    [1]version // the memory of most cells' only version
}

type version struct {
	sequence uint64
	value    []byte
	deleted  bool
}

// batch has the cells that a record wrote: to look each up again, to encode it and to forget it,
// was more than to write it.
type batch struct {
	sequence uint64
	cells    []*cell
}

// base is a store snapshot shared by everybody who started on it.
type base struct {
	snapshot storage.Snapshot
	mu       struct {
		sync.Mutex
		users int
	}
}

func (b *base) acquire() {
	b.mu.Lock()
	b.mu.users++
	b.mu.Unlock()
}

func (b *base) release() {
	b.mu.Lock()
	b.mu.users--
	last := b.mu.users == 0
	b.mu.Unlock()
	if last {
		b.snapshot.Release()
	}
}

func newBase(snapshot storage.Snapshot) *base {
	b := &base{snapshot: snapshot}
	b.mu.users = 1
	return b
}

// New makes a view of a store of which snapshot is, and which it releases.
func New(snapshot storage.Snapshot) (*View, error) {
	v := &View{}
	v.mu.overlay = btree.NewMap[string, *cell](0)
	v.mu.pins = map[uint64]int{}
	v.mu.base = newBase(snapshot)
	lower, upper := table.Chunks()
	err := snapshot.Scan(lower, upper, func(_, _ []byte) bool {
		v.mu.chunked = true
		return false
	})
	if err != nil {
		v.Close()
		return nil, err
	}
	return v, nil
}

// Close ends it: whoever reads or writes from then on hears ErrClosed. Snapshots stay as they are.
func (v *View) Close() {
	v.mu.Lock()
	b := v.mu.base
	v.mu.base = nil
	v.mu.Unlock()
	if b != nil {
		b.release()
	}
}

// ErrClosed is what whoever reads or writes hears after Close.
var ErrClosed = errors.New("the partition has no leader here")

// Get returns the newest value of a key, durable or not.
func (v *View) Get(key []byte) ([]byte, bool, error) {
	v.mu.RLock()
	defer v.mu.RUnlock()
	if v.mu.base == nil {
		return nil, false, ErrClosed
	}
	return v.getLocked(key, ^uint64(0), v.mu.base)
}

func (v *View) getLocked(key []byte, at uint64, b *base) ([]byte, bool, error) {
	raw, ok, err := v.rawLocked(key, at, b)
	if err != nil || !ok {
		return nil, false, err
	}
	return v.assembleLocked(key, raw, at, b)
}

func (v *View) rawLocked(key []byte, at uint64, b *base) ([]byte, bool, error) {
	// Get does not keep its key.
	if c, ok := v.mu.overlay.Get(unsafe.String(unsafe.SliceData(key), len(key))); ok {
		for i := len(c.versions) - 1; i >= 0; i-- {
			if ver := &c.versions[i]; ver.sequence <= at {
				return ver.value, !ver.deleted, nil
			}
		}
	}
	return b.snapshot.Get(key)
}

// Scan calls fn for the newest rows of a range.
func (v *View) Scan(lower, upper []byte, fn func(key, value []byte) bool) error {
	v.mu.RLock()
	b := v.mu.base
	if b == nil {
		v.mu.RUnlock()
		return ErrClosed
	}
	b.acquire()
	defer b.release()
	over, err := v.overlayRangeLocked(lower, upper, ^uint64(0), b)
	v.mu.RUnlock()
	if err != nil {
		return err
	}
	return v.scan(b, over, ^uint64(0), lower, upper, fn)
}

// overlayRow is a row of the overlay as one snapshot sees it.
type overlayRow struct {
	key     string
	value   []byte
	deleted bool
}

// Put writes a row as part of the record sequence. Values over inlineBytes are split.
func (v *View) Put(sequence uint64, mutations []engine.Mutation) error {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.mu.base == nil {
		return ErrClosed
	}
	for _, m := range mutations {
		if v.mu.chunked && !table.IsPart(m.Key) {
			if err := v.dropChunksLocked(sequence, m.Key); err != nil {
				return err
			}
		}
		switch {
		case m.Delete:
			v.setLocked(sequence, m.Key, nil, true)
		case len(m.Value) < inlineBytes:
			raw := make([]byte, 1, 1+len(m.Value))
			raw[0] = formatInline
			v.setLocked(sequence, m.Key, append(raw, m.Value...), false)
		default:
			v.splitLocked(sequence, m.Key, m.Value)
		}
	}
	return nil
}

func (v *View) setLocked(sequence uint64, key, raw []byte, deleted bool) {
	if n := len(v.mu.batches); n == 0 || v.mu.batches[n-1].sequence != sequence {
		v.mu.batches = append(v.mu.batches, batch{sequence: sequence})
	}
	written := &v.mu.batches[len(v.mu.batches)-1]
	c, ok := v.mu.overlay.Get(unsafe.String(unsafe.SliceData(key), len(key))) // which does not keep its key
	if !ok {
		c = &cell{key: string(key)}
		c.versions = c.first[:0]
		v.mu.overlay.Set(c.key, c)
	}
	v.mu.bytes += len(key) + len(raw)
	if n := len(c.versions); n > 0 && c.versions[n-1].sequence == sequence {
		last := &c.versions[n-1]
		v.mu.bytes -= len(key) + len(last.value)
		last.value, last.deleted = raw, deleted
	} else {
		c.versions = append(c.versions, version{sequence, raw, deleted})
		written.cells = append(written.cells, c)
	}
}

// Encode appends what the record sequence, which is not in the store, comes to: the last write of
// each key. Only the partition's goroutine may call it.
func (v *View) Encode(sequence uint64, dst []byte) []byte {
	v.mu.RLock()
	defer v.mu.RUnlock()
	n := len(v.mu.batches) - 1
	for n >= 0 && v.mu.batches[n].sequence > sequence {
		n--
	}
	if n < 0 || v.mu.batches[n].sequence != sequence {
		return dst
	}
	defer v.scratch.Reset()
	for _, c := range v.mu.batches[n].cells {
		key := unsafe.Slice(unsafe.StringData(c.key), len(c.key)) // which AppendEncoded copies
		for i := len(c.versions) - 1; i >= 0; i-- {
			ver := &c.versions[i]
			if ver.sequence != sequence {
				continue
			}
			if ver.deleted {
				v.scratch.Delete(key)
			} else {
				v.scratch.Put(key, ver.value)
			}
			break
		}
	}
	return v.scratch.AppendEncoded(dst)
}

// Values are stored with one byte in front that says how.
const (
	formatInline = 0
	formatSplit  = 1
	// inlineBytes and up are split: see storage.MaxValueBytes.
	inlineBytes = 256 << 10
	partBytes   = 256 << 10
)

func (v *View) splitLocked(sequence uint64, key, value []byte) {
	v.mu.chunked = true
	head := binary.AppendUvarint([]byte{formatSplit}, uint64(len(value)))
	v.setLocked(sequence, key, head, false)
	for number := uint32(0); len(value) > 0; number++ {
		part := value[:min(partBytes, len(value))]
		value = value[len(part):]
		v.setLocked(sequence, table.Chunk(key, number), part, false)
	}
}

// dropChunksLocked deletes the parts of the value that a write is about to replace.
func (v *View) dropChunksLocked(sequence uint64, key []byte) error {
	raw, ok, err := v.rawLocked(key, ^uint64(0), v.mu.base)
	if err != nil || !ok || len(raw) == 0 || raw[0] != formatSplit {
		return err
	}
	size, n := binary.Uvarint(raw[1:])
	if n <= 0 {
		return fmt.Errorf("row %q: bad header of a value in parts", key)
	}
	for number := uint32(0); uint64(number)*partBytes < size; number++ {
		v.setLocked(sequence, table.Chunk(key, number), nil, true)
	}
	return nil
}

func (v *View) assembleLocked(key, raw []byte, at uint64, b *base) ([]byte, bool, error) {
	if len(raw) == 0 {
		return nil, false, fmt.Errorf("row %q: value without a format byte", key)
	}
	switch raw[0] {
	case formatInline:
		return raw[1:], true, nil
	case formatSplit:
	default:
		return nil, false, fmt.Errorf("row %q: value format %d is not known to this version", key, raw[0])
	}
	size, n := binary.Uvarint(raw[1:])
	if n <= 0 {
		return nil, false, fmt.Errorf("row %q: bad header of a value in parts", key)
	}
	value := make([]byte, 0, size)
	for number := uint32(0); uint64(len(value)) < size; number++ {
		part, ok, err := v.rawLocked(table.Chunk(key, number), at, b)
		if err != nil {
			return nil, false, err
		}
		if !ok {
			return nil, false, fmt.Errorf("row %q: part %d of its value is missing", key, number)
		}
		value = append(value, part...)
	}
	return value, true, nil
}

// overlayRangeLocked collects the overlay's rows of a range, in key order, as of at.
func (v *View) overlayRangeLocked(lower, upper []byte, at uint64, b *base) ([]overlayRow, error) {
	var rows []overlayRow
	var err error
	v.mu.overlay.Ascend(string(lower), func(key string, c *cell) bool {
		if upper != nil && key >= string(upper) {
			return false
		}
		for i := len(c.versions) - 1; i >= 0; i-- {
			ver := &c.versions[i]
			if ver.sequence > at {
				continue
			}
			row := overlayRow{key: key, deleted: ver.deleted}
			if !ver.deleted {
				row.value, _, err = v.assembleLocked([]byte(key), ver.value, at, b)
			}
			rows = append(rows, row)
			break
		}
		return err == nil
	})
	return rows, err
}

// scan merges the overlay's rows over the store's.
func (v *View) scan(b *base, over []overlayRow, at uint64, lower, upper []byte, fn func(key, value []byte) bool) error {
	more := true
	emit := func(row overlayRow) {
		if !row.deleted {
			more = fn([]byte(row.key), row.value)
		}
	}
	var valueErr error
	err := b.snapshot.Scan(lower, upper, func(key, raw []byte) bool {
		for more && len(over) > 0 && over[0].key < string(key) {
			emit(over[0])
			over = over[1:]
		}
		if !more {
			return false
		}
		if len(over) > 0 && over[0].key == string(key) {
			emit(over[0])
			over = over[1:]
			return more
		}
		var value []byte
		if len(raw) > 0 && raw[0] == formatInline {
			value = raw[1:]
		} else {
			// Written since the overlay's rows were collected? Then the parts are another
			// value's: the head must be read with them.
			var ok bool
			v.mu.RLock()
			value, ok, valueErr = v.getLocked(key, at, b)
			v.mu.RUnlock()
			if valueErr != nil || !ok {
				return valueErr == nil
			}
		}
		more = fn(key, value)
		return more
	})
	if err == nil {
		err = valueErr
	}
	for err == nil && more && len(over) > 0 {
		emit(over[0])
		over = over[1:]
	}
	return err
}

// Committed says that every record up to sequence is durable.
func (v *View) Committed(sequence uint64) {
	v.mu.Lock()
	v.mu.durable = max(v.mu.durable, sequence)
	v.mu.Unlock()
}

// InStore says that snapshot holds every record up to sequence, which the overlay then forgets.
func (v *View) InStore(sequence uint64, snapshot storage.Snapshot) {
	v.mu.Lock()
	if v.mu.base == nil {
		v.mu.Unlock()
		snapshot.Release()
		return
	}
	old := v.mu.base
	v.mu.base = newBase(snapshot)
	v.mu.applied = sequence
	v.mu.durable = max(v.mu.durable, sequence)
	v.dropLocked()
	v.mu.Unlock()
	old.release()
}

// dropLocked forgets what the store has, but for what a pinned snapshot still needs.
func (v *View) dropLocked() {
	limit := v.mu.applied
	for applied := range v.mu.pins {
		limit = min(limit, applied)
	}
	n := 0
	for n < len(v.mu.batches) && v.mu.batches[n].sequence <= limit {
		for _, c := range v.mu.batches[n].cells {
			if len(c.versions) == 0 {
				continue // An earlier one of these batches has forgotten it.
			}
			for len(c.versions) > 0 && c.versions[0].sequence <= limit {
				v.mu.bytes -= len(c.key) + len(c.versions[0].value)
				c.versions[0] = version{}
				c.versions = c.versions[1:]
			}
			if len(c.versions) == 0 {
				v.mu.overlay.Delete(c.key)
			}
		}
		n++
	}
	if n > 0 {
		clear(v.mu.batches[:n])
		v.mu.batches = v.mu.batches[n:]
	}
}

// Bytes is the memory that the overlay's keys and values take.
func (v *View) Bytes() int {
	v.mu.RLock()
	defer v.mu.RUnlock()
	return v.mu.bytes
}

// Snapshot is the durable data at one instant: what a READ handler sees.
type Snapshot struct {
	view    *View
	base    *base
	at      uint64
	applied uint64
}

// Pin takes a snapshot of what is durable now. The caller must release it.
func (v *View) Pin() (*Snapshot, error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.mu.base == nil {
		return nil, ErrClosed
	}
	v.mu.base.acquire()
	v.mu.pins[v.mu.applied]++
	return &Snapshot{view: v, base: v.mu.base, at: v.mu.durable, applied: v.mu.applied}, nil
}

// Release lets go of it.
func (s *Snapshot) Release() {
	v := s.view
	v.mu.Lock()
	if v.mu.pins[s.applied]--; v.mu.pins[s.applied] == 0 {
		delete(v.mu.pins, s.applied)
		v.dropLocked() // What this snapshot held back would stay until the next record.
	}
	v.mu.Unlock()
	s.base.release()
}

// Get returns the durable value of a key.
func (s *Snapshot) Get(key []byte) ([]byte, bool, error) {
	s.view.mu.RLock()
	defer s.view.mu.RUnlock()
	return s.view.getLocked(key, s.at, s.base)
}

// Scan calls fn for the durable rows of a range.
func (s *Snapshot) Scan(lower, upper []byte, fn func(key, value []byte) bool) error {
	s.view.mu.RLock()
	over, err := s.view.overlayRangeLocked(lower, upper, s.at, s.base)
	s.view.mu.RUnlock()
	if err != nil {
		return err
	}
	return s.view.scan(s.base, over, s.at, lower, upper, fn)
}
