package cluster_test

import (
	"slices"
	"strings"
	"testing"

	sdkmetric "go.opentelemetry.io/otel/sdk/metric"
	"go.opentelemetry.io/otel/sdk/metric/metricdata"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"

	"github.com/perdure/perdure/cluster"
	bankv1 "github.com/perdure/perdure/examples/bank/gen/bank/v1"
	bank "github.com/perdure/perdure/examples/bank/gen/bank/v1/bankv1perdure"
)

// TestProvidersOfTheProgram: spans and metrics go where the embedding program sends its own, and
// the node leaves the providers open.
func TestProvidersOfTheProgram(t *testing.T) {
	countsAttempts(t)
	recorder, reader := tracetest.NewSpanRecorder(), sdkmetric.NewManualReader()
	traces := sdktrace.NewTracerProvider(sdktrace.WithSpanProcessor(recorder))
	node := newNode(t, t.TempDir(), cluster.WithTelemetry(cluster.Telemetry{
		TracerProvider: traces, MeterProvider: sdkmetric.NewMeterProvider(sdkmetric.WithReader(reader)),
	}))
	startNode(t, node)
	ctx, outer := traces.Tracer("program").Start(t.Context(), "request")
	if _, err := bank.Account(node.Client(), "alice").Deposit(ctx, &bankv1.DepositRequest{Amount: 5}); err != nil {
		t.Fatal(err)
	}
	var collected metricdata.ResourceMetrics
	if err := reader.Collect(t.Context(), &collected); err != nil {
		t.Fatal(err)
	}
	stopNode(t, node)
	outer.End() // is recorded only if nobody shut the provider down

	parents, names := map[string]bool{}, []string{}
	for _, span := range recorder.Ended() {
		if span.SpanContext().TraceID() != outer.SpanContext().TraceID() {
			t.Errorf("%s is in another trace", span.Name())
		}
		parents[span.SpanContext().SpanID().String()] = true
		names = append(names, span.Name())
	}
	for _, span := range recorder.Ended() {
		if id := span.Parent().SpanID(); id.IsValid() && !parents[id.String()] {
			t.Errorf("%s has a parent that nobody exports", span.Name())
		}
	}
	slices.Sort(names)
	if got, want := strings.Join(names, ", "), "attempt bank.v1.AccountService/Deposit, bank.v1.AccountService/Deposit, invocation bank.v1.AccountService/Deposit, request"; got != want {
		t.Errorf("got %s\nwant %s", got, want)
	}
	calls := false
	for _, scope := range collected.ScopeMetrics {
		for _, metric := range scope.Metrics {
			calls = calls || metric.Name == "perdure.calls"
		}
	}
	if !calls {
		t.Error("there is no metric of calls")
	}
}

func TestProvidersOrExporters(t *testing.T) {
	err := cluster.Config{Telemetry: cluster.Telemetry{
		TracerProvider: sdktrace.NewTracerProvider(), MeterProvider: sdkmetric.NewMeterProvider(),
		TracesURL: "http://localhost:4318", Prometheus: true,
	}}.Validate()
	if err == nil || !strings.Contains(err.Error(), "leave traces URL") || !strings.Contains(err.Error(), "leave metrics URL") {
		t.Errorf("got %v", err)
	}
}
