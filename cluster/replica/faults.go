package replica

import (
	"errors"
	"maps"
	"slices"
	"sync"
)

// faultKind names a condition that Health reports until it is cleared.
type faultKind int

const (
	faultFatal faultKind = iota
	faultLogSpace
	faultStoreSpace
	faultKinds
)

// faults are the host's current troubles. It may be used concurrently.
type faults struct {
	mu struct {
		sync.Mutex
		kinds [faultKinds]error
		halts map[GroupID]error // never cleared
	}
}

func (f *faults) set(kind faultKind, err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.mu.kinds[kind] = err
}

// clear reports whether there was something to clear.
func (f *faults) clear(kind faultKind) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	was := f.mu.kinds[kind] != nil
	f.mu.kinds[kind] = nil
	return was
}

func (f *faults) halted(group GroupID, err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.mu.halts == nil {
		f.mu.halts = map[GroupID]error{}
	}
	f.mu.halts[group] = err
}

func (f *faults) all() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	problems := slices.Clone(f.mu.kinds[:])
	for _, group := range slices.Sorted(maps.Keys(f.mu.halts)) {
		problems = append(problems, f.mu.halts[group])
	}
	return errors.Join(problems...)
}

// Halted returns the groups that were halted, and why; they serve nothing until their data is
// repaired and the process starts anew. The others go on.
func (h *Host) Halted() map[GroupID]error {
	f := &h.faults
	f.mu.Lock()
	defer f.mu.Unlock()
	return maps.Clone(f.mu.halts)
}

// DiskHealth is Health without the groups that were halted: nil while the others can be served.
func (h *Host) DiskHealth() error {
	f := &h.faults
	f.mu.Lock()
	problem := errors.Join(f.mu.kinds[:]...)
	f.mu.Unlock()
	return errors.Join(problem, h.appender.stalled(), h.applier.stalled())
}

// NoSpace returns why the log or the store takes no more for want of disk space, nil if both
// take more. It is for every call to ask: unlike Health it costs next to nothing.
func (h *Host) NoSpace() error {
	f := &h.faults
	f.mu.Lock()
	defer f.mu.Unlock()
	if err := f.mu.kinds[faultLogSpace]; err != nil {
		return err
	}
	return f.mu.kinds[faultStoreSpace]
}
