package nodelog

import (
	"errors"
	"path"
	"strings"
	"testing"

	"github.com/perdure/perdure/storage/vfs"
)

func copyFile(t *testing.T, to, from *vfs.Mem, number uint32) {
	t.Helper()
	name := path.Join(testDir, segmentName(number))
	content, err := from.Bytes(name)
	if err != nil {
		t.Fatal(err)
	}
	rewrite(t, to, name, content)
}

func wantDamage(t *testing.T, disk *vfs.Mem, want string) {
	t.Helper()
	_, err := Open(testOptions(disk))
	if !errors.Is(err, ErrDamaged) || !strings.Contains(err.Error(), want) {
		t.Errorf("open: %v, want damage: %s", err, want)
	}
}

// rotated appends one frame and starts the next segment without a frame in it. before is the
// disk before that, sealed after it, and unsealed had the seal not been written.
func rotated(t *testing.T) (l *Log, before, unsealed, sealed *vfs.Mem) {
	t.Helper()
	mem := vfs.NewMem()
	l = mustOpen(t, testOptions(mem))
	mustAppend(t, l, GroupWrite{Group: 1, Entries: entriesOf(1, 1, 1, 1, 100)})
	before = mem.Clone()
	l.writeMu.Lock()
	defer l.writeMu.Unlock()
	if err := l.rotate(100); err != nil {
		t.Fatal(err)
	}
	sealed = mem.Clone()
	unsealed = mem.Clone()
	copyFile(t, unsealed, before, 1)
	return l, before, unsealed, sealed
}

// TestNextSegmentProvesLastFrame: the header of a segment, even of one whose creation did not
// finish, says that the frames before it were synced.
func TestNextSegmentProvesLastFrame(t *testing.T) {
	_, before, unsealed, sealed := rotated(t)
	for name, disk := range map[string]*vfs.Mem{"unsealed": unsealed, "sealed": sealed} {
		l := mustOpen(t, testOptions(disk.Clone()))
		wantEntries(t, l, 1, entriesOf(1, 1, 1, 1, 100))
		mustClose(t, l)
		if err := disk.FlipBit(path.Join(testDir, segmentName(1)), segmentHeaderBytes+60, 2); err != nil {
			t.Fatal(err)
		}
		t.Log(name)
		wantDamage(t, disk, segmentName(1))
	}
	// Without that segment it is the window that the package comment names.
	if err := before.FlipBit(path.Join(testDir, segmentName(1)), segmentHeaderBytes+60, 2); err != nil {
		t.Fatal(err)
	}
	mustClose(t, mustOpen(t, testOptions(before)))
}

// TestSegmentsOfDifferentTimes is a directory put together from two backups.
func TestSegmentsOfDifferentTimes(t *testing.T) {
	rotatedLog, before, unsealed, _ := rotated(t)
	mustAppend(t, rotatedLog, GroupWrite{Group: 1, Entries: entriesOf(1, 2, 1, 1, 100)})
	withFrame := rotatedLog.opts.FS.(*vfs.Mem).Clone()

	other := mustOpen(t, testOptions(before))
	mustAppend(t, other, GroupWrite{Group: 1, Entries: entriesOf(1, 2, 1, 9, 100)})
	copyFile(t, unsealed, before, 1)
	wantDamage(t, unsealed, "says that this one goes on to frame 1")
	copyFile(t, withFrame, before, 1)
	wantDamage(t, withFrame, "behind the end that the next segment states")
}

func TestTornFrameIsWiped(t *testing.T) {
	mem := vfs.NewMem()
	l := mustOpen(t, testOptions(mem))
	mustAppend(t, l, GroupWrite{Group: 1, Entries: entriesOf(1, 1, 1, 1, 100)})
	mustAppend(t, l, GroupWrite{Group: 1, Entries: entriesOf(1, 2, 1, 1, 1500)})
	disk := mem.Clone()
	name, start, end := lastSegment(t, disk)
	if err := disk.FlipBit(name, end-1, 0); err != nil {
		t.Fatal(err)
	}
	mustClose(t, mustOpen(t, testOptions(disk)))
	content, _ := disk.Bytes(name)
	if !allZero(content[start+frameHeaderBytes:]) {
		t.Error("bytes of the torn frame are left behind the marker")
	}
}
