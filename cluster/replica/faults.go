package replica

import (
	"errors"
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
		halts []error // one per halted partition, never cleared
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

func (f *faults) halted(err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.mu.halts = append(f.mu.halts, err)
}

func (f *faults) all() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	return errors.Join(errors.Join(f.mu.kinds[:]...), errors.Join(f.mu.halts...))
}
