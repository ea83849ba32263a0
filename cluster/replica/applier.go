package replica

import (
	"errors"
	"fmt"
	"sync"
	"time"
	"unsafe"

	pb "go.etcd.io/raft/v3/raftpb"

	"github.com/perdure/perdure/cluster/replica/bug"
	"github.com/perdure/perdure/cluster/replica/fault"
	"github.com/perdure/perdure/cluster/replica/rows"
	"github.com/perdure/perdure/storage"
)

// applier puts committed records of all groups into the store, merged into one batch at a time.
type applier struct {
	host *Host
	wake chan struct{}
	quit chan struct{} // closed by stop

	mu struct {
		sync.Mutex
		queue  []applyItem
		bytes  int       // of queue
		held   int       // of queue and of what is being committed
		oldest time.Time // when queue stopped being empty
		urgent bool      // someone waits: don't
		flush  bool      // after quit: commit the queue first
		since  time.Time // when the commit in progress began, or zero
	}

	// The rest is owned by the applier's goroutine.
	work    []applyItem
	batch   storage.Batch
	ops     []storage.Op
	bytes   int            // of the records in ops, before they were merged
	writes  int            // likewise
	at      map[string]int // key → its write in ops; keys alias arena
	born    []bool         // of ops: the first of its writes that were merged is a put
	arena   []byte
	touched []*Group
	notices []applyNotice
}

// applyItem is a run of committed entries of one group.
type applyItem struct {
	group   *Group
	entries []*pb.Entry
	confs   []confAt
	install *install // put this in the place of all that is there
	drop    bool     // forget all that is there
}

// confAt is the Raft configuration, marshalled, from an index on.
type confAt struct {
	index uint64
	conf  []byte
}

// groupApplyState is what the applier knows of a group: after a commit, what is in the store.
type groupApplyState struct {
	applied
	touched  bool  // in applier.touched
	done     int   // bytes of entries that leave the backlog with this batch
	halted   error // nothing more is applied
	void     error
	voidTerm uint64

	installed []*install // by this batch
	dropped   bool       // by this batch
	rubbish   []uint8    // generations that nothing refers to after this batch
}

func (a *applier) init(h *Host) {
	a.host, a.wake, a.quit = h, make(chan struct{}, 1), make(chan struct{})
	a.at = make(map[string]int)
}

// push queues committed entries. urgent makes the applier not wait for more.
func (a *applier) push(item applyItem, urgent bool) {
	size := 0
	for _, entry := range item.entries {
		size += len(entry.Data)
	}
	a.mu.Lock()
	wake := urgent || len(a.mu.queue) == 0 || a.mu.bytes < a.threshold() && a.mu.bytes+size >= a.threshold()
	if len(a.mu.queue) == 0 {
		a.mu.oldest = time.Now()
	}
	a.mu.queue = append(a.mu.queue, item)
	a.mu.bytes += size
	a.mu.held += size
	a.mu.urgent = a.mu.urgent || urgent
	a.mu.Unlock()
	if wake {
		select {
		case a.wake <- struct{}{}:
		default:
		}
	}
}

// threshold is how many queued bytes are worth a commit of their own.
func (a *applier) threshold() int { return a.host.limits.Bytes * 3 / 4 }

// full reports whether the applier has as much as it should hold.
func (a *applier) full() bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.mu.held >= a.host.cfg.MaxBacklogBytes
}

// stop ends run, after everything queued is in the store if flush is true.
func (a *applier) stop(flush bool) {
	a.mu.Lock()
	a.mu.flush = flush
	a.mu.Unlock()
	close(a.quit)
}

// run commits until stop is called or the store fails.
func (a *applier) run() {
	timer := time.NewTimer(time.Hour)
	timer.Stop()
	for a.take(timer) {
		for len(a.work) > 0 {
			a.merge()
			if err := a.commit(timer); err != nil {
				if !errors.Is(err, storage.ErrNoSpace) {
					a.host.intake.fail(fmt.Errorf("apply: commit to the store: %w", err))
				} else {
					a.host.cfg.Logger.Warn("stopped with records that are only in the log: the store has no space", "error", err)
				}
				return
			}
			a.report()
		}
	}
}

// take waits until the queue is worth a commit and moves it to work. It returns false when the
// applier has to end.
func (a *applier) take(timer *time.Timer) bool {
	for {
		stopping := false
		select {
		case <-a.quit:
			stopping = true
		default:
		}
		a.mu.Lock()
		due := time.Duration(0)
		switch {
		case stopping && (!a.mu.flush || len(a.mu.queue) == 0):
			a.mu.Unlock()
			return false
		case len(a.mu.queue) == 0:
			a.mu.Unlock()
			select {
			case <-a.wake:
			case <-a.quit:
			}
			continue
		case !stopping && !a.mu.urgent && a.mu.bytes < a.threshold():
			due = time.Until(a.mu.oldest.Add(a.host.cfg.MaxApplyDelay))
		}
		if due <= 0 {
			a.work, a.mu.queue = a.mu.queue, a.work[:0]
			a.mu.bytes, a.mu.urgent = 0, false
			a.mu.Unlock()
			return true
		}
		a.mu.Unlock()
		timer.Reset(due)
		select {
		case <-timer.C:
		case <-a.wake:
		case <-a.quit:
		}
		timer.Stop()
	}
}

// merge moves entries from work to the batch, the last write of a key winning, up to the size
// the store takes at once.
func (a *applier) merge() {
	a.batch.Reset()
	a.ops, a.born = a.ops[:0], a.born[:0]
	clear(a.at)
	a.arena = a.arena[:0]
	a.bytes, a.writes = 0, 0
	used := 0
	for i := range a.work {
		item := &a.work[i]
		st := &item.group.applyState
		if item.install != nil || item.drop {
			a.replace(item)
		}
		n := 0
		for _, entry := range item.entries {
			if st.halted == nil {
				full, err := a.apply(item, entry)
				if full {
					break
				}
				st.halted = err
			}
			n++
			st.done += len(entry.Data)
			a.touch(item.group)
		}
		if item.entries = item.entries[n:]; len(item.entries) > 0 {
			break
		}
		used++
	}
	if used == len(a.work) {
		clear(a.work)
		a.work = a.work[:0]
	} else {
		rest := copy(a.work, a.work[used:])
		clear(a.work[rest:])
		a.work = a.work[:rest]
	}
	for i := range a.ops {
		switch op := &a.ops[i]; {
		case op.Key == nil: // It was put and deleted.
		case op.Delete:
			a.batch.Delete(op.Key)
		default:
			a.batch.Put(op.Key, op.Value)
		}
	}
	for _, g := range a.touched {
		st := &g.applyState
		if st.dropped {
			a.batch.Delete(rows.Applied.Key(uint32(g.id)))
		}
		if st.dropped || len(st.installed) > 0 {
			a.batch.Delete(rows.Staged.Key(uint32(g.id)))
		}
		if st.index > 0 {
			a.batch.Put(rows.Applied.Key(uint32(g.id)), st.appendEncoded(nil))
		}
	}
}

func (a *applier) touch(g *Group) {
	if !g.applyState.touched {
		g.applyState.touched = true
		a.touched = append(a.touched, g)
	}
}

// replace makes another generation, or none, be what the group has, from this batch on.
func (a *applier) replace(item *applyItem) {
	st := &item.group.applyState
	a.touch(item.group)
	st.rubbish = append(st.rubbish, st.generation)
	if item.drop {
		st.applied, st.dropped = applied{generation: a.host.cleaner.fresh(item.group)}, true
		return
	}
	st.applied = item.install.applied
	st.installed = append(st.installed, item.install)
}

// apply adds one entry's mutations to ops, or reports that the batch has no room for it. An
// error means that the entry is not understood; nothing of it was added.
func (a *applier) apply(item *applyItem, entry *pb.Entry) (full bool, err error) {
	g, st := item.group, &item.group.applyState
	index, term := entry.GetIndex(), entry.GetTerm()
	if index != st.index+1 {
		return false, fmt.Errorf("apply: got log index %d, want %d", index, st.index+1)
	}
	switch {
	case entry.GetType() == pb.EntryConfChange || entry.GetType() == pb.EntryConfChangeV2:
		st.enter(index, term)
		for _, change := range item.confs {
			if change.index == index {
				st.conf = change.conf
			}
		}
		return false, nil
	case entry.GetType() != pb.EntryNormal:
		return false, fmt.Errorf("apply: log index %d: %w: entry kind %d", index, ErrNewerFormat, entry.GetType())
	case len(entry.Data) == 0:
		st.enter(index, term)
		return false, nil
	}
	writes := 0
	r, err := rows.DecodeRecord(entry.Data)
	if err == nil {
		err = storage.DecodeBatch(r.Payload, func(storage.Op) { writes++ })
	}
	if err != nil {
		return false, fmt.Errorf("apply: log index %d: %w", index, err)
	}
	bytes := len(r.Payload) + rows.PrefixBytes*writes
	if a.bytes > 0 && (a.bytes+bytes > a.host.limits.Bytes || a.writes+writes > a.host.limits.Writes) {
		return true, nil
	}
	a.bytes += bytes
	a.writes += writes
	st.enter(index, term)
	if last := st.sequence; !st.next(term, r.Epoch, r.Sequence) {
		st.voidTerm = term
		st.void = fmt.Errorf("log index %d is void: it holds epoch %d sequence %d, due was epoch %d sequence %d",
			index, r.Epoch, r.Sequence, term, last+1)
		a.host.cfg.Logger.Warn("void log entry", "partition", uint32(g.id), "index", index,
			"epoch", r.Epoch, "sequence", r.Sequence, "due_epoch", term, "due_sequence", last+1)
		return false, nil
	}
	prefix := rows.Prefix(uint32(g.id), st.generation)
	once := a.host.cfg.Once
	return false, storage.DecodeBatch(r.Payload, func(op storage.Op) {
		short := op.Key
		op.Key = a.key(prefix, op.Key)
		// The map's keys alias the arena, which nobody writes to before the map is cleared.
		name := unsafe.String(&op.Key[0], len(op.Key))
		if at, ok := a.at[name]; ok {
			a.ops[at] = op
			if op.Delete && a.born[at] && once != nil && once(g.id, short) {
				a.ops[at] = storage.Op{}
				delete(a.at, name)
			}
			return
		}
		a.at[name] = len(a.ops)
		a.ops, a.born = append(a.ops, op), append(a.born, !op.Delete)
	})
}

// key returns the prefixed key, in the arena.
func (a *applier) key(prefix [rows.PrefixBytes]byte, key []byte) []byte {
	const chunkBytes = 64 << 10
	if need := rows.PrefixBytes + len(key); cap(a.arena)-len(a.arena) < need {
		a.arena = make([]byte, 0, max(need, chunkBytes)) // keys so far keep the old one alive
	}
	from := len(a.arena)
	a.arena = append(append(a.arena, prefix[:]...), key...)
	return a.arena[from:len(a.arena):len(a.arena)]
}

// commit writes the batch, waiting for space as long as the host runs.
func (a *applier) commit(timer *time.Timer) error {
	if bug.Applied {
		a.truncate()
	}
	pause := 50 * time.Millisecond
	for {
		since := time.Now()
		a.mu.Lock()
		a.mu.since = since
		a.mu.Unlock()
		err := a.host.write(&a.batch)
		if told := a.host.cfg.OnCommit; told != nil {
			told(time.Since(since))
		}
		a.mu.Lock()
		a.mu.since = time.Time{}
		a.mu.Unlock()
		if !errors.Is(err, storage.ErrNoSpace) {
			if err == nil && a.host.faults.Clear(fault.StoreSpace) {
				a.host.cfg.Logger.Info("the store has space again")
			}
			return err
		}
		a.host.faults.Set(fault.StoreSpace, fmt.Errorf("replica: apply: %w", err))
		a.host.cfg.Logger.Warn("the store has no space; retrying", "error", err, "retry_in", pause)
		timer.Reset(pause)
		select {
		case <-timer.C:
		case <-a.quit:
			timer.Stop()
			return err
		}
		pause = min(2*pause, a.host.cfg.RetryDelay)
	}
}

// report tells everyone that the batch is in the store, and only then lets the log forget it.
func (a *applier) report() {
	in := &a.host.intake
	total := 0
	in.mu.Lock()
	for _, g := range a.touched {
		done := g.applyState.done
		g.mu.backlogBytes -= done
		in.mu.backlogBytes -= done
		total += done
	}
	in.mu.Unlock()
	a.mu.Lock()
	a.mu.held -= total
	a.mu.Unlock()

	a.notices = a.notices[:0]
	for _, g := range a.touched {
		st := &g.applyState
		g.generation.Store(uint32(st.generation))
		for _, generation := range st.rubbish {
			a.host.cleaner.enqueue(g, generation)
		}
		if st.index > 0 {
			g.listener.Applied(st.epoch, st.sequence)
		}
		notice := applyNotice{
			group: g, index: st.index, term: st.term, void: st.void, voidTerm: st.voidTerm,
			installed: st.installed, dropped: st.dropped,
		}
		if st.halted != nil {
			notice.halted = fmt.Errorf("partition %d: %w", g.id, st.halted)
		}
		a.notices = append(a.notices, notice)
		st.touched, st.done, st.void = false, 0, nil
		st.installed, st.dropped, st.rubbish = nil, false, nil
	}
	in.mu.Lock()
	in.mu.applies = append(in.mu.applies, a.notices...)
	in.mu.Unlock()
	in.signal()

	a.truncate()
	a.touched = a.touched[:0]
}

// truncate lets the log forget what is in the store.
func (a *applier) truncate() {
	for _, g := range a.touched {
		st := &g.applyState
		if st.index == 0 || g.keepsLog.Load() {
			continue // halted at its first entry, or the loop decides
		}
		a.host.cfg.Log.TruncatePrefix(uint32(g.id), st.index, st.term)
	}
}

// stalled is an error while a commit takes longer than it should.
func (a *applier) stalled() error {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.mu.since.IsZero() {
		return nil
	}
	if took := time.Since(a.mu.since); took >= a.host.cfg.StallAfter {
		return fmt.Errorf("replica: the store commit in progress has taken %v so far; check the disk", took.Round(time.Second))
	}
	return nil
}
