package badgerstore

import (
	"errors"
	"math"
	"sync/atomic"
	"testing"

	"github.com/perdure/perdure/storage"
	"github.com/perdure/perdure/storage/storagetest"
)

// testOptions leave the free space of the machine that tests run on out of the picture.
func testOptions(dir string) Options { return Options{Dir: dir, MinFreeBytes: 1} }

func openTest(t testing.TB, options Options) *Store {
	t.Helper()
	store, err := Open(options)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := store.Close(); err != nil && !errors.Is(err, storage.ErrClosed) {
			t.Error(err)
		}
	})
	return store
}

func closeTest(t testing.TB, store *Store) {
	t.Helper()
	if err := store.Close(); err != nil && !errors.Is(err, storage.ErrClosed) {
		t.Fatal(err)
	}
}

func TestSuite(t *testing.T) {
	storagetest.Run(t, func(t *testing.T) storage.Store { return openTest(t, testOptions(t.TempDir())) })
}

// TestSuiteSmallMemory makes memtables rotate and tables compact during the suite.
func TestSuiteSmallMemory(t *testing.T) {
	storagetest.Run(t, func(t *testing.T) storage.Store {
		options := testOptions(t.TempDir())
		options.MemoryBudgetBytes = minMemoryBudgetBytes
		return openTest(t, options)
	})
}

func TestReopen(t *testing.T) {
	storagetest.RunReopen(t, func(t *testing.T) (storage.Store, func() storage.Store) {
		options := testOptions(t.TempDir())
		store := openTest(t, options)
		return store, func() storage.Store {
			closeTest(t, store)
			store = openTest(t, options)
			return store
		}
	})
}

func TestFaults(t *testing.T) {
	storagetest.RunFaults(t, func(t *testing.T) storagetest.Faulty {
		options := testOptions(t.TempDir()).withDefaults()
		var free atomic.Int64
		free.Store(math.MaxInt64)
		store, err := open(options, func(string) (int64, error) { return free.Load(), nil })
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { closeTest(t, store) })
		return storagetest.Faulty{
			Store: store,
			FailNext: func() {
				store.beforeCommit = func() error { return errors.New("input/output error") }
			},
			NoSpace: func(full bool) {
				store.committing.space.checkedAt = store.committing.space.checkedAt.Add(-spaceCheckEvery)
				if free.Store(math.MaxInt64); full {
					free.Store(0)
				}
			},
			Reopen: func() storage.Store {
				closeTest(t, store)
				return openTest(t, testOptions(options.Dir))
			},
		}
	})
}

// TestSnapshotDuringCommit holds a commit in flight, by its hook, and reads meanwhile.
func TestSnapshotDuringCommit(t *testing.T) {
	store := openTest(t, testOptions(t.TempDir()))
	storagetest.Commit(t, store, storagetest.Put("a", "1"))
	inFlight, proceed := make(chan struct{}), make(chan struct{})
	store.beforeCommit = func() error {
		close(inFlight)
		<-proceed
		return nil
	}
	done := make(chan error)
	go func() { done <- store.Commit(storagetest.Batch(storagetest.Put("a", "2"))) }()
	<-inFlight
	storagetest.CheckContents(t, store, map[string]string{"a": "1"})
	close(proceed)
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	storagetest.CheckContents(t, store, map[string]string{"a": "2"})
}
