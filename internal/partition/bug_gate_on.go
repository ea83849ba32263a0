//go:build perdure_bug_gate

package partition

// bugGate is planted by the build tag perdure_bug_gate, for tests that must notice: effects do not wait for the log.
const bugGate = true
