package remote_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/perdure/perdure/internal/invocation"
	"github.com/perdure/perdure/internal/invoker"
	"github.com/perdure/perdure/internal/invoker/remote"
	recordv1 "github.com/perdure/perdure/internal/record/v1"
	"github.com/perdure/perdure/internal/routing"
)

// world is some nodes, of which a test says who hosts and who reaches whom.
type world struct {
	mu      sync.Mutex
	nodes   map[uint64]*remote.Invoker
	locals  map[uint64]*handlers
	hosts   []uint64
	cut     map[[2]uint64]bool
	changed chan struct{}
}

func newWorld(t *testing.T, hosts ...uint64) *world {
	w := &world{nodes: map[uint64]*remote.Invoker{}, locals: map[uint64]*handlers{}, hosts: hosts, cut: map[[2]uint64]bool{}, changed: make(chan struct{})}
	for node := uint64(1); node <= 3; node++ {
		w.locals[node] = &handlers{}
		w.nodes[node] = remote.New(remote.Config{
			Node: node, Local: w.locals[node], Logger: slog.New(slog.DiscardHandler), Directory: directory{w, node},
			Call: func(ctx context.Context, to uint64, request []byte) ([]byte, error) {
				if w.isCut(node, to) {
					return nil, errors.New("unreachable")
				}
				answer, err := w.nodes[to].Serve(ctx, node, request)
				if w.isCut(to, node) {
					return nil, errors.New("the answer is lost")
				}
				return answer, err
			},
		})
	}
	t.Cleanup(func() {
		for _, node := range w.nodes {
			node.Close()
		}
	})
	return w
}

// directory is what a node of the world knows: all there is to know.
type directory struct {
	*world
	node uint64
}

func (d directory) Here(invocation.Target) bool {
	return slices.Contains(d.Hosts(invocation.Target{}, ""), d.node)
}

func (d directory) Hosts(invocation.Target, string) []uint64 {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.hosts
}

func (d directory) Changed() <-chan struct{} {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.changed
}

func (w *world) isCut(from, to uint64) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.cut[[2]uint64{from, to}]
}

func (w *world) sever(a, b uint64) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.cut[[2]uint64{a, b}], w.cut[[2]uint64{b, a}] = true, true
}

func (w *world) host(nodes ...uint64) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.hosts = nodes
	close(w.changed)
	w.changed = make(chan struct{})
}

// handlers is a Local that only keeps what it is given.
type handlers struct {
	mu       sync.Mutex
	attempts []*invoker.Attempt
	aborted  []error
}

func (h *handlers) Start(a *invoker.Attempt) invoker.Running {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.attempts = append(h.attempts, a)
	return h
}

func (h *handlers) Read(_ context.Context, r *invoker.Read) *recordv1.Result {
	rows := 0
	if err := r.Tables.Scan("rows", "", func(string, []byte) bool { rows++; return true }); err != nil {
		return &recordv1.Result{Error: &recordv1.Error{Message: err.Error()}}
	}
	return &recordv1.Result{Value: []byte(strings.Repeat("x", rows))}
}

func (h *handlers) Notify(uint32, *recordv1.Completion) {}
func (h *handlers) Cancel()                             {}
func (h *handlers) Abort(cause error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.aborted = append(h.aborted, cause)
}

func (h *handlers) counts() (attempts, aborted int) {
	h.mu.Lock()
	defer h.mu.Unlock()
	return len(h.attempts), len(h.aborted)
}

// host keeps what an attempt says.
type host struct {
	invoker.Host
	mu       sync.Mutex
	appended []uint32
	outcomes []*invoker.Outcome
}

func (h *host) Append(_ *invoker.Attempt, index uint32, _ *recordv1.Entry) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.appended = append(h.appended, index)
}

func (h *host) Finish(_ *invoker.Attempt, o *invoker.Outcome) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.outcomes = append(h.outcomes, o)
}

func attempt(h *host, mode invocation.Mode) *invoker.Attempt {
	return &invoker.Attempt{Number: 1, Target: invocation.Target{Service: "t.Orders", Key: "k", Handler: "Place"}, Mode: mode, Stored: mode.Journaled(), Host: h}
}

func TestLostNodeEndsTheAttemptOnBothSides(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, h := newWorld(t, 2), &host{}
		w.nodes[1].Start(attempt(h, invocation.ModeDurable))
		synctest.Wait()
		theirs := w.locals[2].attempts[0]
		theirs.Host.Append(theirs, 1, &recordv1.Entry{})
		synctest.Wait()
		w.sever(1, 2)
		theirs.Host.Append(theirs, 2, &recordv1.Entry{})
		time.Sleep(10 * time.Second) // of the bubble: the beats notice
		synctest.Wait()
		if len(h.outcomes) != 1 || !h.outcomes[0].Lost {
			t.Fatalf("the leader heard %+v, not that the attempt is lost", h.outcomes)
		}
		if _, aborted := w.locals[2].counts(); aborted != 1 {
			t.Errorf("the node that is cut off aborted %d attempts, not 1", aborted)
		}
		if len(h.appended) != 1 {
			t.Errorf("appended: %v, not what was said before the cut alone", h.appended)
		}
		w.host(2, 3)
		w.nodes[1].Start(attempt(h, invocation.ModeDurable)) // node 2 is tried again, in vain
		synctest.Wait()
		w.nodes[1].Start(attempt(h, invocation.ModeDurable))
		synctest.Wait()
		if again, _ := w.locals[3].counts(); again != 1 || len(h.outcomes) != 2 {
			t.Errorf("%d attempts began on the other node, not 1; outcomes: %v", again, h.outcomes)
		}
	})
}

func TestAbortedAttemptIsNotHeard(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, h := newWorld(t, 2), &host{}
		running := w.nodes[1].Start(attempt(h, invocation.ModeTransaction))
		synctest.Wait()
		theirs := w.locals[2].attempts[0]
		running.Abort(errors.New("superseded"))
		theirs.Host.Append(theirs, 1, &recordv1.Entry{})
		theirs.Host.Finish(theirs, &invoker.Outcome{Result: &recordv1.Result{}})
		synctest.Wait()
		if len(h.appended)+len(h.outcomes) != 0 {
			t.Errorf("heard %v and %v of an attempt that was aborted", h.appended, h.outcomes)
		}
		if _, aborted := w.locals[2].counts(); aborted > 1 {
			t.Errorf("aborted %d times", aborted)
		}
	})
}

func TestWithoutHost(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, transaction, durable, stored := newWorld(t), &host{}, &host{}, &host{}
		sent := attempt(stored, invocation.ModeTransaction)
		sent.Stored = true
		w.nodes[1].Start(sent)
		w.nodes[1].Start(attempt(transaction, invocation.ModeTransaction))
		w.nodes[1].Start(attempt(durable, invocation.ModeDurable))
		time.Sleep(6 * time.Second)
		synctest.Wait()
		if len(transaction.outcomes) != 1 || !strings.Contains(transaction.outcomes[0].Result.GetError().GetMessage(), "no live node hosts t.Orders") {
			t.Errorf("a TRANSACTION without a host ended with %v", transaction.outcomes)
		}
		if len(durable.outcomes) != 0 {
			t.Errorf("a DURABLE handler did not wait for a host: %+v", durable.outcomes[0])
		}
		if len(stored.outcomes) != 0 {
			t.Errorf("a TRANSACTION that is stored did not wait for a host: %+v", stored.outcomes[0])
		}
		if got := w.nodes[1].Waiting(); len(got) != 1 || got["t.Orders"] != 2 {
			t.Errorf("waiting: %v", got)
		}
		read := &invoker.Read{Target: invocation.Target{Service: "t.Orders", Key: "k", Handler: "List"}}
		if got := w.nodes[1].Read(t.Context(), read); got != nil || read.Unhosted == nil || !strings.Contains(read.Unhosted.Error(), "no live node hosts t.Orders") {
			t.Errorf("a READ while nobody hosts it: %v, %v", got, read.Unhosted)
		}
		brief, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if got := w.nodes[1].Read(brief, read); got.GetError().GetCode() != uint32(routing.CodeDeadlineExceeded) {
			t.Errorf("a READ that has a second, while nobody hosts it: %v", got)
		}
		w.host(3)
		synctest.Wait()
		if started, _ := w.locals[3].counts(); started != 1 {
			t.Errorf("%d attempts began on the node that came, not 1", started)
		}
		if len(stored.outcomes) != 1 || !stored.outcomes[0].Lost || !stored.outcomes[0].Anew {
			t.Errorf("a TRANSACTION that has waited does not begin anew: %+v", stored.outcomes)
		}
		if got := w.nodes[1].Waiting(); len(got) != 0 {
			t.Errorf("waiting: %v", got)
		}
	})
}

// table has many rows.
type table struct{ rows int }

func (table) Get(string, string) ([]byte, bool, error) { return nil, false, nil }
func (t table) Len(string) (int, error)                { return t.rows, nil }
func (t table) Scan(_, from string, fn func(string, []byte) bool) error {
	for i := range t.rows {
		if key := fmt.Sprintf("%05d", i); key >= from && !fn(key, nil) {
			return nil
		}
	}
	return nil
}

func TestReadScansInPagesAndGoesElsewhere(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 2, 3)
		w.sever(1, 2)
		read := &invoker.Read{Target: invocation.Target{Service: "t.Orders", Key: "k", Handler: "List"}, Tables: table{2500}}
		result := w.nodes[1].Read(t.Context(), read)
		if got := len(result.GetValue()); got != 2500 {
			t.Errorf("read %d rows, not 2500: %v", got, result.GetError())
		}
	})
}
