//go:build !perdure_bug_resume

package replica

const bugResume = false
