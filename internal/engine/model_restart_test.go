package engine

import (
	"fmt"
	"slices"
	"strings"

	"pgregory.net/rapid"

	"github.com/perdure/perdure/internal/invocation"
)

// effect is the word that the program adds to its object's state: one that was restarted has that of
// the one before it, which is taken back or kept with the entry that wrote it.
func (p *program) effect() string {
	if p.renews != "" {
		return p.renews
	}
	return p.name
}

// restartable: nobody else would see that it runs twice.
func (p *program) restartable() bool {
	return p.mode == invocation.ModeDurable && p.idem == "" && !p.restarted &&
		!slices.ContainsFunc(slices.Concat(append(slices.Clone(p.early), p.ops)...), func(o op) bool { return o.child != nil })
}

// restartAsNew has an operator restart a handler that has ended, from its beginning or with some of its
// entries.
func (w *world) restartAsNew() {
	p := w.drawRequest()
	if p == nil || !p.restartable() {
		return
	}
	l := w.of(p.id)
	row := l.row(p.id)
	if row == nil || !completed(row.Status) {
		return
	}
	from := uint32(rapid.IntRange(0, 4).Draw(w.t, "kept"))
	if from > 0 {
		from += row.JournalStart
	} else if slices.Contains(strings.Fields(l.state(p.key)), p.effect()) {
		return // Without an entry kept nothing is taken back: it would take effect twice.
	}
	renewed := *p
	w.names++
	renewed.name, renewed.renews = fmt.Sprintf("n%d", w.names), p.effect()
	renewed.begun = p.begun + int(row.Continuations)
	var unique [16]byte
	copy(unique[:], renewed.name)
	renewed.id = invocation.NewID(p.id.Hash(), unique)
	ev := surveyed(l.engine, l.view, p.id, from)
	ev.New, ev.Token = renewed.id, l.newToken(invocation.ID{})
	w.programs[renewed.name], w.renewed[renewed.id] = &renewed, &renewed
	l.evaluate(ev)
	if l.row(renewed.id) == nil {
		delete(w.programs, renewed.name) // It was refused.
		return
	}
	p.restarted = true
	w.requests = append(w.requests, &renewed)
}

// copyOn does the next slice of a copy.
func (l *leader) copyOn() bool {
	if len(l.copies) == 0 {
		return false
	}
	next := l.copies[0]
	l.copies = l.copies[1:]
	l.evaluate(&next)
	return true
}
