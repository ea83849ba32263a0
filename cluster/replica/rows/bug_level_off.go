//go:build !perdure_bug_level

package rows

const bugLevel = false
