package chaos

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
)

// A lab's namespaces and bridge are called after the process that made it: see mark.
const labsPerProcess = 8

// mark begins the names of a process's lab. Names of links have 15 bytes at most.
func mark(pid, lab int) string { return fmt.Sprintf("pd%x", (pid*labsPerProcess+lab)%0x1000000) }

var marked = regexp.MustCompile(`^pd([0-9a-f]{1,6})(n[0-9]+|b)$`)

// abandoned says whether a namespace or a bridge is of a lab whose process is gone. Process ids have
// a bit more than a mark holds of them, so that two processes may be meant.
func abandoned(name string) bool {
	match := marked.FindStringSubmatch(name)
	if match == nil {
		return false
	}
	number, err := strconv.ParseInt(match[1], 16, 32)
	if err != nil {
		return false
	}
	const step = 0x1000000 / labsPerProcess
	for pid := int(number) / labsPerProcess; pid < 4<<20; pid += step {
		// A process that makes more labs than it has numbers takes those of the next ones.
		for more := range labsPerProcess {
			owner := pid - more
			if owner > 0 && !errors.Is(syscall.Kill(owner, 0), syscall.ESRCH) {
				return false
			}
		}
	}
	return true
}

// sweep removes what labs have left whose processes were killed, with the nodes that still run there.
func sweep() {
	spaces, _ := exec.Command("ip", "netns", "list").Output()
	for line := range strings.Lines(string(spaces)) {
		name, _, _ := strings.Cut(strings.TrimSpace(line), " ")
		if !abandoned(name) {
			continue
		}
		pids, _ := exec.Command("ip", "netns", "pids", name).Output()
		for _, text := range strings.Fields(string(pids)) {
			if pid, err := strconv.Atoi(text); err == nil {
				_ = syscall.Kill(pid, syscall.SIGKILL)
			}
		}
		_ = exec.Command("ip", "netns", "del", name).Run()
	}
	links, _ := exec.Command("ip", "-br", "link", "show", "type", "bridge").Output()
	for line := range strings.Lines(string(links)) {
		if fields := strings.Fields(line); len(fields) > 0 && abandoned(fields[0]) {
			_ = exec.Command("ip", "link", "del", fields[0]).Run()
		}
	}
}

var sweepOnce sync.Once

// TestSweep leaves a lab of a process that is gone, and one of this process.
func TestSweep(t *testing.T) {
	if os.Geteuid() != 0 {
		lacking(t, mustCut, "network namespaces are for root")
	}
	ours := mark(os.Getpid(), 7)
	if abandoned(ours+"n0") || abandoned("pd") || abandoned("eth0") {
		t.Fatal("what is in use, or none of ours, is taken for abandoned")
	}
	// A mark may be of a process with a slightly lower id, too, as this one and its threads have at first.
	theirs := ""
	for tries := 0; theirs == ""; tries++ {
		gone := exec.Command("true")
		if err := gone.Run(); err != nil {
			t.Fatal(err)
		}
		if mark := mark(gone.Process.Pid, 2); abandoned(mark + "b") {
			theirs = mark
		} else if tries == 1000 {
			t.Fatalf("of 1,000 processes that are gone none has left something abandoned; the last was %d", gone.Process.Pid)
		}
	}
	for _, name := range []string{theirs + "n0", ours + "n0"} {
		if out, err := exec.Command("ip", "netns", "add", name).CombinedOutput(); err != nil {
			lacking(t, mustCut, "this machine permits no network namespaces: %v %s", err, out)
		}
		t.Cleanup(func() { _ = exec.Command("ip", "netns", "del", name).Run() })
	}
	if out, err := exec.Command("ip", "link", "add", theirs+"b", "type", "bridge").CombinedOutput(); err != nil {
		lacking(t, mustCut, "this machine permits no bridges: %v %s", err, out)
	}
	t.Cleanup(func() { _ = exec.Command("ip", "link", "del", theirs+"b").Run() })
	stray := exec.Command("ip", "netns", "exec", theirs+"n0", "sleep", "60")
	if err := stray.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- stray.Wait() }()
	for entered := false; !entered; { // it is in the namespace a moment after it began
		pids, err := exec.Command("ip", "netns", "pids", theirs+"n0").Output()
		entered = err != nil || len(strings.TrimSpace(string(pids))) > 0
	}
	sweep()
	<-ended
	left, err := exec.Command("ip", "netns", "list").Output()
	if err != nil {
		t.Fatal(err)
	}
	if strings.Contains(string(left), theirs) || !strings.Contains(string(left), ours) {
		t.Errorf("of %s, which is abandoned, and %s, which isn't, there are left:\n%s", theirs, ours, left)
	}
	if exec.Command("ip", "link", "show", theirs+"b").Run() == nil {
		t.Errorf("the bridge %sb is left", theirs)
	}
}
