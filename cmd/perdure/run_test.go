package main

import (
	"bytes"
	"context"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"
)

func runCLI(ctx context.Context, args ...string) (code int, out, err string) {
	var stdout, stderr bytes.Buffer
	c := &cli{in: strings.NewReader(""), out: &stdout, err: &stderr}
	code = c.run(ctx, args)
	return code, stdout.String(), stderr.String()
}

// TestExitCodes has what scripts branch on, and that an error is one line.
func TestExitCodes(t *testing.T) {
	addr, stop, err := startFake(nil)
	if err != nil {
		t.Fatal(err)
	}
	defer stop()
	for _, test := range []struct {
		args []string
		code int
	}{
		{[]string{"services", "list"}, exitOK},
		{[]string{"version"}, exitOK},
		{[]string{"call", "bank.v1.AccountService/Deposit", `{"accountId":"a","amount":"1"}`}, exitOK},
		{[]string{"call", "bank.v1.AccountService/Withdraw", `{"accountId":"a"}`}, exitFailed},
		{[]string{"call", "bank.v1.AccountService/Nope"}, exitFailed},
		{[]string{"invocations", "get", id(4).String()}, exitFailed},
		{[]string{"invocations", "cancel", id(4).String()}, exitFailed},
		{[]string{"check", "nope", "nope"}, exitFailed},
		{[]string{"--addr", "127.0.0.1:1", "node"}, exitFailed},
		{[]string{"call"}, exitUsage},
		{[]string{"call", "a"}, exitUsage},
		{[]string{"nope"}, exitUsage},
		{[]string{"state", "nope"}, exitUsage},
		{[]string{"node", "--nope"}, exitUsage},
		{[]string{"node", "nope"}, exitUsage},
		{[]string{"node", "-o", "yaml"}, exitUsage},
		{[]string{"invocations", "list", "--limit", "many"}, exitUsage},
	} {
		code, _, stderr := runCLI(t.Context(), append([]string{"--addr", addr}, test.args...)...)
		if code != test.code {
			t.Errorf("perdure %s: exit code %d, want %d; it said %q", strings.Join(test.args, " "), code, test.code, stderr)
		}
		if lines := strings.Count(stderr, "\n"); (code == exitOK) != (stderr == "") || lines > 1 {
			t.Errorf("perdure %s: exit code %d and %d lines: %q", strings.Join(test.args, " "), code, lines, stderr)
		}
	}
}

func TestInterrupted(t *testing.T) {
	addr, stop, err := startFake(nil)
	if err != nil {
		t.Fatal(err)
	}
	defer stop()
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	code, _, stderr := runCLI(ctx, "--addr", addr, "attach", id(1).String())
	if code != exitFailed || !strings.Contains(stderr, "interrupted; what the node has accepted goes on") {
		t.Errorf("exit code %d, %q", code, stderr)
	}
}

// TestStrangers talks to servers that are no nodes, or no longer.
func TestStrangers(t *testing.T) {
	for _, test := range []struct {
		name   string
		answer http.HandlerFunc
		want   string
	}{
		{"a web server", func(w http.ResponseWriter, _ *http.Request) { http.Error(w, "nothing here", http.StatusNotFound) }, "is no perdure node (404 Not Found: nothing here); check --addr"},
		{"a page", func(w http.ResponseWriter, _ *http.Request) { w.Header().Set("Content-Type", "text/html") }, "is no perdure node"},
		{"other JSON", func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "application/json")
			_, _ = w.Write([]byte("[]"))
		}, "does not understand"},
		{"a node that dies", func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }, "whether it did what was asked is not known"},
		{"an old node", func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "application/json")
			w.WriteHeader(http.StatusNotImplemented)
			_, _ = w.Write([]byte(`{"code":"unimplemented","message":"no such service"}`))
		}, "does not know AdminService/GetNode"},
	} {
		server := httptest.NewServer(test.answer)
		code, _, stderr := runCLI(t.Context(), "--addr", server.URL, "node")
		server.Close()
		if code != exitFailed || !strings.Contains(stderr, test.want) {
			t.Errorf("%s: exit code %d, %q; want %q", test.name, code, stderr, test.want)
		}
	}
}

func TestUnpack(t *testing.T) {
	for _, test := range []struct{ answer, want string }{
		{`{"response": {"@type": "type.googleapis.com/a.B",  "z": 1, "a": [1, 2]}}`, `{"z":1,"a":[1,2]}`},
		{`{"response":{"@type":"type.googleapis.com/a.B"}}`, `{}`},
		{`{"response":{"@type":"type.googleapis.com/google.protobuf.Duration","value":"5s"}}`, `"5s"`},
	} {
		got, err := unpack([]byte(test.answer))
		if err != nil || string(got) != test.want {
			t.Errorf("unpack(%s) is %s, %v; want %s", test.answer, got, err, test.want)
		}
	}
}

func TestBoldKeepsColumns(t *testing.T) {
	var plain, bold bytes.Buffer
	rows := [][]string{{"ä", "1"}, {"long\ntext", "2"}}
	(&cli{out: &plain}).table("", []string{"A", "B"}, rows)
	(&cli{out: &bold, bold: true}).table("", []string{"A", "B"}, rows)
	if want := "A          B\nä          1\nlong·text  2\n"; plain.String() != want {
		t.Errorf("got\n%s\nwant\n%s", plain.String(), want)
	}
	if got := strings.NewReplacer("\x1b[1m", "", "\x1b[0m", "").Replace(bold.String()); got != plain.String() || got == bold.String() {
		t.Errorf("bold is %q", bold.String())
	}
}

// TestListGoesOn: what a list says ends with a token that a second list goes on with.
func TestListGoesOn(t *testing.T) {
	addr, stop, err := startFake(nil)
	if err != nil {
		t.Fatal(err)
	}
	defer stop()
	seen := map[string]bool{}
	list := []string{"--addr", addr, "invocations", "list", "--limit", "1"}
	more := list
	for pages := 1; ; pages++ {
		code, out, stderr := runCLI(t.Context(), more...)
		if code != exitOK {
			t.Fatalf("%v: exit code %d, %q", more, code, stderr)
		}
		for _, line := range strings.Split(strings.TrimSpace(out), "\n")[1:] {
			seen[strings.Fields(line)[0]] = true
		}
		_, token, ok := strings.Cut(strings.TrimSpace(stderr), "--page-token ")
		if !ok || pages > 5 {
			break
		}
		more = append(slices.Clone(list), "--page-token", token)
	}
	if len(seen) != len(invocations()) {
		t.Errorf("the pages held %d of %d invocations", len(seen), len(invocations()))
	}
}

// TestListStopsLooking has a node that keeps millions of invocations, none of which match.
func TestListStopsLooking(t *testing.T) {
	pages := 0
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		pages++
		w.Header().Set("Content-Type", "application/json")
		_, _ = w.Write([]byte(`{"scanned":"20000","nextPageToken":"further"}`))
	}))
	defer server.Close()
	code, out, stderr := runCLI(t.Context(), "--addr", server.URL, "invocations", "list", "--service", "a.B", "--handler", "Rare")
	want := "… 0 of 1000000 invocations match so far, and there are more to look at: filter, or go on with --page-token further\n"
	if code != exitOK || out != "" || stderr != want || pages != maxScanned/20_000 {
		t.Errorf("exit code %d after %d pages, %q, %q", code, pages, out, stderr)
	}
}

// TestBatchGoesOn: one that was interrupted says how to go on, and what follows does the rest.
func TestBatchGoesOn(t *testing.T) {
	addr, stop, err := startFake(nil)
	if err != nil {
		t.Fatal(err)
	}
	defer stop()
	pages := 0
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if pages++; pages == 2 {
			w.Header().Set("Content-Type", "application/json")
			w.WriteHeader(http.StatusServiceUnavailable)
			_, _ = w.Write([]byte(`{"code":"unavailable","message":"the node is shutting down"}`))
			return
		}
		request, err := http.NewRequestWithContext(r.Context(), r.Method, addr+r.URL.Path, r.Body)
		if err != nil {
			t.Error(err)
			return
		}
		request.Header = r.Header
		response, err := http.DefaultClient.Do(request)
		if err != nil {
			t.Error(err)
			return
		}
		defer response.Body.Close()
		w.Header().Set("Content-Type", response.Header.Get("Content-Type"))
		w.WriteHeader(response.StatusCode)
		_, _ = io.Copy(w, response.Body)
	}))
	defer server.Close()
	code, out, stderr := runCLI(t.Context(), "--addr", server.URL, "-H", "Authorization: secret", "invocations", "purge", "--status", "suspended,failed,backing_off", "--older-than", "1ms", "--yes")
	_, line, ok := strings.Cut(stderr, "go on with: perdure ")
	line = firstLine(line)
	if code != exitFailed || out != "" || !ok || !strings.Contains(line, "--go-on") || strings.Contains(line, "secret") || strings.Contains(line, "older-than") {
		t.Fatalf("exit code %d, %q, %q", code, out, stderr)
	}
	code, out, stderr = runCLI(t.Context(), strings.Fields(line)...)
	if code != exitOK || !strings.HasPrefix(out, "1 invocation purged of 1 that match") {
		t.Errorf("%s: exit code %d, %q, %q", line, code, out, stderr)
	}
}
