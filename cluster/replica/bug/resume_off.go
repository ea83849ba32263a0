//go:build !perdure_bug_resume

package bug

// Resume is not planted.
const Resume = false
