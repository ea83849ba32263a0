// Package fault keeps what is wrong with a host of replicas now.
package fault

import (
	"errors"
	"maps"
	"slices"
	"sync"
)

// Kind names a condition that is reported until it is cleared.
type Kind int

// The kinds.
const (
	// Fatal ended the host.
	Fatal Kind = iota
	// LogSpace and StoreSpace: the log, or the store, takes no more for want of space.
	LogSpace
	StoreSpace
	kinds
)

// Set is the current troubles of a host. It may be used concurrently; the zero value is none.
type Set struct {
	mu struct {
		sync.Mutex
		kinds [kinds]error
		halts map[uint32]error // never cleared
	}
}

// Set adds a trouble.
func (s *Set) Set(kind Kind, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.mu.kinds[kind] = err
}

// Clear reports whether there was something to clear.
func (s *Set) Clear(kind Kind) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	was := s.mu.kinds[kind] != nil
	s.mu.kinds[kind] = nil
	return was
}

// Halt adds a group that is halted, for good.
func (s *Set) Halt(group uint32, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.mu.halts == nil {
		s.mu.halts = map[uint32]error{}
	}
	s.mu.halts[group] = err
}

// Halts are the groups that are halted, and why.
func (s *Set) Halts() map[uint32]error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return maps.Clone(s.mu.halts)
}

// All is everything, joined.
func (s *Set) All() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	problems := slices.Clone(s.mu.kinds[:])
	for _, group := range slices.Sorted(maps.Keys(s.mu.halts)) {
		problems = append(problems, s.mu.halts[group])
	}
	return errors.Join(problems...)
}

// Disk is All without groups.
func (s *Set) Disk() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return errors.Join(s.mu.kinds[:]...)
}

// Space is why the log or the store takes no more for want of space, nil if both take more.
func (s *Set) Space() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.mu.kinds[LogSpace]; err != nil {
		return err
	}
	return s.mu.kinds[StoreSpace]
}
