package replica

import (
	"errors"
	"fmt"

	raft "go.etcd.io/raft/v3"
	pb "go.etcd.io/raft/v3/raftpb"

	"github.com/perdure/perdure/cluster/replica/hardstate"
	"github.com/perdure/perdure/storage/nodelog"
)

// Log is what the host needs of the node log: *nodelog.Log, or an in-memory one in tests.
// Append is called by one goroutine; the others may be called while it runs.
type Log interface {
	// Append makes the writes durable before it returns; per group it is all or nothing. Entries
	// replace whatever the group had from the first one's index on. State, if not nil, replaces
	// the group's state. It may keep the entries' Data, and nothing else. nodelog.ErrNoSpace means
	// that nothing was written and the log goes on; every other error ends the host.
	Append(writes []nodelog.GroupWrite) error
	// Groups lists the groups the log knows.
	Groups() []uint32
	// State is the last one appended for the group, or nil.
	State(group uint32) []byte
	// Bounds are the first and last index held; 1 and 0 for an empty group.
	Bounds(group uint32) (first, last uint64)
	// Term is that of an entry in [first-1, last].
	Term(group uint32, index uint64) (uint64, error)
	// Entries are those in [lo, hi), cut after maxBytes but at least one.
	Entries(group uint32, lo, hi, maxBytes uint64) ([]nodelog.Entry, error)
	// TruncatePrefix forgets the entries up to index, which has the term, at once; durably with
	// the next Append.
	TruncatePrefix(group uint32, index, term uint64)
	// Close releases the log. The host never calls it: who opened the log closes it.
	Close() error
}

// raftLog is the view that one group's RawNode has of the node log. It is owned by the loop.
//
// It keeps what is stable but not yet handed to the applier in memory, since the library reads
// committed entries back through here and not from its own unstable part.
type raftLog struct {
	log   Log
	group GroupID

	hard *pb.HardState
	past hardstate.Past
	conf *pb.ConfState

	// snapshot answers Snapshot. Nil if there is no way to send one.
	snapshot func() (*pb.Snapshot, error)

	// first-1 ≤ handed ≤ last; the log may have been truncated less far than first says.
	first, last         uint64
	firstTerm, lastTerm uint64 // of first-1 and of last

	tail []*pb.Entry // contiguous and ending at last, or empty

	err error // the first failed read; the library panics on it and the loop recovers
}

var _ raft.Storage = (*raftLog)(nil)

// openRaftLog loads a group's state and bounds.
func openRaftLog(log Log, group GroupID) (*raftLog, error) {
	var err error
	r := &raftLog{log: log, group: group, hard: &pb.HardState{}}
	state := log.State(uint32(group))
	if _, last := log.Bounds(uint32(group)); len(state) > 0 || last > 0 {
		if r.hard, r.past, err = hardstate.Decode(state); err != nil {
			return nil, err
		}
	}
	for {
		r.first, r.last = log.Bounds(uint32(group))
		if r.firstTerm, err = r.termAt(r.first - 1); err == nil {
			if r.lastTerm, err = r.termAt(r.last); err == nil {
				return r, nil
			}
		}
		if first, _ := log.Bounds(uint32(group)); first == r.first {
			return nil, err
		}
		// The applier truncated the log between the two calls.
	}
}

func (r *raftLog) termAt(index uint64) (uint64, error) {
	if index == 0 {
		return 0, nil
	}
	term, err := r.log.Term(uint32(r.group), index)
	if err != nil {
		return 0, fmt.Errorf("term of log index %d: %w", index, err)
	}
	return term, nil
}

// stabilized notes that entries are in the log.
func (r *raftLog) stabilized(entries []*pb.Entry) {
	if len(entries) == 0 {
		return
	}
	from := entries[0].GetIndex()
	if len(r.tail) > 0 && from <= r.last {
		if head := r.tail[0].GetIndex(); from > head {
			r.tail = r.tail[: from-head : from-head]
		} else {
			r.tail = nil
		}
	}
	r.tail = append(r.tail, entries...)
	end := entries[len(entries)-1]
	r.last, r.lastTerm = end.GetIndex(), end.GetTerm()
}

// handed drops from memory what the applier has.
func (r *raftLog) handed(index uint64) {
	if len(r.tail) == 0 || index < r.tail[0].GetIndex() {
		return
	}
	n := min(index+1-r.tail[0].GetIndex(), uint64(len(r.tail)))
	clear(r.tail[:n])
	if r.tail = r.tail[n:]; len(r.tail) == 0 {
		r.tail = nil
	}
}

// reset notes that the log is empty and continues behind an index.
func (r *raftLog) reset(index, term uint64) {
	r.first, r.firstTerm = index+1, term
	r.last, r.lastTerm = index, term
	r.tail = nil
}

// truncated notes that the log is about to forget everything up to index.
func (r *raftLog) truncated(index, term uint64) {
	if index >= r.first {
		r.first, r.firstTerm = index+1, term
	}
}

func (r *raftLog) InitialState() (*pb.HardState, *pb.ConfState, error) {
	return r.hard, r.conf, nil
}

func (r *raftLog) FirstIndex() (uint64, error) { return r.first, nil }

func (r *raftLog) LastIndex() (uint64, error) { return r.last, nil }

func (r *raftLog) Term(index uint64) (uint64, error) {
	switch {
	case index == r.last:
		return r.lastTerm, nil
	case index == r.first-1:
		return r.firstTerm, nil
	case index < r.first-1:
		return 0, raft.ErrCompacted
	case index > r.last:
		return 0, raft.ErrUnavailable
	}
	if len(r.tail) > 0 && index >= r.tail[0].GetIndex() {
		return r.tail[index-r.tail[0].GetIndex()].GetTerm(), nil
	}
	term, err := r.termAt(index)
	if errors.Is(err, nodelog.ErrCompacted) {
		return 0, raft.ErrCompacted // by the applier, whose notice is on its way
	}
	if err != nil {
		r.fail(err)
	}
	return term, err
}

func (r *raftLog) Entries(lo, hi, maxBytes uint64) ([]*pb.Entry, error) {
	if lo < r.first {
		return nil, raft.ErrCompacted
	}
	if hi > r.last+1 {
		return nil, raft.ErrUnavailable
	}
	if len(r.tail) > 0 {
		if head := r.tail[0].GetIndex(); lo >= head {
			entries := r.tail[lo-head : hi-head]
			n, size := 0, uint64(0)
			for _, entry := range entries {
				if size += uint64(len(entry.Data)) + entryOverheadBytes; n > 0 && size > maxBytes {
					break
				}
				n++
			}
			// A copy: handed clears the elements, and the applier keeps the result for longer.
			return append(make([]*pb.Entry, 0, n), entries[:n]...), nil
		} else if hi > head {
			hi = head // the library asks again for the rest
		}
	}
	stored, err := r.log.Entries(uint32(r.group), lo, hi, maxBytes)
	if errors.Is(err, nodelog.ErrCompacted) {
		return nil, raft.ErrCompacted
	}
	if err == nil && len(stored) == 0 {
		err = errors.New("none returned")
	}
	if err != nil {
		err = fmt.Errorf("read log entries %d to %d: %w", lo, hi-1, err)
		r.fail(err)
		return nil, err
	}
	entries := make([]*pb.Entry, len(stored))
	for i := range stored {
		entries[i] = &pb.Entry{
			Term: &stored[i].Term, Index: &stored[i].Index, Data: stored[i].Data,
			Type: pb.EntryType(stored[i].Kind).Enum(),
		}
	}
	return entries, nil
}

// Snapshot is asked for when a peer needs entries that the log no longer has.
func (r *raftLog) Snapshot() (*pb.Snapshot, error) {
	if r.snapshot == nil {
		return nil, raft.ErrSnapshotTemporarilyUnavailable
	}
	return r.snapshot()
}

func (r *raftLog) fail(err error) {
	if r.err == nil {
		r.err = err
	}
}

// entryOverheadBytes is what an entry's index, term and type are counted as.
const entryOverheadBytes = 16

// belowFloor is whether the log ends before what an earlier replica here had.
func (r *raftLog) belowFloor(p hardstate.Past) bool {
	return r.lastTerm < p.FloorTerm || r.lastTerm == p.FloorTerm && r.last < p.FloorIndex
}
