//go:build !perdure_bug_limit

package owner

// bugLimit is planted by the build tag perdure_bug_limit, for tests that must notice: a new leader forgets the permits that are held.
const bugLimit = false
