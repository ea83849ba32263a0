//go:build perdure_bug_outbox

package partition

// bugOutbox is planted by the build tag perdure_bug_outbox, for tests that must notice: a new leader does not send again what an earlier one may not have.
const bugOutbox = true
