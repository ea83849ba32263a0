//go:build perdure_bug_resume

package bug

// Resume is planted by the build tag perdure_bug_resume, for tests that must notice: the row that tells of a
// snapshot's chunk is in the store before the chunk is.
const Resume = true
