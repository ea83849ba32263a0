// Package archtest holds the tests that keep the architecture as it is written down: which
// package may import which and why, what the public packages export, what a package and a
// file may look like, and what no file may contain.
//
// It has no code outside its tests. Rules are tables; a failure prints the reason of the rule
// and what to do. Three listings are committed and compared, so that a change of the import
// graph or of the public API is seen in review: imports.txt beside this file, and api.txt in
// each public package. After an intended change:
//
//	make listings
//
// which is this package's tests with -update.
package archtest
