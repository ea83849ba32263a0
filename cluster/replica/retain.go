package replica

import (
	raft "go.etcd.io/raft/v3"
	pb "go.etcd.io/raft/v3/raftpb"
	"go.etcd.io/raft/v3/tracker"
)

// mark says how many bytes the entries up to index, and behind the mark before, take in the log.
type mark struct {
	index uint64
	bytes int
}

// markBytes is how finely it is known what the log of a group keeps.
const markBytes = 32 << 10

// note counts entries that the applier was handed.
func (l *loop) note(g *Group, entries []*pb.Entry) {
	ls := &g.loopState
	if !g.keepsLog.Load() || len(entries) == 0 {
		return
	}
	size := 0
	for _, entry := range entries {
		size += len(entry.Data) + entryOverheadBytes
	}
	last := entries[len(entries)-1].GetIndex()
	if n := len(ls.marks); n > 0 && ls.marks[n-1].bytes < markBytes {
		ls.marks[n-1].index = last
		ls.marks[n-1].bytes += size
	} else {
		ls.marks = append(ls.marks, mark{last, size})
	}
	ls.retained += size
}

// trim lets the log forget what is in the store and either no member lacks or is more than is
// kept for one that does. A follower does not know what others lack, and may have to lead them.
func (l *loop) trim(g *Group) {
	ls := &g.loopState
	if ls.log == nil || ls.node == nil || len(ls.settling) > 0 {
		return
	}
	upTo, most := uint64(0), l.host.cfg.RetainBytes
	if ls.epoch != 0 {
		upTo = ls.stored
		ls.node.WithProgress(func(id uint64, _ raft.ProgressType, pr tracker.Progress) {
			if id != l.host.cfg.NodeID {
				upTo = min(upTo, max(pr.Match, pr.PendingSnapshot))
				if pr.State == tracker.StateSnapshot {
					// A snapshot that is followed by nothing is followed by another snapshot.
					most = l.host.cfg.RetainTotalBytes
				}
			}
		})
	}
	n := 0
	for n < len(ls.marks) && ls.marks[n].index <= ls.stored && (ls.marks[n].index <= upTo || ls.retained > most) {
		upTo = max(upTo, ls.marks[n].index)
		ls.retained -= ls.marks[n].bytes
		n++
	}
	if n > 0 {
		ls.marks = append(ls.marks[:0], ls.marks[n:]...)
	}
	if upTo < ls.log.first {
		return
	}
	term, err := ls.log.Term(upTo)
	if err != nil {
		return // what cannot be read is said by whoever needs it
	}
	ls.log.truncated(upTo, term)
	l.host.cfg.Log.TruncatePrefix(uint32(g.id), upTo, term)
}
