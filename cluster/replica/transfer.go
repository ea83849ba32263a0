package replica

import (
	"errors"
	"fmt"
	"slices"
)

// transfer is a leadership on its way to another node.
type transfer struct {
	to      uint64
	asked   bool // the node was told
	patient int  // ticks until this node gives it up
}

// TransferLeadership begins to hand the group to another voter, and returns without waiting: it
// is over when LeaderChanged tells of another leader. From now on Propose returns ErrNotLeader. This
// node steps down in any case: if the other one does not take over within an election timeout, it
// becomes a follower and there is an election. Errors: ErrNotLeader, ErrInvalid (the node is no
// voter), ErrBehind.
func (g *Group) TransferLeadership(to uint64) error {
	result := ErrNotLeader
	err := g.host.ask(func(l *loop) { result = l.transferTo(g, to) })
	if err = errors.Join(err, result); err != nil {
		return fmt.Errorf("partition %d: transfer the leadership to node %x: %w", g.id, to, err)
	}
	return nil
}

func (l *loop) transferTo(g *Group, to uint64) error {
	ls := &g.loopState
	if !ls.leading || ls.stopping != nil || ls.transfer != nil {
		return ErrNotLeader
	}
	if to == l.host.cfg.NodeID || !slices.Contains(ls.conf.Voters, to) {
		return fmt.Errorf("%w: it must be another voter; these are %x", ErrInvalid, ls.conf.Voters)
	}
	peers := l.peers(g)
	if i := slices.IndexFunc(peers, func(p PeerStatus) bool { return p.Node == to }); i < 0 || !peers[i].CaughtUp {
		return fmt.Errorf("%w: it could not lead before it has the whole log", ErrBehind)
	}
	in := &l.host.intake
	in.mu.Lock()
	g.mu.lead = 0
	in.mu.Unlock()
	ls.transfer = &transfer{to: to, patient: ElectionTicks}
	l.mark(g)
	l.advance(g)
	return nil
}

// advance tells the other node once all that was proposed is known to be committed: what is not is
// of unknown outcome to whoever waits for it.
func (l *loop) advance(g *Group) {
	ls := &g.loopState
	if t := ls.transfer; t != nil && !t.asked && ls.node != nil && (ls.acked == len(ls.flights) || t.patient <= 0) {
		t.asked, t.patient = true, ElectionTicks
		ls.node.TransferLeader(t.to)
		l.mark(g)
	}
}

// hurry gives a transfer up that takes too long. The node still leads then, but its listener was
// told that it can't propose, so it has to be elected anew.
func (l *loop) hurry(g *Group) {
	ls := &g.loopState
	t := ls.transfer
	if t == nil {
		return
	}
	if t.patient--; t.patient > 0 {
		return
	}
	if !t.asked {
		l.advance(g)
		return
	}
	l.stop(g, fmt.Errorf("node %x did not take the leadership over", t.to))
}

// checkTransfer gives a transfer up to a node that is no voter any more. The library forgets it by itself, and goes on leading;
// and no tick may come that would end it here, if this node is all that is left.
func (l *loop) checkTransfer(g *Group) {
	ls := &g.loopState
	if t := ls.transfer; t != nil && !slices.Contains(ls.conf.Voters, t.to) {
		l.stop(g, fmt.Errorf("node %x, to which the leadership was handed over, votes no more", t.to))
	}
}

// handOver transfers every leadership for which there is another voter.
func (l *loop) handOver() {
	for _, g := range l.host.order {
		ls := &g.loopState
		if !ls.leading {
			continue
		}
		best := PeerStatus{}
		for _, p := range l.peers(g) {
			if p.CaughtUp && slices.Contains(ls.conf.Voters, p.Node) && p.Match >= best.Match {
				best = p
			}
		}
		if best.Node != 0 {
			_ = l.transferTo(g, best.Node)
		}
		if l.closing && ls.transfer != nil {
			ls.transfer.patient = min(ls.transfer.patient, closingTicks/2)
		}
	}
}

// closingTicks is how long a host that stops waits for others to take its leaderships over.
const closingTicks = ElectionTicks / 2

// handingOver is whether a host that stops should wait for a transfer.
func (l *loop) handingOver() bool {
	return l.ticks < l.closeBy && slices.ContainsFunc(l.host.order, func(g *Group) bool { return g.loopState.transfer != nil })
}
