//go:build !perdure_replay

package sim

// replays: see the other file.
const replays = false

func replayArm(uint64) {}

func replayDigest() (chosen, digest uint64) { return 0, 0 }

func replayCompare(bool) {}
