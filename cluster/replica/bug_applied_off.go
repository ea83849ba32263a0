//go:build !perdure_bug_applied

package replica

const bugApplied = false
