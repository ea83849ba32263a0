package remote

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"connectrpc.com/connect/v2"
	"connectrpc.com/connect/v2/connecthttp"
)

const (
	// askAfter is how long a call waits before its node is asked whether it is there, and the time between two
	// such questions.
	askAfter = 500 * time.Millisecond
	// answerWithin is how long that answer may take. With askAfter it is half of the three seconds after which calls
	// are to be answered elsewhere when a node is lost.
	answerWithin = time.Second
	// known is how long it need not be asked again by calls that come to wait after it was found to say nothing.
	known = 2 * time.Second
)

// node is where calls go. A process that hangs, a machine without power and a link that is cut break no
// connection, and a call may take as long as its handler; so while calls wait, the node is asked whether it is there. What
// it answers does not matter, and any other response will do as well.
type node struct {
	url   string
	http  connecthttp.HTTPClient
	calls *connect.Client
	// heard counts the responses that have begun, of any kind.
	heard atomic.Uint64

	mu struct {
		sync.Mutex
		// waiting are the calls that have waited for askAfter, each with what ends it.
		waiting map[*call]context.CancelCauseFunc
		// stop ends the goroutine that asks; there is one while somebody is waiting, and it is nil else.
		stop context.CancelFunc
		// silentAt is when the node was last found to say nothing, and heardThen what heard was.
		silentAt  time.Time
		heardThen uint64
	}
}

// call is one that waits; its address is what it is known by.
type call struct{ _ byte }

func newNode(client connecthttp.HTTPClient, url string) *node {
	n := &node{url: url, http: client}
	n.mu.waiting = map[*call]context.CancelCauseFunc{}
	n.calls = connect.NewClient(connecthttp.NewTransport(n, url,
		connecthttp.WithReadMaxBytes(maxResponseBytes), connecthttp.WithCompressMinBytes(1024)))
	return n
}

// Do implements connecthttp.HTTPClient, and notes that the node has answered.
func (n *node) Do(request *http.Request) (*http.Response, error) {
	response, err := n.http.Do(request)
	if err == nil {
		n.heard.Add(1)
	}
	return response, err
}

// watched is a context for one call, which ends when the node says nothing. done is to be called after it, and
// returns that as an error.
func (n *node) watched(ctx context.Context) (within context.Context, done func() error) {
	within, cancel := context.WithCancelCause(ctx)
	self := &call{}
	timer := time.AfterFunc(askAfter, func() { n.await(within, self, cancel) })
	return within, func() error {
		if !timer.Stop() {
			n.leave(self)
		}
		defer cancel(nil)
		if silent, ok := errors.AsType[*silence](context.Cause(within)); ok {
			return silent
		}
		return nil
	}
}

// silence is why a call was given up.
type silence struct{ url string }

func (s *silence) Error() string {
	return fmt.Sprintf("%s says nothing: no response to any request for %s", s.url, answerWithin)
}

func (n *node) await(within context.Context, self *call, cancel context.CancelCauseFunc) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if within.Err() != nil {
		return
	}
	if time.Since(n.mu.silentAt) < known && n.heard.Load() == n.mu.heardThen {
		cancel(&silence{n.url})
		return
	}
	n.mu.waiting[self] = cancel
	context.AfterFunc(within, func() { n.leave(self) })
	if n.mu.stop == nil {
		asking, stop := context.WithCancel(context.Background())
		n.mu.stop = stop
		go n.ask(asking)
	}
}

// leave forgets a call, and ends the asking with the last one.
func (n *node) leave(self *call) {
	n.mu.Lock()
	defer n.mu.Unlock()
	delete(n.mu.waiting, self)
	if len(n.mu.waiting) == 0 && n.mu.stop != nil {
		n.mu.stop()
		n.mu.stop = nil
	}
}

// ask asks until ctx ends, which it does when no call waits any more, or the node says nothing: then
// it ends those calls.
func (n *node) ask(ctx context.Context) {
	for n.there(ctx) {
		select {
		case <-ctx.Done():
			return
		case <-time.After(askAfter):
		}
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	if ctx.Err() != nil { // those that wait now have another that asks for them
		return
	}
	n.mu.silentAt, n.mu.heardThen = time.Now(), n.heard.Load()
	for self, cancel := range n.mu.waiting {
		delete(n.mu.waiting, self)
		cancel(&silence{n.url})
	}
	n.mu.stop()
	n.mu.stop = nil
}

// there reports whether the node says anything within answerWithin, be it to somebody else.
func (n *node) there(ctx context.Context) bool {
	before := n.heard.Load()
	within, cancel := context.WithTimeout(ctx, answerWithin)
	defer cancel()
	request, err := http.NewRequestWithContext(within, http.MethodGet, strings.TrimSuffix(n.url, "/")+"/healthz", nil)
	if err != nil {
		return true // it is not the node's fault
	}
	response, err := n.Do(request)
	if err == nil {
		_ = response.Body.Close() // what it says does not matter
	}
	if err != nil && ctx.Err() == nil && within.Err() == nil {
		<-within.Done() // it was refused at once: what was accepted before may still be answered
	}
	return n.heard.Load() != before
}
