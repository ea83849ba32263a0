package partition

import (
	"bytes"
	"slices"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/perdure/perdure/internal/engine"
	"github.com/perdure/perdure/internal/invocation"
	"github.com/perdure/perdure/internal/invoker"
	recordv1 "github.com/perdure/perdure/internal/record/v1"
	"github.com/perdure/perdure/internal/table"
	"github.com/perdure/perdure/internal/telemetry"
)

// outbox is what was sent to one partition and not acknowledged yet.
type outbox struct {
	acked uint64
	sent  uint64
	since time.Time
}

// dispatch sends a message that is durable.
func (p *Partition) dispatch(l *leadership, e *engine.SendMessage) {
	o := l.outbox[e.To]
	if o == nil {
		o = &outbox{acked: e.Sequence - 1, since: time.Now()}
		l.outbox[e.To] = o
		p.unacked.Store(int32(len(l.outbox)))
		l.checkAt(o.since.Add(resendAfter))
	}
	o.sent = max(o.sent, e.Sequence)
	p.meter.MessageSent(false)
	p.toPartition(e.To, &engine.Deliver{From: p.id, Sequence: e.Sequence, Message: e.Message})
}

func (p *Partition) acked(l *leadership, by uint32, sequence uint64) {
	o := l.outbox[by]
	if o == nil {
		return
	}
	o.acked, o.since = max(o.acked, sequence), time.Now()
	if o.acked >= o.sent {
		delete(l.outbox, by)
		p.unacked.Store(int32(len(l.outbox)))
	}
}

// resend repeats what was not acknowledged in time: the other partition had no leader, or
// its leader was lost with the message.
func (p *Partition) resend(l *leadership, now time.Time) {
	for to, o := range l.outbox {
		if now.Sub(o.since) >= resendAfter {
			p.resendTo(l, to, o, now)
		}
	}
}

// resendNow repeats what a partition that has a new leader has not acknowledged.
func (p *Partition) resendNow(l *leadership, to uint32) {
	if o := l.outbox[to]; o != nil {
		p.resendTo(l, to, o, time.Now())
	}
}

func (p *Partition) resendTo(l *leadership, to uint32, o *outbox, now time.Time) {
	o.since = now
	const most = 1000 // in flight at once; the acks of these bring the next
	sent := 0
	err := l.view.Scan(table.Outbox(to, o.acked+1), table.Outbox(to, o.sent+1), func(key, value []byte) bool {
		message := &recordv1.Message{}
		_, sequence, err := table.ParseOutbox(key)
		if err == nil {
			err = proto.Unmarshal(value, message)
		}
		if err != nil {
			p.logger.Error("message can't be read and waits", telemetry.KeyPartition, p.id, telemetry.KeyTo, to, telemetry.KeyError, err)
			return false
		}
		p.meter.MessageSent(true)
		p.toPartition(to, &engine.Deliver{From: p.id, Sequence: sequence, Message: message})
		sent++
		return sent < most
	})
	if err != nil {
		p.logger.Error("outbox can't be read", telemetry.KeyPartition, p.id, telemetry.KeyTo, to, telemetry.KeyError, err)
	}
}

// fireTimers gives the engine what is due.
func (p *Partition) fireTimers(l *leadership) {
	at := p.config.Now().UnixMilli()
	if l.nextTimer > at {
		return
	}
	const most = 256 // Then other events have their turn.
	var due []table.Timer
	var scanErr error
	next := noTimer
	held := noTimer // the first timer of a schedule, if they may not fire yet
	schedulesFire := p.config.router.schedulesFire.Load()
	lower, upper := table.TimersFrom(l.timerFloor)
	err := l.view.Scan(lower, upper, func(key, _ []byte) bool {
		timer, err := table.ParseTimer(key)
		if err != nil {
			scanErr = err
			return false
		}
		if timer.At > at || len(due) == most {
			next = timer.At
			return false
		}
		if timer.Kind == table.TimerSchedule && !schedulesFire {
			held = min(held, timer.At)
			return true
		}
		due = append(due, timer)
		return true
	})
	if err == nil {
		err = scanErr
	}
	if err != nil {
		p.logger.Error("timers can't be read; trying again in a second", telemetry.KeyPartition, p.id, telemetry.KeyError, err)
		l.nextTimer = at + 1000
		return
	}
	// Fired ones leave traces that a scan from the start would pass again and again.
	if next != noTimer {
		l.timerFloor = next
	} else if len(due) > 0 {
		l.timerFloor = due[len(due)-1].At
	}
	l.nextTimer = next
	if held != noTimer {
		l.timerFloor, l.nextTimer = min(l.timerFloor, held), at+20
	}
	for _, timer := range due {
		p.meter.TimerFired(time.Duration(at-timer.At) * time.Millisecond)
		p.evaluate(l, &engine.Fire{Timer: timer})
	}
}

// check looks after what only time can tell, and says when to look again.
func (p *Partition) check(l *leadership, now time.Time) {
	if now.Before(l.nextCheck) {
		return
	}
	p.resend(l, now)
	if l.engine.Busy() {
		p.evaluate(l, &engine.Tick{})
	}
	var late []invocation.ID
	for id, a := range l.attempts {
		if a.deadline.IsZero() || !now.After(a.deadline) {
			continue
		}
		if waits, ok := a.running.(invoker.Unplaced); ok && a.stored && waits.Waiting() {
			a.touch()
			continue
		}
		late = append(late, id)
	}
	// In an order of their own, not that of a map: a seed of actortest must do the same again.
	slices.SortFunc(late, func(a, b invocation.ID) int { return bytes.Compare(a[:], b[:]) })
	for _, id := range late {
		if a := l.attempts[id]; a != nil {
			p.evaluate(l, &engine.TimeOut{ID: id, Attempt: a.number, After: a.timeout.Milliseconds()})
		}
	}
	l.nextCheck = now.Add(time.Hour)
	if l.ticking = l.engine.Busy(); l.ticking {
		l.checkAt(now.Add(checkEvery))
	}
	for _, o := range l.outbox {
		l.checkAt(o.since.Add(resendAfter))
	}
	for _, a := range l.attempts {
		if !a.deadline.IsZero() {
			l.checkAt(a.deadline)
		}
	}
}

// checkAt makes check look at an instant, but not all the time.
func (l *leadership) checkAt(at time.Time) {
	if earliest := time.Now().Add(checkEvery); at.Before(earliest) {
		at = earliest
	}
	if at.Before(l.nextCheck) {
		l.nextCheck = at
	}
}
