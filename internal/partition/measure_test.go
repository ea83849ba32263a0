package partition

import (
	"testing"
	"time"

	"github.com/perdure/perdure/internal/engine"
	"github.com/perdure/perdure/internal/invocation"
	recordv1 "github.com/perdure/perdure/internal/record/v1"
	"github.com/perdure/perdure/internal/telemetry"
)

// TestMeasureOff: with metrics and traces off, what is called for each attempt, record, message
// and timer allocates nothing.
func TestMeasureOff(t *testing.T) {
	p := &Partition{}
	l := &leadership{event: &engine.Finish{Result: &recordv1.Result{}}}
	row := &recordv1.Invocation{Target: &recordv1.Target{Service: "s", Handler: "h", Key: "k"}, Traceparent: "00-1-2-01", CompletedAt: 1}
	a := &attempt{row: row}
	started := &engine.StartAttempt{ID: invocation.ID{1}, Row: row}
	allocations := testing.AllocsPerRun(100, func() {
		p.ended(l, invocation.ID{1}, a)
		p.meter.Record(1, 100)
		p.meter.MessageSent(false)
		p.meter.TimerFired(time.Second)
		if p.traceparent(started) != row.Traceparent {
			t.Error("the trace is lost")
		}
	})
	if allocations != 0 {
		t.Errorf("%v allocations", allocations)
	}
}

func TestOutcomeOf(t *testing.T) {
	for _, c := range []struct {
		event engine.Event
		want  telemetry.Outcome
	}{
		{&engine.Finish{Result: &recordv1.Result{}}, telemetry.OutcomeSucceeded},
		{&engine.Finish{Result: &recordv1.Result{Error: &recordv1.Error{Code: 9}}}, telemetry.OutcomeFailed},
		{&engine.Suspend{}, telemetry.OutcomeSuspended},
		{&engine.Fail{}, telemetry.OutcomeRetried},
		{&engine.TimeOut{}, telemetry.OutcomeRetried},
		{&engine.Cancel{Kill: true}, telemetry.OutcomeAborted},
		{nil, telemetry.OutcomeAborted},
	} {
		if got := outcomeOf(c.event); got != c.want {
			t.Errorf("%T: %s, want %s", c.event, got, c.want)
		}
	}
}

// BenchmarkMeasure is what telemetry costs an attempt, its record and its end.
func BenchmarkMeasure(b *testing.B) {
	for _, on := range []bool{false, true} {
		name := "off"
		if on {
			name = "on"
		}
		b.Run(name, func(b *testing.B) {
			p := &Partition{}
			if on {
				set, err := telemetry.Setup(b.Context(), telemetry.Config{Prometheus: true})
				if err != nil {
					b.Fatal(err)
				}
				p.meter = set.Instruments().Partition()
			}
			l := &leadership{event: &engine.Finish{Result: &recordv1.Result{}}}
			a := &attempt{row: &recordv1.Invocation{}, meter: p.meter.Handler("s", "h")}
			b.ReportAllocs()
			for b.Loop() {
				a.meter.AttemptStarted()
				p.meter.Record(1, 100)
				p.meter.Entry(telemetry.EntryCall)
				p.ended(l, invocation.ID{1}, a)
			}
		})
	}
}
