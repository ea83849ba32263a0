package transport

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"sync"
	"time"

	"connectrpc.com/connect/v2"
	"connectrpc.com/connect/v2/connecthttp"
	"connectrpc.com/connect/v2/connectproto"

	transportv1 "github.com/perdure/perdure/internal/transport/v1"
)

// conn is one HTTP/2 connection to another node.
type conn struct {
	http   *http.ClientConn
	client *connect.Client
	born   time.Time
}

// unsent marks a request that was certainly not sent.
type unsent struct{ err error }

func (u unsent) Error() string { return u.err.Error() }
func (u unsent) Unwrap() error { return u.err }

// Do implements connecthttp.HTTPClient. net/http's pool of connections would not do: it hides
// which connection a request took, and whether it was sent when it failed.
func (c *conn) Do(request *http.Request) (*http.Response, error) {
	if err := c.http.Reserve(); err != nil {
		return nil, unsent{err}
	}
	response, err := c.http.RoundTrip(request)
	if err != nil && slices.Contains(unprocessed, err.Error()) {
		return nil, unsent{err}
	}
	return response, err
}

// unprocessed are the errors by which net/http says that the other end has not seen a request, or
// promised (by GOAWAY, when it stops) to do nothing with it. It retries on the same ones, and has
// no names for them; if it changes its words, the outcome is unknown, which is no lie.
var unprocessed = []string{
	"http2: client conn not usable",
	"http2: client conn could not be established",
	"http2: Transport received Server's graceful shutdown GOAWAY",
}

func (c *conn) close() { _ = c.http.Close() }

func (t *Transport) dial(ctx context.Context, address string) (*conn, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, t.config.Timing.Dial, fmt.Errorf("no connection within %v", t.config.Timing.Dial))
	defer cancel()
	scheme := "http"
	if t.tls != nil {
		scheme = "https"
	}
	connection, err := t.http.NewClientConn(ctx, scheme, address)
	if err != nil {
		if ctx.Err() != nil {
			err = context.Cause(ctx)
		}
		return nil, fmt.Errorf("connect to %s: %w", address, err)
	}
	c := &conn{http: connection, born: time.Now()}
	options := append(t.options(), connecthttp.WithReadMaxBytes(t.readBytes()))
	c.client = connect.NewClient(connecthttp.NewTransport(c, scheme+"://"+address, options...))
	return c, nil
}

// options are those of both ends: the binary codec alone, and no compression, which costs more
// time than a local network saves.
func (t *Transport) options() []connecthttp.Option {
	return []connecthttp.Option{connecthttp.WithCodecs(connectproto.NewBinaryCodec()), connecthttp.WithCompressors()}
}

// readBytes bounds a message: what is in it is bounded by Limits, and the rest is small.
func (t *Transport) readBytes() int {
	return max(t.config.Limits.FrameBytes, t.config.Limits.RequestBytes, batchBytes) + 1<<20
}

func (t *Transport) hello(to uint64) *transportv1.Hello {
	h := t.config.Hello(*t.clusterID.Load(), to)
	var log *transportv1.LogClaim
	if h.Log != (LogClaim{}) {
		log = &transportv1.LogClaim{Process: h.Log.Process, Opened: h.Log.Opened, Durable: h.Log.Durable}
	}
	return &transportv1.Hello{
		ClusterId: h.ClusterID, From: h.From, To: h.To, MinVersion: h.Versions.Min, MaxVersion: h.Versions.Max, Build: h.Build,
		FeatureLevel: h.FeatureLevel, WrittenLevel: h.WrittenLevel, Log: log,
	}
}

func refusedBy(node uint64, refusal *transportv1.Refusal) *Refused {
	return &Refused{Node: node, Reason: Reason(refusal.Reason), Message: refusal.Message}
}

// link is a connection that is opened when it is needed and shared.
type link struct {
	peer *peer
	mu   struct {
		sync.Mutex
		current *shared
		retired map[*shared]bool // those of before that are in use
		attempt *attempt
		closed  bool
		failed  error     // of the last attempt, until one succeeds
		at      time.Time // when it failed
	}
}

// shared is a connection with its users.
type shared struct {
	*conn
	users   int
	retired bool
}

// attempt is a connection being made; done is closed when shared or err is set.
type attempt struct {
	done   chan struct{}
	shared *shared
	err    error
}

// failFor is how long those who come after a failed attempt are given its error: a node that is
// down would else be dialled by every call.
const failFor = 50 * time.Millisecond

var (
	errClosed     = errors.New("the node was removed from the addresses, or this one is stopping")
	errNotRunning = errors.New("the transport does not run")
)

// acquire returns a connection, to be released, or an error that means nothing was sent.
func (l *link) acquire(ctx context.Context) (*shared, error) {
	for {
		l.mu.Lock()
		if l.mu.closed {
			l.mu.Unlock()
			return nil, errClosed
		}
		if s := l.mu.current; s != nil {
			if s.http.Err() == nil && time.Since(s.born) < l.peer.t.config.Timing.ConnectionAge {
				s.users++
				l.mu.Unlock()
				return s, nil
			}
			l.retireLocked(s)
		}
		if l.mu.failed != nil && time.Since(l.mu.at) < failFor {
			err := l.mu.failed
			l.mu.Unlock()
			return nil, err
		}
		waiting := l.mu.attempt
		first := waiting == nil
		if first {
			waiting = &attempt{done: make(chan struct{})}
			l.mu.attempt = waiting
		}
		l.mu.Unlock()
		// Without the link's lock: SetAddresses takes it while it holds the transport's, which start takes.
		if first && !l.peer.t.start(func(ctx context.Context) { l.open(ctx, waiting) }) {
			l.mu.Lock()
			l.mu.attempt, waiting.err = nil, errNotRunning
			l.mu.Unlock()
			close(waiting.done)
		}
		select {
		case <-waiting.done:
			if waiting.err != nil {
				return nil, waiting.err
			}
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

// open does not end with the call that began it: others wait for it too. What it made to an address where the
// node is not any more, of which renew could not know, it makes again.
func (l *link) open(ctx context.Context, made *attempt) {
	for opened := false; !opened; {
		address := l.peer.address()
		c, err := l.peer.t.dial(ctx, address)
		opened = l.opened(made, address, c, err)
	}
}

// opened takes what came of an attempt; it reports false if the node has moved meanwhile.
func (l *link) opened(made *attempt, address string, c *conn, err error) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	moved := !l.mu.closed && l.peer.address() != address
	if err == nil && (moved || l.mu.closed) {
		c.close()
		err = errClosed
	}
	if moved {
		return false
	}
	defer close(made.done)
	l.mu.attempt = nil
	l.mu.failed, l.mu.at = err, time.Now()
	if made.err = err; err == nil {
		l.mu.current = &shared{conn: c}
	}
	return true
}

func (l *link) release(s *shared) {
	l.mu.Lock()
	defer l.mu.Unlock()
	s.users--
	if s.retired && s.users == 0 {
		delete(l.mu.retired, s)
		s.close()
	}
}

// retire makes s serve nothing new.
func (l *link) retire(s *shared) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.retireLocked(s)
}

func (l *link) retireLocked(s *shared) {
	if l.mu.current == s {
		l.mu.current = nil
	}
	if s.retired {
		return
	}
	s.retired = true
	if s.users == 0 {
		s.close()
		return
	}
	if l.mu.retired == nil {
		l.mu.retired = map[*shared]bool{}
	}
	l.mu.retired[s] = true
}

// renew makes what comes next take a new connection: the node has moved.
func (l *link) renew() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.mu.failed = nil
	if l.mu.current != nil {
		l.retireLocked(l.mu.current)
	}
}

// close cuts what is under way.
func (l *link) close() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.mu.closed = true
	if l.mu.current != nil {
		l.mu.current.close()
		l.mu.current = nil
	}
	for s := range l.mu.retired {
		s.close()
	}
}
