package partition

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/perdure/perdure/internal/engine"
	"github.com/perdure/perdure/internal/invocation"
	"github.com/perdure/perdure/internal/journal/pages"
	"github.com/perdure/perdure/internal/partition/overlay"
	"github.com/perdure/perdure/internal/stress"
	"github.com/perdure/perdure/internal/telemetry"
	"github.com/perdure/perdure/internal/timetable"
)

const noTimer = int64(1<<63 - 1)

// lead takes up a leadership: the engine recovers from the store and what was running starts.
func (p *Partition) lead(epoch uint64) *leadership {
	v, err := overlay.New(p.group.Snapshot())
	if err != nil {
		p.config.onFail(p.id, fmt.Errorf("partition %d can't be read: %w", p.id, err))
		return nil
	}
	l := &leadership{
		epoch:     epoch,
		view:      v,
		open:      record{sequence: 1},
		attempts:  map[invocation.ID]*attempt{},
		outbox:    map[uint32]*outbox{},
		nextTimer: 0,
		nextCheck: time.Now().Add(checkEvery),
	}
	l.ctx, l.over = context.WithCancel(context.Background())
	l.engine = engine.New(engine.Config{
		Partition: p.id, Partitions: p.config.Partitions, MaxInbox: p.config.MaxInbox,
		TransactionTimeout: p.config.TransactionTimeout.Milliseconds(),
		MaxWriteBytes:      p.config.MaxEntryBytes, MaxWrites: p.config.MaxEntryWrites,
		Next: timetable.Next, JournalPage: pages.Begin, PurgeRows: stress.Few(0, 4), CopyBytes: stress.Few(0, 1),
		Deployment: p.config.DeploymentOf,
		HandOn:     func() bool { return p.mayWrite(engine.HandOnLevel) },
	}, v, epoch)
	out, err := l.engine.Recover(p.config.Now().UnixMilli())
	if err != nil {
		p.config.onFail(p.id, fmt.Errorf("partition %d: %w", p.id, err))
		v.Close()
		l.over()
		return nil
	}
	for _, err := range out.Damaged {
		p.logger.Error("damaged row: what it belongs to stands still", telemetry.KeyPartition, p.id, telemetry.KeyError, err)
	}
	out.Effects = slices.DeleteFunc(out.Effects, func(effect engine.Effect) bool {
		if _, ok := effect.(*engine.SendMessage); ok && bugOutbox {
			return true
		}
		hide, ok := effect.(*engine.Hide)
		if ok {
			p.hidden.Hide(hide.Object) // Before the first READ finds a leader.
		}
		return ok
	})
	p.leading.Store(l)
	p.meter.Leading()
	p.take(l, out)
	p.logger.Debug("leading", telemetry.KeyPartition, p.id, telemetry.KeyEpoch, epoch)
	p.config.onLead(p.id)
	return l
}

// resign gives the leadership up, so that a new one starts over from what is durable. Stepping
// down here alone would leave the partition without a leader for good: its group goes on
// leading. A proposal out of sequence makes the group step down and campaign again, and from
// then on it takes no record of this epoch.
func (p *Partition) resign(l *leadership, cause error) {
	l.resigned = true
	if err := p.group.Propose(l.epoch, noSequence, nil); err == nil {
		p.logger.Error("group took a record out of sequence", telemetry.KeyPartition, p.id, telemetry.KeyEpoch, l.epoch)
	}
	p.StepDown(l.epoch, cause)
}

// noSequence is never the next one.
const noSequence = 1<<64 - 1

// stepDown throws everything of a leadership away.
func (p *Partition) stepDown(l *leadership, cause error) {
	if l == nil {
		return
	}
	p.leading.Store(nil)
	l.over()
	p.hidden.Clear()
	for _, a := range l.attempts {
		a.running.Abort(cause)
		a.meter.AttemptEnded(telemetry.OutcomeAborted)
	}
	p.waiters.Lock()
	channels := p.waiters.channels
	p.waiters.channels = map[engine.Token]chan reply{}
	p.waiters.Unlock()
	for _, ch := range channels {
		ch <- reply{err: p.unavailable(cause)}
	}
	l.view.Close()
	// The group has said so already, at the level that the cause deserves.
	p.logger.Debug("no longer leading", telemetry.KeyPartition, p.id, telemetry.KeyEpoch, l.epoch, telemetry.KeyCause, cause)
	p.config.onStepDown(p.id)
}
