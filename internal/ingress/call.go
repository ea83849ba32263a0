package ingress

import (
	"context"
	"errors"
	"runtime/debug"
	"time"

	"connectrpc.com/connect/v2"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/descriptorpb"

	"github.com/perdure/perdure/actor"
	"github.com/perdure/perdure/internal/flow"
	"github.com/perdure/perdure/internal/invocation"
	recordv1 "github.com/perdure/perdure/internal/record/v1"
	"github.com/perdure/perdure/internal/routing"
	"github.com/perdure/perdure/internal/telemetry"
)

// method serves one handler of a registered service.
type method struct {
	ingress     *Ingress
	desc        *actor.MethodDesc
	name        string // "bank.v1.AccountService/Deposit"
	spec        connect.Spec
	stamps      stamps
	instruments *telemetry.HandlerInstruments
}

func (i *Ingress) newMethod(desc *actor.MethodDesc) *method {
	m := &method{
		ingress: i, desc: desc, name: desc.FullName(), stamps: newStamps(desc.Options),
		instruments: i.config.Instruments.Handler(desc.Service, desc.Name),
		spec:        connect.Spec{StreamType: connect.StreamTypeUnary, Procedure: "/" + desc.FullName()},
	}
	if desc.Schema != nil {
		if schema := desc.Schema(); schema != nil {
			m.spec.Schema = schema
			if options, ok := schema.Options().(*descriptorpb.MethodOptions); ok {
				m.spec.IdempotencyLevel = connect.IdempotencyLevel(options.GetIdempotencyLevel())
			}
		}
	}
	// Only READ handlers answer GET, whatever the .proto says: a crawler must change nothing.
	if desc.Mode != actor.ModeRead && m.spec.IdempotencyLevel == connect.IdempotencyNoSideEffects {
		m.spec.IdempotencyLevel = connect.IdempotencyUnknown
	}
	return m
}

// call is one call on its way through the edge.
type call struct {
	method *method
	// info is nil for a call that came over no wire.
	info *connect.CallInfo
	// sent is the caller's traceparent.
	sent   string
	id     invocation.ID
	target invocation.Target
	// accepted: the request was in order and went to the router.
	accepted bool
	span     telemetry.Span
}

// serve answers one call.
func (m *method) serve(ctx context.Context, _ connect.Spec, stream connect.ServerStream) error {
	info, ok := connect.CallInfoForServerContext(ctx)
	if !ok {
		return connect.NewError(connect.CodeInternal, "the call has no headers: the transport is not one of connect's")
	}
	c := call{method: m, info: info, sent: wellFormed(info.RequestHeader().Get(headerTraceparent))}
	if m.ingress.config.Tracer == nil && m.instruments == nil {
		if wired := c.finish(ctx, c.answer(ctx, stream)); wired != nil {
			return wired
		}
		return nil // not a nil *connect.Error, which is an error
	}
	started := time.Now()
	ctx, c.span = m.ingress.config.Tracer.StartCall(ctx, telemetry.Call{
		Procedure: m.name, Protocol: info.Protocol, Traceparent: c.sent,
	})
	err := c.answer(ctx, stream)
	wired := c.finish(ctx, err)
	if wired == nil {
		m.instruments.Call(ctx, telemetry.OutcomeSucceeded, "ok", time.Since(started))
		c.span.End("ok", "")
		return nil
	}
	m.instruments.Call(ctx, outcomeOf(err, wired), wired.Code().String(), time.Since(started))
	c.span.End(wired.Code().String(), wired.Message())
	return wired
}

// finish gives a failure its wire form; nil stays nil.
func (c *call) finish(ctx context.Context, err error) *connect.Error {
	if c.id.IsZero() {
		unique := newUnique()
		c.nameIt(invocation.NewID(spread(unique), unique))
	}
	if err == nil {
		return nil
	}
	if _, ok := errors.AsType[*handlerError](err); ok {
		c.info.ResponseHeader().SetValues(HeaderErrorSource, []string{SourceHandler})
	}
	wired := c.method.ingress.wire(ctx, c, err)
	if after := retryAfter(wired); after != "" {
		c.info.ResponseHeader().SetValues(headerRetryAfter, []string{after})
	}
	return wired
}

func (c *call) nameIt(id invocation.ID) {
	c.id = id
	if c.info != nil {
		c.info.ResponseHeader().SetValues(HeaderInvocationID, []string{id.String()})
	}
}

// answer reads, checks and routes the request and sends the response.
func (c *call) answer(ctx context.Context, stream connect.ServerStream) error {
	wanted, err := readDelivery(c.info.RequestHeader(), c.method.ingress.keep)
	if err != nil {
		return err
	}
	if err := wanted.check(c.method.desc); err != nil {
		return err
	}
	// The place is taken before the body is read, so that it bounds the memory for bodies too.
	if err := c.method.ingress.enter(); err != nil {
		return err
	}
	defer c.method.ingress.leave()
	request := c.method.desc.NewRequest()
	if err := stream.Receive(request); err != nil {
		return &receiveError{err}
	}
	value, err := c.process(ctx, request, wanted)
	if err != nil {
		return err
	}
	return stream.Send(&reply{value: value, empty: c.method.desc.NewResponse})
}

// process checks and routes a request, whichever way it came, and returns the response.
func (c *call) process(ctx context.Context, request proto.Message, wanted delivery) (value []byte, err error) {
	m := c.method
	// A validator of the user's may panic; net/http would cut the connection, and over HTTP/2
	// every other call on it.
	defer func() {
		if cause := recover(); cause != nil {
			m.ingress.log.ErrorContext(ctx, "panic at the edge", telemetry.KeyService, m.desc.Service,
				telemetry.KeyHandler, m.desc.Name, telemetry.KeyError, cause, telemetry.KeyStack, string(debug.Stack()))
			err = routing.Errorf(routing.CodeInternal, "%s: the request could not be checked; the node's log says more", m.name)
		}
	}()
	in, err := c.invoke(request, wanted)
	if err != nil {
		return nil, err
	}
	return c.route(ctx, in, wanted.send)
}

// invoke checks request and makes the router's form of it.
func (c *call) invoke(request proto.Message, wanted delivery) (*recordv1.Invoke, error) {
	m := c.method
	if m.desc.Mode != actor.ModeRead && m.desc.Mode != actor.ModeSignal {
		if err := m.ingress.config.Draining(); err != nil {
			return nil, routing.Errorf(routing.CodeUnavailable, "%s: %v", m.name, err)
		}
	}
	key, err := m.desc.RequestKey(request)
	if err != nil {
		return nil, err
	}
	c.target = invocation.Target{Service: m.desc.Service, Key: key, Handler: m.desc.Name}
	if err := wanted.useField(m.desc, request); err != nil {
		return nil, err
	}
	if validate := m.ingress.config.Validate; validate != nil {
		if err := validate(request); err != nil {
			return nil, &validationError{m.name, err}
		}
	}
	// Always encoded anew, in one order: the engine tells a repeated call from a different
	// one with the same idempotency key by these bytes, and the caller may have switched from
	// JSON to binary in between. It costs 0.2 µs.
	input, err := proto.MarshalOptions{Deterministic: true}.Marshal(request)
	if err != nil {
		return nil, invalid("%s: the request cannot be encoded: %v", m.name, err)
	}
	if m.desc.Mode == actor.ModeRun || m.desc.Mode == actor.ModeRead {
		wanted.key = "" // a run is known by its key, a READ changes nothing
	}
	c.nameIt(newID(m.desc, c.target, wanted.key))
	c.span.SetInvocation(c.id.String(), key)
	c.accepted = true
	in := &recordv1.Invoke{
		InvocationId:   c.id[:],
		Target:         &recordv1.Target{Service: c.target.Service, Key: c.target.Key, Handler: c.target.Handler},
		Mode:           uint32(m.desc.Mode),
		Input:          input,
		IdempotencyKey: wanted.key,
		Traceparent:    c.traceparent(),
		RetentionMs:    m.ingress.config.Retention.of(m.desc, wanted.key, wanted.autoKey, wanted.send).Milliseconds(),
		Retry:          m.stamps.retry,
		StepTimeoutMs:  m.stamps.stepTimeoutMs,
		Flow:           flow.Of(m.desc, key, wanted.flow, nil),
		MaxInbox:       m.stamps.maxInbox,

		JournalRetentionMs: m.stamps.journalRetentionMs,
	}
	if m.desc.Mode != actor.ModeSignal { // which is read by no handler of its own
		in.Headers = wanted.headers
	}
	if wanted.delay > 0 || m.stamps.timeout > 0 {
		now := time.Now()
		if wanted.delay > 0 {
			now = now.Add(wanted.delay)
			in.DueAt = now.UnixMilli()
		}
		if m.stamps.timeout > 0 {
			in.DeadlineAt = now.Add(m.stamps.timeout).UnixMilli()
		}
	}
	return in, nil
}

// traceparent is what the invocation continues: the span of this call, or with traces off
// what the caller sent.
func (c *call) traceparent() string {
	if own := c.span.Traceparent(); own != "" {
		return own
	}
	return c.sent
}

// wellFormed is a traceparent, or "" if it is not of the right form: it is stored with the
// invocation, so it must not be anything.
func wellFormed(traceparent string) string {
	const size = len("00-0123456789abcdef0123456789abcdef-0123456789abcdef-01")
	if len(traceparent) != size || traceparent[2] != '-' || traceparent[35] != '-' || traceparent[52] != '-' {
		return ""
	}
	for _, letter := range []byte(traceparent) {
		if (letter < '0' || letter > '9') && (letter < 'a' || letter > 'f') && letter != '-' {
			return ""
		}
	}
	return traceparent
}

// route gives the request to the router. The caller's deadline and departure end only the
// wait, through ctx.
func (c *call) route(ctx context.Context, in *recordv1.Invoke, send bool) ([]byte, error) {
	router := c.method.ingress.config.Router
	var result *recordv1.Result
	var err error
	switch {
	case send:
		_, err = router.Send(ctx, in)
	case c.method.desc.Mode == actor.ModeRead:
		result, err = router.Read(ctx, in)
	case c.method.desc.Mode == actor.ModeTransaction:
		known := &c.method.ingress.underWay
		known.begin(c.id, c.method.desc)
		defer func() { known.end(c.id, err != nil && ctx.Err() != nil) }()
		result, err = router.Call(ctx, in)
	default:
		result, err = router.Call(ctx, in)
	}
	if err != nil {
		return nil, err
	}
	if failure := result.GetError(); failure != nil {
		return nil, &handlerError{failure}
	}
	return result.GetValue(), nil
}
