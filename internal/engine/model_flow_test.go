package engine

import (
	"fmt"
	"slices"

	"github.com/perdure/perdure/internal/invocation"
	recordv1 "github.com/perdure/perdure/internal/record/v1"
	"pgregory.net/rapid"
)

// Limits of the model, in the order in which permits are asked for. Their owners are in
// different partitions.
var modelLimits = []*recordv1.Limit{
	{Name: "Svc/whole", Concurrency: 2, UntilDone: true},
	{Name: "Svc/slow=k", RateCount: 1, RatePerMs: 50, Burst: 2, MaxQueue: 2},
	{Name: "Svc/one", Concurrency: 1},
	{Name: "Svc/two", Concurrency: 2, RateCount: 3, RatePerMs: 100, Burst: 3, MaxQueue: 1},
	{Name: "Svc/none", Concurrency: 1, MaxQueue: -1},
}

// drawFlow puts a program under limits.
func (w *world) drawFlow(p *program) {
	t := w.t
	if !p.mode.Exclusive() && p.mode != invocation.ModeDurable || rapid.IntRange(0, 2).Draw(t, "flow") > 0 {
		return
	}
	calls := false
	for _, o := range slices.Concat(append(p.early, p.ops)...) {
		calls = calls || o.kind == "call"
	}
	p.flow = &recordv1.Flow{
		Tenant:   rapid.SampledFrom([]string{"", "a", "b"}).Draw(t, "tenant"),
		Priority: rapid.SampledFrom([]int32{0, 0, 5, -100}).Draw(t, "priority"),
	}
	for _, limit := range modelLimits {
		switch {
		case limit.Concurrency > 0 && !p.mode.Journaled(): // A TRANSACTION holds no permits.
		case limit.UntilDone && calls: // It would wait for what waits for it: the users' deadlock.
		case rapid.IntRange(0, 2).Draw(t, limit.Name) == 0:
			p.flow.Limits = append(p.flow.Limits, limit)
		}
	}
	if p.key != "" && rapid.IntRange(0, 4).Draw(t, "per key") == 0 {
		p.flow.Limits = append(p.flow.Limits, &recordv1.Limit{Name: "Svc/key=" + p.key, RateCount: 1, RatePerMs: 20, Burst: 1, Local: true})
	}
}

// checkLimits holds after every event: no limit lets more run than it says, in all partitions
// together, and what runs has been let.
func (w *world) checkLimits() {
	running := map[string]int{}
	for _, l := range w.leaders {
		if l == nil {
			return // The first ones are just being made.
		}
		for id, a := range l.attempts {
			lv := l.engine.live[id]
			if a.program.flow == nil || lv == nil {
				continue
			}
			if f := lv.row.Flow; f != nil && int(f.Held) != len(f.Limits) {
				w.t.Fatalf("%s runs and has %d permits of %d", a.program.name, f.Held, len(f.Limits))
			}
			for _, limit := range a.program.flow.Limits {
				running[limit.Name]++
				if limit.Concurrency > 0 && running[limit.Name] > int(limit.Concurrency) {
					w.t.Fatalf("%s and others run under %s: %d, more than %d", a.program.name, limit.Name, running[limit.Name], limit.Concurrency)
				}
			}
		}
		for name, own := range l.engine.limits.named {
			if most := own.Settings().Concurrency; most > 0 && own.Held() > most {
				w.t.Fatalf("partition %d: %d permits of %s are held", l.id, own.Held(), name)
			}
			if own.Settings().Rate.Count > 0 {
				continue // A token that has come is seen when the timer fires.
			}
			if n, ok := own.Next(w.now); ok {
				w.t.Fatalf("partition %d: %s could begin under %s and nobody let it", l.id, n.ID, name)
			}
		}
	}
}

// suspendAll unwinds the handlers that wait, as the invoker does with time.
func (w *world) suspendAll() (did bool) {
	for _, l := range w.leaders {
		for _, a := range l.sortedAttempts() {
			if l.attempts[a.id] == a {
				a.suspend()
				did = did || l.attempts[a.id] != a
			}
		}
	}
	return did
}

// flowText is for describe.
func flowText(row *recordv1.Invocation) string {
	if row.Flow == nil {
		return ""
	}
	return fmt.Sprintf(" %d of %d limits, ask %d", row.Flow.Held, len(row.Flow.Limits), row.Flow.Ask)
}
