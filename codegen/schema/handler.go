package schema

import (
	"cmp"
	"math"
	"time"

	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/known/durationpb"

	perdurev1 "github.com/perdure/perdure/proto/perdure/v1"
)

// Field numbers of perdure.v1.HandlerOptions and RetryPolicy, for positions.
const (
	retryField       = 1
	stepTimeoutField = 2
	timeoutField     = 3
	retentionField   = 4
	inactivityField  = 5
	journalField     = 6

	initialIntervalField = 1
	maxIntervalField     = 2
	factorField          = 3
	onExhaustedField     = 5
)

// handlerOptions checks each value by itself.
func (r *reader) handlerOptions(desc protoreflect.Descriptor, where []int32, name string, options *perdurev1.HandlerOptions) {
	at := func(path ...int32) []int32 { return append(append([]int32{}, where...), path...) }
	r.duration(desc, at(stepTimeoutField), name+".step_timeout", options.GetStepTimeout())
	r.duration(desc, at(timeoutField), name+".timeout", options.GetTimeout())
	r.duration(desc, at(retentionField), name+".retention", options.GetRetention())
	r.duration(desc, at(inactivityField), name+".inactivity_timeout", options.GetInactivityTimeout())
	r.duration(desc, at(journalField), name+".journal_retention", options.GetJournalRetention())

	retry := options.GetRetry()
	name += ".retry"
	r.duration(desc, at(retryField, initialIntervalField), name+".initial_interval", retry.GetInitialInterval())
	r.duration(desc, at(retryField, maxIntervalField), name+".max_interval", retry.GetMaxInterval())
	switch factor := retry.GetFactor(); {
	case math.IsNaN(factor) || math.IsInf(factor, 0):
		r.report(desc, at(retryField, factorField), "%s.factor %v is not a number to multiply with; it must be 1 or more", name, factor)
	case factor != 0 && factor < 1:
		r.report(desc, at(retryField, factorField), "%s.factor %v would make the waits shorter; it must be 1 or more", name, factor)
	}
	if attempts := retry.GetMaxAttempts(); attempts > math.MaxInt32 {
		r.report(desc, at(retryField), "%s.max_attempts %d is too many; at most %d are allowed", name, attempts, math.MaxInt32)
	}
	if on := retry.GetOnExhausted(); perdurev1.OnExhausted_name[int32(on)] == "" {
		r.report(desc, at(retryField, onExhaustedField), "%s.on_exhausted %d is not known to this protoc-gen-go-perdure; update it", name, on)
	}
}

// duration refuses 0: generated code has no other way to say "not set", so it would silently mean
// the default.
func (r *reader) duration(desc protoreflect.Descriptor, where []int32, name string, d *durationpb.Duration) {
	if d == nil {
		return
	}
	if err := d.CheckValid(); err != nil {
		r.report(desc, where, "%s is not a valid duration: seconds and nanos must have the same sign, and nanos less than 1000000000", name)
		return
	}
	if d.AsDuration() <= 0 {
		r.report(desc, where, "%s is %v; it must be more than 0 (leave it out for the default)", name, d.AsDuration())
		return
	}
	if d.GetSeconds() > int64(math.MaxInt64/time.Second) {
		r.report(desc, where, "%s is %d seconds; at most %d (292 years) are allowed", name, d.GetSeconds(), int64(math.MaxInt64/time.Second))
	}
}

// ineffectiveOptions refuses what the method itself says and its mode can't heed. The service's
// defaults may be for other methods, so they are left out silently where they don't apply.
func (r *reader) ineffectiveOptions(method *Method, options *perdurev1.HandlerOptions) {
	refuse := func(field int32, name string, set bool, why string) {
		if set {
			r.report(method.Desc, methodOption(handlerField, field), "handler.%s has no effect on a %s handler: %s; drop it", name, method.Mode, why)
		}
	}
	r.ineffectiveLimits(method, options)
	if !journaled(method.Mode) {
		refuse(inactivityField, "inactivity_timeout", options.GetInactivityTimeout() != nil, "it has no journal to be replayed from")
		refuse(journalField, "journal_retention", options.GetJournalRetention() != nil, "it has no journal")
	}
	switch method.Mode {
	case perdurev1.Mode_READ:
		refuse(retryField, "retry", options.GetRetry() != nil, "the caller retries")
		refuse(stepTimeoutField, "step_timeout", options.GetStepTimeout() != nil, "it has no durable steps")
		refuse(retentionField, "retention", options.GetRetention() != nil, "its result is not kept")
		refuse(limitsField, "limits", len(options.GetLimits()) > 0, "it waits for nothing")
		refuse(maxInboxField, "max_inbox", options.GetMaxInbox() > 0, "it waits for nothing")
	case perdurev1.Mode_SIGNAL:
		const why = "nothing runs, the RUN handler receives it"
		refuse(retryField, "retry", options.GetRetry() != nil, why)
		refuse(stepTimeoutField, "step_timeout", options.GetStepTimeout() != nil, why)
		refuse(timeoutField, "timeout", options.GetTimeout() != nil, why)
		refuse(limitsField, "limits", len(options.GetLimits()) > 0, why)
		refuse(maxInboxField, "max_inbox", options.GetMaxInbox() > 0, why)
	}
}

// mergeOptions lays the method's options over the service's defaults, field by field, and checks
// what only shows in the sum.
func (r *reader) mergeOptions(method *Method, defaults, own *perdurev1.HandlerOptions) HandlerOptions {
	merged := HandlerOptions{
		Retry: RetryPolicy{
			InitialInterval:  either(own.GetRetry().GetInitialInterval(), defaults.GetRetry().GetInitialInterval()),
			MaxInterval:      either(own.GetRetry().GetMaxInterval(), defaults.GetRetry().GetMaxInterval()),
			Factor:           own.GetRetry().GetFactor(),
			MaxAttempts:      own.GetRetry().GetMaxAttempts(),
			PauseOnExhausted: own.GetRetry().GetOnExhausted() == perdurev1.OnExhausted_PAUSE || defaults.GetRetry().GetOnExhausted() == perdurev1.OnExhausted_PAUSE,
		},
		StepTimeout: either(own.GetStepTimeout(), defaults.GetStepTimeout()),
		Timeout:     either(own.GetTimeout(), defaults.GetTimeout()),
		Retention:   either(own.GetRetention(), defaults.GetRetention()),
		Limits:      r.mergeLimits(method, defaults.GetLimits(), own.GetLimits()),
		MaxInbox:    int(cmp.Or(own.GetMaxInbox(), defaults.GetMaxInbox())),
	}
	if journaled(method.Mode) {
		merged.InactivityTimeout = either(own.GetInactivityTimeout(), defaults.GetInactivityTimeout())
		merged.JournalRetention = either(own.GetJournalRetention(), defaults.GetJournalRetention())
	}
	if merged.Retry.Factor == 0 {
		merged.Retry.Factor = defaults.GetRetry().GetFactor()
	}
	if merged.Retry.MaxAttempts == 0 {
		merged.Retry.MaxAttempts = defaults.GetRetry().GetMaxAttempts()
	}
	switch method.Mode {
	case perdurev1.Mode_READ:
		return HandlerOptions{Timeout: merged.Timeout}
	case perdurev1.Mode_SIGNAL:
		return HandlerOptions{Retention: merged.Retention}
	}
	if initial, longest := merged.Retry.InitialInterval, merged.Retry.MaxInterval; longest > 0 && initial > longest {
		r.report(method.Desc, methodOption(handlerField, retryField), "retry.initial_interval %v is more than retry.max_interval %v; lower the first or raise the second", initial, longest)
	}
	if kept, whole := merged.JournalRetention, merged.Retention; whole > 0 && kept > whole {
		r.report(method.Desc, methodOption(handlerField, journalField), "journal_retention %v is more than retention %v, with which the journal goes; lower the first or raise the second", kept, whole)
	}
	return merged
}

func journaled(mode perdurev1.Mode) bool {
	return mode == perdurev1.Mode_DURABLE || mode == perdurev1.Mode_RUN
}

func either(own, fallback *durationpb.Duration) time.Duration {
	if own != nil {
		return own.AsDuration()
	}
	return fallback.AsDuration()
}
