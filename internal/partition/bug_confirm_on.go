//go:build perdure_bug_confirm

package partition

// bugConfirm is planted by the build tag perdure_bug_confirm, for tests that must notice: a leader answers without knowing that it leads still.
const bugConfirm = true
