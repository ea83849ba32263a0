package sim

import (
	"maps"
	"slices"
	"testing"
)

// TestSeedDecides runs seeds twice: callers ask for the same in the same order, and a cluster is
// struck by the same faults after the same times, for as long as both runs last. What else a
// seed fixes, and what it does not, is in the package's comment.
func TestSeedDecides(t *testing.T) {
	for name, load := range map[string]load{"ordinary": ordinary, "crowded": crowded, "clustered": clustered} {
		t.Run(name, func(t *testing.T) {
			const seed = 1
			one, two := runWorld(t, seed, load), runWorld(t, seed, load)
			for _, w := range []*world{one, two} {
				if violation := w.failure(); violation != "" {
					t.Fatalf("seed %d: %s", seed, violation)
				}
			}
			if strikes := len(one.mu.notes["strikes"]); load.nodes > 0 && strikes < 10 {
				t.Errorf("there were only %d strikes", strikes)
			}
			for _, who := range slices.Sorted(maps.Keys(one.mu.notes)) {
				a, b := one.mu.notes[who], two.mu.notes[who]
				if who == "strikes" { // they end with the callers, whenever that is
					both := min(len(a), len(b))
					a, b = a[:both], b[:both]
				}
				if !slices.Equal(a, b) {
					t.Errorf("%s: first\n%q\nand then\n%q", who, a, b)
				}
			}
			if len(one.mu.notes) != len(two.mu.notes) {
				t.Errorf("%d were told something, and then %d", len(one.mu.notes), len(two.mu.notes))
			}
		})
	}
}
