package nodelog

import (
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/perdure/perdure/storage/vfs"
)

// Entry is one entry of a group's log.
type Entry struct {
	// Index is the entry's place in its group, from 1, without gaps.
	Index uint64
	// Term and Kind are the caller's to interpret.
	Term uint64
	Kind uint8
	// Data is shared, never copied: neither the appender nor a reader may change it.
	Data []byte
}

// GroupWrite is what one Append does to one group.
type GroupWrite struct {
	Group uint32
	// Reset, if not nil, empties the group before Entries are appended, so that it continues behind
	// a position: a snapshot that is being installed, or 0 for a group that is to be as if it never
	// had entries. In the same frame, so that a crash leaves both or neither.
	Reset *Position
	// Entries are contiguous. The first is at most last+1; at or below last it replaces what
	// the group has from there on. It is never below the group's first index.
	Entries []Entry
	// State replaces the group's state: some bytes, at most MaxStateBytes, kept beside its
	// entries. Nil leaves it as it is, empty clears it. Copied.
	State []byte
}

// Position is an entry's place in its group and its term.
type Position struct{ Index, Term uint64 }

// MaxStateBytes bounds GroupWrite.State: every state is repeated in every segment.
const MaxStateBytes = 1 << 10

// Options configures a Log. Only Dir is required.
type Options struct {
	// Dir is the log's directory, made if missing. Nothing else may write there.
	Dir string
	// FS is where Dir is. Defaults to vfs.OS.
	FS vfs.FS
	// SegmentBytes is the size of a segment, between 4 KiB and 512 MiB; a larger frame gets a
	// larger segment of its own. Defaults to 16 MiB.
	SegmentBytes int64
	// CacheBytes bounds the memory for recent entries. Defaults to 32 MiB; negative: none.
	CacheBytes int64
	// MinFreeBytes is the free disk space that a new segment must leave: below, Append returns
	// ErrNoSpace. Defaults to 64 MiB; negative: none.
	MinFreeBytes int64
	// CarryAfterSegments is the number of segments from which on the entries of quiet groups
	// are carried forward out of the oldest one. Defaults to 8.
	CarryAfterSegments int
	// MarkerDelay is how long the log is idle before it marks its last frame as synced: see
	// the package comment. Defaults to 20 ms; negative: only Close does.
	MarkerDelay time.Duration
	// Logger defaults to slog.Default().
	Logger *slog.Logger

	// inlineUpkeep does the background goroutine's deletions on the appending goroutine, so
	// that tests can number the operations.
	inlineUpkeep bool
}

func (o Options) withDefaults() (Options, error) {
	if o.FS == nil {
		o.FS = vfs.OS{}
	}
	if o.Logger == nil {
		o.Logger = slog.Default()
	}
	setDefault(&o.SegmentBytes, 16<<20)
	setDefault(&o.CacheBytes, 32<<20)
	setDefault(&o.MinFreeBytes, 64<<20)
	setDefault(&o.CarryAfterSegments, 8)
	setDefault(&o.MarkerDelay, 20*time.Millisecond)
	o.CacheBytes = max(o.CacheBytes, 0)
	o.MinFreeBytes = max(o.MinFreeBytes, 0)
	var problems []error
	if o.Dir == "" {
		problems = append(problems, errors.New("nodelog: Options.Dir is empty: name a directory"))
	}
	if o.SegmentBytes < 4<<10 || o.SegmentBytes > 512<<20 {
		problems = append(problems, fmt.Errorf("nodelog: Options.SegmentBytes is %d: choose 4 KiB to 512 MiB", o.SegmentBytes))
	}
	if o.CarryAfterSegments < 2 {
		problems = append(problems, fmt.Errorf("nodelog: Options.CarryAfterSegments is %d: choose at least 2", o.CarryAfterSegments))
	}
	return o, errors.Join(problems...)
}

func setDefault[T comparable](field *T, value T) {
	var zero T
	if *field == zero {
		*field = value
	}
}

// writeLock is a mutex that is held over writes and syncs. It is a channel, because a fake clock
// (testing/synctest) goes on while somebody waits for one, and stands still while somebody waits for a
// sync.Mutex that who sleeps in a simulated sync holds. Beside a sync it costs nothing.
type writeLock chan struct{}

func newWriteLock() writeLock { return make(writeLock, 1) }

func (l writeLock) Lock()   { l <- struct{}{} }
func (l writeLock) Unlock() { <-l }

func (l writeLock) TryLock() bool {
	select {
	case l <- struct{}{}:
		return true
	default:
		return false
	}
}

// Log is an open log. Append, Reset and Remove wait for each other; everything else may be
// called concurrently with them.
type Log struct {
	opts   Options
	id     logID
	lock   io.Closer
	logger *slog.Logger

	// writeMu serialises everything that writes to segments. Taken before mu, never inside.
	writeMu writeLock
	// The following are guarded by writeMu.
	current  *segment // the last of mu.segments
	sequence uint64   // of the last frame
	marked   bool     // whether a marker is behind it
	markable bool     // whether there is a frame to mark
	frame    frameBuilder
	firsts   map[uint32]uint64 // scratch of checkWrites, like lasts
	lasts    map[uint32]uint64
	fenced   error
	closed   bool

	// deleteMu is held while segments are deleted. Taken after writeMu and before mu.
	deleteMu sync.Mutex

	mu struct {
		sync.RWMutex
		index
		// truncated are the groups whose truncation is not on disk yet, and gone what it
		// will release.
		truncated map[uint32]struct{}
		gone      []released
		closed    bool
	}

	// opened is sequence as Open found it.
	opened uint64
	// starved is set while a new segment cannot be made for lack of space.
	starved atomic.Bool
	counts  counters
	upkeep  upkeep
}

// Open opens the log in a directory, making it if there is none, and verifies all of it. The
// errors to expect are ErrLocked, ErrDamaged, ErrVersion and ErrNoSpace.
func Open(opts Options) (*Log, error) {
	opts, err := opts.withDefaults()
	if err != nil {
		return nil, err
	}
	if err := opts.FS.MkdirAll(opts.Dir); err != nil {
		return nil, fmt.Errorf("nodelog: make directory: %w", err)
	}
	lock, err := opts.FS.Lock(filepath.Join(opts.Dir, lockName))
	if errors.Is(err, vfs.ErrLocked) {
		return nil, fmt.Errorf("%w: %s: stop that process, or give this one a directory of its own", ErrLocked, opts.Dir)
	}
	if err != nil {
		return nil, fmt.Errorf("nodelog: lock directory: %w", err)
	}
	l := &Log{opts: opts, lock: lock, writeMu: newWriteLock(), logger: opts.Logger, firsts: make(map[uint32]uint64), lasts: make(map[uint32]uint64)}
	l.mu.groups = make(map[uint32]*group)
	l.mu.truncated = make(map[uint32]struct{})
	l.mu.cacheLimit = opts.CacheBytes
	if err := l.open(); err != nil {
		for _, s := range l.mu.segments {
			_ = s.release()
		}
		return nil, errors.Join(err, lock.Close())
	}
	l.opened = l.sequence
	l.counts.durable.Store(l.sequence)
	l.upkeep.start(l)
	return l, nil
}

func (l *Log) open() error {
	numbers, err := listSegments(l.opts.FS, l.opts.Dir)
	if err != nil {
		return fmt.Errorf("nodelog: list segments: %w", err)
	}
	id, known, err := l.readIdentity()
	if err != nil {
		return err
	}
	r := recovery{log: l, index: &l.mu.index, id: id, identified: known}
	if !known {
		fresh, err := r.neverUsed(numbers)
		if err != nil {
			return err
		}
		if fresh {
			return l.create()
		}
	}
	if err := r.run(numbers); err != nil {
		return err
	}
	return r.repair()
}

// create makes the first segment and then the identity, which says that creation was
// finished: from then on a missing or blank segment is damage.
func (l *Log) create() error {
	if _, err := rand.Read(l.id[:]); err != nil {
		return fmt.Errorf("nodelog: choose log id: %w", err)
	}
	if err := l.checkFree(l.opts.SegmentBytes); err != nil {
		return err
	}
	first, err := createSegment(l.opts.FS, l.opts.Dir, segmentHeader{
		id: l.id, number: 1, capacity: l.opts.SegmentBytes, previousEnd: segmentHeaderBytes,
	})
	if err != nil {
		return fmt.Errorf("nodelog: %w", noSpace(err))
	}
	l.mu.segments = []*segment{first}
	l.current = first
	return l.writeIdentity()
}

func (l *Log) identityPath() string { return filepath.Join(l.opts.Dir, identityName) }

// readIdentity returns known false if the file is missing or was never written.
func (l *Log) readIdentity() (id logID, known bool, err error) {
	content, err := readFile(l.opts.FS, l.identityPath())
	if vfs.IsNotExist(err) || err == nil && allZero(content) {
		return logID{}, false, nil
	}
	if err != nil {
		return logID{}, false, fmt.Errorf("nodelog: read identity: %w", err)
	}
	if err := checkPreamble(l.identityPath(), content, identityMagic); err != nil {
		return logID{}, false, err
	}
	return logID(content[16:32]), true, nil
}

func (l *Log) writeIdentity() error {
	// Under another name first: a torn identity would look like damage.
	temporary := l.identityPath() + ".new"
	file, err := l.opts.FS.Create(temporary)
	if err != nil {
		return fmt.Errorf("nodelog: write identity: %w", noSpace(err))
	}
	_, err = file.WriteAt(encodeIdentity(l.id), 0)
	if err == nil {
		err = file.Sync()
	}
	if err = errors.Join(err, file.Close()); err == nil {
		err = l.opts.FS.Rename(temporary, l.identityPath())
	}
	if err == nil {
		err = l.opts.FS.SyncDir(l.opts.Dir)
	}
	if err != nil {
		return fmt.Errorf("nodelog: write identity: %w", noSpace(err))
	}
	return nil
}

// noSpace makes a full disk recognisable by errors.Is(err, ErrNoSpace).
func noSpace(err error) error {
	if vfs.IsNoSpace(err) {
		return fmt.Errorf("%w: %w", ErrNoSpace, err)
	}
	return err
}

func readFile(fs vfs.FS, name string) ([]byte, error) {
	file, err := fs.Open(name)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	size, err := file.Size()
	if err != nil {
		return nil, err
	}
	content := make([]byte, size)
	if n, err := file.ReadAt(content, 0); int64(n) < size {
		return nil, fmt.Errorf("read %s: %w", name, err)
	}
	return content, nil
}

func allZero(b []byte) bool {
	for len(b) >= 8 {
		if b[0]|b[1]|b[2]|b[3]|b[4]|b[5]|b[6]|b[7] != 0 {
			return false
		}
		b = b[8:]
	}
	for _, c := range b {
		if c != 0 {
			return false
		}
	}
	return true
}

// Close writes the marker, ends the background goroutine and releases the directory. Reads in
// progress finish.
func (l *Log) Close() error {
	l.writeMu.Lock()
	if l.closed {
		l.writeMu.Unlock()
		return ErrClosed
	}
	l.closed = true
	l.writeMu.Unlock()
	l.upkeep.stop()

	l.writeMu.Lock()
	defer l.writeMu.Unlock()
	var problems []error
	if l.fenced == nil && l.markable && !l.marked {
		if l.writeMarker(frameMarker) == nil {
			problems = append(problems, l.sync(l.current))
		}
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.mu.closed = true
	for _, s := range l.mu.segments {
		problems = append(problems, s.release())
	}
	problems = append(problems, l.lock.Close())
	if err := errors.Join(problems...); err != nil {
		return fmt.Errorf("nodelog: close: %w", err)
	}
	return nil
}

// Frames returns the sequence of the last frame that Open found, and of the last one that is durable
// now. Over the life of a log they only grow: a log with less than it once had lost what was
// acknowledged.
func (l *Log) Frames() (opened, durable uint64) { return l.opened, l.counts.durable.Load() }

// Groups returns the groups that have a state, an entry or a truncation point, ascending.
func (l *Log) Groups() []uint32 {
	l.mu.RLock()
	defer l.mu.RUnlock()
	groups := make([]uint32, 0, len(l.mu.groups))
	for id := range l.mu.groups {
		groups = append(groups, id)
	}
	slices.Sort(groups)
	return groups
}

// State returns a copy of a group's state, nil if it never had one.
func (l *Log) State(group uint32) []byte {
	l.mu.RLock()
	defer l.mu.RUnlock()
	if g := l.mu.groups[group]; g != nil {
		return slices.Clone(g.state)
	}
	return nil
}

// Bounds returns the indexes of a group's first and last entry. An empty group has first =
// last+1; one never written to has 1, 0.
func (l *Log) Bounds(group uint32) (first, last uint64) {
	l.mu.RLock()
	defer l.mu.RUnlock()
	if g := l.mu.groups[group]; g != nil {
		return g.first(), g.last()
	}
	return 1, 0
}

// Term returns the term of an entry, or at first-1 of the truncation point (0 if there was no
// truncation). Below is ErrCompacted, above ErrUnavailable.
func (l *Log) Term(group uint32, index uint64) (uint64, error) {
	l.mu.RLock()
	defer l.mu.RUnlock()
	g := l.mu.groups[group]
	switch {
	case g == nil && index == 0:
		return 0, nil
	case g == nil:
		return 0, ErrUnavailable
	case index == g.truncIndex:
		return g.truncTerm, nil
	case index < g.truncIndex:
		return 0, ErrCompacted
	case index > g.last():
		return 0, ErrUnavailable
	}
	return g.locations[index-g.first()].term, nil
}
