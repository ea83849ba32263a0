package ingress_test

import (
	"net/http"
	"strings"
	"testing"

	"connectrpc.com/connect/v2"
	"connectrpc.com/connect/v2/connecthttp"

	bankv1 "github.com/perdure/perdure/examples/bank/gen/bank/v1"
	"github.com/perdure/perdure/internal/header"
	"github.com/perdure/perdure/internal/ingress"
	recordv1 "github.com/perdure/perdure/internal/record/v1"
)

func headerText(in *recordv1.Invoke) string {
	var all []string
	for name, value := range header.All(in.GetHeaders()) {
		all = append(all, name+"="+value)
	}
	return strings.Join(all, " ")
}

// TestHeadersAreKept: those that the node keeps and those that the caller names, over each protocol; none
// without either.
func TestHeadersAreKept(t *testing.T) {
	f := start(t, func(c *ingress.Config) { c.Headers = []string{"X-Request-Id", "x-acme-*"} })
	spec := connect.Spec{Procedure: deposit}
	for name, protocol := range map[string]struct {
		client  *http.Client
		options []connecthttp.Option
	}{
		"connect": {f.h1, nil}, "json": {f.h1, []connecthttp.Option{connecthttp.WithProtoJSON()}}, "h2c": {f.h2, nil},
		"grpc": {f.h2, []connecthttp.Option{connecthttp.WithGRPC()}}, "grpc-web": {f.h1, []connecthttp.Option{connecthttp.WithGRPCWeb()}},
	} {
		client := connect.NewClient(connecthttp.NewTransport(protocol.client, f.url, protocol.options...))
		ctx, info := connect.NewClientContext(t.Context())
		for name, value := range map[string]string{
			"X-Request-Id": "7", "X-Acme-Team": "blue", "X-Acme-Token": "s3cret", "Authorization": "s3cret", "Cookie": "s3cret",
			"X-Other": "o", "X-More": "m", "Perdure-Headers": "x-more, X-Missing",
		} {
			info.RequestHeader().Set(name, value)
		}
		info.RequestHeader().Add("x-acme-team", "red")
		if err := client.CallUnary(ctx, spec, &bankv1.DepositRequest{AccountId: "a", Amount: 5}, &bankv1.DepositResponse{}); err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if got := headerText(last(t, f)); got != "x-acme-team=blue, red x-more=m x-request-id=7" {
			t.Errorf("%s: kept %q", name, got)
		}
	}
	f = start(t, nil)
	f.post(t, deposit, `{"accountId":"a","amount":"5"}`, "X-Request-Id", "7", "User-Agent", "curl")
	if got := headerText(last(t, f)); got != "" {
		t.Errorf("unasked: %q", got)
	}
}

// TestHeadersAreRefused: clearly, and without the value.
func TestHeadersAreRefused(t *testing.T) {
	f := start(t, func(c *ingress.Config) { c.Headers = []string{"X-Request-Id"} })
	for _, bad := range []struct{ list, name, value, text string }{
		{"authorization", "Authorization", "s3cret", "authorization is a secret"},
		{"x-a, X-Api-Key", "X-Api-Key", "s3cret", "x-api-key is a secret"},
		{"content-type", "X-A", "s3cret", "content-type is the protocol's own"},
		{"", "X-A", "s3cret", "no name"},
		{"x a", "X-A", "s3cret", "letters"},
		{"x-a", "X-A", strings.Repeat("s3cret", 1000), "6003 bytes; at most 4096"},
		{"x-b", "X-Request-Id", strings.Repeat("s3cret", 1000), "6012 bytes; at most 4096"},
		{"x-a", "X-A", "s3cret\xff", "not valid utf-8"},
	} {
		answer := f.post(t, deposit, `{"accountId":"a","amount":"5"}`, "Perdure-Headers", bad.list, bad.name, bad.value)
		if answer.code != "invalid_argument" || !strings.Contains(answer.message, bad.text) || strings.Contains(answer.body, "s3cret") {
			t.Errorf("%s, %s: %s %.200s", bad.list, bad.name, answer.code, answer.body)
		}
	}
	if calls := f.router.Calls(); len(calls) != 0 {
		t.Errorf("%d calls were made", len(calls))
	}
	if _, err := ingress.New(ingress.Config{Router: f.router, Headers: []string{"Cookie", "*"}}); err == nil || !strings.Contains(err.Error(), "cookie") || !strings.Contains(err.Error(), `"*"`) {
		t.Errorf("a node that keeps cookies: %v", err)
	}
}
