//go:build !linux

// Command bench measures Perdure, and Restate beside it, on the machine at hand and prints one set of tables.
package main

import (
	"fmt"
	"os"
)

func main() {
	fmt.Fprintln(os.Stderr, "bench: it reads processor time and bytes written from /proc, so it runs on Linux only")
	os.Exit(1)
}
