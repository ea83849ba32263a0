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
	"github.com/perdure/perdure/internal/stress"
	"github.com/perdure/perdure/internal/table"
	"github.com/perdure/perdure/internal/telemetry"
)

// outbox is what was sent to one partition and not acknowledged yet.
//
// That partition takes messages in the order of their numbers and none before its turn. So once one was lost, all that
// follow it have to be sent again, and a new one goes behind them: sent at once, it would be lost too, and as long as there are
// always new ones, nothing but what is sent again would ever arrive.
type outbox struct {
	acked uint64
	// posted is the last message that is on its way, with all before it; tried is the last that ever was.
	posted, tried uint64
	// sent is the last message that is durable. Those after posted follow when acknowledgements come.
	sent uint64
	// since is when the last acknowledgement came that was news, or messages were sent again.
	since time.Time
}

// maxPosted messages that are sent again are on their way at once.
const maxPosted = 1000

// dispatch sends a message that is durable.
func (p *Partition) dispatch(l *leadership, e *engine.SendMessage) {
	o := l.outbox[e.To]
	if o == nil {
		o = &outbox{acked: e.Sequence - 1, posted: e.Sequence - 1, sent: e.Sequence - 1, since: time.Now()}
		l.outbox[e.To] = o
		l.checkAt(o.since.Add(resendAfter))
	}
	behind := o.posted < o.sent
	o.sent = max(o.sent, e.Sequence)
	if behind {
		return
	}
	o.posted = o.sent
	p.postMessage(o, e.To, e.Sequence, e.Message)
}

func (p *Partition) postMessage(o *outbox, to uint32, sequence uint64, message *recordv1.Message) {
	p.meter.MessageSent(sequence <= o.tried)
	o.tried = max(o.tried, sequence)
	p.toPartition(to, &engine.Deliver{From: p.id, Sequence: sequence, Message: message})
}

func (p *Partition) acked(l *leadership, by uint32, sequence uint64) {
	o := l.outbox[by]
	if o == nil {
		return
	}
	if sequence > o.acked {
		o.acked, o.since = sequence, time.Now()
		o.posted = max(o.posted, o.acked)
	}
	switch {
	case o.acked >= o.sent:
		delete(l.outbox, by)
	case o.posted < o.sent && o.posted-o.acked <= maxPosted/2:
		p.postMore(l, by, o)
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
	o.since, o.posted = now, o.acked
	p.postMore(l, to, o)
}

// postMore sends messages that follow those on their way, as many as may be. The acknowledgements of these bring the next.
func (p *Partition) postMore(l *leadership, to uint32, o *outbox) {
	err := l.view.Scan(table.Outbox(to, o.posted+1), table.Outbox(to, o.sent+1), func(key, value []byte) bool {
		message := &recordv1.Message{}
		_, sequence, err := table.ParseOutbox(key)
		if err == nil {
			err = proto.Unmarshal(value, message)
		}
		if err != nil {
			p.logger.Error("message can't be read and waits", telemetry.KeyPartition, p.id, telemetry.KeyTo, to, telemetry.KeyError, err)
			return false
		}
		o.posted = sequence
		p.postMessage(o, to, sequence, message)
		return o.posted-o.acked < maxPosted
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
	most := stress.Few(256, 1) // Then other events have their turn.
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
