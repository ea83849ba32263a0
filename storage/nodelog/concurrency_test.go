package nodelog

import (
	"bytes"
	"errors"
	"path/filepath"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/perdure/perdure/storage/vfs"
)

// waitFor yields until a condition holds.
func waitFor(t testing.TB, holds func() bool) {
	t.Helper()
	for deadline := time.Now().Add(30 * time.Second); !holds(); runtime.Gosched() {
		if time.Now().After(deadline) {
			t.Fatal("condition does not hold after 30 s")
		}
	}
}

func TestReadersBesideAppends(t *testing.T) {
	for name, fs := range map[string]vfs.FS{"mem": vfs.NewMem(), "os": vfs.OS{}} {
		t.Run(name, func(t *testing.T) {
			opts := testOptions(fs)
			opts.Dir = filepath.Join(t.TempDir(), "log")
			opts.inlineUpkeep = false
			opts.MarkerDelay = time.Millisecond
			opts.CacheBytes = 20_000
			opts.SegmentBytes = 16 << 10
			l := mustOpen(t, opts)
			const groups, rounds = 4, 200
			var done atomic.Bool
			var reads atomic.Int64
			var readers sync.WaitGroup
			for id := uint32(1); id <= groups; id++ {
				readers.Go(func() {
					for !done.Load() {
						first, last := l.Bounds(id)
						if first > last {
							runtime.Gosched()
							continue
						}
						entries, err := l.Entries(id, first, last+1, 1<<20)
						if errors.Is(err, ErrCompacted) {
							continue
						}
						if err != nil {
							t.Errorf("group %d: %v", id, err)
							return
						}
						for i, e := range entries {
							want := entriesOf(id, first+uint64(i), 1, 1, 200)[0]
							if e.Index != want.Index || !bytes.Equal(e.Data, want.Data) {
								t.Errorf("group %d: entry %d is %q", id, want.Index, e.Data)
								return
							}
						}
						reads.Add(1)
						runtime.Gosched()
						_ = l.State(id)
						_ = l.Stats()
						if last > 50 {
							l.TruncatePrefix(id, last-50, 1)
						}
					}
				})
			}
			for i := uint64(1); i <= rounds; i++ {
				var writes []GroupWrite
				for id := uint32(1); id <= groups; id++ {
					writes = append(writes, GroupWrite{Group: id, Entries: entriesOf(id, i, 1, 1, 200), State: []byte{byte(i), 1}})
				}
				mustAppend(t, l, writes...)
			}
			waitFor(t, func() bool { return reads.Load() > 20 || t.Failed() })
			done.Store(true)
			readers.Wait()
			for id := uint32(1); id <= groups; id++ {
				l.TruncatePrefix(id, rounds-5, 1)
			}
			mustAppend(t, l, GroupWrite{Group: 1, State: []byte("end")})
			waitFor(t, func() bool { return l.Stats().Segments <= 3 })
			mustClose(t, l)
			l = mustOpen(t, opts)
			if first, last := l.Bounds(1); first != rounds-4 || last != rounds {
				t.Fatalf("bounds %d, %d", first, last)
			}
			mustClose(t, l)
		})
	}
}

func TestReadOfDeletedSegmentFinishes(t *testing.T) {
	opts := testOptions(vfs.NewMem())
	opts.CacheBytes = -1
	l := mustOpen(t, opts)
	defer l.Close()
	want := entriesOf(1, 1, 2, 1, 1000)
	mustAppend(t, l, GroupWrite{Group: 1, Entries: want})
	plan, err := l.planRead(1, 1, 3, 1<<20)
	if err != nil {
		t.Fatal(err)
	}
	for i := uint64(3); i < 30; i++ {
		l.TruncatePrefix(1, i-1, 1)
		mustAppend(t, l, GroupWrite{Group: 1, Entries: entriesOf(1, i, 1, 1, 1000)})
	}
	if l.mu.segments[0].number == 1 {
		t.Fatal("the first segment was not deleted")
	}
	if err := plan.read(1, 0, 2); err != nil || !bytes.Equal(plan.entries[1].Data, want[1].Data) {
		t.Fatalf("read: %v", err)
	}
	for _, s := range plan.segments {
		if err := s.release(); err != nil || s.refs.Load() != 0 {
			t.Fatalf("release: %v, %d references left", err, s.refs.Load())
		}
	}
}
