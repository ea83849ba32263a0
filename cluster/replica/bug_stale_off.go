//go:build !perdure_bug_stale

package replica

const bugStale = false
