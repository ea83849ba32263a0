//go:build !unix

package local

import (
	"os"
	"syscall"
)

// signals are what commands send to a node's process. There is no pausing here, and no way to ask
// a process to end.
var signals = map[string]os.Signal{"kill": os.Kill, "stop": os.Kill}

func ownGroup() *syscall.SysProcAttr { return nil }
