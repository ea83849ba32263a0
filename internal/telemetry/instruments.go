package telemetry

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"
)

// Instruments are the metrics of a node. Nil is off. Its methods are safe for concurrent use.
type Instruments struct {
	meter metric.Meter

	calls            metric.Int64Counter
	callDuration     metric.Float64Histogram
	attemptsStarted  metric.Int64Counter
	attemptsEnded    metric.Int64Counter
	recordEvents     metric.Int64Histogram
	appends          metric.Float64Histogram
	commits          metric.Float64Histogram
	timerLateness    metric.Float64Histogram
	scheduleLateness metric.Float64Histogram
	transactions     metric.Float64Histogram
	limitWaits       metric.Float64Histogram
	limitRefusals    metric.Int64Counter
	// How a transaction ended, as a label.
	committed, rolledBack metric.MeasurementOption
	// What became of a schedule's due time, as a label.
	fired, skipped, missed metric.MeasurementOption

	mu struct {
		sync.Mutex
		partitions []*Partition
	}
}

// Buckets in seconds: a call in memory takes 20 µs, a sync on a laptop 100 µs, on a bad disk
// 100 ms; OpenTelemetry's own start at 5 ms. They are explicit because an exponential histogram
// shows nothing but +Inf in Prometheus' text format.
var latencyBuckets = []float64{.00005, .0001, .00025, .0005, .001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 60}

// A timer is late by up to a millisecond on an idle node and by hours after an outage.
var latenessBuckets = []float64{.001, .005, .01, .05, .1, .5, 1, 5, 10, 60, 600, 3600}

// A transaction takes two durable rounds at least, and ends after 30 s unless its handler is given
// longer.
var transactionBuckets = []float64{.001, .0025, .005, .01, .025, .05, .1, .25, 1, 5, 30}

// NewInstruments makes the instruments of provider.
func NewInstruments(provider metric.MeterProvider) (*Instruments, error) {
	meter := provider.Meter(scopeName)
	outcome := func(value string) metric.MeasurementOption {
		return metric.WithAttributeSet(attribute.NewSet(attribute.String("outcome", value)))
	}
	i := &Instruments{meter: meter, committed: outcome("committed"), rolledBack: outcome("rolled_back"),
		fired: outcome("fired"), skipped: outcome("skipped"), missed: outcome("missed")}
	var problems []error
	counter := func(target *metric.Int64Counter, name, unit, about string) {
		made, err := meter.Int64Counter(name, metric.WithUnit(unit), metric.WithDescription(about))
		problems = append(problems, err)
		*target = made
	}
	seconds := func(target *metric.Float64Histogram, name, about string, buckets []float64) {
		made, err := meter.Float64Histogram(name, metric.WithUnit("s"), metric.WithDescription(about),
			metric.WithExplicitBucketBoundaries(buckets...))
		problems = append(problems, err)
		*target = made
	}
	counter(&i.calls, "perdure.calls", "{call}", "Calls answered at the edge.")
	seconds(&i.callDuration, "perdure.call.duration", "Time from a decoded call to its answer.", latencyBuckets)
	counter(&i.attemptsStarted, "perdure.attempts.started", "{attempt}", "Tries at running a handler that began.")
	counter(&i.attemptsEnded, "perdure.attempts.ended", "{attempt}", "Tries at running a handler that ended.")
	counter(&i.limitRefusals, "perdure.limit.refusals", "{invocation}", "Invocations refused because too many waited for a limit.")
	seconds(&i.limitWaits, "perdure.limit.wait", "Time from asking for a permit or token of a limit to getting it.", waitBuckets)
	events, err := meter.Int64Histogram("perdure.record.events", metric.WithUnit("{event}"),
		metric.WithDescription("Events whose writes share one log record."),
		metric.WithExplicitBucketBoundaries(1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024))
	problems = append(problems, err)
	i.recordEvents = events
	seconds(&i.appends, "perdure.log.append.duration", "Time of one append to the node log, its fdatasync included.", latencyBuckets)
	seconds(&i.commits, "perdure.store.commit.duration", "Time of one commit of the store.", latencyBuckets)
	seconds(&i.scheduleLateness, "perdure.schedule.lateness", "Time from a schedule's due time to its firing.", latenessBuckets)
	seconds(&i.timerLateness, "perdure.timer.lateness", "Time from when a timer was due to when it fired.", latenessBuckets)
	seconds(&i.transactions, "perdure.transaction.duration", "Time from a transaction's first call of another object to its decision, over all its tries.", transactionBuckets)
	if err := errors.Join(append(problems, i.observeCounts(), i.observeRuntime())...); err != nil {
		return nil, fmt.Errorf("telemetry: instruments: %w", err)
	}
	return i, nil
}

// Append records one append to the node log that took so long, the sync included.
func (i *Instruments) Append(took time.Duration) {
	if i != nil {
		i.appends.Record(context.Background(), took.Seconds())
	}
}

// Commit records one commit of the store.
func (i *Instruments) Commit(took time.Duration) {
	if i != nil {
		i.commits.Record(context.Background(), took.Seconds())
	}
}
