package vfs

import (
	"bytes"
	"errors"
	"io"
	"syscall"
	"testing"
)

func mustCreate(t *testing.T, fs FS, name string) File {
	t.Helper()
	file, err := fs.Create(name)
	if err != nil {
		t.Fatal(err)
	}
	return file
}

func mustWrite(t *testing.T, file File, p []byte, offset int64) {
	t.Helper()
	if n, err := file.WriteAt(p, offset); n != len(p) || err != nil {
		t.Fatalf("wrote %d of %d: %v", n, len(p), err)
	}
}

func TestPowerCutKeepsWhatWasSynced(t *testing.T) {
	mem := NewMem()
	file := mustCreate(t, mem, "d/a")
	mustWrite(t, file, bytes.Repeat([]byte{1}, 2000), 0)
	if err := errors.Join(file.Sync(), mem.SyncDir("d")); err != nil {
		t.Fatal(err)
	}
	mustWrite(t, file, bytes.Repeat([]byte{2}, 2000), 1000)
	mustCreate(t, mem, "d/b")
	sizes, withB, torn := make(map[int]bool), make(map[bool]bool), false
	for seed := range uint64(200) {
		disk := mem.PowerCut(seed)
		got, err := disk.Bytes("d/a")
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(got[:1000], bytes.Repeat([]byte{1}, 1000)) {
			t.Fatal("synced bytes changed")
		}
		kept := make(map[byte]bool)
		for start := 1024; start < len(got); start += sectorBytes {
			sector := got[start:min(start+sectorBytes, len(got))]
			kept[sector[0]] = true
			// The old file ends at 2000, inside a sector.
			if start < 1536 && !bytes.Equal(sector, bytes.Repeat(sector[:1], len(sector))) {
				t.Fatalf("half a sector at %d", start)
			}
		}
		torn = torn || len(kept) > 1
		sizes[len(got)] = true
		_, err = disk.Bytes("d/b")
		withB[err == nil] = true
		again, _ := mem.PowerCut(seed).Bytes("d/a")
		if !bytes.Equal(again, got) {
			t.Fatal("one seed gave two results")
		}
	}
	if len(sizes) < 3 || len(withB) != 2 || !torn {
		t.Errorf("too tame: sizes %v, unsynced name kept %v, torn write %v", sizes, withB, torn)
	}
}

func TestPowerCutOfNames(t *testing.T) {
	mem := NewMem()
	mustWrite(t, mustCreate(t, mem, "d/a"), []byte("x"), 0)
	if err := mem.SyncDir("d"); err != nil {
		t.Fatal(err)
	}
	if err := mem.Rename("d/a", "d/b"); err != nil {
		t.Fatal(err)
	}
	seen := make(map[string]int)
	for seed := range uint64(50) {
		names, _ := mem.PowerCut(seed).List("d")
		if len(names) != 1 {
			t.Fatalf("a rename left %v", names)
		}
		seen[names[0]]++
	}
	if len(seen) != 2 {
		t.Errorf("names seen: %v", seen)
	}
}

func TestCutPowerAfter(t *testing.T) {
	mem := NewMem()
	file := mustCreate(t, mem, "a")
	mem.CutPowerAfter(2)
	mustWrite(t, file, []byte("x"), 0)
	if err := file.Sync(); err != nil {
		t.Fatal(err)
	}
	_, writeErr := file.WriteAt([]byte("y"), 0)
	_, readErr := file.ReadAt(make([]byte, 1), 0)
	_, openErr := mem.Open("a")
	for _, err := range []error{writeErr, readErr, openErr, file.Sync(), file.Truncate(0), mem.Remove("a"), mem.SyncDir(".")} {
		if !errors.Is(err, ErrPowerCut) {
			t.Errorf("after the power cut: %v", err)
		}
	}
}

func TestFaults(t *testing.T) {
	mem := NewMem()
	a, b := mustCreate(t, mem, "a.seg"), mustCreate(t, mem, "b")
	mem.Inject(Fault{Op: OpWrite, Suffix: ".seg", After: 1, Err: syscall.EIO, Written: 2})
	mustWrite(t, b, []byte("12345"), 0)
	mustWrite(t, a, []byte("12345"), 0)
	if n, err := a.WriteAt([]byte("abcde"), 0); n != 2 || !errors.Is(err, syscall.EIO) {
		t.Fatalf("faulty write: %d, %v", n, err)
	}
	mustWrite(t, a, []byte("z"), 4)
	if got, _ := mem.Bytes("a.seg"); string(got) != "ab34z" {
		t.Fatalf("content %q", got)
	}
	mem.Inject(Fault{Op: OpSync, Err: syscall.EIO, Repeat: true})
	for range 3 {
		if err := a.Sync(); !errors.Is(err, syscall.EIO) {
			t.Fatalf("sync: %v", err)
		}
	}
	mem.ClearFaults()
	if err := a.Sync(); err != nil {
		t.Fatal(err)
	}
}

func TestCapacity(t *testing.T) {
	mem := NewMem()
	mem.SetCapacity(100)
	file := mustCreate(t, mem, "a")
	if err := file.Preallocate(80); err != nil {
		t.Fatal(err)
	}
	if free, _ := mem.FreeBytes("."); free != 20 {
		t.Fatalf("free %d", free)
	}
	mustWrite(t, file, make([]byte, 80), 0)
	if n, err := file.WriteAt(make([]byte, 50), 80); n != 20 || !IsNoSpace(err) {
		t.Fatalf("write beyond the capacity: %d, %v", n, err)
	}
	if err := mustCreate(t, mem, "b").Preallocate(1); !IsNoSpace(err) {
		t.Fatalf("preallocate: %v", err)
	}
	if err := mem.Remove("a"); err != nil {
		t.Fatal(err)
	}
	if free, _ := mem.FreeBytes("."); free != 100 {
		t.Fatalf("free %d after removal", free)
	}
}

func TestFlipBit(t *testing.T) {
	mem := NewMem()
	mustWrite(t, mustCreate(t, mem, "a"), []byte{0, 0}, 0)
	if err := mem.FlipBit("a", 1, 3); err != nil {
		t.Fatal(err)
	}
	if got, _ := mem.Bytes("a"); got[0] != 0 || got[1] != 8 {
		t.Fatalf("content %v", got)
	}
	if mem.FlipBit("a", 2, 0) == nil || mem.FlipBit("b", 0, 0) == nil {
		t.Error("a flip outside the file was accepted")
	}
}

// TestFileSystemsAgree runs one script on both implementations.
func TestFileSystemsAgree(t *testing.T) {
	for name, fs := range map[string]FS{"mem": NewMem(), "os": OS{}} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir() + "/x/y"
			if err := errors.Join(fs.MkdirAll(dir), fs.MkdirAll(dir)); err != nil {
				t.Fatal(err)
			}
			file := mustCreate(t, fs, dir+"/b")
			if err := file.Preallocate(1000); err != nil {
				t.Fatal(err)
			}
			mustWrite(t, file, []byte("hello"), 10)
			if err := errors.Join(file.Sync(), fs.SyncDir(dir)); err != nil {
				t.Fatal(err)
			}
			buf := make([]byte, 7)
			if n, err := file.ReadAt(buf, 9); n != 7 || err != nil || string(buf) != "\x00hello\x00" {
				t.Fatalf("read %d %q %v", n, buf, err)
			}
			if n, err := file.ReadAt(buf, 997); n != 3 || err != io.EOF {
				t.Fatalf("read at the end: %d %v", n, err)
			}
			if err := file.Truncate(12); err != nil {
				t.Fatal(err)
			}
			if size, err := fs.Stat(dir + "/b"); size != 12 || err != nil {
				t.Fatalf("stat %d %v", size, err)
			}
			mustCreate(t, fs, dir+"/c")
			if err := fs.Rename(dir+"/b", dir+"/a"); err != nil {
				t.Fatal(err)
			}
			if names, err := fs.List(dir); err != nil || len(names) != 2 || names[0] != "a" || names[1] != "c" {
				t.Fatalf("list %v %v", names, err)
			}
			if err := fs.Remove(dir + "/a"); err != nil {
				t.Fatal(err)
			}
			if size, err := file.Size(); size != 12 || err != nil {
				t.Fatalf("size of a removed, open file: %d %v", size, err)
			}
			if _, err := fs.Open(dir + "/a"); !IsNotExist(err) {
				t.Fatalf("open of a removed file: %v", err)
			}
			if err := fs.Remove(dir + "/a"); !IsNotExist(err) {
				t.Fatalf("second removal: %v", err)
			}
			lock, err := fs.Lock(dir + "/LOCK")
			if err != nil {
				t.Fatal(err)
			}
			if _, err := fs.Lock(dir + "/LOCK"); !errors.Is(err, ErrLocked) {
				t.Fatalf("second lock: %v", err)
			}
			if err := lock.Close(); err != nil {
				t.Fatal(err)
			}
			if lock, err = fs.Lock(dir + "/LOCK"); err != nil {
				t.Fatal(err)
			}
			_ = lock.Close()
			if free, err := fs.FreeBytes(dir); free == 0 || err != nil {
				t.Fatalf("free %d %v", free, err)
			}
		})
	}
}
