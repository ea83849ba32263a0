package ingress_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"testing"

	"connectrpc.com/connect/v2"
	"connectrpc.com/connect/v2/connecthttp"

	"github.com/perdure/perdure/internal/certificate"
	"github.com/perdure/perdure/internal/certificate/certificatetest"
	"github.com/perdure/perdure/internal/ingress"
	"github.com/perdure/perdure/internal/routing/routingtest"
	adminv1 "github.com/perdure/perdure/proto/perdure/admin/v1"
)

// stubAdmin has one rpc of the admin service.
type stubAdmin struct{}

const getNode = "/perdure.admin.v1.AdminService/GetNode"

func (stubAdmin) Register(server *connect.Server) {
	schema := adminv1.File_perdure_admin_v1_admin_proto.Services().ByName("AdminService").Methods().ByName("GetNode")
	server.Register(connect.Method{
		Spec: connect.Spec{StreamType: connect.StreamTypeUnary, Procedure: getNode, Schema: schema},
		Handler: func(_ context.Context, _ connect.Spec, stream connect.ServerStream) error {
			var request adminv1.GetNodeRequest
			if err := stream.Receive(&request); err != nil {
				return err
			}
			return stream.Send(&adminv1.GetNodeResponse{NodeId: "n-1"})
		},
	})
}

func withAdmin(c *ingress.Config) { c.Others = []ingress.Other{stubAdmin{}} }

// TestAdminIsForThisMachine: what a request says of itself makes nobody local.
func TestAdminIsForThisMachine(t *testing.T) {
	for _, test := range []struct {
		name    string
		from    string
		host    string
		headers []string
		remote  bool // Config.RemoteOthers
		want    int
	}{
		{name: "IPv4", from: "127.0.0.1:5000", want: 200},
		{name: "another of the loopback network", from: "127.9.9.9:5000", want: 200},
		{name: "IPv6", from: "[::1]:5000", host: "[::1]:7373", want: 200},
		{name: "IPv4 in IPv6", from: "[::ffff:127.0.0.1]:5000", want: 200},
		{name: "by address", from: "127.0.0.1:5000", host: "127.0.0.1", want: 200},
		{name: "another machine", from: "10.1.2.3:5000", want: 403},
		{name: "another machine by IPv6", from: "[2001:db8::1]:5000", want: 403},
		{name: "another machine that says it is this one", from: "10.1.2.3:5000", want: 403,
			headers: []string{"X-Forwarded-For", "127.0.0.1", "Forwarded", "for=127.0.0.1", "X-Real-Ip", "127.0.0.1"}},
		{name: "a proxy here", from: "127.0.0.1:5000", headers: []string{"X-Forwarded-For", "10.1.2.3"}, want: 403},
		{name: "a page whose name leads here", from: "127.0.0.1:5000", host: "evil.example:7373", want: 403},
		{name: "no address", from: "@", want: 403},
		{name: "another machine that may", from: "10.1.2.3:5000", remote: true, want: 200},
	} {
		t.Run(test.name, func(t *testing.T) {
			handler, err := ingress.New(ingress.Config{Router: &routingtest.Fake{Handle: teller}, Services: services(),
				Logger: slog.New(slog.DiscardHandler), Others: []ingress.Other{stubAdmin{}}, RemoteOthers: test.remote})
			if err != nil {
				t.Fatal(err)
			}
			do := func(path, body string) *httptest.ResponseRecorder {
				request := httptest.NewRequestWithContext(t.Context(), http.MethodPost, path, strings.NewReader(body))
				request.RemoteAddr, request.Host = test.from, "localhost:7373"
				if test.host != "" {
					request.Host = test.host
				}
				request.Header.Set("Content-Type", "application/json")
				for i := 0; i < len(test.headers); i += 2 {
					request.Header.Set(test.headers[i], test.headers[i+1])
				}
				recorder := httptest.NewRecorder()
				handler.ServeHTTP(recorder, request)
				return recorder
			}
			got := do(getNode, "{}")
			if got.Code != test.want {
				t.Errorf("status %d, want %d: %s", got.Code, test.want, got.Body)
			}
			if got.Code == 403 && (!strings.Contains(got.Body.String(), `"permission_denied"`) || !strings.Contains(got.Body.String(), "--remote-admin")) {
				t.Errorf("it says %s", got.Body)
			}
			// Handlers and invocations are for everybody.
			if got := do(deposit, `{"accountId":"alice","amount":"5"}`); got.Code != 200 {
				t.Errorf("a call: status %d: %s", got.Code, got.Body)
			}
			if got := do("/perdure.v1.InvocationService/Attach", `{}`); got.Code != 400 {
				t.Errorf("an attach: status %d: %s", got.Code, got.Body)
			}
		})
	}
}

// TestAdminByProtocol: the refusal is in the protocol that the caller speaks, and the Server
// tells connections apart in HTTP/1.1 and HTTP/2.
func TestAdminByProtocol(t *testing.T) {
	f := start(t, withAdmin)
	for _, client := range []*http.Client{f.h1, f.h2} {
		for _, protocol := range []struct {
			name    string
			options []connecthttp.Option
		}{{"connect", nil}, {"grpc", []connecthttp.Option{connecthttp.WithGRPC()}}, {"grpc-web", []connecthttp.Option{connecthttp.WithGRPCWeb()}}} {
			if protocol.name == "grpc" && client == f.h1 {
				continue
			}
			caller := connect.NewClient(connecthttp.NewTransport(client, f.url, protocol.options...))
			spec := connect.Spec{Procedure: getNode}
			ctx, _ := connect.NewClientContext(t.Context())
			var response adminv1.GetNodeResponse
			if err := caller.CallUnary(ctx, spec, &adminv1.GetNodeRequest{}, &response); err != nil || response.GetNodeId() != "n-1" {
				t.Errorf("%s: %v %v", protocol.name, &response, err)
			}
			ctx, info := connect.NewClientContext(t.Context())
			info.RequestHeader().Set("X-Forwarded-For", "10.1.2.3")
			err := caller.CallUnary(ctx, spec, &adminv1.GetNodeRequest{}, &response)
			if connect.CodeOf(err) != connect.CodePermissionDenied || !strings.Contains(err.Error(), "own machine") {
				t.Errorf("%s through a proxy: %v", protocol.name, err)
			}
		}
	}
}

// TestRemoteAddrOfMiddleware: on our own listener the connection counts, not what somebody made
// of Request.RemoteAddr.
func TestRemoteAddrOfMiddleware(t *testing.T) {
	handler, err := ingress.New(ingress.Config{Router: &routingtest.Fake{}, Services: services(),
		Logger: slog.New(slog.DiscardHandler), Others: []ingress.Other{stubAdmin{}}})
	if err != nil {
		t.Fatal(err)
	}
	rewriting := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		r.RemoteAddr = "10.1.2.3:5000"
		handler.ServeHTTP(w, r)
	})
	if status := callAdmin(t, rewriting, nil, false, http.DefaultClient, ""); status != 200 {
		t.Errorf("status %d", status)
	}
}

// callAdmin serves handler and calls it once, as evil.example if host is that.
func callAdmin(t *testing.T, handler http.Handler, settings *tls.Config, certificates bool, client *http.Client, host string) int {
	t.Helper()
	server := ingress.NewServer(handler, ingress.ServerConfig{
		Address: "127.0.0.1:0", TLS: settings, ClientCertificates: certificates, Logger: slog.New(slog.DiscardHandler)})
	if err := server.Listen(t.Context()); err != nil {
		t.Fatal(err)
	}
	defer func() {
		client.CloseIdleConnections()
		if err := server.Shutdown(context.WithoutCancel(t.Context())); err != nil {
			t.Error(err)
		}
	}()
	url := "http://"
	if settings != nil {
		url = "https://"
	}
	request, err := http.NewRequestWithContext(t.Context(), http.MethodPost, url+server.Addr().String()+getNode, strings.NewReader("{}"))
	if err != nil {
		t.Fatal(err)
	}
	request.Host = host
	request.Header.Set("Content-Type", "application/json")
	response, err := client.Do(request)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	return response.StatusCode
}

// TestAdminWithCertificate: a verified certificate lets callers in from anywhere, if the server
// was made to ask for one of its own authorities.
func TestAdminWithCertificate(t *testing.T) {
	handler, err := ingress.New(ingress.Config{Router: &routingtest.Fake{}, Services: services(),
		Logger: slog.New(slog.DiscardHandler), Others: []ingress.Other{stubAdmin{}}})
	if err != nil {
		t.Fatal(err)
	}
	authority, path := certificatetest.New(t, "ours"), filepath.Join(t.TempDir(), "cert.pem")
	authority.IssueFile(path, "both", x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth)
	clients := authority.File()
	own, err := tls.LoadX509KeyPair(path, path)
	if err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		name         string
		clients      string
		certificates bool
		present      []tls.Certificate
		want         int
	}{
		{"verified", clients, true, []tls.Certificate{own}, 200},
		{"verified by a server that doesn't vouch", clients, false, []tls.Certificate{own}, 403},
		{"none asked for", "", false, nil, 403},
		{"none shown", "", true, nil, 403},
	} {
		t.Run(test.name, func(t *testing.T) {
			settings, err := certificate.NewServer(certificate.Files{CertFile: path, KeyFile: path, ClientCAFile: test.clients}, slog.New(slog.DiscardHandler))
			if err != nil {
				t.Fatal(err)
			}
			for _, h2 := range []bool{false, true} {
				transport := &http.Transport{ForceAttemptHTTP2: h2, TLSClientConfig: &tls.Config{
					RootCAs: authority.Pool(), Certificates: test.present, ServerName: "localhost", MinVersion: tls.VersionTLS12}}
				if status := callAdmin(t, handler, settings, test.certificates, &http.Client{Transport: transport}, "evil.example"); status != test.want {
					t.Errorf("status %d, want %d", status, test.want)
				}
			}
		})
	}
}
