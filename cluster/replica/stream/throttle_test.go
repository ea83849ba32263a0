package stream

import (
	"errors"
	"fmt"
	"io"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/perdure/perdure/storage"
	"github.com/perdure/perdure/storage/memstore"
)

// TestThrottle: snapshots take as long as their bytes do at the rate of their host, and not longer; those that
// are sent at once share it.
func TestThrottle(t *testing.T) {
	const perSecond = 10_000
	for count := 1; count <= 3; count++ {
		t.Run(fmt.Sprint(count, " at once"), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				store := memstore.New(memstore.Options{})
				defer store.Close()
				var batch storage.Batch
				for i := range 1000 {
					batch.Put(fmt.Appendf(nil, "%04d", i), make([]byte, 100))
				}
				if err := store.Commit(&batch); err != nil {
					t.Fatal(err)
				}
				var lanes Lanes
				var all sync.WaitGroup
				var mu sync.Mutex
				sent, began := 0, time.Now()
				due := func() time.Duration { return time.Duration(sent) * time.Second / perSecond }
				for range count {
					source := lanes.Open(store.Snapshot(), Limits{ChunkBytes: 1000, BytesPerSecond: perSecond}, nil)
					all.Go(func() {
						defer source.Close()
						own := 0
						for {
							chunk, err := source.Next()
							if errors.Is(err, io.EOF) {
								break
							} else if err != nil {
								t.Error(err)
								return
							}
							own += len(chunk)
							mu.Lock()
							// A chunk goes when what was sent before it has had its time. All of those at once begin
							// with one, in some order.
							if took := time.Since(began); took < due()-time.Millisecond || took > due()+time.Millisecond {
								t.Errorf("a chunk behind %d bytes went after %s, want %s", sent, took, due())
							}
							sent += len(chunk)
							mu.Unlock()
						}
						if own < 100_000 {
							t.Errorf("a snapshot of 1,000 rows has %d bytes", own)
						}
					})
				}
				all.Wait()
				// What is behind the last rows is a chunk without any, which takes next to nothing.
				if took := time.Since(began); took < due()*99/100 || took > due()*101/100 || sent < count*100_000 {
					t.Errorf("%d bytes took %s, want %s", sent, took, due())
				}
				t.Logf("%d bytes took %s", sent, time.Since(began))
			})
		})
	}
}
