//go:build !perdure_bug_applied

package bug

// Applied is not planted.
const Applied = false
