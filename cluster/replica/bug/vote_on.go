//go:build perdure_bug_vote

package bug

// Vote is planted by the build tag perdure_bug_vote, for tests that must notice: a vote does not wait for the disk.
const Vote = true
