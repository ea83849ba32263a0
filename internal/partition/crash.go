package partition

import (
	"github.com/perdure/perdure/internal/engine"
	"github.com/perdure/perdure/internal/invocation"
)

// crash replaces the first attempt at a TRANSACTION just before it would commit; it reports
// whether it did.
func (p *Partition) crash(l *leadership, event engine.Event) bool {
	finish, ok := event.(*engine.Finish)
	if !ok || finish.Attempt != 1 || l.attempts[finish.ID] == nil || l.attempts[finish.ID].mode != invocation.ModeTransaction {
		return false
	}
	if !p.crashes(finish.ID, finish.Attempt, 0) {
		return false
	}
	p.evaluate(l, &engine.Restart{ID: finish.ID, Attempt: finish.Attempt})
	return true
}

// partAt is an entry whose value is in parts.
type partAt struct {
	id    invocation.ID
	index uint32
}

// crashAfter replaces an attempt that has just recorded something.
func (p *Partition) crashAfter(l *leadership, event engine.Event) {
	switch ev := event.(type) {
	case *engine.Append:
		if !p.crashes(ev.ID, ev.Attempt, ev.Index) {
			return
		}
		p.evaluate(l, &engine.Restart{ID: ev.ID, Attempt: ev.Attempt})
	case *engine.RunPart:
		// The closure runs again and its value begins with the first part: it would never get
		// further if it died there each time.
		at := partAt{ev.ID, ev.Index}
		a := l.attempts[ev.ID]
		if a == nil || a.number != ev.Attempt || ev.Number < l.crashed[at] || !p.crashes(ev.ID, ev.Attempt, ev.Index) {
			return
		}
		if l.crashed == nil {
			l.crashed = map[partAt]uint32{}
		}
		l.crashed[at] = ev.Number + 1
		p.evaluate(l, &engine.Restart{ID: ev.ID, Attempt: ev.Attempt})
	case *engine.CompleteRun:
		if !p.crashes(ev.ID, ev.Attempt, ev.Index) {
			return
		}
		p.evaluate(l, &engine.Restart{ID: ev.ID, Attempt: ev.Attempt})
	case *engine.RetryRun:
		p.evaluate(l, &engine.Restart{ID: ev.ID, Attempt: ev.Attempt})
	case *engine.ContinueAsNew:
		p.evaluate(l, &engine.Restart{ID: ev.ID, Attempt: ev.Attempt + 1})
	}
}

// crashes asks the test that limits the crashes.
func (p *Partition) crashes(id invocation.ID, attempt, entry uint32) bool {
	return p.config.CrashWhen == nil || p.config.CrashWhen(id, attempt, entry)
}
