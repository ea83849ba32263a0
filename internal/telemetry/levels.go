package telemetry

import (
	"context"
	"errors"
	"fmt"

	"go.opentelemetry.io/otel/metric"
)

// Levels are what a node holds at one moment, all partitions together.
type Levels struct {
	// PartitionsLed is how many partitions this node leads.
	PartitionsLed int64
	// LiveInvocations are those in memory: queued, running or backing off.
	LiveInvocations int64
	// HeldKeys are the keys that an invocation holds, suspended or not.
	HeldKeys int64
	// InboxDepth is the number of invocations queued behind another of their key.
	InboxDepth int64
	// RunningAttempts is the number of attempts under way.
	RunningAttempts int64
	// OutboxMessages were sent to another partition and not acknowledged yet.
	OutboxMessages int64
	// Transactions over several objects are under way, counted by their coordinators.
	Transactions int64
	// PreparedTransactions are in doubt, counted by each participant that has promised to commit
	// and has not heard the decision.
	PreparedTransactions int64
	// PermitsHeld of limits.
	PermitsHeld int64
	// LimitsWaiting are the invocations that wait for a limit.
	LimitsWaiting int64
	// OverlayBytes are mutations not yet in the store.
	OverlayBytes int64
	// BacklogBytes are log records not yet in the store.
	BacklogBytes int64
	// LogBytes are the node log's on disk, LogLiveBytes what of it is still needed.
	LogBytes, LogLiveBytes int64
	// LogSegments are the node log's files.
	LogSegments int64
	// LogWrittenBytes and LogSyncs are counts since the start.
	LogWrittenBytes, LogSyncs int64
	// StoreBytes of the store on disk, negative if it has no files.
	StoreBytes int64
}

// Observe has read called for every export until stop is called. It must be fast and safe for
// concurrent use; if it reports false nothing is exported.
func (i *Instruments) Observe(read func(context.Context) (Levels, bool)) (stop func() error, err error) {
	if i == nil {
		return func() error { return nil }, nil
	}
	var problems []error
	var all []metric.Observable
	var values []func(metric.Observer, *Levels)
	gauge := func(name, unit, about string, value func(*Levels) int64) {
		made, err := i.meter.Int64ObservableGauge(name, metric.WithUnit(unit), metric.WithDescription(about))
		problems = append(problems, err)
		all = append(all, made)
		values = append(values, func(observer metric.Observer, levels *Levels) {
			if n := value(levels); n >= 0 {
				observer.ObserveInt64(made, n)
			}
		})
	}
	counter := func(name, unit, about string, value func(*Levels) int64) {
		made, err := i.meter.Int64ObservableCounter(name, metric.WithUnit(unit), metric.WithDescription(about))
		problems = append(problems, err)
		all = append(all, made)
		values = append(values, func(observer metric.Observer, levels *Levels) { observer.ObserveInt64(made, value(levels)) })
	}
	gauge("perdure.partitions.led", "{partition}", "Partitions that this node leads.", func(l *Levels) int64 { return l.PartitionsLed })
	gauge("perdure.invocations.live", "{invocation}", "Invocations in memory: queued, running or backing off.", func(l *Levels) int64 { return l.LiveInvocations })
	gauge("perdure.keys.held", "{key}", "Keys that an invocation holds.", func(l *Levels) int64 { return l.HeldKeys })
	gauge("perdure.inbox.depth", "{invocation}", "Invocations queued behind another of their key.", func(l *Levels) int64 { return l.InboxDepth })
	gauge("perdure.attempts.running", "{attempt}", "Attempts under way.", func(l *Levels) int64 { return l.RunningAttempts })
	gauge("perdure.outbox.unacknowledged", "{message}", "Messages to other partitions that were not acknowledged yet.", func(l *Levels) int64 { return l.OutboxMessages })
	gauge("perdure.transactions.live", "{transaction}", "Transactions over several objects under way, at their coordinators.", func(l *Levels) int64 { return l.Transactions })
	gauge("perdure.transactions.prepared", "{transaction}", "Transactions in doubt, at each participant that has promised to commit and has not heard the decision.", func(l *Levels) int64 { return l.PreparedTransactions })
	gauge("perdure.limit.held", "{permit}", "Permits of limits that are held.", func(l *Levels) int64 { return l.PermitsHeld })
	gauge("perdure.limit.waiting", "{invocation}", "Invocations that wait for a limit.", func(l *Levels) int64 { return l.LimitsWaiting })
	gauge("perdure.overlay.size", "By", "Mutations that are not in the store yet.", func(l *Levels) int64 { return l.OverlayBytes })
	gauge("perdure.backlog.size", "By", "Log records that are not in the store yet.", func(l *Levels) int64 { return l.BacklogBytes })
	gauge("perdure.log.size", "By", "Node log on disk.", func(l *Levels) int64 { return l.LogBytes })
	gauge("perdure.log.live.size", "By", "What of the node log is still needed.", func(l *Levels) int64 { return l.LogLiveBytes })
	gauge("perdure.log.segments", "{file}", "Files of the node log.", func(l *Levels) int64 { return l.LogSegments })
	counter("perdure.log.written", "By", "Bytes written to the node log.", func(l *Levels) int64 { return l.LogWrittenBytes })
	counter("perdure.log.syncs", "{sync}", "fdatasyncs of the node log.", func(l *Levels) int64 { return l.LogSyncs })
	gauge("perdure.store.size", "By", "Store on disk.", func(l *Levels) int64 { return l.StoreBytes })
	if err := errors.Join(problems...); err != nil {
		return nil, fmt.Errorf("telemetry: levels: %w", err)
	}
	registration, err := i.meter.RegisterCallback(func(ctx context.Context, observer metric.Observer) error {
		levels, ok := read(ctx)
		if !ok {
			return nil
		}
		for _, value := range values {
			value(observer, &levels)
		}
		return nil
	}, all...)
	if err != nil {
		return nil, fmt.Errorf("telemetry: levels: %w", err)
	}
	return registration.Unregister, nil
}
