package storagetest

import (
	"bytes"
	"fmt"
	"maps"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"github.com/perdure/perdure/storage"
)

// testModel compares random operations with a map. All runs share the store, each under a
// prefix of its own, since opening a store on disk takes longer than a run.
func testModel(t *testing.T, store storage.Store) {
	run := 0
	rapid.Check(t, func(t *rapid.T) {
		run++
		m := &model{
			store:  store,
			prefix: fmt.Sprintf("run%06d/", run),
			now:    make(map[string]string),
		}
		defer m.releaseAll()
		t.Repeat(map[string]func(*rapid.T){
			"commit":   m.commit,
			"snapshot": m.snapshot,
			"release":  m.release,
			"get":      m.get,
			"scan":     m.scan,
		})
	})
}

type model struct {
	store     storage.Store
	prefix    string
	now       map[string]string
	snapshots []modelSnapshot
}

type modelSnapshot struct {
	snapshot storage.Snapshot
	want     map[string]string
}

// Short keys of few letters collide, nest and sort around each other.
var modelKey = rapid.StringOfN(rapid.RuneFrom([]rune{0, 'a', 'b', 0x10ffff}), 0, 3, -1)

var modelValue = rapid.OneOf(rapid.StringN(0, 3, -1), rapid.Map(rapid.IntRange(0, 5000), func(n int) string {
	return string(bytes.Repeat([]byte{'v'}, n))
}))

func (m *model) commit(t *rapid.T) {
	batch := new(storage.Batch)
	for range rapid.IntRange(0, 8).Draw(t, "writes") {
		key := m.prefix + modelKey.Draw(t, "key")
		if rapid.IntRange(0, 3).Draw(t, "kind") == 0 {
			batch.Delete([]byte(key))
			delete(m.now, key)
		} else {
			value := modelValue.Draw(t, "value")
			batch.Put([]byte(key), []byte(value))
			m.now[key] = value
		}
	}
	if err := m.store.Commit(batch); err != nil {
		t.Fatalf("commit: %v", err)
	}
}

func (m *model) snapshot(*rapid.T) {
	m.snapshots = append(m.snapshots, modelSnapshot{m.store.Snapshot(), maps.Clone(m.now)})
}

func (m *model) pick(t *rapid.T) int {
	if len(m.snapshots) == 0 {
		m.snapshot(t)
	}
	return rapid.IntRange(0, len(m.snapshots)-1).Draw(t, "snapshot")
}

func (m *model) release(t *rapid.T) {
	at := m.pick(t)
	m.snapshots[at].snapshot.Release()
	m.snapshots = slices.Delete(m.snapshots, at, at+1)
}

func (m *model) releaseAll() {
	for _, each := range m.snapshots {
		each.snapshot.Release()
	}
}

func (m *model) get(t *rapid.T) {
	from := m.snapshots[m.pick(t)]
	key := m.prefix + modelKey.Draw(t, "key")
	want, exists := from.want[key]
	value, ok, err := from.snapshot.Get([]byte(key))
	if err != nil || ok != exists || string(value) != want {
		t.Fatalf("get %q: %q, %t, %v, want %q, %t", key, value, ok, err, want, exists)
	}
}

func (m *model) scan(t *rapid.T) {
	from := m.snapshots[m.pick(t)]
	lower := m.prefix + modelKey.Draw(t, "lower")
	upper := m.prefix + modelKey.Draw(t, "upper")
	limit := rapid.IntRange(1, 20).Draw(t, "limit")
	var want, got []string
	for _, key := range slices.Sorted(maps.Keys(from.want)) {
		if key >= lower && key < upper && len(want) < 2*limit {
			want = append(want, key, from.want[key])
		}
	}
	if err := from.snapshot.Scan([]byte(lower), []byte(upper), func(key, value []byte) bool {
		got = append(got, string(key), string(value))
		return len(got) < 2*limit
	}); err != nil {
		t.Fatalf("scan: %v", err)
	}
	if !slices.Equal(got, want) {
		t.Fatalf("scan %q to %q: %q, want %q", lower, upper, got, want)
	}
}
