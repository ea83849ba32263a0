package replica

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	pb "go.etcd.io/raft/v3/raftpb"

	"github.com/perdure/perdure/cluster/replica/fault"
)

// applied follows the applier: how far the store is, and with it whether an elected group leads.
func (l *loop) applied(n *applyNotice) {
	g := n.group
	ls := &g.loopState
	if n.dropped {
		l.dropped(g)
		return
	}
	for _, in := range n.installed {
		l.installed(g, in)
	}
	if n.halted != nil {
		if ls.halted == nil {
			l.halt(g, n.halted)
		}
		return
	}
	ls.stored = n.index
	if ls.log != nil && !g.keepsLog.Load() {
		ls.log.truncated(n.index, n.term)
	} else if ls.log != nil {
		l.trim(g)
	}
	if n.void != nil && ls.epoch != 0 && n.voidTerm == ls.epoch {
		l.stop(g, n.void)
	}
	if ls.epoch != 0 && !ls.leading && ls.leadIndex != 0 && ls.stored >= ls.leadIndex && ls.stopping == nil && !l.closing {
		l.lead(g)
	}
}

// lead opens the group for proposals.
func (l *loop) lead(g *Group) {
	ls := &g.loopState
	ls.leading = true
	in := &l.host.intake
	in.mu.Lock()
	g.mu.lead, g.mu.nextSequence, g.mu.solo = ls.epoch, 1, g.isSolo()
	in.mu.Unlock()
	l.host.cfg.Logger.Debug("leading", "partition", uint32(g.id), "epoch", ls.epoch, "index", ls.leadIndex)
	g.listener.Lead(ls.epoch)
}

// stepDown ends the epoch for the listener and for Propose. The node is not touched.
func (l *loop) stepDown(g *Group, cause error) {
	ls := &g.loopState
	in := &l.host.intake
	in.mu.Lock()
	g.mu.lead = 0
	g.mu.backlogBytes -= ls.flightBytes
	in.mu.backlogBytes -= ls.flightBytes
	in.mu.Unlock()
	clear(ls.flights)
	ls.flights, ls.indexed, ls.acked, ls.flightBytes = ls.flights[:0], 0, 0, 0
	epoch, led := ls.epoch, ls.leading
	ls.epoch, ls.leadIndex, ls.leading = 0, 0, false
	l.abandon(g, cause)
	l.watchMembers(g)
	if led {
		level := slog.LevelInfo
		if errors.Is(cause, ErrStopped) {
			level = slog.LevelDebug // the node stops: as many lines as there are partitions say nothing
		}
		l.host.cfg.Logger.Log(context.Background(), level, "stepping down", "partition", uint32(g.id), "epoch", epoch, "cause", cause)
		g.listener.StepDown(epoch, fmt.Errorf("partition %d: %w", g.id, cause))
	}
}

func (l *loop) stepDownAll(cause error) {
	for _, g := range l.host.order {
		l.stepDown(g, cause)
	}
}

// acknowledge is what a planted bug does.
func (l *loop) acknowledge(g *Group, entries []*pb.Entry) {
	ls := &g.loopState
	if len(entries) > 0 {
		commit := ls.commit
		ls.commit = max(commit, entries[len(entries)-1].GetIndex())
		l.committed(g)
		ls.commit = commit
	}
}

// stop makes the group step down as soon as its appends are back, so that everything it had
// proposed in order is told as Committed before.
func (l *loop) stop(g *Group, cause error) {
	ls := &g.loopState
	if ls.stopping != nil || ls.node == nil || ls.epoch == 0 {
		return
	}
	in := &l.host.intake
	in.mu.Lock()
	g.mu.lead = 0
	in.mu.Unlock()
	ls.stopping = cause
	l.stopping = append(l.stopping, g)
}

// settle restarts the groups that stop and have nothing under way.
func (l *loop) settle() {
	kept := l.stopping[:0]
	for _, g := range l.stopping {
		ls := &g.loopState
		if ls.appending > 0 || ls.dirty {
			kept = append(kept, g)
			continue
		}
		if ls.stopping != nil {
			l.restart(g, ls.stopping)
		}
	}
	clear(l.stopping[len(kept):])
	l.stopping = kept
}

// restart makes the group step down and start again from the log, as follower. One whose only voter
// is this node campaigns after a pause; of others, somebody will when no leader is heard.
func (l *loop) restart(g *Group, cause error) {
	ls := &g.loopState
	l.stepDown(g, cause)
	ls.stopping = nil
	l.forgetInstall(g, fmt.Errorf("%w: the replica started again: %w", ErrRefused, cause))
	if ls.halted != nil {
		return
	}
	if ls.log == nil { // absent; if it was becoming so, the log still has it
		ls.redrop = ls.dropping
		return
	}
	ls.node = nil
	log, err := openRaftLog(l.host.cfg.Log, g.id)
	if err == nil {
		err = g.restart(log, ls.conf)
	}
	if err != nil {
		l.halt(g, fmt.Errorf("restart: %w", err))
		return
	}
	l.mark(g)
	l.forgetLeader(g)
	if g.isSolo() && !ls.retry {
		ls.retry = true
		l.retries = append(l.retries, g)
		l.retryAt = time.Now().Add(l.host.cfg.RetryDelay)
	}
}

// forgetLeader says that this replica knows of no leader any more, least of all of itself.
func (l *loop) forgetLeader(g *Group) {
	if ls := &g.loopState; ls.lead != 0 {
		ls.lead = 0
		g.listener.LeaderChanged(0, ls.leadTerm)
	}
}

// refused deals with an append that the log had no space for: nothing of it was written, and what
// gathered behind it continues what was not written. Every group in either starts again.
func (l *loop) refused(batch *appendBatch) {
	cause := fmt.Errorf("append to the log: %w", batch.err)
	l.host.faults.Set(fault.LogSpace, fmt.Errorf("replica: %w", cause))
	gathering := l.host.appender.abandon()
	for _, b := range []*appendBatch{batch, gathering} {
		if b == nil {
			continue
		}
		for i := range b.parts {
			b.parts[i].group.loopState.appending--
			l.appending--
			for _, in := range b.parts[i].install {
				b.parts[i].group.loopState.conf = in.before
				in.done <- fmt.Errorf("%w: %w", ErrRefused, cause)
			}
		}
	}
	for _, b := range []*appendBatch{batch, gathering} {
		if b == nil {
			continue
		}
		for i := range b.parts {
			if part := &b.parts[i]; part.incarnation == part.group.loopState.incarnation {
				l.restart(part.group, cause)
			}
		}
		l.host.appender.recycle(b)
	}
}

// halt ends the group for good: it is not understood what its log holds, or the library gave up.
func (l *loop) halt(g *Group, err error) {
	ls := &g.loopState
	if ls.halted != nil {
		return
	}
	ls.halted = err
	l.stepDown(g, err)
	l.forgetLeader(g)
	ls.node, ls.stopping = nil, nil
	ls.heldBack, ls.outbox = nil, nil
	l.forgetInstall(g, fmt.Errorf("%w: the partition is halted: %w", ErrRefused, err))
	err = fmt.Errorf("replica: partition %d is halted: %w", g.id, err)
	l.host.faults.Halt(uint32(g.id), err)
	l.host.cfg.Logger.Error("partition is halted: it serves nothing until this is repaired", "partition", uint32(g.id), "error", err)
}

// arm sets the timer while there is something to watch.
func (l *loop) arm() {
	if l.armed || l.appending == 0 && len(l.retries) == 0 {
		return
	}
	l.armed = true
	l.timer.Reset(min(time.Second, l.host.cfg.RetryDelay, l.host.cfg.StallAfter))
}

// watch campaigns for groups whose pause is over and reports disks that hang.
func (l *loop) watch() {
	if len(l.retries) > 0 && !time.Now().Before(l.retryAt) && !l.closing {
		for _, g := range l.retries {
			g.loopState.retry = false
			if g.loopState.node != nil && g.isSolo() {
				g.loopState.campaign = true
				l.mark(g)
			}
		}
		clear(l.retries)
		l.retries = l.retries[:0]
	}
	err := errors.Join(l.host.appender.stalled(), l.host.applier.stalled())
	if err != nil && !l.stall {
		l.stall = true
		l.host.cfg.Logger.Error("the disk hangs", "error", err)
		if l.host.cfg.Peers != nil {
			// Nothing else makes a leader whose disk hangs give way: its heartbeats need no disk.
			l.handOver()
		}
	}
}
