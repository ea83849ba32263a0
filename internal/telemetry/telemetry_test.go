package telemetry_test

import (
	"bytes"
	"context"
	"encoding/hex"
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
	tracev1 "go.opentelemetry.io/proto/otlp/trace/v1"
	"google.golang.org/protobuf/proto"

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
	handler, partition := off.Instruments().Handler("s", "h"), off.Instruments().Partition()
	allocations := testing.AllocsPerRun(100, func() {
		_, span := off.Tracer().StartCall(ctx, telemetry.Call{Procedure: "s/h", Protocol: "connect", Traceparent: parent})
		span.SetInvocation("id", "key")
		handler.Call(ctx, telemetry.OutcomeSucceeded, "ok", time.Millisecond)
		handler.AttemptStarted()
		handler.AttemptEnded(telemetry.OutcomeRetried)
		partition.Handler("s", "h").AttemptStarted()
		partition.Entry(telemetry.EntryCall)
		partition.Record(3, 100)
		partition.TimerFired(time.Millisecond)
		partition.ScheduleMoved(1, 2, 3)
		partition.ScheduleFired(time.Millisecond)
		partition.MessageSent(false)
		partition.MessageReceived(true)
		partition.Leading()
		partition.TransactionEnded(true, time.Millisecond)
		partition.TransactionRetried(telemetry.RetryWound)
		off.Instruments().Append(time.Millisecond)
		off.Instruments().Commit(time.Millisecond)
		off.Tracer().RecordInvocation(telemetry.Invocation{ID: "inv_1", Traceparent: parent})
		if off.Tracer().InvocationTraceparent("inv_1", parent) != parent {
			t.Error("the invocation's trace is lost")
		}
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
	stop, err := off.Instruments().Observe(nil)
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
	on, err := telemetry.Setup(t.Context(), telemetry.Config{TracesURL: collector.URL, MetricsURL: collector.URL + "/", Prometheus: true, NodeID: "n1", ServiceVersion: "v9"})
	if err != nil {
		t.Fatal(err)
	}
	_, span := on.Tracer().StartCall(t.Context(), telemetry.Call{Procedure: "s/h", Protocol: "connect"})
	span.End("ok", "")
	on.Instruments().Handler("bank.v1.AccountService", "Deposit").Call(t.Context(), telemetry.OutcomeFailed, "failed_precondition", time.Millisecond)
	on.Instruments().Append(300 * time.Microsecond)
	partition := on.Instruments().Partition()
	partition.Entry(telemetry.EntryRun)
	on.Instruments().Partition().Entry(telemetry.EntryRun)
	partition.Record(5, 1000)
	partition.TimerFired(30 * time.Millisecond)
	partition.ScheduleMoved(1, 2, 3)
	on.Instruments().Partition().ScheduleMoved(4, 0, 0)
	partition.ScheduleFired(700 * time.Millisecond)
	partition.TransactionEnded(true, 4*time.Millisecond)
	on.Instruments().Partition().TransactionEnded(true, 8*time.Millisecond)
	partition.TransactionEnded(false, 2*time.Second)
	partition.TransactionRetried(telemetry.RetryBlocked)
	partition.TransactionRetried(telemetry.RetryReason(99))
	known := true
	stop, err := on.Instruments().Observe(func(context.Context) (telemetry.Levels, bool) {
		return telemetry.Levels{InboxDepth: 42, StoreBytes: -1, Transactions: 7, PreparedTransactions: 3}, known
	})
	if err != nil {
		t.Fatal(err)
	}
	get := func() string {
		scrape := httptest.NewRecorder()
		on.Handler().ServeHTTP(scrape, httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/metrics", nil))
		return scrape.Body.String()
	}
	scrape := get()
	for _, want := range []string{
		`perdure_calls_total{code="failed_precondition",handler="Deposit",outcome="failed",service="bank.v1.AccountService"} 1`,
		`perdure_call_duration_seconds_bucket{handler="Deposit",outcome="failed",service="bank.v1.AccountService",le="0.001"} 1`,
		`perdure_log_append_duration_seconds_bucket{le="0.0005"} 1`, `perdure_journal_entries_total{kind="run"} 2`,
		"perdure_records_total 1\n", "perdure_records_size_bytes_total 1000\n", "perdure_record_events_sum 5\n",
		`perdure_timer_lateness_seconds_bucket{le="0.05"} 1`, "perdure_timers_fired_total 1\n", "perdure_inbox_depth 42\n",
		`perdure_schedule_firings_total{outcome="fired"} 5`, `perdure_schedule_firings_total{outcome="skipped"} 2`, `perdure_schedule_firings_total{outcome="missed"} 3`,
		`perdure_schedule_lateness_seconds_bucket{le="1"} 1`, `perdure_schedule_lateness_seconds_bucket{le="0.5"} 0`,
		`perdure_transactions_total{outcome="committed"} 2`, `perdure_transactions_total{outcome="rolled_back"} 1`,
		`perdure_transaction_duration_seconds_bucket{outcome="committed",le="0.005"} 1`, `perdure_transaction_duration_seconds_sum{outcome="rolled_back"} 2`,
		`perdure_transaction_retries_total{reason="blocked"} 1`, `perdure_transaction_retries_total{reason="other"} 1`, `perdure_transaction_retries_total{reason="wound"} 0`,
		"perdure_transactions_live 7\n", "perdure_transactions_prepared 3\n",
		`service_instance_id="n1"`, `perdure_build_info{go_version="go`, `version="v9"} 1`, "go_goroutine_count ",
	} {
		if !strings.Contains(scrape, want) {
			t.Errorf("%q is not in\n%s", want, scrape)
		}
	}
	if strings.Contains(scrape, "perdure_store_size") {
		t.Error("a level that is not known is exported")
	}
	if known = false; strings.Contains(get(), "perdure_inbox_depth") {
		t.Error("levels that are not known are exported")
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
	on.Instruments().Append(time.Millisecond)
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
	defer cancel()
	if err := on.Shutdown(ctx); err != nil {
		t.Errorf("shutdown: %v", err)
	}
	if got := strings.Count(log.String(), "metrics cannot be exported"); got != 1 {
		t.Errorf("log: %s", log.String())
	}
}

// TestInvocationSpan: attempts continue the span of their invocation, which is exported after
// them, and an id that follows from the invocation's makes them meet.
func TestInvocationSpan(t *testing.T) {
	var mu sync.Mutex
	var exported bytes.Buffer
	collector := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		mu.Lock()
		defer mu.Unlock()
		if _, err := exported.ReadFrom(r.Body); err != nil {
			t.Error(err)
		}
	}))
	defer collector.Close()
	on, err := telemetry.Setup(t.Context(), telemetry.Config{TracesURL: collector.URL})
	if err != nil {
		t.Fatal(err)
	}
	continued := on.Tracer().InvocationTraceparent("inv_1", parent)
	if continued == parent || continued != on.Tracer().InvocationTraceparent("inv_1", parent) ||
		continued == on.Tracer().InvocationTraceparent("inv_2", parent) || continued[:36] != parent[:36] || continued[52:] != parent[52:] {
		t.Fatalf("attempts continue %s", continued)
	}
	if got := on.Tracer().InvocationTraceparent("inv_1", ""); got != "" {
		t.Errorf("without a trace: %q", got)
	}
	on.Tracer().RecordInvocation(telemetry.Invocation{
		Procedure: "s/h", ID: "inv_1", Traceparent: parent, CreatedAt: time.UnixMilli(1000), CompletedAt: time.UnixMilli(3500), Code: "ok",
	})
	on.Tracer().RecordInvocation(telemetry.Invocation{ID: "inv_1", Traceparent: "nonsense", Code: "ok"})
	if err := on.Shutdown(t.Context()); err != nil {
		t.Fatal(err)
	}
	mu.Lock()
	defer mu.Unlock()
	var sent tracev1.TracesData
	if err := proto.Unmarshal(exported.Bytes(), &sent); err != nil {
		t.Fatal(err)
	}
	if len(sent.ResourceSpans) != 1 || len(sent.ResourceSpans[0].ScopeSpans) != 1 || len(sent.ResourceSpans[0].ScopeSpans[0].Spans) != 1 {
		t.Fatalf("exported %v", &sent)
	}
	span := sent.ResourceSpans[0].ScopeSpans[0].Spans[0]
	if got := "00-" + hex.EncodeToString(span.TraceId) + "-" + hex.EncodeToString(span.SpanId) + "-01"; got != continued {
		t.Errorf("the span is %s, its attempts continue %s", got, continued)
	}
	if hex.EncodeToString(span.ParentSpanId) != parent[36:52] || span.EndTimeUnixNano-span.StartTimeUnixNano != uint64(2500*time.Millisecond) {
		t.Errorf("span %v", span)
	}
}
