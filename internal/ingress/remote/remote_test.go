package remote_test

import (
	"context"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"go.opentelemetry.io/otel/trace"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/perdure/perdure/actor"
	bankv1 "github.com/perdure/perdure/examples/bank/gen/bank/v1"
	bank "github.com/perdure/perdure/examples/bank/gen/bank/v1/bankv1perdure"
	shopv1 "github.com/perdure/perdure/examples/orders/gen/shop/v1"
	shop "github.com/perdure/perdure/examples/orders/gen/shop/v1/shopv1perdure"
	"github.com/perdure/perdure/internal/ingress"
	"github.com/perdure/perdure/internal/ingress/remote"
	"github.com/perdure/perdure/internal/invocation"
	recordv1 "github.com/perdure/perdure/internal/record/v1"
	"github.com/perdure/perdure/internal/routing/routingtest"
)

type descs []*actor.ServiceDesc

func (d *descs) RegisterService(desc *actor.ServiceDesc, _ any) { *d = append(*d, desc) }

func encode(t testing.TB, message proto.Message) []byte {
	data, err := proto.Marshal(message)
	if err != nil {
		t.Error(err)
	}
	return data
}

func newEdge(t testing.TB, router *routingtest.Fake) *ingress.Ingress {
	t.Helper()
	if router.Handle == nil {
		router.Handle = func(in *recordv1.Invoke) *recordv1.Result {
			switch in.Target.Handler {
			case "Deposit":
				return &recordv1.Result{Value: encode(t, &bankv1.DepositResponse{Balance: 105})}
			case "Run":
				return &recordv1.Result{Value: encode(t, shopv1.RunResponse_builder{}.Build())}
			}
			detail, err := anypb.New(durationpb.New(5))
			if err != nil {
				t.Error(err)
			}
			return &recordv1.Result{Error: &recordv1.Error{Code: 9, Message: "only 0", Details: []*anypb.Any{detail}}}
		}
	}
	var services descs
	bank.RegisterAccountHandler(&services, bank.UnimplementedAccountHandler{})
	bank.RegisterTransferHandler(&services, bank.UnimplementedTransferHandler{})
	shop.RegisterOrderHandler(&services, shop.UnimplementedOrderHandler{})
	edge, err := ingress.New(ingress.Config{Router: router, Services: services, Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	return edge
}

// TestTransports: a caller cannot tell whether there was a network in between.
func TestTransports(t *testing.T) {
	for _, way := range []struct {
		name string
		over func(*testing.T, *ingress.Ingress) actor.Transport
	}{
		{"local", func(_ *testing.T, edge *ingress.Ingress) actor.Transport { return edge.Local() }},
		{"remote", func(t *testing.T, edge *ingress.Ingress) actor.Transport {
			server := httptest.NewServer(edge)
			t.Cleanup(server.Close)
			return remote.New(server.Client(), server.URL)
		}},
	} {
		t.Run(way.name, func(t *testing.T) {
			router := &routingtest.Fake{}
			edge := newEdge(t, router)
			client := actor.NewClient(way.over(t, edge))
			alice := bank.Account(client, "alice")
			last := func() *recordv1.Invoke { calls := router.Calls(); return calls[len(calls)-1] }

			response, err := alice.Deposit(t.Context(), &bankv1.DepositRequest{Amount: 5})
			if err != nil || response.Balance != 105 {
				t.Fatalf("got %v %v", response, err)
			}
			if in := last(); in.Target.Key != "alice" || in.IdempotencyKey == "" || in.RetentionMs != time.Hour.Milliseconds() {
				t.Errorf("an automatic key: %v", in)
			}
			if _, err := alice.Deposit(t.Context(), &bankv1.DepositRequest{Amount: 5}, actor.IdempotencyKey("mine")); err != nil {
				t.Error(err)
			}
			if in := last(); in.IdempotencyKey != "mine" || in.RetentionMs != (24*time.Hour).Milliseconds() {
				t.Errorf("a key of one's own: %v", in)
			}
			_, err = alice.Deposit(t.Context(), &bankv1.DepositRequest{Amount: 6}, actor.IdempotencyKey("mine"))
			if actor.CodeOf(err) != actor.AlreadyExists {
				t.Errorf("another request with the same key: %v", err)
			}
			// A key in the request may hold what a header cannot.
			transfer := &bankv1.TransferRequest{TransferId: "a\nb", From: "a", To: "b", Amount: 1}
			if _, err := bank.Transfer(client).Transfer(t.Context(), transfer); actor.CodeOf(err) != actor.FailedPrecondition {
				t.Errorf("transfer: %v", err)
			}
			if in := last(); in.IdempotencyKey != "a\nb" {
				t.Errorf("a key in the request: %v", in)
			}

			_, err = alice.Withdraw(t.Context(), &bankv1.WithdrawRequest{Amount: 5})
			coded, ok := err.(*actor.Error)
			if !ok || coded.Code() != actor.FailedPrecondition || coded.Message() != "only 0" || len(coded.Details()) != 1 {
				t.Errorf("got %v", err)
			} else if detail, err := coded.Details()[0].UnmarshalNew(); err != nil || !proto.Equal(detail, durationpb.New(5)) {
				t.Errorf("detail %v %v", detail, err)
			}

			before := time.Now()
			sent, err := alice.DepositSend(t.Context(), &bankv1.DepositRequest{Amount: 5}, actor.Delay(time.Hour))
			if err != nil {
				t.Fatal(err)
			}
			if due := time.UnixMilli(last().DueAt); due.Before(before.Add(time.Hour-time.Second)) || due.After(time.Now().Add(time.Hour+time.Second)) {
				t.Errorf("due at %s", due)
			}
			attached, err := actor.Attach[*bankv1.DepositResponse](client, sent.ID()).Attach(t.Context())
			if err != nil || attached.Balance != 105 {
				t.Errorf("attach: %v %v", attached, err)
			}
			if _, err := actor.Attach[*bankv1.WithdrawResponse](client, sent.ID()).Attach(t.Context()); actor.CodeOf(err) != actor.InvalidArgument || !strings.Contains(err.Error(), "bank.v1.DepositResponse") {
				t.Errorf("attach as another type: %v", err)
			}
			if _, err := actor.Attach[*bankv1.DepositResponse](client, "inv_x").Attach(t.Context()); actor.CodeOf(err) != actor.InvalidArgument {
				t.Errorf("attach to nonsense: %v", err)
			}
			if err := sent.Cancel(t.Context()); err != nil || len(router.Cancelled()) != 1 {
				t.Errorf("cancel: %v", err)
			}

			order := shop.Order(client, "o-1")
			if _, err := order.Run(t.Context(), shopv1.RunRequest_builder{Sku: proto.String("x")}.Build()); err != nil {
				t.Error(err)
			}
			if _, err := order.RunAttach(t.Context()); err != nil {
				t.Error(err)
			}
			if _, err := shop.Order(client, "o-2").RunAttach(t.Context()); actor.CodeOf(err) != actor.NotFound {
				t.Errorf("attach to no run: %v", err)
			}

			awakeable := invocation.AwakeableID{Invocation: invocation.ID{1}, Entry: 1}.String()
			if err := actor.ResolveAwakeable(t.Context(), client, awakeable, map[string]int{"a": 1}); err != nil {
				t.Error(err)
			}
			if got := router.Awakeable(awakeable); string(got.GetValue()) != `{"a":1}` {
				t.Errorf("resolved with %q", got.GetValue())
			}
			rejected := invocation.AwakeableID{Invocation: invocation.ID{1}, Entry: 2}.String()
			if err := actor.RejectAwakeable(t.Context(), client, rejected, actor.Errorf(actor.Aborted, "no")); err != nil {
				t.Error(err)
			}
			if got := router.Awakeable(rejected).GetError(); got.GetCode() != uint32(actor.Aborted) || got.GetMessage() != "no" {
				t.Errorf("rejected with %v", got)
			}
			if err := actor.ResolveAwakeable(t.Context(), client, "nonsense", 1); actor.CodeOf(err) != actor.InvalidArgument {
				t.Errorf("resolve nonsense: %v", err)
			}

			span := trace.NewSpanContext(trace.SpanContextConfig{TraceID: trace.TraceID{1}, SpanID: trace.SpanID{2}, TraceFlags: trace.FlagsSampled})
			if _, err := alice.Deposit(trace.ContextWithSpanContext(t.Context(), span), &bankv1.DepositRequest{Amount: 5}); err != nil {
				t.Error(err)
			}
			if got := last().Traceparent; got != "00-01000000000000000000000000000000-0200000000000000-01" {
				t.Errorf("traceparent %q", got)
			}

			block := make(chan struct{})
			defer close(block)
			router.Handle = func(*recordv1.Invoke) *recordv1.Result { <-block; return &recordv1.Result{} }
			ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
			defer cancel()
			if _, err := alice.Deposit(ctx, &bankv1.DepositRequest{Amount: 5}); actor.CodeOf(err) != actor.DeadlineExceeded {
				t.Errorf("a deadline: %v", err)
			}
			if _, err := bank.Account(client, strings.Repeat("k", 256)).Deposit(t.Context(), nil); actor.CodeOf(err) != actor.InvalidArgument {
				t.Errorf("a long key: %v", err)
			}
		})
	}
}

func TestUnregistered(t *testing.T) {
	edge, err := ingress.New(ingress.Config{Router: &routingtest.Fake{}, Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	server := httptest.NewServer(edge)
	defer server.Close()
	for _, transport := range []actor.Transport{edge.Local(), remote.New(server.Client(), server.URL)} {
		_, err := bank.Account(actor.NewClient(transport), "alice").Deposit(t.Context(), nil)
		if actor.CodeOf(err) != actor.Unimplemented || !strings.Contains(err.Error(), "service bank.v1.AccountService is not registered") {
			t.Errorf("got %v", err)
		}
	}
}

// TestFailOver: a node that is gone, and one that goes away in the middle of a call.
func TestFailOver(t *testing.T) {
	router := &routingtest.Fake{}
	edge := newEdge(t, router)
	good := httptest.NewServer(edge)
	defer good.Close()

	var listening net.ListenConfig
	listener, err := listening.Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	gone := "http://" + listener.Addr().String()
	if err := listener.Close(); err != nil {
		t.Fatal(err)
	}
	var cut atomic.Int32
	cutting := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		cut.Add(1)
		edge.ServeHTTP(httptest.NewRecorder(), r) // it happened, but the answer is lost
		panic(http.ErrAbortHandler)
	}))
	defer cutting.Close()

	client := actor.NewClient(remote.New(http.DefaultClient, gone, cutting.URL, good.URL))
	for range 3 {
		response, err := bank.Account(client, "alice").Deposit(t.Context(), &bankv1.DepositRequest{Amount: 5}, actor.IdempotencyKey("k"))
		if err != nil || response.Balance != 105 {
			t.Fatalf("got %v %v", response, err)
		}
	}
	if got := cut.Load(); got != 1 {
		t.Errorf("the failing node was asked %d times: the client does not stay with the good one", got)
	}
	id := router.Calls()[0].InvocationId
	for _, in := range router.Calls() {
		if string(in.InvocationId) != string(id) {
			t.Error("a second try was another invocation")
		}
	}

	alone := remote.New(http.DefaultClient, gone)
	_, err = alone.Call(t.Context(), actor.CallRequest{Method: depositMethod(t), Request: &bankv1.DepositRequest{AccountId: "a"}})
	if actor.CodeOf(err) != actor.Unavailable {
		t.Errorf("a node that is gone: %v", err)
	}
}

func depositMethod(t *testing.T) *actor.MethodDesc {
	t.Helper()
	var services descs
	bank.RegisterAccountHandler(&services, bank.UnimplementedAccountHandler{})
	return services[0].Methods[0]
}

func TestMistakes(t *testing.T) {
	for _, test := range []struct {
		urls []string
		says string
	}{
		{nil, "no URL was given"},
		{[]string{"localhost:7373"}, `"localhost:7373" is not a URL such as http://localhost:7373`},
		{[]string{"http://ok:1", "ftp://x"}, `"ftp://x" is not a URL`},
	} {
		client := actor.NewClient(remote.New(http.DefaultClient, test.urls...))
		_, err := bank.Account(client, "alice").Deposit(t.Context(), nil)
		if actor.CodeOf(err) != actor.FailedPrecondition || !strings.Contains(err.Error(), test.says) {
			t.Errorf("%v: %v", test.urls, err)
		}
	}
	client := actor.NewClient(remote.New(http.DefaultClient, "http://127.0.0.1:1"))
	_, err := bank.Account(client, "alice").Deposit(t.Context(), nil, actor.IdempotencyKey("a\nb"))
	if actor.CodeOf(err) != actor.InvalidArgument || !strings.Contains(err.Error(), "HTTP header") {
		t.Errorf("a key that no header can carry: %v", err)
	}
}
