// Command perdure calls objects, and looks into and steers what a node runs. It talks to the
// node over HTTP alone, calls as JSON and everything else through
// perdure.admin.v1.AdminService, so it needs no generated code of the services it calls and
// links neither the engine nor the store.
package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"
)

func main() {
	// SIGTERM too: dev cluster ends its nodes in order then.
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	c := &cli{in: os.Stdin, out: os.Stdout, err: os.Stderr, bold: colored(os.Stdout)}
	code := c.run(ctx, os.Args[1:])
	stop()
	os.Exit(code)
}

// colored: a person reads, and does not mind.
func colored(file *os.File) bool {
	info, err := file.Stat()
	return err == nil && info.Mode()&os.ModeCharDevice != 0 && os.Getenv("NO_COLOR") == "" && os.Getenv("TERM") != "dumb"
}
