// Package system starts and stops the servers that the benchmark compares, each on an empty directory, and knows how to
// phrase the same call for each of them.
package system

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"os"
	"strings"
	"time"

	"github.com/perdure/perdure/bench/internal/load"
	"github.com/perdure/perdure/bench/internal/procfs"
)

const (
	// startTimeout is how long a server may take until it answers its first call.
	startTimeout = 30 * time.Second
	// pollEvery is the resolution of start times.
	pollEvery = 2 * time.Millisecond
	// maxAnswerBytes is how much of an answer is read. A page of metrics is far below it.
	maxAnswerBytes = 4 << 20
)

// Op is a call that every system can serve.
type Op int

// The calls, and what their keys name.
const (
	Add      Op = iota // a counter
	Get                // a counter
	Run10              // how many steps
	Deposit            // an account
	Balance            // an account
	Transfer           // the account to take from and the one to give to
	AddAll             // counters
)

// System is something that can be measured.
type System interface {
	// Name is what the tables call it.
	Name() string
	// Start runs it on the empty directory dir and returns once it has answered a call.
	Start(ctx context.Context, dir string) (*Instance, error)
}

// Instance is one running system. Its methods are not safe for concurrent use, but for Request.
type Instance struct {
	// Addr is where it takes calls.
	Addr netip.AddrPort
	// Serving is from exec until it says that it is ready, FirstCall until it has answered a call. They are of the last
	// start, so of the restart after Restart.
	Serving, FirstCall time.Duration

	server   *process
	sidecar  *process // Restate's handlers live in a process of their own; nil elsewhere
	relaunch func() (*process, error)
	// ready fails until the system can take calls.
	ready func(ctx context.Context) error
	// register is done once, between the first ready and the first call; nil when nothing is needed.
	register func(ctx context.Context) error
	request  func(op Op, keys []string) (path, body string)
	// keyInPath: this system wants an object's key in the path; see Handler.
	keyInPath bool
	// metrics is the path of its Prometheus metrics; empty when it serves none.
	metrics string
}

// Request is the HTTP request for one call.
func (i *Instance) Request(op Op, keys ...string) []byte {
	path, body := i.request(op, keys)
	return load.Post(i.Addr.String(), path, body)
}

// Keyed is a request that load.Generator gives another idempotency key each time it sends it.
func (i *Instance) Keyed(op Op, keys ...string) []byte {
	path, body := i.request(op, keys)
	return load.Post(i.Addr.String(), path, body, load.KeyHeader, load.AnyKey)
}

// Add is the HTTP request that adds one to a counter once, however often it is sent with idempotencyKey.
func (i *Instance) Add(key, idempotencyKey string) []byte {
	path, body := i.request(Add, []string{key})
	return load.Post(i.Addr.String(), path, body, load.KeyHeader, idempotencyKey)
}

// Handler is the HTTP request for a call of a handler that all systems name alike. key is the object's, and "" for a
// service; the body has it too.
func (i *Instance) Handler(service, key, handler, body string) []byte {
	path := "/" + service
	if i.keyInPath && key != "" {
		path += "/" + url.PathEscape(key)
	}
	return load.Post(i.Addr.String(), path+"/"+handler, body)
}

// start runs the server and waits until it has answered a call.
func (i *Instance) start(ctx context.Context) (err error) {
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	began := time.Now()
	if i.server, err = i.relaunch(); err != nil {
		return err
	}
	if i.ready != nil {
		if err := i.poll(ctx, i.ready); err != nil {
			return err
		}
		i.Serving = time.Since(began)
	}
	if i.register != nil {
		if err := i.poll(ctx, i.register); err != nil {
			return err
		}
		i.register = nil // a restarted server remembers
	}
	if err := i.poll(ctx, i.call); err != nil {
		return err
	}
	i.FirstCall = time.Since(began)
	if i.ready == nil {
		i.Serving = i.FirstCall
	}
	return nil
}

// call makes one real call.
func (i *Instance) call(ctx context.Context) error {
	path, body := i.request(Add, []string{"first"})
	_, err := post(ctx, "http://"+i.Addr.String()+path, body)
	return err
}

// poll repeats check until it succeeds, the server ends or ctx does.
func (i *Instance) poll(ctx context.Context, check func(context.Context) error) error {
	for {
		err := check(ctx)
		if err == nil {
			return nil
		}
		select {
		case <-i.server.exited:
			return i.server.died()
		case <-ctx.Done():
			return fmt.Errorf("not ready within %s: %w", startTimeout, err)
		case <-time.After(pollEvery):
		}
	}
}

// Kill ends the server, not its sidecar, with SIGKILL.
func (i *Instance) Kill() { i.server.kill() }

// Restart runs the server again on the same directory and port and waits until it has answered a call.
func (i *Instance) Restart(ctx context.Context) error { return i.start(ctx) }

// Usage is what the server and its sidecar have used; the sidecar is all zero where there is none.
func (i *Instance) Usage() (server, sidecar procfs.Process, err error) {
	if server, err = i.server.usage(); err != nil || i.sidecar == nil {
		return server, sidecar, err
	}
	sidecar, err = i.sidecar.usage()
	return server, sidecar, err
}

// Stop ends everything at once. The directory is the caller's to remove.
func (i *Instance) Stop() {
	i.server.kill()
	i.sidecar.kill()
}

// probe is for readiness only: each request dials anew, since a connection to a server that is starting may be reset.
var probe = &http.Client{
	Timeout:   5 * time.Second,
	Transport: &http.Transport{DisableKeepAlives: true, Proxy: nil},
}

func post(ctx context.Context, url, body string) (answer []byte, err error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, url, strings.NewReader(body))
	if err != nil {
		return nil, err
	}
	request.Header.Set("Content-Type", "application/json")
	return exchange(request)
}

func get(ctx context.Context, url string) ([]byte, error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return nil, err
	}
	return exchange(request)
}

func exchange(request *http.Request) ([]byte, error) {
	response, err := probe.Do(request)
	if err != nil {
		return nil, err
	}
	defer response.Body.Close()
	body, err := io.ReadAll(io.LimitReader(response.Body, maxAnswerBytes))
	if err != nil {
		return nil, err
	}
	if response.StatusCode/100 != 2 {
		return nil, fmt.Errorf("%s %s: %s: %.300s", request.Method, request.URL, response.Status, body)
	}
	return body, nil
}

// freePorts picks unused ports of the loopback device. All are held until the last is known, so they differ.
func freePorts(n int) ([]netip.AddrPort, error) {
	var ports []netip.AddrPort
	for range n {
		listener, err := net.Listen("tcp4", "127.0.0.1:0")
		if err != nil {
			return nil, err
		}
		defer listener.Close()
		ports = append(ports, netip.MustParseAddrPort(listener.Addr().String()))
	}
	return ports, nil
}

// makeDirs creates sub-directories of dir.
func makeDirs(dirs ...string) error {
	for _, dir := range dirs {
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return err
		}
	}
	return nil
}
