//go:build perdure_bug_applied

package bug

// Applied is planted by the build tag perdure_bug_applied, for tests that must notice: the log forgets records before the
// store has them.
const Applied = true
