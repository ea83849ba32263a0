package remote_test

import (
	"bytes"
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

	"google.golang.org/protobuf/proto"

	"github.com/perdure/perdure/internal/invocation"
	"github.com/perdure/perdure/internal/invoker"
	"github.com/perdure/perdure/internal/invoker/remote"
	invokerv1 "github.com/perdure/perdure/internal/invoker/v1"
	"github.com/perdure/perdure/internal/journal"
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
	fails   func(request *invokerv1.Request) bool // nil: none is lost
	unheard func(request *invokerv1.Request) bool // whether the answer is lost; nil: none is
	older   bool                                  // leaders are of a version that knows of no parts
	reads   map[uint64]int
	looks   int               // how often a node was asked who hosts
	builds  map[uint64]string // nil: all are one that has no name
}

func newWorld(t *testing.T, hosts ...uint64) *world {
	w := &world{nodes: map[uint64]*remote.Invoker{}, locals: map[uint64]*handlers{}, hosts: hosts, cut: map[[2]uint64]bool{}, reads: map[uint64]int{}, changed: make(chan struct{})}
	for node := uint64(1); node <= 3; node++ {
		w.locals[node] = &handlers{}
		w.nodes[node] = remote.New(remote.Config{
			Node: node, Local: w.locals[node], Logger: slog.New(slog.DiscardHandler), Directory: directory{w, node},
			Call: w.callFrom(node),
		})
	}
	t.Cleanup(func() {
		for _, node := range w.nodes {
			node.Close()
		}
	})
	return w
}

// callFrom takes a node's requests to the others.
func (w *world) callFrom(node uint64) func(ctx context.Context, to uint64, request []byte) ([]byte, error) {
	return func(ctx context.Context, to uint64, request []byte) ([]byte, error) {
		if w.isCut(node, to) || w.loses(request) {
			return nil, errors.New("unreachable")
		}
		if len(request) > 32<<20 {
			return nil, errors.New("too large a request")
		}
		w.count(to, request)
		request = w.understood(request)
		answer, err := w.nodes[to].Serve(ctx, node, request)
		if len(answer) > 32<<20 {
			return nil, errors.New("too large an answer")
		}
		if w.isCut(to, node) || w.losesAnswer(request) {
			return nil, errors.New("the answer is lost")
		}
		return answer, err
	}
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
	d.looks++
	return d.hosts
}

func (d directory) Exactly(_ invocation.Target, deployment string) (found []uint64) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, node := range d.hosts {
		if node != d.node && d.builds[node] == deployment {
			found = append(found, node)
		}
	}
	return found
}

func (d directory) Deployment(string) string {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.builds[d.node]
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

func (w *world) count(to uint64, data []byte) {
	request := &invokerv1.Request{}
	if proto.Unmarshal(data, request) == nil && request.GetRead() != nil {
		w.mu.Lock()
		defer w.mu.Unlock()
		w.reads[to]++
	}
}

func (w *world) failing(fails func(*invokerv1.Request) bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.fails = fails
}

func (w *world) loses(data []byte) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	request := &invokerv1.Request{}
	return w.fails != nil && proto.Unmarshal(data, request) == nil && w.fails(request)
}

func (w *world) losesAnswer(data []byte) bool {
	request := &invokerv1.Request{}
	return w.unheard != nil && proto.Unmarshal(data, request) == nil && w.unheard(request)
}

// understood is what an older leader reads of a request.
func (w *world) understood(data []byte) []byte {
	w.mu.Lock()
	defer w.mu.Unlock()
	request := &invokerv1.Request{}
	if !w.older || proto.Unmarshal(data, request) != nil || request.GetAsk() == nil {
		return data
	}
	request.GetAsk().Apart = false
	if request.GetAsk().GetParts() != nil {
		request.GetAsk().Ask = nil
	}
	data, _ = proto.Marshal(request) // of what was one
	return data
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
	reads    []*invoker.Read
	aborted  []error
}

func (h *handlers) Start(a *invoker.Attempt) invoker.Running {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.attempts = append(h.attempts, a)
	return h
}

func (h *handlers) Read(_ context.Context, r *invoker.Read) *recordv1.Result {
	h.mu.Lock()
	h.reads = append(h.reads, r)
	h.mu.Unlock()
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
	parts    [][]byte // of the value of entry 1
	value    *recordv1.Parts
}

func (h *host) Part(_ *invoker.Attempt, _, number uint32, part []byte) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.parts = append(h.parts[:number], part)
}

func (h *host) CompleteParts(_ *invoker.Attempt, _ uint32, value *recordv1.Parts) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.value = value
}

func (h *host) Journal(*invoker.Attempt) invoker.Journal { return recorded{h: h} }

// recorded is the journal of what a host was told.
type recorded struct {
	invoker.Journal
	h *host
}

func (r recorded) Completion(index uint32) (*recordv1.Completion, error) {
	return &recordv1.Completion{Entry: index, Parts: r.h.value}, nil
}

func (r recorded) Parts(_, first uint32) ([][]byte, error) {
	return r.h.parts[first:min(int(first)+4, len(r.h.parts))], nil
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

// TestBatchIsSentAgain: a session outlives that a batch of either side is lost once, or its answer, and each
// message is heard once.
func TestBatchIsSentAgain(t *testing.T) {
	for name, lose := range map[string]func(*world, func(*invokerv1.Request) bool){
		"the batch":  func(w *world, of func(*invokerv1.Request) bool) { w.failing(of) },
		"its answer": func(w *world, of func(*invokerv1.Request) bool) { w.unheard = of },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w, h := newWorld(t, 2), &host{}
				var mu sync.Mutex
				sent := map[string]int{}
				lose(w, func(request *invokerv1.Request) bool {
					if request.GetUp() == nil && request.GetDown().GetSequence() < 2 {
						return false // the first of those down begins the session
					}
					mu.Lock()
					defer mu.Unlock()
					batch := fmt.Sprint(request.GetUp().GetSequence(), request.GetDown().GetSequence())
					sent[batch]++
					return sent[batch] == 1
				})
				running := w.nodes[1].Start(attempt(h, invocation.ModeDurable))
				synctest.Wait()
				if started, _ := w.locals[2].counts(); started != 1 {
					t.Fatalf("%d attempts began, not 1", started)
				}
				theirs := w.locals[2].attempts[0]
				for i := range uint32(5) {
					theirs.Host.Append(theirs, i, &recordv1.Entry{})
					synctest.Wait()
					running.Cancel()
					synctest.Wait()
				}
				theirs.Host.Finish(theirs, &invoker.Outcome{Result: &recordv1.Result{}})
				synctest.Wait()
				if !slices.Equal(h.appended, []uint32{0, 1, 2, 3, 4}) || len(h.outcomes) != 1 || h.outcomes[0].Lost {
					t.Errorf("heard %v and %+v", h.appended, h.outcomes)
				}
				if started, aborted := w.locals[2].counts(); started != 1 || aborted != 0 {
					t.Errorf("%d began and %d were aborted", started, aborted)
				}
			})
		})
	}
}

// TestEndedSessionDoesNotBeginAgain: the first batch is not answered, and by then the other side has given the
// session up. It is not repeated: what the other side would say in the same session once more could be taken for
// what it said before.
func TestEndedSessionDoesNotBeginAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, h := newWorld(t, 2), &host{}
		first := true
		w.unheard = func(request *invokerv1.Request) bool {
			if request.GetDown() == nil || !first {
				return false
			}
			first = false
			theirs := w.locals[2].attempts[0]
			w.failing(func(r *invokerv1.Request) bool { return r.GetUp() != nil })
			theirs.Host.Append(theirs, 1, &recordv1.Entry{})
			time.Sleep(time.Second) // of the bubble: the host's side ends meanwhile
			w.failing(nil)
			return true
		}
		w.nodes[1].Start(attempt(h, invocation.ModeDurable))
		time.Sleep(10 * time.Second) // of the bubble
		synctest.Wait()
		if started, aborted := w.locals[2].counts(); started != 1 || aborted != 1 {
			t.Errorf("%d began and %d were aborted, not one each", started, aborted)
		}
		if len(h.appended) != 0 || len(h.outcomes) != 1 || !h.outcomes[0].Lost {
			t.Errorf("the leader heard %v and %+v, not that the attempt is lost", h.appended, h.outcomes)
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
		time.Sleep(6 * time.Second) // of the bubble: longer than Patience
		synctest.Wait()
		if len(transaction.outcomes) != 1 || !transaction.outcomes[0].Unhosted || !strings.Contains(transaction.outcomes[0].Result.GetError().GetMessage(), "no live node hosts t.Orders") {
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

// TestWhatIsAskedForIsAskedForAgain: that a call is lost while the session goes on is no error of the data,
// which a TRANSACTION would end with for good. If none arrives, the attempt begins again elsewhere.
func TestWhatIsAskedForIsAskedForAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, h := newWorld(t, 2), &host{}
		a := attempt(h, invocation.ModeTransaction)
		a.Tables = table{7}
		w.nodes[1].Start(a)
		synctest.Wait()
		theirs, asked, lost := w.locals[2].attempts[0], 0, 3
		w.failing(func(request *invokerv1.Request) bool {
			if request.GetAsk() == nil {
				return false
			}
			asked++
			return asked <= lost
		})
		if rows, err := theirs.Tables.Len("rows"); err != nil || rows != 7 || asked != 4 {
			t.Errorf("read %d, %v after %d questions of which three were lost", rows, err, asked)
		}
		lost = 1 << 30
		_, err := theirs.Tables.Len("rows")
		if err == nil {
			t.Error("read what can't be asked for")
		}
		theirs.Host.Finish(theirs, &invoker.Outcome{Result: &recordv1.Result{Error: &recordv1.Error{Message: err.Error()}}})
		synctest.Wait()
		if len(h.outcomes) != 1 || !h.outcomes[0].Lost {
			t.Errorf("the leader heard %+v, not that the attempt is lost", h.outcomes)
		}
		if _, aborted := w.locals[2].counts(); aborted != 1 {
			t.Errorf("aborted %d times, not once", aborted)
		}
		// A READ is made elsewhere.
		w.host(2, 3)
		w.failing(func(request *invokerv1.Request) bool { return request.GetAsk() != nil && w.reads[3] == 0 })
		result := w.nodes[1].Read(t.Context(), &invoker.Read{Target: a.Target, Tables: table{7}})
		if len(result.GetValue()) != 7 {
			t.Errorf("a READ at a node that can't ask ended with %v", result)
		}
	})
}

// TestTooLargeEndsOneAttempt: one that says more at once than nodes take ends with an error, and those
// beside it go on.
func TestTooLargeEndsOneAttempt(t *testing.T) {
	large := make([]byte, 33<<20)
	for name, say := range map[string]func(*invoker.Attempt){
		"an entry": func(a *invoker.Attempt) {
			a.Host.Append(a, 1, &recordv1.Entry{Entry: &recordv1.Entry_SetState{SetState: &recordv1.SetState{Value: large}}})
		},
		"its outcome": func(a *invoker.Attempt) {
			a.Host.Finish(a, &invoker.Outcome{Result: &recordv1.Result{Value: large}})
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w, h, beside := newWorld(t, 2), &host{}, &host{}
				w.nodes[1].Start(attempt(h, invocation.ModeDurable))
				w.nodes[1].Start(attempt(beside, invocation.ModeDurable))
				synctest.Wait()
				theirs, other := w.locals[2].attempts[0], w.locals[2].attempts[1]
				say(theirs)
				theirs.Host.Append(theirs, 2, &recordv1.Entry{})
				other.Host.Append(other, 1, &recordv1.Entry{})
				time.Sleep(10 * time.Second) // of the bubble: the beats notice
				synctest.Wait()
				if len(h.appended) != 0 || len(h.outcomes) != 1 || h.outcomes[0].Result.GetError().GetCode() != uint32(routing.CodeResourceExhausted) {
					t.Errorf("it was heard to say %v and end with %+v", h.appended, h.outcomes)
				}
				if len(beside.appended) != 1 || len(beside.outcomes) != 0 {
					t.Errorf("the other was heard to say %v and end with %v", beside.appended, beside.outcomes)
				}
			})
		})
	}
	t.Run("what it begins with", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			w, durable, transaction := newWorld(t, 2), &host{}, &host{}
			for h, mode := range map[*host]invocation.Mode{durable: invocation.ModeDurable, transaction: invocation.ModeTransaction} {
				a := attempt(h, mode)
				a.State = large
				w.nodes[1].Start(a)
			}
			synctest.Wait()
			if len(durable.outcomes) != 1 || !durable.outcomes[0].Pause || len(transaction.outcomes) != 1 || transaction.outcomes[0].Result.GetError() == nil {
				t.Errorf("they ended with %+v and %+v", durable.outcomes, transaction.outcomes)
			}
		})
	})
}

// TestManyWait: what comes beside many that wait does not have all of them looked at each time.
// TestLargeValueGoesInParts: a value that is larger than all that one node may say to another at once is
// written and read between nodes.
func TestLargeValueGoesInParts(t *testing.T) {
	value := make([]byte, 40<<20+3)
	for i := range value {
		value[i] = byte(i >> 9)
	}
	for _, test := range []struct {
		older bool
		bytes int
	}{{bytes: len(value)}, {older: true, bytes: 20 << 20}} {
		t.Run(fmt.Sprintf("older %t", test.older), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w, h := newWorld(t, 2), &host{}
				w.older = test.older
				w.nodes[1].Start(attempt(h, invocation.ModeDurable))
				synctest.Wait()
				theirs, value := w.locals[2].attempts[0], value[:test.bytes]
				for number, part := range journal.Split(value) {
					theirs.Host.Part(theirs, 1, number, part)
				}
				theirs.Host.CompleteParts(theirs, 1, journal.PartsOf(value))
				synctest.Wait()
				recorded := theirs.Host.Journal(theirs)
				for _, asksFirst := range []bool{false, true} {
					parts := h.value
					if asksFirst && !test.older {
						completion, err := recorded.Completion(1)
						if err != nil || completion.GetParts() == nil || completion.GetResult() != nil {
							t.Fatalf("the completion is %.100v, %v", completion, err)
						}
						parts = completion.GetParts()
					}
					got, err := journal.Join(parts, func(first uint32) ([][]byte, error) { return recorded.Parts(1, first) })
					if err != nil || !bytes.Equal(got, value) {
						t.Errorf("%d bytes came back as %d, %v", len(value), len(got), err)
					}
				}
				if _, aborted := w.locals[2].counts(); aborted != 0 || len(h.outcomes) != 0 {
					t.Errorf("the session ended: %d attempts were aborted, %v", aborted, h.outcomes)
				}
			})
		})
	}
}

func TestManyWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, h := newWorld(t), &host{}
		const many = 2000
		for range many {
			w.nodes[1].Start(attempt(h, invocation.ModeDurable))
			synctest.Wait()
		}
		time.Sleep(time.Second) // of the bubble
		synctest.Wait()
		// Each looks when it starts, and whoever looks after all of them does a few times.
		if most := 8 * many; w.looks > most {
			t.Errorf("looked %d times for a host, more than %d", w.looks, most)
		}
		w.host(2)
		time.Sleep(time.Second) // of the bubble
		synctest.Wait()
		if started, _ := w.locals[2].counts(); started != many {
			t.Errorf("%d began once there was a host, not %d", started, many)
		}
	})
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

// TestHeadersGoAlong: what runs elsewhere knows the headers of its call, and the nonce of its awakeables.
func TestHeadersGoAlong(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 2)
		headers := []*recordv1.Header{{Name: "x-team", Value: "blue"}}
		started := attempt(&host{}, invocation.ModeDurable)
		started.Headers, started.Nonce = headers, 7
		w.nodes[1].Start(started)
		synctest.Wait()
		read := &invoker.Read{Target: invocation.Target{Service: "t.Orders", Key: "k", Handler: "List"}, Tables: table{0}, Headers: headers}
		if result := w.nodes[1].Read(t.Context(), read); result.GetError() != nil {
			t.Fatal(result.GetError())
		}
		theirs := w.locals[2]
		if got := theirs.attempts[0].Nonce; got != 7 {
			t.Errorf("elsewhere the nonce is %d", got)
		}
		for _, got := range [][]*recordv1.Header{theirs.attempts[0].Headers, theirs.reads[0].Headers} {
			if len(got) != 1 || got[0].GetName() != "x-team" || got[0].GetValue() != "blue" {
				t.Errorf("elsewhere the headers are %v", got)
			}
		}
	})
}
