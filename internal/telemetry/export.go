package telemetry

import (
	"context"
	"log/slog"
	"sync/atomic"
	"time"

	sdkmetric "go.opentelemetry.io/otel/sdk/metric"
	"go.opentelemetry.io/otel/sdk/metric/metricdata"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
)

// complaint logs failed exports, one a minute: a collector that is down fails every few
// seconds. OpenTelemetry would give them to a handler that is global to the process, which
// belongs to the program that embeds the node.
type complaint struct {
	log  *slog.Logger
	what string
	next atomic.Int64
}

func (c *complaint) hear(err error) {
	if err == nil {
		return
	}
	now := time.Now().UnixNano()
	next := c.next.Load()
	if now < next || !c.next.CompareAndSwap(next, now+int64(time.Minute)) {
		return
	}
	c.log.Warn(c.what+" cannot be exported", KeyError, err)
}

type heardSpans struct {
	sdktrace.SpanExporter
	complaint complaint
}

// ExportSpans implements sdktrace.SpanExporter.
func (e *heardSpans) ExportSpans(ctx context.Context, spans []sdktrace.ReadOnlySpan) error {
	e.complaint.hear(e.SpanExporter.ExportSpans(ctx, spans))
	return nil
}

type heardMetrics struct {
	sdkmetric.Exporter
	complaint complaint
}

// Export implements sdkmetric.Exporter.
func (e *heardMetrics) Export(ctx context.Context, metrics *metricdata.ResourceMetrics) error {
	e.complaint.hear(e.Exporter.Export(ctx, metrics))
	return nil
}
