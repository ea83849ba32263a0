package telemetry

import (
	"context"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/trace"
)

// Tracer makes spans. Nil is off: its methods pass the caller's traceparent through, so that
// a node without traces does not break the trace of those around it.
type Tracer struct {
	tracer trace.Tracer
	// foreign: its spans get ids that we can't choose.
	foreign bool
}

// NewTracer makes spans of provider.
func NewTracer(provider trace.TracerProvider) *Tracer {
	return &Tracer{tracer: provider.Tracer(scopeName)}
}

// Span is one span, or none if it is the zero value.
type Span struct {
	span        trace.Span
	traceparent string
}

// Attribute names beyond the conventions of OpenTelemetry; the RPC ones are stable since 1.45.
const (
	attributeSystem       = "rpc.system.name"
	attributeMethod       = "rpc.method"
	attributeStatus       = "rpc.response.status_code"
	attributeInvocationID = "perdure.invocation_id"
	attributeObjectKey    = "perdure.key"
	attributeAttempt      = "perdure.attempt"
	attributeAttempts     = "perdure.attempts"
	attributeMode         = "perdure.mode"
)

// Call is what a span of an arriving call says.
type Call struct {
	// Procedure is "pkg.Service/Method", and the span's name.
	Procedure string
	// Protocol is "connect", "grpc" or "grpcweb".
	Protocol string
	// Traceparent of the caller, "" for none.
	Traceparent string
}

// StartCall starts the span of a call that arrived at this node.
func (t *Tracer) StartCall(ctx context.Context, call Call) (context.Context, Span) {
	if t == nil {
		return ctx, Span{traceparent: call.Traceparent}
	}
	system := "connectrpc"
	if call.Protocol != "connect" {
		system = "grpc"
	}
	return t.start(ctx, call.Procedure, call.Traceparent, trace.SpanKindServer,
		attribute.String(attributeSystem, system), attribute.String(attributeMethod, call.Procedure))
}

// Attempt is what a span of one try at an invocation says.
type Attempt struct {
	Procedure    string
	Mode         string
	InvocationID string
	Key          string
	Number       uint32
	Traceparent  string
}

// StartAttempt starts the span of one attempt.
func (t *Tracer) StartAttempt(ctx context.Context, attempt Attempt) (context.Context, Span) {
	if t == nil {
		return ctx, Span{traceparent: attempt.Traceparent}
	}
	return t.start(ctx, "attempt "+attempt.Procedure, attempt.Traceparent, trace.SpanKindInternal,
		attribute.String(attributeMethod, attempt.Procedure),
		attribute.String(attributeMode, attempt.Mode),
		attribute.String(attributeInvocationID, attempt.InvocationID),
		attribute.String(attributeObjectKey, attempt.Key),
		attribute.Int64(attributeAttempt, int64(attempt.Number)))
}

// Invocation is what the span of an invocation says.
type Invocation struct {
	Procedure string
	Mode      string
	ID        string
	Key       string
	// Attempts is how many there were.
	Attempts uint32
	// Traceparent is what the invocation was asked for with.
	Traceparent            string
	CreatedAt, CompletedAt time.Time
	// Code is "ok", or the code of the failure that Message describes.
	Code, Message string
}

// InvocationTraceparent is the traceparent that an invocation's attempts continue: that of its
// span, which has an id that follows from the invocation's, since it is exported only once the
// invocation has ended. With traces off, for an invocation that is in no trace, and where a
// provider of the embedding program chooses the ids, it is the invocation's own traceparent:
// attempts are then beside the invocation's span.
func (t *Tracer) InvocationTraceparent(id, traceparent string) string {
	if t == nil || t.foreign || traceparent == "" {
		return traceparent
	}
	return withSpanID(traceparent, invocationSpanID(id))
}

// RecordInvocation exports the span of an invocation that has ended.
func (t *Tracer) RecordInvocation(inv Invocation) {
	if t == nil || inv.Traceparent == "" {
		return
	}
	traceparent := inv.Traceparent // so that inv stays on the stack while traces are off
	ctx := propagator.Extract(context.Background(), traceparentCarrier{&traceparent})
	if !trace.SpanContextFromContext(ctx).IsValid() {
		return
	}
	ctx = context.WithValue(ctx, spanIDKey{}, invocationSpanID(inv.ID))
	_, span := t.tracer.Start(ctx, "invocation "+inv.Procedure, trace.WithSpanKind(trace.SpanKindInternal),
		trace.WithTimestamp(inv.CreatedAt), trace.WithAttributes(
			attribute.String(attributeMethod, inv.Procedure),
			attribute.String(attributeMode, inv.Mode),
			attribute.String(attributeInvocationID, inv.ID),
			attribute.String(attributeObjectKey, inv.Key),
			attribute.Int64(attributeAttempts, int64(inv.Attempts))))
	if inv.Code != "ok" {
		span.SetAttributes(attribute.String(attributeStatus, inv.Code))
		span.SetStatus(codes.Error, inv.Message)
	}
	span.End(trace.WithTimestamp(inv.CompletedAt))
}

// StartStep starts the span of one durable step, such as "run pay" or "call bank.v1.X/Y",
// as a child of the span in ctx.
func (t *Tracer) StartStep(ctx context.Context, name string) (context.Context, Span) {
	if t == nil {
		return ctx, Span{}
	}
	return t.start(ctx, name, "", trace.SpanKindInternal)
}

func (t *Tracer) start(ctx context.Context, name, traceparent string, kind trace.SpanKind, attributes ...attribute.KeyValue) (context.Context, Span) {
	if traceparent != "" {
		ctx = propagator.Extract(ctx, traceparentCarrier{&traceparent})
	}
	ctx, span := t.tracer.Start(ctx, name, trace.WithSpanKind(kind), trace.WithAttributes(attributes...))
	var outgoing string
	propagator.Inject(ctx, traceparentCarrier{&outgoing})
	return ctx, Span{span: span, traceparent: outgoing}
}

// Traceparent is what calls made under the span carry: the span's own, or with traces off
// that of whoever called.
func (s Span) Traceparent() string { return s.traceparent }

// Recording reports whether what is set on the span goes anywhere.
func (s Span) Recording() bool { return s.span != nil && s.span.IsRecording() }

// SetInvocation says which invocation the span is about.
func (s Span) SetInvocation(id, key string) {
	if s.Recording() {
		s.span.SetAttributes(attribute.String(attributeInvocationID, id), attribute.String(attributeObjectKey, key))
	}
}

// End ends the span. code is "ok", or the code of the failure that message describes.
func (s Span) End(code, message string) {
	if s.span == nil {
		return
	}
	if code != "ok" {
		s.span.SetAttributes(attribute.String(attributeStatus, code))
		s.span.SetStatus(codes.Error, message)
	}
	s.span.End()
}

var propagator propagation.TraceContext

// traceparentCarrier is a propagation carrier of the one header we pass on. Tracestate is
// left behind: its size is the caller's choice and it would be stored with every invocation.
type traceparentCarrier struct{ value *string }

func (c traceparentCarrier) Get(key string) string {
	if key == "traceparent" {
		return *c.value
	}
	return ""
}

func (c traceparentCarrier) Set(key, value string) {
	if key == "traceparent" {
		*c.value = value
	}
}

func (c traceparentCarrier) Keys() []string { return []string{"traceparent"} }

// Traceparent is that of the span in ctx, whoever started it; "" for none.
func Traceparent(ctx context.Context) string {
	var traceparent string
	propagator.Inject(ctx, traceparentCarrier{&traceparent})
	return traceparent
}
