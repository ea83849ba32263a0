package transaction_test

import (
	"cmp"
	"fmt"
	"hash/fnv"
	"slices"
)

// world knows all that has been found out about a setup: messages and local states by number.
type world struct {
	*setup
	messages []message
	numbers  map[message]int32
	locals   []*local
	prints   map[fingerprint]*local
	// cursors are the partitions where the last step was computed, so that the next one need
	// not begin at the beginning.
	cursors [4]*place
	at      [4]*local
	// evaluated counts steps that were computed, replayed those that were computed again.
	evaluated, replayed, replays int
	// longest is how many seconds an execution has taken.
	longest int64
	// promises are the programs that an answer says have taken effect, by client.
	promises []uint32
}

// message is something on its way. Two with the same content are the same message twice.
type message struct {
	from, to uint32
	kind     messageKind
	sequence uint64
	content  string
}

type messageKind uint8

const (
	told    messageKind = iota + 1 // about a transaction; may come at any time
	outbox                         // in order
	request                        // a client's call; sequence is the client
	wake                           // for a handler that waits for somebody outside
)

func (w *world) intern(m message) int32 {
	if n, ok := w.numbers[m]; ok {
		return n
	}
	w.messages = append(w.messages, m)
	n := int32(len(w.messages) - 1)
	w.numbers[m] = n
	return n
}

// action is something that happens in one partition.
type action struct {
	kind     actionKind
	message  int32
	by       uint32
	sequence uint64 // of acked; of crash 1 if what was on its way to the disk is kept
}

type actionKind uint8

const (
	deliver actionKind = iota + 1
	makeDurable
	crash
	tick
	acked
)

// local is a state of one partition. All ways that lead to it are one.
type local struct {
	number    int32
	partition uint32
	parent    *local // how it was reached first
	action    action
	depth     int
	print     fingerprint
	steps     map[action]*step

	seconds   int64
	pending   int
	delivered [4]uint64
	busy      bool
	leftovers string
	lists     []string // of the objects here, durable
	written   uint32   // programs whose names are in them
	shown     uint32   // those that READ handlers see, or that they wait to see
	callers   []caller
}

// step is what an action comes to.
type step struct {
	next    *local
	sends   []int32
	acks    []acknowledgement
	failure string
}

func newWorld(s *setup) *world {
	if s.programs == nil {
		s.prepare()
	}
	w := &world{setup: s, numbers: map[message]int32{}, prints: map[fingerprint]*local{}, messages: make([]message, 1)}
	for _, c := range s.clients {
		w.promises = append(w.promises, s.writesOf(c))
	}
	return w
}

// look makes the local state that a place is in.
func (w *world) look(p *place, parent *local, a action) *local {
	print := p.fingerprint()
	if l := w.prints[print]; l != nil {
		return l
	}
	l := &local{
		number: int32(len(w.locals)), partition: p.id, parent: parent, action: a, print: print, steps: map[action]*step{},
		seconds: (p.now - 10_000 - w.skew[p.id]) / 1000, pending: len(p.pending), busy: p.engine.Busy(),
		leftovers: p.leftovers(), callers: slices.Clone(p.callers),
	}
	if parent != nil {
		l.depth = parent.depth + 1
	}
	for from := uint32(1); from <= w.partitions; from++ {
		l.delivered[from] = p.delivered(from)
	}
	for _, on := range w.objectsOf(p.id) {
		list := p.list(on)
		l.lists = append(l.lists, list)
		mask, twice := w.maskOf(list)
		if twice {
			p.fail("%s has a name twice: %q", on, list)
		}
		l.written |= mask
		if p.hidden[w.keys[on]] > 0 {
			for _, q := range w.writers {
				if q.on == on {
					mask |= q.bit
				}
			}
		}
		l.shown |= mask
	}
	p.checkLocks()
	w.locals = append(w.locals, l)
	w.prints[print] = l
	return l
}

// begin is where everything starts.
func (w *world) begin(h hazards) *global {
	g := &global{hazards: h}
	for id := uint32(1); id <= w.partitions; id++ {
		p := newPlace(w, id)
		g.locals[id-1] = w.look(p, nil, action{})
	}
	for i, c := range w.clients {
		w.post(g, w.intern(message{to: c.at, kind: request, sequence: uint64(i)}))
	}
	return g
}

// step is what an action comes to in a local state.
func (w *world) step(l *local, a action) *step {
	if s := l.steps[a]; s != nil {
		return s
	}
	p := w.goTo(l)
	w.at[l.partition] = nil
	w.evaluated++
	p.act(a)
	s := &step{sends: p.sends, acks: p.acks}
	s.next = w.look(p, l, a)
	s.failure = p.failure
	if s.failure == "" {
		w.at[l.partition], w.cursors[l.partition] = s.next, p
	}
	l.steps[a] = s
	return s
}

// goTo makes the place of a local state again, from its beginning if need be.
func (w *world) goTo(l *local) *place {
	if w.at[l.partition] == l {
		return w.cursors[l.partition]
	}
	var path []action
	for at := l; at.parent != nil; at = at.parent {
		path = append(path, at.action)
	}
	p := newPlace(w, l.partition)
	for _, a := range slices.Backward(path) {
		w.replayed++
		p.act(a)
	}
	if w.replays++; w.replays%16 == 0 && p.fingerprint() != l.print {
		panic(fmt.Sprintf("partition %d: the same actions have led to two states", l.partition))
	}
	return p
}

// global is a state of the whole world.
type global struct {
	locals  [3]*local
	network []int32 // sorted, or first in first out
	// after are, of each client's call, the clients that had their answers before it was made.
	after [3]uint8
	// hazards that are left.
	hazards
}

func (g *global) remove(number int32) {
	at := slices.Index(g.network, number)
	g.network = slices.Delete(g.network, at, at+1)
}

// post puts messages on their way.
func (w *world) post(g *global, numbers ...int32) {
	for i, number := range numbers {
		at := len(g.network)
		switch m := &w.messages[number]; {
		case !g.inOrder:
			at, _ = slices.BinarySearch(g.network, number)
		case m.kind == outbox && w.repeats(g, m):
			at = min(i, at) // It was lost with the receiver, and comes before those that follow it.
		}
		g.network = slices.Insert(g.network, at, number)
	}
}

// repeats reports whether a later message of the outbox is on its way.
func (w *world) repeats(g *global, m *message) bool {
	return slices.ContainsFunc(g.network, func(n int32) bool {
		o := &w.messages[n]
		return o.kind == outbox && o.from == m.from && o.to == m.to && o.sequence > m.sequence
	})
}

// key names a global state.
func (g *global) key() [16]byte {
	var b [256]byte
	out := b[:0]
	for _, l := range g.locals {
		n := int32(-1)
		if l != nil {
			n = l.number
		}
		out = append(out, byte(n), byte(n>>8), byte(n>>16), byte(n>>24))
	}
	out = append(out, g.after[0], g.after[1], g.after[2], g.crashes, g.doubles, g.losses, g.early)
	for _, n := range g.network {
		out = append(out, byte(n), byte(n>>8), byte(n>>16))
	}
	h := fnv.New128a()
	h.Write(out)
	return [16]byte(h.Sum(nil))
}

// move is an action of the world: one of a partition, with what is special about it.
type move struct {
	action
	partition uint32
	double    bool // the message stays on its way
	lose      bool // the message is never delivered
	early     bool // a Tick though there is something else to do
	all       bool // a Tick of all partitions
}

// moves are what may happen next.
func (w *world) moves(g *global, to []move) []move {
	to = to[:0]
	var last int32
	var met [4][4]bool
	for _, number := range g.network {
		m := &w.messages[number]
		if number == last || g.inOrder && m.from != 0 && met[m.from][m.to] {
			continue
		}
		last, met[m.from][m.to] = number, true
		l := g.locals[m.to-1]
		if m.kind == outbox && m.sequence > l.delivered[m.from]+1 {
			continue
		}
		mv := move{action: action{kind: deliver, message: number}, partition: m.to}
		to = append(to, mv)
		if g.doubles > 0 && m.kind != request && m.kind != wake {
			mv.double = true
			to = append(to, mv)
		}
		if g.losses > 0 && m.kind == told {
			mv.double, mv.lose = false, true
			to = append(to, mv)
		}
	}
	for _, l := range g.locals {
		if l != nil && l.pending > 0 {
			to = append(to, move{action: action{kind: makeDurable}, partition: l.partition})
		}
	}
	quiet := len(to) == 0
	busy := false
	for _, l := range g.locals {
		if l == nil {
			continue
		}
		busy = busy || l.busy
		if g.crashes > 0 {
			to = append(to, move{action: action{kind: crash}, partition: l.partition})
			if l.pending > 0 {
				to = append(to, move{action: action{kind: crash, sequence: 1}, partition: l.partition})
			}
		}
		if g.early > 0 && l.busy && !quiet {
			to = append(to, move{action: action{kind: tick}, partition: l.partition, early: true})
		}
	}
	if quiet && busy {
		to = append(to, move{action: action{kind: tick}, all: true})
	}
	return to
}

// ended reports whether nothing is left to do but to crash.
func ended(moves []move) bool {
	for _, m := range moves {
		if m.kind != crash {
			return false
		}
	}
	return true
}

// do makes a move. A failure says what is wrong with the result.
func (w *world) do(g *global, m move) (next *global, failure string) {
	n := *g
	n.network = slices.Clone(g.network)
	switch {
	case m.lose:
		n.losses--
		n.remove(m.message)
		return &n, ""
	case m.all:
		for id := uint32(1); id <= w.partitions; id++ {
			if failure := w.apply(&n, id, m.action); failure != "" {
				return &n, failure
			}
		}
		return &n, w.wrong(&n)
	case m.early:
		n.early--
	case m.double:
		n.doubles--
	case m.kind == deliver:
		n.remove(m.message)
	case m.kind == crash:
		n.crashes--
	}
	if m.kind == deliver {
		if msg := &w.messages[m.message]; msg.kind == request && n.locals[msg.to-1].callers[msg.sequence].calls == 0 {
			for i := range w.clients {
				if answer := n.caller(w, i).answer; answer != "" && answer != "?" {
					n.after[msg.sequence] |= 1 << i
				}
			}
		}
	}
	if failure := w.apply(&n, m.partition, m.action); failure != "" {
		return &n, failure
	}
	return &n, w.wrong(&n)
}

// apply does an action of a partition, and what follows from it elsewhere at once.
func (w *world) apply(g *global, partition uint32, a action) (failure string) {
	s := w.step(g.locals[partition-1], a)
	g.locals[partition-1] = s.next
	w.post(g, s.sends...)
	failure = s.failure
	for _, ack := range s.acks {
		failure = cmp.Or(failure, w.apply(g, ack.to, action{kind: acked, by: ack.by, sequence: ack.sequence}))
	}
	return failure
}

func (g *global) caller(w *world, client int) *caller {
	return &g.locals[w.clients[client].at-1].callers[client]
}
