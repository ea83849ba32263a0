//go:build perdure_bug_majority

package bug

// Majority is planted by the build tag perdure_bug_majority, for tests that must notice: a leader acknowledges what is on its own disk only.
const Majority = true
