//go:build perdure_bug_level

package rows

// bugLevel is planted by the build tag perdure_bug_level, for tests that must notice: records are written in the newest
// format that this program reads, whatever others do.
const bugLevel = true
