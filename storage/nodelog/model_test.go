package nodelog

import (
	"bytes"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
)

// model is what a log should hold.
type model map[uint32]modelGroup

type modelGroup struct {
	truncIndex, truncTerm uint64
	// durableTrunc is the truncation point as of the last write: a crash may go back to it.
	durableTrunc uint64
	// entries by index; those truncated since the last write are still there.
	entries map[uint64]Entry
	last    uint64
	state   []byte
}

func (m model) clone() model {
	c := make(model, len(m))
	for id, g := range m {
		g.entries = maps.Clone(g.entries)
		c[id] = g
	}
	return c
}

func (m model) group(id uint32) modelGroup {
	g, ok := m[id]
	if !ok {
		g.entries = make(map[uint64]Entry)
	}
	return g
}

// written records that a frame was written, and truncations with it.
func (m model) written() {
	for id, g := range m {
		for index := g.durableTrunc; index <= g.truncIndex; index++ {
			delete(g.entries, index)
		}
		g.durableTrunc = g.truncIndex
		m[id] = g
	}
}

func (m model) append(writes []GroupWrite) {
	m.written()
	for _, w := range writes {
		g := m.group(w.Group)
		if at := w.Reset; at != nil {
			g = modelGroup{truncIndex: at.Index, truncTerm: at.Term, durableTrunc: at.Index, last: at.Index, state: g.state, entries: map[uint64]Entry{}}
		}
		for _, e := range w.Entries {
			for index := e.Index; index <= g.last; index++ {
				delete(g.entries, index)
			}
			g.entries[e.Index] = e
			g.last = e.Index
		}
		if w.State != nil {
			g.state = cloneState(w.State)
		}
		m[w.Group] = g
	}
}

// step is one operation on a log; do and model do the same to either.
type step struct {
	name  string
	do    func(*Log) error
	model func(model)
}

// randomStep chooses an operation that the model allows.
func randomStep(random *rand.Rand, m model, maxData int) step {
	id := uint32(random.IntN(4) + 1)
	g := m.group(id)
	switch n := random.IntN(20); {
	case n == 0 && len(m) > 2:
		return step{fmt.Sprintf("remove %d", id),
			func(l *Log) error { return l.Remove(id) },
			func(m model) { m.written(); delete(m, id) }}
	case n == 1:
		index, term := g.last+uint64(random.IntN(5)), uint64(random.IntN(9))
		return step{fmt.Sprintf("reset %d to %d", id, index),
			func(l *Log) error { return l.Reset(id, index, term) },
			func(m model) {
				m.written()
				g := m.group(id)
				m[id] = modelGroup{truncIndex: index, truncTerm: term, durableTrunc: index, last: index, state: g.state, entries: map[uint64]Entry{}}
			}}
	case n <= 7 && g.last > g.truncIndex:
		index := g.truncIndex + 1 + uint64(random.IntN(int(g.last-g.truncIndex)))
		term := g.entries[index].Term
		return step{fmt.Sprintf("truncate %d to %d", id, index),
			func(l *Log) error { l.TruncatePrefix(id, index, term); return nil },
			func(m model) {
				g := m[id]
				g.truncIndex, g.truncTerm = index, term
				m[id] = g
			}}
	}
	var writes []GroupWrite
	for range random.IntN(3) + 1 {
		w := GroupWrite{Group: uint32(random.IntN(4) + 1)}
		if slices.ContainsFunc(writes, func(o GroupWrite) bool { return o.Group == w.Group }) {
			continue
		}
		g := m.group(w.Group)
		if random.IntN(15) == 0 {
			w.Reset = &Position{Index: random.Uint64N(g.last + 5), Term: uint64(random.IntN(9))}
			g = modelGroup{truncIndex: w.Reset.Index, last: w.Reset.Index}
		}
		from := g.last + 1
		if back := g.last - g.truncIndex; back > 0 && random.IntN(6) == 0 {
			from -= uint64(random.IntN(int(min(back, 4)))) + 1
		}
		size := random.IntN(maxData/4 + 1)
		if random.IntN(10) == 0 {
			size = random.IntN(maxData + 1)
		}
		w.Entries = entriesOf(w.Group, from, random.IntN(4), random.Uint64N(1<<uint(random.IntN(40)))+1, size)
		if random.IntN(2) == 0 {
			w.State = fmt.Appendf(nil, "state %d", random.IntN(1000))
		}
		if random.IntN(30) == 0 {
			w.State = []byte{}
		}
		if len(w.Entries) == 0 && w.State == nil && w.Reset == nil {
			w.State = []byte("s")
		}
		writes = append(writes, w)
	}
	return step{fmt.Sprintf("append %v", describe(writes)),
		func(l *Log) error { return l.Append(writes) },
		func(m model) { m.append(writes) }}
}

func describe(writes []GroupWrite) string {
	var b bytes.Buffer
	for _, w := range writes {
		fmt.Fprintf(&b, "[%d:", w.Group)
		if w.Reset != nil {
			fmt.Fprintf(&b, " reset to %d", w.Reset.Index)
		}
		if n := len(w.Entries); n > 0 {
			fmt.Fprintf(&b, " %d-%d of %d bytes", w.Entries[0].Index, w.Entries[n-1].Index, len(w.Entries[0].Data))
		}
		fmt.Fprintf(&b, " state %q]", w.State)
	}
	return b.String()
}

// diff compares a log with the model. After a crash the truncation point may be anywhere
// between the written and the current one.
func (m model) diff(l *Log, crashed bool) error {
	ids := slices.Sorted(maps.Keys(m))
	if got := l.Groups(); !slices.Equal(got, ids) {
		return fmt.Errorf("groups %v, want %v", got, ids)
	}
	for _, id := range ids {
		g := m[id]
		first, last := l.Bounds(id)
		low := g.truncIndex
		if crashed {
			low = g.durableTrunc
		}
		if last != g.last || first-1 < low || first-1 > g.truncIndex {
			return fmt.Errorf("group %d: bounds %d, %d; want last %d, first %d to %d", id, first, last, g.last, low+1, g.truncIndex+1)
		}
		if !bytes.Equal(l.State(id), g.state) {
			return fmt.Errorf("group %d: state %q, want %q", id, l.State(id), g.state)
		}
		if first-1 == g.truncIndex {
			if term, err := l.Term(id, first-1); err != nil || term != g.truncTerm {
				return fmt.Errorf("group %d: term of truncation point %d, %v; want %d", id, term, err, g.truncTerm)
			}
		}
		for index := first; index <= last; {
			entries, err := l.Entries(id, index, last+1, 4000)
			if err != nil {
				return fmt.Errorf("group %d: entries from %d: %w", id, index, err)
			}
			for _, e := range entries {
				want := g.entries[index]
				if e.Index != index || e.Term != want.Term || e.Kind != want.Kind || !bytes.Equal(e.Data, want.Data) {
					return fmt.Errorf("group %d: entry %d is %+v, want %+v", id, index, e, want)
				}
				if term, err := l.Term(id, index); err != nil || term != want.Term {
					return fmt.Errorf("group %d: term of %d is %d, %v", id, index, term, err)
				}
				index++
			}
		}
	}
	return nil
}
