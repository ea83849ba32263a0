package ingress_test

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"

	"connectrpc.com/connect/v2"
	"connectrpc.com/connect/v2/connecthttp"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/perdure/perdure/actor"
	bankv1 "github.com/perdure/perdure/examples/bank/gen/bank/v1"
	bank "github.com/perdure/perdure/examples/bank/gen/bank/v1/bankv1perdure"
	shop "github.com/perdure/perdure/examples/orders/gen/shop/v1/shopv1perdure"
	"github.com/perdure/perdure/internal/ingress"
	"github.com/perdure/perdure/internal/invocation"
	recordv1 "github.com/perdure/perdure/internal/record/v1"
	"github.com/perdure/perdure/internal/routing"
	"github.com/perdure/perdure/internal/routing/routingtest"
)

// descs collects what generated code registers.
type descs []*actor.ServiceDesc

func (d *descs) RegisterService(desc *actor.ServiceDesc, _ any) { *d = append(*d, desc) }

func services() []*actor.ServiceDesc {
	var d descs
	bank.RegisterAccountHandler(&d, bank.UnimplementedAccountHandler{})
	bank.RegisterTransferHandler(&d, bank.UnimplementedTransferHandler{})
	shop.RegisterOrderHandler(&d, shop.UnimplementedOrderHandler{})
	return d
}

// teller answers as a bank without any state.
func teller(in *recordv1.Invoke) *recordv1.Result {
	switch in.Target.Handler {
	case "Deposit":
		var request bankv1.DepositRequest
		if err := proto.Unmarshal(in.Input, &request); err != nil {
			return &recordv1.Result{Error: &recordv1.Error{Code: 13, Message: err.Error()}}
		}
		value, err := proto.Marshal(&bankv1.DepositResponse{Balance: 100 + request.Amount})
		if err != nil {
			panic(err)
		}
		return &recordv1.Result{Value: value}
	case "Balance":
		value, err := proto.Marshal(&bankv1.BalanceResponse{Balance: 7})
		if err != nil {
			panic(err)
		}
		return &recordv1.Result{Value: value}
	case "Withdraw":
		detail, err := anypb.New(durationpb.New(5))
		if err != nil {
			panic(err)
		}
		return &recordv1.Result{Error: &recordv1.Error{Code: 9, Message: "account alice has only 0", Details: []*anypb.Any{detail}}}
	}
	return &recordv1.Result{}
}

type fixture struct {
	router *routingtest.Fake
	edge   *ingress.Ingress
	url    string
	h1, h2 *http.Client
}

func start(t testing.TB, change func(*ingress.Config)) *fixture {
	t.Helper()
	router := &routingtest.Fake{Handle: teller}
	config := ingress.Config{Router: router, Services: services(), Logger: slog.New(slog.DiscardHandler)}
	if change != nil {
		change(&config)
	}
	handler, err := ingress.New(config)
	if err != nil {
		t.Fatal(err)
	}
	server := ingress.NewServer(handler, ingress.ServerConfig{Address: "127.0.0.1:0", Logger: config.Logger})
	if err := server.Listen(t.Context()); err != nil {
		t.Fatal(err)
	}
	h2 := &http.Transport{Protocols: new(http.Protocols)}
	h2.Protocols.SetUnencryptedHTTP2(true)
	f := &fixture{router: router, edge: handler, url: "http://" + server.Addr().String(),
		h1: &http.Client{Transport: &http.Transport{}}, h2: &http.Client{Transport: h2}}
	t.Cleanup(func() {
		f.h1.CloseIdleConnections()
		f.h2.CloseIdleConnections()
		ctx, cancel := context.WithTimeout(context.Background(), 5e9)
		defer cancel()
		if err := server.Shutdown(ctx); err != nil {
			t.Errorf("shutdown: %v", err)
		}
	})
	return f
}

type answer struct {
	status  int
	header  http.Header
	body    string
	code    string
	message string
	details []any
}

func (f *fixture) post(t testing.TB, path, body string, headers ...string) answer {
	t.Helper()
	request, err := http.NewRequestWithContext(t.Context(), http.MethodPost, f.url+path, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	request.Header.Set("Content-Type", "application/json")
	return f.do(t, f.h1, request, headers...)
}

func (f *fixture) get(t testing.TB, path string) answer {
	t.Helper()
	request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, f.url+path, nil)
	if err != nil {
		t.Fatal(err)
	}
	return f.do(t, f.h1, request)
}

func (f *fixture) do(t testing.TB, client *http.Client, request *http.Request, headers ...string) answer {
	t.Helper()
	for at := 0; at < len(headers); at += 2 {
		request.Header.Add(headers[at], headers[at+1])
	}
	response, err := client.Do(request)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err != nil {
		t.Fatal(err)
	}
	a := answer{status: response.StatusCode, header: response.Header, body: string(body)}
	if a.status != http.StatusOK {
		var wire struct {
			Code, Message string
			Details       []any
		}
		if json.Unmarshal(body, &wire) == nil {
			a.code, a.message, a.details = wire.Code, wire.Message, wire.Details
		}
	}
	return a
}

func TestProtocols(t *testing.T) {
	f := start(t, nil)
	deposit := connect.Spec{Procedure: "/bank.v1.AccountService/Deposit", Schema: nil}
	withdraw := connect.Spec{Procedure: "/bank.v1.AccountService/Withdraw"}
	for _, protocol := range []struct {
		name    string
		client  *http.Client
		options []connecthttp.Option
	}{
		{"connect proto h1", f.h1, nil},
		{"connect json h1", f.h1, []connecthttp.Option{connecthttp.WithProtoJSON()}},
		{"connect gzip h1", f.h1, []connecthttp.Option{connecthttp.WithSendGzip()}},
		{"connect proto h2c", f.h2, nil},
		{"connect json h2c", f.h2, []connecthttp.Option{connecthttp.WithProtoJSON()}},
		{"grpc h2c", f.h2, []connecthttp.Option{connecthttp.WithGRPC()}},
		{"grpc json h2c", f.h2, []connecthttp.Option{connecthttp.WithGRPC(), connecthttp.WithProtoJSON()}},
		{"grpc-web h1", f.h1, []connecthttp.Option{connecthttp.WithGRPCWeb()}},
		{"grpc-web h2c", f.h2, []connecthttp.Option{connecthttp.WithGRPCWeb()}},
	} {
		t.Run(protocol.name, func(t *testing.T) {
			client := connect.NewClient(connecthttp.NewTransport(protocol.client, f.url, protocol.options...))
			ctx, info := connect.NewClientContext(t.Context())
			var response bankv1.DepositResponse
			if err := client.CallUnary(ctx, deposit, &bankv1.DepositRequest{AccountId: "alice", Amount: 5}, &response); err != nil {
				t.Fatal(err)
			}
			if response.Balance != 105 {
				t.Errorf("balance is %d, want 105", response.Balance)
			}
			if _, err := invocation.ParseID(info.ResponseHeader().Get(ingress.HeaderInvocationID)); err != nil {
				t.Error(err)
			}
			ctx, info = connect.NewClientContext(t.Context())
			err := client.CallUnary(ctx, withdraw, &bankv1.WithdrawRequest{AccountId: "alice", Amount: 5}, &bankv1.WithdrawResponse{})
			coded, ok := errors.AsType[*connect.Error](err)
			if !ok || coded.Code() != connect.CodeFailedPrecondition || coded.Message() != "account alice has only 0" {
				t.Fatalf("got %v", err)
			}
			if details := coded.Details(); len(details) != 1 || details[0].Type != "google.protobuf.Duration" {
				t.Errorf("details are %v", details)
			}
			id := info.ResponseHeader().Get(ingress.HeaderInvocationID) + info.ResponseTrailer().Get(ingress.HeaderInvocationID)
			if _, err := invocation.ParseID(id); err != nil {
				t.Errorf("of an error: %v", err)
			}
		})
	}
}

func TestInvoke(t *testing.T) {
	f := start(t, nil)
	got := f.post(t, "/bank.v1.AccountService/Deposit", `{"accountId":"alice","amount":"5"}`,
		"Traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01")
	if got.status != 200 || strings.ReplaceAll(got.body, " ", "") != `{"balance":"105"}` {
		t.Fatalf("got %d %s", got.status, got.body)
	}
	calls := f.router.Calls()
	if len(calls) != 1 {
		t.Fatalf("%d calls", len(calls))
	}
	in := calls[0]
	id, ok := invocation.IDFromBytes(in.InvocationId)
	if !ok || id.String() != got.header.Get(ingress.HeaderInvocationID) {
		t.Errorf("id is %x, the header says %s", in.InvocationId, got.header.Get(ingress.HeaderInvocationID))
	}
	target := invocation.Target{Service: "bank.v1.AccountService", Key: "alice", Handler: "Deposit"}
	if id.Hash() != target.Hash() {
		t.Error("the id does not go to the partition of its object")
	}
	if in.Target.Service != target.Service || in.Target.Key != "alice" || in.Target.Handler != "Deposit" || in.Mode != uint32(actor.ModeTransaction) {
		t.Errorf("target is %v, mode %d", in.Target, in.Mode)
	}
	if in.Traceparent != "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01" {
		t.Errorf("traceparent is %q", in.Traceparent)
	}
	if in.RetentionMs != 0 || in.DueAt != 0 || in.IdempotencyKey != "" {
		t.Errorf("a plain call got %v", in)
	}
}

func TestGet(t *testing.T) {
	f := start(t, nil)
	query := "?connect=v1&encoding=json&message=" + url.QueryEscape(`{"accountId":"alice"}`)
	got := f.get(t, "/bank.v1.AccountService/Balance"+query)
	if got.status != 200 || strings.ReplaceAll(got.body, " ", "") != `{"balance":"7"}` {
		t.Fatalf("got %d %s", got.status, got.body)
	}
	if got.header.Get(ingress.HeaderInvocationID) == "" {
		t.Error("no invocation id")
	}
	if got := f.get(t, "/bank.v1.AccountService/Deposit"+query); got.status != http.StatusMethodNotAllowed {
		t.Errorf("GET of a handler that writes: %d %s", got.status, got.body)
	}
}

func TestNewReportsAllProblems(t *testing.T) {
	twice := services()
	_, err := ingress.New(ingress.Config{Services: append(twice, twice[0], nil)})
	if err == nil {
		t.Fatal("no error")
	}
	for _, want := range []string{"there is no router", "bank.v1.AccountService is registered twice", "descriptor is nil"} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("%v does not say %q", err, want)
		}
	}
}

func TestMountedBesideOtherRoutes(t *testing.T) {
	handler, err := ingress.New(ingress.Config{Router: &routingtest.Fake{Handle: teller}, Services: services()})
	if err != nil {
		t.Fatal(err)
	}
	// A recorder has no deadlines to set and no connection: the handler must do without.
	recorder := httptest.NewRecorder()
	request := httptest.NewRequestWithContext(t.Context(), http.MethodPost, "/bank.v1.AccountService/Deposit", strings.NewReader(`{"accountId":"a"}`))
	request.Header.Set("Content-Type", "application/json")
	handler.ServeHTTP(recorder, request)
	if recorder.Code != 200 {
		t.Errorf("got %d %s", recorder.Code, recorder.Body)
	}
}

func TestUnavailable(t *testing.T) {
	f := start(t, nil)
	f.router.Fail = func(context.Context, *recordv1.Invoke) error {
		return &routing.Error{Code: routing.CodeUnavailable, Message: "partition 7 has no leader", Cause: errors.New("secret")}
	}
	got := f.post(t, "/bank.v1.AccountService/Deposit", `{"accountId":"alice"}`)
	if got.code != "unavailable" || got.message != "partition 7 has no leader" {
		t.Errorf("got %s", got.body)
	}
	f.router.Fail = func(context.Context, *recordv1.Invoke) error { return errors.New("secret") }
	got = f.post(t, "/bank.v1.AccountService/Deposit", `{"accountId":"alice"}`)
	if got.code != "internal" || strings.Contains(got.body, "secret") {
		t.Errorf("got %s", got.body)
	}
}
