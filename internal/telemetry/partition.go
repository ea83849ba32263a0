package telemetry

import (
	"context"
	"errors"
	"sync/atomic"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"
)

// EntryKind is the kind of a journal entry, as a metric's label.
type EntryKind uint8

// The kinds.
const (
	EntryCall EntryKind = iota
	EntrySend
	EntrySleep
	EntryRun
	EntrySetState
	EntryTablePut
	EntryAwakeable
	EntryAwaitPromise
	EntryCompletePromise
	EntryReceive
	EntryCompleteAwakeable
	EntryWait
	EntryCancelInvocation
	EntryVersion
	EntryAttach
	EntryStopTimer
	// EntryOther is one that this package has no name for.
	EntryOther

	entryKinds
)

var entryKindNames = [entryKinds]string{
	"call", "send", "sleep", "run", "set_state", "table_put", "awakeable", "await_promise", "complete_promise",
	"receive", "complete_awakeable", "wait", "cancel_invocation", "version", "attach", "stop_timer", "other",
}

// RetryReason is why a transaction is tried again, as a metric's label.
type RetryReason uint8

// The reasons.
const (
	// RetryWound: it gave way to an older transaction that waited for one of its objects.
	RetryWound RetryReason = iota
	// RetryBlocked: it wanted an object that a DURABLE handler holds, and let go of its own while
	// it waits for that.
	RetryBlocked
	// RetryLost: a participant had another leader, or had given the try up.
	RetryLost
	// RetryOther is one that this package has no name for.
	RetryOther

	retryReasons
)

var retryReasonNames = [retryReasons]string{"wound", "blocked", "lost", "other"}

// Partition counts what one partition does. Nil is off. It is written by the partition's
// goroutine and read at each export: plain numbers of its own, for a counter that all
// partitions share would have every core wait for the others.
type Partition struct {
	instruments *Instruments
	handlers    map[handlerName]*HandlerInstruments // the partition's goroutine only
	limits      map[string]metric.MeasurementOption // likewise

	entries             [entryKinds]atomic.Int64
	records, bytes      atomic.Int64
	timers              atomic.Int64
	sent, resent        atomic.Int64
	received, duplicate atomic.Int64
	leaderships         atomic.Int64

	committed, rolledBack  atomic.Int64
	fired, skipped, missed atomic.Int64
	retries                [retryReasons]atomic.Int64
}

type handlerName struct{ service, handler string }

// Partition returns the counters of one partition, which stay with i for ever.
func (i *Instruments) Partition() *Partition {
	if i == nil {
		return nil
	}
	p := &Partition{instruments: i, handlers: map[handlerName]*HandlerInstruments{}}
	i.mu.Lock()
	defer i.mu.Unlock()
	i.mu.partitions = append(i.mu.partitions, p)
	return p
}

// Handler is Instruments.Handler, remembered. Only the partition's goroutine may call it, and
// only for handlers that exist: each costs memory until the node ends.
func (p *Partition) Handler(service, handler string) *HandlerInstruments {
	if p == nil {
		return nil
	}
	name := handlerName{service, handler}
	h := p.handlers[name]
	if h == nil {
		h = p.instruments.Handler(service, handler)
		p.handlers[name] = h
	}
	return h
}

// Entry counts a journal entry.
func (p *Partition) Entry(kind EntryKind) {
	if p != nil {
		p.entries[min(kind, EntryOther)].Add(1)
	}
}

// Record counts a record given to the log: of that many events, bytes long.
func (p *Partition) Record(events, bytes int) {
	if p != nil {
		p.records.Add(1)
		p.bytes.Add(int64(bytes))
		p.instruments.recordEvents.Record(context.Background(), int64(events))
	}
}

// TimerFired counts a timer and how late it was.
func (p *Partition) TimerFired(late time.Duration) {
	if p != nil {
		p.timers.Add(1)
		p.instruments.timerLateness.Record(context.Background(), max(late, 0).Seconds())
	}
}

// ScheduleMoved counts what became of due times of a schedule: how many fired, by hand too, how many
// were skipped because of a firing before them, how many were missed because no node was there.
func (p *Partition) ScheduleMoved(fired int, skipped, missed uint64) {
	if p != nil {
		p.fired.Add(int64(fired))
		p.skipped.Add(int64(skipped))
		p.missed.Add(int64(missed))
	}
}

// ScheduleFired measures by how much a due time fired late, its jitter included.
func (p *Partition) ScheduleFired(late time.Duration) {
	if p != nil {
		p.instruments.scheduleLateness.Record(context.Background(), max(late, 0).Seconds())
	}
}

// MessageSent counts a message to another partition; again is true if it was sent before.
func (p *Partition) MessageSent(again bool) {
	switch {
	case p == nil:
	case again:
		p.resent.Add(1)
	default:
		p.sent.Add(1)
	}
}

// MessageReceived counts a message from another partition; again is true if it was received
// before.
func (p *Partition) MessageReceived(again bool) {
	switch {
	case p == nil:
	case again:
		p.duplicate.Add(1)
	default:
		p.received.Add(1)
	}
}

// Leading counts a leadership that begins.
func (p *Partition) Leading() {
	if p != nil {
		p.leaderships.Add(1)
	}
}

// TransactionEnded counts a transaction over more than one object whose coordinator this partition
// is: its decision, and the time from its first call of another object until then, all tries
// together. A try that is followed by another is no end.
func (p *Partition) TransactionEnded(committed bool, took time.Duration) {
	if p == nil {
		return
	}
	labels := p.instruments.rolledBack
	if committed {
		labels = p.instruments.committed
		p.committed.Add(1)
	} else {
		p.rolledBack.Add(1)
	}
	p.instruments.transactions.Record(context.Background(), max(took, 0).Seconds(), labels)
}

// TransactionRetried counts a try at a transaction that ended so that another begins.
func (p *Partition) TransactionRetried(reason RetryReason) {
	if p != nil {
		p.retries[min(reason, RetryOther)].Add(1)
	}
}

// observeCounts exports the sums over all partitions.
func (i *Instruments) observeCounts() error {
	var problems []error
	var all []metric.Observable
	counter := func(name, unit, about string) metric.Int64ObservableCounter {
		made, err := i.meter.Int64ObservableCounter(name, metric.WithUnit(unit), metric.WithDescription(about))
		problems = append(problems, err)
		all = append(all, made)
		return made
	}
	entries := counter("perdure.journal.entries", "{entry}", "Journal entries recorded.")
	records := counter("perdure.records", "{record}", "Records given to the log.")
	bytes := counter("perdure.records.size", "By", "Bytes of the records given to the log.")
	timers := counter("perdure.timers.fired", "{timer}", "Timers that fired.")
	sent := counter("perdure.messages.sent", "{message}", "Messages to other partitions, the first time they are sent.")
	resent := counter("perdure.messages.resent", "{message}", "Messages sent again because no acknowledgement came.")
	received := counter("perdure.messages.received", "{message}", "Messages from other partitions.")
	duplicates := counter("perdure.messages.duplicates", "{message}", "Messages from other partitions that had been received before.")
	leaderships := counter("perdure.leadership.changes", "{change}", "Times this node became a partition's leader.")
	transactions := counter("perdure.transactions", "{transaction}", "Transactions over several objects that were decided.")
	schedules := counter("perdure.schedule.firings", "{firing}", "Due times of schedules that fired, were skipped or were missed.")
	retries := counter("perdure.transaction.retries", "{try}", "Tries at a transaction that were followed by another.")
	if err := errors.Join(problems...); err != nil {
		return err
	}
	var reasons [retryReasons]metric.MeasurementOption
	for reason := range reasons {
		reasons[reason] = metric.WithAttributeSet(attribute.NewSet(attribute.String(KeyReason, retryReasonNames[reason])))
	}
	var kinds [entryKinds]metric.MeasurementOption
	for kind := range kinds {
		kinds[kind] = metric.WithAttributeSet(attribute.NewSet(attribute.String("kind", entryKindNames[kind])))
	}
	_, err := i.meter.RegisterCallback(func(_ context.Context, observer metric.Observer) error {
		i.mu.Lock()
		partitions := i.mu.partitions
		i.mu.Unlock()
		sum := func(of func(*Partition) *atomic.Int64) (total int64) {
			for _, p := range partitions {
				total += of(p).Load()
			}
			return total
		}
		for kind, label := range kinds {
			if n := sum(func(p *Partition) *atomic.Int64 { return &p.entries[kind] }); n > 0 {
				observer.ObserveInt64(entries, n, label)
			}
		}
		observer.ObserveInt64(records, sum(func(p *Partition) *atomic.Int64 { return &p.records }))
		observer.ObserveInt64(bytes, sum(func(p *Partition) *atomic.Int64 { return &p.bytes }))
		observer.ObserveInt64(timers, sum(func(p *Partition) *atomic.Int64 { return &p.timers }))
		observer.ObserveInt64(sent, sum(func(p *Partition) *atomic.Int64 { return &p.sent }))
		observer.ObserveInt64(resent, sum(func(p *Partition) *atomic.Int64 { return &p.resent }))
		observer.ObserveInt64(received, sum(func(p *Partition) *atomic.Int64 { return &p.received }))
		observer.ObserveInt64(duplicates, sum(func(p *Partition) *atomic.Int64 { return &p.duplicate }))
		observer.ObserveInt64(leaderships, sum(func(p *Partition) *atomic.Int64 { return &p.leaderships }))
		observer.ObserveInt64(transactions, sum(func(p *Partition) *atomic.Int64 { return &p.committed }), i.committed)
		observer.ObserveInt64(transactions, sum(func(p *Partition) *atomic.Int64 { return &p.rolledBack }), i.rolledBack)
		observer.ObserveInt64(schedules, sum(func(p *Partition) *atomic.Int64 { return &p.fired }), i.fired)
		observer.ObserveInt64(schedules, sum(func(p *Partition) *atomic.Int64 { return &p.skipped }), i.skipped)
		observer.ObserveInt64(schedules, sum(func(p *Partition) *atomic.Int64 { return &p.missed }), i.missed)
		for reason, label := range reasons {
			observer.ObserveInt64(retries, sum(func(p *Partition) *atomic.Int64 { return &p.retries[reason] }), label)
		}
		return nil
	}, all...)
	return err
}
