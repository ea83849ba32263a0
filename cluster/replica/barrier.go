package replica

import (
	"context"
	"encoding/binary"
	"fmt"

	raft "go.etcd.io/raft/v3"

	"github.com/perdure/perdure/cluster/replica/bug"
)

// barrier is a ReadBarrier that waits.
type barrier struct {
	group *Group
	epoch uint64
	done  chan error // of one slot
}

// ReadBarrier returns nil if this node led the group at some moment after the call began: whatever
// was acknowledged before the call, by any node, is in what the leader knows then. It asks a majority, one
// round for all that wait; in a group with one voter it returns at once. With a ctx that has ended it
// asks nobody. Errors: ErrNotLeader, and that of ctx.
func (g *Group) ReadBarrier(ctx context.Context) error {
	in := &g.host.intake
	in.mu.Lock()
	lead, solo := g.mu.lead, g.mu.solo
	switch {
	case lead == 0:
		in.mu.Unlock()
		return ErrNotLeader
	case solo || bug.Stale:
		in.mu.Unlock()
		return nil
	case ctx.Err() != nil: // asked only whether it takes a round
		in.mu.Unlock()
		return fmt.Errorf("partition %d: read barrier: %w", g.id, context.Cause(ctx))
	}
	b := &barrier{group: g, epoch: lead, done: make(chan error, 1)}
	in.mu.barriers = append(in.mu.barriers, b)
	in.mu.Unlock()
	in.signal()
	select {
	case err := <-b.done:
		return err
	case <-g.host.ended:
		return ErrNotLeader
	case <-ctx.Done():
		return fmt.Errorf("partition %d: read barrier: %w", g.id, context.Cause(ctx))
	}
}

// bar begins rounds for the barriers that wait, one at a time for each group: what comes while one
// is on its way waits for the next, since this one may have been answered before.
func (l *loop) bar() {
	for _, b := range l.in.barriers {
		ls := &b.group.loopState
		if !ls.leading || ls.epoch != b.epoch || ls.stopping != nil {
			b.done <- ErrNotLeader
			continue
		}
		ls.barriers = append(ls.barriers, b)
		if len(ls.flying) == 0 {
			l.beginRound(b.group)
		}
	}
}

func (l *loop) beginRound(g *Group) {
	ls := &g.loopState
	if len(ls.barriers) == 0 || ls.node == nil {
		return
	}
	if ls.node.BasicStatus().RaftState != raft.StateLeader {
		// It has lost the leadership in this round, as those who wait are about to hear. As a follower it would
		// pass the question on, which others take for a malformed frame.
		return
	}
	l.rounds++
	ls.round = l.rounds
	ls.flying, ls.barriers = ls.barriers, ls.flying[:0]
	ls.node.ReadIndex(binary.BigEndian.AppendUint64(nil, ls.round))
	l.mark(g)
}

// confirmed says that a majority heard of this leader after the round with the number began. What
// was committed until then is in what the leader has evaluated, so there is nothing to wait for.
func (l *loop) confirmed(g *Group, round []byte) {
	ls := &g.loopState
	if !ls.leading || len(round) != 8 || binary.BigEndian.Uint64(round) != ls.round || len(ls.flying) == 0 {
		return
	}
	ls.flying, ls.round = confirm(ls.flying), 0
	l.beginRound(g)
}

// confirm says yes to all that wait, and returns their list without them.
func confirm(waiting []*barrier) []*barrier {
	for _, b := range waiting {
		b.done <- nil
	}
	clear(waiting)
	return waiting[:0]
}

// abandon tells those who wait for something of a leader that it leads no more.
func (l *loop) abandon(g *Group, cause error) {
	ls := &g.loopState
	for _, waiting := range [][]*barrier{ls.flying, ls.barriers} {
		for _, b := range waiting {
			b.done <- ErrNotLeader
		}
	}
	ls.flying, ls.barriers, ls.round = nil, nil, 0
	if c := ls.change; c != nil {
		ls.change = nil
		c.done <- fmt.Errorf("%w: %w", ErrUnknown, cause)
	}
	ls.transfer, ls.unheard = nil, nil
}
