package vfs

import (
	"fmt"
	"io"
	"io/fs"
	"math"
	"os"
	"path"
	"sort"
	"sync"
	"syscall"
)

// Mem is a file system in memory that remembers what was synced. Directories exist as soon as
// they are named. The zero value is not usable; see NewMem.
type Mem struct {
	mu struct {
		sync.Mutex
		dir      map[string]*memNode // what a running process sees
		durable  map[string]*memNode // what SyncDir made durable
		pending  []dirChange         // between the two, in order
		locks    map[string]bool
		capacity int64 // bytes; math.MaxInt64 is no limit
		ops      [opKinds]int
		total    int // mutating operations so far, of any kind
		cutAfter int // total at which the power goes; -1 is never
		faults   []Fault
	}
}

var _ FS = (*Mem)(nil)

// memNode is a file's content apart from its names; it is guarded by Mem.mu.
type memNode struct {
	live    content
	durable content
	// unsynced are the changes between durable and live, in order.
	unsynced []fileChange
}

type fileChange struct {
	offset int64
	data   []byte // nil: the size was set to offset
}

type dirChange struct {
	name    string
	node    *memNode // nil: the name was removed
	renamed string   // the name that node had before, or ""
}

// NewMem returns an empty file system without a capacity limit.
func NewMem() *Mem {
	m := new(Mem)
	m.mu.dir = make(map[string]*memNode)
	m.mu.durable = make(map[string]*memNode)
	m.mu.locks = make(map[string]bool)
	m.mu.capacity = math.MaxInt64
	m.mu.cutAfter = -1
	return m
}

func notExist(op, name string) error {
	return &os.PathError{Op: op, Path: name, Err: fs.ErrNotExist}
}

// Create implements FS.
func (m *Mem) Create(name string) (File, error) {
	name = path.Clean(name)
	m.mu.Lock()
	defer m.mu.Unlock()
	if _, err := m.beginLocked(OpCreate, name); err != nil {
		return nil, err
	}
	// A truncated old file is modelled as a new one under the same name, which is the
	// harsher reading: after a power cut the old content may be back.
	node := new(memNode)
	m.mu.dir[name] = node
	m.mu.pending = append(m.mu.pending, dirChange{name: name, node: node})
	return &memFile{mem: m, node: node, name: name}, nil
}

// Open implements FS.
func (m *Mem) Open(name string) (File, error) {
	name = path.Clean(name)
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := m.aliveLocked(); err != nil {
		return nil, err
	}
	node, ok := m.mu.dir[name]
	if !ok {
		return nil, notExist("open", name)
	}
	return &memFile{mem: m, node: node, name: name}, nil
}

// Remove implements FS.
func (m *Mem) Remove(name string) error {
	name = path.Clean(name)
	m.mu.Lock()
	defer m.mu.Unlock()
	if _, err := m.beginLocked(OpRemove, name); err != nil {
		return err
	}
	if _, ok := m.mu.dir[name]; !ok {
		return notExist("remove", name)
	}
	delete(m.mu.dir, name)
	m.mu.pending = append(m.mu.pending, dirChange{name: name})
	return nil
}

// Rename implements FS.
func (m *Mem) Rename(oldName, newName string) error {
	oldName, newName = path.Clean(oldName), path.Clean(newName)
	m.mu.Lock()
	defer m.mu.Unlock()
	if _, err := m.beginLocked(OpRename, newName); err != nil {
		return err
	}
	node, ok := m.mu.dir[oldName]
	if !ok {
		return notExist("rename", oldName)
	}
	delete(m.mu.dir, oldName)
	m.mu.dir[newName] = node
	m.mu.pending = append(m.mu.pending, dirChange{name: newName, node: node, renamed: oldName})
	return nil
}

// List implements FS.
func (m *Mem) List(dir string) ([]string, error) {
	dir = path.Clean(dir)
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := m.aliveLocked(); err != nil {
		return nil, err
	}
	var names []string
	for name := range m.mu.dir {
		if path.Dir(name) == dir {
			names = append(names, path.Base(name))
		}
	}
	sort.Strings(names)
	return names, nil
}

// Stat implements FS.
func (m *Mem) Stat(name string) (int64, error) {
	name = path.Clean(name)
	m.mu.Lock()
	defer m.mu.Unlock()
	node, ok := m.mu.dir[name]
	if !ok {
		return 0, notExist("stat", name)
	}
	return node.live.size, nil
}

// MkdirAll implements FS.
func (m *Mem) MkdirAll(string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.aliveLocked()
}

// SyncDir implements FS.
func (m *Mem) SyncDir(dir string) error {
	dir = path.Clean(dir)
	m.mu.Lock()
	defer m.mu.Unlock()
	if _, err := m.beginLocked(OpSyncDir, dir); err != nil {
		return err
	}
	var rest []dirChange
	for _, change := range m.mu.pending {
		if path.Dir(change.name) != dir {
			rest = append(rest, change)
			continue
		}
		change.apply(m.mu.durable)
	}
	m.mu.pending = rest
	return nil
}

func (c dirChange) apply(names map[string]*memNode) {
	if c.renamed != "" {
		delete(names, c.renamed)
	}
	if c.node == nil {
		delete(names, c.name)
		return
	}
	names[c.name] = c.node
}

// Lock implements FS. The lock file is not listed.
func (m *Mem) Lock(name string) (io.Closer, error) {
	name = path.Clean(name)
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.mu.locks[name] {
		return nil, fmt.Errorf("%s: %w", name, ErrLocked)
	}
	m.mu.locks[name] = true
	return &memLock{mem: m, name: name}, nil
}

type memLock struct {
	mem  *Mem
	name string
}

// Close implements io.Closer.
func (l *memLock) Close() error {
	l.mem.mu.Lock()
	defer l.mem.mu.Unlock()
	delete(l.mem.mu.locks, l.name)
	return nil
}

// FreeBytes implements FS.
func (m *Mem) FreeBytes(string) (uint64, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return uint64(max(m.freeLocked(), 0)), nil
}

func (m *Mem) freeLocked() int64 {
	if m.mu.capacity == math.MaxInt64 {
		return math.MaxInt64
	}
	var used int64
	for _, node := range m.mu.dir {
		used += node.live.size
	}
	return m.mu.capacity - used
}

type memFile struct {
	mem  *Mem
	node *memNode
	name string
}

// ReadAt implements io.ReaderAt.
func (f *memFile) ReadAt(p []byte, offset int64) (int, error) {
	f.mem.mu.Lock()
	defer f.mem.mu.Unlock()
	if err := f.mem.aliveLocked(); err != nil {
		return 0, err
	}
	if fault := f.mem.faultLocked(OpRead, f.name); fault != nil {
		return 0, &os.PathError{Op: "read", Path: f.name, Err: fault.Err}
	}
	if offset >= f.node.live.size {
		return 0, io.EOF
	}
	n := f.node.live.readAt(p, offset)
	if n < len(p) {
		return n, io.EOF
	}
	return n, nil
}

// WriteAt implements io.WriterAt.
func (f *memFile) WriteAt(p []byte, offset int64) (int, error) {
	f.mem.mu.Lock()
	defer f.mem.mu.Unlock()
	fault, err := f.mem.beginLocked(OpWrite, f.name)
	n := len(p)
	if fault != nil {
		n = min(n, fault.Written)
	} else if err != nil {
		return 0, err
	}
	if grow := offset + int64(n) - f.node.live.size; grow > 0 {
		if free := f.mem.freeLocked(); grow > free {
			n = int(max(int64(n)-(grow-max(free, 0)), 0))
			err = &os.PathError{Op: "write", Path: f.name, Err: syscall.ENOSPC}
		}
	}
	if n > 0 {
		change := fileChange{offset: offset, data: append([]byte(nil), p[:n]...)}
		f.node.live = change.apply(f.node.live)
		f.node.unsynced = append(f.node.unsynced, change)
	}
	return n, err
}

func (c fileChange) apply(to content) content {
	if c.data == nil {
		return to.resized(c.offset)
	}
	return to.written(c.data, c.offset)
}

// Sync implements File.
func (f *memFile) Sync() error {
	f.mem.mu.Lock()
	defer f.mem.mu.Unlock()
	fault, err := f.mem.beginLocked(OpSync, f.name)
	if err != nil {
		if fault != nil && fault.LosesDirty {
			f.node.unsynced = nil
		}
		return err
	}
	for _, change := range f.node.unsynced {
		f.node.durable = change.apply(f.node.durable)
	}
	f.node.unsynced = nil
	return nil
}

// Truncate implements File.
func (f *memFile) Truncate(size int64) error { return f.resize(OpTruncate, size) }

// Preallocate implements File.
func (f *memFile) Preallocate(size int64) error { return f.resize(OpPreallocate, size) }

func (f *memFile) resize(op OpKind, size int64) error {
	f.mem.mu.Lock()
	defer f.mem.mu.Unlock()
	if _, err := f.mem.beginLocked(op, f.name); err != nil {
		return err
	}
	grow := size - f.node.live.size
	if op == OpPreallocate && grow <= 0 {
		return nil
	}
	if grow > f.mem.freeLocked() {
		return &os.PathError{Op: op.String(), Path: f.name, Err: syscall.ENOSPC}
	}
	change := fileChange{offset: size}
	f.node.live = change.apply(f.node.live)
	f.node.unsynced = append(f.node.unsynced, change)
	return nil
}

// Size implements File.
func (f *memFile) Size() (int64, error) {
	f.mem.mu.Lock()
	defer f.mem.mu.Unlock()
	return f.node.live.size, nil
}

// Close implements File.
func (f *memFile) Close() error { return nil }
