//go:build perdure_bug_snapshot

package bug

// Snapshot is planted by the build tag perdure_bug_snapshot, for tests that must notice: a snapshot claims what its rows do not have.
const Snapshot = true
