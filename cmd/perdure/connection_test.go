package main

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/perdure/perdure/internal/certificate/certificatetest"
)

func writePEM(t *testing.T, content []byte) string {
	t.Helper()
	name := filepath.Join(t.TempDir(), "file.pem")
	if err := os.WriteFile(name, content, 0o600); err != nil {
		t.Fatal(err)
	}
	return name
}

// TestSecureConnection talks to a node that asks for a client's certificate.
func TestSecureConnection(t *testing.T) {
	authority := certificatetest.New(t, "clients")
	certificate, private := authority.Issue("client", x509.ExtKeyUsageClientAuth)
	cert, key := writePEM(t, certificate), writePEM(t, private)
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		_, _ = w.Write([]byte(`{}`))
	}))
	server.Config.ErrorLog = log.New(io.Discard, "", 0)
	server.TLS = &tls.Config{ClientAuth: tls.RequireAndVerifyClientCert, ClientCAs: authority.Pool()}
	server.StartTLS()
	defer server.Close()
	plain := httptest.NewServer(http.NotFoundHandler())
	defer plain.Close()
	ca := writePEM(t, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw}))
	for _, test := range []struct {
		name string
		args []string
		code int
		want string
	}{
		{"all there is", []string{"--addr", server.URL, "--ca", ca, "--cert", cert, "--cert-key", key}, exitOK, ""},
		{"an authority nobody knows", []string{"--addr", server.URL}, exitFailed, "give its authority with --ca"},
		{"no certificate", []string{"--addr", server.URL, "--ca", ca}, exitFailed, "certificate required): give a certificate"},
		{"no TLS there", []string{"--addr", strings.Replace(plain.URL, "http:", "https:", 1), "--ca", ca}, exitFailed, "has no TLS: give --addr http://"},
		{"half a pair", []string{"--addr", server.URL, "--cert", cert}, exitUsage, "need each other"},
		{"no TLS wanted", []string{"--addr", plain.URL, "--ca", ca}, exitUsage, "must start with https://"},
		{"no such file", []string{"--addr", server.URL, "--ca", ca + ".none"}, exitFailed, "--ca: open"},
		{"not a certificate", []string{"--addr", server.URL, "--ca", key}, exitFailed, "holds no certificate in PEM form"},
		{"not a pair", []string{"--addr", server.URL, "--cert", key, "--cert-key", key}, exitFailed, "--cert-key"},
	} {
		code, _, stderr := runCLI(t.Context(), append(test.args, "services", "list")...)
		if code != test.code || !strings.Contains(stderr, test.want) || strings.Count(stderr, "\n") > 1 {
			t.Errorf("%s: exit code %d, %q; want %d, %q", test.name, code, stderr, test.code, test.want)
		}
	}
}

func TestHeadersAreSent(t *testing.T) {
	var got []http.Header
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		got = append(got, r.Header)
		w.Header().Set("Content-Type", "application/json")
		_, _ = w.Write([]byte(`{}`))
	}))
	defer server.Close()
	with := []string{"--addr", server.URL, "-H", "Authorization: Bearer a,b:c", "-H", "x-tag:1", "-H", "X-Tag: 2", "-H", "X-Empty:"}
	for _, command := range [][]string{{"services", "list"}, {"call", "a.B/C"}} {
		if code, _, stderr := runCLI(t.Context(), append(slices.Clone(with), command...)...); code != exitOK {
			t.Fatalf("exit code %d, %q", code, stderr)
		}
	}
	for _, header := range got {
		if header.Get("Authorization") != "Bearer a,b:c" || !slices.Equal(header.Values("X-Tag"), []string{"1", "2"}) ||
			len(header.Values("X-Empty")) != 1 || header.Get("Content-Type") != "application/json" {
			t.Errorf("the headers are %v", header)
		}
	}
	if len(got) != 2 {
		t.Errorf("%d requests", len(got))
	}
	for _, bad := range []struct{ header, want string }{
		{"Authorization", "is not 'Name: value'"}, {": x", "is not 'Name: value'"}, {"A B: x", "is not 'Name: value'"},
		{"X: a\nY: b", "control character"}, {"content-type: text/plain", "set by this command itself"},
	} {
		code, _, stderr := runCLI(t.Context(), "--addr", server.URL, "-H", bad.header, "services", "list")
		if code != exitUsage || !strings.Contains(stderr, bad.want) || strings.Count(stderr, "\n") > 1 {
			t.Errorf("%q: exit code %d, %q; want %q", bad.header, code, stderr, bad.want)
		}
	}
}
