//go:build !perdure_bug_snapshot

package bug

// Snapshot is not planted.
const Snapshot = false
