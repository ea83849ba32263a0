package inprocess

import (
	"context"
	"encoding/hex"
	"strings"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/trace"

	"github.com/perdure/perdure/actor"
	"github.com/perdure/perdure/internal/invocation"
	"github.com/perdure/perdure/internal/invoker"
	recordv1 "github.com/perdure/perdure/internal/record/v1"
)

// attemptSpan is a span that may be absent: its methods do nothing on nil.
type attemptSpan struct{ span trace.Span }

// startAttempt begins the span of an attempt and makes it the parent of what the handler does.
func (inv *Invoker) startAttempt(life *lifetime, m *method, attempt *invoker.Attempt) *attemptSpan {
	if inv.tracer == nil {
		return nil
	}
	ctx := withTraceparent(life.parent, attempt.Traceparent)
	ctx, span := inv.tracer.Start(ctx, m.desc.FullName(), trace.WithAttributes(spanAttributes(attempt.ID, attempt.Target, attempt.Number)...))
	life.parent = ctx
	return &attemptSpan{span}
}

func spanAttributes(id invocation.ID, target invocation.Target, attempt uint32) []attribute.KeyValue {
	return []attribute.KeyValue{
		attribute.String("perdure.invocation_id", id.String()),
		attribute.String("perdure.service", target.Service),
		attribute.String("perdure.key", target.Key),
		attribute.String("perdure.handler", target.Handler),
		attribute.Int64("perdure.attempt", int64(attempt)),
	}
}

func (s *attemptSpan) end(failure *recordv1.Error) {
	if s == nil {
		return
	}
	if failure != nil {
		s.span.SetStatus(codes.Error, actor.Code(failure.GetCode()).String()+": "+failure.GetMessage())
	}
	s.span.End()
}

// event notes something about the attempt, such as that it was suspended.
func (s *attemptSpan) event(name string) {
	if s != nil {
		s.span.AddEvent(name)
	}
}

// startStep begins the span of a step that is recorded for the first time.
func (inv *Invoker) startStep(ctx context.Context, name string) (context.Context, *attemptSpan) {
	if inv.tracer == nil {
		return ctx, nil
	}
	ctx, span := inv.tracer.Start(ctx, name)
	return ctx, &attemptSpan{span}
}

// traceparentOf is what calls carry: ctx's span, or what the attempt itself was given.
func traceparentOf(ctx context.Context, inv *Invoker, inherited string) string {
	if inv.tracer == nil {
		return inherited
	}
	span := trace.SpanContextFromContext(ctx)
	if !span.IsValid() {
		return inherited
	}
	flags := "00"
	if span.IsSampled() {
		flags = "01"
	}
	return "00-" + span.TraceID().String() + "-" + span.SpanID().String() + "-" + flags
}

// withTraceparent makes the span that a W3C traceparent names the parent of ctx's spans. A
// malformed one is ignored, as the standard asks.
func withTraceparent(ctx context.Context, traceparent string) context.Context {
	parts := strings.Split(traceparent, "-")
	if len(parts) < 4 || len(parts[3]) != 2 {
		return ctx
	}
	traceID, err := trace.TraceIDFromHex(parts[1])
	if err != nil {
		return ctx
	}
	spanID, err := trace.SpanIDFromHex(parts[2])
	if err != nil {
		return ctx
	}
	flags, err := hex.DecodeString(parts[3])
	if err != nil {
		return ctx
	}
	return trace.ContextWithRemoteSpanContext(ctx, trace.NewSpanContext(trace.SpanContextConfig{
		TraceID: traceID, SpanID: spanID, TraceFlags: trace.TraceFlags(flags[0]), Remote: true,
	}))
}
