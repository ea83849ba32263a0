package cluster

import (
	"bytes"
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/perdure/perdure/actor"
	bank "github.com/perdure/perdure/examples/bank/gen/bank/v1/bankv1perdure"
	"github.com/perdure/perdure/internal/admin"
	recordv1 "github.com/perdure/perdure/internal/record/v1"
	"github.com/perdure/perdure/internal/routing"
	"github.com/perdure/perdure/internal/routing/routingtest"
	"github.com/perdure/perdure/internal/telemetry"
)

// fakeEngine fails and waits when it is told to.
type fakeEngine struct {
	routingtest.Fake
	failed chan struct{}
	closed chan struct{}
	health func() error
	leave  func() // nil: it does nothing
	// closing waits as Close does for handlers that heed nothing; nil: it does not.
	closing func(context.Context)
}

func newFakeEngine() *fakeEngine {
	e := &fakeEngine{failed: make(chan struct{}), closed: make(chan struct{})}
	e.health = func() error {
		select {
		case <-e.failed:
			return errors.New("the disk is gone")
		default:
			return nil
		}
	}
	return e
}

func (e *fakeEngine) Health() error            { return e.health() }
func (e *fakeEngine) Unhosted() map[string]int { return nil }

func (e *fakeEngine) Failures() map[uint32]error {
	return map[uint32]error{7: errors.New("a row is damaged")}
}
func (e *fakeEngine) ReleaseSchedules() {}

func (e *fakeEngine) Failed() <-chan struct{} { return e.failed }

func (e *fakeEngine) Leave(context.Context) {
	if e.leave != nil {
		e.leave()
	}
}

func (e *fakeEngine) Describe() ([]admin.PartitionInfo, admin.StorageInfo) {
	return nil, admin.StorageInfo{}
}

func (e *fakeEngine) Close(ctx context.Context) error {
	if e.closing != nil {
		e.closing(ctx)
	}
	close(e.closed)
	return nil
}

func fakeNode(t *testing.T, e engine, opts ...Option) *Node {
	t.Helper()
	node := NewNode(append([]Option{
		WithDataDir(t.TempDir()), WithListen("127.0.0.1:0"), WithLogger(slog.New(slog.DiscardHandler)),
	}, opts...)...)
	node.openEngine = func(context.Context, Config, *layout, *network, *telemetry.Telemetry, []registration) (engine, error) {
		return e, nil
	}
	bank.RegisterAccountHandler(node, bank.UnimplementedAccountHandler{})
	return node
}

func post(t *testing.T, url string) (int, string) {
	t.Helper()
	request, err := http.NewRequestWithContext(t.Context(), http.MethodPost, url+"/bank.v1.AccountService/Deposit", strings.NewReader(`{"accountId":"a"}`))
	if err != nil {
		t.Fatal(err)
	}
	request.Header.Set("Content-Type", "application/json")
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return 0, err.Error()
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err != nil {
		t.Fatal(err)
	}
	return response.StatusCode, string(body)
}

// TestShutdownSendsWaitersAway: who waits for a result that does not come in time is answered,
// not cut off.
func TestShutdownSendsWaitersAway(t *testing.T) {
	e := newFakeEngine()
	entered := make(chan struct{})
	e.Fail = func(context.Context, *recordv1.Invoke) error {
		close(entered)
		<-e.closed
		return routing.Errorf(routing.CodeUnavailable, "the node is shutting down")
	}
	node := fakeNode(t, e, func(c *Config) { c.DrainTimeout = 50 * time.Millisecond })
	if err := node.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	type answer struct {
		status int
		body   string
	}
	answers := make(chan answer, 1)
	go func() {
		status, body := post(t, node.URL())
		answers <- answer{status, body}
	}()
	<-entered
	if err := node.Shutdown(t.Context()); err != nil {
		t.Error(err)
	}
	if got := <-answers; got.status != 503 || !strings.Contains(got.body, "unavailable") {
		t.Errorf("got %d %s", got.status, got.body)
	}
	if err := node.Shutdown(t.Context()); err != nil {
		t.Errorf("a second shutdown: %v", err)
	}
}

// TestAddressWhileStopping: a handler that wants to know where its node is reached does not wait for the end of Shutdown,
// which waits for the handler.
func TestAddressWhileStopping(t *testing.T) {
	e := newFakeEngine()
	entered, leaving, answered := make(chan struct{}), make(chan struct{}), make(chan string, 1)
	e.leave = func() { close(leaving) }
	node := fakeNode(t, e)
	e.Fail = func(context.Context, *recordv1.Invoke) error {
		close(entered)
		<-leaving
		answered <- node.Addr() + " " + node.URL()
		return routing.Errorf(routing.CodeUnavailable, "done")
	}
	if err := node.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	address, url := node.Addr(), node.URL()
	stopped, posted := make(chan error, 1), make(chan struct{})
	go func() {
		defer close(posted)
		post(t, url)
	}()
	<-entered
	go func() { stopped <- node.Shutdown(t.Context()) }()
	select {
	case got := <-answered:
		if want := address + " " + url; got != want {
			t.Errorf("got %q, want %q", got, want)
		}
		if err := <-stopped; err != nil {
			t.Error(err)
		}
	case err := <-stopped:
		t.Errorf("Shutdown (%v) waited for a handler that waited for it", err)
	}
	<-posted
}

// TestShutdownWhileStarting: a node that does not get on with its start, such as one that waits for a member of its
// cluster, is stopped all the same.
func TestShutdownWhileStarting(t *testing.T) {
	node := fakeNode(t, nil)
	entered := make(chan struct{})
	node.openEngine = func(ctx context.Context, _ Config, _ *layout, _ *network, _ *telemetry.Telemetry, _ []registration) (engine, error) {
		close(entered)
		<-ctx.Done()
		return nil, context.Cause(ctx)
	}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	started, stopped := make(chan error, 1), make(chan error, 1)
	go func() { started <- node.Start(ctx) }()
	<-entered
	go func() { stopped <- node.Shutdown(ctx) }()
	select {
	case err := <-stopped:
		if err != nil {
			t.Error(err)
		}
	case <-time.After(20 * time.Second):
		t.Error("Shutdown waits for a start that does not end")
		cancel()
	}
	if err := <-started; err == nil || !strings.Contains(err.Error(), "shut down while it was starting") {
		t.Errorf("start: %v", err)
	}
}

// TestShutdownWhileAStartFails: a start that fails waits for handlers that have begun, and no longer once the node is shut
// down.
func TestShutdownWhileAStartFails(t *testing.T) {
	var listening net.ListenConfig
	listener, err := listening.Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	e := newFakeEngine()
	closing := make(chan struct{})
	e.closing = func(ctx context.Context) {
		close(closing)
		<-ctx.Done()
	}
	node := fakeNode(t, e, WithListen(listener.Addr().String()))
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	started, stopped := make(chan error, 1), make(chan error, 1)
	go func() { started <- node.Start(ctx) }()
	<-closing
	go func() {
		atOnce, cancel := context.WithCancel(t.Context())
		cancel()
		stopped <- node.Shutdown(atOnce)
	}()
	select {
	case <-stopped:
	case <-time.After(20 * time.Second):
		t.Error("Shutdown waits for a start that waits")
		cancel()
	}
	if err := <-started; err == nil || !strings.Contains(err.Error(), listener.Addr().String()) {
		t.Errorf("start: %v", err)
	}
}

func TestRunEndsWhenTheEngineFails(t *testing.T) {
	e := newFakeEngine()
	node := fakeNode(t, e)
	done := make(chan error, 1)
	go func() { done <- node.Run(context.WithoutCancel(t.Context())) }()
	for node.Addr() == "" {
		time.Sleep(time.Millisecond)
	}
	recorder := httptest.NewRecorder()
	close(e.failed)
	if err := <-done; err == nil || !strings.Contains(err.Error(), "the disk is gone") {
		t.Errorf("got %v", err)
	}
	<-e.closed
	node.Handler().ServeHTTP(recorder, httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/readyz", nil))
	if recorder.Code != 503 {
		t.Errorf("a closed node answers %d", recorder.Code)
	}
}

func TestPortInUse(t *testing.T) {
	var listening net.ListenConfig
	listener, err := listening.Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	e := newFakeEngine()
	node := fakeNode(t, e, WithListen(listener.Addr().String()))
	if err := node.Start(t.Context()); err == nil || !strings.Contains(err.Error(), listener.Addr().String()) {
		t.Errorf("got %v", err)
	}
	<-e.closed // nothing is left open
	_, err = bank.Account(node.Client(), "a").Deposit(t.Context(), nil)
	if actor.CodeOf(err) != actor.FailedPrecondition || !strings.Contains(err.Error(), "failed to start") {
		t.Errorf("a call: %v", err)
	}
}

func TestBeforeStart(t *testing.T) {
	node := fakeNode(t, newFakeEngine())
	_, err := bank.Account(node.Client(), "a").Deposit(t.Context(), nil)
	if actor.CodeOf(err) != actor.FailedPrecondition || !strings.Contains(err.Error(), "call its Start first") {
		t.Errorf("a call: %v", err)
	}
	if node.Addr() != "" || node.URL() != "" {
		t.Errorf("address %q", node.Addr())
	}
	if err := node.Shutdown(t.Context()); err != nil {
		t.Error(err)
	}
}

func TestMountedHandler(t *testing.T) {
	node := fakeNode(t, newFakeEngine(), WithoutListener())
	mux := http.NewServeMux()
	mux.Handle("/", node.Handler())
	mux.HandleFunc("/hello", func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "hello") })
	server := httptest.NewServer(mux)
	defer server.Close()
	if status, body := post(t, server.URL); status != 503 || !strings.Contains(body, "call its Start first") {
		t.Errorf("before: %d %s", status, body)
	}
	if err := node.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	if status, body := post(t, server.URL); status != 200 {
		t.Errorf("%d %s", status, body)
	}
	if err := node.Shutdown(t.Context()); err != nil {
		t.Error(err)
	}
}

// syncBuffer is written by the node and read by the test.
type syncBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (b *syncBuffer) Write(data []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(data)
}

func (b *syncBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}

// TestMainFunction is Main without the exit.
func TestMainFunction(t *testing.T) {
	dir := t.TempDir()
	var stdout, stderr syncBuffer
	code := make(chan int, 1)
	env := func(name string) string {
		return map[string]string{"PERDURE_LISTEN": "127.0.0.1:0", "PERDURE_DATA": dir + "/env"}[name]
	}
	go func() {
		code <- run("bank", []string{"--data", dir + "/flag", "--log-level", "error"}, env, &stdout, &stderr, func(n *Node) {
			n.openEngine = func(context.Context, Config, *layout, *network, *telemetry.Telemetry, []registration) (engine, error) {
				return newFakeEngine(), nil
			}
			bank.RegisterAccountHandler(n, bank.UnimplementedAccountHandler{})
		}, nil)
	}()
	deadline := time.Now().Add(10 * time.Second)
	for !strings.Contains(stdout.String(), "serving on http://127.0.0.1:") {
		if time.Now().After(deadline) {
			t.Fatalf("it says %q %q", stdout.String(), stderr.String())
		}
		time.Sleep(time.Millisecond)
	}
	if !strings.Contains(stdout.String(), dir+"/flag") {
		t.Errorf("a flag does not win over the environment: %s", stdout.String())
	}
	self, err := os.FindProcess(os.Getpid())
	if err != nil {
		t.Fatal(err)
	}
	if err := self.Signal(os.Interrupt); err != nil {
		t.Fatal(err)
	}
	if got := <-code; got != 0 {
		t.Errorf("exit code %d: %s", got, stderr.String())
	}

	for _, test := range []struct {
		arguments []string
		env       string
		code      int
		says      string
	}{
		{[]string{"--nonsense"}, "", 2, "nonsense"},
		{[]string{"extra"}, "", 2, `"extra" is not a flag`},
		{nil, "loud", 2, `PERDURE_LOG_LEVEL is "loud"`},
		{[]string{"--listen", "nowhere"}, "", 1, `listen address "nowhere"`},
		{[]string{"--headers", "x-fine, Cookie"}, "", 1, "header cookie is a secret"},
		{[]string{"--help"}, "", 0, "PERDURE"},
	} {
		var stdout, stderr syncBuffer
		got := run("bank", test.arguments, func(name string) string {
			if name == "PERDURE_LOG_LEVEL" {
				return test.env
			}
			return ""
		}, &stdout, &stderr, func(*Node) {}, nil)
		if got != test.code || !strings.Contains(stderr.String(), test.says) {
			t.Errorf("%v: code %d, %s", test.arguments, got, stderr.String())
		}
	}
}
