package replica

import (
	"slices"

	raft "go.etcd.io/raft/v3"
	"go.etcd.io/raft/v3/tracker"

	"github.com/perdure/perdure/cluster/replica/wire"
)

// A group in which nothing happens sleeps: its nodes get no ticks and send nothing. In their place each
// node sends each other one a beat, as often as heartbeats, that lists the groups it leads and that
// sleep, or are about to: group, term, last index. Who hears of a group that is with it as it says lets
// the group sleep and echoes; of others the echo says that they are not so. A leader stops its own ticks once all members
// have echoed. Whatever is said to a node of a group, by others or by this host, wakes it.
//
// Nothing is believed longer than before. Who sleeps counts the ticks since the last beat that named the
// group: as many as an election timeout has at least wake it, and its node is given them all at once, so
// that it campaigns when it would have. A leader that hears no echo of a member for as long wakes and asks
// for its quorum. Reads never relied on either: see ReadBarrier.

// idleTicks is how long nothing must have happened in a group before it sleeps.
const idleTicks = 30

// quietState is what the loop knows of a group's sleep.
type quietState struct {
	idle   int    // ticks since something happened; not counted in sleep
	drowsy uint64 // the first beat that listed the group, or 0; of a leader
	asleep bool
	missed int // ticks since the last beat for it, in sleep
}

// beats are the loop's.
type beats struct {
	number uint64
	// echoes are the last ones, by node.
	echoes map[uint64]echo
}

type echo struct {
	number uint64
	tick   uint64 // when it was heard
}

// mark makes this round look at the group, in which something happens.
func (l *loop) mark(g *Group) {
	q := &g.loopState.quietState
	if q.asleep && g.loopState.node != nil {
		g.loopState.silent = q.missed
		for range min(q.missed, 2*ElectionTicks) {
			g.loopState.node.Tick()
		}
	}
	*q = quietState{}
	l.touch(g)
}

// doze lets a tick pass for a group that sleeps.
func (l *loop) doze(g *Group) {
	ls := &g.loopState
	if ls.missed++; ls.missed >= ElectionTicks {
		l.mark(g)
	}
}

// beat tells other nodes which groups this one leads and that should sleep.
func (l *loop) beat() {
	l.beats.number++
	lists := make(map[uint64][]wire.BeatGroup)
	for _, g := range l.ticking {
		ls := &g.loopState
		if !ls.leading || ls.node == nil {
			continue
		}
		if !ls.asleep && ls.drowsy == 0 {
			if ls.idle < l.host.cfg.idleTicks {
				continue
			}
			if !l.isQuiet(g) {
				ls.idle = 0
				continue
			}
			ls.drowsy = l.beats.number
		}
		fresh, echoed, heard := true, true, 1
		l.others(g, func(node uint64) {
			e := l.beats.echoes[node]
			echoed = echoed && e.number >= ls.drowsy
			if l.ticks-e.tick >= ElectionTicks {
				fresh = false
			} else if slices.Contains(ls.conf.Voters, node) {
				heard++
			}
		})
		switch {
		case ls.asleep && !fresh:
			// A node looks for its quorum each ElectionTicks, at what it heard since it looked last.
			ls.missed = ElectionTicks
			if heard <= len(ls.conf.Voters)/2 {
				ls.missed = 2 * ElectionTicks
			}
			l.mark(g)
			continue
		case ls.asleep:
			ls.missed = 0
		case fresh && echoed:
			ls.asleep, ls.missed = true, 0
		}
		l.others(g, func(node uint64) {
			lists[node] = append(lists[node], wire.BeatGroup{Group: uint32(g.id), Term: ls.epoch, Index: ls.commit})
		})
	}
	for node, list := range lists {
		data := wire.AppendBeat(nil, wire.Beat{Number: l.beats.number, Groups: list})
		l.say(l.host.groups[GroupID(list[0].Group)], node, wire.KindBeat, data)
	}
}

// others calls fn with the other members.
func (l *loop) others(g *Group, fn func(node uint64)) {
	conf := g.loopState.conf
	for _, nodes := range [][]uint64{conf.Voters, conf.Learners} {
		for _, node := range nodes {
			if node != l.host.cfg.NodeID {
				fn(node)
			}
		}
	}
}

// isQuiet is whether all members have all that there is, and nobody waits for anything.
func (l *loop) isQuiet(g *Group) bool {
	ls := &g.loopState
	if ls.stopping != nil || ls.transfer != nil || ls.change != nil || len(ls.flights)+len(ls.barriers)+len(ls.flying)+ls.appending > 0 ||
		len(ls.conf.VotersOutgoing)+len(ls.conf.LearnersNext) > 0 || ls.commit != ls.log.last || ls.stored != ls.commit {
		return false
	}
	quiet := true
	ls.node.WithProgress(func(id uint64, _ raft.ProgressType, pr tracker.Progress) {
		if id != l.host.cfg.NodeID && (pr.State != tracker.StateReplicate || pr.Match != ls.commit) {
			quiet = false
		}
	})
	return quiet
}

// beaten hears a beat.
func (l *loop) beaten(g *Group, from uint64, b wire.Beat) {
	answer := wire.Echo{Number: b.Number}
	for _, said := range b.Groups {
		other := l.host.groups[GroupID(said.Group)]
		if other == nil {
			answer.Not = append(answer.Not, said.Group)
			continue
		}
		ls := &other.loopState
		if ls.node == nil || ls.dropping || ls.receiving || ls.epoch != 0 || ls.lead != from || ls.term != said.Term ||
			ls.appending > 0 || ls.commit != said.Index || ls.log.last != said.Index || ls.stored != said.Index || !isMember(ls.conf, l.host.cfg.NodeID) {
			answer.Not = append(answer.Not, said.Group)
			if ls.asleep {
				l.mark(other)
			}
			continue
		}
		if !ls.dirty { // else what came in this round is dealt with first, and the next beat is heard
			ls.asleep, ls.missed, ls.silent, ls.doubt = true, 0, 0, false
		}
	}
	l.say(g, from, wire.KindEcho, wire.AppendEcho(nil, answer))
}

// echoed hears the answer to a beat.
func (l *loop) echoed(from uint64, e wire.Echo) {
	if l.beats.echoes == nil {
		l.beats.echoes = make(map[uint64]echo)
	}
	l.beats.echoes[from] = echo{number: max(e.Number, l.beats.echoes[from].number), tick: l.ticks}
	for _, id := range e.Not {
		if g := l.host.groups[GroupID(id)]; g != nil && g.loopState.leading {
			l.mark(g)
		}
	}
}
