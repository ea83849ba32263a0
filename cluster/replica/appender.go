package replica

import (
	"fmt"
	"sync"
	"time"

	raft "go.etcd.io/raft/v3"
	pb "go.etcd.io/raft/v3/raftpb"

	"github.com/perdure/perdure/cluster/replica/hardstate"
	"github.com/perdure/perdure/storage/nodelog"
)

// appender writes what all groups have ready to the log, one append at a time. The loop adds to
// a batch for as long as the one before is being synced.
type appender struct {
	host *Host
	wake chan struct{}

	mu struct {
		sync.Mutex
		gathering *appendBatch // what the next append takes, or nil
		open      bool         // the loop is adding to gathering: not to be taken yet
		running   bool
		since     time.Time // when running began
		blocked   bool      // an append failed, and the loop has not dealt with it yet
		stopped   bool
		batches   uint64 // how many were begun
		spare     []*appendBatch
	}
}

// appendBatch is one append: what to write, and what the groups' nodes are told afterwards.
// The loop owns it, except from the time the appender takes it until it is in the intake.
type appendBatch struct {
	id     uint64 // from 1
	writes []nodelog.GroupWrite
	parts  []appendPart
	// durable is false if nothing has to reach the disk: new commit indexes, answers that only
	// wait for what was appended before. Those ride along with the next append.
	durable bool
	err     error
}

// appendPart is what one group has in a batch.
type appendPart struct {
	group       *Group
	incarnation uint64
	write       int // in appendBatch.writes, or -1
	entries     []*pb.Entry
	state       []byte        // memory for the write's State
	answers     []*pb.Message // to be delivered once the batch is durable
	install     []*install    // snapshots that the write starts the log anew for
	drop        bool          // the write ends the replica
}

func (a *appender) init(h *Host) {
	a.host, a.wake = h, make(chan struct{}, 1)
}

// add puts a group's MsgStorageAppend into the gathering batch.
func (a *appender) add(g *Group, m *pb.Message) {
	ls := &g.loopState
	a.mu.Lock()
	defer a.mu.Unlock()
	part, b := a.partLocked(g)
	if !raft.IsEmptySnap(m.GetSnapshot()) {
		// What the group had gathered is before the snapshot; what it says it has, it has by it.
		at := m.GetSnapshot().GetMetadata()
		part.ensureWrite(b)
		clear(part.entries)
		part.entries, part.install = part.entries[:0], append(part.install, ls.install)
		w := &b.writes[part.write]
		w.Entries, w.Reset = w.Entries[:0], &nodelog.Position{Index: at.GetIndex(), Term: at.GetTerm()}
		ls.install, ls.hardDirty = nil, true
		ls.voteDirty = true // or the state would not be written
	}
	part.answers = append(part.answers, m.GetResponses()...)
	// A commit index alone need not be durable: it is written along with the next entries.
	if len(m.GetEntries()) > 0 || ls.voteDirty {
		part.ensureWrite(b)
		b.durable = true
		part.addEntries(&b.writes[part.write], m.GetEntries())
		if ls.hardDirty {
			part.state = hardstate.Append(part.state[:0], ls.hard, ls.past)
			b.writes[part.write].State = part.state
			if ls.voteDirty {
				ls.voteBatch = b.id
			}
			ls.hardDirty, ls.voteDirty = false, false
		}
	}
}

// drop puts into the gathering batch that the group has no replica here any more.
func (a *appender) drop(g *Group) {
	a.mu.Lock()
	defer a.mu.Unlock()
	part, b := a.partLocked(g)
	part.ensureWrite(b)
	b.durable, part.drop = true, true
	clear(part.entries)
	clear(part.answers)
	part.entries, part.answers = part.entries[:0], part.answers[:0]
	part.state = hardstate.Append(part.state[:0], g.loopState.hard, g.loopState.past)
	w := &b.writes[part.write]
	w.Entries, w.Reset, w.State = w.Entries[:0], &nodelog.Position{}, part.state
}

func (p *appendPart) ensureWrite(b *appendBatch) {
	if p.write < 0 {
		p.write = b.addWrite(p.group.id)
	}
}

// partLocked returns the group's part of the gathering batch.
func (a *appender) partLocked(g *Group) (*appendPart, *appendBatch) {
	ls := &g.loopState
	b := a.mu.gathering
	if b == nil {
		b = a.newBatchLocked()
		a.mu.gathering = b
	}
	a.mu.open = true
	if ls.batch != b.id {
		ls.batch, ls.part = b.id, len(b.parts)
		ls.appending++
		b.addPart(g)
	}
	return &b.parts[ls.part], b
}

// addEntries puts entries behind those of the part, or over them if they overlap.
func (p *appendPart) addEntries(w *nodelog.GroupWrite, entries []*pb.Entry) {
	if len(entries) == 0 {
		return
	}
	if n := len(p.entries); n > 0 && entries[0].GetIndex() <= p.entries[n-1].GetIndex() {
		keep := 0
		if head := p.entries[0].GetIndex(); entries[0].GetIndex() > head {
			keep = int(entries[0].GetIndex() - head)
		}
		p.entries, w.Entries = p.entries[:keep], w.Entries[:keep]
	}
	p.entries = append(p.entries, entries...)
	for _, entry := range entries {
		w.Entries = append(w.Entries, nodelog.Entry{
			Index: entry.GetIndex(), Term: entry.GetTerm(), Kind: uint8(entry.GetType()), Data: entry.GetData(),
		})
	}
}

func (b *appendBatch) addPart(g *Group) {
	if n := len(b.parts); n < cap(b.parts) {
		b.parts = b.parts[:n+1]
	} else {
		b.parts = append(b.parts, appendPart{})
	}
	part := &b.parts[len(b.parts)-1]
	part.group, part.incarnation, part.write = g, g.loopState.incarnation, -1
}

func (b *appendBatch) addWrite(id GroupID) int {
	if n := len(b.writes); n < cap(b.writes) {
		b.writes = b.writes[:n+1]
	} else {
		b.writes = append(b.writes, nodelog.GroupWrite{})
	}
	w := &b.writes[len(b.writes)-1]
	w.Group, w.Reset, w.Entries, w.State = uint32(id), nil, w.Entries[:0], nil
	return len(b.writes) - 1
}

func (a *appender) newBatchLocked() *appendBatch {
	var b *appendBatch
	if n := len(a.mu.spare); n > 0 {
		b, a.mu.spare = a.mu.spare[n-1], a.mu.spare[:n-1]
	} else {
		b = &appendBatch{}
	}
	a.mu.batches++
	b.id = a.mu.batches
	return b
}

// recycle takes a batch that was dealt with for reuse, unless it grew large.
func (a *appender) recycle(b *appendBatch) {
	const keepEntries = 4096
	entries := 0
	for i := range b.parts {
		part := &b.parts[i]
		entries += cap(part.entries)
		clear(part.entries)
		clear(part.answers)
		part.group, part.entries, part.answers = nil, part.entries[:0], part.answers[:0]
		part.install, part.drop = nil, false
	}
	for i := range b.writes {
		clear(b.writes[i].Entries)
	}
	b.writes, b.parts, b.durable, b.err = b.writes[:0], b.parts[:0], false, nil
	a.mu.Lock()
	defer a.mu.Unlock()
	if entries <= keepEntries && len(a.mu.spare) < 4 {
		a.mu.spare = append(a.mu.spare, b)
	}
}

// flush ends a round of adds: what gathered may be written. Without it the appender would cut
// the round of many groups into two syncs whenever it comes back in the middle.
func (a *appender) flush() {
	a.mu.Lock()
	a.mu.open = false
	ready := a.mu.gathering != nil && !a.mu.running
	a.mu.Unlock()
	if ready {
		select {
		case a.wake <- struct{}{}:
		default:
		}
	}
}

// run appends until stop is called and everything that gathered is written.
func (a *appender) run() {
	for {
		a.mu.Lock()
		b := a.mu.gathering
		if b == nil || a.mu.open || a.mu.blocked {
			stopped := a.mu.stopped
			a.mu.Unlock()
			if stopped {
				return
			}
			<-a.wake
			continue
		}
		since := time.Now()
		a.mu.gathering, a.mu.running, a.mu.since = nil, true, since
		a.mu.Unlock()

		if b.durable {
			a.host.intake.append()
			b.err = a.host.cfg.Log.Append(b.writes)
			if told := a.host.cfg.OnAppend; told != nil {
				told(time.Since(since))
			}
		}

		a.mu.Lock()
		a.mu.running = false
		// What gathered meanwhile continues what was not written: the loop has to see to it.
		a.mu.blocked = b.err != nil
		a.mu.Unlock()
		a.host.intake.appended(b)
	}
}

// abandon takes the gathering batch, or nil, and lets a blocked appender go on.
func (a *appender) abandon() *appendBatch {
	a.mu.Lock()
	defer a.mu.Unlock()
	b := a.mu.gathering
	a.mu.gathering, a.mu.open, a.mu.blocked = nil, false, false
	return b
}

func (a *appender) stop() {
	a.mu.Lock()
	a.mu.stopped = true
	a.mu.Unlock()
	select {
	case a.wake <- struct{}{}:
	default:
	}
}

// stalled is an error while an append takes longer than it should.
func (a *appender) stalled() error {
	a.mu.Lock()
	defer a.mu.Unlock()
	if !a.mu.running {
		return nil
	}
	if took := time.Since(a.mu.since); took >= a.host.cfg.StallAfter {
		return fmt.Errorf("replica: the log append in progress has taken %v so far; check the disk", took.Round(time.Second))
	}
	return nil
}
