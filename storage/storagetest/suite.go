// Package storagetest is the suite that every storage.Store passes.
//
// A backend's test calls Run, RunReopen if it persists, and RunFaults if faults can be injected.
package storagetest

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/perdure/perdure/storage"
)

// Bounded is what a store exports besides storage.Store: the batch sizes it takes.
type Bounded interface {
	MaxBatchBytes() int
	MaxBatchOps() int
}

// Run tests an empty store. open is called for each part; it registers the store's Close with
// t.Cleanup, which must tolerate storage.ErrClosed.
func Run(t *testing.T, open func(t *testing.T) storage.Store) {
	for _, part := range []struct {
		name string
		run  func(t *testing.T, store storage.Store)
	}{
		{"empty store", testEmpty},
		{"get", testGet},
		{"order", testOrder},
		{"scan bounds", testScanBounds},
		{"scan stops", testScanStops},
		{"empty value is not missing", testEmptyValue},
		{"delete", testDelete},
		{"last write of a batch wins", testLastWriteWins},
		{"empty batch", testEmptyBatch},
		{"odd keys", testOddKeys},
		{"values are the caller's", testOwnership},
		{"snapshot is isolated", testIsolation},
		{"commit and read inside a scan", testNestedCalls},
		{"scan function panics", testScanPanic},
		{"snapshots during commits", testConcurrent},
		{"bounds", testBounds},
		{"big batch", testBigBatch},
		{"released snapshot", testReleased},
		{"closed store", testClosed},
		{"model", testModel},
	} {
		t.Run(part.name, func(t *testing.T) { part.run(t, open(t)) })
	}
}

// Write is a write for Commit: a nil Value deletes.
type Write struct {
	Key   string
	Value []byte
}

// Put is a Write of a string.
func Put(key, value string) Write { return Write{Key: key, Value: append([]byte{}, value...)} }

// Delete is a Write that deletes.
func Delete(key string) Write { return Write{Key: key} }

// Commit commits the writes as one batch.
func Commit(t testing.TB, store storage.Store, writes ...Write) {
	t.Helper()
	if err := store.Commit(Batch(writes...)); err != nil {
		t.Fatalf("commit: %v", err)
	}
}

// Batch returns the writes as a batch.
func Batch(writes ...Write) *storage.Batch {
	batch := new(storage.Batch)
	for _, write := range writes {
		if write.Value == nil {
			batch.Delete([]byte(write.Key))
		} else {
			batch.Put([]byte(write.Key), write.Value)
		}
	}
	return batch
}

// Contents returns everything in the store.
func Contents(t testing.TB, store storage.Store) map[string]string {
	t.Helper()
	snapshot := store.Snapshot()
	defer snapshot.Release()
	contents := make(map[string]string)
	if err := snapshot.Scan(nil, nil, func(key, value []byte) bool {
		contents[string(key)] = string(value)
		return true
	}); err != nil {
		t.Fatalf("scan: %v", err)
	}
	return contents
}

// CheckContents fails the test unless the store holds exactly want, by Scan and by Get.
func CheckContents(t testing.TB, store storage.Store, want map[string]string) {
	t.Helper()
	if got := Contents(t, store); !maps.Equal(got, want) {
		t.Fatalf("store holds %s, want %s", shorten(got), shorten(want))
	}
	snapshot := store.Snapshot()
	defer snapshot.Release()
	for key, value := range want {
		checkGet(t, snapshot, key, value)
	}
}

func shorten(contents map[string]string) string {
	keys := slices.Sorted(maps.Keys(contents))
	var text strings.Builder
	fmt.Fprintf(&text, "%d keys:", len(keys))
	for _, key := range keys[:min(len(keys), 20)] {
		fmt.Fprintf(&text, " %.20q=%.20q", key, contents[key])
	}
	return text.String()
}

func checkGet(t testing.TB, snapshot storage.Snapshot, key, want string) {
	t.Helper()
	value, ok, err := snapshot.Get([]byte(key))
	if err != nil || !ok || string(value) != want {
		t.Fatalf("get %.40q: %.40q, %t, %v, want %.40q", key, value, ok, err, want)
	}
}

func checkMissing(t testing.TB, snapshot storage.Snapshot, key string) {
	t.Helper()
	if value, ok, err := snapshot.Get([]byte(key)); ok || value != nil || err != nil {
		t.Fatalf("get %.40q: %.40q, %t, %v, want none", key, value, ok, err)
	}
}

func checkScan(t testing.TB, snapshot storage.Snapshot, lower, upper []byte, want ...string) {
	t.Helper()
	var got []string
	if err := snapshot.Scan(lower, upper, func(key, _ []byte) bool {
		got = append(got, string(key))
		return true
	}); err != nil {
		t.Fatalf("scan: %v", err)
	}
	if !slices.Equal(got, want) {
		t.Errorf("scan from %q to %q: %q, want %q", lower, upper, got, want)
	}
}

func snapshotOf(t testing.TB, store storage.Store) storage.Snapshot {
	snapshot := store.Snapshot()
	t.Cleanup(snapshot.Release)
	return snapshot
}

func testEmpty(t *testing.T, store storage.Store) {
	snapshot := snapshotOf(t, store)
	checkMissing(t, snapshot, "a")
	checkMissing(t, snapshot, "")
	checkScan(t, snapshot, nil, nil)
}

func testGet(t *testing.T, store storage.Store) {
	Commit(t, store, Put("a", "1"), Put("ab", "2"))
	Commit(t, store, Put("a", "3"))
	snapshot := snapshotOf(t, store)
	checkGet(t, snapshot, "a", "3")
	checkGet(t, snapshot, "ab", "2")
	checkMissing(t, snapshot, "abc")
	checkMissing(t, snapshot, "")
	checkMissing(t, snapshot, "b")
	checkMissing(t, snapshot, strings.Repeat("a", storage.MaxKeyBytes+1))
}

func testOrder(t *testing.T, store storage.Store) {
	keys := []string{"b", "\x00", "a\xff", "a", "\xff\xff", "a\x00", "ab", "\xff", "a\x00\x00"}
	for _, key := range keys {
		Commit(t, store, Put(key, "v"+key))
	}
	want := slices.Sorted(slices.Values(keys))
	checkScan(t, snapshotOf(t, store), nil, nil, want...)
	for _, key := range keys {
		checkGet(t, snapshotOf(t, store), key, "v"+key)
	}
}

func testScanBounds(t *testing.T, store storage.Store) {
	for _, key := range []string{"a", "b", "ba", "bb", "c", "\xff", "\xff\x01"} {
		Commit(t, store, Put(key, "v"))
	}
	snapshot := snapshotOf(t, store)
	checkScan(t, snapshot, []byte("b"), []byte("c"), "b", "ba", "bb")
	checkScan(t, snapshot, []byte("b"), []byte("bb"), "b", "ba")
	checkScan(t, snapshot, []byte("aa"), []byte("b\x00"), "b")
	checkScan(t, snapshot, []byte("c"), nil, "c", "\xff", "\xff\x01")
	checkScan(t, snapshot, []byte("\xff\x02"), nil)
	checkScan(t, snapshot, nil, []byte("b"), "a")
	checkScan(t, snapshot, []byte{}, []byte("b"), "a")
	checkScan(t, snapshot, []byte("b"), []byte("b"))
	checkScan(t, snapshot, []byte("c"), []byte("b"))
	checkScan(t, snapshot, nil, []byte{})
}

func testScanStops(t *testing.T, store storage.Store) {
	Commit(t, store, Put("a", "1"), Put("b", "2"), Put("c", "3"))
	var got []string
	err := snapshotOf(t, store).Scan(nil, nil, func(key, value []byte) bool {
		got = append(got, string(key)+string(value))
		return len(got) < 2
	})
	if err != nil || !slices.Equal(got, []string{"a1", "b2"}) {
		t.Errorf("got %q, %v", got, err)
	}
}

func testEmptyValue(t *testing.T, store storage.Store) {
	batch := new(storage.Batch)
	batch.Put([]byte("empty"), []byte{})
	batch.Put([]byte("nil"), nil)
	if err := store.Commit(batch); err != nil {
		t.Fatal(err)
	}
	snapshot := snapshotOf(t, store)
	checkGet(t, snapshot, "empty", "")
	checkGet(t, snapshot, "nil", "")
	checkScan(t, snapshot, nil, nil, "empty", "nil")
	checkMissing(t, snapshot, "none")
}

func testDelete(t *testing.T, store storage.Store) {
	Commit(t, store, Put("a", "1"), Put("b", "2"))
	Commit(t, store, Delete("a"), Delete("never there"))
	snapshot := snapshotOf(t, store)
	checkMissing(t, snapshot, "a")
	checkScan(t, snapshot, nil, nil, "b")
	Commit(t, store, Put("a", "3"))
	checkGet(t, snapshotOf(t, store), "a", "3")
	checkMissing(t, snapshot, "a")
}

func testLastWriteWins(t *testing.T, store storage.Store) {
	Commit(t, store, Put("d", "old"))
	Commit(t, store,
		Put("a", "1"), Put("a", "2"),
		Put("b", "1"), Delete("b"),
		Delete("c"), Put("c", "1"),
		Delete("d"), Put("d", ""), Put("d", "new"), Delete("e"), Put("e", "1"), Delete("e"))
	CheckContents(t, store, map[string]string{"a": "2", "c": "1", "d": "new"})
}

func testEmptyBatch(t *testing.T, store storage.Store) {
	Commit(t, store)
	Commit(t, store, Put("a", "1"))
	Commit(t, store)
	CheckContents(t, store, map[string]string{"a": "1"})
}

// testOddKeys uses keys that backends might reserve.
func testOddKeys(t *testing.T, store storage.Store) {
	want := make(map[string]string)
	for i, key := range []string{"", "\x00", "\x00commit", "\x01", "!badger!", "!badger!txn", "!badger!banned", strings.Repeat("k", storage.MaxKeyBytes), "\xff\xff\xff\xff\xff\xff\xff\xff\xff"} {
		want[key] = fmt.Sprint(i)
		Commit(t, store, Put(key, want[key]))
	}
	CheckContents(t, store, want)
}

func testOwnership(t *testing.T, store storage.Store) {
	key, value := []byte("key"), []byte("value")
	batch := new(storage.Batch)
	batch.Put(key, value)
	if err := store.Commit(batch); err != nil {
		t.Fatal(err)
	}
	// Committed: the caller may reuse everything.
	clear(key)
	clear(value)
	batch.Reset()
	snapshot := snapshotOf(t, store)
	checkGet(t, snapshot, "key", "value")

	got, _, err := snapshot.Get([]byte("key"))
	if err != nil {
		t.Fatal(err)
	}
	clear(got)
	_ = append(got, "beyond"...)
	checkGet(t, snapshot, "key", "value")
	checkGet(t, snapshotOf(t, store), "key", "value")

	kept, _, err := snapshot.Get([]byte("key"))
	if err != nil {
		t.Fatal(err)
	}
	for i := range 100 {
		Commit(t, store, Put("key", fmt.Sprint("other", i)))
	}
	if string(kept) != "value" {
		t.Errorf("a kept value became %q", kept)
	}
}

func testIsolation(t *testing.T, store storage.Store) {
	before := snapshotOf(t, store)
	Commit(t, store, Put("a", "1"), Put("b", "1"))
	first := snapshotOf(t, store)
	same := snapshotOf(t, store)
	Commit(t, store, Put("a", "2"), Delete("b"), Put("c", "2"))
	second := snapshotOf(t, store)
	same.Release()
	for range 50 {
		Commit(t, store, Put("a", "3"), Put("d", "3"))
	}
	checkScan(t, before, nil, nil)
	checkGet(t, first, "a", "1")
	checkGet(t, first, "b", "1")
	checkScan(t, first, nil, nil, "a", "b")
	checkGet(t, second, "a", "2")
	checkScan(t, second, nil, nil, "a", "c")
	checkScan(t, snapshotOf(t, store), nil, nil, "a", "c", "d")
}

func testNestedCalls(t *testing.T, store storage.Store) {
	Commit(t, store, Put("a", "1"), Put("b", "1"), Put("c", "1"))
	snapshot := snapshotOf(t, store)
	seen := 0
	if err := snapshot.Scan(nil, nil, func(key, value []byte) bool {
		seen++
		checkGet(t, snapshot, string(key), "1")
		checkScan(t, snapshot, key, nil, []string{"a", "b", "c"}[seen-1:]...)
		Commit(t, store, Put(string(key), "2"), Put("z"+string(key), "2"))
		return string(value) == "1"
	}); err != nil {
		t.Fatal(err)
	}
	if seen != 3 {
		t.Errorf("saw %d pairs, want 3", seen)
	}
	CheckContents(t, store, map[string]string{"a": "2", "b": "2", "c": "2", "za": "2", "zb": "2", "zc": "2"})
}

func testScanPanic(t *testing.T, store storage.Store) {
	Commit(t, store, Put("a", "1"))
	func() {
		defer func() {
			if reason := recover(); reason != "mine" {
				t.Errorf("recovered %v, want the panic of the scan function", reason)
			}
		}()
		_ = snapshotOf(t, store).Scan(nil, nil, func(_, _ []byte) bool { panic("mine") })
	}()
	Commit(t, store, Put("a", "2"))
	if err := store.Close(); err != nil { // waits for scans: this one must have ended
		t.Error(err)
	}
}

func testBounds(t *testing.T, store storage.Store) {
	Commit(t, store, Put("a", "1"))
	refuse := func(name string, batch *storage.Batch) {
		t.Helper()
		if err := store.Commit(batch); !errors.Is(err, storage.ErrTooLarge) {
			t.Errorf("%s: %v, want %v", name, err, storage.ErrTooLarge)
		}
	}
	refuse("value", Batch(Put("b", "1"), Write{"b", make([]byte, storage.MaxValueBytes+1)}))
	refuse("key", Batch(Put("b", "1"), Put(strings.Repeat("k", storage.MaxKeyBytes+1), "")))
	if bounded, ok := store.(Bounded); ok {
		batch := new(storage.Batch)
		for batch.Bytes() <= bounded.MaxBatchBytes() {
			batch.Put(fmt.Appendf(nil, "b%d", batch.Len()), make([]byte, storage.MaxValueBytes))
		}
		refuse("batch bytes", batch)
		batch = new(storage.Batch)
		for batch.Len() <= bounded.MaxBatchOps() {
			batch.Delete([]byte("a"))
		}
		refuse("batch writes", batch)
	}
	// Refused, not failed: the store goes on.
	Commit(t, store, Put("c", "1"))
	CheckContents(t, store, map[string]string{"a": "1", "c": "1"})
	largest := string(bytes.Repeat([]byte{7}, storage.MaxValueBytes))
	Commit(t, store, Put("largest", largest))
	CheckContents(t, store, map[string]string{"a": "1", "c": "1", "largest": largest})
}

// testBigBatch commits batches at the bounds, overwrites and deletes them.
func testBigBatch(t *testing.T, store storage.Store) {
	bounded, ok := store.(Bounded)
	if !ok {
		t.Skip("the store names no bounds")
	}
	if bounded.MaxBatchBytes() < 1<<20 || bounded.MaxBatchOps() < 1000 {
		t.Errorf("bounds of %d bytes and %d writes are too small to work with", bounded.MaxBatchBytes(), bounded.MaxBatchOps())
	}
	want := make(map[string]string)
	fill := func(ops, bytesInAll int, round string) {
		t.Helper()
		batch := new(storage.Batch)
		for i := range ops {
			key := fmt.Sprintf("%08d", i)
			size := (bytesInAll-batch.Bytes())/(ops-i) - len(key)
			value := strings.Repeat(round, max(size, 0))
			want[key] = value
			batch.Put([]byte(key), []byte(value))
		}
		if err := store.Commit(batch); err != nil {
			t.Fatalf("batch of %d writes, %d bytes: %v", batch.Len(), batch.Bytes(), err)
		}
	}
	fill(bounded.MaxBatchOps(), bounded.MaxBatchBytes(), "a")
	for _, round := range []string{"b", "c", "d"} {
		fill(1000, bounded.MaxBatchBytes(), round)
	}
	CheckContents(t, store, want)
	batch := new(storage.Batch)
	for key := range want {
		batch.Delete([]byte(key))
	}
	if err := store.Commit(batch); err != nil {
		t.Fatal(err)
	}
	CheckContents(t, store, nil)
}

func testReleased(t *testing.T, store storage.Store) {
	Commit(t, store, Put("a", "1"))
	snapshot := store.Snapshot()
	snapshot.Release()
	if _, ok, err := snapshot.Get([]byte("a")); ok || err == nil {
		t.Errorf("get: %t, %v, want an error", ok, err)
	}
	if err := snapshot.Scan(nil, nil, func(_, _ []byte) bool { return true }); err == nil {
		t.Error("scan: no error")
	}
}

func testClosed(t *testing.T, store storage.Store) {
	Commit(t, store, Put("a", "1"))
	early := store.Snapshot()
	if err := store.Close(); err != nil {
		t.Fatal(err)
	}
	late := store.Snapshot()
	for name, snapshot := range map[string]storage.Snapshot{"early": early, "late": late} {
		if _, ok, err := snapshot.Get([]byte("a")); ok || !errors.Is(err, storage.ErrClosed) {
			t.Errorf("%s get: %t, %v", name, ok, err)
		}
		if err := snapshot.Scan(nil, nil, func(_, _ []byte) bool { return true }); !errors.Is(err, storage.ErrClosed) {
			t.Errorf("%s scan: %v", name, err)
		}
		snapshot.Release()
	}
	if err := store.Commit(Batch(Put("a", "2"))); !errors.Is(err, storage.ErrClosed) {
		t.Errorf("commit: %v", err)
	}
	if err := store.Commit(new(storage.Batch)); !errors.Is(err, storage.ErrClosed) {
		t.Errorf("empty commit: %v", err)
	}
	if err := store.Close(); !errors.Is(err, storage.ErrClosed) {
		t.Errorf("close: %v", err)
	}
}
