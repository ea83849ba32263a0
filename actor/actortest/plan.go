package actortest

import (
	"fmt"
	"hash/fnv"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"github.com/perdure/perdure/internal/invocation"
)

// plan decides which move is next. Its methods are the driver's.
type plan interface {
	// arrive takes in a new move and returns what becomes of it: itself, nothing, or more.
	arrive(n *Node, m *move, now time.Time) []*move
	// strike may break something; it reports whether it did.
	strike(n *Node) bool
	// choose picks one of the moves that can be made, which may be none. nil lets time pass until
	// a move arrives or, unless that is zero, until an instant.
	choose(n *Node, ready []*move, now time.Time) (m *move, until time.Time)
}

// inOrder makes moves as they come.
type inOrder struct {
	// leaderless takes the leadership away from each partition after that many records; 0 never.
	leaderless int
	struck     int
}

func (*inOrder) arrive(_ *Node, m *move, _ time.Time) []*move { return []*move{m} }

func (p *inOrder) strike(n *Node) bool {
	if p.leaderless == 0 || n.records/p.leaderless <= p.struck {
		return false
	}
	p.struck = n.records / p.leaderless
	g := n.groups[p.struck%len(n.groups)]
	n.trace(fmt.Sprintf("partition %d loses its leader", g.id))
	g.lose(g.waiting() / 2)
	return true
}

func (*inOrder) choose(_ *Node, ready []*move, _ time.Time) (*move, time.Time) {
	if len(ready) == 0 {
		return nil, time.Time{}
	}
	return ready[0], time.Time{}
}

// seeded lets a seed decide.
type seeded struct {
	seed   uint64
	random *rand.Rand
	// delays, losses, strikes and deaths are how many of a thousand moves are late, messages are
	// lost or come twice, moves are followed by the loss of a leader or of the power, and entries
	// are the last of their attempt.
	delays, losses, strikes, deaths int
	longest                         time.Duration // of a delay
	struck                          int
	moves                           int64
}

// Bounds of what a seed breaks, so that scenarios end.
const (
	maxStrikes = 12
	maxDeaths  = 15 // of one invocation's attempts: 30 and it fails
)

func newSeeded(seed uint64) *seeded {
	p := &seeded{seed: seed, random: rand.New(rand.NewPCG(seed, 0x70657264757265))}
	if seed%4 == 0 {
		return p // nothing but the order
	}
	p.delays, p.losses = p.random.IntN(200), p.random.IntN(40)
	p.strikes, p.deaths = []int{0, 5, 40, 150}[p.random.IntN(4)], []int{0, 20, 300}[p.random.IntN(3)]
	p.longest = []time.Duration{5 * time.Millisecond, 100 * time.Millisecond, time.Second}[p.random.IntN(3)]
	return p
}

// hit is true of so many of a thousand.
func (p *seeded) hit(perMille int) bool { return perMille > 0 && p.random.IntN(1000) < perMille }

func (p *seeded) delay(m *move, now time.Time, longest time.Duration) {
	m.notBefore = now.Add(time.Duration(p.random.Int64N(int64(longest)) + 1))
}

func (p *seeded) arrive(_ *Node, m *move, now time.Time) []*move {
	arrived := []*move{m}
	switch m.kind {
	case kindMessage:
		switch {
		case p.hit(p.losses):
			return nil // it is sent again after a second
		case p.hit(p.losses):
			again := *m
			again.text, again.lane = m.text+", again", m.lane+" again"
			p.delay(&again, now, p.longest)
			arrived = append(arrived, &again)
		}
	case kindSay, kindReply, kindCall:
		return arrived
	}
	if p.hit(p.delays) {
		p.delay(m, now, p.longest)
	}
	return arrived
}

func (p *seeded) strike(n *Node) bool {
	if made := n.moves.Load(); made == p.moves || p.struck >= maxStrikes || !p.hit(p.strikes) {
		p.moves = made
		return false
	}
	p.moves = n.moves.Load()
	p.struck++
	if p.random.IntN(3) > 0 {
		g := n.groups[p.random.IntN(len(n.groups))]
		n.trace(fmt.Sprintf("partition %d loses its leader", g.id))
		g.lose(p.random.IntN(g.waiting() + 1))
		return true
	}
	n.trace("the power fails")
	for _, g := range n.groups {
		g.lose(p.random.IntN(g.waiting() + 1))
	}
	n.agenda.discard(kindMessage)
	return true
}

func (p *seeded) choose(_ *Node, ready []*move, _ time.Time) (*move, time.Time) {
	if len(ready) == 0 {
		return nil, time.Time{}
	}
	return ready[p.random.IntN(len(ready))], time.Time{}
}

// crashes says whether an attempt dies after an entry. It is asked by partitions that may run at
// once, so it depends on nothing but what it is asked.
func (p *seeded) crashes(id invocation.ID, attempt, entry uint32) bool {
	hash := fnv.New64a()
	fmt.Fprint(hash, p.seed, id, attempt, entry) // it never fails
	return attempt < maxDeaths && hash.Sum64()%1000 < uint64(p.deaths)
}

// sleeps are the instants, in milliseconds, at which sleeps of handlers end.
type sleeps struct {
	mu    sync.Mutex
	until []int64
}

func (s *sleeps) add(until int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.until = append(s.until, until)
}

// next is the first that ends after now; zero if none does.
func (s *sleeps) next(now time.Time) time.Time {
	s.mu.Lock()
	defer s.mu.Unlock()
	at := now.UnixMilli()
	s.until = slices.DeleteFunc(s.until, func(until int64) bool { return until <= at })
	if len(s.until) == 0 {
		return time.Time{}
	}
	return time.UnixMilli(slices.Min(s.until))
}

// ordered takes one way through a tree of decisions: what an attempt hears of its completions, and
// when callers outside are heard, is decided, everything else comes as it comes.
type ordered struct {
	path   []int // decisions to take; 0 beyond
	widths []int // how many there were to choose from, at each
	texts  []string
	until  time.Time // time passes until then
}

func (*ordered) arrive(_ *Node, m *move, _ time.Time) []*move { return []*move{m} }
func (*ordered) strike(*Node) bool                            { return false }

func (p *ordered) choose(n *Node, ready []*move, now time.Time) (*move, time.Time) {
	var held []*move
	for _, m := range ready {
		if m.kind < kindCall {
			return m, time.Time{}
		}
		held = append(held, m)
	}
	if len(held) == 0 {
		return nil, time.Time{}
	}
	if p.until.After(now) {
		return nil, p.until
	}
	wake := n.sleeps.next(now)
	width := len(held)
	if !wake.IsZero() {
		width++
	}
	if width == 1 {
		return held[0], time.Time{}
	}
	slices.SortStableFunc(held, func(a, b *move) int { return int(a.kind) - int(b.kind) })
	decision := 0
	if at := len(p.widths); at < len(p.path) {
		decision = min(p.path[at], width-1)
	}
	p.widths = append(p.widths, width)
	if decision == len(held) {
		p.texts = append(p.texts, "time passes until "+wake.Sub(n.began).String())
		p.until = wake
		return nil, wake
	}
	p.texts = append(p.texts, held[decision].text)
	return held[decision], time.Time{}
}

// following is the path after the one taken, in the order of a search by depth; nil if it was the
// last.
func (p *ordered) following() []int {
	path := make([]int, len(p.widths))
	copy(path, p.path)
	for at := len(path) - 1; at >= 0; at-- {
		if path[at]+1 < p.widths[at] {
			path[at]++
			return path[:at+1]
		}
	}
	return nil
}
