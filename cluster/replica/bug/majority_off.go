//go:build !perdure_bug_majority

package bug

// Majority is not planted.
const Majority = false
