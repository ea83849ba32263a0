package ingress_test

import (
	"context"
	"strings"
	"testing"

	sdkmetric "go.opentelemetry.io/otel/sdk/metric"
	"go.opentelemetry.io/otel/sdk/metric/metricdata"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"

	"github.com/perdure/perdure/internal/ingress"
	recordv1 "github.com/perdure/perdure/internal/record/v1"
	"github.com/perdure/perdure/internal/telemetry"
)

// TestTelemetry: one span a call, which the invocation continues, and one count by outcome.
func TestTelemetry(t *testing.T) {
	spans := tracetest.NewSpanRecorder()
	reader := sdkmetric.NewManualReader()
	instruments, err := telemetry.NewInstruments(sdkmetric.NewMeterProvider(sdkmetric.WithReader(reader)))
	if err != nil {
		t.Fatal(err)
	}
	f := start(t, func(c *ingress.Config) {
		c.Tracer = telemetry.NewTracer(sdktrace.NewTracerProvider(sdktrace.WithSpanProcessor(spans)))
		c.Instruments = instruments
	})
	f.post(t, deposit, `{"accountId":"alice"}`, "Traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01")
	f.post(t, "/bank.v1.AccountService/Withdraw", `{"accountId":"alice"}`)
	f.post(t, deposit, `{"accountId":""}`)
	f.router.Fail = func(context.Context, *recordv1.Invoke) error { return context.Canceled }
	f.post(t, deposit, `{"accountId":"alice"}`)

	ended := spans.Ended()
	if len(ended) != 4 {
		t.Fatalf("%d spans", len(ended))
	}
	first := ended[0]
	if first.Name() != "bank.v1.AccountService/Deposit" || first.Parent().SpanID().String() != "b7ad6b7169203331" {
		t.Errorf("span %s, parent %s", first.Name(), first.Parent().SpanID())
	}
	want := "00-0af7651916cd43dd8448eb211c80319c-" + first.SpanContext().SpanID().String() + "-01"
	if got := f.router.Calls()[0].Traceparent; got != want {
		t.Errorf("the invocation continues %s, want %s", got, want)
	}

	var metrics metricdata.ResourceMetrics
	if err := reader.Collect(t.Context(), &metrics); err != nil {
		t.Fatal(err)
	}
	counts := map[string]int64{}
	for _, metric := range metrics.ScopeMetrics[0].Metrics {
		sum, ok := metric.Data.(metricdata.Sum[int64])
		if metric.Name != "perdure.calls" || !ok {
			continue
		}
		for _, point := range sum.DataPoints {
			var labels []string
			for _, attribute := range point.Attributes.ToSlice() {
				labels = append(labels, attribute.Value.Emit())
			}
			counts[strings.Join(labels, " ")] = point.Value
		}
	}
	for labels, want := range map[string]int64{
		"ok Deposit succeeded bank.v1.AccountService": 1, "invalid_argument Deposit failed bank.v1.AccountService": 1,
		"canceled Deposit abandoned bank.v1.AccountService": 1, "failed_precondition Withdraw failed bank.v1.AccountService": 1,
	} {
		if counts[labels] != want {
			t.Errorf("%s: %d, want %d (%v)", labels, counts[labels], want, counts)
		}
	}
}
