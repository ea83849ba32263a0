//go:build !perdure_bug_attempt

package engine

// bugAttempt is planted by the build tag perdure_bug_attempt, for tests that must notice: what a superseded attempt says counts.
const bugAttempt = false
