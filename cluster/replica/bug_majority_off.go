//go:build !perdure_bug_majority

package replica

const bugMajority = false
