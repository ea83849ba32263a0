package history

import (
	"fmt"
	"testing"
)

// long makes a strictly serializable history of n transactions of four operations, with many
// running at a time and keys that get too long replaced by new ones, as a workload should.
func long(n, callers, keys, most int) ([]Txn, map[string][]int64) {
	choose := seeded(uint64(n))
	lists := map[string][]int64{}
	names := make([]string, keys)
	made := 0
	for i := range names {
		names[i] = fmt.Sprint("key", made)
		made++
	}
	txns := make([]Txn, n)
	for i := range txns {
		txn := &txns[i]
		txn.ID, txn.Process = i, i%callers
		for o := range 4 {
			k := choose(keys)
			if len(lists[names[k]]) >= most {
				names[k] = fmt.Sprint("key", made)
				made++
			}
			key := names[k]
			if o%2 == 0 {
				list := lists[key]
				txn.Ops = append(txn.Ops, Read(key, list[:len(list):len(list)]))
			} else {
				lists[key] = append(lists[key], int64(4*i+o))
				txn.Ops = append(txn.Ops, Append(key, int64(4*i+o)))
			}
		}
		txn.Began = int64(1000*i - choose(1000*callers))
		txn.Ended = int64(1000*i + choose(1000*callers))
	}
	return txns, lists
}

// stale makes one read of every n-th transaction one from before, by up to back values.
func stale(txns []Txn, n, back int) {
	for i := 0; i < len(txns); i += n {
		if list := txns[i].Ops[0].Read; len(list) > back {
			txns[i].Ops[0].Read = list[: len(list)-back : len(list)-back]
		}
	}
}

func BenchmarkCheck(b *testing.B) {
	const n = 100_000
	for _, bench := range []struct {
		name                string
		callers, keys, most int
		spoil               func([]Txn)
		clean               bool
	}{
		{"serializable/8callers", 8, 50, 200, func([]Txn) {}, true},
		{"serializable/256callers", 256, 50, 200, func([]Txn) {}, true},
		{"serializable/longlists", 64, 10, 2000, func([]Txn) {}, true},
		{"onestale", 64, 50, 200, func(txns []Txn) { stale(txns[n/2:], n, 3) }, false},
		{"onestale/far", 64, 40, 100_000, func(txns []Txn) { stale(txns[n-1000:], n, 2000) }, false},
		{"manystale", 64, 50, 200, func(txns []Txn) { stale(txns, 20, 3) }, false},
		{"allstale", 64, 50, 200, func(txns []Txn) { stale(txns, 1, 5) }, false},
	} {
		b.Run(bench.name, func(b *testing.B) {
			txns, final := long(n, bench.callers, bench.keys, bench.most)
			bench.spoil(txns)
			b.ReportAllocs()
			for b.Loop() {
				if got := Check(txns, Options{Realtime: true, Final: final}); (len(got) == 0) != bench.clean {
					b.Fatal(Format(got))
				}
			}
			b.ReportMetric(float64(b.Elapsed().Seconds())/float64(b.N), "s/check")
		})
	}
}
