//go:build !perdure_bug_dedup

package outbox

// bugDedup is planted by the build tag perdure_bug_dedup, for tests that must notice: a message is taken as often as it comes.
const bugDedup = false
