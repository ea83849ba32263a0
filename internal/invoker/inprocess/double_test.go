package inprocess_test

import (
	"bytes"
	"errors"
	"io"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/apipb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/perdure/perdure/actor"
	"github.com/perdure/perdure/internal/invocation"
	"github.com/perdure/perdure/internal/invoker"
	"github.com/perdure/perdure/internal/invoker/inprocess"
	"github.com/perdure/perdure/internal/journal"
	recordv1 "github.com/perdure/perdure/internal/record/v1"
)

// Requests and responses are apipb.Mixin: its name is the key, its root the payload.
type handle func(ctx actor.Context, req *apipb.Mixin) (*apipb.Mixin, error)

func reply(text string) *apipb.Mixin { return &apipb.Mixin{Root: text} }

func method(service, name string, mode actor.Mode, run handle) *actor.MethodDesc {
	return &actor.MethodDesc{
		Service: service, Name: name, Kind: actor.KindObject, Mode: mode, KeyField: 1,
		NewRequest:  func() proto.Message { return new(apipb.Mixin) },
		NewResponse: func() proto.Message { return new(apipb.Mixin) },
		Handle: func(ctx actor.Context, _ any, req proto.Message) (proto.Message, error) {
			return run(ctx, req.(*apipb.Mixin))
		},
	}
}

func service(methods ...*actor.MethodDesc) *actor.ServiceDesc {
	return &actor.ServiceDesc{
		Name: methods[0].Service, Kind: actor.KindObject, Methods: methods,
		StateType: func() proto.Message { return new(wrapperspb.Int64Value) },
		Tables:    []actor.TableDesc{{Name: "ledger", New: func() proto.Message { return new(wrapperspb.StringValue) }}},
	}
}

// quiet is a config that logs nothing.
func quiet() inprocess.Config {
	return inprocess.Config{Logger: slog.New(slog.NewTextHandler(io.Discard, nil))}
}

// newInvoker registers one service of the methods and closes the invoker when the test ends.
func newInvoker(t testing.TB, config inprocess.Config, methods ...*actor.MethodDesc) *inprocess.Invoker {
	t.Helper()
	inv := inprocess.New(config)
	if err := inv.Register(service(methods...), struct{}{}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := inv.Close(t.Context()); err != nil && !errors.Is(err, t.Context().Err()) {
			t.Error(err)
		}
	})
	return inv
}

// double is a partition that holds one invocation in memory. It keeps entries as bytes, as a log
// does, and can crash: abort the attempt and start another from what was recorded.
type double struct {
	t   testing.TB
	inv *inprocess.Invoker
	// crash is asked after each append and each completion; nil never crashes.
	crash func() bool
	// answer is what a callee returns; nil: a call is never answered.
	answer func(invoke *recordv1.Invoke) *recordv1.Result
	// attached sees what the handler attaches to, under the lock.
	attached func(index uint32, attach *recordv1.Attach)
	// atOnce answers the calls of a TRANSACTION before Call returns.
	atOnce bool
	// writes are the rows of earlier calls of the same transaction.
	writes []*recordv1.Entry
	// peek is the attempt's Promise.
	peek func(name string) (*recordv1.Result, error)
	// swap runs the attempts from the second on with another invoker: a new deploy.
	swap *inprocess.Invoker
	// hold keeps AwaitDurable from being granted.
	hold bool
	// onAppend sees every entry, under the lock.
	onAppend func(index uint32, entry *recordv1.Entry)
	// traceparent of whoever made the call.
	traceparent string
	// nonce of an attempt; nil: 0.
	nonce func(number uint32) uint64
	// entryBytes is what a completion takes that is not in parts; 0: anything.
	entryBytes int
	// maxAttempts ends a test that would go on for ever; 0: 300.
	maxAttempts uint32

	ended chan struct{}

	mu struct {
		sync.Mutex
		target      invocation.Target
		createdAt   time.Time
		mode        invocation.Mode
		input       []byte
		journal     [][]byte
		completions map[uint32][]byte
		tries       map[uint32][]byte
		parts       map[uint32][][]byte // by entry, of all attempts
		calls       []*recordv1.Invoke  // of the current attempt at a TRANSACTION
		state       []byte
		hasState    bool
		tables      map[string]map[string][]byte
		promises    map[string]*recordv1.Result
		waiters     map[string][]uint32
		signals     map[string][][]byte
		receivers   map[string][]uint32
		number      uint32
		current     *invoker.Attempt
		running     invoker.Running
		canceled    bool
		delivered   bool
		suspended   bool
		waitingFor  []uint32
		until       *recordv1.Condition
		suspensions int
		outcome     *invoker.Outcome
		retries     []*recordv1.Error
		retryAfter  []time.Duration
		divergence  *recordv1.Divergence
		timers      []*time.Timer
	}
}

func newDouble(t testing.TB, inv *inprocess.Invoker) *double {
	d := &double{t: t, inv: inv, ended: make(chan struct{})}
	d.mu.completions = map[uint32][]byte{}
	d.mu.tries = map[uint32][]byte{}
	d.mu.tables = map[string]map[string][]byte{}
	d.mu.promises = map[string]*recordv1.Result{}
	d.mu.waiters = map[string][]uint32{}
	d.mu.signals = map[string][][]byte{}
	d.mu.receivers = map[string][]uint32{}
	return d
}

// start begins the invocation; wait returns how it ended.
func (d *double) start(desc *actor.MethodDesc, root string) {
	input, err := proto.Marshal(&apipb.Mixin{Name: "k", Root: root})
	if err != nil {
		d.t.Fatal(err)
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.mu.target = invocation.Target{Service: desc.Service, Key: "k", Handler: desc.Name}
	d.mu.createdAt = time.Now()
	d.mu.mode, d.mu.input = invocation.Mode(desc.Mode), input
	d.startLocked()
}

func (d *double) wait() *invoker.Outcome {
	d.t.Helper()
	select {
	case <-d.ended:
	case <-time.After(30 * 24 * time.Hour): // fake time in most tests; the suite's timeout in others
		d.t.Fatal("the invocation did not end")
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.mu.outcome
}

func (d *double) run(desc *actor.MethodDesc, root string) *invoker.Outcome {
	d.t.Helper()
	d.start(desc, root)
	return d.wait()
}

func (d *double) entries() []*recordv1.Entry {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.entriesLocked()
}

func (d *double) entriesLocked() []*recordv1.Entry {
	var entries []*recordv1.Entry
	for _, data := range d.mu.journal {
		entries = append(entries, decode(d.t, data, new(recordv1.Entry)))
	}
	return entries
}

func decode[M proto.Message](t testing.TB, data []byte, into M) M {
	if err := proto.Unmarshal(data, into); err != nil {
		t.Error(err)
	}
	return into
}

func encode(t testing.TB, message proto.Message) []byte {
	data, err := proto.Marshal(message)
	if err != nil {
		t.Error(err)
	}
	return data
}

func (d *double) startLocked() {
	d.mu.number++
	limit := d.maxAttempts
	if limit == 0 {
		limit = 300
	}
	if d.mu.number > limit {
		d.endLocked(&invoker.Outcome{Retry: &recordv1.Error{Message: "too many attempts"}})
		return
	}
	completions := map[uint32]*recordv1.Completion{}
	for index, data := range d.mu.completions {
		completions[index] = decode(d.t, data, new(recordv1.Completion))
	}
	tries := map[uint32]*recordv1.RunTries{}
	for index, data := range d.mu.tries {
		tries[index] = decode(d.t, data, new(recordv1.RunTries))
	}
	id := invocation.DerivedID(d.mu.target, "test", "1")
	d.mu.suspended, d.mu.waitingFor, d.mu.until = false, nil, nil
	d.mu.current = &invoker.Attempt{
		ID: id, Number: d.mu.number, Target: d.mu.target, Mode: d.mu.mode, Input: d.mu.input,
		State: d.mu.state, HasState: d.mu.hasState, Tables: tables{d},
		Journal: d.entriesLocked(), Completions: completions, Tries: tries,
		CancelRequested: d.mu.canceled && !d.mu.delivered,
		Chain:           []*recordv1.Target{{Service: d.mu.target.Service, Key: d.mu.target.Key}},
		StartedAt:       d.mu.createdAt, Traceparent: d.traceparent,
		Writes: d.writes, Promise: d.peek,
		Host: d, EntryBytes: d.entryBytes, ResultBytes: 2 << 20,
	}
	if d.nonce != nil {
		d.mu.current.Nonce = d.nonce(d.mu.number)
	}
	inv := d.inv
	if d.swap != nil && d.mu.number > 1 {
		inv = d.swap
	}
	if d.mu.number%2 == 1 { // every other attempt is started with the beginning only
		all := d.mu.current
		all.Entries, all.LookAhead = uint32(len(all.Journal)), true
		all.Journal = all.Journal[:min(len(all.Journal), 2)]
		if all.Known = min(uint32(len(all.Journal)), 1); all.Known > 0 {
			maps.DeleteFunc(all.Completions, func(index uint32, _ *recordv1.Completion) bool { return index > all.Known })
		} else {
			clear(all.Completions)
		}
	}
	d.mu.running = remotely(d.t, inv).Start(d.mu.current)
}

// Journal reads the double's journal a few entries at a time.
func (d *double) Journal(*invoker.Attempt) invoker.Journal { return pages{d} }

type pages struct{ d *double }

func (p pages) Entries(index uint32) ([]*recordv1.Entry, error) {
	entries := p.d.entries()
	return entries[index-1 : min(int(index)+1, len(entries))], nil
}

func (p pages) Completions(first, last uint32) (map[uint32]*recordv1.Completion, uint32, error) {
	found := map[uint32]*recordv1.Completion{}
	p.d.mu.Lock()
	defer p.d.mu.Unlock()
	if data := p.d.mu.completions[first]; data != nil {
		found[first] = decode(p.d.t, data, new(recordv1.Completion))
	}
	return found, min(first, last), nil
}

func (p pages) Completion(index uint32) (*recordv1.Completion, error) {
	p.d.mu.Lock()
	defer p.d.mu.Unlock()
	data := p.d.mu.completions[index]
	if data == nil {
		return nil, nil
	}
	return decode(p.d.t, data, new(recordv1.Completion)), nil
}

func (p pages) Parts(index, first uint32) ([][]byte, error) {
	p.d.mu.Lock()
	defer p.d.mu.Unlock()
	parts := p.d.mu.parts[index]
	return parts[first:min(int(first)+2, len(parts))], nil
}

func (d *double) endLocked(outcome *invoker.Outcome) {
	d.mu.outcome = outcome
	d.mu.current = nil
	close(d.ended)
}

func (d *double) crashLocked() {
	if d.crash == nil || !d.crash() {
		return
	}
	d.mu.running.Abort(errors.New("crash"))
	d.startLocked()
}

func (d *double) Append(attempt *invoker.Attempt, index uint32, entry *recordv1.Entry) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if attempt != d.mu.current {
		return
	}
	if int(index) != len(d.mu.journal)+1 {
		d.t.Errorf("entry %d after %d", index, len(d.mu.journal))
	}
	d.mu.journal = append(d.mu.journal, encode(d.t, entry))
	if d.onAppend != nil {
		d.onAppend(index, entry)
	}
	d.applyLocked(index, entry)
	d.crashLocked()
}

// Call takes a call of a TRANSACTION. What answer leaves open the test completes itself.
func (d *double) Call(attempt *invoker.Attempt, index uint32, invoke *recordv1.Invoke) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if attempt != d.mu.current {
		return
	}
	d.mu.calls = append(d.mu.calls, invoke)
	if int(index) != len(d.mu.calls) {
		d.t.Errorf("call %d after %d", index, len(d.mu.calls)-1)
	}
	if len(invoke.InvocationId) > 0 || invoke.Caller != nil || invoke.Chain != nil || invoke.IdempotencyKey != "" || invoke.RetentionMs != 0 {
		d.t.Errorf("call %d has what only an invocation of its own has: %v", index, invoke)
	}
	if d.answer == nil {
		return
	}
	result := d.answer(invoke)
	switch {
	case result == nil:
	case d.atOnce:
		d.completeLocked(index, result)
	default:
		d.mu.timers = append(d.mu.timers, time.AfterFunc(0, func() { d.complete(index, result) }))
	}
}

func (d *double) calls() []*recordv1.Invoke {
	d.mu.Lock()
	defer d.mu.Unlock()
	return slices.Clone(d.mu.calls)
}

// ending is the outcome so far, nil while there is none.
func (d *double) ending() *invoker.Outcome {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.mu.outcome
}

func (d *double) abort(cause error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.mu.running.Abort(cause)
}

func (d *double) applyLocked(index uint32, entry *recordv1.Entry) {
	switch step := entry.Entry.(type) {
	case *recordv1.Entry_SetState:
		d.mu.state, d.mu.hasState = step.SetState.Value, !step.SetState.Clear
	case *recordv1.Entry_TablePut:
		rows := d.mu.tables[step.TablePut.Table]
		if rows == nil {
			rows = map[string][]byte{}
			d.mu.tables[step.TablePut.Table] = rows
		}
		if step.TablePut.Delete {
			delete(rows, step.TablePut.Key)
		} else {
			rows[step.TablePut.Key] = step.TablePut.Value
		}
	case *recordv1.Entry_Sleep:
		wait := time.Until(time.UnixMilli(step.Sleep.Until))
		d.mu.timers = append(d.mu.timers, time.AfterFunc(wait, func() { d.complete(index, &recordv1.Result{}) }))
	case *recordv1.Entry_StopTimer:
		d.completeLocked(step.StopTimer.Entry, &recordv1.Result{Error: &recordv1.Error{Code: 1, Message: "the timer was stopped"}})
	case *recordv1.Entry_Attach:
		if d.attached != nil {
			d.attached(index, step.Attach)
		}
	case *recordv1.Entry_Call:
		if d.mu.canceled && !d.mu.delivered {
			d.cancelCallLocked(index)
		}
		if d.answer != nil {
			if result := d.answer(step.Call.Invoke); result != nil {
				d.mu.timers = append(d.mu.timers, time.AfterFunc(0, func() { d.complete(index, result) }))
			}
		}
	case *recordv1.Entry_AwaitPromise:
		d.mu.waiters[step.AwaitPromise.Name] = append(d.mu.waiters[step.AwaitPromise.Name], index)
		d.promisesLocked()
	case *recordv1.Entry_CompletePromise:
		if d.mu.promises[step.CompletePromise.Name] == nil {
			d.mu.promises[step.CompletePromise.Name] = step.CompletePromise.Result
		}
		d.promisesLocked()
	case *recordv1.Entry_Receive:
		d.mu.receivers[step.Receive.Name] = append(d.mu.receivers[step.Receive.Name], index)
		d.signalsLocked()
	case *recordv1.Entry_Wait:
		if step.Wait.Outcome == recordv1.WaitOutcome_WAIT_OUTCOME_CANCELLED || step.Wait.CancelHeard {
			d.mu.delivered = true
		}
		for position, future := range step.Wait.Futures {
			if step.Wait.Outcome == recordv1.WaitOutcome_WAIT_OUTCOME_COMPLETED && position == int(step.Wait.Winner) && d.mu.completions[future] == nil {
				d.t.Errorf("entry %d says that %d completed, which it has not", index, future)
			}
		}
	}
}

func (d *double) promisesLocked() {
	for name, result := range d.mu.promises {
		for _, index := range d.mu.waiters[name] {
			d.completeLocked(index, result)
		}
		delete(d.mu.waiters, name)
	}
}

func (d *double) signalsLocked() {
	for name, waiting := range d.mu.receivers {
		for len(waiting) > 0 && len(d.mu.signals[name]) > 0 {
			d.completeLocked(waiting[0], &recordv1.Result{Value: d.mu.signals[name][0]})
			waiting, d.mu.signals[name] = waiting[1:], d.mu.signals[name][1:]
		}
		d.mu.receivers[name] = waiting
	}
}

// complete is a result from elsewhere.
func (d *double) complete(index uint32, result *recordv1.Result) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.completeLocked(index, result)
}

func (d *double) completeLocked(index uint32, result *recordv1.Result) {
	if d.mu.completions[index] != nil {
		return
	}
	completion := &recordv1.Completion{Entry: index, Result: result, At: time.Now().UnixMilli()}
	d.mu.completions[index] = encode(d.t, completion)
	switch {
	case d.mu.current == nil:
	case d.mu.suspended && d.mu.canceled && !d.mu.delivered && slices.Contains(d.mu.waitingFor, index):
		d.startLocked()
	case d.mu.suspended && d.mu.until != nil:
		if d.decidedLocked(d.mu.until, index) {
			d.startLocked()
		}
	case d.mu.suspended:
		if len(d.mu.waitingFor) == 0 || slices.Contains(d.mu.waitingFor, index) {
			d.startLocked()
		}
	default:
		d.mu.running.Notify(index, decode(d.t, d.mu.completions[index], new(recordv1.Completion)))
	}
}

func (d *double) decidedLocked(condition *recordv1.Condition, changed uint32) bool {
	decided, err := journal.Decided(condition, changed, func(entry uint32) (bool, bool, error) {
		data := d.mu.completions[entry]
		return data != nil, decode(d.t, data, new(recordv1.Completion)).GetResult().GetError() != nil, nil
	})
	if err != nil {
		d.t.Error(err)
	}
	return decided
}

func (d *double) cancel() {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.mu.canceled {
		return
	}
	d.cancelLocked()
}

func (d *double) cancelLocked() {
	d.mu.canceled = true
	if d.mu.suspended && !d.awaitsCallLocked() {
		d.startLocked()
	} else if d.mu.current != nil && !d.mu.suspended {
		d.mu.running.Cancel()
	}
	for index := range d.entriesLocked() {
		d.cancelCallLocked(uint32(index) + 1)
	}
}

// cancelCallLocked ends a call that has no result, as the callee's partition would.
func (d *double) cancelCallLocked(index uint32) {
	if d.isOpenCallLocked(index) {
		d.mu.timers = append(d.mu.timers, time.AfterFunc(time.Second, func() {
			d.complete(index, &recordv1.Result{Error: &recordv1.Error{Code: uint32(actor.Canceled), Message: "the callee was cancelled"}})
		}))
	}
}

func (d *double) isOpenCallLocked(index uint32) bool {
	return d.mu.completions[index] == nil && decode(d.t, d.mu.journal[index-1], new(recordv1.Entry)).GetCall() != nil
}

func (d *double) awaitsCallLocked() bool {
	return slices.ContainsFunc(d.mu.waitingFor, d.isOpenCallLocked)
}

func (d *double) AwaitDurable(attempt *invoker.Attempt, granted func()) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if attempt == d.mu.current && !d.hold {
		granted()
	}
}

func (d *double) Retry(attempt *invoker.Attempt, index uint32, tries *recordv1.RunTries) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if attempt != d.mu.current {
		return
	}
	d.mu.tries[index] = encode(d.t, tries)
	d.crashLocked()
}

func (d *double) Complete(attempt *invoker.Attempt, index uint32, result *recordv1.Result) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if attempt != d.mu.current {
		return
	}
	d.mu.completions[index] = encode(d.t, &recordv1.Completion{Entry: index, Result: result, At: time.Now().UnixMilli()})
	d.crashLocked()
}

func (d *double) Part(attempt *invoker.Attempt, index, number uint32, part []byte) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if attempt != d.mu.current {
		return
	}
	if d.mu.parts == nil {
		d.mu.parts = map[uint32][][]byte{}
	}
	if int(number) < len(d.mu.parts[index]) {
		d.mu.parts[index][number] = bytes.Clone(part)
		return // It got as far before: it has crashed here.
	}
	d.mu.parts[index] = append(d.mu.parts[index], bytes.Clone(part))
	d.crashLocked()
}

func (d *double) CompleteParts(attempt *invoker.Attempt, index uint32, parts *recordv1.Parts) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if attempt != d.mu.current {
		return
	}
	d.mu.completions[index] = encode(d.t, &recordv1.Completion{Entry: index, Parts: parts, At: time.Now().UnixMilli()})
	d.crashLocked()
}

func (d *double) Finish(attempt *invoker.Attempt, outcome *invoker.Outcome) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if attempt != d.mu.current {
		return
	}
	switch {
	case outcome.Suspended:
		d.mu.suspensions++
		if outcome.WaitingUntil != nil && d.decidedLocked(outcome.WaitingUntil, 0) {
			d.startLocked()
			return
		}
		for _, index := range outcome.WaitingFor {
			if outcome.WaitingUntil == nil && d.mu.completions[index] != nil {
				d.startLocked()
				return
			}
		}
		d.mu.waitingFor, d.mu.until = outcome.WaitingFor, outcome.WaitingUntil
		if d.mu.canceled && !d.mu.delivered && !d.awaitsCallLocked() {
			d.startLocked()
			return
		}
		d.mu.suspended = true
		if number := d.mu.number; !outcome.WakeAt.IsZero() {
			d.mu.timers = append(d.mu.timers, time.AfterFunc(time.Until(outcome.WakeAt), func() {
				d.mu.Lock()
				defer d.mu.Unlock()
				if d.mu.suspended && d.mu.number == number {
					d.startLocked()
				}
			}))
		}
	case outcome.Retry != nil:
		d.mu.retries = append(d.mu.retries, outcome.Retry)
		d.mu.retryAfter = append(d.mu.retryAfter, outcome.RetryAfter)
		if outcome.Divergence != nil {
			d.mu.divergence = outcome.Divergence
		}
		d.startLocked()
	default:
		if outcome.Result.Error == nil {
			for _, entry := range outcome.Entries {
				d.applyLocked(0, entry)
			}
		}
		d.endLocked(outcome)
	}
}

func (d *double) attempts() (count uint32, retries []*recordv1.Error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.mu.number, slices.Clone(d.mu.retries)
}

// tables reads the double's tables.
type tables struct{ d *double }

func (t tables) Get(table, key string) ([]byte, bool, error) {
	t.d.mu.Lock()
	defer t.d.mu.Unlock()
	value, ok := t.d.mu.tables[table][key]
	return value, ok, nil
}

func (t tables) Len(table string) (int, error) {
	t.d.mu.Lock()
	defer t.d.mu.Unlock()
	return len(t.d.mu.tables[table]), nil
}

func (t tables) Scan(table, from string, fn func(string, []byte) bool) error {
	t.d.mu.Lock()
	defer t.d.mu.Unlock()
	for _, key := range slices.Sorted(maps.Keys(t.d.mu.tables[table])) {
		if key >= from && !fn(key, t.d.mu.tables[table][key]) {
			break
		}
	}
	return nil
}

// text is a result in words: its root, or "code: message".
func text(t testing.TB, outcome *invoker.Outcome) string {
	t.Helper()
	switch {
	case outcome.Retry != nil:
		return "retry: " + outcome.Retry.Message
	case outcome.Result.GetError() != nil:
		return actor.Code(outcome.Result.Error.Code).String() + ": " + outcome.Result.Error.Message
	}
	return decode(t, outcome.Result.Value, new(apipb.Mixin)).Root
}

func value(t testing.TB, message proto.Message) *recordv1.Result {
	return &recordv1.Result{Value: encode(t, message)}
}
