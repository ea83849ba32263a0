package cluster

import (
	"net"
	"net/http"
	"time"

	"github.com/perdure/perdure/actor"
	"github.com/perdure/perdure/internal/ingress/remote"
)

// HTTPClient is what Dial sends requests with; *http.Client is one.
type HTTPClient interface {
	// Do sends one request and returns the answer; it is safe for concurrent use.
	Do(*http.Request) (*http.Response, error)
}

// Dial makes a client of the cluster whose nodes are at urls, such as
// "http://localhost:7373". It makes no connection: what is wrong with a URL, every call
// says. Any node serves any call; with several the client goes on to the next when one is
// unavailable. So it does when one hangs: while a call waits for more than half a second, its node is
// asked for /healthz, and any response within a second will do.
//
// client carries TLS and authentication. Nil is one made for many calls at once;
// http.DefaultClient works but keeps only two idle connections per node.
func Dial(client HTTPClient, urls ...string) *actor.Client {
	if client == nil {
		client = defaultHTTPClient()
	}
	return actor.NewClient(remote.New(client, urls...))
}

func defaultHTTPClient() *http.Client {
	// HTTP/1.1, for it costs half of what HTTP/2 does in Go, at one connection per call under
	// way. There is no Timeout: a call may take as long as its handler, and ctx ends it.
	dialer := &net.Dialer{Timeout: 5 * time.Second, KeepAlive: 15 * time.Second}
	return &http.Client{Transport: &http.Transport{
		Proxy:               http.ProxyFromEnvironment,
		DialContext:         dialer.DialContext,
		TLSHandshakeTimeout: 10 * time.Second,
		MaxIdleConns:        1024,
		MaxIdleConnsPerHost: 512,
		IdleConnTimeout:     90 * time.Second,
	}}
}
