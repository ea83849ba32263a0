//go:build perdure_replay

package sim

import (
	"fmt"
	"testing"
	_ "unsafe" // for go:linkname
)

// replays: the runtime is the one that package replay makes, in which a seed decides which goroutine runs.
const replays = true

//go:linkname replayArm runtime.replayArm
func replayArm(seed uint64)

//go:linkname replayCompare runtime.replayCompare
func replayCompare(second bool)

//go:linkname replayDigest runtime.replayDigest
func replayDigest() (chosen, digest uint64)

// TestSeedRepeats runs seeds twice: each message, write, sync, commit, attempt and answer is the same, at the same
// time. The command replay runs this in several processes and compares what is logged here too. It is in no build but that command's.
func TestSeedRepeats(t *testing.T) {
	for _, l := range []struct {
		name  string
		load  load
		seeds uint64
	}{{"ordinary", ordinary, 1}, {"crowded", crowded, 1}, {"few", few, 3}} {
		t.Run(l.name, func(t *testing.T) {
			for seed := range l.seeds {
				one := runTwice(t, seed+1, l.load)
				if violation := one.failure(); violation != "" {
					t.Fatalf("seed %d: %s", seed+1, violation)
				}
				if one.events.chosen < 1000 {
					t.Errorf("seed %d decided only %d times which goroutine runs", seed+1, one.events.chosen)
				}
				t.Log(fmt.Sprintf("trace of seed %d, %s: %s", seed+1, l.name, one.events.digest()))
			}
		})
	}
}
