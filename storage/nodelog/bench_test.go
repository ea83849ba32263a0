package nodelog

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/perdure/perdure/storage/vfs"
)

// latencies reports percentiles beside the mean, which one slow sync can spoil.
type latencies []time.Duration

func (l latencies) report(b *testing.B) {
	slices.Sort(l)
	b.ReportMetric(float64(l[len(l)/2].Microseconds()), "p50-µs")
	b.ReportMetric(float64(l[len(l)*99/100].Microseconds()), "p99-µs")
}

// BenchmarkFloor is what the disk allows: 256 bytes appended to a file and fdatasync'd, with
// the file growing and with its space preallocated.
func BenchmarkFloor(b *testing.B) {
	for _, preallocated := range []bool{false, true} {
		b.Run(fmt.Sprintf("preallocated=%v", preallocated), func(b *testing.B) {
			file, err := vfs.OS{}.Create(filepath.Join(b.TempDir(), "floor"))
			if err != nil {
				b.Fatal(err)
			}
			defer file.Close()
			const bytes, capacity = 256, 16 << 20
			if preallocated {
				if err := file.Preallocate(capacity); err != nil {
					b.Fatal(err)
				}
				if err := file.Sync(); err != nil {
					b.Fatal(err)
				}
			}
			buf := make([]byte, bytes)
			for i := range buf {
				buf[i] = byte(i) | 1
			}
			var times latencies
			offset := int64(0)
			for b.Loop() {
				start := time.Now()
				if _, err := file.WriteAt(buf, offset); err != nil {
					b.Fatal(err)
				}
				if err := file.Sync(); err != nil {
					b.Fatal(err)
				}
				times = append(times, time.Since(start))
				offset = (offset + bytes) % capacity
			}
			times.report(b)
		})
	}
}

func BenchmarkAppend(b *testing.B) {
	for _, batch := range []int{1, 64, 256} {
		for _, fs := range []string{"disk", "mem"} {
			b.Run(fmt.Sprintf("entries=%d/%s", batch, fs), func(b *testing.B) { benchmarkAppend(b, batch, fs == "disk") })
		}
	}
}

// benchmarkAppend appends batches of 256-byte entries over 16 groups, each with a state, as a
// node does; without a disk it shows the log's own cost.
func benchmarkAppend(b *testing.B, batch int, disk bool) {
	opts := Options{Dir: filepath.Join(b.TempDir(), "log"), Logger: quiet, MinFreeBytes: -1}
	if !disk {
		opts.FS = discardFS{vfs.OS{}}
	}
	l := mustOpen(b, opts)
	defer l.Close()
	const groups = 16
	data := make([]byte, 256)
	writes := make([]GroupWrite, min(batch, groups))
	next := make([]uint64, len(writes))
	for i := range writes {
		writes[i] = GroupWrite{Group: uint32(i), State: make([]byte, 12), Entries: make([]Entry, batch/len(writes))}
	}
	var times latencies
	b.ReportAllocs()
	for b.Loop() {
		for i := range writes {
			for j := range writes[i].Entries {
				next[i]++
				writes[i].Entries[j] = Entry{Index: next[i], Term: 3, Data: data}
			}
		}
		start := time.Now()
		if err := l.Append(writes); err != nil {
			b.Fatal(err)
		}
		times = append(times, time.Since(start))
		if next[0]%512 == 0 {
			for i := range writes {
				l.TruncatePrefix(uint32(i), next[i]-256, 3)
			}
		}
	}
	times.report(b)
	stats := l.Stats()
	b.ReportMetric(float64(stats.WrittenBytes)/float64(stats.Appends)/float64(batch), "B-written/entry")
	b.ReportMetric(float64(batch)*float64(b.N)/b.Elapsed().Seconds(), "entries/s")
}

// discardFS takes the disk out of a benchmark: syncs do nothing.
type discardFS struct{ vfs.FS }

type discardFile struct{ vfs.File }

func (fs discardFS) Create(name string) (vfs.File, error) {
	file, err := fs.FS.Create(name)
	return discardFile{file}, err
}

func (discardFS) SyncDir(string) error { return nil }

func (discardFile) Sync() error { return nil }

func BenchmarkOpen(b *testing.B) {
	opts := Options{Dir: filepath.Join(b.TempDir(), "log"), Logger: quiet, MinFreeBytes: -1}
	l := mustOpen(b, opts)
	index := uint64(0)
	for range 600 {
		w := GroupWrite{Group: 1}
		for range 256 {
			index++
			w.Entries = append(w.Entries, Entry{Index: index, Term: 1, Data: make([]byte, 256)})
		}
		mustAppend(b, l, w)
	}
	mustClose(b, l)
	names, _ := os.ReadDir(opts.Dir)
	for b.Loop() {
		l := mustOpen(b, opts)
		mustClose(b, l)
	}
	b.ReportMetric(float64(len(names)-2), "segments")
}

func BenchmarkEntries(b *testing.B) {
	for _, cache := range []int64{-1, 0} {
		b.Run(fmt.Sprintf("cached=%v", cache == 0), func(b *testing.B) {
			opts := Options{Dir: filepath.Join(b.TempDir(), "log"), Logger: quiet, MinFreeBytes: -1, CacheBytes: cache}
			l := mustOpen(b, opts)
			defer l.Close()
			for i := range uint64(64) {
				mustAppend(b, l, GroupWrite{Group: 1, Entries: entriesOf(1, i+1, 1, 1, 256)}, GroupWrite{Group: 2, Entries: entriesOf(2, i+1, 1, 1, 256)})
			}
			b.ReportAllocs()
			for b.Loop() {
				if got, err := l.Entries(1, 1, 65, 1<<20); err != nil || len(got) != 64 {
					b.Fatal(len(got), err)
				}
			}
		})
	}
}
