package election

import (
	"slices"
	"testing"
)

// TestTurns: of the voters that are left each has its turn, never two at once, and no round is without one of each.
func TestTurns(t *testing.T) {
	voters := []uint64{7, 3, 9, 100, 4}
	for _, lost := range []uint64{0, 7, 100, 55} {
		for group := range uint32(7) {
			turns := map[uint64][]int{}
			for silent := range 1000 {
				standing := 0
				for _, voter := range voters {
					if Due(group, voters, voter, lost, silent) {
						turns[voter] = append(turns[voter], silent)
						standing++
					}
				}
				if standing > 1 {
					t.Errorf("group %d without %d: %d stand at %d ticks", group, lost, standing, silent)
				}
			}
			left := len(voters)
			if slices.Contains(voters, lost) {
				left--
			}
			if len(turns) != left || turns[lost] != nil {
				t.Errorf("group %d without %d: turns %v", group, lost, turns)
			}
			for voter, at := range turns {
				if at[0] < 10 || at[0] >= 12+3*left {
					t.Errorf("group %d without %d: the first turn of %d is after %d ticks", group, lost, voter, at[0])
				}
				for i := range at[1:] {
					if apart := at[i+1] - at[i]; apart > 12*left+6*left {
						t.Errorf("group %d without %d: %d waits %d ticks for another turn", group, lost, voter, apart)
					}
				}
			}
		}
	}
}

// TestFirstTurns: what a node led is not taken over by one other.
func TestFirstTurns(t *testing.T) {
	first := map[uint64]int{}
	for group := range uint32(64) {
		for _, voter := range []uint64{1, 2, 3} {
			if Due(group, []uint64{1, 2, 3}, voter, 2, 12) {
				first[voter]++
			}
		}
	}
	if first[1] != 32 || first[3] != 32 {
		t.Errorf("of 64 groups the first turns are %v", first)
	}
}

// TestNoTurn: whoever does not vote, or is the leader that was lost, does not stand.
func TestNoTurn(t *testing.T) {
	for silent := range 200 {
		if Due(1, []uint64{1, 2, 3}, 4, 1, silent) || Due(1, []uint64{1, 2, 3}, 1, 1, silent) || Due(1, nil, 1, 0, silent) || Due(1, []uint64{1}, 1, 1, silent) {
			t.Fatalf("after %d ticks", silent)
		}
	}
}
