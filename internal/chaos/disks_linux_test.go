package chaos

import (
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"
)

// diskBytes is the size of a node's file system: what a log and a store need, and a little.
const diskBytes = 600 << 20

// mountDisks gives each node a disk of its own, a file that is mounted, or skips the test.
func (l *lab) mountDisks() {
	l.t.Helper()
	if os.Geteuid() != 0 {
		lacking(l.t, mustMount, "mounting is for root: disks don't fail")
	}
	for i, n := range l.nodes {
		dir := l.t.TempDir()
		image := filepath.Join(l.t.TempDir(), "disk")
		if err := os.WriteFile(image, nil, 0o600); err != nil {
			l.t.Fatal(err)
		}
		if err := os.Truncate(image, diskBytes); err != nil {
			l.t.Fatal(err)
		}
		for _, line := range [][]string{{"mkfs.ext4", "-q", "-F", "-m", "0", "-O", "^has_journal", image}, {"mount", "-o", "loop", image, dir}} {
			if out, err := exec.Command(line[0], line[1:]...).CombinedOutput(); err != nil {
				lacking(l.t, mustMount, "this machine mounts no file as a disk, so disks don't fail: %v %s", err, out)
			}
		}
		l.t.Cleanup(func() {
			n.kill() // it has files open there
			if err := syscall.Unmount(dir, 0); err != nil {
				l.t.Errorf("unmount the disk of node %d: %v", i+1, err)
			}
		})
		n.dir = filepath.Join(dir, "data")
	}
}

// spareBytes are what fillDisk leaves: half of the space below which a node writes no more. The node asks for the space every
// 100 ms or 4 MiB. If somebody else takes the last byte in between, what Badger maps ends the process (badgerstore.Options.MinFreeBytes).
const spareBytes = 32 << 20

// fillDisk takes so much of a node's disk that it has none to write, until the node has noticed and for a while after.
func (l *lab) fillDisk(i int, length time.Duration) {
	l.t.Helper()
	path := filepath.Join(filepath.Dir(l.nodes[i].dir), "filler")
	file, err := os.Create(path)
	if err != nil {
		l.t.Fatal(err)
	}
	for free := freeBytes(l.t, path); free > spareBytes; free = freeBytes(l.t, path) {
		if err := syscall.Fallocate(int(file.Fd()), 0, diskBytes-free, free-spareBytes); err != nil {
			break // the file system keeps a few blocks for itself
		}
	}
	if err := file.Close(); err != nil {
		l.t.Error(err)
	}
	if said := l.unready(i); !strings.Contains(said, "space") {
		l.t.Errorf("with a full disk the node is not ready because of: %s", said)
	}
	time.Sleep(length) // of the fault
	if err := os.Remove(path); err != nil {
		l.t.Error(err)
	}
	if !l.nodes[i].alive() {
		l.t.Errorf("with a full disk the process ended with %v", l.nodes[i].command.ProcessState)
	}
}

// unready waits until a node says that it can't serve, and returns why.
func (l *lab) unready(i int) string {
	l.t.Helper()
	for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(10 * time.Millisecond) { // polling another process
		response, err := http.Get(l.nodes[i].url + "/readyz")
		if err == nil {
			text, err := io.ReadAll(response.Body)
			_ = response.Body.Close()
			if err == nil && response.StatusCode != http.StatusOK {
				return string(text)
			}
		}
		if time.Now().After(deadline) {
			l.t.Errorf("node %d goes on as if nothing had happened: %v", i+1, err)
			return ""
		}
	}
}

// The requests of ioctl that stop a file system's writes, and let them go on; see ioctl_fs(2).
const (
	requestFreeze = 0xC0045877
	requestThaw   = 0xC0045878
)

// slowDisk lets no write of a node end for the time of each pause, again and again.
func (l *lab) slowDisk(i int, pause, length time.Duration) {
	l.t.Helper()
	disk, err := os.Open(filepath.Dir(l.nodes[i].dir))
	if err != nil {
		l.t.Fatal(err)
	}
	defer disk.Close()
	request := func(number uintptr) {
		if _, _, err := syscall.Syscall(syscall.SYS_IOCTL, disk.Fd(), number, 0); err != 0 {
			l.t.Errorf("ioctl %x: %v", number, err)
		}
	}
	for end := time.Now().Add(length); time.Now().Before(end); {
		request(requestFreeze)
		time.Sleep(pause) // which is how slow the disk is
		request(requestThaw)
		time.Sleep(10 * time.Millisecond) // in which what waits is written
	}
}

// loseDisk starts a node with an empty directory. It joins as another node; then the operator removes the one
// that it was, and it is given copies of everything.
func (l *lab) loseDisk(i int) {
	l.t.Helper()
	n := l.nodes[i]
	state, err := l.nodes[(i+1)%len(l.nodes)].cluster(l.t.Context())
	if err != nil {
		l.t.Fatal(err)
	}
	was := ""
	for _, node := range state.GetNodes() {
		if node.GetIngressAddress() == n.address && node.GetState().String() != "NODE_STATE_REMOVED" {
			was = node.GetId()
		}
	}
	l.kill(i)
	if err := os.RemoveAll(n.dir); err != nil {
		l.t.Fatal(err)
	}
	var others []string
	for j, other := range l.nodes {
		if j != i {
			others = append(others, other.flags[slices.Index(other.flags, "--cluster")+1])
		}
	}
	n.flags = slices.Clone(n.flags)
	if at := slices.Index(n.flags, "--join"); at >= 0 {
		n.flags = slices.Delete(n.flags, at, at+2)
	}
	n.flags = append(n.flags, "--join", strings.Join(others, ","))
	n.start()
	l.remove(l.nodes[(i+1)%len(l.nodes)], was)
	l.settled(len(l.nodes))
}

// remove takes a node that is gone out of the cluster, as soon as it is known to be gone.
func (l *lab) remove(by *node, id string) {
	l.t.Helper()
	for deadline := time.Now().Add(30 * time.Second); ; time.Sleep(100 * time.Millisecond) { // polling another process
		a, err := by.post(l.t.Context(), http.DefaultClient, "/perdure.admin.v1.ClusterService/SetNodeState",
			fmt.Sprintf(`{"nodeId":%q,"state":"NODE_STATE_REMOVED","force":true}`, id))
		if err == nil && a.status == http.StatusOK {
			return
		}
		if time.Now().After(deadline) {
			l.t.Fatalf("remove node %s: %v %s", id, err, a.body)
		}
	}
}

// spoil lets disks fill up, become slow and be lost, each at least once, until ctx ends.
func (l *lab) spoil(ctx context.Context, random *rand.Rand) string {
	l.t.Helper()
	counts := map[string]int{}
	faults := []string{"full", "slow", "lost"}
	for round := 0; ctx.Err() == nil || round < len(faults); round++ {
		i, fault := random.IntN(len(l.nodes)), faults[round%len(faults)]
		counts[fault]++
		began := time.Now()
		switch fault {
		case "full":
			l.fillDisk(i, 500*time.Millisecond+upTo(random, *chaosFor/20))
		case "slow":
			l.slowDisk(i, 20*time.Millisecond+upTo(random, max(400*time.Millisecond, *chaosFor/40)), 500*time.Millisecond+upTo(random, *chaosFor/20))
		case "lost":
			l.loseDisk(i)
		}
		l.recover()
		l.t.Logf("%s was %s for %v", l.nodes[i].address, fault, time.Since(began).Round(time.Millisecond))
	}
	return fmt.Sprint(counts)
}
