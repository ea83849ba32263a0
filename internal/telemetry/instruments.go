package telemetry

import (
	"context"
	"errors"
	"fmt"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"
)

// Instruments are the metrics of a node. Nil is off. Its methods are safe for concurrent use.
type Instruments struct {
	meter metric.Meter

	calls        metric.Int64Counter
	callDuration metric.Float64Histogram
	attempts     metric.Int64Counter
	entries      metric.Int64Counter
	batches      metric.Int64Counter
	batchRecords metric.Int64Histogram
	syncs        metric.Float64Histogram
	commits      metric.Float64Histogram
}

// Buckets in seconds: a call in memory takes 20 µs, a sync on a laptop 100 µs, on a bad disk
// 100 ms; OpenTelemetry's own start at 5 ms.
var latencyBuckets = []float64{.00005, .0001, .00025, .0005, .001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 60}

// NewInstruments makes the instruments of provider.
func NewInstruments(provider metric.MeterProvider) (*Instruments, error) {
	meter := provider.Meter(scopeName)
	i := &Instruments{meter: meter}
	var problems []error
	counter := func(target *metric.Int64Counter, name, unit, about string) {
		made, err := meter.Int64Counter(name, metric.WithUnit(unit), metric.WithDescription(about))
		problems = append(problems, err)
		*target = made
	}
	seconds := func(target *metric.Float64Histogram, name, about string) {
		made, err := meter.Float64Histogram(name, metric.WithUnit("s"), metric.WithDescription(about),
			metric.WithExplicitBucketBoundaries(latencyBuckets...))
		problems = append(problems, err)
		*target = made
	}
	counter(&i.calls, "perdure.calls", "{call}", "Calls answered at the edge.")
	seconds(&i.callDuration, "perdure.call.duration", "Time from a decoded call to its answer.")
	counter(&i.attempts, "perdure.attempts", "{attempt}", "Tries at running a handler.")
	counter(&i.entries, "perdure.journal.entries", "{entry}", "Journal entries recorded.")
	counter(&i.batches, "perdure.batches", "{batch}", "Batches of mutations proposed to the log.")
	records, err := meter.Int64Histogram("perdure.batch.events", metric.WithUnit("{event}"),
		metric.WithDescription("Events evaluated in one batch."),
		metric.WithExplicitBucketBoundaries(1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024))
	problems = append(problems, err)
	i.batchRecords = records
	seconds(&i.syncs, "perdure.log.sync.duration", "Time of one append and fdatasync of the node log.")
	seconds(&i.commits, "perdure.store.commit.duration", "Time of one commit of the store.")
	if err := errors.Join(problems...); err != nil {
		return nil, fmt.Errorf("telemetry: instruments: %w", err)
	}
	return i, nil
}

// Outcome is how a call or an attempt ended, as a metric's label.
type Outcome uint8

// The outcomes.
const (
	// OutcomeSucceeded: the handler's response.
	OutcomeSucceeded Outcome = iota
	// OutcomeFailed: the handler's error, or a bad request.
	OutcomeFailed
	// OutcomeUnavailable: this node could not serve it.
	OutcomeUnavailable
	// OutcomeAbandoned: the caller went away or ran out of time.
	OutcomeAbandoned
	// OutcomeRetried: the attempt is to be followed by another.
	OutcomeRetried
	// OutcomeSuspended: the attempt gave its goroutine back.
	OutcomeSuspended

	outcomes
)

var outcomeNames = [outcomes]string{"succeeded", "failed", "unavailable", "abandoned", "retried", "suspended"}

// String is the label's value.
func (o Outcome) String() string {
	if o < outcomes {
		return outcomeNames[o]
	}
	return "unknown"
}

// HandlerInstruments are the instruments of one handler, with their labels made once. Nil is
// off.
type HandlerInstruments struct {
	instruments *Instruments
	labels      [outcomes]metric.MeasurementOption
}

// Handler returns the instruments of one handler; keep them, making them costs more than
// using them.
func (i *Instruments) Handler(service, handler string) *HandlerInstruments {
	if i == nil {
		return nil
	}
	h := &HandlerInstruments{instruments: i}
	for outcome := range outcomes {
		h.labels[outcome] = metric.WithAttributeSet(attribute.NewSet(
			attribute.String("service", service), attribute.String("handler", handler),
			attribute.String("outcome", outcome.String())))
	}
	return h
}

// Call counts a call that arrived at the edge.
func (h *HandlerInstruments) Call(ctx context.Context, outcome Outcome, took time.Duration) {
	if h == nil {
		return
	}
	h.instruments.calls.Add(ctx, 1, h.labels[outcome])
	h.instruments.callDuration.Record(ctx, took.Seconds(), h.labels[outcome])
}

// Attempt counts an attempt that ended.
func (h *HandlerInstruments) Attempt(ctx context.Context, outcome Outcome) {
	if h == nil {
		return
	}
	h.instruments.attempts.Add(ctx, 1, h.labels[outcome])
}

// Entries counts journal entries.
func (i *Instruments) Entries(ctx context.Context, count int) {
	if i != nil {
		i.entries.Add(ctx, int64(count))
	}
}

// Batch counts one batch proposed to the log, of that many events.
func (i *Instruments) Batch(ctx context.Context, events int) {
	if i != nil {
		i.batches.Add(ctx, 1)
		i.batchRecords.Record(ctx, int64(events))
	}
}

// Sync records one append and sync of the node log.
func (i *Instruments) Sync(ctx context.Context, took time.Duration) {
	if i != nil {
		i.syncs.Record(ctx, took.Seconds())
	}
}

// Commit records one commit of the store.
func (i *Instruments) Commit(ctx context.Context, took time.Duration) {
	if i != nil {
		i.commits.Record(ctx, took.Seconds())
	}
}

// Levels are what a node holds at one moment, all partitions together. A nil one is not known,
// and then not exported. They must be fast and safe for concurrent use.
type Levels struct {
	// InboxDepth is the number of invocations queued.
	InboxDepth func() int64
	// Running is the number of attempts under way.
	Running func() int64
	// OverlayBytes not yet in the store.
	OverlayBytes func() int64
	// Timers that wait.
	Timers func() int64
	// LogBytes of the node log on disk.
	LogBytes func() int64
	// StoreBytes of the store on disk.
	StoreBytes func() int64
}

// Observe has the levels read for every export until stop is called.
func (i *Instruments) Observe(levels Levels) (stop func() error, err error) {
	if i == nil {
		return func() error { return nil }, nil
	}
	var problems []error
	var gauges []metric.Observable
	var reads []func(metric.Observer)
	gauge := func(read func() int64, name, unit, about string) {
		if read == nil {
			return
		}
		made, err := i.meter.Int64ObservableGauge(name, metric.WithUnit(unit), metric.WithDescription(about))
		problems = append(problems, err)
		gauges = append(gauges, made)
		reads = append(reads, func(observer metric.Observer) { observer.ObserveInt64(made, read()) })
	}
	gauge(levels.InboxDepth, "perdure.inbox.depth", "{invocation}", "Invocations queued behind another of their key.")
	gauge(levels.Running, "perdure.attempts.running", "{attempt}", "Attempts under way.")
	gauge(levels.OverlayBytes, "perdure.overlay.size", "By", "Mutations that are not in the store yet.")
	gauge(levels.Timers, "perdure.timers", "{timer}", "Timers that wait.")
	gauge(levels.LogBytes, "perdure.log.size", "By", "Node log on disk.")
	gauge(levels.StoreBytes, "perdure.store.size", "By", "Store on disk.")
	if err := errors.Join(problems...); err != nil {
		return nil, fmt.Errorf("telemetry: gauges: %w", err)
	}
	registration, err := i.meter.RegisterCallback(func(_ context.Context, observer metric.Observer) error {
		for _, read := range reads {
			read(observer)
		}
		return nil
	}, gauges...)
	if err != nil {
		return nil, fmt.Errorf("telemetry: gauges: %w", err)
	}
	return registration.Unregister, nil
}
