package replica

import (
	"encoding/binary"
	"testing"

	"github.com/perdure/perdure/cluster/replica/rows"
	"github.com/perdure/perdure/storage"
	"github.com/perdure/perdure/storage/badgerstore"
)

// BenchmarkClean is what it costs to delete a generation of 200,000 rows.
func BenchmarkClean(b *testing.B) {
	for b.Loop() {
		b.StopTimer()
		store, err := badgerstore.Open(badgerstore.Options{Dir: b.TempDir()})
		if err != nil {
			b.Fatal(err)
		}
		cfg := config(newMemLog(), store, 1)
		cfg.Peers, cfg.Found = nobody{}, false
		prefix := rows.Prefix(1, 9)
		var batch storage.Batch
		for i := range uint32(200_000) {
			batch.Put(binary.BigEndian.AppendUint32(prefix[:len(prefix):len(prefix)], i), make([]byte, 100))
			if batch.Len() == 5000 {
				if err := store.Commit(&batch); err != nil {
					b.Fatal(err)
				}
				batch.Reset()
			}
		}
		host, err := Open(cfg)
		if err != nil {
			b.Fatal(err)
		}
		b.StartTimer()
		next := rubbish{1, 9}
		for more := true; more; {
			if more, err = host.cleaner.clean(next); err != nil {
				b.Fatal(err)
			}
		}
		b.StopTimer()
		if err := store.Close(); err != nil {
			b.Fatal(err)
		}
		b.StartTimer()
	}
}
