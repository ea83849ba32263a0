package badgerstore

import (
	"bytes"
	"encoding/binary"
	"errors"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/perdure/perdure/storage"
	"github.com/perdure/perdure/storage/storagetest"
)

const (
	walPattern   = "badger/*.mem"
	tablePattern = "badger/*.sst"
)

func TestImage(t *testing.T) {
	writeImage(t, true, 0).checkDamaged(t, imageCommits)
	writeImage(t, false, imageCommits).checkDamaged(t, imageCommits)
	writeImage(t, false, 0).checkDamaged(t, imageCommits)
}

// TestWALFlippedBits flips bits all over the log of a crashed store. Badger alone opens and
// drops what follows.
func TestWALFlippedBits(t *testing.T) {
	for _, test := range []struct {
		name      string
		highWater uint64
		allowed   []int
	}{
		{"covered by HIGHWATER", imageCommits, []int{imageCommits}},
		// The last commit looks like one that the crash tore. The node log has it.
		{"not covered", 0, []int{imageCommits, imageCommits - 1}},
	} {
		t.Run(test.name, func(t *testing.T) {
			files := writeImage(t, false, test.highWater)
			wal := files.match(t, walPattern)
			used := len(files[wal].data)
			random := rand.New(rand.NewPCG(1, 1))
			refused, last := 0, 0
			for i := range 60 {
				at := random.IntN(8 * used)
				if i >= 40 { // the last commit
					at = 8*used - 1 - random.IntN(8*300)
					last++
				}
				if err := files.flipped(wal, at).checkDamaged(t, test.allowed...); err != nil {
					refused++
					if !errors.Is(err, storage.ErrDamaged) && !errors.Is(err, storage.ErrDataLoss) {
						t.Errorf("%v, want it to wrap %v or %v", err, storage.ErrDamaged, storage.ErrDataLoss)
					}
					if !strings.Contains(err.Error(), ".mem") {
						t.Errorf("error names no file: %v", err)
					}
				}
			}
			t.Logf("%d of 60 refused, %d flips in the last 300 bytes", refused, last)
			if refused < 35 {
				t.Errorf("only %d of 60 flips refused", refused)
			}
		})
	}
}

func TestWALTruncated(t *testing.T) {
	files := writeImage(t, false, imageCommits)
	wal := files.match(t, walPattern)
	used := len(files[wal].data)
	for _, size := range []int{0, 1, walHeaderBytes - 1, walHeaderBytes, walHeaderBytes + 1, used / 2, used - 1} {
		if err := files.with(wal, bytesOf(files[wal].data[:size])).checkDamaged(t); err == nil {
			t.Errorf("opened with the log cut to %d of %d bytes", size, used)
		}
		zeroed := content{files[wal].data[:size], files[wal].sizeBytes}
		if err := files.with(wal, zeroed).checkDamaged(t); err == nil {
			t.Errorf("opened with the log zero from byte %d of %d", size, used)
		}
	}
	if err := files.without(wal).checkDamaged(t); !errors.Is(err, storage.ErrDataLoss) || !strings.Contains(err.Error(), "commit 60") {
		t.Errorf("log deleted: %v", err)
	}
	// A hole in the middle, as from a lost page.
	holed := content{bytes.Clone(files[wal].data), files[wal].sizeBytes}
	clear(holed.data[used/4 : used/2])
	if err := files.with(wal, holed).checkDamaged(t); !errors.Is(err, storage.ErrDamaged) {
		t.Errorf("log with a hole: %v", err)
	}
}

// TestWALTornTail tears the last commit, unacknowledged as far as the store can know.
func TestWALTornTail(t *testing.T) {
	files := writeImage(t, false, imageCommits-1)
	wal := files.match(t, walPattern)
	used := len(files[wal].data)
	for cut := 1; cut < 40; cut += 3 {
		torn := content{files[wal].data[:used-cut], files[wal].sizeBytes}
		if err := files.with(wal, torn).checkDamaged(t, imageCommits-1); err != nil {
			t.Errorf("last commit torn by %d bytes: %v", cut, err)
		}
	}
}

// TestEmptyWAL is a crash between creating a log file and extending it.
func TestEmptyWAL(t *testing.T) {
	files := writeImage(t, false, imageCommits)
	if err := files.with("badger/00099.mem", content{}).checkDamaged(t, imageCommits); err != nil {
		t.Error(err)
	}
}

func TestFlippedBitsElsewhere(t *testing.T) {
	files := writeImage(t, true, 0)
	table := files.match(t, tablePattern)
	random := rand.New(rand.NewPCG(2, 2))
	for name := range files {
		if len(files[name].data) == 0 || name == lockFile {
			continue
		}
		flips, refused := 12, 0
		if name == table {
			flips = 60
		}
		for i := range flips {
			bit := random.IntN(8 * min(len(files[name].data), 64<<10))
			if name == table && i < 20 { // the footer, whose lengths lead astray
				bit = 8*len(files[name].data) - 1 - random.IntN(8*24)
			}
			if files.flipped(name, bit).checkDamaged(t, imageCommits) != nil {
				refused++
			}
		}
		t.Logf("%s: %d of %d refused", name, refused, flips)
		if name == table && refused != flips {
			t.Errorf("%s: only %d of %d refused", name, refused, flips)
		}
	}
}

func TestFilesMissingOrCut(t *testing.T) {
	files := writeImage(t, true, 0)
	table := files.match(t, tablePattern)
	for _, name := range []string{table, "badger/MANIFEST", formatFile, highWaterFile} {
		if err := files.without(name).checkDamaged(t); err == nil {
			t.Errorf("opened without %s", name)
		}
		for _, size := range []int{0, 1, len(files[name].data) / 2, len(files[name].data) - 1} {
			if err := files.with(name, bytesOf(files[name].data[:size])).checkDamaged(t); err == nil {
				t.Errorf("opened with %s cut to %d bytes", name, size)
			}
		}
	}
	// The end of the manifest is what named the table: Badger would delete it.
	dir := files.with("badger/MANIFEST", bytesOf(files["badger/MANIFEST"].data[:8])).restore(t)
	if _, err := Open(imageOptions(dir)); !errors.Is(err, storage.ErrDataLoss) {
		t.Errorf("manifest without its table: %v", err)
	}
	if _, err := os.Stat(filepath.Join(dir, table)); err != nil {
		t.Errorf("the refused directory was changed: %v", err)
	}
	// All of Badger's files gone.
	for name := range files {
		if strings.HasPrefix(name, "badger/") {
			files = files.without(name)
		}
	}
	if err := files.checkDamaged(t); !errors.Is(err, storage.ErrDataLoss) {
		t.Errorf("no files: %v", err)
	}
}

// TestDamageWhileOpen flips bits of values in a table under an open store, through the page
// cache that it reads from.
func TestDamageWhileOpen(t *testing.T) {
	dir := writeImage(t, true, 0).restore(t)
	store := openTest(t, imageOptions(dir))
	tables, err := filepath.Glob(filepath.Join(dir, tablePattern))
	if err != nil || len(tables) != 1 {
		t.Fatal(tables, err)
	}
	file, err := os.OpenFile(tables[0], os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	data, err := os.ReadFile(tables[0])
	if err != nil {
		t.Fatal(err)
	}
	// The values of all versions say "commit": damage every one.
	for at := 0; ; at++ {
		found := bytes.Index(data[at:], []byte("commit "))
		if found < 0 {
			break
		}
		at += found
		if _, err := file.WriteAt([]byte{data[at] ^ 4}, int64(at)); err != nil {
			t.Fatal(err)
		}
	}
	snapshot := store.Snapshot()
	defer snapshot.Release()
	for key := range contentsAfter(imageCommits) {
		if value, ok, err := snapshot.Get([]byte(key)); ok || !errors.Is(err, storage.ErrDamaged) {
			t.Fatalf("get %q: %q, %t, %v", key, value, ok, err)
		}
	}
	if err := snapshot.Scan(nil, nil, func(key, value []byte) bool {
		t.Errorf("scan served %q = %q", key, value)
		return true
	}); !errors.Is(err, storage.ErrDamaged) {
		t.Errorf("scan: %v", err)
	}
}

func TestFormat(t *testing.T) {
	files := writeImage(t, true, 0)
	for format, want := range map[string]string{
		"perdure store 2\n":  "version 2, this program reads up to version 1",
		"perdure store 17\n": "version 17, this program reads up to version 1",
		"perdure store 0\n":  "version 0",
		"something else":     `"something else"`,
	} {
		if _, err := Open(imageOptions(files.with(formatFile, bytesOf([]byte(format))).restore(t))); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, want %q in it", format, err, want)
		}
	}
	// A crash before FORMAT was written leaves a directory to start over in.
	dir := image{highWaterFile: {}, lockFile: bytesOf([]byte("1\n")), formatFile + ".new": {}}.restore(t)
	storagetest.CheckContents(t, openTest(t, imageOptions(dir)), nil)
}

func TestLocked(t *testing.T) {
	dir := t.TempDir()
	store := openTest(t, testOptions(dir))
	storagetest.Commit(t, store, storagetest.Put("a", "1"))
	_, err := Open(testOptions(dir))
	if !errors.Is(err, storage.ErrLocked) || !strings.Contains(err.Error(), dir) {
		t.Errorf("second open: %v", err)
	}
	storagetest.Commit(t, store, storagetest.Put("a", "2"))
	closeTest(t, store)
	storagetest.CheckContents(t, openTest(t, testOptions(dir)), map[string]string{"a": "2"})
}

func TestOptions(t *testing.T) {
	_, err := Open(Options{MemoryBudgetBytes: 1, MinFreeBytes: -1})
	for _, name := range []string{"Dir", "MemoryBudgetBytes is 1", "MinFreeBytes is -1"} {
		if err == nil || !strings.Contains(err.Error(), name) {
			t.Errorf("%v, want %q in it", err, name)
		}
	}
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(testOptions(file)); err == nil || !strings.Contains(err.Error(), file) {
		t.Errorf("opening a file: %v", err)
	}
	for _, size := range []int64{minMemoryBudgetBytes, 0, maxMemoryBudgetBytes} {
		options := testOptions(t.TempDir())
		options.MemoryBudgetBytes = size
		store := openTest(t, options)
		t.Logf("budget %d: batches of %d bytes, %d writes", size, store.MaxBatchBytes(), store.MaxBatchOps())
		closeTest(t, store)
	}
}

// TestDiscard checks that compaction drops what no snapshot can read, and nothing else.
func TestDiscard(t *testing.T) {
	store := openTest(t, imageOptions(t.TempDir()))
	storagetest.Commit(t, store, storagetest.Put("a", "0"))
	old := store.Snapshot()
	value := strings.Repeat("v", 400<<10)
	overwrite := func() {
		for range 100 { // 40 MB through memtables of 8 MB
			storagetest.Commit(t, store, storagetest.Put("a", value))
		}
		if err := store.db.Flatten(2); err != nil {
			t.Fatal(err)
		}
	}
	overwrite()
	if got, _, err := old.Get([]byte("a")); err != nil || string(got) != "0" {
		t.Errorf("old snapshot: %.20q, %v", got, err)
	}
	old.Release()
	overwrite()
	storagetest.Commit(t, store, storagetest.Put("a", "end"))
	closeTest(t, store)
	store = openTest(t, imageOptions(store.dir))
	if err := store.db.Flatten(2); err != nil {
		t.Fatal(err)
	}
	storagetest.CheckContents(t, store, map[string]string{"a": "end"})
	var size int64
	for _, info := range store.db.Tables() {
		size += int64(info.OnDiskSize)
	}
	if size > 30<<20 {
		t.Errorf("%d bytes of tables for one short value: versions are not discarded", size)
	}
}

// TestHighWater checks the delayed write.
func TestHighWater(t *testing.T) {
	path := filepath.Join(t.TempDir(), "mark")
	mark, err := openHighWater(path, 0, func(err error) { t.Error(err) })
	if err != nil {
		t.Fatal(err)
	}
	mark.raise(5)
	mark.raise(6)
	mark.mu.Lock()
	if mark.mu.written != 0 || !mark.mu.armed {
		t.Errorf("written %d, armed %t", mark.mu.written, mark.mu.armed)
	}
	mark.mu.Unlock()
	mark.timers.Wait() // for the timer to fire
	if got, err := readHighWater(path); got != 6 || err != nil {
		t.Errorf("after the delay: %d, %v", got, err)
	}
	mark.raise(7)
	if err := mark.close(); err != nil {
		t.Fatal(err)
	}
	if got, err := readHighWater(path); got != 7 || err != nil {
		t.Errorf("after close: %d, %v", got, err)
	}
	data, err := os.ReadFile(path)
	if err != nil || len(data) != highWaterBytes || binary.BigEndian.Uint64(data[4:]) != 7 {
		t.Errorf("file holds %x, %v", data, err)
	}
}
