package replica

import (
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/perdure/perdure/storage/nodelog"
)

// memLog is a Log in memory with faults. Everything in it is durable once Append returned.
type memLog struct {
	// gate, if set, is called by Append outside the lock before it writes and after; its error
	// is returned instead of, or after, writing.
	gate func(written bool) error
	// regate, if set, is used in the place of gate: it may be set while the log is in use.
	regate atomic.Pointer[func(written bool) error]

	mu struct {
		sync.Mutex
		groups  map[uint32]*memGroup
		appends int
	}
}

type memGroup struct {
	state     []byte
	first     uint64
	firstTerm uint64 // of first-1
	entries   []nodelog.Entry
}

func newMemLog() *memLog {
	l := &memLog{}
	l.mu.groups = make(map[uint32]*memGroup)
	return l
}

func (l *memLog) group(id uint32) *memGroup {
	g := l.mu.groups[id]
	if g == nil {
		g = &memGroup{first: 1}
		l.mu.groups[id] = g
	}
	return g
}

func (g *memGroup) last() uint64 { return g.first + uint64(len(g.entries)) - 1 }

func (l *memLog) setGate(gate func(written bool) error) { l.regate.Store(&gate) }

func (l *memLog) Append(writes []nodelog.GroupWrite) error {
	gate := l.gate
	if other := l.regate.Load(); other != nil {
		gate = *other
	}
	if gate != nil {
		if err := gate(false); err != nil {
			return err
		}
	}
	if err := l.write(writes); err != nil {
		return err
	}
	if gate != nil {
		return gate(true)
	}
	return nil
}

func (l *memLog) write(writes []nodelog.GroupWrite) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.mu.appends++
	for _, w := range writes {
		g := l.group(w.Group)
		if w.Reset != nil {
			*g = memGroup{state: g.state, first: w.Reset.Index + 1, firstTerm: w.Reset.Term}
		}
		for i, entry := range w.Entries {
			if i == 0 {
				if entry.Index < g.first || entry.Index > g.last()+1 {
					return fmt.Errorf("group %d: entry %d outside of %d to %d", w.Group, entry.Index, g.first, g.last()+1)
				}
				g.entries = slices.Clip(g.entries[:entry.Index-g.first])
			} else if entry.Index != g.last()+1 {
				return fmt.Errorf("group %d: entry %d follows %d", w.Group, entry.Index, g.last())
			}
			g.entries = append(g.entries, entry)
		}
		if w.State != nil {
			g.state = slices.Clone(w.State)
		}
	}
	return nil
}

func (l *memLog) Groups() []uint32 {
	l.mu.Lock()
	defer l.mu.Unlock()
	ids := []uint32{}
	for id := range l.mu.groups {
		ids = append(ids, id)
	}
	slices.Sort(ids)
	return ids
}

func (l *memLog) State(id uint32) []byte {
	l.mu.Lock()
	defer l.mu.Unlock()
	if g := l.mu.groups[id]; g != nil {
		return g.state
	}
	return nil
}

func (l *memLog) Bounds(id uint32) (uint64, uint64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	g := l.mu.groups[id]
	if g == nil {
		return 1, 0
	}
	return g.first, g.last()
}

func (l *memLog) Term(id uint32, index uint64) (uint64, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	g := l.mu.groups[id]
	switch {
	case g == nil || index > g.last():
		return 0, nodelog.ErrUnavailable
	case index == g.first-1:
		return g.firstTerm, nil
	case index < g.first:
		return 0, nodelog.ErrCompacted
	}
	return g.entries[index-g.first].Term, nil
}

func (l *memLog) Entries(id uint32, lo, hi, maxBytes uint64) ([]nodelog.Entry, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	g := l.mu.groups[id]
	if g == nil || hi > g.last()+1 {
		return nil, nodelog.ErrUnavailable
	}
	if lo < g.first {
		return nil, nodelog.ErrCompacted
	}
	var entries []nodelog.Entry
	size := uint64(0)
	for _, entry := range g.entries[lo-g.first : hi-g.first] {
		if size += uint64(len(entry.Data)); len(entries) > 0 && size > maxBytes {
			break
		}
		entries = append(entries, entry)
	}
	return entries, nil
}

func (l *memLog) TruncatePrefix(id uint32, index, term uint64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	g := l.mu.groups[id]
	if g == nil || index < g.first {
		return
	}
	if index > g.last() || g.entries[index-g.first].Term != term {
		panic(fmt.Sprintf("group %d: truncation to %d of term %d, last is %d", id, index, term, g.last()))
	}
	g.entries = slices.Clone(g.entries[index+1-g.first:])
	g.first, g.firstTerm = index+1, term
}

func (l *memLog) Close() error { return nil }

// frozen calls fn while nothing can be written or truncated, with a copy of the log.
func (l *memLog) frozen(fn func(copy *memLog)) {
	l.mu.Lock()
	defer l.mu.Unlock()
	c := newMemLog()
	for id, g := range l.mu.groups {
		d := *g
		d.entries = slices.Clone(g.entries)
		c.mu.groups[id] = &d
	}
	c.mu.appends = l.mu.appends
	fn(c)
}

func (l *memLog) clone() (c *memLog) {
	l.frozen(func(copy *memLog) { c = copy })
	return c
}

func (l *memLog) appendCount() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.mu.appends
}

var errInjected = errors.New("injected")
