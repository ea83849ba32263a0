// Package badgerstore keeps a storage.Store on disk, in Badger.
//
// # Model
//
// Badger runs in managed mode: a commit's sequence number is its Badger version, so a snapshot
// is a number, the last sequence whose commit returned, and never waits for a commit in flight.
// Every key has a one-byte prefix (0x01 for data, 0x00 for the store's own "commit" record,
// which every commit overwrites with its sequence), every value a CRC32C of key and value.
//
// # Durability
//
// One batch is one Badger transaction with SyncWrites: several transactions followed by one
// sync were seen to leave holes after a power loss. A commit that fails fences the store.
//
// # Damage
//
// Badger repairs silently, by dropping data. So before it opens, an audit checks tables,
// manifest and log against each other and against the HIGHWATER file, and refuses a directory
// that holds less than was committed; values are checked at every read. What remains: damage to
// the last second's commits, which the node log notices, and a key damaged on disk while the
// store is open, which reads as absent until the next open names the file.
//
// # Goroutines
//
// Badger's own, ended by Close, and a timer that writes HIGHWATER at most once a second.
package badgerstore

import (
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"os"
	"path/filepath"
	"sync"

	"github.com/dgraph-io/badger/v4"

	"github.com/perdure/perdure/storage"
)

const (
	metaPrefix = 0x00
	dataPrefix = 0x01
)

// commitKey holds the sequence of the last commit.
var commitKey = append([]byte{metaPrefix}, "commit"...)

// Store is a storage.Store on disk. See there for what may be called concurrently.
type Store struct {
	dir     string
	options Options
	logger  *slog.Logger
	db      *badger.DB
	lock    *os.File
	mark    *highWater

	// committing serializes Commit and guards its state.
	committing struct {
		sync.Mutex
		arena []byte // keys and values of the batch being committed
		space spaceCheck
	}

	mu struct {
		sync.Mutex
		idle      sync.Cond // signalled when active falls to 0
		active    int       // calls inside Badger
		closed    bool
		fenced    error  // why the store takes no more commits; nil if it does
		committed uint64 // sequence of the last commit that returned nil
		open      []openSnapshots
	}

	// Test hooks; nil in production.
	beforeCommit func() error
}

var _ storage.Store = (*Store)(nil)

// openSnapshots counts the snapshots at a sequence. Store.mu.open is ascending and without zero
// counts, so its first element bounds what Badger may discard.
type openSnapshots struct {
	sequence uint64
	count    int
}

// Open opens or creates the store in options.Dir. It returns an error wrapping
// storage.ErrLocked if another process has it open, storage.ErrDamaged or storage.ErrDataLoss,
// with the file, if it does not hold what was committed, storage.ErrNoSpace if the disk is too
// full to open safely, and all problems of the options at once.
func Open(options Options) (*Store, error) {
	if err := options.Validate(); err != nil {
		return nil, err
	}
	store, err := open(options.withDefaults(), freeDiskBytes)
	if err != nil {
		return nil, fmt.Errorf("badgerstore: open %s: %w", options.Dir, err)
	}
	return store, nil
}

func open(options Options, freeBytes func(dir string) (int64, error)) (_ *Store, err error) {
	lock, err := openDirectory(options.Dir)
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, lock.Close())
		}
	}()
	s := &Store{dir: options.Dir, options: options, logger: options.Logger, lock: lock}
	s.mu.idle.L = &s.mu.Mutex
	recorded, err := readHighWater(filepath.Join(options.Dir, highWaterFile))
	if err != nil {
		return nil, err
	}
	badgerOptions := options.badgerOptions()
	audit := audit{
		dir: badgerDir(options.Dir), options: badgerOptions, logger: options.Logger,
		skipVerify: options.SkipVerify, highWater: recorded,
	}
	last, err := audit.run()
	if err != nil {
		return nil, err
	}
	s.committing.space = spaceCheck{dir: options.Dir, minFreeBytes: options.MinFreeBytes, freeBytes: freeBytes, reserve: s.compactionReserve}
	// Opening writes too: the replayed log becomes a table, and compaction starts.
	if err := s.committing.space.require(options.MinFreeBytes/2 + audit.levels.reserve()); err != nil {
		return nil, err
	}
	if s.db, err = openBadger(badgerOptions); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, s.db.Close())
		}
	}()
	sequence, err := s.storedSequence()
	if err != nil {
		return nil, err
	}
	if sequence != last || s.db.MaxVersion() > sequence {
		return nil, fmt.Errorf("%w: Badger opened at commit %d (highest version %d), its files hold commit %d%s",
			storage.ErrDataLoss, sequence, s.db.MaxVersion(), last, remedy)
	}
	s.mark, err = openHighWater(filepath.Join(options.Dir, highWaterFile), recorded, s.fence)
	if err != nil {
		return nil, err
	}
	s.mark.raise(sequence)
	s.mu.committed = sequence
	s.db.SetDiscardTs(sequence)
	return s, nil
}

// openBadger turns a panic, with which Badger answers some damaged files, into an error.
func openBadger(options badger.Options) (db *badger.DB, err error) {
	defer func() {
		if reason := recover(); reason != nil {
			err = fmt.Errorf("%w: badger: %v", storage.ErrDamaged, reason)
		}
	}()
	if db, err = badger.OpenManaged(options); err != nil {
		// Badger's errors do not tell a full file table from damage.
		return nil, fmt.Errorf("badger cannot open its files; if the disk and permissions are in order, they are damaged: %w", err)
	}
	return db, nil
}

// storedSequence reads the sequence of the last commit; 0 in a new store.
func (s *Store) storedSequence() (uint64, error) {
	value, ok, err := get(s.db.NewTransactionAt(math.MaxUint64, false), commitKey)
	if err != nil || !ok {
		return 0, err
	}
	if len(value) != 8 {
		return 0, fmt.Errorf("%w: commit record of %d bytes", storage.ErrDamaged, len(value))
	}
	return binary.BigEndian.Uint64(value), nil
}

// Close waits for calls in progress, records the last commit and closes Badger.
func (s *Store) Close() error {
	s.mu.Lock()
	if s.mu.closed {
		s.mu.Unlock()
		return storage.ErrClosed
	}
	s.mu.closed = true
	for s.mu.active > 0 {
		s.mu.idle.Wait()
	}
	snapshots := 0
	for _, open := range s.mu.open {
		snapshots += open.count
	}
	s.mu.Unlock()
	if snapshots > 0 {
		s.logger.Warn("store closed with snapshots in use", "path", s.dir, "snapshots", snapshots)
	}
	if err := errors.Join(s.mark.close(), s.db.Close(), s.lock.Close()); err != nil {
		return fmt.Errorf("badgerstore: close %s: %w", s.dir, err)
	}
	return nil
}

// enter keeps Badger open until leave: closing it unmaps what a read may be looking at.
func (s *Store) enter() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.mu.closed {
		return storage.ErrClosed
	}
	s.mu.active++
	return nil
}

func (s *Store) leave() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.mu.active--; s.mu.active == 0 {
		s.mu.idle.Broadcast()
	}
}

// fence stops commits. The first cause is kept.
func (s *Store) fence(cause error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.mu.fenced == nil {
		s.mu.fenced = cause
		s.logger.Error("store fenced: it must be closed and opened again", "path", s.dir, "error", cause)
	}
}
