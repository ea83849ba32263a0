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
	"time"

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

type transfers struct{}

// Transfer is one transaction.
func (transfers) Transfer(ctx actor.Context, req *bankv1.TransferRequest) (*bankv1.TransferResponse, error) {
	if _, err := bank.Account(ctx, req.From).Withdraw(ctx, &bankv1.WithdrawRequest{Amount: req.Amount}); err != nil {
		return nil, err
	}
	_, err := bank.Account(ctx, req.To).Deposit(ctx, &bankv1.DepositRequest{Amount: req.Amount})
	return nil, err
}

type backOffice struct {
	bank.UnimplementedBackOfficeHandler
	// between is done after each transfer; nil is nothing.
	between func(actor.Context) error
}

// StandingOrder makes transfers, each a step of it.
func (b backOffice) StandingOrder(ctx actor.Context, req *bankv1.StandingOrderRequest) (*bankv1.StandingOrderResponse, error) {
	for range req.Times {
		if _, err := bank.Transfer(ctx).Transfer(ctx, &bankv1.TransferRequest{From: req.From, To: req.To, Amount: req.Amount}); err != nil {
			return nil, err
		}
		if b.between != nil {
			if err := b.between(ctx); err != nil {
				return nil, err
			}
		}
	}
	return &bankv1.StandingOrderResponse{Made: req.Times}, nil
}

func registerBank(node *cluster.Node, office backOffice) {
	bank.RegisterTransferHandler(node, transfers{})
	bank.RegisterBackOfficeHandler(node, office)
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
	orderPath    = "/bank.v1.BackOfficeService/StandingOrder"
	orderBody    = `{"from":"alice","to":"bob","amount":"2","times":2}`
)

// callerTree is the tree of the trace that the tests' posts are in.
func (c *collector) callerTree(t *testing.T) string {
	t.Helper()
	c.mu.Lock()
	c.mu.spans = slices.DeleteFunc(c.mu.spans, func(span *tracev1.Span) bool {
		return hex.EncodeToString(span.TraceId) != callerTrace
	})
	c.mu.Unlock()
	return c.tree(t, callerTrace, callerSpan)
}

// counted checks how often a line is in a tree; its indent is part of it.
func counted(t *testing.T, tree string, want map[string]int) {
	t.Helper()
	for line, want := range want {
		if got := strings.Count("\n"+tree, "\n"+line+"\n"); got != want {
			t.Errorf("%q is there %d times, want %d", line, got, want)
		}
	}
	if t.Failed() {
		t.Log("\n" + tree)
	}
}

// TestTrace: one trace across the edge, the invocation, its attempts and steps, and what they
// call. Calls inside a transaction are no invocations: their attempts are below the call.
func TestTrace(t *testing.T) {
	countsAttempts(t)
	collected := newCollector(t)
	node := newNode(t, t.TempDir(), cluster.WithTelemetry(cluster.Telemetry{TracesURL: collected.URL}), cluster.WithInactivityTimeout(time.Minute))
	registerBank(node, backOffice{})
	startNode(t, node)
	for _, call := range []struct{ path, body string }{
		{depositPath, `{"accountId":"alice","amount":"5"}`}, {transferPath, transferBody}, {orderPath, `{"from":"alice","to":"bob","amount":"2","times":1}`},
	} {
		if status := post(t, node.URL(), call.path, call.body); status != http.StatusOK {
			t.Fatalf("%s: status %d", call.path, status)
		}
	}
	stopNode(t, node)
	const want = `bank.v1.AccountService/Deposit
  invocation bank.v1.AccountService/Deposit
    attempt bank.v1.AccountService/Deposit
bank.v1.TransferService/Transfer
  invocation bank.v1.TransferService/Transfer
    attempt bank.v1.TransferService/Transfer
      call bank.v1.AccountService/Withdraw
        attempt bank.v1.AccountService/Withdraw
      call bank.v1.AccountService/Deposit
        attempt bank.v1.AccountService/Deposit
bank.v1.BackOfficeService/StandingOrder
  invocation bank.v1.BackOfficeService/StandingOrder
    attempt bank.v1.BackOfficeService/StandingOrder
      call bank.v1.TransferService/Transfer
        invocation bank.v1.TransferService/Transfer
          attempt bank.v1.TransferService/Transfer
            call bank.v1.AccountService/Withdraw
              attempt bank.v1.AccountService/Withdraw
            call bank.v1.AccountService/Deposit
              attempt bank.v1.AccountService/Deposit
`
	if got := collected.tree(t, callerTrace, callerSpan); got != want {
		t.Errorf("got\n%swant\n%s", got, want)
	}
}

// TestTraceOfRefusedTransaction: the refusal is in all spans that it went through.
func TestTraceOfRefusedTransaction(t *testing.T) {
	countsAttempts(t)
	collected := newCollector(t)
	node := newNode(t, t.TempDir(), cluster.WithTelemetry(cluster.Telemetry{TracesURL: collected.URL}), cluster.WithInactivityTimeout(time.Minute))
	registerBank(node, backOffice{})
	startNode(t, node)
	if status := post(t, node.URL(), transferPath, transferBody); status != http.StatusBadRequest {
		t.Fatalf("status %d", status)
	}
	stopNode(t, node)
	counted(t, collected.callerTree(t), map[string]int{
		"bank.v1.TransferService/Transfer":                1,
		"  invocation bank.v1.TransferService/Transfer":   1,
		"    attempt bank.v1.TransferService/Transfer":    1,
		"      call bank.v1.AccountService/Withdraw":      1,
		"        attempt bank.v1.AccountService/Withdraw": 1,
	})
	for _, span := range collected.mu.spans {
		if span.Status.GetCode() != tracev1.Status_STATUS_CODE_ERROR || !strings.Contains(span.Status.Message, "account alice has only 0") {
			t.Errorf("%s: status %v", span.Name, span.Status)
		}
	}
}

// TestTraceOfCrashes: a crash after every entry makes more attempts, and no step of a DURABLE
// handler twice.
func TestTraceOfCrashes(t *testing.T) {
	collected := newCollector(t)
	node := newNode(t, t.TempDir(), cluster.WithTelemetry(cluster.Telemetry{TracesURL: collected.URL}), cluster.WithCrashAtEveryEntry())
	registerBank(node, backOffice{})
	startNode(t, node)
	if _, err := bank.Account(node.Client(), "alice").Deposit(t.Context(), &bankv1.DepositRequest{Amount: 5}); err != nil {
		t.Fatal(err)
	}
	if status := post(t, node.URL(), orderPath, orderBody); status != http.StatusOK {
		t.Fatalf("status %d", status)
	}
	stopNode(t, node)
	tree := collected.callerTree(t)
	if attempts := strings.Count(tree, "    attempt bank.v1.BackOfficeService/StandingOrder\n"); attempts < 3 {
		t.Errorf("%d attempts of the order", attempts)
	}
	counted(t, tree, map[string]int{
		"  invocation bank.v1.BackOfficeService/StandingOrder": 1,
		"      call bank.v1.TransferService/Transfer":          2,
		"        invocation bank.v1.TransferService/Transfer":  2,
		"          attempt bank.v1.TransferService/Transfer":   4, // each once in vain
	})
	// What ran in vain may have ended before or after its first call.
	for _, line := range []string{"            call bank.v1.AccountService/Deposit\n", "              attempt bank.v1.AccountService/Deposit\n", "            call bank.v1.AccountService/Withdraw\n"} {
		if got := strings.Count(tree, line); got < 2 {
			t.Errorf("%q is there %d times, want 2 at least", line, got)
		}
	}
}

// TestTraceOfTransactionWithCrashes: each try is an attempt, with the calls that it made.
func TestTraceOfTransactionWithCrashes(t *testing.T) {
	collected := newCollector(t)
	node := newNode(t, t.TempDir(), cluster.WithTelemetry(cluster.Telemetry{TracesURL: collected.URL}), cluster.WithCrashAtEveryEntry())
	registerBank(node, backOffice{})
	startNode(t, node)
	if _, err := bank.Account(node.Client(), "alice").Deposit(t.Context(), &bankv1.DepositRequest{Amount: 5}); err != nil {
		t.Fatal(err)
	}
	if status := post(t, node.URL(), transferPath, transferBody); status != http.StatusOK {
		t.Fatalf("status %d", status)
	}
	stopNode(t, node)
	const want = `bank.v1.TransferService/Transfer
  invocation bank.v1.TransferService/Transfer
    attempt bank.v1.TransferService/Transfer
      call bank.v1.AccountService/Withdraw
        attempt bank.v1.AccountService/Withdraw
    attempt bank.v1.TransferService/Transfer
      call bank.v1.AccountService/Withdraw
        attempt bank.v1.AccountService/Withdraw
      call bank.v1.AccountService/Deposit
        attempt bank.v1.AccountService/Deposit
`
	if got := collected.callerTree(t); got != want {
		t.Errorf("got\n%swant\n%s", got, want)
	}
}

// TestTraceOfRestart: what the next process does goes on in the trace of the first.
func TestTraceOfRestart(t *testing.T) {
	countsAttempts(t)
	collected, dir := newCollector(t), t.TempDir()
	telemetry := func(c *cluster.Config) {
		c.Telemetry.TracesURL, c.InactivityTimeout = collected.URL, time.Minute // attempts are counted
	}
	first := newNode(t, dir, telemetry)
	half := make(chan struct{})
	registerBank(first, backOffice{between: func(ctx actor.Context) error {
		close(half)
		<-ctx.Done()
		return ctx.Err()
	}})
	startNode(t, first)
	if _, err := bank.Account(first.Client(), "alice").Deposit(t.Context(), &bankv1.DepositRequest{Amount: 5}); err != nil {
		t.Fatal(err)
	}
	answered := make(chan int, 1)
	go func() { answered <- post(t, first.URL(), orderPath, orderBody) }()
	select {
	case <-half:
	case status := <-answered:
		t.Fatalf("status %d", status)
	}
	stopNode(t, first)
	if status := <-answered; status != http.StatusServiceUnavailable {
		t.Errorf("status %d", status)
	}
	second := newNode(t, dir, telemetry)
	registerBank(second, backOffice{})
	startNode(t, second)
	if status := post(t, second.URL(), orderPath, orderBody); status != http.StatusOK {
		t.Fatalf("status %d", status)
	}
	stopNode(t, second)
	counted(t, collected.callerTree(t), map[string]int{
		"bank.v1.BackOfficeService/StandingOrder":              2, // both posts
		"  invocation bank.v1.BackOfficeService/StandingOrder": 1,
		"    attempt bank.v1.BackOfficeService/StandingOrder":  2,
		"      call bank.v1.TransferService/Transfer":          2,
		"        invocation bank.v1.TransferService/Transfer":  2,
		"          attempt bank.v1.TransferService/Transfer":   2,
	})
}

// metrics is what GET /metrics answers.
func metrics(t *testing.T, node *cluster.Node) string {
	t.Helper()
	response := httptest.NewRecorder()
	node.Handler().ServeHTTP(response, httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/metrics", nil))
	if response.Code != http.StatusOK {
		t.Fatalf("metrics: %d %s", response.Code, response.Body)
	}
	return response.Body.String()
}

// TestMetrics: what an operator sees after transactions and a DURABLE handler, and no key of an
// object in it.
func TestMetrics(t *testing.T) {
	countsAttempts(t)
	node := newNode(t, t.TempDir(), cluster.WithTelemetry(cluster.Telemetry{Prometheus: true}))
	registerBank(node, backOffice{})
	startNode(t, node)
	post(t, node.URL(), depositPath, `{"accountId":"alice","amount":"5"}`)
	post(t, node.URL(), transferPath, transferBody)
	post(t, node.URL(), transferPath, `{"from":"alice","to":"bob","amount":"4"}`)                                                // the key "one" again: already_exists
	post(t, node.URL(), orderPath, `{"from":"alice","to":"bob","amount":"1","times":2}`)                                         // two transactions
	_, err := bank.Transfer(node.Client()).Transfer(t.Context(), &bankv1.TransferRequest{From: "bob", To: "alice", Amount: 100}) // one more, in vain
	if actor.CodeOf(err) != actor.FailedPrecondition {
		t.Error(err)
	}
	text := metrics(t, node)
	for deadline := time.Now().Add(10 * time.Second); !strings.Contains(text, "perdure_transactions_prepared 0\n") && time.Now().Before(deadline); {
		time.Sleep(time.Millisecond)
		text = metrics(t, node)
	}
	for _, want := range []string{
		`perdure_calls_total{code="ok",handler="Transfer",outcome="succeeded",service="bank.v1.TransferService"} 1`,
		`perdure_calls_total{code="already_exists",handler="Transfer",outcome="failed",service="bank.v1.TransferService"} 1`,
		`perdure_calls_total{code="failed_precondition",handler="Transfer",outcome="failed",service="bank.v1.TransferService"} 1`,
		`perdure_attempts_started_total{handler="Withdraw",service="bank.v1.AccountService"} 4`,
		`perdure_attempts_ended_total{handler="Withdraw",outcome="succeeded",service="bank.v1.AccountService"} 3`,
		`perdure_attempts_ended_total{handler="Withdraw",outcome="failed",service="bank.v1.AccountService"} 1`,
		`perdure_attempts_ended_total{handler="Transfer",outcome="succeeded",service="bank.v1.TransferService"} 3`,
		`perdure_attempts_ended_total{handler="Transfer",outcome="failed",service="bank.v1.TransferService"} 1`,
		`perdure_journal_entries_total{kind="call"} 2`,
		`perdure_transactions_total{outcome="committed"} 3`, `perdure_transactions_total{outcome="rolled_back"} 1`,
		`perdure_transaction_duration_seconds_count{outcome="committed"} 3`, `perdure_transaction_duration_seconds_count{outcome="rolled_back"} 1`,
		`perdure_transaction_retries_total{reason="wound"} 0`, `perdure_transaction_retries_total{reason="blocked"} 0`,
		`perdure_transaction_retries_total{reason="lost"} 0`, `perdure_transaction_retries_total{reason="other"} 0`,
		"perdure_transactions_live 0\n", "perdure_transactions_prepared 0\n",
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
