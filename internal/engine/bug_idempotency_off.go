//go:build !perdure_bug_idempotency

package engine

// bugIdempotency is planted by the build tag perdure_bug_idempotency, for tests that must notice: a repeated request is not looked up.
const bugIdempotency = false
