package history

import (
	"cmp"
	"math"
	"slices"
)

// label is the kind of an edge as a bit, so that sets of them are masks. rt has no edges of its
// own: it follows from times.
type label uint8

const (
	ww label = 1 << iota
	wr
	rw
)

func (l label) kind() EdgeKind {
	switch l {
	case ww:
		return WW
	case wr:
		return WR
	case rw:
		return RW
	}
	return RT
}

// edge says that one transaction comes before another, and what shows it.
type edge struct {
	from, to int32
	label    label
	// unread: nobody read the append of to, so it comes after the whole longest list.
	unread bool
	key    int32
	// length of the list that was read, of wr and rw.
	length int32
	// first is the value of ww's and wr's from, second that of ww's and rw's to.
	first, second int64
}

// most unread appends of a key that get edges, and most readers and writers for each: those
// edges would be as many as the product of both.
const (
	maxUnread  = 8
	maxReaders = 64
)

// graph has the transactions of a checker as nodes. Edges of realtime, which are as many as
// pairs, are not kept: components has a chain of ends for them, and path compares times.
type graph struct {
	*checker
	// edges sorted by from; those of node n are edges[first[n]:first[n+1]].
	edges []edge
	first []int32

	// Scratch space by node. local is the number of a member of the set looked at, plus one; 0
	// for all others. mark is the search that last reached a node, via the edge by which it did
	// and before where from.
	local, mark, before []int32
	via                 []int32
	searches            int32
	queue               []int32
	depth               []int32
	// budget is how many more edges the searches of all circles may look at.
	budget int
}

func newGraph(c *checker) *graph {
	n := len(c.txns)
	g := &graph{checker: c, budget: searchBudget,
		local: make([]int32, n), mark: make([]int32, n), before: make([]int32, n), via: make([]int32, n)}
	g.appends()
	g.observations()
	g.unread()
	// Counting sort: there are as many edges as operations.
	g.first = make([]int32, n+1)
	for i := range g.edges {
		g.first[g.edges[i].from+1]++
	}
	for i := range n {
		g.first[i+1] += g.first[i]
	}
	next := slices.Clone(g.first)
	sorted := make([]edge, len(g.edges))
	for _, e := range g.edges {
		sorted[next[e.from]] = e
		next[e.from]++
	}
	g.edges = sorted
	return g
}

func (g *graph) connect(e edge) {
	if e.from != e.to {
		g.edges = append(g.edges, e)
	}
}

// appends adds the ww edges.
func (g *graph) appends() {
	for key := range g.lists {
		last := none
		for _, index := range g.lists[key].order {
			if index == none {
				continue
			}
			if last != none {
				a, b := &g.writes[last], &g.writes[index]
				g.connect(edge{from: a.txn, to: b.txn, label: ww, key: int32(key), first: a.value, second: b.value})
			}
			last = index
		}
	}
}

// observations adds the wr and rw edges of reads.
func (g *graph) observations() {
	for i := range g.reads {
		r := &g.reads[i]
		if r.broken || !g.takes[r.txn] {
			continue
		}
		length := int32(len(r.list))
		seen := g.lastOfOthers(r)
		if seen != nil {
			g.connect(edge{from: seen.txn, to: r.txn, label: wr, key: r.key, length: length, first: seen.value})
		}
		if !r.prefix {
			continue
		}
		l := &g.lists[r.key]
		for _, index := range l.order[length:] {
			if index == none {
				continue
			}
			g.overlooked(r, seen, &g.writes[index], false)
			break
		}
	}
}

// overlooked adds the rw edge from a read to the append it did not see. If the read ends between
// two appends of a transaction, the edge to the second would only repeat that.
func (g *graph) overlooked(r *read, seen, next *write, unread bool) {
	if seen != nil && seen.txn == next.txn && !seen.last {
		return
	}
	g.connect(edge{from: r.txn, to: next.txn, label: rw, key: r.key, length: int32(len(r.list)), second: next.value, unread: unread})
}

// unread adds the edges to appends that took effect and that nobody read: they come after the
// longest list, in an order nobody knows.
func (g *graph) unread() {
	after := make([][]*write, len(g.lists))
	for key := range g.lists {
		l := &g.lists[key]
		if l.hasFinal || !l.read {
			continue
		}
		for _, index := range l.writes {
			if w := &g.writes[index]; g.takes[w.txn] && !w.seen && !w.missed && len(after[key]) < maxUnread {
				after[key] = append(after[key], w)
			}
		}
		for at := len(l.order) - 1; at >= 0; at-- {
			if l.order[at] == none {
				continue
			}
			last := &g.writes[l.order[at]]
			for _, w := range after[key] {
				g.connect(edge{from: last.txn, to: w.txn, label: ww, key: int32(key), first: last.value, second: w.value, unread: true})
			}
			break
		}
	}
	readers := make([]int, len(g.lists))
	for i := range g.reads {
		r := &g.reads[i]
		if len(after[r.key]) == 0 || !r.prefix || r.broken || !g.takes[r.txn] ||
			len(r.list) < len(g.lists[r.key].longest) || readers[r.key] == maxReaders {
			continue
		}
		readers[r.key]++
		for _, w := range after[r.key] {
			g.overlooked(r, g.lastOfOthers(r), w, true)
		}
	}
}

// precedes says whether a had ended before b began.
func (g *graph) precedes(a, b int32) bool { return g.end(a) < g.txns[b].Began }

// timeline is a set of transactions in the order of their times.
type timeline struct {
	// byBegan has all, byEnd those that have an end.
	byBegan, byEnd []int32
}

func (g *graph) timeline(nodes []int32) timeline {
	t := timeline{byBegan: slices.Clone(nodes)}
	for _, n := range nodes {
		if g.end(n) != math.MaxInt64 {
			t.byEnd = append(t.byEnd, n)
		}
	}
	slices.SortFunc(t.byBegan, func(a, b int32) int {
		return cmp.Or(cmp.Compare(g.txns[a].Began, g.txns[b].Began), cmp.Compare(a, b))
	})
	slices.SortFunc(t.byEnd, func(a, b int32) int {
		return cmp.Or(cmp.Compare(g.txns[a].Ended, g.txns[b].Ended), cmp.Compare(a, b))
	})
	return t
}

// components returns the strongly connected components with more than one transaction of the
// graph of the given nodes, of edges with the given labels and, if realtime, of rt.
//
// It is Tarjan's algorithm with a stack of its own. Realtime takes three edges a transaction,
// not one for each pair: ends are nodes too, in a chain by time; a transaction leads to its
// end, an end to the next end and to the transactions that began between the two.
func (g *graph) components(nodes []int32, labels label, realtime bool) [][]int32 {
	k := int32(len(nodes))
	for i, n := range nodes {
		g.local[n] = int32(i) + 1
	}
	defer func() {
		for _, n := range nodes {
			g.local[n] = 0
		}
	}()
	var times timeline
	var ends int32
	// endOf is the place of a node's end in the chain; began says where in byBegan those that
	// began after an end and not after the next start.
	var endOf, began []int32
	if realtime {
		times = g.timeline(nodes)
		ends = int32(len(times.byEnd))
		endOf = make([]int32, k)
		for i := range endOf {
			endOf[i] = none
		}
		began = make([]int32, ends+1)
		b := 0
		for p, n := range times.byEnd {
			endOf[g.local[n]-1] = int32(p)
			for b < len(times.byBegan) && !g.precedes(n, times.byBegan[b]) {
				b++
			}
			began[p] = int32(b)
		}
		began[ends] = k
	}
	total := k + ends
	// cursor is how many of a node's successors were visited; order its number, from 1.
	cursor, order, low := make([]int32, total), make([]int32, total), make([]int32, total)
	onStack := make([]bool, total)
	successor := func(v int32) (int32, bool) {
		if v >= k {
			p := v - k
			at := cursor[v]
			cursor[v]++
			if at == 0 {
				if p+1 < ends {
					return v + 1, true
				}
				at, cursor[v] = 1, 2
			}
			if b := began[p] + at - 1; b < began[p+1] {
				return g.local[times.byBegan[b]] - 1, true
			}
			return 0, false
		}
		edges := g.edges[g.first[nodes[v]]:g.first[nodes[v]+1]]
		for int(cursor[v]) < len(edges) {
			e := &edges[cursor[v]]
			cursor[v]++
			if e.label&labels != 0 && g.local[e.to] != 0 {
				return g.local[e.to] - 1, true
			}
		}
		if realtime && int(cursor[v]) == len(edges) {
			cursor[v]++
			if endOf[v] != none {
				return k + endOf[v], true
			}
		}
		return 0, false
	}
	var found [][]int32
	var calls, stack []int32
	next := int32(0)
	enter := func(v int32) {
		next++
		order[v], low[v], onStack[v] = next, next, true
		calls, stack = append(calls, v), append(stack, v)
	}
	for root := range k {
		if order[root] != 0 {
			continue
		}
		enter(root)
		for len(calls) > 0 {
			v := calls[len(calls)-1]
			if w, ok := successor(v); ok {
				if order[w] == 0 {
					enter(w)
				} else if onStack[w] {
					low[v] = min(low[v], order[w])
				}
				continue
			}
			calls = calls[:len(calls)-1]
			if len(calls) > 0 {
				caller := calls[len(calls)-1]
				low[caller] = min(low[caller], low[v])
			}
			if low[v] != order[v] {
				continue
			}
			var members []int32
			for {
				w := stack[len(stack)-1]
				stack = stack[:len(stack)-1]
				onStack[w] = false
				if w < k {
					members = append(members, nodes[w])
				}
				if w == v {
					break
				}
			}
			if len(members) > 1 {
				slices.Sort(members)
				found = append(found, members)
			}
		}
	}
	return found
}
