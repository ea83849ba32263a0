package memstore

import (
	"errors"
	"fmt"
)

// ErrInjected is wrapped by the error of a commit that FailCommit made fail.
var ErrInjected = errors.New("memstore: injected failure")

// Outcome is what becomes of a batch whose commit returns an error. Until the store is reopened
// no snapshot shows the batch, whatever the outcome.
type Outcome int

const (
	succeeds Outcome = iota
	// NotApplied loses the batch. It also stands for a short write: a log cuts off what it
	// cannot read, so half a batch on disk is none after Reopen.
	NotApplied
	// Applied keeps the batch: the error came after it was on disk.
	Applied
	// Unknown lets the seed of Clone decide; Reopen keeps the batch.
	Unknown
)

// FailCommit makes the n-th commit from now, counting from 1 those that get past the checks,
// return an error with the given outcome and fence the store. An outcome that is none of the
// constants is Unknown.
func (s *Store) FailCommit(n int, outcome Outcome) {
	if outcome < NotApplied || outcome > Unknown {
		outcome = Unknown
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.mu.failures[s.mu.commits+n] = outcome
}

// NoSpace makes commits fail with storage.ErrNoSpace from now on, or no more.
func (s *Store) NoSpace(full bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.mu.noSpace = full
}

// FlipBit inverts a bit of the stored value of key, counted from the lowest bit of the first
// byte; for an empty value, of its checksum. Snapshots taken from now on report the damage;
// older ones do not. Writing or deleting the key repairs it. It returns an error if there is no
// such key or bit.
func (s *Store) FlipBit(key []byte, bit int) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	found := s.mu.root.get(key)
	if found == nil {
		return fmt.Errorf("memstore: flip bit: no key %q", key)
	}
	entry := &node{key: found.key, value: append([]byte{}, found.value...), sum: found.sum, priority: found.priority}
	switch {
	case bit >= 0 && bit < 8*len(entry.value):
		entry.value[bit/8] ^= 1 << (bit % 8)
	case len(entry.value) == 0 && bit >= 0 && bit < 32:
		entry.sum ^= 1 << bit
	default:
		return fmt.Errorf("memstore: flip bit: no bit %d in the %d bytes of key %q", bit, len(entry.value), key)
	}
	s.mu.root = s.mu.root.put(entry)
	return nil
}

// Clone returns the store as it would be opened after a power failure at this moment: every
// acknowledged commit, and of the one in flight, or failed with Unknown, all or nothing by the
// seed. The original remains usable. Faults set up on the original are not inherited, damage is.
func (s *Store) Clone(seed uint64) *Store {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.openedLocked(func(outcome Outcome) bool {
		return outcome == Applied || outcome != NotApplied && mixed(seed)&1 == 1
	})
}

// Reopen closes the store, if it is not, and returns it opened again, in the same process: a
// batch whose commit failed is there unless its outcome was NotApplied.
func (s *Store) Reopen() *Store {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.mu.closed = true
	return s.openedLocked(func(outcome Outcome) bool { return outcome != NotApplied })
}

func (s *Store) openedLocked(keep func(Outcome) bool) *Store {
	options := s.options
	options.OnCommit = nil
	opened := New(options)
	opened.mu.root = s.mu.root
	if s.mu.uncertain != nil && keep(s.mu.uncertain.outcome) {
		opened.mu.root = s.mu.uncertain.root
	}
	return opened
}

// mixed spreads small seeds over all bits.
func mixed(seed uint64) uint64 {
	seed = (seed + 0x9e3779b97f4a7c15) * 0xbf58476d1ce4e5b9
	return seed ^ seed>>31
}
