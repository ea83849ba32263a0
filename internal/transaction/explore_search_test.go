package transaction_test

import (
	"fmt"
	"math/rand"
	"slices"
	"strings"
	"time"
)

// search is a look through a world.
type search struct {
	w       *world
	hazards hazards
	until   time.Time
	order   *rand.Rand
	seen    map[[16]byte]float64 // executions from here to an end
	stack   []move
	walks   int
	ends    int
	edges   int
	deepest int
	stopped bool
	failure string
	found   []move
}

// tooMany moves are more than any execution needs.
const tooMany = 300

// all visits every state, depth first, and returns how many executions lead from g to an end.
func (s *search) all(g *global) float64 {
	key := g.key()
	if paths, ok := s.seen[key]; ok {
		if paths < 0 {
			s.fail("it goes round in a circle")
		}
		return paths
	}
	s.seen[key] = -1
	s.deepest = max(s.deepest, len(s.stack))
	if len(s.stack) == tooMany {
		s.fail("it goes on without end")
		return 0
	}
	moves := s.w.moves(g, nil)
	paths := 0.0
	if ended(moves) {
		s.ends++
		paths = 1
		if wrong := s.w.wrongAtEnd(g); wrong != "" {
			s.fail(wrong)
		}
	}
	s.order.Shuffle(len(moves), func(i, j int) { moves[i], moves[j] = moves[j], moves[i] })
	for _, m := range moves {
		if s.failure != "" || s.stopped {
			break
		}
		if s.edges++; s.edges%64 == 0 && time.Now().After(s.until) {
			s.stopped = true
		}
		s.stack = append(s.stack, m)
		next, wrong := s.w.do(g, m)
		if wrong != "" {
			s.fail(wrong)
		} else {
			paths += s.all(next)
		}
		s.stack = s.stack[:len(s.stack)-1]
	}
	s.seen[key] = paths
	return paths
}

func (s *search) fail(wrong string) {
	if s.failure == "" {
		s.failure, s.found = wrong, slices.Clone(s.stack)
	}
}

// walk makes one execution at random.
func (s *search) walk() {
	g := s.w.begin(s.hazards)
	s.stack = s.stack[:0]
	var moves []move
	for {
		moves = s.w.moves(g, moves)
		if ended(moves) {
			s.ends++
			if wrong := s.w.wrongAtEnd(g); wrong != "" {
				s.fail(wrong)
			}
			if len(moves) == 0 || s.order.Intn(2) == 0 {
				return
			}
		}
		m := moves[s.order.Intn(len(moves))]
		if special(m) && s.order.Intn(4) > 0 {
			m = moves[s.order.Intn(len(moves))] // or all that is special would come first
		}
		s.stack = append(s.stack, m)
		s.deepest = max(s.deepest, len(s.stack))
		s.edges++
		next, wrong := s.w.do(g, m)
		if wrong != "" {
			s.fail(wrong)
			return
		}
		g = next
		if len(s.stack) == tooMany {
			s.fail("it goes on without end")
			return
		}
	}
}

func special(m move) bool { return m.kind == crash || m.double || m.lose || m.early }

// shortest looks for a failure with the fewest moves, as far as time allows.
func (s *search) shortest(most int, until time.Time) {
	type visit struct {
		g    *global
		from *visit
		move move
	}
	seen := map[[16]byte]bool{}
	queue := []*visit{{g: s.w.begin(s.hazards)}}
	for ; len(queue) > 0 && len(seen) < most && time.Now().Before(until); queue = queue[1:] {
		at := queue[0]
		moves := s.w.moves(at.g, nil)
		report := func(v *visit, wrong string) {
			s.failure, s.found = wrong, nil
			for ; v.from != nil; v = v.from {
				s.found = append(s.found, v.move)
			}
			slices.Reverse(s.found)
		}
		if ended(moves) {
			if wrong := s.w.wrongAtEnd(at.g); wrong != "" {
				report(at, wrong)
				return
			}
		}
		for _, m := range moves {
			next, wrong := s.w.do(at.g, m)
			v := &visit{next, at, m}
			if wrong != "" {
				report(v, wrong)
				return
			}
			if key := next.key(); !seen[key] {
				seen[key] = true
				queue = append(queue, v)
			}
		}
	}
}

// story is a failing execution for people.
func (s *search) story() string {
	var b strings.Builder
	g := s.w.begin(s.hazards)
	for i, m := range s.found {
		fmt.Fprintf(&b, "%4d  %s\n", i+1, s.w.say(g, m))
		g, _ = s.w.do(g, m)
	}
	for _, l := range g.locals {
		if l != nil {
			fmt.Fprintf(&b, "partition %d: lists %q, callers %v\n", l.partition, l.lists, l.callers)
			p := s.w.goTo(l)
			for _, t := range p.engine.Transactions() {
				fmt.Fprintf(&b, "    %s coordinator=%t %s held=%v waiting=%v %s\n", s.w.tryName(t.ID), t.Coordinator, t.Phase, t.Held, t.Waiting, t.Reason)
			}
		}
	}
	return b.String()
}
