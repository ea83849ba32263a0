//go:build perdure_bug_again

package peer

// bugAgain is planted by the build tag perdure_bug_again, for tests that must notice: what may have been accepted is always asked again.
const bugAgain = true
