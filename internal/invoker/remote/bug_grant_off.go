//go:build !perdure_bug_grant

package remote

// bugGrant is planted by the build tag perdure_bug_grant, for tests that must notice: a closure runs here before the leader has said
// that its entry is durable.
const bugGrant = false
