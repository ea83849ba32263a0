package inprocess

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"runtime"
	"runtime/debug"
	"sync/atomic"
	"time"

	"github.com/perdure/perdure/actor"
	"github.com/perdure/perdure/internal/invocation"
	"github.com/perdure/perdure/internal/invoker"
	recordv1 "github.com/perdure/perdure/internal/record/v1"
	"github.com/perdure/perdure/internal/telemetry"
)

// transaction runs one attempt at a TRANSACTION handler. Everything it does stays in memory
// until it finishes, so it needs no journal and is not replayed.
type transaction struct {
	invoker *Invoker
	method  *method
	attempt *invoker.Attempt
	life    lifetime
	guard   guard
	// over: the outcome was sent, or nobody wants it any more.
	over atomic.Bool
	// returned: the handler is through, and its goroutine may run another.
	returned atomic.Bool

	// What follows belongs to whoever holds guard.
	state           []byte
	hasState, wrote bool
	rows            rows
	entries         []*recordv1.Entry
	now             time.Time
	random          *rand.Rand
	logger          *slog.Logger
	// failed is why Fail stopped the handler: it counts whatever the handler returns.
	failed error
	// Parts of the outcome that most transactions have, here to save allocations.
	outcome  invoker.Outcome
	setState struct {
		message recordv1.SetState
		oneof   recordv1.Entry_SetState
		entry   recordv1.Entry
		list    [1]*recordv1.Entry
	}
}

var _ actor.Runtime = (*transaction)(nil)

func newTransaction(inv *Invoker, m *method, attempt *invoker.Attempt) *transaction {
	t := &transaction{invoker: inv, method: m, attempt: attempt, state: attempt.State, hasState: attempt.HasState}
	t.rows.base = attempt.Tables
	t.life.parent = context.Background()
	t.life.deadline = attempt.Deadline
	return t
}

func (t *transaction) perform(w *worker) {
	ctx, span := t.invoker.startAttempt(t.life.parent, t.method, t.attempt.ID, t.attempt.Target, t.attempt.Number, t.attempt.Traceparent)
	t.life.parent = ctx
	t.guard.owner = w.id
	returned := false
	defer func() {
		if returned {
			return
		}
		var result *recordv1.Result
		if panicked := recover(); panicked != nil {
			result = t.invoker.panicked(t.method, t.attempt.ID, panicked, debug.Stack())
		} else { // runtime.Goexit, by Fail or by the user
			result = errorResult(errorRecord(errExited))
		}
		t.finish(span, result)
	}()
	result := t.handle()
	returned = true
	t.finish(span, result)
}

var errExited = actor.NewError(actor.Internal, "the handler called runtime.Goexit")

func (t *transaction) handle() *recordv1.Result {
	req, err := t.method.decodeInput(t.attempt.Input)
	if err != nil {
		return errorResult(errorRecord(err))
	}
	resp, err := t.method.desc.Handle(actor.NewContext(&t.life, t), t.method.service.handler, req)
	if err != nil {
		t.invoker.logUncoded(t.method, t.attempt.ID, t.attempt.Number, err)
		return errorResult(errorRecord(err))
	}
	return t.method.encodeResponse(resp)
}

func (t *transaction) finish(span telemetry.Span, result *recordv1.Result) {
	t.returned.Store(true)
	outcome := &t.outcome
	outcome.Result = result
	if t.guard.take() { // else a foreign goroutine is in a step: the guard's error counts
		if t.failed != nil {
			outcome.Result = errorResult(errorRecord(t.failed))
		}
		outcome.Entries = t.effects()
		t.guard.release()
	} else {
		outcome.Result = errorResult(errorRecord(errConcurrent("a step")))
	}
	if outcome.Result.Error != nil {
		outcome.Entries = nil
	}
	endSpan(span, outcome.Result.Error)
	if t.over.CompareAndSwap(false, true) {
		t.life.end(errFinished)
		t.attempt.Host.Finish(t.attempt, outcome)
	}
}

var errFinished = errors.New("the handler has returned")

// effects are the entries of the outcome: the last state written first, then the rows, then the
// rest in program order.
func (t *transaction) effects() []*recordv1.Entry {
	if !t.wrote && len(t.rows.order) == 0 {
		return t.entries
	}
	effects := t.setState.list[:0]
	if more := len(t.rows.order) + len(t.entries); more > 0 {
		effects = make([]*recordv1.Entry, 0, 1+more)
	}
	if set := &t.setState; t.wrote {
		set.message.Value, set.message.Clear = t.state, !t.hasState
		set.oneof.SetState = &set.message
		set.entry.Entry = &set.oneof
		effects = append(effects, &set.entry)
	}
	for _, written := range t.rows.order {
		effects = append(effects, &recordv1.Entry{Entry: &recordv1.Entry_TablePut{TablePut: &recordv1.TablePut{
			Table: written.table, Key: written.key, Value: written.value, Delete: written.deleted,
		}}})
	}
	return append(effects, t.entries...)
}

func (t *transaction) Notify(uint32, *recordv1.Completion) {}

// Cancel does nothing: a transaction does not wait, and the partition decides whether it commits.
func (t *transaction) Cancel() {}

func (t *transaction) String() string { return describe(t.attempt.Target, t.attempt.ID) }

func (t *transaction) Abort(cause error) {
	t.over.Store(true)
	t.life.end(cause)
}

func (t *transaction) progress() (uint64, time.Duration) {
	if t.over.Load() {
		return 0, 0
	}
	return 0, t.method.stepTimeout
}

// expired ends the attempt while its handler goes on: Go cannot stop a goroutine that makes no
// steps. What it does later has no effect.
func (t *transaction) expired() {
	if !t.over.CompareAndSwap(false, true) {
		return
	}
	t.life.end(context.DeadlineExceeded)
	t.attempt.Host.Finish(t.attempt, &invoker.Outcome{Result: errorResult(errorRecord(errStepTimeout(t.method)))})
}

// enter begins a step, whose two parts of a name are joined only for an error; leave must follow if it returns nil.
func (t *transaction) enter(step, name string) error {
	if !t.guard.take() {
		return errConcurrent(step + name)
	}
	over, own := t.over.Load() || t.failed != nil, currentGoroutine() == t.guard.owner
	if !over && own {
		return nil
	}
	t.guard.release()
	switch {
	case !over:
		return errForeign(step + name)
	case !own, t.returned.Load(): // a handler's goroutine runs others later, which must not be ended
		return errOver(step + name)
	}
	runtime.Goexit()
	return nil
}

func (t *transaction) leave() { t.guard.release() }

// mustEnter is enter for steps that return no error.
func (t *transaction) mustEnter(step, name string) {
	if err := t.enter(step, name); err != nil {
		t.Fail(err)
	}
}

// Fail makes err the outcome and ends the goroutine: the handler's own, or the foreign one that
// made the step, whose attempt is lost too.
func (t *transaction) Fail(err error) {
	for !t.guard.take() { // the other step is short, and this path is rare
		runtime.Gosched()
	}
	if t.failed == nil {
		t.failed = err
	}
	t.guard.release()
	runtime.Goexit()
}

func (t *transaction) Invocation() actor.RuntimeInvocation {
	return actor.RuntimeInvocation{ID: t.attempt.ID.String(), Attempt: int(t.attempt.Number), Method: t.method.desc, Key: t.attempt.Target.Key}
}

func (t *transaction) Logger() *slog.Logger {
	t.mustEnter("Logger", "")
	defer t.leave()
	if t.logger == nil {
		t.logger = t.invoker.loggerOf(t.attempt.ID, t.attempt.Target, t.attempt.Number)
	}
	return t.logger
}

// Now is the instant at which the attempt first asks: there is no replay to agree with.
func (t *transaction) Now() time.Time {
	t.mustEnter("Now", "")
	defer t.leave()
	if t.now.IsZero() {
		t.now = time.Now()
	}
	return t.now
}

func (t *transaction) Rand() *rand.Rand {
	t.mustEnter("Rand", "")
	defer t.leave()
	if t.random == nil {
		t.random = randomOf(t.attempt.ID, t.attempt.StartedAt)
	}
	return t.random
}

func (t *transaction) State() ([]byte, bool) {
	t.mustEnter("State().Get", "")
	defer t.leave()
	return t.state, t.hasState
}

func (t *transaction) SetState(value []byte, clear bool) {
	t.mustEnter("State().Set", "")
	defer t.leave()
	t.state, t.hasState, t.wrote = value, !clear, true
}

func (t *transaction) TableGet(table, key string) ([]byte, bool) {
	t.mustEnter("Get of table ", table)
	value, ok, err := t.rows.get(table, key)
	t.leave()
	if err != nil {
		t.Fail(errTable(table, err))
	}
	return value, ok
}

func (t *transaction) TableLen(table string) int {
	t.mustEnter("Len of table ", table)
	count, err := t.rows.len(table)
	t.leave()
	if err != nil {
		t.Fail(errTable(table, err))
	}
	return count
}

func (t *transaction) TableScan(table, from string, yield func(string, []byte) bool) {
	// Not within the guard: the loop's body makes steps.
	t.mustEnter("From of table ", table)
	t.leave()
	if err := t.rows.scan(table, from, yield); err != nil {
		t.Fail(errTable(table, err))
	}
}

func (t *transaction) TablePut(table, key string, value []byte, remove bool) {
	t.mustEnter("Put of table ", table)
	defer t.leave()
	t.rows.put(table, key, value, remove)
}

// Call joins no other transaction yet.
func (t *transaction) Call(_ context.Context, call actor.CallRequest) (uint32, error) {
	return 0, actor.Errorf(actor.Unimplemented, "%s is a TRANSACTION and cannot call %s: calls between objects inside a TRANSACTION come with the next release; until then make them in a DURABLE handler, or send", t.method.desc.FullName(), call.Method.FullName())
}

func (t *transaction) Send(ctx context.Context, call actor.CallRequest) (string, error) {
	if err := checkSend(call); err != nil {
		return "", err
	}
	if err := t.enter("Send", ""); err != nil {
		return "", err
	}
	defer t.leave()
	invoke, err := NewInvoke(call, time.Now())
	if err != nil {
		return "", err
	}
	t.invoker.retain(invoke, true)
	id := stepID(call, t.attempt.ID, t.attempt.StartedAt, uint32(len(t.entries)+1))
	invoke.InvocationId = id[:]
	invoke.Traceparent = t.invoker.traceparentOf(ctx, t.attempt.Traceparent)
	t.entries = append(t.entries, &recordv1.Entry{Entry: &recordv1.Entry_Send{Send: &recordv1.Send{Invoke: invoke}}})
	return id.String(), nil
}

func (t *transaction) add(step, name string, entry *recordv1.Entry) error {
	if err := t.enter(step, name); err != nil {
		return err
	}
	defer t.leave()
	t.entries = append(t.entries, entry)
	return nil
}

func (t *transaction) CompleteAwakeable(_ context.Context, id string, value []byte, failure *actor.Error) error {
	entry, err := completeAwakeableEntry(id, value, failure)
	if err != nil {
		return err
	}
	return t.add("ResolveAwakeable", "", entry)
}

func (t *transaction) CompletePromise(_ context.Context, name string, value []byte, failure *actor.Error) error {
	return t.add("Resolve of promise ", name, completePromiseEntry(name, value, failure))
}

func (t *transaction) CancelInvocation(_ context.Context, id string) error {
	entry, err := cancelEntry(id)
	if err != nil {
		return err
	}
	return t.add("Cancel", "", entry)
}

func (t *transaction) refuse(step string) error {
	return actor.Errorf(actor.FailedPrecondition, "%s: %s is a TRANSACTION, which cannot wait or act on the world outside: it may be rolled back; give the rpc option (perdure.v1.method) = {mode: DURABLE}", step, t.method.desc.FullName())
}

func (t *transaction) Run(_ context.Context, name string, _ actor.RetryPolicy, _ bool, _ func(context.Context) ([]byte, error)) (uint32, error) {
	return 0, t.refuse(fmt.Sprintf("Run %q", name))
}

func (t *transaction) Sleep(context.Context, time.Duration) (uint32, time.Time, error) {
	return 0, time.Time{}, t.refuse("Sleep")
}

func (t *transaction) Awakeable(context.Context) (string, uint32, error) {
	return "", 0, t.refuse("NewAwakeable")
}

func (t *transaction) AwaitPromise(_ context.Context, name string) (uint32, error) {
	return 0, t.refuse("Await of promise " + name)
}

func (t *transaction) PeekPromise(_ context.Context, name string) ([]byte, bool, error) {
	return nil, false, t.refuse("Peek of promise " + name)
}

func (t *transaction) Receive(_ context.Context, name string) (uint32, error) {
	return 0, t.refuse("Receive of " + name)
}

func (t *transaction) Wait(context.Context, []uint32) (int, error) { return 0, t.refuse("Await") }

func (t *transaction) Result(uint32) ([]byte, error) { return nil, t.refuse("Await") }

func completeAwakeableEntry(id string, value []byte, failure *actor.Error) (*recordv1.Entry, error) {
	if _, _, err := invocation.ParseAwakeableID(id); err != nil {
		return nil, actor.Terminal(actor.InvalidArgument, err)
	}
	return &recordv1.Entry{Entry: &recordv1.Entry_CompleteAwakeable{CompleteAwakeable: &recordv1.CompleteAwakeable{
		AwakeableId: id, Result: resultRecord(value, failure),
	}}}, nil
}

func completePromiseEntry(name string, value []byte, failure *actor.Error) *recordv1.Entry {
	return &recordv1.Entry{Entry: &recordv1.Entry_CompletePromise{CompletePromise: &recordv1.CompletePromise{
		Name: name, Result: resultRecord(value, failure),
	}}}
}

func cancelEntry(id string) (*recordv1.Entry, error) {
	parsed, err := invocation.ParseID(id)
	if err != nil {
		return nil, actor.Terminal(actor.InvalidArgument, err)
	}
	return &recordv1.Entry{Entry: &recordv1.Entry_CancelInvocation{CancelInvocation: &recordv1.CancelInvocation{InvocationId: parsed[:]}}}, nil
}
