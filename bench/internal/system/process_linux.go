package system

import (
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"sync"
	"syscall"

	"github.com/perdure/perdure/bench/internal/procfs"
)

// process is one running program. It leads a process group of its own, so that Kill reaches what it started, and it
// dies with this program however that ends.
type process struct {
	command *exec.Cmd
	logPath string
	exited  chan struct{} // closed once it is gone and waited for
}

// launcher starts processes from one thread that lives as long as this program: Linux sends the "parent died" signal
// when the *thread* that forked ends, and Go ends idle threads as it likes.
var launcher = sync.OnceValue(func() chan<- func() {
	work := make(chan func())
	go func() {
		runtime.LockOSThread()
		for do := range work {
			do()
		}
	}()
	return work
})

// launch runs argv in dir with its output appended to logPath.
func launch(dir, logPath string, argv ...string) (*process, error) {
	log, err := os.OpenFile(logPath, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, err
	}
	defer log.Close()
	command := exec.Command(argv[0], argv[1:]...)
	command.Dir, command.Stdout, command.Stderr = dir, log, log
	command.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	started := make(chan error)
	launcher() <- func() { started <- command.Start() }
	if err := <-started; err != nil {
		return nil, err
	}
	p := &process{command: command, logPath: logPath, exited: make(chan struct{})}
	go func() {
		defer close(p.exited)
		// How it ended does not matter: every process here is killed. Whoever waits for readiness reads the log.
		_ = command.Wait()
	}()
	return p, nil
}

// kill ends the process and all of its group with SIGKILL and waits until it is gone. A nil process is gone already.
func (p *process) kill() {
	if p == nil {
		return
	}
	// The error only says that it is gone already.
	_ = syscall.Kill(-p.command.Process.Pid, syscall.SIGKILL)
	<-p.exited
}

func (p *process) signal(signal os.Signal) error { return p.command.Process.Signal(signal) }

func (p *process) usage() (procfs.Process, error) { return procfs.ReadProcess(p.command.Process.Pid) }

// died is the error for a process that ended by itself, with the end of its log.
func (p *process) died() error {
	text, err := os.ReadFile(p.logPath)
	if err != nil {
		return err
	}
	lines := strings.Split(strings.TrimSpace(string(text)), "\n")
	tail := strings.Join(lines[max(0, len(lines)-12):], "\n")
	return fmt.Errorf("%s ended (%s); the end of its log:\n%s", p.command.Path, p.command.ProcessState, tail)
}
