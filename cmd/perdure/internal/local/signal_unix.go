//go:build unix

package local

import (
	"os"
	"syscall"
)

// signals are what commands send to a node's process.
var signals = map[string]os.Signal{
	"kill": syscall.SIGKILL, "stop": syscall.SIGTERM, "pause": syscall.SIGSTOP, "resume": syscall.SIGCONT,
}

func ownGroup() *syscall.SysProcAttr { return &syscall.SysProcAttr{Setpgid: true} }
