//go:build !perdure_bug_snapshot

package replica

const bugSnapshot = false
