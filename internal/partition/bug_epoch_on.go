//go:build perdure_bug_epoch

package partition

// bugEpoch is planted by the build tag perdure_bug_epoch, for tests that must notice: what an attempt of an earlier leadership says counts.
const bugEpoch = true
