package nodelog

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"github.com/perdure/perdure/storage/vfs"
)

const testDir = "log"

var quiet = slog.New(slog.NewTextHandler(io.Discard, nil))

// testOptions are for small logs whose every operation happens on the appending goroutine.
func testOptions(fs vfs.FS) Options {
	return Options{
		Dir: testDir, FS: fs, SegmentBytes: 4 << 10, MinFreeBytes: -1, MarkerDelay: -1,
		CarryAfterSegments: 3, Logger: quiet, inlineUpkeep: true,
	}
}

func mustOpen(t testing.TB, opts Options) *Log {
	t.Helper()
	l, err := Open(opts)
	if err != nil {
		t.Fatalf("open: %v", err)
	}
	return l
}

func mustAppend(t testing.TB, l *Log, writes ...GroupWrite) {
	t.Helper()
	if err := l.Append(writes); err != nil {
		t.Fatalf("append: %v", err)
	}
}

func mustClose(t testing.TB, l *Log) {
	t.Helper()
	if err := l.Close(); err != nil {
		t.Fatalf("close: %v", err)
	}
}

// entriesOf makes n entries from an index on whose data tells them apart.
func entriesOf(group uint32, from uint64, n int, term uint64, size int) []Entry {
	entries := make([]Entry, n)
	for i := range entries {
		index := from + uint64(i)
		data := fmt.Appendf(nil, "g%d i%d t%d ", group, index, term)
		for len(data) < size {
			data = append(data, byte('a'+(index+uint64(len(data)))%26))
		}
		entries[i] = Entry{Index: index, Term: term, Kind: uint8(index % 3), Data: data}
	}
	return entries
}

func readAll(t testing.TB, l *Log, group uint32) []Entry {
	t.Helper()
	first, last := l.Bounds(group)
	var all []Entry
	for first <= last {
		got, err := l.Entries(group, first, last+1, 1<<20)
		if err != nil {
			t.Fatalf("entries of group %d from %d to %d: %v", group, first, last, err)
		}
		all = append(all, got...)
		first += uint64(len(got))
	}
	return all
}

func wantEntries(t testing.TB, l *Log, group uint32, want []Entry) {
	t.Helper()
	got := readAll(t, l, group)
	if len(got) != len(want) {
		t.Fatalf("group %d has %d entries, want %d", group, len(got), len(want))
	}
	for i := range want {
		if got[i].Index != want[i].Index || got[i].Term != want[i].Term || got[i].Kind != want[i].Kind || !bytes.Equal(got[i].Data, want[i].Data) {
			t.Fatalf("group %d: entry %+v, want %+v", group, got[i], want[i])
		}
	}
}

func TestAppendReopen(t *testing.T) {
	for name, fs := range map[string]vfs.FS{"mem": vfs.NewMem(), "os": vfs.OS{}} {
		t.Run(name, func(t *testing.T) {
			opts := testOptions(fs)
			opts.Dir = filepath.Join(t.TempDir(), "log")
			l := mustOpen(t, opts)
			if first, last := l.Bounds(7); first != 1 || last != 0 {
				t.Fatalf("fresh group has bounds %d, %d", first, last)
			}
			one, two := entriesOf(1, 1, 3, 1, 20), entriesOf(2, 1, 2, 5, 900)
			mustAppend(t, l, GroupWrite{Group: 1, Entries: one, State: []byte("one")}, GroupWrite{Group: 2, Entries: two})
			for range 2 {
				wantEntries(t, l, 1, one)
				wantEntries(t, l, 2, two)
				if got := string(l.State(1)); got != "one" {
					t.Fatalf("state %q", got)
				}
				if got := l.State(2); got != nil {
					t.Fatalf("state of group 2 is %q, want none", got)
				}
				if term, err := l.Term(2, 2); term != 5 || err != nil {
					t.Fatalf("term %d, %v", term, err)
				}
				if got := l.Groups(); !reflect.DeepEqual(got, []uint32{1, 2}) {
					t.Fatalf("groups %v", got)
				}
				mustClose(t, l)
				l = mustOpen(t, opts)
			}
			mustClose(t, l)
		})
	}
}

func TestConflictReplacesSuffix(t *testing.T) {
	opts := testOptions(vfs.NewMem())
	l := mustOpen(t, opts)
	old := entriesOf(1, 1, 5, 1, 30)
	mustAppend(t, l, GroupWrite{Group: 1, Entries: old})
	fresh := entriesOf(1, 3, 1, 2, 40)
	mustAppend(t, l, GroupWrite{Group: 1, Entries: fresh})
	want := append(old[:2:2], fresh...)
	wantEntries(t, l, 1, want)
	if _, err := l.Entries(1, 4, 5, 100); !errors.Is(err, ErrUnavailable) {
		t.Fatalf("replaced entry: %v", err)
	}
	mustClose(t, l)
	l = mustOpen(t, opts)
	defer l.Close()
	wantEntries(t, l, 1, want)
}

func TestTruncateResetRemove(t *testing.T) {
	opts := testOptions(vfs.NewMem())
	l := mustOpen(t, opts)
	one := entriesOf(1, 1, 9, 3, 30)
	mustAppend(t, l, GroupWrite{Group: 1, Entries: one}, GroupWrite{Group: 2, Entries: entriesOf(2, 1, 2, 1, 10)}, GroupWrite{Group: 3, State: []byte("x")})
	l.TruncatePrefix(1, 4, 3)
	l.TruncatePrefix(1, 2, 3)  // below first: nothing
	l.TruncatePrefix(1, 99, 3) // above last: ignored
	l.TruncatePrefix(1, 6, 9)  // of another term: ignored
	l.TruncatePrefix(77, 1, 1) // unknown group
	if err := l.Reset(2, 100, 8); err != nil {
		t.Fatal(err)
	}
	if err := l.Remove(3); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		wantEntries(t, l, 1, one[4:])
		if first, last := l.Bounds(2); first != 101 || last != 100 {
			t.Fatalf("bounds after reset: %d, %d", first, last)
		}
		for index, want := range map[uint64]uint64{4: 3, 5: 3} {
			if term, err := l.Term(1, index); term != want || err != nil {
				t.Fatalf("term of %d: %d, %v", index, term, err)
			}
		}
		if _, err := l.Term(1, 3); !errors.Is(err, ErrCompacted) {
			t.Fatalf("term below: %v", err)
		}
		if _, err := l.Term(1, 10); !errors.Is(err, ErrUnavailable) {
			t.Fatalf("term above: %v", err)
		}
		if _, err := l.Entries(1, 4, 6, 1000); !errors.Is(err, ErrCompacted) {
			t.Fatalf("entries below: %v", err)
		}
		if term, err := l.Term(2, 100); term != 8 || err != nil {
			t.Fatalf("term at reset point: %d, %v", term, err)
		}
		if got := l.Groups(); !reflect.DeepEqual(got, []uint32{1, 2}) {
			t.Fatalf("groups %v", got)
		}
		mustClose(t, l)
		l = mustOpen(t, opts)
	}
	more := entriesOf(2, 101, 2, 9, 10)
	mustAppend(t, l, GroupWrite{Group: 2, Entries: more})
	wantEntries(t, l, 2, more)
	mustClose(t, l)
}

// A reset is in one frame with what follows it: entries behind the point and the state.
func TestAppendResets(t *testing.T) {
	opts := testOptions(vfs.NewMem())
	l := mustOpen(t, opts)
	one := entriesOf(1, 1, 3, 1, 10)
	mustAppend(t, l, GroupWrite{Group: 1, Entries: one}, GroupWrite{Group: 2, Entries: entriesOf(2, 1, 9, 1, 10), State: []byte("a")})
	l.TruncatePrefix(2, 4, 1)
	more := entriesOf(2, 51, 2, 8, 10)
	err := l.Append([]GroupWrite{{Group: 2, Reset: &Position{Index: 50, Term: 7}, Entries: entriesOf(2, 52, 1, 8, 10)}})
	if err == nil {
		t.Fatal("a gap behind the reset was appended")
	}
	err = l.Append([]GroupWrite{{Group: 2, Reset: &Position{Index: 50, Term: 7}, Entries: entriesOf(2, 10, 1, 8, 10)}})
	if !errors.Is(err, ErrCompacted) {
		t.Fatalf("an entry below the reset: %v", err)
	}
	mustAppend(t, l, GroupWrite{Group: 2, Reset: &Position{Index: 50, Term: 7}, Entries: more, State: []byte("b")})
	l.TruncatePrefix(2, 10, 1) // of before
	for range 2 {
		wantEntries(t, l, 1, one)
		wantEntries(t, l, 2, more)
		if term, err := l.Term(2, 50); term != 7 || err != nil {
			t.Fatalf("term at reset point: %d, %v", term, err)
		}
		if string(l.State(2)) != "b" {
			t.Fatalf("state %q", l.State(2))
		}
		mustClose(t, l)
		l = mustOpen(t, opts)
	}
	mustAppend(t, l, GroupWrite{Group: 2, Reset: &Position{}, State: []byte("c")})
	if first, last := l.Bounds(2); first != 1 || last != 0 {
		t.Fatalf("bounds after a reset to nothing: %d, %d", first, last)
	}
	again := entriesOf(2, 1, 2, 9, 10)
	mustAppend(t, l, GroupWrite{Group: 2, Entries: again})
	mustClose(t, l)
	l = mustOpen(t, opts)
	wantEntries(t, l, 2, again)
	mustClose(t, l)
}

func TestAppendRefusesWhatDoesNotFit(t *testing.T) {
	l := mustOpen(t, testOptions(vfs.NewMem()))
	defer l.Close()
	mustAppend(t, l, GroupWrite{Group: 1, Entries: entriesOf(1, 1, 5, 1, 10)})
	l.TruncatePrefix(1, 3, 1)
	gap := entriesOf(1, 6, 2, 1, 10)
	gap[1].Index = 9
	for name, test := range map[string]struct {
		write GroupWrite
		want  string
	}{
		"gap":       {GroupWrite{Group: 1, Entries: entriesOf(1, 7, 1, 1, 10)}, "gap behind the last index 5"},
		"inner gap": {GroupWrite{Group: 1, Entries: gap}, "has index 9, want 7"},
		"below":     {GroupWrite{Group: 1, Entries: entriesOf(1, 3, 1, 1, 10)}, "first is 4"},
		"new group": {GroupWrite{Group: 2, Entries: entriesOf(2, 2, 1, 1, 10)}, "gap behind the last index 0"},
		"state":     {GroupWrite{Group: 1, State: make([]byte, MaxStateBytes+1)}, "above the bound of 1024"},
	} {
		before := l.Stats().WrittenBytes
		err := l.Append([]GroupWrite{test.write})
		if err == nil || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%s: error %v, want %q", name, err, test.want)
		}
		if l.Stats().WrittenBytes != before {
			t.Errorf("%s: something was written", name)
		}
	}
	// The same group twice in one append continues where its first part ended.
	mustAppend(t, l, GroupWrite{Group: 1, Entries: entriesOf(1, 6, 2, 1, 10)}, GroupWrite{Group: 1, Entries: entriesOf(1, 8, 1, 1, 10)})
}

func TestEntriesMaxBytes(t *testing.T) {
	for _, cache := range []int64{-1, 1 << 20, 2000} {
		opts := testOptions(vfs.NewMem())
		opts.CacheBytes = cache
		opts.SegmentBytes = 1 << 20
		l := mustOpen(t, opts)
		want := entriesOf(1, 1, 20, 1, 300)
		for _, e := range want {
			mustAppend(t, l, GroupWrite{Group: 1, Entries: []Entry{e}})
		}
		wantEntries(t, l, 1, want)
		for max, n := range map[uint64]int{0: 1, 1: 1, 700: 2, 1 << 30: 20} {
			got, err := l.Entries(1, 1, 21, max)
			if err != nil || len(got) != n {
				t.Errorf("cache %d: %d bytes give %d entries, %v; want %d", cache, max, len(got), err, n)
			}
		}
		if got := l.Stats().CachedBytes; cache > 0 && got > cache {
			t.Errorf("cache of %d bytes, bound is %d", got, cache)
		}
		mustClose(t, l)
	}
}

func TestSegmentsAreReclaimed(t *testing.T) {
	mem := vfs.NewMem()
	opts := testOptions(mem)
	l := mustOpen(t, opts)
	// Group 9 writes once and never again: it must not pin the log.
	quietEntries := entriesOf(9, 1, 3, 1, 100)
	mustAppend(t, l, GroupWrite{Group: 9, Entries: quietEntries, State: []byte("vote")})
	for i := uint64(1); i <= 400; i++ {
		mustAppend(t, l, GroupWrite{Group: 1, Entries: entriesOf(1, i, 1, 1, 200)})
		if i > 10 {
			l.TruncatePrefix(1, i-10, 1)
		}
	}
	if n := l.Stats().Segments; n > opts.CarryAfterSegments+2 {
		t.Fatalf("%d segments left", n)
	}
	wantEntries(t, l, 9, quietEntries)
	mustClose(t, l)
	l = mustOpen(t, opts)
	defer l.Close()
	wantEntries(t, l, 9, quietEntries)
	if got := string(l.State(9)); got != "vote" {
		t.Fatalf("state %q", got)
	}
	if first, last := l.Bounds(1); last != 400 || first < 380 {
		t.Fatalf("bounds %d, %d", first, last)
	}
	if names, _ := mem.List(testDir); len(names) > opts.CarryAfterSegments+3 {
		t.Fatalf("files left: %v", names)
	}
}

func TestFrameLargerThanSegment(t *testing.T) {
	opts := testOptions(vfs.NewMem())
	l := mustOpen(t, opts)
	var want []Entry
	for i, size := range []int{100_000, 10, 5_000, 3_500, 3_500, 200_000} {
		e := entriesOf(1, uint64(i)+1, 1, 1, size)
		mustAppend(t, l, GroupWrite{Group: 1, Entries: e})
		want = append(want, e...)
	}
	wantEntries(t, l, 1, want)
	mustClose(t, l)
	l = mustOpen(t, opts)
	wantEntries(t, l, 1, want)
	l.TruncatePrefix(1, 5, 1)
	mustAppend(t, l, GroupWrite{Group: 1, Entries: entriesOf(1, 7, 1, 1, 10)})
	if n := l.Stats().Segments; n > 2 {
		t.Fatalf("%d segments left", n)
	}
	mustClose(t, l)
}

func TestLocked(t *testing.T) {
	for name, fs := range map[string]vfs.FS{"mem": vfs.NewMem(), "os": vfs.OS{}} {
		opts := testOptions(fs)
		opts.Dir = filepath.Join(t.TempDir(), "log")
		l := mustOpen(t, opts)
		_, err := Open(opts)
		if !errors.Is(err, ErrLocked) || !strings.Contains(err.Error(), opts.Dir) {
			t.Errorf("%s: second open: %v", name, err)
		}
		mustClose(t, l)
		mustClose(t, mustOpen(t, opts))
	}
}

func TestClosed(t *testing.T) {
	l := mustOpen(t, testOptions(vfs.NewMem()))
	mustAppend(t, l, GroupWrite{Group: 1, Entries: entriesOf(1, 1, 1, 1, 10)})
	mustClose(t, l)
	_, readErr := l.Entries(1, 1, 2, 10)
	for name, err := range map[string]error{
		"append": l.Append([]GroupWrite{{Group: 1, State: []byte("x")}}), "reset": l.Reset(1, 1, 1),
		"remove": l.Remove(1), "close": l.Close(), "entries": readErr,
	} {
		if !errors.Is(err, ErrClosed) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestOptionsNameAllProblems(t *testing.T) {
	_, err := Open(Options{SegmentBytes: 7, CarryAfterSegments: 1})
	for _, want := range []string{"Dir is empty", "SegmentBytes is 7", "CarryAfterSegments is 1"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("error %v does not say %q", err, want)
		}
	}
}
