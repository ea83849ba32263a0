package transaction_test

import (
	"maps"
	"slices"
	"strings"

	"github.com/perdure/perdure/internal/engine"
	"github.com/perdure/perdure/internal/invocation"
	recordv1 "github.com/perdure/perdure/internal/record/v1"
)

// handler is an attempt that runs.
type handler struct {
	observed
	id      invocation.ID
	attempt uint32
	index   uint32
	step    int
	open    map[uint32]bool
	answers map[uint32]string
	durable durableHandler
}

// durableHandler is what a DURABLE one has more.
type durableHandler struct {
	woken, wrote bool
}

func textOf(r *recordv1.Result) string {
	switch {
	case r.GetError() == nil:
		return string(r.GetValue())
	case strings.HasPrefix(r.Error.Message, "!"):
		return r.Error.Message
	}
	return "!" + r.Error.Message
}

func (p *place) start(e *engine.StartAttempt) {
	if p.handlers[e.ID] != nil {
		p.fail("%s is started while it runs", e.Input)
	}
	h := &handler{id: e.ID, attempt: e.Row.Attempt, open: map[uint32]bool{}, answers: map[uint32]string{}}
	h.program, h.state = p.w.programs[string(e.Input)], string(e.State)
	if h.program == nil {
		p.fail("an attempt is started with input %q", e.Input)
		return
	}
	p.handlers[e.ID] = h
	if h.program.mode == invocation.ModeDurable {
		p.startDurable(h, e)
		return
	}
	p.advance(h)
}

// advance makes the next calls, or ends the handler.
func (p *place) advance(h *handler) {
	for len(h.open) == 0 {
		if h.step > 0 {
			g := h.program.calls[h.step-1]
			for _, index := range slices.Sorted(maps.Keys(h.answers)) {
				h.heard(h.answers[index], g)
			}
			clear(h.answers)
		}
		if h.failed || h.step == len(h.program.calls) {
			p.finish(h)
			return
		}
		for _, c := range h.program.calls[h.step].calls {
			h.index++
			h.open[h.index] = true
			p.todo = append(p.todo, &engine.Call{ID: h.id, Attempt: h.attempt, Index: h.index, Invoke: c.invoke()})
		}
		h.step++
	}
}

func (p *place) finish(h *handler) {
	f := &engine.Finish{ID: h.id, Attempt: h.attempt, Result: &recordv1.Result{}}
	if text := h.String(); strings.HasPrefix(text, "!") {
		f.Result.Error = &recordv1.Error{Code: 9, Message: text}
	} else {
		f.Result.Value = []byte(text)
	}
	if h.program.writes() && h.program.mode == invocation.ModeTransaction {
		f.Entries = []*recordv1.Entry{h.entry()}
	}
	p.todo = append(p.todo, f)
}

func (h *handler) entry() *recordv1.Entry {
	return &recordv1.Entry{Entry: &recordv1.Entry_SetState{SetState: &recordv1.SetState{Value: []byte(h.appended())}}}
}

func (p *place) notify(e *engine.Notify) {
	h := p.handlers[e.ID]
	switch {
	case h == nil:
		p.fail("an attempt is notified that does not run")
	case h.program.mode == invocation.ModeDurable:
		p.wakeDurable(h)
	case !h.open[e.Completion.Entry]:
		p.fail("%s hears of its call %d twice", h.program.name, e.Completion.Entry)
	default:
		delete(h.open, e.Completion.Entry)
		h.answers[e.Completion.Entry] = textOf(e.Completion.Result)
		p.advance(h)
	}
}

// startDurable runs a handler that waits for somebody outside and then writes its object.
func (p *place) startDurable(h *handler, e *engine.StartAttempt) {
	for _, entry := range e.Journal {
		h.index++
		if set := entry.GetSetState(); set != nil {
			h.durable.wrote, h.state = true, strings.TrimSpace(strings.TrimSuffix(h.state, h.program.name))
		}
	}
	if h.program.waits && h.index == 0 {
		h.index++
		p.todo = append(p.todo, &engine.Append{ID: h.id, Attempt: h.attempt, Index: h.index, Entry: &recordv1.Entry{Entry: &recordv1.Entry_Awakeable{Awakeable: &recordv1.Awakeable{}}}})
	}
	if !h.program.waits || e.Completions[1] != nil {
		p.wakeDurable(h)
		return
	}
	p.wakes = append(p.wakes, p.w.intern(message{to: p.id, kind: wake, content: string(h.id[:])}))
}

func (p *place) wakeDurable(h *handler) {
	if h.durable.woken {
		return
	}
	h.durable.woken = true
	if !h.durable.wrote {
		h.index++
		p.todo = append(p.todo, &engine.Append{ID: h.id, Attempt: h.attempt, Index: h.index, Entry: h.entry()})
	}
	p.finish(h)
}

// isOutside reports whether a handler holds its key as an invocation, not as a call of a
// transaction.
func (h *handler) isOutside(w *world) bool {
	for _, c := range w.clients {
		if c.root == h.program {
			return true
		}
	}
	return false
}
