//go:build unix

package chaos

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// badCall is one request and what must come of it.
type badCall struct {
	name string
	path string
	body string
	// headers in pairs.
	headers []string
	code    string // "" is success
	want    []string
	details bool
	// key is an account that must go on afterwards.
	key string
}

const (
	accountPath  = "/bank.v1.AccountService/"
	transferPath = "/bank.v1.TransferService/"
)

func deposit(key string, amount int) string {
	return fmt.Sprintf(`{"accountId":%q,"amount":"%d"}`, key, amount)
}

func closeOut(key, iban string) string {
	return fmt.Sprintf(`{"accountId":%q,"iban":%q}`, key, iban)
}

// badCalls is a function because every child would make its large bodies as it starts: under the race detector
// that was half of a start's time.
func badCalls() []badCall {
	return []badCall{
		{name: "unknown service", path: "/bank.v1.AcountService/Deposit", body: deposit("a", 5), code: "unimplemented",
			want: []string{"bank.v1.AcountService is not registered", "did you mean bank.v1.AccountService?"}},
		{name: "unknown method", path: accountPath + "Deposti", body: deposit("a", 5), code: "unimplemented",
			want: []string{`no handler "Deposti"`, "did you mean Deposit?", "Withdraw"}},
		{name: "unknown method of a built-in service", path: "/perdure.v1.InvocationService/Atach", body: "{}", code: "unimplemented", want: []string{"Atach"}},
		{name: "key missing", path: accountPath + "Deposit", body: `{"amount":"5"}`, code: "invalid_argument", want: []string{"accountId is empty"}},
		{name: "key empty", path: accountPath + "Deposit", body: deposit("", 5), code: "invalid_argument", want: []string{"accountId is empty"}},
		{name: "key of 256 bytes", path: accountPath + "Deposit", body: deposit(strings.Repeat("k", 256), 5), code: "invalid_argument", want: []string{"256 bytes", "at most 255"}},
		{name: "key of 255 bytes", path: accountPath + "Deposit", body: deposit(strings.Repeat("k", 255), 5)},
		{name: "wrong type", path: accountPath + "Deposit", body: `{"accountId":"a","amount":"five"}`, code: "invalid_argument", want: []string{"amount"}},
		{name: "wrong type of key", path: accountPath + "Deposit", body: `{"accountId":7,"amount":"5"}`, code: "invalid_argument", want: []string{"accountId"}},
		{name: "number too large", path: accountPath + "Deposit", body: `{"accountId":"a","amount":"99999999999999999999"}`, code: "invalid_argument", want: []string{"amount"}},
		{name: "no JSON", path: accountPath + "Deposit", body: `{"accountId":`, code: "invalid_argument"},
		{name: "an array", path: accountPath + "Deposit", body: `[]`, code: "invalid_argument"},
		{name: "empty body", path: accountPath + "Deposit", body: ``, code: "invalid_argument"},
		{name: "oversized", path: accountPath + "CloseOut", body: closeOut("a", strings.Repeat("x", 1<<20)), code: "resource_exhausted", want: []string{"bytes"}},
		{name: "oversized DURABLE of a service", path: "/bench.v1.StepsService/Run10", body: fmt.Sprintf(`{"id":%q}`, strings.Repeat("x", 3<<20)), code: "resource_exhausted", want: []string{"bytes"}},
		{name: "just below the bound", path: "/bench.v1.StepsService/Run10", body: fmt.Sprintf(`{"id":%q,"steps":1}`, strings.Repeat("x", chaosMaxMessage-100))},
		{name: "invalid utf-8", path: accountPath + "Deposit", body: "{\"accountId\":\"a\xff\",\"amount\":\"5\"}", code: "invalid_argument", want: []string{"UTF-8"}},
		{name: "zero byte in key", path: accountPath + "Deposit", body: `{"accountId":"a\u0000b","amount":"5"}`},
		{name: "validation", path: accountPath + "Deposit", body: deposit("a", 0), code: "invalid_argument", want: []string{"amount", "greater than 0"}, details: true},
		{name: "validation of two fields", path: transferPath + "Transfer", body: `{"transferId":"t"}`, code: "invalid_argument", want: []string{"from", "to", "amount"}, details: true},
		{name: "idempotency key too long", path: accountPath + "Deposit", body: deposit("a", 5), headers: []string{"Idempotency-Key", strings.Repeat("k", 256)}, code: "invalid_argument", want: []string{"256 bytes", "at most 255"}},
		{name: "delay that is none", path: accountPath + "Deposit", body: deposit("a", 5), headers: []string{"Perdure-Delay", "tomorrow"}, code: "invalid_argument", want: []string{"tomorrow", "90s"}},
		{name: "delay below zero", path: accountPath + "Deposit", body: deposit("a", 5), headers: []string{"Perdure-Delay", "-1s"}, code: "invalid_argument", want: []string{"-1s"}},
		{name: "send to a READ handler", path: accountPath + "Balance", body: `{"accountId":"a"}`, headers: []string{"Perdure-Send", "1"}, code: "invalid_argument", want: []string{"READ"}},
		{name: "wrong content type", path: accountPath + "Deposit", body: deposit("a", 5), headers: []string{"Content-Type", "text/plain"}, code: "invalid_argument", want: []string{"application/json"}},
		{name: "attach to nothing", path: "/perdure.v1.InvocationService/Attach", body: `{}`, code: "invalid_argument", want: []string{"invocationId is empty"}},
		{name: "attach to nonsense", path: "/perdure.v1.InvocationService/Attach", body: `{"invocationId":"inv_x"}`, code: "invalid_argument", want: []string{"inv_x"}},

		{name: "panic", path: accountPath + "Deposit", body: deposit("panic", 5), code: "internal", want: []string{"panicked"}, key: "panic"},
		{name: "panic in READ", path: accountPath + "Balance", body: `{"accountId":"panic"}`, code: "internal", want: []string{"panicked"}},
		// A handler that returns no response and no error succeeded, with the empty response.
		{name: "nil", path: accountPath + "Deposit", body: deposit("nil", 5)},
		{name: "nil in READ", path: accountPath + "Balance", body: `{"accountId":"nil"}`},
		{name: "nil in DURABLE", path: accountPath + "CloseOut", body: closeOut("nil-durable", "nil"), key: "nil-durable"},
		{name: "panic in DURABLE is tried again", path: accountPath + "CloseOut", body: closeOut("panic-durable", "panic"), key: "panic-durable"},
		{name: "error without a code", path: accountPath + "Deposit", body: deposit("plain-error", 5), code: "unknown", want: []string{"no code"}, key: "plain-error"},
		{name: "blocks", path: accountPath + "Deposit", body: deposit("block", 5), code: "deadline_exceeded", want: []string{"did not end within 2000 ms"}, key: "block"},
		{name: "blocks and is deaf", path: accountPath + "Deposit", body: deposit("block-deaf", 5), code: "deadline_exceeded", want: []string{"did not end within 2000 ms"}, key: "block-deaf"},
		{name: "a TRANSACTION calls itself", path: accountPath + "Deposit", body: deposit("call-itself", 5), code: "failed_precondition", want: []string{"wait for itself", "call-itself"}, key: "call-itself"},
		{name: "a TRANSACTION calls itself through another", path: accountPath + "Deposit", body: deposit("call-around", 5), code: "failed_precondition", want: []string{"call-around", "call-home"}, key: "call-home"},
		{name: "a TRANSACTION calls a DURABLE", path: accountPath + "Deposit", body: deposit("call-durable", 5), code: "failed_precondition", want: []string{"mode: DURABLE"}, key: "call-durable"},
		{name: "a TRANSACTION calls a panic", path: accountPath + "Deposit", body: deposit("call-panic", 5), code: "internal", want: []string{"panicked"}, key: "call-panic"},
		{name: "a TRANSACTION fails after a call", path: accountPath + "Deposit", body: deposit("call-and-fail", 5), code: "aborted", want: []string{"on purpose"}, key: "called-in-vain"},
		{name: "a TRANSACTION too large for a record with its calls", path: accountPath + "Deposit", body: deposit("call-large", 2), code: "resource_exhausted", want: []string{"bytes"}, key: "large-state/0"},
		{name: "Run in a TRANSACTION", path: accountPath + "Deposit", body: deposit("run", 5), code: "failed_precondition", want: []string{"mode: DURABLE"}, key: "run"},
		{name: "Sleep in a TRANSACTION", path: accountPath + "Deposit", body: deposit("sleep", 5), code: "failed_precondition", want: []string{"mode: DURABLE"}, key: "sleep"},
		{name: "calls itself", path: accountPath + "CloseOut", body: closeOut("cycle", "self"), code: "failed_precondition", want: []string{"cycle"}, key: "cycle"},
		{name: "calls a TRANSACTION of itself", path: accountPath + "CloseOut", body: closeOut("cycle-tx", "self-transaction"), code: "failed_precondition", want: []string{"cycle-tx"}, key: "cycle-tx"},
		{name: "calls itself through another", path: accountPath + "CloseOut", body: closeOut("around", "around"), code: "failed_precondition", want: []string{"around"}, key: "around"},
		{name: "step from a foreign goroutine", path: accountPath + "CloseOut", body: closeOut("foreign", "foreign"), code: "failed_precondition", want: []string{"goroutine"}, key: "foreign"},
		{name: "step in a closure", path: accountPath + "CloseOut", body: closeOut("in-run", "in-run"), code: "failed_precondition", want: []string{"inside the closure"}, key: "in-run"},
		{name: "TRANSACTION too large for a record", path: accountPath + "Deposit", body: deposit("large-state/tx", 100), code: "resource_exhausted", want: []string{"bytes"}, key: "large-state/tx"},
		{name: "TRANSACTION of too many rows", path: accountPath + "Deposit", body: deposit("many-rows", 20_000), code: "resource_exhausted", want: []string{"many-rows"}, key: "many-rows"},
		{name: "Run result too large", path: accountPath + "CloseOut", body: closeOut("large-run", "large-run"), code: "resource_exhausted", want: []string{"bytes"}, key: "large-run"},
		{name: "DURABLE response too large", path: accountPath + "CloseOut", body: closeOut("large-response", "large-response"), code: "resource_exhausted", want: []string{"bytes"}, key: "large-response"},
		{name: "DURABLE state of many large rows", path: accountPath + "CloseOut", body: closeOut("large-state/durable", "large-state"), key: "large-state/durable"},
	}
}

const chaosMaxMessage = 512 << 10

// TestBadInput gives a node everything a caller and a handler can do wrong. All accounts share
// one partition, and somebody calls it all the while: bad input must not disturb the others.
func TestBadInput(t *testing.T) {
	n := newNode(t, t.TempDir(), nodeSettings{Partitions: 1, TransactionTimeout: 2 * time.Second, MaxMessageBytes: chaosMaxMessage})
	n.start()
	client := &http.Client{Timeout: 30 * time.Second}
	quit := make(chan struct{})
	var bystander sync.WaitGroup
	var slowest time.Duration
	bystander.Go(func() {
		for {
			select {
			case <-quit:
				return
			case <-time.After(5 * time.Millisecond):
			}
			began := time.Now()
			if got, err := n.post(t.Context(), client, accountPath+"Deposit", deposit("bystander", 1)); err != nil || got.status != http.StatusOK {
				t.Errorf("a bystander's call: %v %s", err, got.body)
			}
			slowest = max(slowest, time.Since(began))
		}
	})
	for _, c := range slices.Concat(badCalls(), badTransactions) {
		t.Run(c.name, func(t *testing.T) {
			got, err := n.post(t.Context(), client, c.path, c.body, c.headers...)
			if err != nil {
				t.Fatal(err)
			}
			t.Logf("HTTP %d %s: %.300s", got.status, got.Code, got.Message)
			if got.Code != c.code || c.code == "" && got.status != http.StatusOK {
				t.Errorf("HTTP %d, code %q, want %q: %.300s", got.status, got.Code, c.code, got.body)
			}
			for _, want := range c.want {
				if !strings.Contains(got.Message, want) {
					t.Errorf("%q does not say %q", got.Message, want)
				}
			}
			if c.details && len(got.Details) == 0 {
				t.Errorf("no details: %s", got.body)
			}
			if c.key == "" {
				return
			}
			after, err := n.post(t.Context(), client, accountPath+"Deposit", deposit(c.key, 1))
			if err != nil || after.status != http.StatusOK {
				t.Errorf("the key does not go on: %v %s", err, after.body)
			}
			if body := strings.ReplaceAll(after.body, " ", ""); after.status == http.StatusOK && body != `{"balance":"1"}` {
				t.Errorf("something of the failed call stayed: %s", body)
			}
		})
	}
	close(quit)
	bystander.Wait()
	t.Logf("the slowest of the calls beside took %s", slowest.Round(time.Millisecond))
	if !n.alive() {
		t.Fatal("the process ended")
	}
	// All of it again after a kill: nothing may come back.
	n.kill()
	n.start()
	if got, err := n.post(t.Context(), client, accountPath+"Deposit", deposit("bystander", 1)); err != nil || got.status != http.StatusOK {
		t.Errorf("after a kill: %v %s", err, got.body)
	}
}

// TestRestOfARefusedRequest: what is left of a request that was refused before its end is no
// request, whoever wrote it there.
func TestRestOfARefusedRequest(t *testing.T) {
	n := newNode(t, t.TempDir(), nodeSettings{Partitions: 1, MaxMessageBytes: chaosMaxMessage})
	n.start()
	hidden := strings.Repeat("GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n", 50_000)
	for name, body := range map[string]string{
		"too large": closeOut("a", strings.Repeat("x", 2*chaosMaxMessage)) + hidden,
		"not JSON":  "[" + hidden,
	} {
		for _, path := range []string{accountPath + "CloseOut", accountPath + "Nothing", "/healthz"} {
			t.Run(name+path, func(t *testing.T) {
				connection, err := net.Dial("tcp", n.address)
				if err != nil {
					t.Fatal(err)
				}
				defer connection.Close()
				if err := connection.SetDeadline(time.Now().Add(10 * time.Second)); err != nil {
					t.Fatal(err)
				}
				go func() { // the node may close before it has read all
					_, _ = fmt.Fprintf(connection, "POST %s HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s", path, len(body), body)
				}()
				answered, _ := io.ReadAll(connection) // until it is closed, or reset
				if responses := strings.Count(string(answered), "HTTP/1.1 "); responses > 1 {
					t.Errorf("%d responses to one request:\n%.1000s", responses, answered)
				}
			})
		}
	}
}

// TestClosingNode: calls to a node that is going or gone get unavailable, never anything else.
func TestClosingNode(t *testing.T) {
	n := newNode(t, t.TempDir(), nodeSettings{Partitions: 1})
	n.start()
	client := &http.Client{Timeout: 10 * time.Second}
	waiting := make(chan answer, 1)
	go func() {
		got, err := n.post(t.Context(), client, accountPath+"CloseOut", closeOut("sleeper", "sleep"), "Idempotency-Key", "sleep")
		if err != nil {
			got.Message = err.Error()
		}
		waiting <- got
	}()
	// It waits when its key is taken: a TRANSACTION on it finds no end.
	for deadline := time.Now().Add(5 * time.Second); ; {
		impatient := &http.Client{Timeout: 200 * time.Millisecond}
		if _, err := n.post(t.Context(), impatient, accountPath+"Deposit", deposit("sleeper", 1)); err != nil {
			break
		}
		if time.Now().After(deadline) {
			t.Fatal("the handler does not hold its key")
		}
	}
	n.stop()
	select {
	case got := <-waiting:
		if got.Code != "unavailable" || got.Message == "" {
			t.Errorf("the call under way: HTTP %d %s", got.status, got.body)
		}
		t.Logf("the call under way: %s", got.Message)
	case <-time.After(5 * time.Second):
		t.Error("the call under way got no answer")
	}
}
