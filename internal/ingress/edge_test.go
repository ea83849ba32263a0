package ingress_test

import (
	"bufio"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"connectrpc.com/connect/v2"
	"connectrpc.com/connect/v2/connecthttp"
	"connectrpc.com/grpcreflect/v2"
	healthv1 "google.golang.org/grpc/health/grpc_health_v1"

	"github.com/perdure/perdure/internal/certificate"
	"github.com/perdure/perdure/internal/certificate/certificatetest"
	"github.com/perdure/perdure/internal/ingress"
	recordv1 "github.com/perdure/perdure/internal/record/v1"
	"github.com/perdure/perdure/internal/routing/routingtest"
)

func TestReflection(t *testing.T) {
	f := start(t, nil)
	client := grpcreflect.NewClient(connect.NewClient(connecthttp.NewTransport(f.h2, f.url, connecthttp.WithGRPC())))
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	stream := client.NewStream(ctx)
	names, err := stream.ListServices()
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, name := range names {
		got = append(got, string(name))
	}
	for _, want := range []string{"bank.v1.AccountService", "shop.v1.OrderService", "perdure.v1.InvocationService", "grpc.health.v1.Health", "grpc.reflection.v1.ServerReflection"} {
		if !slices.Contains(got, want) {
			t.Errorf("%s is not listed: %v", want, got)
		}
	}
	files, err := stream.FileContainingSymbol("bank.v1.AccountService")
	if err != nil {
		t.Fatal(err)
	}
	found := false
	for _, file := range files {
		found = found || file.GetName() == "bank/v1/bank.proto"
	}
	if !found {
		t.Error("bank/v1/bank.proto is not served")
	}
	if err := stream.Close(); err != nil {
		t.Error(err)
	}
}

func TestHealth(t *testing.T) {
	var down atomic.Bool
	f := start(t, func(c *ingress.Config) {
		c.Ready = func() error {
			if down.Load() {
				return errors.New("the disk is full")
			}
			return nil
		}
		c.Metrics = http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "metrics") })
	})
	client := connect.NewClient(connecthttp.NewTransport(f.h2, f.url, connecthttp.WithGRPC()))
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	watch, err := client.CallServerStream(ctx, connect.Spec{StreamType: connect.StreamTypeServer, Procedure: "/grpc.health.v1.Health/Watch"}, &healthv1.HealthCheckRequest{})
	if err != nil {
		t.Fatal(err)
	}
	defer watch.Close()
	next := func() healthv1.HealthCheckResponse_ServingStatus {
		t.Helper()
		var response healthv1.HealthCheckResponse
		if err := watch.Receive(&response); err != nil {
			t.Fatal(err)
		}
		return response.Status
	}
	check := func(service string) (healthv1.HealthCheckResponse_ServingStatus, error) {
		var response healthv1.HealthCheckResponse
		err := client.CallUnary(t.Context(), connect.Spec{Procedure: "/grpc.health.v1.Health/Check"}, &healthv1.HealthCheckRequest{Service: service}, &response)
		return response.Status, err
	}
	if got := next(); got != healthv1.HealthCheckResponse_SERVING {
		t.Errorf("watch: %s", got)
	}
	for _, service := range []string{"", "bank.v1.AccountService"} {
		if got, err := check(service); err != nil || got != healthv1.HealthCheckResponse_SERVING {
			t.Errorf("%q: %s %v", service, got, err)
		}
	}
	if _, err := check("no.Such"); connect.CodeOf(err) != connect.CodeNotFound {
		t.Errorf("no.Such: %v", err)
	}
	if got := f.get(t, "/readyz"); got.status != 200 {
		t.Errorf("readyz: %d", got.status)
	}
	down.Store(true)
	if got := next(); got != healthv1.HealthCheckResponse_NOT_SERVING {
		t.Errorf("watch: %s", got)
	}
	if got, err := check(""); err != nil || got != healthv1.HealthCheckResponse_NOT_SERVING {
		t.Errorf("check: %s %v", got, err)
	}
	if got := f.get(t, "/readyz"); got.status != 503 || !strings.Contains(got.body, "the disk is full") {
		t.Errorf("readyz: %d %s", got.status, got.body)
	}
	if got := f.get(t, "/healthz"); got.status != 200 {
		t.Errorf("healthz: %d", got.status)
	}
	if got := f.get(t, "/metrics"); got.body != "metrics" {
		t.Errorf("metrics: %s", got.body)
	}
}

// TestSlowCallers: neither headers nor a body may trickle in for ever, and a call that waits
// for its result is not taken for one that does.
func TestSlowCallers(t *testing.T) {
	handler, err := ingress.New(ingress.Config{
		Router: &routingtest.Fake{Handle: teller}, Services: services(), Logger: slog.New(slog.DiscardHandler),
		BodyTimeout: 200 * time.Millisecond,
	})
	if err != nil {
		t.Fatal(err)
	}
	server := ingress.NewServer(handler, ingress.ServerConfig{
		Address: "127.0.0.1:0", ReadHeaderTimeout: 200 * time.Millisecond, IdleTimeout: 200 * time.Millisecond,
		MaxHeaderBytes: 4096, Logger: slog.New(slog.DiscardHandler),
	})
	if err := server.Listen(t.Context()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := server.Shutdown(context.Background()); err != nil {
			t.Error(err)
		}
	})
	head := "POST " + deposit + " HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
	for _, test := range []struct{ name, sends, answer string }{
		{"headers", head, ""},
		{"body", head + "Content-Length: 20\r\n\r\n{\"acc", "504"}, // deadline_exceeded
		{"chunked body", head + "Transfer-Encoding: chunked\r\n\r\n5\r\n{\"acc\r\n", "504"},
		{"idle", head + "Content-Length: 17\r\n\r\n{\"accountId\":\"a\"}", "200"},
		{"large headers", head + "X: " + strings.Repeat("x", 16<<10) + "\r\n\r\n", "431"},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			var dialer net.Dialer
			conn, err := dialer.DialContext(t.Context(), "tcp", server.Addr().String())
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			if err := conn.SetDeadline(time.Now().Add(10 * time.Second)); err != nil {
				t.Fatal(err)
			}
			if _, err := io.WriteString(conn, test.sends); err != nil {
				t.Fatal(err)
			}
			// The server must end the connection by itself: ReadAll returns before our deadline.
			got, err := io.ReadAll(conn)
			if errors.Is(err, os.ErrDeadlineExceeded) {
				t.Fatalf("the connection is still open after 10 s; it said %q", got)
			}
			if line, _, _ := strings.Cut(string(got), "\r\n"); !strings.Contains(line, test.answer) {
				t.Errorf("answer: %s", got)
			}
		})
	}
}

// TestBodyTimeoutIsNotACallTimeout is what http.Server.ReadTimeout would get wrong.
func TestBodyTimeoutIsNotACallTimeout(t *testing.T) {
	for _, protocol := range []string{"h1", "h2"} {
		t.Run(protocol, func(t *testing.T) {
			release := make(chan struct{})
			f := start(t, func(c *ingress.Config) { c.BodyTimeout = 50 * time.Millisecond })
			f.router.Fail = func(ctx context.Context, _ *recordv1.Invoke) error {
				select {
				case <-ctx.Done():
					return ctx.Err()
				case <-release:
					return nil
				}
			}
			time.AfterFunc(300*time.Millisecond, func() { close(release) })
			client := map[string]*http.Client{"h1": f.h1, "h2": f.h2}[protocol]
			request, err := http.NewRequestWithContext(t.Context(), http.MethodPost, f.url+deposit, strings.NewReader(`{"accountId":"a"}`))
			if err != nil {
				t.Fatal(err)
			}
			request.Header.Set("Content-Type", "application/json")
			if got := f.do(t, client, request); got.status != 200 {
				t.Errorf("a call longer than the body timeout: %d %s", got.status, got.body)
			}
		})
	}
}

func TestTLS(t *testing.T) {
	authority, path := certificatetest.New(t, "ours"), filepath.Join(t.TempDir(), "cert.pem")
	authority.IssueFile(path, "first")
	config, err := certificate.NewServer(certificate.Files{CertFile: path, KeyFile: path}, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	handler, err := ingress.New(ingress.Config{Router: &routingtest.Fake{Handle: teller}, Services: services()})
	if err != nil {
		t.Fatal(err)
	}
	server := ingress.NewServer(handler, ingress.ServerConfig{Address: "127.0.0.1:0", TLS: config, Logger: slog.New(slog.DiscardHandler)})
	if err := server.Listen(t.Context()); err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := server.Shutdown(t.Context()); err != nil {
			t.Error(err)
		}
	}()
	try := func(change func(*tls.Config)) (name, protocol string, err error) {
		settings := &tls.Config{RootCAs: authority.Pool(), MinVersion: tls.VersionTLS12}
		if change != nil {
			change(settings)
		}
		transport := &http.Transport{TLSClientConfig: settings, ForceAttemptHTTP2: true}
		defer transport.CloseIdleConnections()
		request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "https://"+server.Addr().String()+"/healthz", nil)
		if err != nil {
			t.Fatal(err)
		}
		response, err := transport.RoundTrip(request)
		if err != nil {
			return "", "", err
		}
		response.Body.Close()
		return response.TLS.PeerCertificates[0].Subject.CommonName, response.Proto, nil
	}
	if name, protocol, err := try(nil); err != nil || name != "first" || protocol != "HTTP/2.0" {
		t.Fatalf("got %s over %s: %v", name, protocol, err)
	}
	if _, _, err := try(func(c *tls.Config) { c.MinVersion, c.MaxVersion = tls.VersionTLS10, tls.VersionTLS11 }); err == nil {
		t.Error("TLS 1.1 was accepted")
	}

	// A broken file leaves the old certificate in place, a good one replaces it.
	if err := os.WriteFile(path, []byte("half"), 0o600); err != nil {
		t.Fatal(err)
	}
	time.Sleep(1100 * time.Millisecond) // the reloader looks at most once in a second
	if name, _, err := try(nil); err != nil || name != "first" {
		t.Fatalf("with a broken file: %s %v", name, err)
	}
	authority.IssueFile(path, "second")
	deadline := time.Now().Add(10 * time.Second)
	for {
		name, _, err := try(nil)
		if err == nil && name == "second" {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("the certificate was not reloaded: %s %v", name, err)
		}
		time.Sleep(50 * time.Millisecond)
	}

	// Plain HTTP on a TLS port is told so.
	var dialer net.Dialer
	conn, err := dialer.DialContext(t.Context(), "tcp", server.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if _, err := io.WriteString(conn, "GET / HTTP/1.1\r\nHost: x\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
	line, err := bufio.NewReader(conn).ReadString('\n')
	if err != nil || !strings.Contains(line, "400") {
		t.Errorf("plain HTTP: %q %v", line, err)
	}
}

func TestClientCertificates(t *testing.T) {
	authority, path := certificatetest.New(t, "ours"), filepath.Join(t.TempDir(), "cert.pem")
	authority.IssueFile(path, "both", x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth)
	config, err := certificate.NewServer(certificate.Files{CertFile: path, KeyFile: path, ClientCAFile: authority.File(), MinVersion: tls.VersionTLS13}, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	handler, err := ingress.New(ingress.Config{Router: &routingtest.Fake{}, Services: services()})
	if err != nil {
		t.Fatal(err)
	}
	server := ingress.NewServer(handler, ingress.ServerConfig{Address: "127.0.0.1:0", TLS: config, Logger: slog.New(slog.DiscardHandler)})
	if err := server.Listen(t.Context()); err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := server.Shutdown(t.Context()); err != nil {
			t.Error(err)
		}
	}()
	pair, err := tls.LoadX509KeyPair(path, path)
	if err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		name    string
		present []tls.Certificate
		ok      bool
	}{{"with", []tls.Certificate{pair}, true}, {"without", nil, false}} {
		transport := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: authority.Pool(), Certificates: test.present, MinVersion: tls.VersionTLS13}}
		request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "https://"+server.Addr().String()+"/healthz", nil)
		if err != nil {
			t.Fatal(err)
		}
		response, err := transport.RoundTrip(request)
		if (err == nil) != test.ok {
			t.Errorf("%s a certificate: %v", test.name, err)
		}
		if err == nil {
			response.Body.Close()
		}
		transport.CloseIdleConnections()
	}
}

func TestTLSFilesReportsAllProblems(t *testing.T) {
	err := certificate.Files{CertFile: "c", MinVersion: tls.VersionTLS11}.Validate()
	if err == nil || !strings.Contains(err.Error(), "key file") || !strings.Contains(err.Error(), "TLS 1.1") {
		t.Errorf("got %v", err)
	}
	_, err = certificate.NewServer(certificate.Files{CertFile: "/nowhere/c", KeyFile: "/nowhere/k"}, slog.New(slog.DiscardHandler))
	if err == nil || !strings.Contains(err.Error(), "/nowhere/c") {
		t.Errorf("got %v", err)
	}
}
