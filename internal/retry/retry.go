// Package retry says when what failed is tried again: an attempt by its handler's policy, and a
// refused call by a hint to its caller.
package retry

import (
	"fmt"

	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/types/known/anypb"

	recordv1 "github.com/perdure/perdure/internal/record/v1"
)

// What a handler without a retry policy gets: half a minute of quick tries, then one a minute.
const (
	defaultInitialInterval = 100
	defaultMaxInterval     = 60_000
	defaultFactor          = 2
	defaultMaxAttempts     = 30
)

// Resolve is a policy with the defaults for what it does not say.
func Resolve(p *recordv1.RetryPolicy) *recordv1.RetryPolicy {
	resolved := &recordv1.RetryPolicy{
		InitialIntervalMs: p.GetInitialIntervalMs(), MaxIntervalMs: p.GetMaxIntervalMs(),
		Factor: p.GetFactor(), MaxAttempts: p.GetMaxAttempts(), PauseOnExhausted: p.GetPauseOnExhausted(),
	}
	if resolved.InitialIntervalMs <= 0 {
		resolved.InitialIntervalMs = defaultInitialInterval
	}
	if resolved.MaxIntervalMs <= 0 {
		resolved.MaxIntervalMs = max(defaultMaxInterval, resolved.InitialIntervalMs)
	}
	if resolved.Factor < 1 {
		resolved.Factor = defaultFactor
	}
	if resolved.MaxAttempts == 0 {
		resolved.MaxAttempts = defaultMaxAttempts
	}
	return resolved
}

// Interval is how many milliseconds a resolved policy waits after so many failures, at least one.
func Interval(p *recordv1.RetryPolicy, failures uint32) int64 {
	wait := float64(p.InitialIntervalMs)
	for range failures - 1 {
		wait *= p.Factor
		if wait >= float64(p.MaxIntervalMs) {
			return p.MaxIntervalMs
		}
	}
	return int64(wait)
}

// Info is the hint to try again after so many milliseconds, which callers of any kind of client read:
// a google.rpc.RetryInfo.
func Info(ms int64) *anypb.Any {
	var delay []byte // a google.protobuf.Duration
	if seconds := ms / 1000; seconds > 0 {
		delay = protowire.AppendVarint(protowire.AppendTag(delay, 1, protowire.VarintType), uint64(seconds))
	}
	if nanos := ms % 1000 * 1_000_000; nanos > 0 {
		delay = protowire.AppendVarint(protowire.AppendTag(delay, 2, protowire.VarintType), uint64(nanos))
	}
	info := protowire.AppendBytes(protowire.AppendTag(nil, 1, protowire.BytesType), delay)
	return &anypb.Any{TypeUrl: "type.googleapis.com/google.rpc.RetryInfo", Value: info}
}

// Lasting is a duration for a message.
func Lasting(ms int64) string {
	if ms%1000 == 0 || ms >= 10_000 {
		return fmt.Sprintf("%d s", (ms+999)/1000)
	}
	return fmt.Sprintf("%d ms", ms)
}
