//go:build perdure_bug_stale

package bug

// Stale is planted by the build tag perdure_bug_stale, for tests that must notice: reads do not ask whether this node still leads.
const Stale = true
