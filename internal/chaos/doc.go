// Package chaos breaks a real node as machines break: its tests run one as a child process and
// kill it, stop it, fill its disk, damage its files and call it wrongly.
//
// The package has no code of its own. `go test -short` runs everything briefly;
// -chaos.for, -chaos.timers and -chaos.seed make it longer, larger and repeatable.
package chaos
