// Package stress makes what this module keeps in memory, or does at once, as little as can be, so that
// tests of a few steps go through what otherwise takes thousands, and makes nodes crash attempts. The linker sets it for
// `make suspend` and `make crash`; in every other build it changes nothing. It is pure.
package stress

// tiny and crashing are set with the linker's -X.
var tiny, crashing string

// Tiny: what is bounded is to be as small as can be.
func Tiny() bool { return tiny != "" }

// Few is what something is bounded by: usual, or few.
func Few[N int | int64 | uint32](usual, few N) N {
	if Tiny() {
		return few
	}
	return usual
}

// Crashing: nodes abort each attempt after every entry that it records, and a TRANSACTION once before it
// commits, as if all of them were made with cluster.WithCrashAtEveryEntry.
func Crashing() bool { return crashing != "" }
