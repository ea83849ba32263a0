package remote

import (
	"errors"
	"time"

	"github.com/perdure/perdure/internal/invocation"
	"github.com/perdure/perdure/internal/invoker"
	recordv1 "github.com/perdure/perdure/internal/record/v1"
	"github.com/perdure/perdure/internal/routing"

	invokerv1 "github.com/perdure/perdure/internal/invoker/v1"
)

func targetRecord(t invocation.Target) *recordv1.Target {
	return &recordv1.Target{Service: t.Service, Key: t.Key, Handler: t.Handler}
}

func targetOf(t *recordv1.Target) invocation.Target {
	return invocation.Target{Service: t.GetService(), Key: t.GetKey(), Handler: t.GetHandler()}
}

// nanoseconds is 0 for the zero time.
func nanoseconds(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return t.UnixNano()
}

func instant(nanoseconds int64) time.Time {
	if nanoseconds == 0 {
		return time.Time{}
	}
	return time.Unix(0, nanoseconds)
}

// attemptMessage is all of an attempt but what can be asked for.
func attemptMessage(a *invoker.Attempt) *invokerv1.Attempt {
	m := &invokerv1.Attempt{
		Id: a.ID[:], Number: a.Number, Target: targetRecord(a.Target), Mode: uint32(a.Mode), Input: a.Input,
		State: a.State, HasState: a.HasState, Writes: a.Writes, Start: a.Start, Journal: a.Journal, Entries: a.Entries,
		Known: a.Known, LookAhead: a.LookAhead, EntryBytes: int64(a.EntryBytes), ResultBytes: int64(a.ResultBytes),
		Tries: a.Tries, Deployment: a.Deployment, Earlier: a.Earlier, CancelRequested: a.CancelRequested,
		Origins: a.Origins, Chain: a.Chain, Traceparent: a.Traceparent, Flow: a.Flow, Headers: a.Headers,
		StartedAt: nanoseconds(a.StartedAt), Deadline: nanoseconds(a.Deadline), Nonce: a.Nonce,
	}
	for _, completion := range a.Completions {
		m.Completions = append(m.Completions, completion)
	}
	return m
}

// attemptOf is the other way round; Host, Tables and Promise are not set.
func attemptOf(m *invokerv1.Attempt) (*invoker.Attempt, error) {
	id, ok := invocation.IDFromBytes(m.GetId())
	if !ok {
		return nil, errors.New("an attempt without an invocation's id")
	}
	a := &invoker.Attempt{
		ID: id, Number: m.GetNumber(), Target: targetOf(m.GetTarget()), Mode: invocation.Mode(m.GetMode()), Input: m.GetInput(),
		State: m.GetState(), HasState: m.GetHasState(), Writes: m.GetWrites(), Start: m.GetStart(), Journal: m.GetJournal(), Entries: m.GetEntries(),
		Known: m.GetKnown(), LookAhead: m.GetLookAhead(), EntryBytes: int(m.GetEntryBytes()), ResultBytes: int(m.GetResultBytes()),
		Tries: m.GetTries(), Deployment: m.GetDeployment(), Earlier: m.GetEarlier(), CancelRequested: m.GetCancelRequested(),
		Origins: m.GetOrigins(), Chain: m.GetChain(), Traceparent: m.GetTraceparent(), Flow: m.GetFlow(), Headers: m.GetHeaders(),
		StartedAt: instant(m.GetStartedAt()), Deadline: instant(m.GetDeadline()), Nonce: m.GetNonce(),
		Completions: map[uint32]*recordv1.Completion{},
	}
	for _, completion := range m.GetCompletions() {
		a.Completions[completion.GetEntry()] = completion
	}
	return a, nil
}

func outcomeMessage(o *invoker.Outcome) *invokerv1.Outcome {
	return &invokerv1.Outcome{
		Result: o.Result, Entries: o.Entries, ContinueAsNew: o.ContinueAsNew, Continues: o.ContinueAsNew != nil,
		Retry: o.Retry, Divergence: o.Divergence, Pause: o.Pause, RetryAfterNs: int64(o.RetryAfter), Entry: o.Entry, Stack: o.Stack,
		Suspended: o.Suspended, WaitingFor: o.WaitingFor, WaitingUntil: o.WaitingUntil, WakeAt: nanoseconds(o.WakeAt),
	}
}

func outcomeOf(m *invokerv1.Outcome) *invoker.Outcome {
	o := &invoker.Outcome{
		Result: m.GetResult(), Entries: m.GetEntries(), Retry: m.GetRetry(), Divergence: m.GetDivergence(), Pause: m.GetPause(),
		RetryAfter: time.Duration(m.GetRetryAfterNs()), Entry: m.GetEntry(), Stack: m.GetStack(),
		Suspended: m.GetSuspended(), WaitingFor: m.GetWaitingFor(), WaitingUntil: m.GetWaitingUntil(), WakeAt: instant(m.GetWakeAt()),
	}
	if m.GetContinues() {
		o.ContinueAsNew = append([]byte{}, m.GetContinueAsNew()...)
	}
	return o
}

func failureMessage(err error) *invokerv1.Failure {
	failure := &invokerv1.Failure{Message: err.Error()}
	if coded, ok := errors.AsType[*routing.Error](err); ok {
		failure.Code, failure.Message = uint32(coded.Code), coded.Message
	}
	return failure
}

// failureOf is nil for nil.
func failureOf(f *invokerv1.Failure) error {
	switch {
	case f == nil:
		return nil
	case f.GetCode() == 0:
		return errors.New(f.GetMessage())
	}
	return routing.Errorf(routing.Code(f.GetCode()), "%s", f.GetMessage())
}
