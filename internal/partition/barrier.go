package partition

import (
	"context"
	"slices"

	"github.com/perdure/perdure/internal/engine"
	"github.com/perdure/perdure/internal/partition/overlay"
)

// unconfirmed is an answer that no record of this leadership stands behind: it says what was so
// when this node led, and with several replicas somebody else may lead by now and know better.
type unconfirmed struct {
	effect engine.Effect
	// after is the sequence of the record that must be durable before, 0 for none.
	after uint64
}

// mustConfirm reports whether an effect may leave only when this node has led at a moment after
// it was evaluated. A record that is proposed later than that shows it by itself.
func (p *Partition) mustConfirm(l *leadership, effect engine.Effect) bool {
	shown := l.open.dirty || len(l.sealed) > 0
	switch e := effect.(type) {
	case *engine.Reply:
		shown = shown || e.Durable
	case *engine.Tell:
		if !e.Confirm {
			return false
		}
		shown = shown && e.Promise // Others don't wait for the record.
	default:
		return false
	}
	return !shown && !bugConfirm && p.group.ReadBarrier(over) != nil
}

// over is a context that has ended.
var over = func() context.Context {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	return ctx
}()

// confirm holds an effect back until this node is known to lead still. One question serves all that
// came before it is asked.
func (p *Partition) confirm(l *leadership, effect engine.Effect) {
	u := unconfirmed{effect: effect}
	if n := len(l.inFlight); n > 0 {
		u.after = l.inFlight[n-1].sequence
	}
	if l.unconfirmed = append(l.unconfirmed, u); !l.confirming {
		p.askGroup(l)
	}
}

func (p *Partition) askGroup(l *leadership) {
	asked := l.unconfirmed
	l.unconfirmed, l.confirming = nil, true
	p.reads.Go(func() {
		err := p.group.ReadBarrier(l.ctx)
		p.post(item{control: controlConfirmed, epoch: l.epoch, confirmed: asked, cause: err})
	})
}

// confirmed releases what was held back. If this node does not lead any more, whoever waits hears
// that, and not what it thought.
func (p *Partition) confirmed(l *leadership, it *item) {
	if it.cause != nil {
		if !l.resigned {
			p.resign(l, it.cause)
		}
		return
	}
	for _, u := range it.confirmed {
		if i := slices.IndexFunc(l.inFlight, func(r record) bool { return r.sequence == u.after }); i >= 0 {
			l.inFlight[i].effects = append(l.inFlight[i].effects, u.effect)
			continue
		}
		p.act(l, u.effect)
	}
	if l.confirming = false; len(l.unconfirmed) > 0 {
		p.askGroup(l)
	}
}

// barrier returns when this node has led at a moment after the call began: what was answered before
// that, by whomever, is in the snapshots that it has from then on.
func (p *Partition) barrier(ctx context.Context) error {
	err := p.group.ReadBarrier(ctx)
	switch {
	case err == nil:
		return nil
	case ctx.Err() != nil:
		return ctx.Err()
	}
	return p.elsewhere(err)
}

// pinNow takes a snapshot of what is durable, with all that was answered before the call.
func (p *Partition) pinNow(ctx context.Context) (*overlay.Snapshot, error) {
	if p.leading.Load() == nil {
		return nil, p.elsewhere(nil)
	}
	if err := p.barrier(ctx); err != nil {
		return nil, err
	}
	return p.pin()
}
