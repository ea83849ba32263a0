//go:build linux

package badgerstore

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/perdure/perdure/storage"
	"github.com/perdure/perdure/storage/storagetest"
)

// TestFullDisk fills a small file system. Without the watermark Badger's mapped files end the
// process with SIGBUS.
func TestFullDisk(t *testing.T) {
	mount := t.TempDir()
	if err := unix.Mount("tmpfs", mount, "tmpfs", 0, "size=160m"); err != nil {
		t.Skipf("needs the right to mount: %v", err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(mount, 0); err != nil {
			t.Error(err)
		}
	})
	options := Options{Dir: filepath.Join(mount, "store"), MemoryBudgetBytes: minMemoryBudgetBytes, MinFreeBytes: 64 << 20}
	store := openTest(t, options)
	want := make(map[string]string)
	var full error
	for n := 0; full == nil; n++ {
		key, value := fmt.Sprint(n), string(make([]byte, 100_000))
		if full = store.Commit(storagetest.Batch(storagetest.Put(key, value))); full == nil {
			want[key] = value
		}
		if n > 10_000 {
			t.Fatal("the disk does not fill up")
		}
	}
	if !errors.Is(full, storage.ErrNoSpace) {
		t.Fatal(full)
	}
	t.Logf("full after %d commits: %v", len(want), full)
	storagetest.CheckContents(t, store, want)
	closeTest(t, store)
	store = openTest(t, options) // half the watermark is enough to open and read
	storagetest.CheckContents(t, store, want)
	closeTest(t, store)

	filler := filepath.Join(mount, "filler")
	free, err := freeDiskBytes(mount)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filler, make([]byte, free-1<<20), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(options); !errors.Is(err, storage.ErrNoSpace) {
		t.Errorf("open on a full disk: %v", err)
	}
	if err := errors.Join(os.Remove(filler), unix.Mount("tmpfs", mount, "tmpfs", unix.MS_REMOUNT, "size=400m")); err != nil {
		t.Fatal(err)
	}
	store = openTest(t, options)
	storagetest.Commit(t, store, storagetest.Put("a", "1"))
	want["a"] = "1"
	storagetest.CheckContents(t, store, want)
	closeTest(t, store)
}
