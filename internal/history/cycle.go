package history

import (
	"fmt"
	"slices"
	"strings"
)

const (
	// searchBudget bounds the edges that all searches of short circles look at together, and
	// so their time; after that any circle will do.
	searchBudget = 60_000_000
	// componentBudget bounds them for one circle.
	componentBudget = 3_000_000
	// unbounded is a length no circle has.
	unbounded = int32(1 << 30)
)

// class is one kind of circle to look for: one with an edge of start, whose other edges have
// labels of rest, or are of realtime.
type class struct {
	start, rest label
	realtime    bool
}

// The classes, worst first. A circle is named after what it has (kindOf), not after the class
// that found it.
var classes = []class{
	{start: ww, rest: ww},
	{start: wr, rest: ww | wr},
	{start: rw, rest: ww | wr},
	{start: rw, rest: ww | wr | rw},
	{start: ww, rest: ww, realtime: true},
	{start: wr, rest: ww | wr, realtime: true},
	{start: rw, rest: ww | wr, realtime: true},
	{start: rw, rest: ww | wr | rw, realtime: true},
}

// step is an edge of a circle; of realtime if its index is none.
type step struct {
	from, to int32
	edge     int32
}

// report adds the circles. A transaction in a circle is out of the graph for the following
// searches, else each circle would be reported once more in each weaker class, and with each
// detour.
func (g *graph) report() {
	var nodes []int32
	for i := range g.txns {
		if g.takes[i] {
			nodes = append(nodes, int32(i))
		}
	}
	rest := g.components(nodes, ww|wr|rw, g.opts.Realtime)
	for _, class := range classes {
		if class.realtime && !g.opts.Realtime {
			continue
		}
		pending := rest
		rest = nil
		// Broken histories have circles without end; each search costs time.
		for reported := 0; len(pending) > 0 && reported <= g.opts.Limit; {
			set := pending[len(pending)-1]
			pending = pending[:len(pending)-1]
			var out []int32
			for _, component := range g.components(set, class.start|class.rest, class.realtime) {
				if reported > g.opts.Limit {
					break
				}
				circle := g.search(component, class)
				if circle == nil {
					continue
				}
				reported++
				g.addCircle(circle)
				for _, s := range circle {
					out = append(out, s.from)
				}
			}
			if len(out) == 0 {
				rest = append(rest, set)
				continue
			}
			slices.Sort(out)
			left := slices.DeleteFunc(slices.Clone(set), func(n int32) bool {
				_, gone := slices.BinarySearch(out, n)
				return gone
			})
			if len(left) > 1 {
				pending = append(pending, left)
			}
		}
		rest = append(rest, pending...)
	}
}

// search returns a circle of the class in a component of its graph: the shortest, if the
// budget lasts. There is one unless the class allows one rw edge only; then nil may be wrong when the
// budget is used up, and the next class finds the circle.
func (g *graph) search(component []int32, class class) []step {
	for i, n := range component {
		g.local[n] = int32(i) + 1
	}
	defer func() {
		for _, n := range component {
			g.local[n] = 0
		}
	}()
	var starts []int32
	for _, n := range component {
		for i := g.first[n]; i < g.first[n+1]; i++ {
			if e := &g.edges[i]; e.label == class.start && g.local[e.to] != 0 {
				starts = append(starts, i)
			}
		}
	}
	var times timeline
	if class.realtime {
		times = g.timeline(component)
	}
	budget := min(componentBudget, g.budget)
	spent := 0
	defer func() { g.budget -= spent }()
	close := func(start, longest int32) []step {
		e := &g.edges[start]
		way, cost := g.path(e.to, e.from, class, times.byBegan, longest)
		spent += cost
		if way == nil {
			return nil
		}
		return append([]step{{from: e.from, to: e.to, edge: start}}, way...)
	}
	// Short ones first: most are, and looking for nothing longer is cheap.
	for longest := int32(1); longest <= 3; longest++ {
		for _, start := range starts {
			if spent > budget/4*int(longest) {
				break
			}
			if circle := close(start, longest); circle != nil {
				return circle
			}
		}
	}
	// Then any. Each start is on a circle, so the first finds one, unless rw may come only once.
	unsure := class.start == rw && class.rest&rw == 0
	var best []step
	longest := unbounded
	for _, start := range starts {
		if spent > budget && (best != nil || unsure) {
			break
		}
		if circle := close(start, longest); circle != nil {
			best = circle
			longest = int32(len(circle)) - 2
		}
		if longest <= 3 {
			break
		}
	}
	return best
}

// path is a shortest way from one node to another inside the members of local, of at most
// longest edges, and the number of edges it looked at. Nil if there is none.
//
// An rt edge leads to all that began later. byBegan has the members by their beginnings, and
// what one node has reached in it no later one needs to look at again, so all rt edges of a
// search together cost one pass.
func (g *graph) path(from, to int32, class class, byBegan []int32, longest int32) ([]step, int) {
	g.searches++
	cost := 0
	visit := func(n, before, via, depth int32) {
		g.mark[n], g.before[n], g.via[n] = g.searches, before, via
		g.queue, g.depth = append(g.queue, n), append(g.depth, depth)
	}
	g.queue, g.depth = g.queue[:0], g.depth[:0]
	visit(from, none, none, 0)
	low := len(byBegan)
	for at := 0; at < len(g.queue); at++ {
		n, depth := g.queue[at], g.depth[at]+1
		if depth > longest {
			break
		}
		for i := g.first[n]; i < g.first[n+1]; i++ {
			cost++
			e := &g.edges[i]
			if e.label&class.rest == 0 || g.local[e.to] == 0 || g.mark[e.to] == g.searches {
				continue
			}
			visit(e.to, n, i, depth)
			if e.to == to {
				return g.way(from, to), cost
			}
		}
		if !class.realtime {
			continue
		}
		if g.precedes(n, to) {
			if g.mark[to] != g.searches {
				visit(to, n, none, depth)
			}
			return g.way(from, to), cost
		}
		if depth == longest {
			continue
		}
		began, _ := slices.BinarySearchFunc(byBegan, n, func(other, n int32) int {
			if g.precedes(n, other) {
				return 1
			}
			return -1
		})
		for i := began; i < low; i++ {
			cost++
			if g.mark[byBegan[i]] != g.searches {
				visit(byBegan[i], n, none, depth)
			}
		}
		low = min(low, began)
	}
	return nil, cost
}

// way is how the last search came to a node.
func (g *graph) way(from, to int32) []step {
	var steps []step
	for n := to; n != from; n = g.before[n] {
		steps = append(steps, step{from: g.before[n], to: n, edge: g.via[n]})
	}
	slices.Reverse(steps)
	return steps
}

// kindOf names a circle after its edges.
func (g *graph) kindOf(circle []step) Kind {
	reads, overlooks, realtime := 0, 0, false
	for _, s := range circle {
		switch {
		case s.edge == none:
			realtime = true
		case g.edges[s.edge].label == wr:
			reads++
		case g.edges[s.edge].label == rw:
			overlooks++
		}
	}
	kind := G2
	switch {
	case overlooks == 1:
		kind = GSingle
	case overlooks == 0 && reads > 0:
		kind = G1c
	case overlooks == 0:
		kind = G0
	}
	if realtime {
		kind += "-realtime"
	}
	return kind
}

func (g *graph) addCircle(circle []step) {
	g.add(g.kindOf(circle), func() Anomaly {
		var a Anomaly
		var text strings.Builder
		var keys []string
		for _, s := range circle {
			e := Edge{From: g.txn(s.from).ID, To: g.txn(s.to).ID, Kind: RT}
			if s.edge != none {
				known := &g.edges[s.edge]
				e.Kind, e.Key = known.label.kind(), g.lists[known.key].name
				keys = append(keys, e.Key)
			}
			e.Why = g.why(s)
			a.Txns = append(a.Txns, e.From)
			a.Cycle = append(a.Cycle, e)
		}
		fmt.Fprintf(&text, "%d transactions in a circle", len(circle))
		// A long one is all in Cycle; nobody reads that much text.
		shown := circle[:min(len(circle), shownSteps)]
		for i, s := range shown {
			fmt.Fprintf(&text, "\n  %s → %s (%s): %s", g.name(s.from), g.name(s.to), a.Cycle[i].Kind, a.Cycle[i].Why)
		}
		if more := len(circle) - len(shown); more > 0 {
			fmt.Fprintf(&text, "\n  and %s", plural(more, "more step", "more steps"))
		}
		for _, s := range shown {
			fmt.Fprintf(&text, "\n  %s", g.describe(s.from, keys...))
		}
		a.Text = text.String()
		return a
	})
}
