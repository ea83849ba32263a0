package inprocess

import (
	"context"
	"strings"

	"github.com/perdure/perdure/actor"
	"github.com/perdure/perdure/internal/invocation"
	recordv1 "github.com/perdure/perdure/internal/record/v1"
	"github.com/perdure/perdure/internal/telemetry"
)

// startAttempt begins the span of an attempt, a child of traceparent's.
func (inv *Invoker) startAttempt(ctx context.Context, m *method, id invocation.ID, target invocation.Target, number uint32, traceparent string) (context.Context, telemetry.Span) {
	if inv.tracer == nil {
		return ctx, telemetry.Span{}
	}
	return inv.tracer.StartAttempt(ctx, telemetry.Attempt{
		Procedure: m.desc.FullName(), Mode: m.desc.Mode.String(), InvocationID: id.String(), Key: target.Key,
		Number: number, Traceparent: traceparent,
	})
}

// startStep begins the span of a step that is recorded for the first time, such as "run pay".
func (inv *Invoker) startStep(ctx context.Context, verb, name string) (context.Context, telemetry.Span) {
	if inv.tracer == nil {
		return ctx, telemetry.Span{}
	}
	return inv.tracer.StartStep(ctx, strings.ToLower(verb)+name)
}

func endSpan(span telemetry.Span, failure *recordv1.Error) {
	if failure == nil {
		span.End("ok", "")
		return
	}
	span.End(actor.Code(failure.GetCode()).String(), failure.GetMessage())
}

// traceparentOf is what calls carry: ctx's span, or what the attempt itself was given.
func (inv *Invoker) traceparentOf(ctx context.Context, inherited string) string {
	if inv.tracer == nil {
		return inherited
	}
	if own := telemetry.Traceparent(ctx); own != "" {
		return own
	}
	return inherited
}
