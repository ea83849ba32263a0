package cluster_test

import (
	"bytes"
	"context"
	"io"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"testing"

	"github.com/perdure/perdure/cluster"
)

// otherAddress is one of this machine's addresses that is not loopback, so that a connection to
// it comes from there, as another machine's would.
func otherAddress(t *testing.T) string {
	t.Helper()
	addresses, err := net.InterfaceAddrs()
	if err != nil {
		t.Fatal(err)
	}
	for _, address := range addresses {
		if network, ok := address.(*net.IPNet); ok && network.IP.To4() != nil && !network.IP.IsLoopback() {
			return network.IP.String()
		}
	}
	t.Skip("this machine has no address but loopback")
	return ""
}

func request(t *testing.T, url, body string) (int, string) {
	t.Helper()
	return keyed(t, url, "", body)
}

// keyed is request with an idempotency key, so that it may be repeated.
func keyed(t *testing.T, url, key, body string) (int, string) {
	t.Helper()
	request, err := http.NewRequestWithContext(soon(t), http.MethodPost, url, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	request.Header.Set("Content-Type", "application/json")
	if key != "" {
		request.Header.Set("Idempotency-Key", key)
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	if err != nil {
		t.Fatal(err)
	}
	return response.StatusCode, string(text)
}

// TestReach: who listens for other machines is told so, and keeps the admin service to itself
// unless it opens it.
func TestReach(t *testing.T) {
	const admin = "/perdure.admin.v1.AdminService/GetNode"
	for _, test := range []struct {
		name   string
		opts   []cluster.Option
		status int
		warns  string
	}{
		{"default", nil, http.StatusForbidden, "can call every handler:"},
		{"open", []cluster.Option{cluster.WithRemoteAdmin()}, http.StatusOK, "see all data and end every invocation"},
	} {
		t.Run(test.name, func(t *testing.T) {
			var log bytes.Buffer
			node := newNode(t, t.TempDir(), append([]cluster.Option{cluster.WithListen("0.0.0.0:0"),
				cluster.WithLogger(slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{Level: slog.LevelWarn})))}, test.opts...)...)
			startNode(t, node)
			_, port, err := net.SplitHostPort(node.Addr())
			if err != nil {
				t.Fatal(err)
			}
			if status, body := request(t, "http://127.0.0.1:"+port+admin, "{}"); status != http.StatusOK {
				t.Errorf("from here: %d %s", status, body)
			}
			elsewhere := "http://" + net.JoinHostPort(otherAddress(t), port)
			if status, body := request(t, elsewhere+admin, "{}"); status != test.status {
				t.Errorf("from elsewhere: %d %s", status, body)
			}
			if status, body := request(t, elsewhere+depositPath, `{"accountId":"a","amount":"5"}`); status != http.StatusOK {
				t.Errorf("a call from elsewhere: %d %s", status, body)
			}
			stopNode(t, node)
			if !strings.Contains(log.String(), test.warns) || !strings.Contains(log.String(), ":"+port) {
				t.Errorf("the log says %s", &log)
			}
		})
	}
}

// TestNoReachNoWarning: the default address is not worth a warning.
func TestNoReachNoWarning(t *testing.T) {
	var log bytes.Buffer
	node := newNode(t, t.TempDir(), cluster.WithLogger(slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{Level: slog.LevelWarn}))))
	startNode(t, node)
	if err := node.Shutdown(context.WithoutCancel(t.Context())); err != nil {
		t.Fatal(err)
	}
	if log.Len() > 0 {
		t.Errorf("the log says %s", &log)
	}
}
