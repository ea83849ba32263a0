package header

import (
	"iter"
	"maps"
	"net/http"
	"slices"
	"strings"
	"testing"

	recordv1 "github.com/perdure/perdure/internal/record/v1"
)

type sent http.Header

func (s sent) Values(name string) []string      { return http.Header(s).Values(name) }
func (s sent) All() iter.Seq2[string, []string] { return maps.All(s) }

func request(pairs ...string) sent {
	headers := http.Header{}
	for i := 0; i < len(pairs); i += 2 {
		headers.Add(pairs[i], pairs[i+1])
	}
	return sent(headers)
}

func text(headers []*recordv1.Header) string {
	var all []string
	for name, value := range All(headers) {
		all = append(all, name+"="+value)
	}
	return strings.Join(all, "; ")
}

// TestSecret: what users call their secrets is recognised, and what only sounds like one is not.
func TestSecret(t *testing.T) {
	for name := range strings.FieldsSeq(`authorization proxy-authorization cookie set-cookie x-auth auth x-auth-token x-api-key api-key apikey x-apikey
		x-goog-api-key ocp-apim-subscription-key x-functions-key x-amz-security-token x-csrf-token x-xsrf-token csrf x-vault-token private-token
		x-acme-secret client_secret x-password x-session-id session x-hub-signature x-hub-signature-256 x-goog-iap-jwt-assertion dpop x.access.token
		x-amzn-oidc-accesstoken www-authenticate x-encryption-key`) {
		if !Secret(name) {
			t.Errorf("%s is kept", name)
		}
		if err := CheckName(name); err == nil || !strings.Contains(err.Error(), "secret") {
			t.Errorf("%s: %v", name, err)
		}
	}
	for name := range strings.FieldsSeq(`x-request-id x-correlation-id accept-language user-agent baggage x-author x-partition-key x-routing-key
		x-auth-request-user x-auth-request-email x-forwarded-for forwarded tokenizer x-keyboard origin referer b3`) {
		if err := CheckName(name); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	for name := range strings.FieldsSeq("content-type content-length grpc-timeout connect-timeout-ms perdure-tenant idempotency-key traceparent host te trace-bin") {
		if err := CheckName(name); err == nil || !strings.Contains(err.Error(), "protocol") {
			t.Errorf("%s: %v", name, err)
		}
	}
	for _, name := range []string{"", "x y", "x:y", "X-Upper", "ü", strings.Repeat("x", MaxNameBytes+1), "x\x00"} {
		if CheckName(name) == nil {
			t.Errorf("%q is a name", name)
		}
	}
}

func TestRule(t *testing.T) {
	for _, bad := range []string{"*", "x-*", "X-*", "-*", "acme*", "x-acme-*-y", "Authorization", "X-Acme-Token", "x-secret-*", "grpc-*", "Perdure-*", "", "a b"} {
		if _, err := NewRule([]string{"x-fine", bad}); err == nil {
			t.Errorf("%q is taken", bad)
		}
	}
	if rule, err := NewRule(nil); rule != nil || err != nil {
		t.Errorf("no names: %v, %v", rule, err)
	}
	rule, err := NewRule([]string{"X-Request-ID", "x-acme-*", "accept-language"})
	if err != nil {
		t.Fatal(err)
	}
	kept, err := OfRequest(request("x-request-id", "7", "X-Acme-Team", "blue", "x-acme-team", "red", "X-Acme-Token", "s3cret", "X-Other", "no", "Authorization", "s3cret"), rule, nil)
	if err != nil || text(kept) != "x-acme-team=blue, red; x-request-id=7" {
		t.Errorf("kept %q, %v", text(kept), err)
	}
	// What the request itself names comes on top; what it names and has not is nothing.
	kept, err = OfRequest(request("X-Other", "yes", "X-Acme-Team", "blue"), rule, []string{" X-Other , x-missing", "x-third"})
	if err != nil || text(kept) != "x-acme-team=blue; x-other=yes" {
		t.Errorf("kept %q, %v", text(kept), err)
	}
	if _, err = OfRequest(request("Cookie", "s3cret"), nil, []string{"cookie"}); err == nil || strings.Contains(err.Error(), "s3cret") {
		t.Errorf("a cookie: %v", err)
	}
	for _, list := range []string{"", "x-a,", ",", "x-a x-b"} {
		if _, err = OfRequest(request("X-A", "1"), nil, []string{list}); err == nil {
			t.Errorf("the list %q is taken", list)
		}
	}
}

func TestBounds(t *testing.T) {
	many := map[string]string{}
	for i := range MaxCount {
		many["x-"+string(rune('a'+i/8))+string(rune('a'+i%8))] = "v"
	}
	if kept, err := OfCall(many); err != nil || len(kept) != MaxCount || !slices.IsSortedFunc(kept, func(a, b *recordv1.Header) int { return strings.Compare(a.Name, b.Name) }) {
		t.Errorf("%d headers: %v", len(kept), err)
	}
	many["x-more"] = "v"
	if _, err := OfCall(many); err == nil || !strings.Contains(err.Error(), "33 headers") || !strings.Contains(err.Error(), "at most 32") {
		t.Errorf("one too many: %v", err)
	}
	long := strings.Repeat("v", MaxBytes-len("x-long"))
	if _, err := OfCall(map[string]string{"x-long": long}); err != nil {
		t.Error(err)
	}
	if _, err := OfCall(map[string]string{"x-long": long, "y": ""}); err == nil || !strings.Contains(err.Error(), "4097 bytes") || !strings.Contains(err.Error(), "x-long alone has") {
		t.Errorf("a byte too many: %v", err)
	}
	for _, value := range []string{"a\nb", "a\x00", " a", "a ", "\xff", "a\x7f"} {
		if _, err := OfCall(map[string]string{"x-v": value}); err == nil || !strings.Contains(err.Error(), "x-v") {
			t.Errorf("%q: %v", value, err)
		}
	}
	if kept, err := OfCall(map[string]string{"x-v": "Zürich, 東京"}); err != nil || text(kept) != "x-v=Zürich, 東京" {
		t.Errorf("%q, %v", text(kept), err)
	}
	if _, err := OfCall(map[string]string{"x-api-key": "s3cret"}); err == nil || strings.Contains(err.Error(), "s3cret") {
		t.Errorf("a secret: %v", err)
	}
}

// TestNothingKept: a request that has nothing to keep costs nothing.
func TestNothingKept(t *testing.T) {
	plain := request("User-Agent", "curl")
	if n := testing.AllocsPerRun(100, func() {
		if kept, err := OfRequest(plain, nil, nil); kept != nil || err != nil {
			t.Error(kept, err)
		}
		if kept, err := OfCall(nil); kept != nil || err != nil {
			t.Error(kept, err)
		}
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}
