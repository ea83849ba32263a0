package inprocess

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"runtime"
	"runtime/debug"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/perdure/perdure/actor"
	"github.com/perdure/perdure/internal/invoker"
	"github.com/perdure/perdure/internal/journal"
	recordv1 "github.com/perdure/perdure/internal/record/v1"
	"github.com/perdure/perdure/internal/stress"
	"github.com/perdure/perdure/internal/telemetry"
)

// durable runs one attempt at a DURABLE or RUN handler.
//
// While cursor has recorded entries ahead the attempt replays: each step must match the entry
// ahead and has its completion, if there was one. At the end of the journal it processes: steps
// are appended through the host. The handler cannot tell the two apart, except by the log.
//
// How a wait ended is known on replay without an entry in one case only: a single future that
// completed. A Wait entry records every other end. The two cannot be confused: once a future is
// complete, each wait for it alone completes, whatever else has happened.
//
// The handler is unwound by stop: the step it is in, or its next one, calls runtime.Goexit.
type durable struct {
	invoker *Invoker
	method  *method
	attempt *invoker.Attempt
	life    lifetime
	span    telemetry.Span
	owner   uintptr // the handler's goroutine
	steps   atomic.Uint64
	busy    atomic.Int32 // goroutines in the handler's own code, where the step timeout counts
	live    atomic.Bool  // not replaying; for loggers, which any goroutine may use
	held    atomic.Int64 // about the bytes of mu.completions
	// park is where it stands among those that wait; the links are guarded by their mutex.
	park struct {
		before, after *durable
		waits         bool
		tired         atomic.Bool // it has waited longest, and too many do
	}

	// What follows belongs to the handler's goroutine.
	cursor journal.Cursor
	// versions are those that were asked for or passed over, by their change.
	versions map[string]version
	// aheadBytes were recorded since the handler last knew that all was durable.
	aheadBytes int
	// runs are the entries that are Runs.
	runs   bits
	now    time.Time
	inRun  string   // the Run whose closure is on the handler's goroutine
	calls  []uint32 // entries of calls that this attempt has made or met
	heard  []uint32 // the calls by whose end the handler heard that it was cancelled
	random *rand.Rand
	logger *slog.Logger
	data   durableData

	wake chan struct{} // of one: something under mu has changed
	over chan struct{} // closed by stop
	mu   struct {
		sync.Mutex
		completions map[uint32]*recordv1.Completion
		journal     invoker.Journal           // once it was needed
		own         bool                      // there are results of this attempt's Runs
		large       map[uint32][]byte         // of those, values in parts that nobody has asked for yet
		away        bits                      // entries whose completions are to be read again
		canceled    bool                      // requested and not delivered
		told        bool                      // delivered: the handler is told once
		stopRun     context.CancelCauseFunc   // of the closure inRun; nil: none runs
		closures    int                       // of RunAsync, running
		pauses      map[uint32]time.Time      // of RunAsync, waiting until then for their next try
		stopped     bool                      // over is closed
		finished    bool                      // the outcome was sent
		returned    bool                      // the handler is through; its goroutine may run another
		outcome     *invoker.Outcome          // why it was stopped; nil: aborted, say nothing
		spans       map[uint32]telemetry.Span // of steps without a completion yet
	}
}

var _ actor.Runtime = (*durable)(nil)

func newDurable(inv *Invoker, m *method, attempt *invoker.Attempt) *durable {
	d := &durable{
		invoker: inv, method: m, attempt: attempt,
		now:  beganAt(attempt),
		wake: make(chan struct{}, 1), over: make(chan struct{}),
	}
	d.life.parent, d.life.deadline = context.Background(), attempt.Deadline
	d.beginJournal()
	d.live.Store(!d.cursor.Replaying())
	d.mu.canceled = attempt.CancelRequested
	d.data.begin(attempt)
	return d
}

func (d *durable) perform(w *worker) {
	d.owner = w.id
	d.busy.Store(1)
	d.life.parent, d.span = d.invoker.startAttempt(d.life.parent, d.method, d.attempt.ID, d.attempt.Target, d.attempt.Number, d.attempt.Traceparent)
	returned := false
	defer func() {
		if returned {
			return
		}
		if panicked := recover(); panicked != nil {
			stack := debug.Stack()
			failure := d.invoker.panicked(d.method, d.attempt.ID, panicked, stack).GetError()
			// Unlike a caller, whoever looks at the retries should see what happened.
			failure.Message += ": " + fmt.Sprint(panicked)
			d.finish(d.at(&invoker.Outcome{Retry: failure, Stack: string(stack)}))
			return
		}
		d.finish(d.at(&invoker.Outcome{Retry: errorRecord(errExited)})) // unless it was stopped
	}()
	d.lookAhead()
	outcome := d.handle()
	returned = true
	d.finish(d.at(outcome))
}

func (d *durable) handle() *invoker.Outcome {
	req, err := d.method.decodeInput(d.attempt.Input)
	if err != nil {
		return &invoker.Outcome{Result: errorResult(errorRecord(err))}
	}
	resp, err := d.method.desc.Handle(actor.NewContext(&d.life, d), d.method.service.handler, req)
	again, continues := errors.AsType[*actor.ContinueAsNewError](err)
	wait, asked := retryAfter(err)
	if err != nil && !continues && (asked || !isCoded(err)) {
		d.invoker.logFailed(d.method, d.attempt.ID, d.attempt.Number, err)
		return &invoker.Outcome{Retry: errorRecord(err), RetryAfter: wait}
	}
	if next := d.next(); next != nil {
		return d.diverged(&journal.Divergence{Index: d.cursor.Passed() + 1, Recorded: next, Difference: "the kind of step"})
	}
	if continues {
		return d.continueAsNew(again)
	}
	if err != nil {
		return &invoker.Outcome{Result: errorResult(errorRecord(err))}
	}
	return &invoker.Outcome{Result: d.method.encodeResponse(resp)}
}

// finish sends the outcome of a handler that has returned or was unwound.
func (d *durable) finish(outcome *invoker.Outcome) {
	d.mu.Lock()
	if d.mu.stopped {
		outcome = d.mu.outcome
	} else { // for closures of RunAsync that are still at work
		d.mu.stopped = true
		close(d.over)
	}
	silent := d.mu.finished || outcome == nil
	d.mu.finished, d.mu.returned = true, true
	spans := d.mu.spans
	d.mu.spans = nil
	d.mu.Unlock()
	d.life.end(errFinished)
	for _, span := range spans {
		endSpan(span, nil)
	}
	endSpan(d.span, outcomeError(outcome))
	if !silent {
		d.attempt.Host.Finish(d.attempt, outcome)
	}
}

func outcomeError(outcome *invoker.Outcome) *recordv1.Error {
	if outcome == nil {
		return nil
	}
	if outcome.Retry != nil {
		return outcome.Retry
	}
	return outcome.Result.GetError()
}

// stop makes the handler unwind at its step; outcome, unless nil, is sent when it has. The first
// call counts.
func (d *durable) stop(cause error, outcome *invoker.Outcome) {
	d.mu.Lock()
	if d.mu.stopped || d.mu.finished {
		d.mu.Unlock()
		return
	}
	d.mu.stopped, d.mu.outcome = true, outcome
	close(d.over)
	d.mu.Unlock()
	d.life.end(cause)
}

func (d *durable) isStopped() bool {
	select {
	case <-d.over:
		return true
	default:
		return false
	}
}

// unwindIfStopped ends the handler's goroutine if something has stopped the attempt.
func (d *durable) unwindIfStopped() {
	if d.isStopped() {
		runtime.Goexit()
	}
}

func (d *durable) String() string { return describe(d.attempt.Target, d.attempt.ID) }

// Abort unwinds the handler without a word to the host.
func (d *durable) Abort(cause error) { d.stop(cause, nil) }

// Cancel makes the handler's current wait, or its next one that is not complete, return
// ErrCanceled.
func (d *durable) Cancel() {
	d.mu.Lock()
	d.mu.canceled = !d.mu.told
	if d.mu.stopRun != nil && d.mu.canceled {
		d.mu.stopRun(actor.ErrCanceled)
	}
	d.mu.Unlock()
	d.awaken()
}

// Notify takes in the completion of an entry.
func (d *durable) Notify(index uint32, completion *recordv1.Completion) {
	d.mu.Lock()
	d.completeLocked(index, completion)
	span := d.mu.spans[index]
	delete(d.mu.spans, index)
	d.mu.Unlock()
	endSpan(span, completion.GetResult().GetError())
	d.awaken()
}

func (d *durable) completeLocked(index uint32, completion *recordv1.Completion) {
	if _, twice := d.mu.completions[index]; twice {
		return
	}
	if d.mu.completions == nil {
		d.mu.completions = make(map[uint32]*recordv1.Completion)
	}
	d.mu.completions[index] = completion
	d.mu.own = d.mu.own || completion.GetAt() == 0 // a Run of this attempt
	d.held.Add(heldBytes(completion))
}

func (d *durable) awaken() {
	select {
	case d.wake <- struct{}{}:
	default:
	}
}

func (d *durable) progress() (uint64, time.Duration) {
	if d.busy.Load() == 0 || d.isStopped() {
		return 0, 0
	}
	return d.steps.Load(), d.method.stepTimeout
}

// expired gives the attempt up while its handler goes on: Go cannot stop a goroutine that makes
// no steps. Its next step unwinds it; nothing it does counts.
func (d *durable) expired() {
	err := errStepTimeout(d.method)
	d.mu.Lock()
	if d.mu.stopped || d.mu.finished {
		d.mu.Unlock()
		return
	}
	d.mu.stopped, d.mu.finished = true, true
	close(d.over)
	d.mu.Unlock()
	d.life.end(err)
	d.invoker.config.Logger.Warn("handler made no step", telemetry.KeyInvocationID, d.attempt.ID.String(), telemetry.KeyService, d.attempt.Target.Service,
		telemetry.KeyHandler, d.attempt.Target.Handler, telemetry.KeyAttempt, d.attempt.Number, telemetry.KeyError, err)
	d.attempt.Host.Finish(d.attempt, &invoker.Outcome{Retry: errorRecord(err)})
}

// Fail ends the attempt, to be tried again: what stopped it is in the code or in stored data, and
// a deploy can heal either.
func (d *durable) Fail(err error) {
	d.invoker.config.Logger.Error("attempt failed", telemetry.KeyInvocationID, d.attempt.ID.String(), telemetry.KeyService, d.attempt.Target.Service,
		telemetry.KeyHandler, d.attempt.Target.Handler, telemetry.KeyAttempt, d.attempt.Number, telemetry.KeyError, err)
	outcome := &invoker.Outcome{Retry: errorRecord(err)}
	if actor.CodeOf(err) == actor.ResourceExhausted { // Another attempt would make it as large.
		outcome = &invoker.Outcome{Result: errorResult(outcome.Retry)}
	}
	d.stop(err, d.at(outcome))
	runtime.Goexit()
}

// at says where in its journal the handler was.
func (d *durable) at(outcome *invoker.Outcome) *invoker.Outcome {
	if outcome.Entry == 0 {
		outcome.Entry = d.cursor.Passed()
	}
	return outcome
}

func (d *durable) diverged(divergence *journal.Divergence) *invoker.Outcome {
	if len(d.attempt.Earlier) > 0 {
		divergence.RecordedBy, divergence.MadeBy = strings.Join(d.attempt.Earlier, ", "), d.attempt.Deployment
	}
	d.invoker.config.Logger.Error("journal diverged", telemetry.KeyInvocationID, d.attempt.ID.String(), telemetry.KeyService, d.attempt.Target.Service,
		telemetry.KeyHandler, d.attempt.Target.Handler, telemetry.KeyAttempt, d.attempt.Number, telemetry.KeyError, divergence)
	return &invoker.Outcome{
		Retry:      &recordv1.Error{Code: uint32(actor.Internal), Message: divergence.Error()},
		Divergence: divergence.Record(d.attempt.Number, d.show), Entry: divergence.Index,
	}
}

// enter begins a step: it is refused from another goroutine and in the closure of a Run, and
// unwinds a handler that was stopped. The two parts of its name are joined for an error only.
func (d *durable) enter(step, name string) error {
	if currentGoroutine() != d.owner {
		if d.isStopped() {
			return errOver(step + name)
		}
		return errForeign(step + name)
	}
	d.mu.Lock()
	stopped, returned := d.mu.stopped, d.mu.returned
	d.mu.Unlock()
	switch {
	case returned: // the goroutine runs another handler by now
		return errOver(step + name)
	case stopped:
		runtime.Goexit()
	case d.inRun != "":
		return actor.Errorf(actor.FailedPrecondition, "%s inside the closure of Run %q with the handler's ctx: a closure cannot make durable steps; make them before or after it", step+name, d.inRun)
	}
	d.steps.Add(1)
	return nil
}

// mustEnter is enter for steps that return no error.
func (d *durable) mustEnter(step, name string) {
	if err := d.enter(step, name); err != nil {
		d.Fail(err)
	}
}

// record matches the step with the journal, or appends it. It returns the entry that counts: the
// recorded one on replay.
func (d *durable) record(entry *recordv1.Entry, same journal.SameValue) (uint32, *recordv1.Entry) {
	if recorded := d.next(); recorded != nil {
		if divergence := d.cursor.Match(entry, same); divergence != nil {
			entry.Site = callSite()
			d.stop(divergence, d.diverged(divergence))
			runtime.Goexit()
		}
		return d.pass(recorded), recorded
	}
	entry.Site = callSite()
	if entry.At == 0 {
		entry.At = d.clock()
	}
	d.advance(entry.At)
	index := d.cursor.Pass()
	d.attempt.Host.Append(d.attempt, index, entry)
	d.unwindIfStopped()
	d.keepPace(entry)
	d.shed()
	return index, entry
}

// maxAheadBytes is how much a handler may record before it waits for the disk: without a bound, one
// that records faster than the disk writes would fill the memory of the node.
var maxAheadBytes = stress.Few(1<<20, 1<<10)

func (d *durable) keepPace(entry *recordv1.Entry) {
	const head = 128 // what an entry costs besides its content
	d.aheadBytes += head + proto.Size(entry)
	if d.aheadBytes < maxAheadBytes {
		return
	}
	d.aheadBytes = 0
	d.gate()
	d.unwindIfStopped()
}

// pass goes past the recorded entry ahead.
func (d *durable) pass(recorded *recordv1.Entry) uint32 {
	d.advance(recorded.GetAt())
	index := d.cursor.Pass()
	if !d.cursor.Replaying() {
		d.live.Store(true)
	}
	d.shed()
	return index
}

// clock is the instant of a new entry in milliseconds; it does not go backwards.
func (d *durable) clock() int64 { return max(time.Now().UnixMilli(), d.now.UnixMilli()) }

func (d *durable) advance(milliseconds int64) {
	if at := time.UnixMilli(milliseconds); milliseconds > 0 && at.After(d.now) {
		d.now = at
	}
}

func (d *durable) Invocation() actor.RuntimeInvocation {
	return actor.RuntimeInvocation{ID: d.attempt.ID.String(), Attempt: int(d.attempt.Number), Method: d.method.desc, Key: d.attempt.Target.Key}
}

func (d *durable) Now() time.Time {
	d.mustEnter("Now", "")
	return d.now
}

func (d *durable) Rand() *rand.Rand {
	d.mustEnter("Rand", "")
	if d.random == nil {
		d.random = rand.New(&durableRandom{d: d})
	}
	return d.random
}

func (d *durable) Logger() *slog.Logger {
	d.mustEnter("Logger", "")
	if d.logger == nil {
		logger := d.invoker.loggerOf(d.attempt.ID, d.attempt.Target, d.attempt.Number)
		d.logger = slog.New(liveHandler{logger.Handler(), &d.live})
	}
	return d.logger
}
