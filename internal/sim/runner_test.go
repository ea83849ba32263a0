package sim

import (
	"context"
	"encoding/binary"
	"fmt"
	"hash/fnv"
	"maps"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/perdure/perdure/internal/invocation"
	"github.com/perdure/perdure/internal/invoker"
	recordv1 "github.com/perdure/perdure/internal/record/v1"
)

// runner runs the simulation's handlers. Each attempt that has a journal is a goroutine; all
// that it decides by chance follows from the seed, its invocation and its number.
type runner struct {
	node *node
	all  sync.WaitGroup
	mu   struct {
		sync.Mutex
		deaf   map[invocation.ID]chan struct{} // closed when the invocation's next attempt begins
		closed bool                            // none will
	}
}

// wait returns when all attempts have ended, of which none begins any more.
func (r *runner) wait() {
	r.mu.Lock()
	r.mu.closed = true
	for _, next := range r.mu.deaf {
		close(next)
	}
	r.mu.deaf = nil
	r.mu.Unlock()
	r.all.Wait()
}

// linger keeps an attempt that does not heed its end until it can be taken for the invocation's next one, if
// there is one in this process.
func (r *runner) linger(id invocation.ID) bool {
	r.mu.Lock()
	if _, ok := r.mu.deaf[id]; ok || r.mu.closed {
		r.mu.Unlock()
		return false
	}
	next := make(chan struct{})
	if r.mu.deaf == nil {
		r.mu.deaf = map[invocation.ID]chan struct{}{}
	}
	r.mu.deaf[id] = next
	r.mu.Unlock()
	<-next
	r.mu.Lock()
	defer r.mu.Unlock()
	return !r.mu.closed
}

// rouse lets an earlier attempt say what it has come to, and reports whether there is one.
func (r *runner) rouse(id invocation.ID) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	next, ok := r.mu.deaf[id]
	if ok {
		close(next)
		delete(r.mu.deaf, id)
	}
	return ok
}

const (
	codeFailedPrecondition = 9
)

func value(n int64) []byte { return []byte(strconv.FormatInt(n, 10)) }

func number(b []byte) int64 {
	n, _ := strconv.ParseInt(string(b), 10, 64)
	return n
}

// luck is a number below n that is the same in every run of a seed.
func (r *runner) luck(id invocation.ID, attempt uint32, what string, n uint64) uint64 {
	h := fnv.New64a()
	_ = binary.Write(h, binary.BigEndian, r.node.world.seed)
	h.Write(id[:])
	_ = binary.Write(h, binary.BigEndian, attempt)
	h.Write([]byte(what))
	return h.Sum64() % n
}

// Start implements invoker.Invoker.
func (r *runner) Start(a *invoker.Attempt) invoker.Running {
	h := &handler{runner: r, attempt: a, index: uint32(0), wake: make(chan struct{}, 1), over: make(chan struct{})}
	h.mu.completions = map[uint32]*recordv1.Completion{}
	for index, c := range a.Completions {
		h.mu.completions[index] = c
	}
	if err := wholeJournal(a, h.mu.completions); err != nil {
		a.Host.Finish(a, &invoker.Outcome{Retry: &recordv1.Error{Code: 15, Message: err.Error()}})
		return h
	}
	h.mu.cancelled = a.CancelRequested
	outrun := r.rouse(a.ID)
	r.node.world.events.text("attempt", r.node.number+1, int(a.Number), a.ID)
	r.all.Go(func() {
		if outrun {
			time.Sleep(100 * time.Microsecond) // of fake time: the attempt that is outrun speaks first, after its end
		}
		outcome := h.run()
		if outcome != nil {
			r.node.world.events.text("outcome", r.node.number+1, int(a.Number), a.ID, text(outcome.Result), text(&recordv1.Result{Error: outcome.Retry}))
			a.Host.Finish(a, outcome)
		}
	})
	return h
}

// wholeJournal reads what the attempt was not started with: these handlers are short.
func wholeJournal(a *invoker.Attempt, completions map[uint32]*recordv1.Completion) error {
	if last := a.Start + uint32(len(a.Journal)); a.Entries == last && a.Known == last {
		return nil
	}
	rest := a.Host.Journal(a)
	for next := a.Start + uint32(len(a.Journal)) + 1; next <= a.Entries; next = a.Start + uint32(len(a.Journal)) + 1 {
		entries, err := rest.Entries(next)
		if err != nil {
			return err
		}
		a.Journal = append(a.Journal, entries...)
	}
	for next := a.Known + 1; next <= a.Entries; {
		more, known, err := rest.Completions(next, a.Entries)
		if err != nil {
			return err
		}
		maps.Copy(completions, more)
		next = known + 1
	}
	return nil
}

// Read implements invoker.Invoker: Get returns the state.
func (r *runner) Read(_ context.Context, read *invoker.Read) *recordv1.Result {
	return &recordv1.Result{Value: read.State}
}

// handler is an attempt that runs.
type handler struct {
	runner  *runner
	attempt *invoker.Attempt
	index   uint32 // journal entries replayed or made
	wake    chan struct{}
	over    chan struct{}
	mu      struct {
		sync.Mutex
		completions map[uint32]*recordv1.Completion
		cancelled   bool
		aborted     bool
	}
}

func (h *handler) signal() {
	select {
	case h.wake <- struct{}{}:
	default:
	}
}

// Notify implements invoker.Running.
func (h *handler) Notify(index uint32, c *recordv1.Completion) {
	h.mu.Lock()
	h.mu.completions[index] = c
	h.mu.Unlock()
	h.signal()
}

// Cancel implements invoker.Running.
func (h *handler) Cancel() {
	h.mu.Lock()
	h.mu.cancelled = true
	h.mu.Unlock()
	h.signal()
}

// Abort implements invoker.Running.
func (h *handler) Abort(error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if !h.mu.aborted {
		h.mu.aborted = true
		close(h.over)
	}
}

func (h *handler) run() (outcome *invoker.Outcome) {
	a := h.attempt
	// A handler computes for a while: others get between.
	if h.runner.luck(a.ID, a.Number, "slow", 4) == 0 {
		select {
		case <-time.After(time.Duration(h.runner.luck(a.ID, a.Number, "pause", 3000)) * time.Microsecond):
		case <-h.over:
			if h.runner.luck(a.ID, a.Number, "deaf", 2) == 0 || !h.runner.linger(a.ID) {
				return nil
			}
		}
	}
	if a.Mode.Journaled() && h.runner.luck(a.ID, a.Number, "fail", 8) == 0 {
		return &invoker.Outcome{Retry: &recordv1.Error{Code: 2, Message: "try again"}}
	}
	switch a.Target.Handler {
	case "Add", "AddAndSend":
		sum := value(number(a.State) + number(a.Input))
		outcome := &invoker.Outcome{Result: &recordv1.Result{Value: sum}, Entries: []*recordv1.Entry{setState(sum)}}
		if a.Target.Handler == "AddAndSend" {
			for i := range 2 {
				outcome.Entries = append(outcome.Entries, h.send(i))
			}
		}
		return outcome
	case "Withdraw", "Deposit":
		amount, balance := number(a.Input), number(a.State)
		if a.Target.Handler == "Withdraw" {
			amount = -amount
		}
		if balance += amount; balance < 0 {
			return &invoker.Outcome{Result: &recordv1.Result{Error: &recordv1.Error{Code: codeFailedPrecondition, Message: "not enough"}}}
		}
		return &invoker.Outcome{Result: &recordv1.Result{Value: value(balance)}, Entries: []*recordv1.Entry{setState(value(balance))}}
	case "Balance":
		return success(a.State)
	}
	done := make(chan *invoker.Outcome, 1)
	go func() { // Unwound by Goexit where it waits.
		defer close(done)
		done <- h.runWaiting(done)
	}()
	return <-done
}

// runWaiting is of the handlers that wait for something.
func (h *handler) runWaiting(done chan<- *invoker.Outcome) *invoker.Outcome {
	switch t := h.attempt.Target; t.Service + "." + t.Handler {
	case "sim.Transfers.Transfer":
		return h.transfer(done)
	case "sim.Errands.Errand":
		return h.errand(done)
	case "sim.List.Slow":
		return h.slow(done)
	case "sim.Lists.Batch", "sim.List.Batch":
		return h.runBatch()
	case "sim.Mover.Move", "sim.Account.Pay":
		return h.move()
	case "sim.Mover.Total":
		return h.total()
	default:
		if t.Service == "sim.List" {
			return h.runList()
		}
	}
	return failed(12, h.attempt.Target.Handler)
}

func setState(v []byte) *recordv1.Entry {
	return &recordv1.Entry{Entry: &recordv1.Entry_SetState{SetState: &recordv1.SetState{Value: v}}}
}

// send makes the request of a one-way Add to one of the keys that only sends go to.
func (h *handler) send(i int) *recordv1.Entry {
	a := h.attempt
	t := invocation.Target{Service: "sim.Counter", Key: sentCounter(int(h.runner.luck(a.ID, 0, fmt.Sprint("to", i), 3))), Handler: "Add"}
	in := invoke(t, invocation.ModeTransaction, value(1), "")
	id := invocation.DerivedID(t, "send", a.ID.String(), fmt.Sprint(i))
	in.InvocationId = id[:]
	if h.runner.luck(a.ID, 0, fmt.Sprint("delay", i), 3) == 0 {
		in.DueAt = h.runner.node.now().Add(200 * time.Millisecond).UnixMilli()
	}
	return &recordv1.Entry{Entry: &recordv1.Entry_Send{Send: &recordv1.Send{Invoke: in}}}
}

// transfer is the DURABLE handler: "from to amount". It asks the outside world (a Run closure),
// takes, waits, gives, and returns what the closure said.
func (h *handler) transfer(done chan<- *invoker.Outcome) *invoker.Outcome {
	words := strings.Fields(string(h.attempt.Input))
	from, to, amount := words[0], words[1], []byte(words[2])

	receipt := h.runStep(done, "receipt")
	if taken := h.call(done, from, "Withdraw", amount); taken.Error != nil {
		return &invoker.Outcome{Result: &recordv1.Result{Error: taken.Error}}
	}
	if sleep := h.runner.luck(h.origin(), 0, "sleep", 3); sleep > 0 {
		at := h.step(&recordv1.Entry{Entry: &recordv1.Entry_Sleep{Sleep: &recordv1.Sleep{Until: h.runner.node.now().Add(time.Duration(sleep) * 50 * time.Millisecond).UnixMilli()}}})
		h.await(done, at)
	}
	if given := h.call(done, to, "Deposit", amount); given.Error != nil {
		return &invoker.Outcome{Result: &recordv1.Result{Error: &recordv1.Error{Code: 13, Message: "money lost: " + given.Error.Message}}}
	}
	second := h.runStep(done, "confirm")
	return &invoker.Outcome{Result: &recordv1.Result{Value: []byte(receipt + " " + second)}}
}

// step replays the next entry, or appends it.
func (h *handler) step(entry *recordv1.Entry) uint32 {
	h.index++
	if int(h.index) <= len(h.attempt.Journal) {
		if got := h.attempt.Journal[h.index-1]; fmt.Sprintf("%T", got.Entry) != fmt.Sprintf("%T", entry.Entry) {
			h.runner.node.world.fail("%s: entry %d is %T in the journal and %T in the code", h.attempt.ID, h.index, got.Entry, entry.Entry)
		}
		return h.index
	}
	select {
	case <-h.over:
		runtime.Goexit()
	default:
	}
	h.attempt.Host.Append(h.attempt, h.index, entry)
	return h.index
}

func (h *handler) call(done chan<- *invoker.Outcome, account, method string, amount []byte) *recordv1.Result {
	return h.callStep(done, invocation.Target{Service: "sim.Account", Key: account, Handler: method}, amount)
}

// callStep calls a TRANSACTION as a step of a DURABLE handler.
func (h *handler) callStep(done chan<- *invoker.Outcome, t invocation.Target, input []byte) *recordv1.Result {
	a := h.attempt
	in := invoke(t, invocation.ModeTransaction, input, "")
	id := invocation.DerivedID(t, "call", a.ID.String(), fmt.Sprint(h.index+1))
	in.InvocationId, in.Chain = id[:], a.Chain
	in.RetentionMs = 0 // as what handlers call by default: nothing but the sequence of messages knows of it afterwards
	in.Caller = &recordv1.Caller{InvocationId: a.ID[:], Entry: h.index + 1}
	at := h.step(&recordv1.Entry{Entry: &recordv1.Entry_Call{Call: &recordv1.Call{Invoke: in}}})
	return h.await(done, at)
}

// runStep runs a closure once its entry is durable. The outside world notes each execution.
func (h *handler) runStep(done chan<- *invoker.Outcome, name string) string {
	a, w := h.attempt, h.runner.node.world
	at := h.step(&recordv1.Entry{Entry: &recordv1.Entry_Run{Run: &recordv1.Run{Name: name}}})
	h.mu.Lock()
	recorded := h.mu.completions[at]
	h.mu.Unlock()
	if recorded != nil {
		return string(recorded.Result.Value)
	}
	granted := make(chan struct{})
	a.Host.AwaitDurable(a, func() { close(granted) })
	select {
	case <-granted:
	case <-h.over:
		runtime.Goexit()
	}
	said, heard := w.execute(h.runner.node, a, at, name)
	if !heard {
		<-h.over
		runtime.Goexit()
	}
	time.Sleep(time.Duration(h.runner.luck(a.ID, a.Number, name, 2000)) * time.Microsecond)
	result := &recordv1.Result{Value: []byte(said)}
	h.mu.Lock()
	h.mu.completions[at] = &recordv1.Completion{Entry: at, Result: result}
	h.mu.Unlock()
	a.Host.Complete(a, at, result)
	return said
}

// await waits for a completion: with its goroutine, or suspended.
func (h *handler) await(done chan<- *invoker.Outcome, index uint32) *recordv1.Result {
	a := h.attempt
	patience := time.Duration(h.runner.luck(a.ID, a.Number, fmt.Sprint("patience", index), 4)) * 10 * time.Millisecond
	tired := time.After(patience)
	for {
		h.mu.Lock()
		c := h.mu.completions[index]
		h.mu.Unlock()
		if c != nil {
			return c.Result
		}
		select {
		case <-h.wake:
		case <-h.over:
			runtime.Goexit()
		case <-tired:
			done <- &invoker.Outcome{Suspended: true, WaitingFor: []uint32{index}}
			runtime.Goexit()
		}
	}
}

// invoke is a request for a handler.
func invoke(t invocation.Target, mode invocation.Mode, input []byte, key string) *recordv1.Invoke {
	id := invocation.DerivedID(t, "idem", key)
	return &recordv1.Invoke{
		InvocationId: id[:], Target: &recordv1.Target{Service: t.Service, Key: t.Key, Handler: t.Handler}, Mode: uint32(mode),
		Input: input, IdempotencyKey: key, RetentionMs: (24 * time.Hour).Milliseconds(),
		Retry: &recordv1.RetryPolicy{InitialIntervalMs: 5, MaxIntervalMs: 20, MaxAttempts: 1000},
	}
}
