//go:build perdure_bug_wound

package engine

// bugWound is planted by the build tag perdure_bug_wound, for tests that must notice: a transaction does not give way to an older one.
const bugWound = true
