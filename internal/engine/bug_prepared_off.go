//go:build !perdure_bug_prepared

package engine

// bugPrepared is planted by the build tag perdure_bug_prepared, for tests that must notice: a new leader does not know what the one before it has promised.
const bugPrepared = false
