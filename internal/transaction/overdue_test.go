package transaction

import "testing"

// A clock that is set back by minutes would otherwise keep everybody for minutes from asking again
// after what was lost, with objects locked.
func TestOverdue(t *testing.T) {
	for _, c := range []struct {
		since, now int64
		want       bool
	}{{5000, 5000, false}, {5000, 5999, false}, {5000, 6000, true}, {5000, 400_000, true}, {400_000, 5000, true}} {
		if got := Overdue(c.since, c.now); got != c.want {
			t.Errorf("asked at %d, at %d: overdue is %t, want %t", c.since, c.now, got, c.want)
		}
	}
}
