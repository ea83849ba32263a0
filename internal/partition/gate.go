package partition

import (
	"errors"
	"time"

	"github.com/perdure/perdure/cluster/replica"
	"github.com/perdure/perdure/internal/engine"
	"github.com/perdure/perdure/internal/telemetry"
)

// flush proposes what the log has room for.
func (p *Partition) flush(l *leadership, now time.Time) {
	if l.backlog && now.Before(l.retryAt) {
		return
	}
	for len(l.inFlight) < maxInFlight || len(l.sealed) > 0 && len(l.inFlight) < 4*maxInFlight {
		next := &l.open
		switch {
		case len(l.sealed) > 0:
			next = &l.sealed[0]
		case !l.open.dirty:
			return
		case len(l.open.effects) == 0 && len(l.open.granted) == 0 && now.Before(l.open.closeAt):
			return
		}
		payload := l.view.Encode(next.sequence, make([]byte, 0, next.bytes+next.bytes/4+64))
		err := p.group.Propose(l.epoch, next.sequence, payload)
		switch {
		case errors.Is(err, replica.ErrBacklog), errors.Is(err, replica.ErrNotLeader):
			// The store catches up, or a StepDown is on its way.
			l.backlog, l.retryAt = true, now.Add(backlogDelay)
			return
		case err != nil:
			// The record can never be written, so nothing that follows it can: start over from
			// what is durable.
			p.logger.Error("record refused", telemetry.KeyPartition, p.id, telemetry.KeyEpoch, l.epoch, telemetry.KeyBytes, len(payload), telemetry.KeyError, err)
			p.resign(l, err)
			return
		}
		p.meter.Record(next.events, len(payload))
		l.backlog = false
		l.inFlight = append(l.inFlight, *next)
		if len(l.sealed) > 0 {
			l.sealed = append(l.sealed[:0], l.sealed[1:]...)
		} else {
			l.open = record{sequence: l.open.sequence + 1}
		}
	}
}

// newest is the last record that holds something not yet durable, or nil.
func (l *leadership) newest() *record {
	switch {
	case l.open.dirty:
		return &l.open
	case len(l.sealed) > 0:
		return &l.sealed[len(l.sealed)-1]
	case len(l.inFlight) > 0:
		return &l.inFlight[len(l.inFlight)-1]
	}
	return nil
}

// gate holds an effect back until everything evaluated so far is durable. A lazy one is not
// what sends the record to the log.
func (p *Partition) gate(l *leadership, effect engine.Effect, lazy bool) {
	if r := l.newest(); r != nil && !bugGate {
		if lazy {
			r.patient = append(l.roomFor(r.patient), effect)
			return
		}
		r.effects = append(l.roomFor(r.effects), effect)
		return
	}
	p.act(l, effect)
}

// roomFor gives a list that has no memory that of another, which is no longer needed.
func (l *leadership) roomFor(effects []engine.Effect) []engine.Effect {
	last := len(l.spare) - 1
	if cap(effects) > 0 || last < 0 {
		return effects
	}
	effects, l.spare = l.spare[last], l.spare[:last]
	return effects
}

// maxSpare lists are kept: each record in flight has two.
const maxSpare = 2 * maxInFlight

// spares keeps the memory of a list for roomFor, unless it is large.
func (l *leadership) spares(effects []engine.Effect) {
	if cap(effects) > 0 && cap(effects) <= 256 && len(l.spare) < maxSpare {
		clear(effects)
		l.spare = append(l.spare, effects[:0])
	}
}

// grant calls a function once everything evaluated so far is durable.
func (p *Partition) grant(l *leadership, granted func()) {
	if r := l.newest(); r != nil && !bugGate {
		r.granted = append(r.granted, granted)
		return
	}
	granted()
}

// release opens the gate for every record up to sequence.
func (p *Partition) release(l *leadership, sequence uint64) {
	n := 0
	for n < len(l.inFlight) && l.inFlight[n].sequence <= sequence {
		for _, effect := range l.inFlight[n].effects {
			p.act(l, effect)
		}
		for _, effect := range l.inFlight[n].patient {
			p.act(l, effect)
		}
		for _, granted := range l.inFlight[n].granted {
			granted()
		}
		l.spares(l.inFlight[n].effects)
		l.spares(l.inFlight[n].patient)
		n++
	}
	clear(l.inFlight[:n])
	l.inFlight = append(l.inFlight[:0], l.inFlight[n:]...)
}
