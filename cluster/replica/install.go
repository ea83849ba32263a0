package replica

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	pb "go.etcd.io/raft/v3/raftpb"
	"google.golang.org/protobuf/proto"

	"github.com/perdure/perdure/cluster/replica/bug"
	"github.com/perdure/perdure/cluster/replica/rows"
	"github.com/perdure/perdure/cluster/replica/stream"
	"github.com/perdure/perdure/cluster/replica/wire"
	"github.com/perdure/perdure/storage"
)

// A snapshot takes the place of what the group has in five steps, each durable before the next:
//
//	1. Its rows are written under a generation that nothing refers to but a partial (package stream), in many
//	   batches.
//	2. The staged row says that all of them are there, and what they are: index, term, epoch, sequence,
//	   configuration, generation.
//	3. The log is started anew behind the index, in one append with the new state. From now on
//	   the node may say that it has the snapshot.
//	4. One batch of the store makes the applied row what the staged row was, and deletes that.
//	5. The old generation is deleted, in many batches.
//
// A crash in 1 leaves the group as it was, and a partial that its sender may go on with. A crash after 2
// leaves rubbish that Open finds: a staged row, and a generation that no applied row names. Between 3 and 4, Open finds a log that begins just behind
// the staged row's index, and does 4. After 4 the old generation is rubbish. The store first
// and then the log would need as many cases and, worse, a log that ends before what the store has
// would no longer be a sign of lost data.

// install is a snapshot from step 2 to 4.
type install struct {
	applied applied
	done    chan error    // of one slot
	before  *pb.ConfState // the group's configuration, for the case that the log refuses it
}

// ReceiveSnapshot takes a stream that another node's Peers.SendSnapshot sends: next returns its
// chunks, and io.EOF. It returns nil once the snapshot is in use here, and otherwise why not. Of one that
// next returned an error for, or that ctx or the host ended, this node keeps what it has, for its
// sender to go on with; of others nothing is left. A stream may also ask how much that is, which answer
// says. It waits for the disk, and ends early with ctx or the host.
func (h *Host) ReceiveSnapshot(ctx context.Context, from uint64, group uint32, header []byte, next func() ([]byte, error)) (answer []byte, err error) {
	g := h.groups[GroupID(group)]
	if g == nil {
		return nil, fmt.Errorf("replica: partition %d: this cluster has none", group)
	}
	if answer, err = h.receiveSnapshot(ctx, g, from, header, next); err != nil {
		return nil, fmt.Errorf("replica: partition %d: snapshot from node %x: %w", group, from, err)
	}
	return answer, nil
}

func (h *Host) receiveSnapshot(ctx context.Context, g *Group, from uint64, header []byte, next func() ([]byte, error)) ([]byte, error) {
	head, err := wire.DecodeHeader(header)
	if err != nil {
		return nil, err
	}
	m := &pb.Message{}
	if err := proto.Unmarshal(head.Message, m); err != nil {
		return nil, fmt.Errorf("raft message: %w", err)
	}
	at, err := decodeApplied(head.Applied)
	if err != nil {
		return nil, fmt.Errorf("applied index: %w", err)
	}
	meta := m.GetSnapshot().GetMetadata()
	switch {
	case m.GetType() != pb.MsgSnap || m.GetFrom() != from || m.GetTo() != h.cfg.NodeID || m.GetTerm() == 0:
		return nil, fmt.Errorf("raft message: %w: %s of term %d from node %x to %x", wire.ErrMalformed, m.GetType(), m.GetTerm(), m.GetFrom(), m.GetTo())
	case at.index != meta.GetIndex() || at.term != meta.GetTerm() || at.index == 0 || !isMember(pb.EnsureConfState(meta.GetConfState()), h.cfg.NodeID):
		return nil, fmt.Errorf("%w: index %d of term %d in the message, %d of term %d in the store", wire.ErrMalformed, meta.GetIndex(), meta.GetTerm(), at.index, at.term)
	}
	if head.Asks {
		return h.partials.Position(uint32(g.id), head), nil
	}
	if !h.lanes.Receive(h.cfg.MaxSnapshots) {
		return nil, fmt.Errorf("%w: others are being received", ErrRefused)
	}
	defer h.lanes.EndReceive()
	refusal := ErrRefused
	if err := h.ask(func(l *loop) { refusal = l.admit(g, head.Life, m) }); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrRefused, err)
	}
	if errors.Is(refusal, errInstalled) {
		return nil, nil
	}
	if refusal != nil {
		return nil, refusal
	}
	defer h.ask(func(*loop) { g.loopState.receiving = false })

	p, err := h.partials.Begin(uint32(g.id), head)
	if err != nil {
		return nil, err
	}
	at.generation = p.Generation()
	if whole, err := h.stage(ctx, g, p, at, next); !whole {
		return nil, err
	}
	in := &install{applied: at, done: make(chan error, 1)}
	err = fmt.Errorf("%w: the host has stopped", ErrRefused)
	if asked := h.ask(func(l *loop) { l.offer(g, m, in) }); asked == nil {
		select { // not for ctx: the node may have it already
		case err = <-in.done:
		case <-h.ended:
		}
	}
	if err == nil || h.hasEnded() {
		return nil, err // whoever opens the store next knows what became of it
	}
	var batch storage.Batch
	batch.Delete(rows.Staged.Key(uint32(g.id)))
	err = errors.Join(err, h.write(&batch))
	h.cleaner.enqueue(g, at.generation)
	return nil, err
}

// errInstalled is for a snapshot of what the group has already.
var errInstalled = errors.New("replica: the group has that already")

// admit is whether the group can have a snapshot now.
func (l *loop) admit(g *Group, life uint64, m *pb.Message) error {
	ls := &g.loopState
	index := m.GetSnapshot().GetMetadata().GetIndex()
	switch {
	case ls.halted != nil || ls.dropping || l.closing:
		return fmt.Errorf("%w: the replica is halted, or about to go", ErrRefused)
	case ls.receiving || ls.install != nil || len(ls.settling) > 0:
		return fmt.Errorf("%w: another one is being received", ErrRefused)
	case m.GetTerm() < ls.term || life < ls.lives[m.GetFrom()]:
		return fmt.Errorf("%w: term %d is over", ErrRefused, m.GetTerm())
	case index <= ls.commit && ls.node != nil:
		// The leader lost the answer when it was installed. The node will say how far it is; without that,
		// a leader whose log begins later would send it for ever.
		_ = l.step(g, m)
		return errInstalled
	}
	ls.receiving = true
	return nil
}

// stage does steps 1 and 2, from where the partial ends on. If the snapshot does not become whole, what
// there is stays for its sender to go on with, unless there is something wrong with it.
func (h *Host) stage(ctx context.Context, g *Group, p *stream.Partial, at applied, next func() ([]byte, error)) (whole bool, err error) {
	keep := false
	defer func() {
		switch {
		case whole:
			h.partials.End(uint32(g.id), p)
		case keep || h.hasEnded():
			h.partials.Keep(p)
		default:
			err = errors.Join(err, h.partials.GiveUp(uint32(g.id), p))
		}
	}()
	totals := wire.Totals{Position: p.At()}
	var batch storage.Batch
	prefix := rows.Prefix(uint32(g.id), at.generation)
	for {
		if ctx.Err() != nil {
			keep = true
			return false, context.Cause(ctx)
		}
		chunk, err := next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			keep = true
			return false, err
		}
		batch.Reset()
		if err := totals.Read(chunk, func(key, value []byte) {
			batch.Put(append(prefix[:rows.PrefixBytes:rows.PrefixBytes], key...), value)
		}); err != nil {
			return false, err
		}
		if err := batch.CheckSizes(); err != nil {
			return false, err
		}
		if totals.Ended() {
			continue
		}
		row := p.Row(totals.Position)
		parts := h.limits.Split(&batch)
		if bug.Resume {
			parts = append([]*storage.Batch{{}}, parts...)
			parts[0].Put(rows.Partial.Key(uint32(g.id)), row)
		} else {
			parts[len(parts)-1].Put(rows.Partial.Key(uint32(g.id)), row)
		}
		for _, part := range parts {
			if err := h.writeWaiting(ctx, part); err != nil {
				keep = true
				return false, err
			}
		}
		p.Advance(totals.Position)
	}
	if !totals.Ended() {
		return false, fmt.Errorf("%w: it ends after %d rows", wire.ErrMalformed, totals.Rows)
	}
	batch.Reset()
	batch.Put(rows.Staged.Key(uint32(g.id)), at.appendEncoded(nil))
	batch.Delete(rows.Partial.Key(uint32(g.id)))
	if err := h.writeWaiting(ctx, &batch); err != nil {
		keep = true
		return false, err
	}
	return true, nil
}

// loadPartials reads what an earlier process had of snapshots.
func (h *Host) loadPartials() error {
	ps := &h.partials
	ps.Refused, ps.Kept = ErrRefused, h.cleaner.signal
	ps.Fresh = func(id uint32) uint8 { return h.cleaner.fresh(h.groups[GroupID(id)]) }
	ps.Delete = h.deletePartial
	view := h.cfg.Store.Snapshot()
	defer view.Release()
	var useless storage.Batch
	err := rows.Partial.Scan(view, func(key, value []byte) bool {
		id, ok := rows.Partial.Group(key)
		g, p := h.groups[GroupID(id)], stream.DecodePartial(value)
		if !ok || g == nil || p == nil || h.cfg.Peers == nil || g.applyState.index > 0 && g.applyState.generation == p.Generation() {
			useless.Delete(append([]byte(nil), key...))
		} else {
			ps.Add(id, p)
		}
		return true
	})
	if err == nil && useless.Len() > 0 {
		err = h.write(&useless)
	}
	if err != nil {
		return fmt.Errorf("snapshots that were being received: %w", err)
	}
	return nil
}

func (h *Host) deletePartial(id uint32, generation uint8) error {
	var batch storage.Batch
	batch.Delete(rows.Partial.Key(id))
	err := h.write(&batch)
	switch {
	case err == nil:
		h.cleaner.enqueue(h.groups[GroupID(id)], generation)
	case !errors.Is(err, ErrStopped) && !errors.Is(err, storage.ErrNoSpace):
		h.intake.fail(fmt.Errorf("commit to the store: %w", err))
	}
	return err
}

// write commits a batch. The applier, receivers and the cleaner take turns.
func (h *Host) write(batch *storage.Batch) error {
	h.turn <- struct{}{}
	defer func() { <-h.turn }()
	if h.hasEnded() {
		return fmt.Errorf("%w: nothing is written any more", ErrStopped)
	}
	return h.cfg.Store.Commit(batch)
}

// writeWaiting commits a batch, waiting for space. A commit of unknown outcome ends the host.
func (h *Host) writeWaiting(ctx context.Context, batch *storage.Batch) error {
	for {
		err := h.write(batch)
		if err == nil {
			return nil
		}
		switch {
		case errors.Is(err, ErrStopped):
			return err
		case !errors.Is(err, storage.ErrNoSpace):
			err = fmt.Errorf("commit to the store: %w", err)
			h.intake.fail(err)
			return err
		}
		timer := time.NewTimer(h.cfg.RetryDelay)
		select {
		case <-timer.C:
		case <-ctx.Done():
		case <-h.ended:
		}
		timer.Stop()
		if ctx.Err() != nil || h.hasEnded() {
			return err
		}
	}
}

func (h *Host) hasEnded() bool {
	select {
	case <-h.ended:
		return true
	default:
		return false
	}
}

// offer gives the node a snapshot that is wholly here.
func (l *loop) offer(g *Group, m *pb.Message, in *install) {
	ls := &g.loopState
	if ls.halted != nil || ls.dropping || m.GetTerm() < ls.term {
		in.done <- fmt.Errorf("%w: the replica is halted or about to go, or term %d is over", ErrRefused, m.GetTerm())
		return
	}
	if ls.node == nil {
		l.create(g)
	}
	ls.install = in
	ls.silent, ls.doubt = 0, false
	err := l.step(g, m)
	if err == nil && ls.node != nil {
		if err = l.ready(g); err != nil {
			l.halt(g, err)
		}
	}
	// If the node took it, it is in an append now.
	l.forgetInstall(g, fmt.Errorf("%w: it is not needed", ErrRefused))
}

// forgetInstall tells the receiver that its snapshot is not used.
func (l *loop) forgetInstall(g *Group, cause error) {
	ls := &g.loopState
	if in := ls.install; in != nil {
		ls.install = nil
		in.done <- cause
	}
}

// installing follows step 3: the log begins behind the snapshot.
func (l *loop) installing(g *Group, in *install) {
	ls := &g.loopState
	if ls.log != nil {
		ls.log.reset(in.applied.index, in.applied.term)
	}
	ls.handed = in.applied.index
	ls.marks, ls.retained = nil, 0
	ls.settling = append(ls.settling, in)
	l.host.applier.push(applyItem{group: g, install: in}, true)
}

// installed follows step 4.
func (l *loop) installed(g *Group, in *install) {
	ls := &g.loopState
	ls.settling = ls.settling[1:]
	l.host.cfg.Logger.Info("a snapshot is in use", "partition", uint32(g.id), "index", in.applied.index)
	in.done <- nil
}
