package storagetest

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/perdure/perdure/storage"
)

// RunReopen tests that data outlives Close. open returns an empty store and a function that
// closes the store of the last call, if the test has not, and opens the same data again.
func RunReopen(t *testing.T, open func(t *testing.T) (store storage.Store, reopen func() storage.Store)) {
	t.Run("empty", func(t *testing.T) {
		_, reopen := open(t)
		CheckContents(t, reopen(), nil)
	})
	t.Run("contents", func(t *testing.T) {
		store, reopen := open(t)
		Commit(t, store, Put("", "0"), Put("a", "1"), Put("b", ""), Put("c", "3"))
		Commit(t, store, Delete("a"), Put("c", strings.Repeat("x", storage.MaxValueBytes)))
		want := Contents(t, store)
		store = reopen()
		CheckContents(t, store, want)
		Commit(t, store, Put("d", "4"), Delete("c"))
		CheckContents(t, reopen(), map[string]string{"": "0", "b": "", "d": "4"})
	})
	t.Run("only deletes", func(t *testing.T) {
		store, reopen := open(t)
		Commit(t, store, Put("a", "1"))
		Commit(t, store, Delete("a"))
		CheckContents(t, reopen(), nil)
	})
	t.Run("many times", func(t *testing.T) {
		store, reopen := open(t)
		random := rand.New(rand.NewPCG(1, 2))
		want := make(map[string]string)
		for round := range 6 {
			for range 30 {
				batch := new(storage.Batch)
				for range random.IntN(20) {
					key := fmt.Sprint(random.IntN(200))
					if random.IntN(3) == 0 {
						batch.Delete([]byte(key))
						delete(want, key)
					} else {
						want[key] = strings.Repeat(fmt.Sprint(round), random.IntN(4000))
						batch.Put([]byte(key), []byte(want[key]))
					}
				}
				if err := store.Commit(batch); err != nil {
					t.Fatal(err)
				}
			}
			store = reopen()
			CheckContents(t, store, want)
		}
	})
	t.Run("closed before", func(t *testing.T) {
		store, reopen := open(t)
		Commit(t, store, Put("a", "1"))
		if err := store.Close(); err != nil {
			t.Fatal(err)
		}
		CheckContents(t, reopen(), map[string]string{"a": "1"})
	})
}

// Faulty is a store whose faults a test controls.
type Faulty struct {
	Store storage.Store
	// FailNext makes the next commit fail with an unknown outcome.
	FailNext func()
	// NoSpace fills the disk, or frees it.
	NoSpace func(full bool)
	// Reopen closes the store and opens its data again, without faults.
	Reopen func() storage.Store
}

// RunFaults tests fencing and a full disk.
func RunFaults(t *testing.T, open func(t *testing.T) Faulty) {
	t.Run("failed commit fences", func(t *testing.T) {
		faulty := open(t)
		store := faulty.Store
		Commit(t, store, Put("a", "1"))
		faulty.FailNext()
		err := store.Commit(Batch(Put("a", "2"), Put("b", "2")))
		if err == nil || errors.Is(err, storage.ErrFenced) || errors.Is(err, storage.ErrNoSpace) {
			t.Fatalf("failing commit: %v", err)
		}
		for _, batch := range []*storage.Batch{Batch(Put("c", "3")), new(storage.Batch)} {
			if err := store.Commit(batch); !errors.Is(err, storage.ErrFenced) {
				t.Errorf("commit of %d writes after a failed one: %v, want %v", batch.Len(), err, storage.ErrFenced)
			}
		}
		// Reads go on, at the last commit that succeeded.
		CheckContents(t, store, map[string]string{"a": "1"})

		store = faulty.Reopen()
		switch contents := Contents(t, store); {
		case len(contents) == 1 && contents["a"] == "1":
		case len(contents) == 2 && contents["a"] == "2" && contents["b"] == "2":
		default:
			t.Errorf("after reopening: %s, want the failed batch wholly or not at all", shorten(contents))
		}
		Commit(t, store, Put("a", "4"), Delete("b"))
		CheckContents(t, store, map[string]string{"a": "4"})
	})
	t.Run("full disk", func(t *testing.T) {
		faulty := open(t)
		store := faulty.Store
		Commit(t, store, Put("a", "1"))
		faulty.NoSpace(true)
		for range 3 {
			if err := store.Commit(Batch(Put("a", "2"))); !errors.Is(err, storage.ErrNoSpace) {
				t.Errorf("commit on a full disk: %v, want %v", err, storage.ErrNoSpace)
			}
		}
		CheckContents(t, store, map[string]string{"a": "1"})
		faulty.NoSpace(false)
		Commit(t, store, Put("b", "3"))
		CheckContents(t, store, map[string]string{"a": "1", "b": "3"})
		CheckContents(t, faulty.Reopen(), map[string]string{"a": "1", "b": "3"})
	})
}
