package replica

import (
	"github.com/perdure/perdure/storage"
)

// partitionSnapshot is the store's snapshot seen through one partition's prefix.
type partitionSnapshot struct {
	store storage.Snapshot
	lower [prefixBytes]byte // the prefix
	upper [prefixBytes]byte // the first prefix after it
}

func newPartitionSnapshot(store storage.Snapshot, prefix [prefixBytes]byte) *partitionSnapshot {
	upper := prefix
	for i := prefixBytes - 1; i >= 0; i-- {
		if upper[i]++; upper[i] != 0 {
			break // never runs out: groups stay below 0xffff
		}
	}
	return &partitionSnapshot{store: store, lower: prefix, upper: upper}
}

func (s *partitionSnapshot) Get(key []byte) ([]byte, bool, error) {
	return s.store.Get(append(s.lower[:prefixBytes:prefixBytes], key...))
}

func (s *partitionSnapshot) Scan(lower, upper []byte, fn func(key, value []byte) bool) error {
	from := append(s.lower[:prefixBytes:prefixBytes], lower...)
	to := s.upper[:prefixBytes:prefixBytes]
	if upper != nil {
		to = append(s.lower[:prefixBytes:prefixBytes], upper...)
	}
	return s.store.Scan(from, to, func(key, value []byte) bool { return fn(key[prefixBytes:], value) })
}

func (s *partitionSnapshot) Release() { s.store.Release() }
