package ingress

import (
	"strconv"
	"time"
	"unicode/utf8"

	"connectrpc.com/connect/v2"
	"github.com/google/uuid"
	"google.golang.org/protobuf/proto"

	"github.com/perdure/perdure/actor"
	"github.com/perdure/perdure/internal/flow"
	"github.com/perdure/perdure/internal/header"
	"github.com/perdure/perdure/internal/invocation"
	recordv1 "github.com/perdure/perdure/internal/record/v1"
	"github.com/perdure/perdure/internal/routing"
)

// The headers of a call, in the form that net/http keeps them in.
const (
	HeaderIdempotencyKey = "Idempotency-Key"
	// HeaderAutoKey marks an idempotency key that a client made up for its own retries.
	HeaderAutoKey = "Perdure-Auto-Key"
	// HeaderSend answers at once, when the call is durable.
	HeaderSend = "Perdure-Send"
	// HeaderDelay is a Go duration such as "90s" or "36h"; it implies HeaderSend.
	HeaderDelay = "Perdure-Delay"
	// HeaderLimitKey is what limits with by: LIMIT_KEY count the call under.
	HeaderLimitKey = "Perdure-Limit-Key"
	// HeaderTenant is on whose behalf the call is made: tenants take turns at limits.
	HeaderTenant = "Perdure-Tenant"
	// HeaderPriority is an integer from -100 to 100; the higher goes first at limits.
	HeaderPriority = "Perdure-Priority"
	// HeaderHeaders names other headers of the request, separated by commas, that the handler is to
	// see.
	HeaderHeaders = "Perdure-Headers"
	// HeaderInvocationID is in every response of a handler. Of a call that was refused before
	// an invocation existed, it names the refusal in the node's log only.
	HeaderInvocationID = "Perdure-Invocation-Id"
	// HeaderErrorSource is "handler" in a response that is the handler's own failure, which a
	// second try would get again; any other failure comes from the node or the way to it.
	HeaderErrorSource = "Perdure-Error-Source"
	// SourceHandler is the value of HeaderErrorSource.
	SourceHandler     = "handler"
	headerTraceparent = "Traceparent"
)

const (
	maxIdempotencyKeyBytes = 255
	// MaxDelay of a send.
	MaxDelay = 10 * 365 * 24 * time.Hour
)

// Retention says how long a finished invocation is kept whose .proto does not say it.
type Retention struct {
	// Default is for invocations that a caller may come back to: those with an idempotency
	// key, sends, and DURABLE and RUN handlers. Defaults to 24 h.
	Default time.Duration
	// AutoKey is for those with a key that a client made up for its own retries. Defaults to
	// 1 h.
	AutoKey time.Duration
}

func (r Retention) withDefaults() Retention {
	if r.Default == 0 {
		r.Default = 24 * time.Hour
	}
	if r.AutoKey == 0 {
		r.AutoKey = time.Hour
	}
	return r
}

// of is what an invocation of m gets. A TRANSACTION or SIGNAL that was called without a key
// gets none: its caller has the answer, and nobody could ask for it again but by an id out of
// a header. Keeping it for a day would cost more bytes than the call itself.
func (r Retention) of(m *actor.MethodDesc, key string, auto, send bool) time.Duration {
	switch {
	case m.Mode == actor.ModeRead:
		return 0
	case m.Options.Retention > 0:
		return m.Options.Retention
	case key != "" && auto:
		return r.AutoKey
	case key != "" || send || m.Mode == actor.ModeDurable || m.Mode == actor.ModeRun:
		return r.Default
	}
	return 0
}

// delivery is what the headers of a call ask for.
type delivery struct {
	key      string
	autoKey  bool
	send     bool
	delay    time.Duration
	delaySet bool
	flow     flow.Given
	headers  []*recordv1.Header
}

func invalid(format string, args ...any) error {
	return routing.Errorf(routing.CodeInvalidArgument, format, args...)
}

// readDelivery reads the headers. Two values of a header that takes one are an error: which
// of them counts would depend on the order in which proxies add them.
func readDelivery(sent *connect.Header, keep *header.Rule) (d delivery, err error) {
	if values := sent.Values(HeaderIdempotencyKey); len(values) > 0 {
		d.key = values[0]
		switch {
		case len(values) > 1:
			return d, invalid("the header %s is there %d times; send it once", HeaderIdempotencyKey, len(values))
		case d.key == "":
			return d, invalid("the header %s is empty; leave it out or give it 1 to %d bytes", HeaderIdempotencyKey, maxIdempotencyKeyBytes)
		case len(d.key) > maxIdempotencyKeyBytes:
			return d, invalid("the header %s has %d bytes; at most %d are allowed", HeaderIdempotencyKey, len(d.key), maxIdempotencyKeyBytes)
		case !utf8.ValidString(d.key):
			return d, invalid("the header %s is not valid utf-8", HeaderIdempotencyKey)
		}
	}
	if d.autoKey, err = readFlag(sent, HeaderAutoKey); err != nil {
		return d, err
	}
	if d.send, err = readFlag(sent, HeaderSend); err != nil {
		return d, err
	}
	if values := sent.Values(HeaderDelay); len(values) > 0 {
		delay, parseErr := time.ParseDuration(values[0])
		switch {
		case len(values) > 1:
			return d, invalid("the header %s is there %d times; send it once", HeaderDelay, len(values))
		case parseErr != nil:
			return d, invalid("the header %s is %q, which is not a duration such as 90s, 15m or 36h", HeaderDelay, clip(values[0]))
		case delay < 0 || delay > MaxDelay:
			return d, invalid("the header %s is %s; it must be from 0s to %s", HeaderDelay, clip(values[0]), MaxDelay)
		}
		d.send, d.delay, d.delaySet = true, delay, true
	}
	if d.flow, err = readFlow(sent); err != nil {
		return d, err
	}
	d.headers, err = readHeaders(sent, keep)
	return d, err
}

func readFlag(header *connect.Header, name string) (bool, error) {
	values := header.Values(name)
	if len(values) == 0 {
		return false, nil
	}
	on, err := strconv.ParseBool(values[0])
	if err != nil || len(values) > 1 {
		return false, invalid("the header %s is %q; it must be 1 or 0, once", name, clip(values[0]))
	}
	return on, nil
}

// check refuses what the handler's mode cannot do.
func (d *delivery) check(m *actor.MethodDesc) error {
	switch {
	case d.send && m.Mode == actor.ModeRead:
		return invalid("%s is a READ handler: it changes nothing, so it cannot be sent to; leave out %s and %s", m.FullName(), HeaderSend, HeaderDelay)
	case d.delaySet && m.Mode == actor.ModeSignal:
		return invalid("%s is a SIGNAL: it is received at once; leave out %s", m.FullName(), HeaderDelay)
	}
	// A signal is answered when it is in the inbox: that is what a send is.
	if m.Mode == actor.ModeSignal {
		d.send = false
	}
	return nil
}

// useField makes the idempotency field of the request, if it has one, the call's key.
func (d *delivery) useField(m *actor.MethodDesc, request proto.Message) error {
	field := m.RequestIdempotencyKey(request)
	switch {
	case field == "":
		return nil
	case len(field) > maxIdempotencyKeyBytes:
		return invalid("%s: the request's idempotency key has %d bytes; at most %d are allowed", m.FullName(), len(field), maxIdempotencyKeyBytes)
	case d.key != "" && d.key != field && !d.autoKey:
		return invalid("%s: the idempotency key is %q in the request and %q in the header %s: give one of them", m.FullName(), clip(field), clip(d.key), HeaderIdempotencyKey)
	}
	// A caller that names its request means to come back, so the key is not automatic.
	d.key, d.autoKey = field, false
	return nil
}

// stamps are the parts of an Invoke that do not change between calls of a method.
type stamps struct {
	retry         *recordv1.RetryPolicy
	stepTimeoutMs int64
	timeout       time.Duration
	maxInbox      uint32

	journalRetentionMs int64
}

func newStamps(options actor.HandlerOptions) stamps {
	s := stamps{
		stepTimeoutMs: options.StepTimeout.Milliseconds(), timeout: options.Timeout, maxInbox: uint32(max(options.MaxInbox, 0)),
		journalRetentionMs: options.JournalRetention.Milliseconds(),
	}
	if r := options.Retry; r != (actor.RetryPolicy{}) {
		s.retry = &recordv1.RetryPolicy{
			InitialIntervalMs: r.InitialInterval.Milliseconds(),
			MaxIntervalMs:     r.MaxInterval.Milliseconds(),
			Factor:            r.Factor,
			MaxAttempts:       uint32(max(r.MaxAttempts, 0)),
			PauseOnExhausted:  r.PauseOnExhausted,
		}
	}
	return s
}

// newID names the invocation of a call to target.
func newID(m *actor.MethodDesc, target invocation.Target, key string) invocation.ID {
	switch {
	case m.Mode == actor.ModeRun:
		return invocation.DerivedID(target, "run")
	case key != "" && m.Mode != actor.ModeRead:
		return invocation.DerivedID(target, "idempotency", key)
	}
	unique := newUnique()
	hash := target.Hash()
	if target.Key == "" { // a SERVICE: spread its calls over all partitions
		hash = spread(unique)
	}
	return invocation.NewID(hash, unique)
}

func newUnique() [16]byte {
	id, err := uuid.NewV7()
	if err != nil { // it reads crypto/rand, which ends the process rather than fail
		return uuid.New()
	}
	return id
}

// spread is the random half of a version 7 UUID, mixed, for its first two bits are fixed.
func spread(unique [16]byte) uint64 {
	var hash uint64 = 14695981039346656037
	for _, b := range unique[6:] {
		hash = (hash ^ uint64(b)) * 1099511628211
	}
	return hash
}
