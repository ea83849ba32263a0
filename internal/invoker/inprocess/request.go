package inprocess

import (
	"encoding/binary"
	"math/rand/v2"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/perdure/perdure/actor"
	"github.com/perdure/perdure/internal/invocation"
	recordv1 "github.com/perdure/perdure/internal/record/v1"
)

// NewInvoke makes the record of a call but for its invocation_id, caller, chain and traceparent.
// Durations of the method's options become instants as seen at now.
func NewInvoke(call actor.CallRequest, now time.Time) (*recordv1.Invoke, error) {
	input, err := proto.MarshalOptions{Deterministic: true}.Marshal(call.Request)
	if err != nil {
		return nil, actor.Errorf(actor.InvalidArgument, "%s: the request cannot be encoded: %w", call.Method.FullName(), err)
	}
	invoke := &recordv1.Invoke{
		Target:         &recordv1.Target{Service: call.Method.Service, Key: call.Key, Handler: call.Method.Name},
		Mode:           uint32(call.Method.Mode),
		Input:          input,
		IdempotencyKey: call.IdempotencyKey,
		RetentionMs:    call.Method.Options.Retention.Milliseconds(),
		StepTimeoutMs:  call.Method.Options.StepTimeout.Milliseconds(),
		Retry:          retryRecord(call.Method.Options.Retry),
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

// sendRetention is how long a finished invocation is kept that a handler sent, or gave an
// idempotency key, if its .proto does not say. The result of a call without one is in the
// caller's journal and need not be kept twice.
const sendRetention = 24 * time.Hour

func retain(invoke *recordv1.Invoke, sent bool) {
	if invoke.RetentionMs == 0 && (sent || invoke.IdempotencyKey != "") {
		invoke.RetentionMs = sendRetention.Milliseconds()
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

// stepID is the id of a call made as entry index of the invocation caller.
func stepID(call actor.CallRequest, caller invocation.ID, index uint32) invocation.ID {
	if id, ok := CallID(call); ok {
		return id
	}
	target := invocation.Target{Service: call.Method.Service, Key: call.Key, Handler: call.Method.Name}
	var entry [4]byte
	binary.BigEndian.PutUint32(entry[:], index)
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

// randomOf gives the same numbers in every attempt of an invocation.
func randomOf(id invocation.ID) *rand.Rand {
	return rand.New(rand.NewPCG(binary.BigEndian.Uint64(id[8:16]), binary.BigEndian.Uint64(id[16:24])))
}
