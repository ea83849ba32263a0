package inprocess

import (
	"context"
	"errors"
	"log/slog"
	"math/rand/v2"
	"runtime"
	"runtime/debug"
	"sync/atomic"
	"time"

	"github.com/perdure/perdure/actor"
	"github.com/perdure/perdure/internal/invoker"
	recordv1 "github.com/perdure/perdure/internal/record/v1"
	"github.com/perdure/perdure/internal/telemetry"
)

// transaction runs one attempt at a TRANSACTION handler, or at a READ handler that is part of a
// transaction. Everything it does stays in memory until it finishes, so it needs no journal and is
// not replayed. It waits for nothing but the handlers it calls, which become part of the
// transaction.
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
	// calls is nil until the first.
	calls atomic.Pointer[calls]

	// What follows belongs to whoever holds guard.
	state           []byte
	hasState, wrote bool
	// migrated is the state as the handler sees it, once it has asked.
	migrated migrated
	rows     rows
	entries  []*recordv1.Entry
	now      time.Time
	random   *rand.Rand
	logger   *slog.Logger
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
	if len(attempt.Writes) > 0 {
		t.rows.base = lay(attempt.Writes, attempt.Tables)
	}
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
	t.awaitCalls()
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

// Cancel does nothing: a transaction waits for its own parts only, and the partition decides
// whether it commits.
func (t *transaction) Cancel() {}

func (t *transaction) String() string { return describe(t.attempt.Target, t.attempt.ID) }

func (t *transaction) Abort(cause error) {
	t.over.Store(true)
	t.life.end(cause)
	t.calls.Load().awaken()
}

// progress counts the calls made and those completed: other steps take no time.
func (t *transaction) progress() (uint64, time.Duration) {
	if t.over.Load() {
		return 0, 0
	}
	return t.calls.Load().progress(), t.method.stepTimeout
}

// expired ends the attempt while its handler goes on: Go cannot stop a goroutine that makes no
// steps. What it does later has no effect.
func (t *transaction) expired() {
	if !t.over.CompareAndSwap(false, true) {
		return
	}
	t.life.end(context.DeadlineExceeded)
	t.calls.Load().awaken()
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
	t.calls.Load().awaken() // a foreign goroutine fails it while the handler waits
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
