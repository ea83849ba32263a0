package nodelog

import (
	"errors"
	"strings"
	"syscall"
	"testing"

	"github.com/perdure/perdure/storage/vfs"
)

func TestDiskFull(t *testing.T) {
	mem := vfs.NewMem()
	opts := testOptions(mem)
	l := mustOpen(t, opts)
	mem.SetCapacity(6*opts.SegmentBytes + 100)
	var want []Entry
	var err error
	for i := uint64(1); err == nil; i++ {
		e := entriesOf(1, i, 1, 1, 300)
		if err = l.Append([]GroupWrite{{Group: 1, Entries: e}}); err == nil {
			want = append(want, e...)
		}
	}
	if !errors.Is(err, ErrNoSpace) || errors.Is(err, ErrFenced) || !strings.Contains(err.Error(), testDir) {
		t.Fatalf("append on a full disk: %v", err)
	}
	if n := l.Stats().Segments; n != 6 {
		t.Fatalf("%d segments", n)
	}
	wantEntries(t, l, 1, want)
	// Nothing more can be appended until entries are given up; their segments then go although
	// no ordinary frame has room.
	next := want[len(want)-1].Index + 1
	if err := l.Append([]GroupWrite{{Group: 1, Entries: entriesOf(1, next, 1, 1, 300)}}); !errors.Is(err, ErrNoSpace) {
		t.Fatalf("second append: %v", err)
	}
	l.TruncatePrefix(1, next-10, 1)
	if err := l.Append([]GroupWrite{{Group: 1, Entries: entriesOf(1, next, 1, 1, 300)}}); err != nil {
		t.Fatalf("append after giving up entries: %v", err)
	}
	want = append(want, entriesOf(1, next, 1, 1, 300)...)
	want = want[len(want)-10:]
	wantEntries(t, l, 1, want)
	disk := mem.PowerCut(3)
	mustClose(t, l)
	for _, fs := range []*vfs.Mem{disk, mem} {
		opts.FS = fs
		l = mustOpen(t, opts)
		wantEntries(t, l, 1, want)
		mustClose(t, l)
	}
}

// TestDiskFullWakesUpkeep: the truncation comes later and from another goroutine, and no
// append is tried again.
func TestDiskFullWakesUpkeep(t *testing.T) {
	mem := vfs.NewMem()
	opts := testOptions(mem)
	opts.inlineUpkeep = false
	l := mustOpen(t, opts)
	defer l.Close()
	mem.SetCapacity(4*opts.SegmentBytes + 100)
	var err error
	index := uint64(0)
	for err == nil {
		index++
		err = l.Append([]GroupWrite{{Group: 1, Entries: entriesOf(1, index, 1, 1, 300)}})
	}
	if !errors.Is(err, ErrNoSpace) {
		t.Fatal(err)
	}
	l.TruncatePrefix(1, index-5, 1)
	waitFor(t, func() bool { return l.Stats().Segments < 4 })
	if err := l.Append([]GroupWrite{{Group: 1, Entries: entriesOf(1, index, 1, 1, 300)}}); err != nil {
		t.Fatal(err)
	}
}

func TestMinFreeBytes(t *testing.T) {
	mem := vfs.NewMem()
	opts := testOptions(mem)
	opts.MinFreeBytes = 10_000
	mem.SetCapacity(12_000)
	if _, err := Open(opts); !errors.Is(err, ErrNoSpace) || !strings.Contains(err.Error(), "10000") {
		t.Fatalf("open: %v", err)
	}
	mem.SetCapacity(20_000)
	l := mustOpen(t, opts)
	defer l.Close()
	var err error
	for i := uint64(1); err == nil; i++ {
		err = l.Append([]GroupWrite{{Group: 1, Entries: entriesOf(1, i, 1, 1, 300)}})
	}
	if !errors.Is(err, ErrNoSpace) || mem.Ops(vfs.OpCreate) > 3 {
		t.Fatalf("append: %v; %d files made", err, mem.Ops(vfs.OpCreate))
	}
}

// TestDiskFullInsideFrame is a file system that does not reserve what was preallocated.
func TestDiskFullInsideFrame(t *testing.T) {
	for written := range 700 {
		mem := vfs.NewMem()
		l := mustOpen(t, testOptions(mem))
		want := entriesOf(1, 1, 3, 1, 100)
		mustAppend(t, l, GroupWrite{Group: 1, Entries: want})
		mem.Inject(vfs.Fault{Op: vfs.OpWrite, Err: syscall.ENOSPC, Written: written})
		l.TruncatePrefix(1, 1, 1)
		all, want := want, want[1:]
		if err := l.Append([]GroupWrite{{Group: 1, Entries: entriesOf(1, 4, 2, 1, 400)}}); !errors.Is(err, ErrNoSpace) {
			t.Fatalf("append: %v", err)
		}
		wantEntries(t, l, 1, want)
		disk := mem.PowerCut(uint64(written))
		check := mustOpen(t, testOptions(disk))
		wantEntries(t, check, 1, all) // the truncation was in the frame that failed
		more := entriesOf(1, 4, 1, 2, 10)
		mustAppend(t, l, GroupWrite{Group: 1, Entries: more})
		wantEntries(t, l, 1, append(want[:2:2], more...))
		disk = mem.PowerCut(uint64(written))
		check = mustOpen(t, testOptions(disk))
		wantEntries(t, check, 1, append(want[:2:2], more...))
		mustClose(t, l)
	}
}

func TestFenced(t *testing.T) {
	cause := syscall.EIO
	for name, faults := range map[string][]vfs.Fault{
		"sync":             {{Op: vfs.OpSync, Err: cause}},
		"write":            {{Op: vfs.OpWrite, Err: cause, Written: 30}},
		"undo of no space": {{Op: vfs.OpWrite, Err: syscall.ENOSPC, Written: 30}, {Op: vfs.OpWrite, Err: cause}},
		"undo not synced":  {{Op: vfs.OpWrite, Err: syscall.ENOSPC, Written: 30}, {Op: vfs.OpSync, Err: cause}},
	} {
		mem := vfs.NewMem()
		l := mustOpen(t, testOptions(mem))
		want := entriesOf(1, 1, 2, 1, 100)
		mustAppend(t, l, GroupWrite{Group: 1, Entries: want})
		for _, fault := range faults {
			mem.Inject(fault)
		}
		write := []GroupWrite{{Group: 1, Entries: entriesOf(1, 3, 2, 1, 400)}}
		for i := range 3 {
			if err := l.Append(write); !errors.Is(err, ErrFenced) || !errors.Is(err, cause) {
				t.Fatalf("%s: append %d: %v", name, i, err)
			}
			mem.ClearFaults()
		}
		if err := l.Reset(1, 5, 1); !errors.Is(err, ErrFenced) {
			t.Fatalf("%s: reset: %v", name, err)
		}
		if !l.Stats().Fenced {
			t.Errorf("%s: stats say it is not fenced", name)
		}
		wantEntries(t, l, 1, want)
		mustClose(t, l)
		l = mustOpen(t, testOptions(mem))
		if _, last := l.Bounds(1); last != 2 && last != 4 {
			t.Errorf("%s: after opening again last is %d", name, last)
		}
		mustClose(t, l)
	}
}

// TestFailedSyncIsNotBelieved: after a failed sync the kernel takes the pages for clean. What
// opening again shows must nevertheless survive the next power cut.
func TestFailedSyncIsNotBelieved(t *testing.T) {
	mem := vfs.NewMem()
	l := mustOpen(t, testOptions(mem))
	mem.Inject(vfs.Fault{Op: vfs.OpSync, Err: syscall.EIO, LosesDirty: true})
	if err := l.Append([]GroupWrite{{Group: 1, Entries: entriesOf(1, 1, 2, 1, 900)}}); !errors.Is(err, ErrFenced) {
		t.Fatal(err)
	}
	mustClose(t, l)
	l = mustOpen(t, testOptions(mem))
	_, shown := l.Bounds(1)
	if shown != 2 {
		t.Fatalf("last is %d: the test proves nothing", shown)
	}
	for seed := range uint64(20) {
		after := mustOpen(t, testOptions(mem.PowerCut(seed)))
		wantEntries(t, after, 1, entriesOf(1, 1, 2, 1, 900))
		mustClose(t, after)
	}
	mustClose(t, l)
}
