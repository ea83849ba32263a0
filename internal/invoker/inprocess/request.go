package inprocess

import (
	"encoding/binary"
	"math/rand/v2"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/perdure/perdure/actor"
	"github.com/perdure/perdure/internal/flow"
	"github.com/perdure/perdure/internal/header"
	"github.com/perdure/perdure/internal/invocation"
	recordv1 "github.com/perdure/perdure/internal/record/v1"
)

// NewInvoke makes the record of a call but for its invocation_id, caller, chain and traceparent.
// Durations of the method's options become instants as seen at now. caller is the flow of the
// handler that calls, nil if there is none.
func NewInvoke(call actor.CallRequest, now time.Time, caller *recordv1.Flow) (*recordv1.Invoke, error) {
	input, err := proto.MarshalOptions{Deterministic: true}.Marshal(call.Request)
	if err != nil {
		return nil, actor.Errorf(actor.InvalidArgument, "%s: the request cannot be encoded: %w", call.Method.FullName(), err)
	}
	headers, err := header.OfCall(call.Headers)
	if err != nil {
		return nil, actor.Errorf(actor.InvalidArgument, "%s: %w", call.Method.FullName(), err)
	}
	invoke := &recordv1.Invoke{
		Target:         &recordv1.Target{Service: call.Method.Service, Key: call.Key, Handler: call.Method.Name},
		Mode:           uint32(call.Method.Mode),
		Input:          input,
		IdempotencyKey: call.IdempotencyKey,
		RetentionMs:    call.Method.Options.Retention.Milliseconds(),
		StepTimeoutMs:  call.Method.Options.StepTimeout.Milliseconds(),
		Retry:          retryRecord(call.Method.Options.Retry),
		Flow:           flow.Of(call.Method, call.Key, flow.GivenOf(call), caller),
		MaxInbox:       uint32(max(call.Method.Options.MaxInbox, 0)),
		Headers:        headers,

		JournalRetentionMs: call.Method.Options.JournalRetention.Milliseconds(),
	}
	begin := now
	if call.Delay > 0 {
		begin = now.Add(call.Delay)
		invoke.DueAt = begin.UnixMilli()
	}
	if timeout := call.Method.Options.Timeout; timeout > 0 {
		invoke.DeadlineAt = begin.Add(timeout).UnixMilli()
	}
	return invoke, nil
}

// retain sets how long an invocation that a handler makes is kept once finished, if its .proto
// does not say. The result of a call without an idempotency key is in the caller's journal and
// need not be kept twice, but for that of a RUN, which others ask for too.
func (inv *Invoker) retain(invoke *recordv1.Invoke, sent bool) {
	if invoke.RetentionMs == 0 && (sent || invoke.IdempotencyKey != "" || invoke.Mode == uint32(actor.ModeRun)) {
		invoke.RetentionMs = inv.config.Retention.Milliseconds()
	}
}

// CallID is the id of a call that has its identity by itself: an idempotency key, or the run of a
// workflow. ok is false for any other.
func CallID(call actor.CallRequest) (id invocation.ID, ok bool) {
	target := invocation.Target{Service: call.Method.Service, Key: call.Key, Handler: call.Method.Name}
	switch {
	case call.Method.Mode == actor.ModeRun:
		return invocation.DerivedID(target, "run"), true
	case call.IdempotencyKey != "":
		return invocation.DerivedID(target, "idempotency", call.IdempotencyKey), true
	}
	return invocation.ID{}, false
}

// stepID is the id of a call made as entry index of the invocation caller. An invocation with an
// idempotency key, or a workflow's run, that starts anew after its retention has the id of its
// predecessor, whose own calls may be retained still: the instant at which it started, which is
// the same in all its attempts, keeps the two apart.
func stepID(call actor.CallRequest, caller invocation.ID, startedAt time.Time, index uint32) invocation.ID {
	if id, ok := CallID(call); ok {
		return id
	}
	target := invocation.Target{Service: call.Method.Service, Key: call.Key, Handler: call.Method.Name}
	var entry [12]byte
	binary.BigEndian.PutUint64(entry[:], uint64(startedAt.UnixMilli()))
	binary.BigEndian.PutUint32(entry[8:], index)
	return invocation.DerivedID(target, "entry", string(caller[:]), string(entry[:]))
}

// retryRecord leaves zeros for the engine to fill in. It is nil for a method that leaves
// everything to the defaults: most do, and the record of each of their calls is smaller for it.
func retryRecord(policy actor.RetryPolicy) *recordv1.RetryPolicy {
	if policy == (actor.RetryPolicy{}) {
		return nil
	}
	return &recordv1.RetryPolicy{
		InitialIntervalMs: policy.InitialInterval.Milliseconds(),
		MaxIntervalMs:     policy.MaxInterval.Milliseconds(),
		Factor:            policy.Factor,
		MaxAttempts:       uint32(policy.MaxAttempts),
		PauseOnExhausted:  policy.PauseOnExhausted,
	}
}

// randomOf gives the same numbers in every attempt of an invocation, and others to one that has
// its id after it was purged.
func randomOf(id invocation.ID, startedAt time.Time) *rand.Rand {
	return rand.New(randomSource(id, startedAt))
}

func randomSource(id invocation.ID, startedAt time.Time) rand.Source {
	const spread = 0x9e3779b97f4a7c15 // odd, so that no two instants become one
	low := binary.BigEndian.Uint64(id[16:24]) ^ uint64(startedAt.UnixMilli())*spread
	return rand.NewPCG(binary.BigEndian.Uint64(id[8:16]), low)
}
