package peer

import (
	"context"
	"math"
	"runtime"
	"testing"

	"github.com/perdure/perdure/internal/invocation"
	recordv1 "github.com/perdure/perdure/internal/record/v1"
	"github.com/perdure/perdure/internal/routing"
)

// local are the requests that a partition led here answers without a record: what the way there
// costs is seen best.
func local(w *world, n *node) map[string]func(ctx context.Context, r routing.Router) error {
	key := w.keyIn(1, 0)
	id := invocation.NewID(0, [16]byte{7}) // of partition 1
	in := deposit(key, "known", 1)
	if _, err := n.Call(context.Background(), in); err != nil {
		w.t.Fatal(err)
	}
	read := invoke(bankAccount, key, "Balance", invocation.ModeRead, "", &recordv1.Target{})
	return map[string]func(ctx context.Context, r routing.Router) error{
		"call":   func(ctx context.Context, r routing.Router) error { _, err := r.Call(ctx, in); return err },
		"send":   func(ctx context.Context, r routing.Router) error { _, err := r.Send(ctx, in); return err },
		"read":   func(ctx context.Context, r routing.Router) error { _, err := r.Read(ctx, read); return err },
		"attach": func(ctx context.Context, r routing.Router) error { _, err := r.Attach(ctx, id); _ = err; return nil },
	}
}

// TestLocalAllocations: a partition led here is reached with no more allocations than without
// other nodes.
func TestLocalAllocations(t *testing.T) {
	w := newWorld(t, 2, 2, 1)
	n := w.at(1, true)
	for name, ask := range local(w, n) {
		// Means, not their whole parts, as testing.AllocsPerRun has them: with the race detector
		// a sync.Pool drops what it holds at random, and what lies between two means is then a few
		// hundredths where it is 1 for another allocation.
		count := func(r routing.Router) float64 {
			const runs = 150
			least := math.Inf(1)
			for range 2 { // Others allocate too, but not less than nothing.
				var before, after runtime.MemStats
				runtime.ReadMemStats(&before)
				for range runs {
					if err := ask(t.Context(), r); err != nil {
						t.Fatal(err)
					}
				}
				runtime.ReadMemStats(&after)
				least = min(least, float64(after.Mallocs-before.Mallocs)/runs)
			}
			return least
		}
		if direct, through := count(n.local), count(n); through > direct+0.5 {
			t.Errorf("%s: %.2f allocations, %.2f without other nodes", name, through, direct)
		} else {
			t.Logf("%s: %.2f allocations, %.2f without other nodes", name, through, direct)
		}
	}
}

func BenchmarkLocal(b *testing.B) {
	w := newWorld(b, 1, 2, 1)
	n := w.at(1, true)
	for name, ask := range local(w, n) {
		for through, r := range []routing.Router{n.local, n} {
			b.Run(name+"/"+[]string{"direct", "peer"}[through], func(b *testing.B) {
				b.ReportAllocs()
				for b.Loop() {
					if err := ask(b.Context(), r); err != nil {
						b.Fatal(err)
					}
				}
			})
		}
	}
}
