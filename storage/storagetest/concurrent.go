package storagetest

import (
	"fmt"
	"strconv"
	"sync"
	"testing"

	"github.com/perdure/perdure/storage"
)

// testConcurrent commits batches that set all keys to the same number while readers check that
// no snapshot mixes two batches, changes, or goes back in time.
func testConcurrent(t *testing.T, store storage.Store) {
	const keys, rounds, readers = 20, 100, 3
	commit := func(round int) error {
		batch := new(storage.Batch)
		for i := range keys {
			batch.Put(fmt.Appendf(nil, "key%02d", i), strconv.AppendInt(nil, int64(round), 10))
		}
		return store.Commit(batch)
	}
	if err := commit(0); err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	var group sync.WaitGroup
	for range readers {
		group.Go(func() {
			last := 0
			for {
				select {
				case <-done:
					return
				default:
				}
				round, err := readRound(store, keys)
				if err != nil {
					t.Error(err)
					return
				}
				if round < last {
					t.Errorf("snapshot of round %d after one of round %d", round, last)
				}
				last = round
			}
		})
	}
	for round := range rounds {
		if err := commit(round + 1); err != nil {
			t.Error(err)
			break
		}
		if got, err := readRound(store, keys); err != nil || got != round+1 {
			t.Errorf("snapshot after commit %d: %d, %v", round+1, got, err)
			break
		}
	}
	close(done)
	group.Wait()
}

// readRound returns the number that all keys of a new snapshot have, twice.
func readRound(store storage.Store, keys int) (int, error) {
	snapshot := store.Snapshot()
	defer snapshot.Release()
	round, seen := "", 0
	for range 2 {
		if err := snapshot.Scan([]byte("key"), []byte("kez"), func(key, value []byte) bool {
			if round == "" {
				round = string(value)
			}
			if string(value) != round {
				return false
			}
			seen++
			return true
		}); err != nil {
			return 0, err
		}
	}
	value, _, err := snapshot.Get([]byte("key00"))
	if err != nil {
		return 0, err
	}
	if seen != 2*keys || string(value) != round {
		return 0, fmt.Errorf("snapshot of round %s: %d of %d pairs agree, get returns %q", round, seen, 2*keys, value)
	}
	return strconv.Atoi(round)
}
