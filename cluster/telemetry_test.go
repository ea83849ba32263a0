package cluster_test

import (
	"bytes"
	"encoding/hex"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"

	tracev1 "go.opentelemetry.io/proto/otlp/trace/v1"
	"google.golang.org/protobuf/proto"

	"github.com/perdure/perdure/actor"
	"github.com/perdure/perdure/cluster"
	bankv1 "github.com/perdure/perdure/examples/bank/gen/bank/v1"
	bank "github.com/perdure/perdure/examples/bank/gen/bank/v1/bankv1perdure"
)

// collector is an OTLP collector that keeps the spans it is sent.
type collector struct {
	*httptest.Server
	mu struct {
		sync.Mutex
		spans []*tracev1.Span
	}
}

func newCollector(t *testing.T) *collector {
	c := &collector{}
	c.Server = httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		var sent tracev1.TracesData // has the fields of an export request
		if err == nil {
			err = proto.Unmarshal(body, &sent)
		}
		if err != nil {
			t.Error(err)
		}
		c.mu.Lock()
		defer c.mu.Unlock()
		for _, resource := range sent.ResourceSpans {
			for _, scope := range resource.ScopeSpans {
				c.mu.spans = append(c.mu.spans, scope.Spans...)
			}
		}
	}))
	t.Cleanup(c.Close)
	return c
}

// tree prints the spans of a trace as an indented tree below a parent, children by start.
func (c *collector) tree(t *testing.T, traceID, parent string) string {
	t.Helper()
	c.mu.Lock()
	defer c.mu.Unlock()
	children := map[string][]*tracev1.Span{}
	seen := map[string]bool{}
	for _, span := range c.mu.spans {
		if hex.EncodeToString(span.TraceId) != traceID {
			t.Errorf("span %s is in trace %x, want %s", span.Name, span.TraceId, traceID)
		}
		if id := hex.EncodeToString(span.SpanId); seen[id] {
			t.Errorf("span %s: id %s was exported twice", span.Name, id)
		} else {
			seen[id] = true
		}
		of := hex.EncodeToString(span.ParentSpanId)
		children[of] = append(children[of], span)
	}
	printed := 0
	var out strings.Builder
	var visit func(parent, indent string)
	visit = func(parent, indent string) {
		slices.SortStableFunc(children[parent], func(a, b *tracev1.Span) int {
			return int(int64(a.StartTimeUnixNano) - int64(b.StartTimeUnixNano))
		})
		for _, span := range children[parent] {
			printed++
			fmt.Fprintf(&out, "%s%s\n", indent, span.Name)
			visit(hex.EncodeToString(span.SpanId), indent+"  ")
		}
	}
	visit(parent, "")
	if printed != len(c.mu.spans) {
		t.Errorf("%d of %d spans hang in the tree", printed, len(c.mu.spans))
	}
	return out.String()
}

type transfers struct{ fail func(actor.Context) error }

func (h transfers) Transfer(ctx actor.Context, req *bankv1.TransferRequest) (*bankv1.TransferResponse, error) {
	from, to := bank.Account(ctx, req.From), bank.Account(ctx, req.To)
	if _, err := from.Withdraw(ctx, &bankv1.WithdrawRequest{Amount: req.Amount}); err != nil {
		return nil, err
	}
	if h.fail != nil {
		if err := h.fail(ctx); err != nil {
			return nil, err
		}
	}
	_, err := to.Deposit(ctx, &bankv1.DepositRequest{Amount: req.Amount})
	return nil, err
}

const (
	callerTrace = "0af7651916cd43dd8448eb211c80319c"
	callerSpan  = "b7ad6b7169203331"
)

func post(t *testing.T, url, path, body string) int {
	t.Helper()
	request, err := http.NewRequestWithContext(t.Context(), http.MethodPost, url+path, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	request.Header.Set("Content-Type", "application/json")
	request.Header.Set("Traceparent", "00-"+callerTrace+"-"+callerSpan+"-01")
	request.Header.Set("Idempotency-Key", "one")
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	if _, err := io.Copy(io.Discard, response.Body); err != nil {
		t.Fatal(err)
	}
	return response.StatusCode
}

const (
	depositPath  = "/bank.v1.AccountService/Deposit"
	transferPath = "/bank.v1.TransferService/Transfer"
	transferBody = `{"from":"alice","to":"bob","amount":"3"}`
)

// TestTrace: one trace across the edge, the invocation, its attempts and steps, and what they
// call.
func TestTrace(t *testing.T) {
	collected := newCollector(t)
	node := newNode(t, t.TempDir(), cluster.WithTelemetry(cluster.Telemetry{TracesURL: collected.URL}))
	bank.RegisterTransferHandler(node, transfers{})
	startNode(t, node)
	for _, call := range []struct{ path, body string }{
		{depositPath, `{"accountId":"alice","amount":"5"}`}, {transferPath, transferBody},
	} {
		if status := post(t, node.URL(), call.path, call.body); status != http.StatusOK {
			t.Fatalf("%s: status %d", call.path, status)
		}
	}
	stopNode(t, node)
	want := `bank.v1.AccountService/Deposit
  invocation bank.v1.AccountService/Deposit
    attempt bank.v1.AccountService/Deposit
bank.v1.TransferService/Transfer
  invocation bank.v1.TransferService/Transfer
    attempt bank.v1.TransferService/Transfer
      call bank.v1.AccountService/Withdraw
        invocation bank.v1.AccountService/Withdraw
          attempt bank.v1.AccountService/Withdraw
      call bank.v1.AccountService/Deposit
        invocation bank.v1.AccountService/Deposit
          attempt bank.v1.AccountService/Deposit
`
	if got := collected.tree(t, callerTrace, callerSpan); got != want {
		t.Errorf("got\n%swant\n%s", got, want)
	}
}

// TestTraceOfCrashes: a crash after every entry makes more attempts, and no step twice.
func TestTraceOfCrashes(t *testing.T) {
	collected := newCollector(t)
	node := newNode(t, t.TempDir(), cluster.WithTelemetry(cluster.Telemetry{TracesURL: collected.URL}), cluster.WithCrashAtEveryEntry())
	bank.RegisterTransferHandler(node, transfers{})
	startNode(t, node)
	if _, err := bank.Account(node.Client(), "alice").Deposit(t.Context(), &bankv1.DepositRequest{Amount: 5}); err != nil {
		t.Fatal(err)
	}
	if status := post(t, node.URL(), transferPath, transferBody); status != http.StatusOK {
		t.Fatalf("status %d", status)
	}
	stopNode(t, node)
	collected.mu.Lock()
	collected.mu.spans = slices.DeleteFunc(collected.mu.spans, func(span *tracev1.Span) bool {
		return hex.EncodeToString(span.TraceId) != callerTrace // the deposit's
	})
	collected.mu.Unlock()
	tree := collected.tree(t, callerTrace, callerSpan)
	for name, want := range map[string]int{
		"  invocation bank.v1.TransferService/Transfer\n":      1,
		" call bank.v1.AccountService/Withdraw\n":              1,
		" call bank.v1.AccountService/Deposit\n":               1,
		"        invocation bank.v1.AccountService/Withdraw\n": 1,
		"        invocation bank.v1.AccountService/Deposit\n":  1,
		"          attempt bank.v1.AccountService/Withdraw\n":  2,
		"          attempt bank.v1.AccountService/Deposit\n":   2,
	} {
		if got := strings.Count(tree, name); got != want {
			t.Errorf("%q is there %d times, want %d", name, got, want)
		}
	}
	if attempts := strings.Count(tree, "    attempt bank.v1.TransferService/Transfer\n"); attempts < 3 {
		t.Errorf("%d attempts of the transfer", attempts)
	}
	if t.Failed() {
		t.Log("\n" + tree)
	}
}

// TestTraceOfRestart: what the next process does goes on in the trace of the first.
func TestTraceOfRestart(t *testing.T) {
	collected, dir := newCollector(t), t.TempDir()
	telemetry := cluster.WithTelemetry(cluster.Telemetry{TracesURL: collected.URL})
	first := newNode(t, dir, telemetry)
	half := make(chan struct{})
	bank.RegisterTransferHandler(first, transfers{fail: func(ctx actor.Context) error {
		close(half)
		<-ctx.Done()
		return ctx.Err()
	}})
	startNode(t, first)
	if _, err := bank.Account(first.Client(), "alice").Deposit(t.Context(), &bankv1.DepositRequest{Amount: 5}); err != nil {
		t.Fatal(err)
	}
	answered := make(chan int, 1)
	go func() { answered <- post(t, first.URL(), transferPath, transferBody) }()
	<-half
	stopNode(t, first)
	if status := <-answered; status != http.StatusServiceUnavailable {
		t.Errorf("status %d", status)
	}
	second := newNode(t, dir, telemetry)
	bank.RegisterTransferHandler(second, transfers{})
	startNode(t, second)
	if status := post(t, second.URL(), transferPath, transferBody); status != http.StatusOK {
		t.Fatalf("status %d", status)
	}
	stopNode(t, second)
	collected.mu.Lock()
	collected.mu.spans = slices.DeleteFunc(collected.mu.spans, func(span *tracev1.Span) bool {
		return hex.EncodeToString(span.TraceId) != callerTrace
	})
	collected.mu.Unlock()
	tree := collected.tree(t, callerTrace, callerSpan)
	for name, want := range map[string]int{
		"\nbank.v1.TransferService/Transfer\n":                2, // both posts
		"  invocation bank.v1.TransferService/Transfer\n":     1,
		"    attempt bank.v1.TransferService/Transfer\n":      2,
		"      call bank.v1.AccountService/Withdraw\n":        1,
		"      call bank.v1.AccountService/Deposit\n":         1,
		"        invocation bank.v1.AccountService/Deposit\n": 1,
	} {
		if got := strings.Count("\n"+tree, name); got != want {
			t.Errorf("%q is there %d times, want %d", name, got, want)
		}
	}
	if t.Failed() {
		t.Log("\n" + tree)
	}
}

// TestMetrics: what an operator sees after a transfer, and no key of an object in it.
func TestMetrics(t *testing.T) {
	node := newNode(t, t.TempDir(), cluster.WithTelemetry(cluster.Telemetry{Prometheus: true}))
	bank.RegisterTransferHandler(node, transfers{})
	startNode(t, node)
	post(t, node.URL(), depositPath, `{"accountId":"alice","amount":"5"}`)
	post(t, node.URL(), transferPath, transferBody)
	post(t, node.URL(), transferPath, `{"from":"alice","to":"bob","amount":"4"}`) // the key "one" again: already_exists
	response, err := http.Get(node.URL() + "/metrics")
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err != nil {
		t.Fatal(err)
	}
	text := string(body)
	for _, want := range []string{
		`perdure_calls_total{code="ok",handler="Transfer",outcome="succeeded",service="bank.v1.TransferService"} 1`,
		`perdure_calls_total{code="already_exists",handler="Transfer",outcome="failed",service="bank.v1.TransferService"} 1`,
		`perdure_attempts_started_total{handler="Withdraw",service="bank.v1.AccountService"} 1`,
		`perdure_attempts_ended_total{handler="Transfer",outcome="succeeded",service="bank.v1.TransferService"} 1`,
		`perdure_journal_entries_total{kind="call"} 2`,
		"perdure_partitions_led 8\n", "perdure_leadership_changes_total 8\n", "perdure_inbox_depth 0\n", "perdure_keys_held 0\n",
		"perdure_invocations_live 0\n", "perdure_attempts_running 0\n", "perdure_outbox_unacknowledged ", "perdure_overlay_size_bytes ",
		"perdure_backlog_size_bytes ", "perdure_log_size_bytes ", "perdure_log_segments ", "perdure_store_size_bytes ",
		"perdure_log_append_duration_seconds_count ", "perdure_record_events_count ", "perdure_records_total ",
		"perdure_messages_sent_total ", "perdure_messages_received_total ", "perdure_build_info{",
	} {
		if !strings.Contains(text, want) {
			t.Errorf("%q is missing", want)
		}
	}
	for _, secret := range []string{"alice", "bob", "inv_", "\"one\""} {
		if strings.Contains(text, secret) {
			t.Errorf("%q is in the metrics", secret)
		}
	}
	if t.Failed() {
		t.Log(text)
	}
}

// TestQuietLog: a start and a stop are a few lines, however many partitions there are, and no
// call is a line.
func TestQuietLog(t *testing.T) {
	var log bytes.Buffer
	node := newNode(t, t.TempDir(), cluster.WithLogger(slog.New(slog.NewTextHandler(&log, nil))), cluster.WithPartitions(64))
	startNode(t, node)
	post(t, node.URL(), depositPath, `{"accountId":"alice","amount":"5"}`)
	stopNode(t, node)
	if lines := strings.Count(log.String(), "\n"); lines > 5 {
		t.Errorf("%d lines:\n%s", lines, log.String())
	}
	if strings.Contains(log.String(), "alice") {
		t.Errorf("an object's key is in the log:\n%s", log.String())
	}
}
