package inprocess

import (
	"context"
	"testing"

	"github.com/perdure/perdure/actor"
)

// TestWaitUntilLooksOnce: an entry that completes while a condition is looked at is seen by that
// look or waited for, never neither.
func TestWaitUntilLooksOnce(t *testing.T) {
	for completesAt := range 6 {
		condition := &actor.Condition{Quantifier: actor.QuantifierAll, Parts: []*actor.Condition{{Entry: 1}, {Entry: 2}}}
		asked := 0
		ended := func(entry uint32) (done, failure bool) {
			asked++
			return entry == 1 || asked > completesAt, false
		}
		waits := 0
		err := waitUntil(t.Context(), condition, ended, func(_ context.Context, entries []uint32) (int, error) {
			if waits++; waits > 10 {
				t.Fatal("it waits for ever")
			}
			if len(entries) == 0 {
				t.Fatalf("completes at look %d: it waits for nothing, which never completes", completesAt)
			}
			return 0, nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
}
