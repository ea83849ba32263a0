// Package memstore is the in-memory twin of storage/badgerstore, for tests and simulations: it
// can be cloned as if the power had failed, and it injects the faults that a disk has.
//
// It is deterministic: no goroutine, no clock, no randomness but the seed given to Clone.
// Committed data is an immutable tree, so a snapshot is a pointer and costs nothing.
package memstore

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/perdure/perdure/storage"
)

// Bounds of a batch, close to those of badgerstore with its default memory budget.
const (
	DefaultMaxBatchBytes = 4 << 20
	DefaultMaxBatchOps   = 30_000
)

// Options configures New. The zero value of a field means its default.
type Options struct {
	// MaxBatchBytes is the largest Batch.Bytes that Commit takes. Defaults to
	// DefaultMaxBatchBytes.
	MaxBatchBytes int
	// MaxBatchOps is the largest Batch.Len that Commit takes. Defaults to DefaultMaxBatchOps.
	MaxBatchOps int
	// OnCommit, if set, is called by each Commit after its checks, when the batch is being
	// written and nothing of it is visible yet. It may take snapshots, and Clone then decides
	// about the batch in flight. It must not Commit or Close. Clones do not inherit it.
	OnCommit func()
}

// Store is a storage.Store in memory. Apart from Commit its methods may be called concurrently.
type Store struct {
	options    Options
	committing sync.Mutex

	mu struct {
		sync.Mutex
		root *node // what snapshots see: the last commit that returned nil
		// uncertain is root with a batch that is being written or whose commit failed; nil
		// if there is none. outcome says what a power failure makes of it.
		uncertain *uncertainCommit
		fenced    error
		closed    bool
		noSpace   bool
		commits   int // attempts so far
		failures  map[int]Outcome
	}
}

type uncertainCommit struct {
	root    *node
	outcome Outcome
}

var _ storage.Store = (*Store)(nil)

// New returns an empty store.
func New(options Options) *Store {
	if options.MaxBatchBytes == 0 {
		options.MaxBatchBytes = DefaultMaxBatchBytes
	}
	if options.MaxBatchOps == 0 {
		options.MaxBatchOps = DefaultMaxBatchOps
	}
	s := &Store{options: options}
	s.mu.failures = make(map[int]Outcome)
	return s
}

// MaxBatchBytes is the largest Batch.Bytes that Commit takes.
func (s *Store) MaxBatchBytes() int { return s.options.MaxBatchBytes }

// MaxBatchOps is the largest Batch.Len that Commit takes.
func (s *Store) MaxBatchOps() int { return s.options.MaxBatchOps }

// Commit implements storage.Store. The batch is copied: it may be reused afterwards.
func (s *Store) Commit(batch *storage.Batch) error {
	s.committing.Lock()
	defer s.committing.Unlock()
	root, failure, err := s.begin(batch)
	if err != nil || batch.Len() == 0 {
		return err
	}
	for _, op := range batch.Ops() {
		root = apply(root, op)
	}
	s.mu.Lock()
	s.mu.uncertain = &uncertainCommit{root: root, outcome: failure}
	s.mu.Unlock()
	if s.options.OnCommit != nil {
		s.options.OnCommit()
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if failure != succeeds {
		s.mu.fenced = fmt.Errorf("commit %d: %w", s.mu.commits, ErrInjected)
		return fmt.Errorf("memstore: %w", s.mu.fenced)
	}
	s.mu.root, s.mu.uncertain = root, nil
	return nil
}

// begin checks the batch and returns the tree to change and the failure to come.
func (s *Store) begin(batch *storage.Batch) (*node, Outcome, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.mu.closed:
		return nil, succeeds, storage.ErrClosed
	case s.mu.fenced != nil:
		return nil, succeeds, fmt.Errorf("memstore: %w (cause: %w)", storage.ErrFenced, s.mu.fenced)
	case batch.Len() == 0:
		return nil, succeeds, nil
	case batch.Bytes() > s.options.MaxBatchBytes:
		return nil, succeeds, fmt.Errorf("memstore: %w: a batch of %d bytes, at most %d fit: split it", storage.ErrTooLarge, batch.Bytes(), s.options.MaxBatchBytes)
	case batch.Len() > s.options.MaxBatchOps:
		return nil, succeeds, fmt.Errorf("memstore: %w: a batch of %d writes, at most %d fit: split it", storage.ErrTooLarge, batch.Len(), s.options.MaxBatchOps)
	}
	if err := batch.CheckSizes(); err != nil {
		return nil, succeeds, fmt.Errorf("memstore: %w", err)
	}
	if s.mu.noSpace {
		return nil, succeeds, fmt.Errorf("memstore: %w", storage.ErrNoSpace)
	}
	s.mu.commits++
	failure := s.mu.failures[s.mu.commits]
	delete(s.mu.failures, s.mu.commits)
	return s.mu.root, failure, nil
}

func apply(root *node, op storage.Op) *node {
	if op.Delete {
		return root.remove(op.Key)
	}
	key, value := bytes.Clone(op.Key), append([]byte{}, op.Value...)
	return root.put(&node{key: key, value: value, sum: checksum(key, value), priority: priorityOf(key)})
}

// Close implements storage.Store.
func (s *Store) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.mu.closed {
		return storage.ErrClosed
	}
	s.mu.closed = true
	return nil
}

// Snapshot implements storage.Store.
func (s *Store) Snapshot() storage.Snapshot {
	s.mu.Lock()
	defer s.mu.Unlock()
	return &snapshot{store: s, root: s.mu.root}
}

type snapshot struct {
	store    *Store
	root     *node
	released atomic.Bool
}

var errReleased = errors.New("memstore: snapshot was released")

func (snap *snapshot) check() error {
	if snap.released.Load() {
		return errReleased
	}
	snap.store.mu.Lock()
	defer snap.store.mu.Unlock()
	if snap.store.mu.closed {
		return storage.ErrClosed
	}
	return nil
}

// Get implements storage.Snapshot.
func (snap *snapshot) Get(key []byte) (value []byte, ok bool, err error) {
	if err := snap.check(); err != nil {
		return nil, false, err
	}
	found := snap.root.get(key)
	if found == nil {
		return nil, false, nil
	}
	if err := found.verify(); err != nil {
		return nil, false, err
	}
	return append([]byte{}, found.value...), true, nil
}

// Scan implements storage.Snapshot. fn gets copies in buffers that the next pair overwrites, so
// that a caller that keeps them, against the contract, sees its mistake.
func (snap *snapshot) Scan(lower, upper []byte, fn func(key, value []byte) bool) error {
	if err := snap.check(); err != nil {
		return err
	}
	var key, value []byte
	var damage error
	snap.root.ascend(lower, upper, func(n *node) bool {
		if damage = n.verify(); damage != nil {
			return false
		}
		key, value = append(key[:0], n.key...), append(value[:0], n.value...)
		return fn(key, value)
	})
	return damage
}

// Release implements storage.Snapshot. Further calls do nothing.
func (snap *snapshot) Release() { snap.released.Store(true) }

func (n *node) verify() error {
	if got := checksum(n.key, n.value); got != n.sum {
		return fmt.Errorf("memstore: %w: key %q: checksum %08x of %d bytes, recorded %08x", storage.ErrDamaged, n.key, got, len(n.value), n.sum)
	}
	return nil
}

// Keys returns all keys that a snapshot would see, in order.
func (s *Store) Keys() [][]byte {
	s.mu.Lock()
	root := s.mu.root
	s.mu.Unlock()
	var keys [][]byte
	root.ascend(nil, nil, func(n *node) bool {
		keys = append(keys, slices.Clone(n.key))
		return true
	})
	return keys
}
