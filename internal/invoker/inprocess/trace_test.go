package inprocess_test

import (
	"context"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"
	"google.golang.org/protobuf/types/known/apipb"

	"github.com/perdure/perdure/actor"
	"github.com/perdure/perdure/internal/invocation"
	"github.com/perdure/perdure/internal/invoker"
)

const traceparent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"

func TestStepsAreTracedOnceAcrossCrashes(t *testing.T) {
	notRemotely(t)
	recorder := tracetest.NewSpanRecorder()
	config := quiet()
	config.TracerProvider = sdktrace.NewTracerProvider(sdktrace.WithSpanProcessor(recorder))
	durably(t, config, func(d *double) { d.answer, d.crash, d.traceparent = echo, always, traceparent }, func(ctx actor.Context, _ *apipb.Mixin) (*apipb.Mixin, error) {
		if err := actor.Do(ctx, "pay", func(context.Context) error { return nil }); err != nil {
			return nil, err
		}
		if _, err := ask(ctx, ctx, "o", "q"); err != nil {
			return nil, err
		}
		return nil, actor.Sleep(ctx, time.Second)
	}, nil, func(t *testing.T, d *double, _ string) {
		var steps []string
		attempts := 0
		for _, span := range recorder.Ended() {
			if got := span.SpanContext().TraceID().String(); got != "0af7651916cd43dd8448eb211c80319c" {
				t.Errorf("%s is in trace %s", span.Name(), got)
			}
			if span.Name() == "attempt t.Thing/Work" {
				attempts++
			} else {
				steps = append(steps, span.Name())
			}
		}
		slices.Sort(steps)
		// Run is not seen: its entry was recorded by an attempt that crashed before the closure ran.
		if got := strings.Join(steps, ", "); got != "call t.Other/Ask, sleep" {
			t.Error(got)
		}
		if count, _ := d.attempts(); attempts != int(count) {
			t.Errorf("%d spans of %d attempts", attempts, count)
		}
		// The call carries the span of its step.
		carried := d.entries()[1].GetCall().GetInvoke().GetTraceparent()
		if !strings.HasPrefix(carried, "00-0af7651916cd43dd8448eb211c80319c-") || carried == traceparent {
			t.Error(carried)
		}
	})
}

func TestUntracedCallsPassTheTraceOn(t *testing.T) {
	durably(t, quiet(), func(d *double) { d.answer, d.traceparent = echo, traceparent }, func(ctx actor.Context, _ *apipb.Mixin) (*apipb.Mixin, error) {
		_, err := ask(ctx, ctx, "o", "q")
		return nil, err
	}, nil, func(t *testing.T, d *double, _ string) {
		if got := d.entries()[0].GetCall().GetInvoke().GetTraceparent(); got != traceparent {
			t.Error(got)
		}
	})
}

func TestRunsAndReadsAreTraced(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		recorder := tracetest.NewSpanRecorder()
		config := quiet()
		config.TracerProvider = sdktrace.NewTracerProvider(sdktrace.WithSpanProcessor(recorder))
		work := method("t.Thing", "Work", actor.ModeDurable, func(ctx actor.Context, _ *apipb.Mixin) (*apipb.Mixin, error) {
			return nil, actor.Do(ctx, "pay", func(context.Context) error { return actor.Errorf(actor.Aborted, "no") })
		})
		look := method("t.Thing", "Look", actor.ModeRead, func(actor.Context, *apipb.Mixin) (*apipb.Mixin, error) { return nil, nil })
		inv := newInvoker(t, config, work, look)
		newDouble(t, inv).run(work, "")
		inv.Read(t.Context(), &invoker.Read{Target: invocation.Target{Service: "t.Thing", Key: "k", Handler: "Look"}, Traceparent: traceparent})
		if err := inv.Close(t.Context()); err != nil {
			t.Error(err)
		}
		var got []string
		for _, span := range recorder.Ended() {
			got = append(got, span.Name()+" "+span.Status().Description)
		}
		if want := "run pay no|attempt t.Thing/Work no|attempt t.Thing/Look "; strings.Join(got, "|") != want {
			t.Errorf("%q", got)
		}
	})
}
