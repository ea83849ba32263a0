package badgerstore

import (
	"encoding/binary"
	"math/rand/v2"
	"runtime"
	"runtime/metrics"
	"testing"
	"time"

	"github.com/perdure/perdure/storage"
)

// TestMemoryWhileWriting: what the store keeps in memory under sustained writing follows from its
// budget, also if values are larger than a block of a table used to be.
func TestMemoryWhileWriting(t *testing.T) {
	if testing.Short() {
		t.Skip("writes 120 MB")
	}
	const budget, most = minMemoryBudgetBytes, minMemoryBudgetBytes * 33 / 10 // 2.4 times as a rule, and 4 to 5 with blocks of 4 KiB
	live := []metrics.Sample{{Name: "/gc/heap/live:bytes"}}
	runtime.GC() // What other tests left is not live.
	metrics.Read(live)
	before, peak := live[0].Value.Uint64(), uint64(0)
	s, err := Open(Options{Dir: t.TempDir(), MemoryBudgetBytes: budget})
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	}()
	done, stopped := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(stopped)
		for {
			select {
			case <-done:
				return
			case <-time.After(10 * time.Millisecond):
				metrics.Read(live)
				peak = max(peak, live[0].Value.Uint64())
			}
		}
	}()
	random := rand.NewChaCha8([32]byte{1})
	for number, written := uint64(0), 0; written < 120<<20; {
		var batch storage.Batch
		for range 12 {
			value := make([]byte, 60_000)
			_, _ = random.Read(value) // It does not fail.
			batch.Put(binary.BigEndian.AppendUint64(nil, number), value)
			number++
		}
		written += batch.Bytes()
		if err := s.Commit(&batch); err != nil {
			t.Fatal(err)
		}
	}
	close(done)
	<-stopped
	took := int64(peak) - int64(before)
	t.Logf("%d MB live at most, with a budget of %d MB", took>>20, budget>>20)
	if took > most {
		t.Errorf("%d MB were live, more than %d", took>>20, most>>20)
	}
}
