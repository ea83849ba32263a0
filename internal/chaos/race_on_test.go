//go:build race

package chaos

// raced: the race detector multiplies memory and time.
const raced = true
