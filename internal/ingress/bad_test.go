package ingress_test

import (
	"bytes"
	"compress/gzip"
	"errors"
	"net/http"
	"strings"
	"testing"

	"buf.build/gen/go/bufbuild/protovalidate/protocolbuffers/go/buf/validate"
	"buf.build/go/protovalidate"
	"connectrpc.com/connect/v2"
	"connectrpc.com/connect/v2/connecthttp"
	"connectrpc.com/connect/v2/connectproto"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"

	"github.com/perdure/perdure/actor"
	bankv1 "github.com/perdure/perdure/examples/bank/gen/bank/v1"
	"github.com/perdure/perdure/internal/ingress"
	"github.com/perdure/perdure/internal/invocation"
)

const deposit = "/bank.v1.AccountService/Deposit"

// TestBadInput: each mistake has an error that says what to do, and leaves no trace.
func TestBadInput(t *testing.T) {
	f := start(t, func(c *ingress.Config) {
		c.MaxMessageBytes = 4096
		c.Validate = func(m proto.Message) error { return protovalidate.Validate(m) }
	})
	good := `{"accountId":"alice","amount":"5"}`
	for _, test := range []struct {
		name, path, body string
		headers          []string
		code             string
		status           int
		says             []string
	}{
		{"unknown service", "/bank.v1.AcountService/Deposit", good, nil, "unimplemented", 501,
			[]string{"service bank.v1.AcountService is not registered", "did you mean bank.v1.AccountService?", "shop.v1.OrderService"}},
		{"unknown method", "/bank.v1.AccountService/Deposti", good, nil, "unimplemented", 501,
			[]string{`bank.v1.AccountService has no handler "Deposti"`, "did you mean Deposit?", "Balance, CloseOut, Deposit, Withdraw"}},
		{"unknown method of a built-in service", "/perdure.v1.InvocationService/Atach", `{}`, nil, "unimplemented", 501,
			[]string{"perdure.v1.InvocationService has no method"}},
		{"missing key", deposit, `{"amount":"5"}`, nil, "invalid_argument", 400, []string{"the key accountId is empty"}},
		{"empty key", deposit, `{"accountId":"","amount":"5"}`, nil, "invalid_argument", 400, []string{"the key accountId is empty"}},
		{"long key", deposit, `{"accountId":"` + strings.Repeat("k", 256) + `"}`, nil, "invalid_argument", 400, []string{"256 bytes", "at most 255"}},
		{"wrong type", deposit, `{"accountId":"alice","amount":"five"}`, nil, "invalid_argument", 400,
			[]string{"the request is not a bank.v1.DepositRequest in JSON", "invalid value for int64", `amount`}},
		{"wrong type of key", deposit, `{"accountId":7}`, nil, "invalid_argument", 400, []string{"invalid value for string", "accountId"}},
		{"not JSON", deposit, `{"accountId":`, nil, "invalid_argument", 400, []string{"in JSON", "unexpected"}},
		{"no body", deposit, ``, nil, "invalid_argument", 400, []string{"no body"}},
		{"an array", deposit, `[]`, nil, "invalid_argument", 400, []string{"in JSON"}},
		{"invalid utf-8", deposit, "{\"accountId\":\"\xff\xfe\",\"amount\":\"5\"}", nil, "invalid_argument", 400, []string{"invalid UTF-8"}},
		{"too large", deposit, `{"accountId":"` + strings.Repeat("k", 5000) + `"}`, nil, "resource_exhausted", 429, []string{"larger than 4096 bytes"}},
		{"refused by the validator", deposit, `{"accountId":"alice","amount":"-5"}`, nil, "invalid_argument", 400,
			[]string{"bank.v1.AccountService/Deposit: amount must be greater than 0"}},
		{"two idempotency keys", deposit, good, []string{"Idempotency-Key", "a", "Idempotency-Key", "b"}, "invalid_argument", 400, []string{"2 times"}},
		{"empty idempotency key", deposit, good, []string{"Idempotency-Key", ""}, "invalid_argument", 400, []string{"is empty"}},
		{"long idempotency key", deposit, good, []string{"Idempotency-Key", strings.Repeat("k", 256)}, "invalid_argument", 400, []string{"256 bytes", "at most 255"}},
		{"idempotency key of bad utf-8", deposit, good, []string{"Idempotency-Key", "\xff"}, "invalid_argument", 400, []string{"not valid utf-8"}},
		{"key in field and header", "/bank.v1.TransferService/Transfer", `{"transferId":"t1","from":"a","to":"b","amount":"1"}`,
			[]string{"Idempotency-Key", "t2"}, "invalid_argument", 400, []string{`"t1" in the request and "t2" in the header`}},
		{"long key in the field", "/bank.v1.TransferService/Transfer", `{"transferId":"` + strings.Repeat("t", 256) + `","from":"a","to":"b","amount":"1"}`,
			nil, "invalid_argument", 400, []string{"256 bytes"}},
		{"bad send", deposit, good, []string{"Perdure-Send", "yes please"}, "invalid_argument", 400, []string{"must be 1 or 0"}},
		{"bad delay", deposit, good, []string{"Perdure-Delay", "tomorrow"}, "invalid_argument", 400, []string{"not a duration such as 90s"}},
		{"negative delay", deposit, good, []string{"Perdure-Delay", "-1s"}, "invalid_argument", 400, []string{"from 0s to"}},
		{"endless delay", deposit, good, []string{"Perdure-Delay", "200000h"}, "invalid_argument", 400, []string{"from 0s to"}},
		{"send to a READ handler", "/bank.v1.AccountService/Balance", `{"accountId":"alice"}`, []string{"Perdure-Send", "1"}, "invalid_argument", 400, []string{"READ handler"}},
		{"delayed signal", "/shop.v1.OrderService/Approve", `{"orderId":"o"}`, []string{"Perdure-Delay", "1s"}, "invalid_argument", 400, []string{"is a SIGNAL"}},
		{"unknown compression", deposit, good, []string{"Content-Encoding", "br"}, "unimplemented", 501, []string{"br"}},
		{"attach to nothing", "/perdure.v1.InvocationService/Attach", `{}`, nil, "invalid_argument", 400, []string{"invocationId is empty"}},
		{"attach to nonsense", "/perdure.v1.InvocationService/Attach", `{"invocationId":"inv_3"}`, nil, "invalid_argument", 400, []string{"not an invocation id"}},
		{"attach to what never was", "/perdure.v1.InvocationService/Attach", `{"invocationId":"` + (invocation.ID{1}).String() + `"}`, nil, "not_found", 404, []string{"never existed"}},
		{"resolve nonsense", "/perdure.v1.InvocationService/Resolve", `{"awakeableId":"x"}`, nil, "invalid_argument", 400, []string{"not an awakeable id"}},
		{"reject without a code", "/perdure.v1.InvocationService/Reject", `{"awakeableId":"` + invocation.AwakeableID{Invocation: invocation.ID{1}, Entry: 2}.String() + `"}`, nil, "invalid_argument", 400, []string{"code is"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			got := f.post(t, test.path, test.body, test.headers...)
			if got.status != test.status || got.code != test.code {
				t.Errorf("got %d %s, want %d %s", got.status, got.body, test.status, test.code)
			}
			for _, want := range test.says {
				if !strings.Contains(got.message, want) {
					t.Errorf("%q does not say %q", got.message, want)
				}
			}
			if strings.Contains(got.message, "\u00a0") {
				t.Errorf("%q has a no-break space", got.message)
			}
			if handler := strings.HasPrefix(test.path, "/bank") && test.code != "unimplemented"; handler && got.header.Get(ingress.HeaderInvocationID) == "" {
				t.Error("the answer has no invocation id")
			}
		})
	}
	if calls := f.router.Calls(); len(calls) != 0 {
		t.Errorf("%d requests reached the router: %v", len(calls), calls)
	}
}

func TestViolationsAreDetails(t *testing.T) {
	f := start(t, func(c *ingress.Config) {
		c.Validate = func(m proto.Message) error { return protovalidate.Validate(m) }
	})
	client := connect.NewClient(connecthttp.NewTransport(f.h2, f.url, connecthttp.WithGRPC()))
	err := client.CallUnary(t.Context(), connect.Spec{Procedure: deposit}, &bankv1.DepositRequest{AccountId: "a", Amount: -1}, &bankv1.DepositResponse{})
	coded, ok := errors.AsType[*connect.Error](err)
	if !ok || coded.Code() != connect.CodeInvalidArgument || len(coded.Details()) != 1 {
		t.Fatalf("got %v", err)
	}
	detail, err := connectproto.UnmarshalErrorDetail(coded.Details()[0])
	if err != nil {
		t.Fatal(err)
	}
	violations, ok := detail.(*validate.Violations)
	if !ok || len(violations.GetViolations()) != 1 || violations.GetViolations()[0].GetRuleId() != "int64.gt" {
		t.Errorf("detail is %v", detail)
	}
}

func TestValidatorOfOnesOwn(t *testing.T) {
	for _, test := range []struct {
		name     string
		validate func(proto.Message) error
		code     string
		says     string
	}{
		{"plain error", func(proto.Message) error { return errors.New("not on a Sunday") }, "invalid_argument", "Deposit: not on a Sunday"},
		{"coded error", func(proto.Message) error { return actor.Errorf(actor.PermissionDenied, "not you") }, "permission_denied", "not you"},
		{"panic", func(proto.Message) error { panic("secret") }, "internal", "could not be checked"},
	} {
		t.Run(test.name, func(t *testing.T) {
			f := start(t, func(c *ingress.Config) { c.Validate = test.validate })
			got := f.post(t, deposit, `{"accountId":"a"}`)
			if got.code != test.code || !strings.Contains(got.message, test.says) || strings.Contains(got.body, "secret") {
				t.Errorf("got %s", got.body)
			}
			if len(f.router.Calls()) != 0 {
				t.Error("it reached the router")
			}
		})
	}
}

// TestBadBinary is what JSON cannot say wrong: broken protobuf and raw bytes in strings.
func TestBadBinary(t *testing.T) {
	f := start(t, nil)
	for _, test := range []struct {
		name string
		body []byte
		says string
	}{
		{"cut off", []byte{0x0a, 0x05, 'a'}, "the request is not a bank.v1.DepositRequest in protobuf's binary form"},
		{"invalid utf-8", protowire.AppendString(protowire.AppendTag(nil, 1, protowire.BytesType), "\xff"), "invalid UTF-8"},
		{"empty", nil, "the key accountId is empty"},
	} {
		t.Run(test.name, func(t *testing.T) {
			request, err := http.NewRequestWithContext(t.Context(), http.MethodPost, f.url+deposit, bytes.NewReader(test.body))
			if err != nil {
				t.Fatal(err)
			}
			request.Header.Set("Content-Type", "application/proto")
			got := f.do(t, f.h1, request)
			if got.code != "invalid_argument" || !strings.Contains(got.message, test.says) {
				t.Errorf("got %s", got.body)
			}
		})
	}
}

func TestUnknownInEveryProtocol(t *testing.T) {
	f := start(t, nil)
	for _, protocol := range []struct {
		name    string
		client  *http.Client
		options []connecthttp.Option
	}{
		{"connect", f.h1, nil},
		{"grpc", f.h2, []connecthttp.Option{connecthttp.WithGRPC()}},
		{"grpc-web", f.h1, []connecthttp.Option{connecthttp.WithGRPCWeb()}},
	} {
		t.Run(protocol.name, func(t *testing.T) {
			client := connect.NewClient(connecthttp.NewTransport(protocol.client, f.url, protocol.options...))
			err := client.CallUnary(t.Context(), connect.Spec{Procedure: "/bank.v2.AccountService/Deposit"}, &bankv1.DepositRequest{}, &bankv1.DepositResponse{})
			if connect.CodeOf(err) != connect.CodeUnimplemented || !strings.Contains(err.Error(), "did you mean bank.v1.AccountService?") {
				t.Errorf("got %v", err)
			}
		})
	}
	for _, path := range []string{"/", "/index.html", "/a/b/c", "/bank.v1.AccountService"} {
		if got := f.get(t, path); got.status != http.StatusNotFound || !strings.Contains(got.body, "registered: bank.v1.AccountService") {
			t.Errorf("GET %s: %d %s", path, got.status, got.body)
		}
	}
	request, err := http.NewRequestWithContext(t.Context(), http.MethodPost, f.url+deposit, strings.NewReader("a=b"))
	if err != nil {
		t.Fatal(err)
	}
	request.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	if got := f.do(t, f.h1, request); got.status != http.StatusUnsupportedMediaType || !strings.Contains(got.message, "-H 'Content-Type: application/json'") {
		t.Errorf("a form: %d %s", got.status, got.body)
	}
	if got := f.get(t, deposit); got.status != http.StatusMethodNotAllowed || !strings.Contains(got.message, "use POST") || got.header.Get("Allow") != "POST" {
		t.Errorf("GET of a writer: %d %s", got.status, got.body)
	}
	if got := f.get(t, "/bank.v1.AccountService/Balance"); got.status != http.StatusBadRequest || !strings.Contains(got.message, "encoding=json") {
		t.Errorf("GET without a message: %d %s", got.status, got.body)
	}
}

// TestBomb: the limit is on what comes out of the compression.
func TestBomb(t *testing.T) {
	f := start(t, func(c *ingress.Config) { c.MaxMessageBytes = 4096 })
	var packed bytes.Buffer
	writer := gzip.NewWriter(&packed)
	if _, err := writer.Write([]byte(`{"accountId":"` + strings.Repeat("k", 1<<20) + `"}`)); err != nil {
		t.Fatal(err)
	}
	if err := writer.Close(); err != nil {
		t.Fatal(err)
	}
	if packed.Len() > 4096 {
		t.Fatalf("the bomb has %d bytes", packed.Len())
	}
	if got := f.post(t, deposit, packed.String(), "Content-Encoding", "gzip"); got.code != "resource_exhausted" || !strings.Contains(got.message, "4096 bytes") {
		t.Errorf("got %d %s", got.status, got.body)
	}
}
