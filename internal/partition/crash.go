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

// crashAfter replaces an attempt that has just recorded something.
func (p *Partition) crashAfter(l *leadership, event engine.Event) {
	switch ev := event.(type) {
	case *engine.Append:
		if !p.crashes(ev.ID, ev.Attempt, ev.Index) {
			return
		}
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
