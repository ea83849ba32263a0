package vfs

import (
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"path"
	"sort"
	"strings"
)

// OpKind is a kind of operation that a Fault can hit.
type OpKind int

// The kinds of operations. All but OpRead change something and count for CutPowerAfter.
const (
	OpCreate OpKind = iota
	OpRemove
	OpRename
	OpSyncDir
	OpWrite
	OpSync
	OpTruncate
	OpPreallocate
	OpRead
	opKinds
)

var opNames = [opKinds]string{"create", "remove", "rename", "syncdir", "write", "sync", "truncate", "preallocate", "read"}

// String returns the operation's name in lower case.
func (k OpKind) String() string {
	if k < 0 || k >= opKinds {
		return fmt.Sprintf("OpKind(%d)", int(k))
	}
	return opNames[k]
}

// Fault is an error to return instead of doing an operation.
type Fault struct {
	Op OpKind
	// Suffix limits the fault to names that end so. Empty: any name.
	Suffix string
	// After is how many matching operations, from Inject on, still succeed.
	After int
	// Err is what the operation returns.
	Err error
	// Written is how many bytes an OpWrite stores before it fails.
	Written int
	// LosesDirty makes a failed OpSync behave as kernels do: what was written since the last
	// good sync can still be read, but no later sync makes it durable.
	LosesDirty bool
	// Repeat makes every later matching operation fail as well.
	Repeat bool
}

// Inject adds a fault.
func (m *Mem) Inject(fault Fault) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.mu.faults = append(m.mu.faults, fault)
}

// ClearFaults removes every injected fault.
func (m *Mem) ClearFaults() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.mu.faults = nil
}

// SetCapacity limits the sum of all file sizes, in bytes; writes beyond it store what fits and
// return ENOSPC. Negative: no limit.
func (m *Mem) SetCapacity(bytes int64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if bytes < 0 {
		bytes = math.MaxInt64
	}
	m.mu.capacity = bytes
}

// Ops returns how many operations of a kind were begun, failed ones included.
func (m *Mem) Ops(kind OpKind) int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.mu.ops[kind]
}

// Changes returns how many operations of the changing kinds were begun.
func (m *Mem) Changes() int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.mu.total
}

// CutPowerAfter lets n more changing operations succeed; then every operation returns
// ErrPowerCut. PowerCut shows what the disk holds then.
func (m *Mem) CutPowerAfter(n int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.mu.cutAfter = m.mu.total + n
}

func (m *Mem) aliveLocked() error {
	if m.mu.cutAfter >= 0 && m.mu.total >= m.mu.cutAfter {
		return ErrPowerCut
	}
	return nil
}

// beginLocked counts a changing operation and says whether it fails. The fault is returned
// beside the error because a faulty write may store some bytes first.
func (m *Mem) beginLocked(op OpKind, name string) (*Fault, error) {
	if err := m.aliveLocked(); err != nil {
		return nil, err
	}
	m.mu.total++
	if fault := m.faultLocked(op, name); fault != nil {
		return fault, &os.PathError{Op: op.String(), Path: name, Err: fault.Err}
	}
	return nil, nil
}

func (m *Mem) faultLocked(op OpKind, name string) *Fault {
	m.mu.ops[op]++
	for i := range m.mu.faults {
		fault := &m.mu.faults[i]
		if fault.Op != op || !strings.HasSuffix(name, fault.Suffix) {
			continue
		}
		if fault.After > 0 {
			fault.After--
			continue
		}
		hit := *fault
		if !fault.Repeat {
			m.mu.faults = append(m.mu.faults[:i:i], m.mu.faults[i+1:]...)
		}
		return &hit
	}
	return nil
}

// sectorBytes is what a disk writes whole or not at all.
const sectorBytes = 512

// PowerCut returns a copy that holds what a disk might hold had the power failed now: every
// synced byte and name, and of the rest each sector of each write, and each change of a name,
// kept or lost at random. One seed gives one result. The copy has no locks, faults or
// capacity; the original is not changed.
func (m *Mem) PowerCut(seed uint64) *Mem {
	m.mu.Lock()
	defer m.mu.Unlock()
	random := rand.New(rand.NewPCG(seed, 0x9e3779b97f4a7c15))
	// Some cuts lose everything unsynced and some nothing: both are common on real disks, and
	// independent coins almost never produce them.
	keepOneIn := func() bool { return random.IntN(2) == 0 }
	switch random.IntN(4) {
	case 0:
		keepOneIn = func() bool { return false }
	case 1:
		keepOneIn = func() bool { return true }
	}
	names := make(map[string]*memNode, len(m.mu.durable))
	for name, node := range m.mu.durable {
		names[name] = node
	}
	for _, change := range m.mu.pending {
		if keepOneIn() {
			change.apply(names)
		}
	}
	clone := NewMem()
	copies := make(map[*memNode]*memNode)
	sorted := make([]string, 0, len(names))
	for name := range names {
		sorted = append(sorted, name)
	}
	sort.Strings(sorted)
	for _, name := range sorted {
		node := names[name]
		copied, ok := copies[node]
		if !ok {
			kept := node.durable.clone()
			for _, change := range node.unsynced {
				kept = change.applyTorn(kept, keepOneIn)
			}
			copied = &memNode{live: kept, durable: kept.clone()}
			copies[node] = copied
		}
		clone.mu.dir[name] = copied
		clone.mu.durable[name] = copied
	}
	return clone
}

func (c fileChange) applyTorn(to content, keep func() bool) content {
	if c.data == nil {
		if keep() {
			return c.apply(to)
		}
		return to
	}
	for start := int64(0); start < int64(len(c.data)); {
		end := min((c.offset+start)/sectorBytes*sectorBytes+sectorBytes-c.offset, int64(len(c.data)))
		if keep() {
			to = fileChange{offset: c.offset + start, data: c.data[start:end]}.apply(to)
		}
		start = end
	}
	return to
}

// Clone returns a copy of what a running process sees, as after a kill of the process alone:
// nothing is lost. The copy has no locks, faults or capacity.
func (m *Mem) Clone() *Mem {
	m.mu.Lock()
	defer m.mu.Unlock()
	clone := NewMem()
	copies := make(map[*memNode]*memNode)
	for name, node := range m.mu.dir {
		copied, ok := copies[node]
		if !ok {
			copied = &memNode{live: node.live.clone(), durable: node.live.clone()}
			copies[node] = copied
		}
		clone.mu.dir[name] = copied
		clone.mu.durable[name] = copied
	}
	return clone
}

// FlipBit inverts one bit (0 to 7) of a stored byte, on disk and in what processes read.
func (m *Mem) FlipBit(name string, offset int64, bit uint) error {
	name = path.Clean(name)
	m.mu.Lock()
	defer m.mu.Unlock()
	node, ok := m.mu.dir[name]
	if !ok {
		return notExist("flip", name)
	}
	if offset < 0 || offset >= node.live.size || bit > 7 {
		return fmt.Errorf("vfs: flip %s: bit %d of byte %d is outside the file of %d bytes", name, bit, offset, node.live.size)
	}
	node.live = node.live.flip(offset, bit)
	if offset < node.durable.size {
		node.durable = node.durable.flip(offset, bit)
	}
	return nil
}

// Bytes returns a copy of a file's content.
func (m *Mem) Bytes(name string) ([]byte, error) {
	name = path.Clean(name)
	m.mu.Lock()
	defer m.mu.Unlock()
	node, ok := m.mu.dir[name]
	if !ok {
		return nil, notExist("read", name)
	}
	return node.live.all(), nil
}
