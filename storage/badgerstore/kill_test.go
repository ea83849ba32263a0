package badgerstore

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/perdure/perdure/storage"
)

// childDir, if set in the environment, makes the test binary a process that commits to the
// store in that directory until it is killed.
const childDir = "BADGERSTORE_TEST_CHILD_DIR"

func TestMain(m *testing.M) {
	if dir := os.Getenv(childDir); dir != "" {
		if err := commitForever(dir); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
	}
	os.Exit(m.Run())
}

// Each commit of the child overwrites "last" and adds keys of its own, some of them large enough
// to make memtables rotate.
func commitForever(dir string) error {
	store, err := Open(imageOptions(dir))
	if err != nil {
		return err
	}
	snapshot := store.Snapshot()
	last, _, err := snapshot.Get([]byte("last"))
	snapshot.Release()
	if err != nil {
		return err
	}
	n := uint64(0)
	if last != nil {
		n = binary.BigEndian.Uint64(last)
	}
	for {
		n++
		batch := new(storage.Batch)
		batch.Put([]byte("last"), binary.BigEndian.AppendUint64(nil, n))
		for i := range killKeys {
			batch.Put(killKey(n, i), killValue(n, i))
		}
		if err := store.Commit(batch); err != nil {
			return err
		}
		if _, err := fmt.Println(n); err != nil {
			return err
		}
	}
}

const killKeys = 5

func killKey(n uint64, i int) []byte { return fmt.Appendf(nil, "%012d/%d", n, i) }

func killValue(n uint64, i int) []byte {
	random := rand.New(rand.NewPCG(n, uint64(i)))
	value := make([]byte, random.IntN(20_000))
	for at := range value {
		value[at] = byte(random.Uint32())
	}
	return value
}

// TestKill kills a process that commits, several times over, and checks that nothing it
// acknowledged is lost and nothing is there in part.
func TestKill(t *testing.T) {
	dir := t.TempDir()
	rounds := 5
	if testing.Short() {
		rounds = 2
	}
	acknowledged := uint64(0)
	for round := range rounds {
		previous := acknowledged
		acknowledged = killChild(t, dir, 50+rand.IntN(250))
		if acknowledged <= previous {
			t.Fatalf("round %d: acknowledged up to %d after %d", round, acknowledged, previous)
		}
		store := openTest(t, imageOptions(dir))
		checkKilled(t, store, acknowledged)
		closeTest(t, store)
	}
	t.Logf("%d commits acknowledged", acknowledged)
}

// TestKilledAtAnOldLog: a crash came between the cut and the removal of a log whose content is in a table.
func TestKilledAtAnOldLog(t *testing.T) {
	dir := t.TempDir()
	acknowledged := killChild(t, dir, 50)
	if err := os.WriteFile(filepath.Join(badgerDir(dir), "00000.mem"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	store := openTest(t, imageOptions(dir))
	checkKilled(t, store, acknowledged)
	closeTest(t, store)
}

// killChild runs a child until it has acknowledged some commits, kills it, and returns the last
// commit it acknowledged.
func killChild(t *testing.T, dir string, commits int) (acknowledged uint64) {
	t.Helper()
	child := exec.Command(os.Args[0])
	child.Env = append(os.Environ(), childDir+"="+dir)
	var stderr strings.Builder
	child.Stderr = &stderr
	output, err := child.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := child.Start(); err != nil {
		t.Fatal(err)
	}
	lines := bufio.NewScanner(output)
	for seen := 0; lines.Scan(); seen++ {
		if acknowledged, err = strconv.ParseUint(lines.Text(), 10, 64); err != nil {
			t.Errorf("child printed %q", lines.Text())
			break
		}
		if seen == commits {
			if err := child.Process.Kill(); err != nil {
				t.Error(err)
			}
		}
	}
	var exit *exec.ExitError
	if err := child.Wait(); !errors.As(err, &exit) || exit.Exited() {
		t.Fatalf("child ended before it was killed: %v %s", err, stderr.String())
	}
	return acknowledged
}

func checkKilled(t *testing.T, store *Store, acknowledged uint64) {
	t.Helper()
	snapshot := store.Snapshot()
	defer snapshot.Release()
	value, ok, err := snapshot.Get([]byte("last"))
	if err != nil || !ok {
		t.Fatalf("last: %t, %v", ok, err)
	}
	last := binary.BigEndian.Uint64(value)
	if last < acknowledged || last > acknowledged+1 {
		t.Fatalf("last commit is %d, acknowledged %d", last, acknowledged)
	}
	n, i := uint64(1), 0
	if err := snapshot.Scan([]byte("0"), []byte("1"), func(key, value []byte) bool {
		if string(key) != string(killKey(n, i)) || string(value) != string(killValue(n, i)) {
			t.Errorf("found %q with %d bytes, want write %d of commit %d with %d", key, len(value), i, n, len(killValue(n, i)))
			return false
		}
		if i++; i == killKeys {
			n, i = n+1, 0
		}
		return true
	}); err != nil {
		t.Fatal(err)
	}
	if n != last+1 || i != 0 {
		t.Errorf("found commits up to write %d of %d, want all of %d", i, n, last)
	}
}
