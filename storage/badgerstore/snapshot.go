package badgerstore

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"sync/atomic"

	"github.com/dgraph-io/badger/v4"

	"github.com/perdure/perdure/storage"
)

var errReleased = errors.New("badgerstore: snapshot was released")

// snapshot reads at a sequence. Its transaction holds no resources; what keeps the versions it
// reads is its entry in Store.mu.open.
type snapshot struct {
	store    *Store
	sequence uint64
	txn      *badger.Txn // nil if the store was closed already
	released atomic.Bool
}

// Snapshot implements storage.Store.
func (s *Store) Snapshot() storage.Snapshot {
	s.mu.Lock()
	defer s.mu.Unlock()
	snap := &snapshot{store: s, sequence: s.mu.committed}
	if s.mu.closed {
		return snap
	}
	snap.txn = s.db.NewTransactionAt(snap.sequence, false)
	if last := len(s.mu.open) - 1; last >= 0 && s.mu.open[last].sequence == snap.sequence {
		s.mu.open[last].count++
	} else {
		s.mu.open = append(s.mu.open, openSnapshots{sequence: snap.sequence, count: 1})
	}
	return snap
}

// Release implements storage.Snapshot. Further calls do nothing.
func (snap *snapshot) Release() {
	if snap.released.Swap(true) || snap.txn == nil {
		return
	}
	s := snap.store
	s.mu.Lock()
	defer s.mu.Unlock()
	at, found := slices.BinarySearchFunc(s.mu.open, snap.sequence, func(open openSnapshots, sequence uint64) int {
		return int(int64(open.sequence - sequence))
	})
	if !found {
		return
	}
	if s.mu.open[at].count--; s.mu.open[at].count > 0 {
		return
	}
	s.mu.open = slices.Delete(s.mu.open, at, at+1)
	if at == 0 && !s.mu.closed {
		s.discardLocked()
	}
}

func (snap *snapshot) enter() error {
	if snap.released.Load() {
		return errReleased
	}
	return snap.store.enter()
}

// Get implements storage.Snapshot.
func (snap *snapshot) Get(key []byte) (value []byte, ok bool, err error) {
	if err := snap.enter(); err != nil {
		return nil, false, err
	}
	defer snap.store.leave()
	if len(key) > storage.MaxKeyBytes {
		return nil, false, nil // nothing of that length can have been written
	}
	stored := append(append(make([]byte, 0, 1+len(key)), dataPrefix), key...)
	value, ok, err = get(snap.txn, stored)
	if err != nil {
		return nil, false, fmt.Errorf("badgerstore: %s: %w", snap.store.dir, err)
	}
	return value, ok, nil
}

// get reads a stored key and checks its value.
func get(txn *badger.Txn, key []byte) (value []byte, ok bool, err error) {
	defer func() {
		// Badger's block reader panics on damaged offsets.
		if reason := recover(); reason != nil {
			value, ok, err = nil, false, fmt.Errorf("%w: get %q: %v", storage.ErrDamaged, key, reason)
		}
	}()
	item, err := txn.Get(key)
	if errors.Is(err, badger.ErrKeyNotFound) {
		return nil, false, nil
	}
	if err != nil {
		return nil, false, fmt.Errorf("get %q: %w", key, err)
	}
	stored, err := item.ValueCopy(nil)
	if err != nil {
		return nil, false, fmt.Errorf("get %q: %w", key, err)
	}
	value, err = verified(key, stored)
	return value, err == nil, err
}

// verified strips the checksum from a stored value.
func verified(key, stored []byte) ([]byte, error) {
	if len(stored) < sumBytes {
		return nil, fmt.Errorf("%w: key %q: a value of %d bytes has no checksum", storage.ErrDamaged, key, len(stored))
	}
	value := stored[sumBytes:]
	if want, got := binary.BigEndian.Uint32(stored), checksum(key, value); want != got {
		return nil, fmt.Errorf("%w: key %q: checksum %08x of %d bytes, recorded %08x", storage.ErrDamaged, key, got, len(value), want)
	}
	return value, nil
}

// Scan implements storage.Snapshot. fn may read the snapshot and commit; it must not Close the
// store, which waits for the scan.
func (snap *snapshot) Scan(lower, upper []byte, fn func(key, value []byte) bool) error {
	if err := snap.enter(); err != nil {
		return err
	}
	defer snap.store.leave()
	if upper != nil && bytes.Compare(lower, upper) >= 0 {
		return nil
	}
	if err := scan(snap.txn, lower, upper, fn); err != nil {
		return fmt.Errorf("badgerstore: %s: %w", snap.store.dir, err)
	}
	return nil
}

func scan(txn *badger.Txn, lower, upper []byte, fn func(key, value []byte) bool) (err error) {
	inFn := false
	defer func() {
		if inFn {
			return // fn's own panic goes on to its caller
		}
		if reason := recover(); reason != nil {
			err = fmt.Errorf("%w: scan from %q: %v", storage.ErrDamaged, lower, reason)
		}
	}()
	// The bounds' common prefix lets Badger leave out tables. Prefetching is for values in the
	// value log, which is not used.
	start := append([]byte{dataPrefix}, lower...)
	options := badger.IteratorOptions{Prefix: start[:1+commonPrefix(lower, upper)]}
	iterator := txn.NewIterator(options)
	defer iterator.Close()
	for iterator.Seek(start); iterator.Valid(); iterator.Next() {
		item := iterator.Item()
		key := item.Key()
		if upper != nil && bytes.Compare(key[1:], upper) >= 0 {
			return nil
		}
		more := false
		if err := item.Value(func(stored []byte) error {
			value, err := verified(key, stored)
			if err != nil {
				return err
			}
			inFn = true
			more = fn(key[1:], value)
			inFn = false
			return nil
		}); err != nil {
			return err
		}
		if !more {
			return nil
		}
	}
	return nil
}

// commonPrefix is the length of the prefix that all keys between the bounds have.
func commonPrefix(lower, upper []byte) int {
	n := 0
	for n < len(lower) && n < len(upper) && lower[n] == upper[n] {
		n++
	}
	return n
}
