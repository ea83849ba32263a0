package nodelog

import (
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"path"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/perdure/perdure/storage/vfs"
)

// smallLog makes a log of a few segments. last is the content without the last frame.
func smallLog(t *testing.T, closed bool) (mem *vfs.Mem, all, last model) {
	t.Helper()
	mem = vfs.NewMem()
	all, last = fillSmallLog(t, mem, closed)
	return mem.Clone(), all, last
}

// unclosed is smallLog as the disk has it while the log is in use.
func unclosed(t *testing.T) *vfs.Mem {
	t.Helper()
	mem := vfs.NewMem()
	fillSmallLog(t, mem, false)
	return mem
}

func fillSmallLog(t *testing.T, mem *vfs.Mem, closed bool) (all, last model) {
	t.Helper()
	l := mustOpen(t, testOptions(mem))
	all = make(model)
	next := map[uint32]uint64{1: 1, 2: 1}
	for i := range 24 {
		id := uint32(i%2 + 1)
		writes := []GroupWrite{{Group: id, Entries: entriesOf(id, next[id], 2, 3, 150), State: fmt.Appendf(nil, "s%d", i)}}
		next[id] += 2
		last = all.clone()
		all.append(writes)
		mustAppend(t, l, writes...)
	}
	if n := l.Stats().Segments; n < 3 {
		t.Fatalf("%d segments", n)
	}
	if closed {
		mustClose(t, l)
	}
	return all, last
}

// outcome opens a damaged log and returns "damage", "all", "cut" (all but the last frame) or
// what is wrong with it.
func outcome(disk *vfs.Mem, all, last model) string {
	before := make(map[string][]byte)
	names, _ := disk.List(testDir)
	for _, name := range names {
		before[name], _ = disk.Bytes(path.Join(testDir, name))
	}
	l, err := Open(testOptions(disk))
	if err != nil {
		if !errors.Is(err, ErrDamaged) {
			return err.Error()
		}
		if after, _ := disk.List(testDir); !slices.Equal(after, names) {
			return "open reported damage and changed the files"
		}
		for name, content := range before {
			if now, _ := disk.Bytes(path.Join(testDir, name)); string(now) != string(content) {
				return "open reported damage and changed " + name
			}
		}
		return "damage"
	}
	defer l.Close()
	err = all.diff(l, false)
	if err == nil {
		return "all"
	}
	if last.diff(l, false) == nil {
		return "cut"
	}
	return "altered: " + err.Error()
}

func logFiles(t *testing.T, mem *vfs.Mem) map[string][]byte {
	t.Helper()
	files := make(map[string][]byte)
	names, err := mem.List(testDir)
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range names {
		if files[path.Join(testDir, name)], err = mem.Bytes(path.Join(testDir, name)); err != nil {
			t.Fatal(err)
		}
	}
	return files
}

// lastSegment returns the name of the last segment and where its last frame starts and ends.
func lastSegment(t *testing.T, mem *vfs.Mem) (name string, start, end int64) {
	t.Helper()
	clone := mem.Clone()
	l := &Log{opts: testOptions(clone)}
	l.mu.groups = make(map[uint32]*group)
	r := recovery{log: l, index: &l.mu.index}
	numbers, err := listSegments(clone, testDir)
	if err == nil {
		err = r.run(numbers)
	}
	if err != nil {
		t.Fatal(err)
	}
	s := l.mu.segments[len(l.mu.segments)-1]
	return s.path, r.lastStart, s.end
}

// rewrite replaces a file's content.
func rewrite(t testing.TB, mem *vfs.Mem, name string, content []byte) {
	t.Helper()
	file, err := mem.Create(name)
	if err != nil {
		t.Fatal(err)
	}
	if len(content) > 0 {
		if _, err := file.WriteAt(content, 0); err != nil {
			t.Fatal(err)
		}
	}
}

func TestFlipEveryBit(t *testing.T) {
	for _, closed := range []bool{true, false} {
		mem, all, last := smallLog(t, closed)
		lastName, lastStart, lastEnd := lastSegment(t, mem)
		counts := make(map[string]int)
		for name, content := range logFiles(t, mem) {
			for offset, b := range content {
				// Behind the frames everything is zero; there a bit per byte will do, and in the
				// second run, which is about the last frame, everywhere else too.
				bits := []uint{0, 1, 2, 3, 4, 5, 6, 7}
				if b == 0 || testing.Short() || !closed && (name != lastName || int64(offset) < lastStart) {
					bits = []uint{uint(offset) % 8}
				}
				if b == 0 && testing.Short() && offset%16 != 0 {
					continue
				}
				for _, bit := range bits {
					disk := mem.Clone()
					if err := disk.FlipBit(name, int64(offset), bit); err != nil {
						t.Fatal(err)
					}
					got := outcome(disk, all, last)
					counts[got]++
					window := !closed && name == lastName && int64(offset) >= lastStart && int64(offset) < lastEnd
					ok := got == "damage" || got == "all" || got == "cut" && window
					// A flip in what was written and is still needed must not go unnoticed.
					if got == "all" && b != 0 && int64(offset) < lastStart && !strings.HasSuffix(name, identityName) && !inSeal(content, offset) {
						ok = false
					}
					if !ok {
						t.Fatalf("closed %v: bit %d of byte %d of %s (%#x): %s", closed, bit, offset, name, b, got)
					}
				}
			}
		}
		t.Logf("closed %v: %v", closed, counts)
		if counts["damage"] < 500 || closed && counts["cut"] > 0 || !closed && counts["cut"] == 0 {
			t.Errorf("closed %v: outcomes %v", closed, counts)
		}
	}
}

// inSeal is whether an offset is in the last header of a sealed segment.
func inSeal(content []byte, offset int) bool {
	seal := content[:lastNonZero(content)+1]
	return offset >= len(seal)-frameHeaderBytes
}

func TestTruncateAtEveryByte(t *testing.T) {
	for _, closed := range []bool{true, false} {
		mem, all, last := smallLog(t, closed)
		for name, content := range logFiles(t, mem) {
			for size := range content {
				if testing.Short() && size%8 != 0 {
					continue
				}
				disk := mem.Clone()
				file, err := disk.Open(name)
				if err != nil {
					t.Fatal(err)
				}
				if err := file.Truncate(int64(size)); err != nil {
					t.Fatal(err)
				}
				want := "damage"
				if strings.HasSuffix(name, identityName) && size == 0 {
					want = "all"
				}
				if got := outcome(disk, all, last); got != want {
					t.Fatalf("closed %v: %s cut to %d of %d bytes: %s, want %s", closed, name, size, len(content), got, want)
				}
			}
		}
	}
}

// TestZeroFromEveryByte is a disk that loses the end of a segment but not its size.
func TestZeroFromEveryByte(t *testing.T) {
	for _, closed := range []bool{true, false} {
		mem, all, last := smallLog(t, closed)
		lastName, lastStart, _ := lastSegment(t, mem)
		for name, content := range logFiles(t, mem) {
			for from := range lastNonZero(content) + 1 {
				if name == lastName && int64(from) <= lastStart {
					continue // the same as if the later appends had never been
				}
				if testing.Short() && from%8 != 0 {
					continue
				}
				disk := mem.Clone()
				rewrite(t, disk, name, append(slices.Clone(content[:from]), make([]byte, len(content)-from)...))
				got := outcome(disk, all, last)
				if got != "damage" && got != "all" && !(got == "cut" && name == lastName) {
					t.Fatalf("closed %v: %s zero from %d: %s", closed, name, from, got)
				}
			}
		}
	}
}

// TestLostEndIsExactPrefix is the log without preallocation's help: every frame from
// some point of the last segment on is gone. What opens is an exact prefix.
func TestLostEndIsExactPrefix(t *testing.T) {
	mem := vfs.NewMem()
	opts := testOptions(mem)
	opts.SegmentBytes = 64 << 10
	l := mustOpen(t, opts)
	now := make(model)
	states := []model{now.clone()}
	for i := range uint64(8) {
		writes := []GroupWrite{{Group: 1, Entries: entriesOf(1, i+1, 1, 1, 60)}}
		mustAppend(t, l, writes...)
		now.append(writes)
		states = append(states, now.clone())
	}
	name := path.Join(testDir, segmentName(1))
	content, _ := mem.Bytes(name)
	seen := make(map[int]bool)
	for from := segmentHeaderBytes; from <= lastNonZero(content)+1; from++ {
		disk := mem.Clone()
		rewrite(t, disk, name, append(slices.Clone(content[:from]), make([]byte, len(content)-from)...))
		opts.FS = disk
		l := mustOpen(t, opts)
		_, last := l.Bounds(1)
		if err := states[last].diff(l, false); err != nil && last > 0 {
			t.Fatalf("zero from %d: %v", from, err)
		}
		seen[int(last)] = true
		mustClose(t, l)
	}
	if len(seen) != 9 {
		t.Fatalf("prefixes seen: %v", slices.Sorted(maps.Keys(seen)))
	}
}

func TestMissingAndForeignFiles(t *testing.T) {
	mem, all, last := smallLog(t, true)
	other, _, _ := smallLog(t, true)
	for name := range logFiles(t, mem) {
		base := path.Base(name)
		disk := mem.Clone()
		if err := disk.Remove(name); err != nil {
			t.Fatal(err)
		}
		want := "damage"
		if base == identityName {
			want = "all"
		}
		if got := outcome(disk, all, last); got != want {
			t.Errorf("without %s: %s, want %s", base, got, want)
		}
		disk = mem.Clone()
		foreign, err := other.Bytes(name)
		if err != nil {
			t.Fatal(err)
		}
		rewrite(t, disk, name, foreign)
		if got := outcome(disk, all, last); got != "damage" {
			t.Errorf("with %s of another log: %s", base, got)
		}
	}
	// The newest segment's loss is noticed after a power cut as well: the seal is synced.
	for seed := range uint64(8) {
		disk := unclosed(t).PowerCut(seed)
		name, _, _ := lastSegment(t, disk)
		if err := disk.Remove(name); err != nil {
			t.Fatal(err)
		}
		if got := outcome(disk, all, last); got != "damage" {
			t.Errorf("power cut %d, without %s: %s", seed, name, got)
		}
	}
	disk := mem.Clone()
	for name := range logFiles(t, mem) {
		if !strings.HasSuffix(name, identityName) {
			_ = disk.Remove(name)
		}
	}
	if got := outcome(disk, all, last); got != "damage" {
		t.Errorf("without any segment: %s", got)
	}
}

func TestDamageNamesFileAndOffset(t *testing.T) {
	mem, _, _ := smallLog(t, true)
	name := path.Join(testDir, segmentName(2))
	if err := mem.FlipBit(name, 900, 3); err != nil {
		t.Fatal(err)
	}
	_, err := Open(testOptions(mem))
	var damage *DamageError
	if !errors.As(err, &damage) || damage.File != name || damage.Offset < segmentHeaderBytes || damage.Offset > 900 {
		t.Fatalf("error %v", err)
	}
	for _, want := range []string{name, fmt.Sprint(damage.Offset), "no intact frame header", "frames up to number", "nothing was changed", "join again"} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("error %q does not say %q", err, want)
		}
	}
}

func TestReadVerifies(t *testing.T) {
	mem := vfs.NewMem()
	opts := testOptions(mem)
	opts.CacheBytes = -1
	l := mustOpen(t, opts)
	defer l.Close()
	want := entriesOf(1, 1, 3, 1, 100)
	mustAppend(t, l, GroupWrite{Group: 1, Entries: want})
	name := path.Join(testDir, segmentName(1))
	content, _ := mem.Bytes(name)
	at := strings.Index(string(content), string(want[1].Data)) + 50
	if err := mem.FlipBit(name, int64(at), 0); err != nil {
		t.Fatal(err)
	}
	var damage *DamageError
	if _, err := l.Entries(1, 1, 4, 1<<20); !errors.As(err, &damage) || damage.File != name || damage.Offset > int64(at) || damage.Offset < int64(at)-100 {
		t.Fatalf("error %v", err)
	}
	if got, err := l.Entries(1, 3, 4, 1<<20); err != nil || string(got[0].Data) != string(want[2].Data) {
		t.Fatalf("the entry beside the damage: %v, %v", got, err)
	}
}

// TestCopyOfLogInsideEntry: data that looks like frames must not be taken for frames.
func TestCopyOfLogInsideEntry(t *testing.T) {
	mem, all, _ := smallLog(t, false)
	content, _ := mem.Bytes(path.Join(testDir, segmentName(1)))
	opts := testOptions(mem)
	l := mustOpen(t, opts)
	last := all.clone()
	writes := []GroupWrite{{Group: 3, Entries: []Entry{{Index: 1, Term: 1, Data: content}}}}
	mustAppend(t, l, writes...)
	all.append(writes)
	disk := mem.Clone()
	name, start, _ := lastSegment(t, disk)
	if err := disk.FlipBit(name, start+100, 1); err != nil {
		t.Fatal(err)
	}
	if got := outcome(disk, all, last); got != "cut" {
		t.Fatalf("torn frame that holds a copy of the log: %s", got)
	}
	mustClose(t, l)
}

func TestMarkerClosesTheWindow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		mem := vfs.NewMem()
		opts := testOptions(mem)
		opts.inlineUpkeep = false
		opts.MarkerDelay = 20 * time.Millisecond
		l := mustOpen(t, opts)
		defer l.Close()
		all, last := make(model), model(nil)
		for i := range uint64(3) {
			writes := []GroupWrite{{Group: 1, Entries: entriesOf(1, i+1, 1, 1, 60)}}
			mustAppend(t, l, writes...)
			last = all.clone()
			all.append(writes)
		}
		flipped := func() string {
			disk := mem.Clone()
			name, start, _ := lastSegment(t, disk)
			if err := disk.FlipBit(name, start+60, 1); err != nil {
				t.Fatal(err)
			}
			return outcome(disk, all, last)
		}
		if got := flipped(); got != "cut" {
			t.Errorf("flip at once: %s, want cut", got)
		}
		syncs := mem.Ops(vfs.OpSync)
		time.Sleep(60 * time.Millisecond)
		synctest.Wait()
		if got := flipped(); got != "damage" {
			t.Errorf("flip after the marker: %s, want damage", got)
		}
		if got := mem.Ops(vfs.OpSync); got != syncs {
			t.Errorf("the marker cost %d syncs", got-syncs)
		}
		writes := mem.Ops(vfs.OpWrite)
		time.Sleep(time.Second)
		synctest.Wait()
		if got := mem.Ops(vfs.OpWrite); got != writes {
			t.Errorf("an idle log wrote %d times", got-writes)
		}
		// The next frame takes the marker's place.
		mustAppend(t, l, GroupWrite{Group: 1, Entries: entriesOf(1, 4, 1, 1, 60)})
		all.append([]GroupWrite{{Group: 1, Entries: entriesOf(1, 4, 1, 1, 60)}})
		if got := outcome(mem.Clone(), all, nil); got != "all" {
			t.Errorf("after the next append: %s", got)
		}
	})
}

func TestNewerVersion(t *testing.T) {
	mem, _, _ := smallLog(t, true)
	for _, base := range []string{segmentName(1), segmentName(2), identityName} {
		disk := mem.Clone()
		name := path.Join(testDir, base)
		content, _ := disk.Bytes(name)
		binary.LittleEndian.PutUint32(content[8:], 7)
		binary.LittleEndian.PutUint32(content[60:], checksum(content[:60]))
		rewrite(t, disk, name, content)
		_, err := Open(testOptions(disk))
		if !errors.Is(err, ErrVersion) || !strings.Contains(err.Error(), "version 7") || !strings.Contains(err.Error(), "version 1") || !strings.Contains(err.Error(), name) {
			t.Errorf("%s: %v", base, err)
		}
	}
}
