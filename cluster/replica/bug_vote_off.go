//go:build !perdure_bug_vote

package replica

const bugVote = false
