package engine

import (
	"fmt"
	"slices"

	"github.com/cespare/xxhash/v2"
	"google.golang.org/protobuf/proto"

	"github.com/perdure/perdure/internal/invocation"
	"github.com/perdure/perdure/internal/limit/asker"
	recordv1 "github.com/perdure/perdure/internal/record/v1"
	"github.com/perdure/perdure/internal/schedule"
	"github.com/perdure/perdure/internal/table"
	"github.com/perdure/perdure/internal/transaction"
)

// The codes the engine itself fails with; the numbers are those of Connect and gRPC.
const (
	codeCanceled           = 1
	codeInvalidArgument    = 3
	codeDeadlineExceeded   = 4
	codeNotFound           = 5
	codeAlreadyExists      = 6
	codeResourceExhausted  = 8
	codeFailedPrecondition = 9
	codeInternal           = 13
	codeUnavailable        = 14
	codeDataLoss           = 15
)

func failure(code uint32, format string, args ...any) *recordv1.Result {
	return &recordv1.Result{Error: &recordv1.Error{Code: code, Message: fmt.Sprintf(format, args...)}}
}

func (ev *Invoke) evaluate(e *Engine, now int64) error {
	return e.accept(ev.Invoke, ev.Token, ev.OneWay, ev.Repeatable, now)
}

// accept starts, queues or schedules an invocation, or joins the one that has its id.
func (e *Engine) accept(in *recordv1.Invoke, token Token, oneWay, repeatable bool, now int64) error {
	id, ok := invocation.IDFromBytes(in.InvocationId)
	if !ok || in.Target == nil {
		return e.refuse(in, token, failure(codeInvalidArgument, "the request has no invocation id or no target"), now)
	}
	// A caller's request without a key has an id of its own: nobody can have used it before.
	if token == 0 || repeatable || in.IdempotencyKey != "" || invocation.Mode(in.Mode) == invocation.ModeRun {
		existing, err := e.loadLive(id)
		if err != nil {
			return err
		}
		if existing != nil && !bugIdempotency {
			return e.join(existing, in, token, oneWay, now)
		}
	}
	l := &live{id: id, target: targetOf(in.Target), row: rowOf(in, now)}
	if err := l.cycle(in); err != nil {
		return e.refuse(in, token, err, now)
	}
	if l.mode() == invocation.ModeSignal {
		return e.acceptSignal(l, in, token, oneWay, now)
	}
	queue := e.locks.Queue(l.target.Object())
	scheduled := in.DueAt > now
	// A one-way message was promised when its sender's step became durable, and nobody would
	// hear of a refusal: it is taken all the same.
	heard := token != 0 || in.Caller != nil
	if l.holdsKey() && !scheduled && heard && len(queue) >= e.maxInbox(in) {
		return e.refuse(in, token, exhausted(retryInbox,
			"%s has %d calls waiting, the most that may wait for one key; try again later", l.target.Object(), e.maxInbox(in)), now)
	}
	if l.row.Flow != nil {
		l.row.Flow.Firm = !heard || scheduled
	}

	// A TRANSACTION that somebody waits for lives in memory until it commits: if the node dies
	// before that, nothing of it happened and the caller calls again.
	volatile := l.mode() == invocation.ModeTransaction && token != 0 && !oneWay && !scheduled && in.Caller == nil && !asker.Limited(in)
	if l.row.DeadlineAt != 0 && !volatile {
		e.armTimer(table.Timer{At: l.row.DeadlineAt, Kind: table.TimerDeadline, ID: id})
	}
	if !volatile && l.mode().Journaled() {
		l.row.Input = nil
		l.input = &recordv1.Input{Value: in.Input}
		entry := &recordv1.Entry{At: now, Entry: &recordv1.Entry_Input{Input: l.input}}
		if err := e.putMessage(table.Journal(id, 0), entry); err != nil {
			return err
		}
	}
	switch {
	case token == 0:
	case oneWay && e.mayBeRefused(l):
		e.accepts(l, token)
	case oneWay:
		e.firm(l)
		e.effect(&Reply{Token: token})
	default:
		e.waiters[id] = append(e.waiters[id], token)
	}
	if scheduled {
		l.row.Status = recordv1.Status_STATUS_SCHEDULED
		e.armTimer(table.Timer{At: in.DueAt, Kind: table.TimerDue, ID: id})
		return e.store(l)
	}
	return e.enter(l, !volatile, now)
}

// enter takes the object's key or joins its inbox.
func (e *Engine) enter(l *live, store bool, now int64) error {
	e.changed = true
	e.live[l.id] = l
	if l.holdsKey() && e.lock(l) == transaction.Waits {
		l.row.Status = recordv1.Status_STATUS_QUEUED
		l.row.InboxSeq = e.nextSequence()
		e.taken(l)
		if store {
			return e.store(l)
		}
		return nil
	}
	l.stored = l.stored || store
	return e.start(l, now)
}

// runRetention is how long a WORKFLOW's run is kept when nobody says: a run that were
// forgotten at once could be started twice.
const runRetention = 24 * 60 * 60 * 1000

func rowOf(in *recordv1.Invoke, now int64) *recordv1.Invocation {
	retention := in.RetentionMs
	if retention <= 0 && invocation.Mode(in.Mode) == invocation.ModeRun {
		retention = runRetention
	}
	return &recordv1.Invocation{
		Target:         in.Target,
		Mode:           in.Mode,
		CreatedAt:      now,
		DueAt:          in.DueAt,
		Caller:         in.Caller,
		Traceparent:    in.Traceparent,
		RetentionMs:    retention,
		DeadlineAt:     in.DeadlineAt,
		InputHash:      xxhash.Sum64(in.Input),
		IdempotencyKey: in.IdempotencyKey,
		Retry:          in.Retry,
		Input:          in.Input,
		StepTimeoutMs:  in.StepTimeoutMs,
		Chain:          in.Chain,
		Flow:           asker.FlowOf(in.Flow),
		Scheduled:      in.Scheduled, Headers: in.Headers,

		JournalRetentionMs: in.JournalRetentionMs,
	}
}

// cycle refuses a call to a key that a caller up the chain holds and waits with: it could
// never start.
func (l *live) cycle(in *recordv1.Invoke) *recordv1.Result {
	if in.Caller == nil || !l.holdsKey() {
		return nil
	}
	return cycleIn(in.Chain, l.target)
}

// cycleIn refuses a target whose key is held by one of a chain.
func cycleIn(chain []*recordv1.Target, target invocation.Target) *recordv1.Result {
	if cycle := transaction.Cycle(chain, target); cycle != "" {
		return failure(codeFailedPrecondition, "%s", cycle)
	}
	return nil
}

// join makes a request one with the invocation of its id.
func (e *Engine) join(l *live, in *recordv1.Invoke, token Token, oneWay bool, now int64) error {
	if l.row.InputHash != xxhash.Sum64(in.Input) {
		result := failure(codeAlreadyExists, "idempotency key %q was used for another request to %s", in.IdempotencyKey, l.target)
		if l.mode() == invocation.ModeRun {
			result = failure(codeAlreadyExists, "%s was started with another request", l.target)
		}
		return e.refuse(in, token, result, now)
	}
	done := completed(l.row.Status)
	if in.Scheduled != nil && !proto.Equal(in.Scheduled, l.row.Scheduled) {
		// A WORKFLOW's run that somebody else has started: this firing comes to nothing.
		return e.refuse(in, token, failure(codeAlreadyExists, "%s has run already, or is running", l.target), now)
	}
	if l.handedOn() && (in.Caller != nil || oneWay && token != 0) {
		return e.refuse(in, token, failure(codeUnavailable, "%s is about to end, and nobody keeps its result: call again", l.target), now)
	}
	switch {
	case in.Caller != nil && done:
		if err := e.completeCaller(in.Caller, in.InvocationId, l.row.Result, now); err != nil {
			return err
		}
	case in.Caller != nil && !isWaiter(l.row, in.Caller):
		if len(l.row.Waiters) >= maxWaiters {
			return e.refuse(in, token, e.crowded(l), now)
		}
		l.row.Waiters = append(l.row.Waiters, in.Caller)
		if err := e.store(l); err != nil {
			return err
		}
	}
	switch {
	case token == 0 && in.Caller != nil:
	case token == 0:
		if !done && e.firm(l) { // This one was promised.
			return e.store(l)
		}
	case oneWay && !done && e.mayBeRefused(l) && !e.unheard(l):
		e.accepts(l, token)
	case oneWay:
		if !done && (e.firm(l) || !l.stored) {
			if err := e.store(l); err != nil {
				return err
			}
		}
		e.effect(&Reply{Token: token, Existed: true})
	case done:
		e.effect(&Reply{Token: token, Result: l.row.Result, Existed: true})
	default:
		e.await(l, token)
	}
	return nil
}

// await answers a request when an invocation completes, unless too many wait for that.
func (e *Engine) await(l *live, token Token) {
	if len(e.waiters[l.id]) >= maxWaiters {
		e.effect(&Reply{Token: token, Result: e.crowded(l), Refused: true})
		return
	}
	e.waiters[l.id] = append(e.waiters[l.id], token)
}

// crowded refuses those who would wait for a result for which too many wait already.
func (e *Engine) crowded(l *live) *recordv1.Result {
	return exhausted(retryInbox,
		"%s has %d requests waiting for its result, the most there may be: call again with the same idempotency key once it has ended, or look for its end instead of waiting (invocation %s)", l.target, maxWaiters, l.id)
}

func isWaiter(row *recordv1.Invocation, caller *recordv1.Caller) bool {
	return sameCaller(row.Caller, caller) || slices.ContainsFunc(row.Waiters, func(c *recordv1.Caller) bool { return sameCaller(c, caller) })
}

// refuse answers a request that comes to no invocation.
func (e *Engine) refuse(in *recordv1.Invoke, token Token, result *recordv1.Result, now int64) error {
	if token != 0 {
		e.effect(&Reply{Token: token, Result: result, Refused: true})
	}
	if in.Scheduled != nil {
		return e.endScheduled(schedule.EndOf(in.Scheduled, in.InvocationId, recordv1.Status_STATUS_FAILED, result.GetError(), now), now)
	}
	if in.Caller != nil {
		return e.completeCaller(in.Caller, in.InvocationId, result, now)
	}
	return nil
}

func (ev *Attach) evaluate(e *Engine, _ int64) error {
	l, err := e.loadLive(ev.ID)
	switch {
	case err != nil:
		return err
	case l == nil:
		e.effect(&Reply{Token: ev.Token, Refused: true, Result: failure(codeNotFound,
			"no invocation %s: it never existed, or its retention is over", ev.ID)})
	case completed(l.row.Status):
		e.effect(&Reply{Token: ev.Token, Result: l.row.Result})
	default:
		e.await(l, ev.Token)
	}
	return nil
}

func (ev *Hangup) evaluate(e *Engine, _ int64) error {
	tokens := e.waiters[ev.ID]
	for i, token := range tokens {
		if token == ev.Token {
			tokens = append(tokens[:i], tokens[i+1:]...)
			break
		}
	}
	if len(tokens) == 0 {
		delete(e.waiters, ev.ID)
	} else {
		e.waiters[ev.ID] = tokens
	}
	return nil
}
