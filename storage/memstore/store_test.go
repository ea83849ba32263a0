package memstore_test

import (
	"errors"
	"fmt"
	"maps"
	"testing"

	"github.com/perdure/perdure/storage"
	"github.com/perdure/perdure/storage/memstore"
	"github.com/perdure/perdure/storage/storagetest"
)

func TestSuite(t *testing.T) {
	storagetest.Run(t, func(*testing.T) storage.Store { return memstore.New(memstore.Options{}) })
}

func TestReopen(t *testing.T) {
	storagetest.RunReopen(t, func(*testing.T) (storage.Store, func() storage.Store) {
		store := memstore.New(memstore.Options{})
		return store, func() storage.Store {
			store = store.Reopen()
			return store
		}
	})
}

func TestFaults(t *testing.T) {
	for _, outcome := range []memstore.Outcome{memstore.NotApplied, memstore.Applied, memstore.Unknown} {
		t.Run(fmt.Sprint(outcome), func(t *testing.T) {
			storagetest.RunFaults(t, func(*testing.T) storagetest.Faulty {
				store := memstore.New(memstore.Options{})
				return storagetest.Faulty{
					Store:    store,
					FailNext: func() { store.FailCommit(1, outcome) },
					NoSpace:  store.NoSpace,
					Reopen:   func() storage.Store { return store.Reopen() },
				}
			})
		})
	}
}

var (
	old    = map[string]string{"a": "1"}
	fresh  = map[string]string{"a": "2", "b": "2"}
	update = []storagetest.Write{storagetest.Put("a", "2"), storagetest.Put("b", "2")}
)

func TestFailCommitOutcome(t *testing.T) {
	for _, test := range []struct {
		outcome memstore.Outcome
		want    []map[string]string // of some clone
		reopen  map[string]string
	}{
		{memstore.NotApplied, []map[string]string{old}, old},
		{memstore.Applied, []map[string]string{fresh}, fresh},
		{memstore.Unknown, []map[string]string{old, fresh}, fresh},
	} {
		store := memstore.New(memstore.Options{})
		store.FailCommit(3, test.outcome)
		storagetest.Commit(t, store, storagetest.Put("a", "0"))
		storagetest.Commit(t, store, storagetest.Put("a", "1"))
		if err := store.Commit(storagetest.Batch(update...)); !errors.Is(err, memstore.ErrInjected) {
			t.Fatalf("third commit: %v", err)
		}
		storagetest.CheckContents(t, store, old)
		checkClones(t, store, test.want...)
		storagetest.CheckContents(t, store.Reopen(), test.reopen)
	}
}

// checkClones checks that the clones of 64 seeds have each of the wanted contents and no other.
func checkClones(t *testing.T, store *memstore.Store, want ...map[string]string) {
	t.Helper()
	counts := make([]int, len(want))
	for seed := range uint64(64) {
		clone := store.Clone(seed)
		contents := storagetest.Contents(t, clone)
		if !maps.Equal(contents, storagetest.Contents(t, store.Clone(seed))) {
			t.Fatalf("seed %d: two clones differ", seed)
		}
		known := false
		for i := range want {
			if maps.Equal(contents, want[i]) {
				counts[i]++
				known = true
			}
		}
		if !known {
			t.Fatalf("seed %d: clone holds %v, want one of %v", seed, contents, want)
		}
		storagetest.Commit(t, clone, storagetest.Put("a", "3")) // not fenced
	}
	for i, count := range counts {
		if count == 0 {
			t.Errorf("no clone holds %v", want[i])
		}
	}
}

// TestCloneInFlight also shows that a snapshot does not wait for the commit in flight.
func TestCloneInFlight(t *testing.T) {
	var store *memstore.Store
	calls := 0
	store = memstore.New(memstore.Options{OnCommit: func() {
		if calls++; calls == 1 {
			return
		}
		storagetest.CheckContents(t, store, old)
		checkClones(t, store, old, fresh)
	}})
	storagetest.Commit(t, store, storagetest.Put("a", "1"))
	checkClones(t, store, old)
	storagetest.Commit(t, store, update...)
	if calls != 2 {
		t.Errorf("hook called %d times", calls)
	}
	checkClones(t, store, fresh)
}

func TestFlipBit(t *testing.T) {
	store := memstore.New(memstore.Options{})
	storagetest.Commit(t, store, storagetest.Put("a", "1"), storagetest.Put("b", "value"), storagetest.Put("c", ""))
	for _, test := range []struct {
		key string
		bit int
	}{{"b", 0}, {"b", 39}, {"c", 31}} {
		if err := store.FlipBit([]byte(test.key), test.bit); err != nil {
			t.Fatal(err)
		}
		snapshot := store.Clone(1).Snapshot()
		if value, ok, err := snapshot.Get([]byte(test.key)); ok || value != nil || !errors.Is(err, storage.ErrDamaged) {
			t.Errorf("get %s with bit %d flipped: %q, %t, %v", test.key, test.bit, value, ok, err)
		}
		var seen []string
		err := snapshot.Scan(nil, nil, func(key, _ []byte) bool {
			seen = append(seen, string(key))
			return true
		})
		if !errors.Is(err, storage.ErrDamaged) || len(seen) == 3 || seen[0] != "a" {
			t.Errorf("scan with bit %d of %s flipped: %q, %v", test.bit, test.key, seen, err)
		}
		snapshot.Release()
		storagetest.Commit(t, store, storagetest.Put("b", "again"), storagetest.Put("c", ""))
		storagetest.CheckContents(t, store, map[string]string{"a": "1", "b": "again", "c": ""})
	}
	for _, bit := range []int{-1, 40} {
		if err := store.FlipBit([]byte("b"), bit); err == nil {
			t.Errorf("flipping bit %d: no error", bit)
		}
	}
	if err := store.FlipBit([]byte("none"), 0); err == nil {
		t.Error("flipping a bit of a missing key: no error")
	}
}
