//go:build !perdure_bug_stale

package bug

// Stale is not planted.
const Stale = false
