//go:build perdure_bug_due

package schedule

// bugDue is planted by the build tag perdure_bug_due, for tests that must notice: a due time that fires late, as after a restart, fires twice.
const bugDue = true
