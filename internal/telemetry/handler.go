package telemetry

import (
	"context"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"
)

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
	// OutcomeRetried: the attempt failed and is to be followed by another.
	OutcomeRetried
	// OutcomeSuspended: the attempt gave its goroutine back.
	OutcomeSuspended
	// OutcomeAborted: the attempt was stopped from outside: the invocation was killed, or this
	// node no longer leads the partition.
	OutcomeAborted

	outcomes
)

var outcomeNames = [outcomes]string{"succeeded", "failed", "unavailable", "abandoned", "retried", "suspended", "aborted"}

// String is the label's value.
func (o Outcome) String() string {
	if o < outcomes {
		return outcomeNames[o]
	}
	return "unknown"
}

// HandlerInstruments are the instruments of one handler, with their labels made once. Nil is
// off. Its methods are safe for concurrent use.
type HandlerInstruments struct {
	instruments *Instruments
	labels      []attribute.KeyValue
	started     metric.MeasurementOption
	outcomes    [outcomes]metric.MeasurementOption
	succeeded   metric.MeasurementOption // with the code, for the count of calls
}

// Handler returns the instruments of one handler; keep them, making them costs more than
// using them.
func (i *Instruments) Handler(service, handler string) *HandlerInstruments {
	if i == nil {
		return nil
	}
	labels := []attribute.KeyValue{attribute.String(KeyService, service), attribute.String(KeyHandler, handler)}
	h := &HandlerInstruments{instruments: i, labels: labels, started: metric.WithAttributeSet(attribute.NewSet(labels...))}
	for outcome := range outcomes {
		h.outcomes[outcome] = metric.WithAttributeSet(attribute.NewSet(
			labels[0], labels[1], attribute.String("outcome", outcome.String())))
	}
	h.succeeded = h.withCode(OutcomeSucceeded, "ok")
	return h
}

func (h *HandlerInstruments) withCode(outcome Outcome, code string) metric.MeasurementOption {
	return metric.WithAttributeSet(attribute.NewSet(h.labels[0], h.labels[1],
		attribute.String("outcome", outcome.String()), attribute.String(KeyCode, code)))
}

// Call counts a call that was answered at the edge. code is "ok" or that of the error. The
// durations are kept by outcome only: sixteen codes would be as many histograms a handler.
func (h *HandlerInstruments) Call(ctx context.Context, outcome Outcome, code string, took time.Duration) {
	if h == nil {
		return
	}
	labels := h.succeeded
	if outcome != OutcomeSucceeded {
		labels = h.withCode(outcome, code)
	}
	h.instruments.calls.Add(ctx, 1, labels)
	h.instruments.callDuration.Record(ctx, took.Seconds(), h.outcomes[outcome])
}

// AttemptStarted counts an attempt that begins.
func (h *HandlerInstruments) AttemptStarted() {
	if h != nil {
		h.instruments.attemptsStarted.Add(context.Background(), 1, h.started)
	}
}

// AttemptEnded counts an attempt that ended.
func (h *HandlerInstruments) AttemptEnded(outcome Outcome) {
	if h != nil {
		h.instruments.attemptsEnded.Add(context.Background(), 1, h.outcomes[outcome])
	}
}

var codeNames = [...]string{
	"ok", "canceled", "unknown", "invalid_argument", "deadline_exceeded", "not_found", "already_exists",
	"permission_denied", "resource_exhausted", "failed_precondition", "aborted", "out_of_range", "unimplemented",
	"internal", "unavailable", "data_loss", "unauthenticated",
}

// CodeName is a recorded code, whose numbers are those of gRPC, as metrics and spans have it.
func CodeName(code uint32) string {
	if int(code) < len(codeNames) {
		return codeNames[code]
	}
	return "unknown"
}
