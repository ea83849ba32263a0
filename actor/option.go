package actor

import "time"

// CallOption changes one call that is waited for.
type CallOption interface{ applyCall(*CallRequest) }

// SendOption changes one call that is not waited for.
type SendOption interface{ applySend(*CallRequest) }

// Option fits both calls and sends.
type Option interface {
	CallOption
	SendOption
}

type idempotencyKey string

func (k idempotencyKey) applyCall(call *CallRequest) { call.IdempotencyKey = string(k) }
func (k idempotencyKey) applySend(call *CallRequest) { call.IdempotencyKey = string(k) }

// IdempotencyKey makes two calls of a handler of one object with the same key one call: the
// second gets the first one's result, as long as that is retained. At most 255 bytes; "" is none.
// It means nothing to a call that a TRANSACTION makes, which is done once with its caller.
func IdempotencyKey(key string) Option { return idempotencyKey(key) }

type delay time.Duration

func (d delay) applySend(call *CallRequest) { call.Delay = time.Duration(d) }

// Delay makes a send take effect after wait. The wait survives restarts and blocks no other
// call. A negative wait is none.
func Delay(wait time.Duration) SendOption { return delay(max(wait, 0)) }

// RunOption changes one [Run], [RunAsync] or [Do].
type RunOption interface{ applyRun(*RunPolicy) }

type runRetry RunPolicy

func (r runRetry) applyRun(policy *RunPolicy) { *policy = RunPolicy(r) }

// RunRetry replaces the retry policy of a Run.
func RunRetry(policy RunPolicy) RunOption { return runRetry(policy) }
