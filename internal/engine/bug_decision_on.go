//go:build perdure_bug_decision

package engine

// bugDecision is planted by the build tag perdure_bug_decision, for tests that must notice: a transaction commits before its participants have promised to.
const bugDecision = true
