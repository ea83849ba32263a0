//go:build perdure_bug_timer

package engine

// bugTimer is planted by the build tag perdure_bug_timer, for tests that must notice: a sleep whose invocation is suspended never ends.
const bugTimer = true
