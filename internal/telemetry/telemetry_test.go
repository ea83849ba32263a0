package telemetry_test

import (
	"context"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"go.opentelemetry.io/otel/sdk/trace/tracetest"

	sdktrace "go.opentelemetry.io/otel/sdk/trace"

	"github.com/perdure/perdure/internal/telemetry"
)

const parent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"

func TestValidateReportsAllProblems(t *testing.T) {
	err := telemetry.Config{TracesURL: "localhost:4318", MetricsURL: "ftp://x", SampleRatio: 2, MetricsInterval: -1}.Validate()
	if err == nil {
		t.Fatal("no error")
	}
	for _, want := range []string{`traces URL "localhost:4318"`, `metrics URL "ftp://x"`, "sample ratio 2", "interval -1ns"} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("%v does not say %q", err, want)
		}
	}
}

// TestOff: nil is a working Telemetry, Tracer and Instruments, and allocates nothing.
func TestOff(t *testing.T) {
	off, err := telemetry.Setup(t.Context(), telemetry.Config{})
	if err != nil || off != nil {
		t.Fatalf("got %v %v", off, err)
	}
	ctx := t.Context()
	handler := off.Instruments().Handler("s", "h")
	allocations := testing.AllocsPerRun(100, func() {
		_, span := off.Tracer().StartCall(ctx, telemetry.Call{Procedure: "s/h", Protocol: "connect", Traceparent: parent})
		span.SetInvocation("id", "key")
		handler.Call(ctx, telemetry.OutcomeSucceeded, time.Millisecond)
		handler.Attempt(ctx, telemetry.OutcomeRetried)
		off.Instruments().Entries(ctx, 1)
		off.Instruments().Batch(ctx, 1)
		off.Instruments().Sync(ctx, time.Millisecond)
		off.Instruments().Commit(ctx, time.Millisecond)
		if span.Traceparent() != parent {
			t.Error("the caller's trace is lost")
		}
		span.End("ok", "")
	})
	if allocations != 0 {
		t.Errorf("%v allocations", allocations)
	}
	if off.Handler() != nil || off.TracerProvider() != nil || off.Shutdown(ctx) != nil {
		t.Error("off is not off")
	}
	stop, err := off.Instruments().Observe(telemetry.Levels{})
	if err != nil || stop() != nil {
		t.Error(err)
	}
}

func TestSpans(t *testing.T) {
	recorder := tracetest.NewSpanRecorder()
	tracer := telemetry.NewTracer(sdktrace.NewTracerProvider(sdktrace.WithSpanProcessor(recorder)))
	ctx, call := tracer.StartCall(t.Context(), telemetry.Call{Procedure: "bank.v1.AccountService/Deposit", Protocol: "grpcweb", Traceparent: parent})
	call.SetInvocation("inv_1", "alice")
	if got := telemetry.Traceparent(ctx); got != call.Traceparent() || !strings.HasPrefix(got, "00-0af7651916cd43dd8448eb211c80319c-") || got == parent {
		t.Errorf("traceparent is %q, of the span %q", got, call.Traceparent())
	}
	_, attempt := tracer.StartAttempt(t.Context(), telemetry.Attempt{Procedure: "bank.v1.AccountService/Deposit", Number: 2, Traceparent: call.Traceparent()})
	attempt.End("ok", "")
	call.End("failed_precondition", "only 0")
	spans := recorder.Ended()
	if len(spans) != 2 {
		t.Fatalf("%d spans", len(spans))
	}
	if spans[0].Parent().SpanID() != spans[1].SpanContext().SpanID() || spans[0].SpanContext().TraceID() != spans[1].SpanContext().TraceID() {
		t.Error("the attempt does not continue the call")
	}
	attributes := map[string]string{}
	for _, attribute := range spans[1].Attributes() {
		attributes[string(attribute.Key)] = attribute.Value.Emit()
	}
	for key, want := range map[string]string{
		"rpc.system.name": "grpc", "rpc.method": "bank.v1.AccountService/Deposit",
		"rpc.response.status_code": "failed_precondition", "perdure.invocation_id": "inv_1",
	} {
		if attributes[key] != want {
			t.Errorf("%s is %q, want %q", key, attributes[key], want)
		}
	}
	if spans[1].Name() != "bank.v1.AccountService/Deposit" {
		t.Errorf("name is %s", spans[1].Name())
	}
}

// TestExport: OTLP goes to the collector's usual paths, and Prometheus reads the same numbers.
func TestExport(t *testing.T) {
	var mu sync.Mutex
	paths := map[string]int{}
	collector := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			t.Error(err)
		}
		mu.Lock()
		defer mu.Unlock()
		paths[r.URL.Path] += len(body)
	}))
	defer collector.Close()
	on, err := telemetry.Setup(t.Context(), telemetry.Config{TracesURL: collector.URL, MetricsURL: collector.URL + "/", Prometheus: true, NodeID: "n1"})
	if err != nil {
		t.Fatal(err)
	}
	_, span := on.Tracer().StartCall(t.Context(), telemetry.Call{Procedure: "s/h", Protocol: "connect"})
	span.End("ok", "")
	on.Instruments().Handler("bank.v1.AccountService", "Deposit").Call(t.Context(), telemetry.OutcomeFailed, time.Millisecond)
	on.Instruments().Sync(t.Context(), 300*time.Microsecond)
	stop, err := on.Instruments().Observe(telemetry.Levels{InboxDepth: func() int64 { return 42 }})
	if err != nil {
		t.Fatal(err)
	}
	scrape := httptest.NewRecorder()
	on.Handler().ServeHTTP(scrape, httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/metrics", nil))
	for _, want := range []string{
		`perdure_calls_total{handler="Deposit"`, `outcome="failed"`, `service="bank.v1.AccountService"`,
		"perdure_log_sync_duration_seconds_bucket", "perdure_inbox_depth{", "} 42", `service_instance_id="n1"`,
	} {
		if !strings.Contains(scrape.Body.String(), want) {
			t.Errorf("%q is not in\n%s", want, scrape.Body)
		}
	}
	if strings.Contains(scrape.Body.String(), "perdure_timers") {
		t.Error("a level that is not known is exported")
	}
	if err := stop(); err != nil {
		t.Error(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	if err := on.Shutdown(ctx); err != nil {
		t.Fatal(err)
	}
	mu.Lock()
	defer mu.Unlock()
	if paths["/v1/traces"] == 0 || paths["/v1/metrics"] == 0 {
		t.Errorf("the collector got %v", paths)
	}
}

// TestCollectorDown: the node goes on and says it once.
func TestCollectorDown(t *testing.T) {
	collector := httptest.NewServer(http.NotFoundHandler())
	url := collector.URL
	collector.Close()
	var log strings.Builder
	on, err := telemetry.Setup(t.Context(), telemetry.Config{MetricsURL: url, MetricsInterval: time.Hour, Logger: slog.New(slog.NewTextHandler(&log, nil))})
	if err != nil {
		t.Fatal(err)
	}
	on.Instruments().Sync(t.Context(), time.Millisecond)
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
	defer cancel()
	if err := on.Shutdown(ctx); err != nil {
		t.Errorf("shutdown: %v", err)
	}
	if got := strings.Count(log.String(), "metrics cannot be exported"); got != 1 {
		t.Errorf("log: %s", log.String())
	}
}
