//go:build !perdure_bug_vote

package bug

// Vote is not planted.
const Vote = false
