package badgerstore

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"os"
	"runtime"
	"runtime/debug"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/perdure/perdure/storage"
)

// procNumber reads "name: number" from a file of /proc/self; 0 where there is none.
func procNumber(file, name string) float64 {
	data, err := os.ReadFile("/proc/self/" + file)
	if err != nil {
		return 0
	}
	for line := range strings.Lines(string(data)) {
		if value, ok := strings.CutPrefix(line, name+":"); ok {
			number, _ := strconv.ParseFloat(strings.Fields(value)[0], 64)
			return number
		}
	}
	return 0
}

func BenchmarkCommit(b *testing.B) {
	for _, ops := range []int{1, 64, 1000} {
		b.Run(fmt.Sprintf("ops=%d", ops), func(b *testing.B) {
			store := openTest(b, testOptions(b.TempDir()))
			value := bytes.Repeat([]byte{'v'}, 200)
			random := rand.New(rand.NewPCG(1, 1))
			batch := new(storage.Batch)
			before := procNumber("io", "write_bytes")
			b.SetBytes(int64(ops * 210))
			b.ReportAllocs()
			for b.Loop() {
				batch.Reset()
				for range ops {
					batch.Put(fmt.Appendf(nil, "%010d", random.IntN(200_000)), value)
				}
				if err := store.Commit(batch); err != nil {
					b.Fatal(err)
				}
			}
			b.ReportMetric((procNumber("io", "write_bytes")-before)/float64(b.N), "written-B/op")
		})
	}
}

func benchStore(b *testing.B, keys int) *Store {
	store := openTest(b, testOptions(b.TempDir()))
	value := bytes.Repeat([]byte{'v'}, 200)
	for at := 0; at < keys; {
		batch := new(storage.Batch)
		for ; at < keys && batch.Len() < 1000; at++ {
			batch.Put(fmt.Appendf(nil, "%010d", at), value)
		}
		if err := store.Commit(batch); err != nil {
			b.Fatal(err)
		}
	}
	return store
}

func BenchmarkGet(b *testing.B) {
	const keys = 200_000
	for _, where := range []string{"memtable", "table"} {
		b.Run(where, func(b *testing.B) {
			size := keys
			if where == "memtable" {
				size = keys / 4
			}
			store := benchStore(b, size)
			if where == "table" {
				closeTest(b, store)
				store = openTest(b, testOptions(store.dir))
			}
			snapshot := store.Snapshot()
			defer snapshot.Release()
			random := rand.New(rand.NewPCG(1, 1))
			key := make([]byte, 0, 16)
			b.ReportAllocs()
			for b.Loop() {
				key = fmt.Appendf(key[:0], "%010d", random.IntN(size))
				if _, ok, err := snapshot.Get(key); !ok || err != nil {
					b.Fatal(ok, err)
				}
			}
		})
	}
}

func BenchmarkScan1000(b *testing.B) {
	snapshot := benchStore(b, 200_000).Snapshot()
	defer snapshot.Release()
	b.ReportAllocs()
	for b.Loop() {
		count := 0
		if err := snapshot.Scan([]byte("0000100000"), []byte("0000101000"), func(_, _ []byte) bool {
			count++
			return true
		}); err != nil || count != 1000 {
			b.Fatal(count, err)
		}
	}
}

func BenchmarkSnapshot(b *testing.B) {
	store := benchStore(b, 1)
	for b.Loop() {
		store.Snapshot().Release()
	}
}

// BenchmarkOpen opens an empty directory and reports what the open store costs.
func BenchmarkOpen(b *testing.B) {
	var heap, resident, elapsed float64
	for b.Loop() {
		dir := b.TempDir()
		debug.FreeOSMemory()
		before := procNumber("status", "RssAnon")
		var beforeStats, stats runtime.MemStats
		runtime.ReadMemStats(&beforeStats)
		started := time.Now()
		store, err := Open(testOptions(dir))
		if err != nil {
			b.Fatal(err)
		}
		elapsed += float64(time.Since(started).Microseconds())
		debug.FreeOSMemory()
		runtime.ReadMemStats(&stats)
		heap += float64(stats.HeapAlloc - beforeStats.HeapAlloc)
		resident += (procNumber("status", "RssAnon") - before) * 1024
		closeTest(b, store)
	}
	b.ReportMetric(elapsed/float64(b.N), "µs-to-open")
	b.ReportMetric(heap/float64(b.N), "heap-B")
	b.ReportMetric(resident/float64(b.N), "anon-rss-B")
	b.ReportMetric(procNumber("status", "VmRSS")*1024, "process-rss-B")
}
