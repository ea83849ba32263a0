package ingress_test

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"connectrpc.com/connect/v2"
	"connectrpc.com/connect/v2/connecthttp"

	bankv1 "github.com/perdure/perdure/examples/bank/gen/bank/v1"
	"github.com/perdure/perdure/internal/ingress"
	"github.com/perdure/perdure/internal/invocation"
	recordv1 "github.com/perdure/perdure/internal/record/v1"
	"github.com/perdure/perdure/internal/routing"
)

func last(t *testing.T, f *fixture) *recordv1.Invoke {
	t.Helper()
	calls := f.router.Calls()
	if len(calls) == 0 {
		t.Fatal("nothing reached the router")
	}
	return calls[len(calls)-1]
}

func TestIdempotencyKey(t *testing.T) {
	f := start(t, nil)
	body := `{"accountId":"alice","amount":"5"}`
	first := f.post(t, deposit, body, "Idempotency-Key", "k1")
	in := last(t, f)
	target := invocation.Target{Service: "bank.v1.AccountService", Key: "alice", Handler: "Deposit"}
	if want := invocation.DerivedID(target, "idempotency", "k1").String(); first.header.Get(ingress.HeaderInvocationID) != want {
		t.Errorf("id is %s, want %s", first.header.Get(ingress.HeaderInvocationID), want)
	}
	if in.IdempotencyKey != "k1" || in.RetentionMs != (24*time.Hour).Milliseconds() {
		t.Errorf("got %v", in)
	}
	// The same request in another protocol is the same request.
	client := connect.NewClient(connecthttp.NewTransport(f.h2, f.url, connecthttp.WithGRPC()))
	ctx, info := connect.NewClientContext(t.Context())
	info.RequestHeader().Set("idempotency-key", "k1")
	if err := client.CallUnary(ctx, connect.Spec{Procedure: deposit}, &bankv1.DepositRequest{AccountId: "alice", Amount: 5}, &bankv1.DepositResponse{}); err != nil {
		t.Error(err)
	}
	if again := f.post(t, deposit, `{"accountId":"alice","amount":"6"}`, "Idempotency-Key", "k1"); again.code != "already_exists" {
		t.Errorf("another request with the same key: %s", again.body)
	}

	f.post(t, deposit, body, "Idempotency-Key", "k2", "Perdure-Auto-Key", "1")
	if in := last(t, f); in.RetentionMs != time.Hour.Milliseconds() {
		t.Errorf("an automatic key is kept for %d ms", in.RetentionMs)
	}

	transfer := "/bank.v1.TransferService/Transfer"
	f.post(t, transfer, `{"transferId":"t1","from":"a","to":"b","amount":"1"}`)
	if in := last(t, f); in.IdempotencyKey != "t1" || in.Target.Key != "" {
		t.Errorf("a key in the request: %v", in)
	}
	// The client's automatic key gives way to the request's own.
	f.post(t, transfer, `{"transferId":"t1","from":"a","to":"b","amount":"1"}`, "Idempotency-Key", "random", "Perdure-Auto-Key", "1")
	if in := last(t, f); in.IdempotencyKey != "t1" || in.RetentionMs != (24*time.Hour).Milliseconds() {
		t.Errorf("a key in the request and an automatic one: %v", in)
	}
	// A key on a READ is no reason to answer from the past.
	f.post(t, "/bank.v1.AccountService/Balance", `{"accountId":"alice"}`, "Idempotency-Key", "k1")
	if in := last(t, f); in.IdempotencyKey != "" || in.RetentionMs != 0 {
		t.Errorf("a READ: %v", in)
	}
}

func TestWorkflowRun(t *testing.T) {
	f := start(t, nil)
	run := "/shop.v1.OrderService/Run"
	a := f.post(t, run, `{"orderId":"o-1","sku":"x"}`)
	b := f.post(t, run, `{"orderId":"o-1","sku":"x"}`, "Idempotency-Key", "other")
	target := invocation.Target{Service: "shop.v1.OrderService", Key: "o-1", Handler: "Run"}
	want := invocation.DerivedID(target, "run").String()
	if got := a.header.Get(ingress.HeaderInvocationID); got != want || b.header.Get(ingress.HeaderInvocationID) != want {
		t.Errorf("ids are %s and %s, want %s", got, b.header.Get(ingress.HeaderInvocationID), want)
	}
	if in := last(t, f); in.RetentionMs == 0 {
		t.Errorf("a run is not kept: %v", in)
	}
	if c := f.post(t, run, `{"orderId":"o-1","sku":"y"}`); c.code != "already_exists" {
		t.Errorf("another request: %s", c.body)
	}
}

func TestSend(t *testing.T) {
	f := start(t, nil)
	block := make(chan struct{})
	defer close(block)
	f.router.Handle = func(*recordv1.Invoke) *recordv1.Result { <-block; return &recordv1.Result{} }

	got := f.post(t, deposit, `{"accountId":"alice","amount":"5"}`, "Perdure-Send", "1")
	if got.status != 200 || strings.ReplaceAll(got.body, " ", "") != "{}" {
		t.Fatalf("got %d %s", got.status, got.body)
	}
	if in := last(t, f); in.DueAt != 0 || in.RetentionMs != (24*time.Hour).Milliseconds() {
		t.Errorf("got %v", in)
	}
	before := time.Now()
	got = f.post(t, deposit, `{"accountId":"alice","amount":"5"}`, "Perdure-Delay", "90s")
	if got.status != 200 {
		t.Fatalf("got %d %s", got.status, got.body)
	}
	due := time.UnixMilli(last(t, f).DueAt)
	if due.Before(before.Add(89*time.Second)) || due.After(time.Now().Add(91*time.Second)) {
		t.Errorf("due at %s, called at %s", due, before)
	}
	id, err := invocation.ParseID(got.header.Get(ingress.HeaderInvocationID))
	if err != nil || string(id[:]) != string(last(t, f).InvocationId) {
		t.Errorf("id %s: %v", id, err)
	}
	f.post(t, deposit, `{"accountId":"alice","amount":"5"}`, "Perdure-Delay", "0s")
	if in := last(t, f); in.DueAt != 0 {
		t.Errorf("no delay: %v", in)
	}
}

func TestInvocationService(t *testing.T) {
	f := start(t, nil)
	sent := f.post(t, deposit, `{"accountId":"alice","amount":"5"}`, "Perdure-Send", "1")
	id := sent.header.Get(ingress.HeaderInvocationID)
	got := f.post(t, "/perdure.v1.InvocationService/Attach", `{"invocationId":"`+id+`"}`)
	want := `{"response":{"@type":"type.googleapis.com/bank.v1.DepositResponse","balance":"105"}}`
	if strings.ReplaceAll(got.body, " ", "") != want {
		t.Errorf("attach: %s", got.body)
	}
	failed := f.post(t, "/bank.v1.AccountService/Withdraw", `{"accountId":"alice","amount":"5"}`, "Perdure-Send", "1")
	got = f.post(t, "/perdure.v1.InvocationService/Attach", `{"invocationId":"`+failed.header.Get(ingress.HeaderInvocationID)+`"}`)
	if got.code != "failed_precondition" || got.message != "account alice has only 0" || len(got.details) != 1 {
		t.Errorf("attach to a failure: %s", got.body)
	}
	if got := f.post(t, "/perdure.v1.InvocationService/Cancel", `{"invocationId":"`+id+`"}`); got.status != 200 {
		t.Errorf("cancel: %s", got.body)
	}
	if cancelled := f.router.Cancelled(); len(cancelled) != 1 || cancelled[0].String() != id {
		t.Errorf("cancelled: %v", cancelled)
	}

	awakeable := func(entry uint32) string {
		return invocation.AwakeableID{Invocation: invocation.ID{1}, Entry: entry}.String()
	}
	for _, test := range []struct{ rpc, fields, value string }{
		{"Resolve", `"json":{"b":[1,"x"],"a":null}`, `{"a":null,"b":[1,"x"]}`},
		{"Resolve", `"json":"yes"`, `"yes"`},
		{"Resolve", `"raw":"AQI="`, "\x01\x02"},
		{"Resolve", ``, ""},
	} {
		id := awakeable(uint32(len(test.value)))
		body := strings.TrimSuffix(`{"awakeableId":"`+id+`",`+test.fields, ",") + "}"
		for range 2 { // again changes nothing
			if got := f.post(t, "/perdure.v1.InvocationService/"+test.rpc, body); got.status != 200 {
				t.Fatalf("%s: %s", body, got.body)
			}
		}
		if got := f.router.Awakeable(id); string(got.GetValue()) != test.value || got.GetError() != nil {
			t.Errorf("%s: %q", body, got.GetValue())
		}
	}
	body := `{"awakeableId":"` + awakeable(99) + `","code":"CODE_ABORTED","message":"no"}`
	if got := f.post(t, "/perdure.v1.InvocationService/Reject", body); got.status != 200 {
		t.Fatal(got.body)
	}
	if got := f.router.Awakeable(awakeable(99)).GetError(); got.GetCode() != 10 || got.GetMessage() != "no" {
		t.Errorf("reject: %v", got)
	}
	if got := f.post(t, "/perdure.v1.InvocationService/Resolve", `{"awakeableId":"`+awakeable(99)+`"}`); got.code != "failed_precondition" {
		t.Errorf("resolve what was rejected: %s", got.body)
	}
}

// TestCallerLeaves: the wait ends, and says that the invocation does not.
func TestCallerLeaves(t *testing.T) {
	f := start(t, nil)
	block := make(chan struct{})
	defer close(block)
	f.router.Handle = func(*recordv1.Invoke) *recordv1.Result { <-block; return &recordv1.Result{} }
	got := f.post(t, deposit, `{"accountId":"alice","amount":"5"}`, "Connect-Timeout-Ms", "20")
	if got.code != "deadline_exceeded" || !strings.Contains(got.message, "goes on") ||
		!strings.Contains(got.message, got.header.Get(ingress.HeaderInvocationID)) {
		t.Errorf("got %s", got.body)
	}

	left := make(chan error, 1)
	f.router.Fail = func(ctx context.Context, _ *recordv1.Invoke) error {
		<-ctx.Done()
		left <- ctx.Err()
		return ctx.Err()
	}
	client := connect.NewClient(connecthttp.NewTransport(f.h1, f.url))
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	ctx, _ = connect.NewClientContext(ctx)
	err := client.CallUnary(ctx, connect.Spec{Procedure: deposit}, &bankv1.DepositRequest{AccountId: "a"}, &bankv1.DepositResponse{})
	if connect.CodeOf(err) != connect.CodeDeadlineExceeded {
		t.Errorf("got %v", err)
	}
	select {
	case err := <-left:
		if !errors.Is(err, context.Canceled) && !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("the router saw %v", err)
		}
	case <-time.After(5 * time.Second):
		t.Error("the router was not told that the caller left")
	}
}

func TestMaxConcurrentCalls(t *testing.T) {
	f := start(t, func(c *ingress.Config) { c.MaxConcurrentCalls = 2 })
	entered, release := make(chan struct{}), make(chan struct{})
	f.router.Handle = func(*recordv1.Invoke) *recordv1.Result {
		entered <- struct{}{}
		<-release
		return &recordv1.Result{}
	}
	answers := make(chan answer, 2)
	for range 2 {
		go func() { answers <- f.post(t, deposit, `{"accountId":"alice"}`) }()
	}
	<-entered
	<-entered
	got := f.post(t, deposit, `{"accountId":"alice"}`)
	if got.code != "resource_exhausted" || !strings.Contains(got.message, "2 calls under way") || got.header.Get("Retry-After") != "1" || len(got.details) != 1 {
		t.Errorf("got %v %s", got.header, got.body)
	}
	if got := f.post(t, "/grpc.health.v1.Health/Check", `{}`); got.status != 200 {
		t.Errorf("a full node is not healthy: %s", got.body)
	}
	close(release)
	for range 2 {
		if got := <-answers; got.status != 200 {
			t.Errorf("got %s", got.body)
		}
	}
	f.router.Handle = nil
	if got := f.post(t, deposit, `{"accountId":"alice"}`); got.status != 200 {
		t.Errorf("places were not given back: %s", got.body)
	}
	f.router.Fail = func(context.Context, *recordv1.Invoke) error {
		return routing.Errorf(routing.CodeResourceExhausted, "the inbox of alice is full")
	}
	if got := f.post(t, deposit, `{"accountId":"alice"}`); got.code != "resource_exhausted" || got.message != "the inbox of alice is full" {
		t.Errorf("got %s", got.body)
	}
}
