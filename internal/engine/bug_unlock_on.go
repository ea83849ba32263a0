//go:build perdure_bug_unlock

package engine

// bugUnlock is planted by the build tag perdure_bug_unlock, for tests that must notice: a participant lets go of its keys before it knows the decision.
const bugUnlock = true
