package overlay

import (
	"bytes"
	"fmt"
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"testing"

	"pgregory.net/rapid"

	"github.com/perdure/perdure/internal/engine"
	"github.com/perdure/perdure/internal/partition/rows"
	"github.com/perdure/perdure/storage"
	"github.com/perdure/perdure/storage/memstore"
)

// viewModel is the view under test and what it should show: the rows after each record.
type viewModel struct {
	t     *rapid.T
	view  *View
	store *memstore.Store
	// rows[i] are the rows after record i.
	rows                       []map[string][]byte
	proposed, durable, applied uint64 // records
	dirty                      bool   // the open record has writes
	payloads                   [][]byte
	pins                       []*pinned
}

type pinned struct {
	snapshot *Snapshot
	rows     map[string][]byte
}

var viewKeys = []string{"a", "ab", "b", "ka", "s1", "s2", "t\x00", "t\xff", "z"}

func TestViewAgainstModel(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		store := memstore.New(memstore.Options{MaxBatchBytes: 64 << 20})
		v, err := New(store.Snapshot())
		if err != nil {
			t.Fatal(err)
		}
		m := &viewModel{t: t, view: v, store: store, rows: []map[string][]byte{{}, {}}, payloads: [][]byte{nil}}
		for range rapid.IntRange(1, 80).Draw(t, "steps") {
			m.step(rapid.SampledFrom([]string{"put", "put", "put", "propose", "propose", "committed", "inStore", "pin", "check", "release"}).Draw(t, "step"))
		}
		m.end()
	})
}

// value draws one of a few sizes, with one that needs parts, and one on each side of the bound.
func (m *viewModel) value() []byte {
	size := rapid.SampledFrom([]int{0, 1, 20, 300, inlineBytes - 1, inlineBytes, inlineBytes + 1, 2*partBytes + 7, 1 << 20}).Draw(m.t, "size")
	return bytes.Repeat([]byte{byte(rapid.IntRange(0, 255).Draw(m.t, "byte"))}, size)
}

func (m *viewModel) step(step string) {
	t := m.t
	open := m.proposed + 1
	switch step {
	case "put":
		var mutations []engine.Mutation
		for range rapid.IntRange(1, 3).Draw(t, "mutations") {
			key := viewKeys[rapid.IntRange(0, len(viewKeys)-1).Draw(t, "key")]
			mutation := engine.Mutation{Key: []byte(key)}
			if rapid.IntRange(0, 3).Draw(t, "kind") == 0 {
				mutation.Delete = true
				delete(m.rows[open], key)
			} else {
				mutation.Value = m.value()
				m.rows[open][key] = mutation.Value
			}
			mutations = append(mutations, mutation)
		}
		if err := m.view.Put(open, mutations); err != nil {
			t.Fatal(err)
		}
		m.dirty = true
	case "propose":
		if !m.dirty {
			return
		}
		m.payloads = append(m.payloads, m.view.Encode(open, nil))
		m.proposed, m.dirty = open, false
		m.rows = append(m.rows, maps.Clone(m.rows[open]))
	case "committed":
		if m.durable < m.proposed {
			m.durable += uint64(rapid.IntRange(1, int(m.proposed-m.durable)).Draw(t, "committed"))
			m.view.Committed(m.durable)
		}
	case "inStore":
		if m.applied < m.durable {
			upTo := m.applied + uint64(rapid.IntRange(1, int(m.durable-m.applied)).Draw(t, "applied"))
			m.apply(upTo)
		}
	case "pin":
		s, err := m.view.Pin()
		if err != nil {
			t.Fatal(err)
		}
		m.pins = append(m.pins, &pinned{s, maps.Clone(m.rows[m.durable])})
	case "release":
		if len(m.pins) > 0 {
			i := rapid.IntRange(0, len(m.pins)-1).Draw(t, "pin")
			m.pins[i].snapshot.Release()
			m.pins = slices.Delete(m.pins, i, i+1)
		}
	case "check":
		m.same("the leader", m.view, m.rows[open])
		for _, p := range m.pins {
			m.same("a snapshot", p.snapshot, p.rows)
		}
	}
}

func (m *viewModel) apply(upTo uint64) {
	var batch storage.Batch
	for ; m.applied < upTo; m.applied++ {
		if err := storage.DecodeBatch(m.payloads[m.applied+1], func(op storage.Op) {
			if op.Delete {
				batch.Delete(op.Key)
			} else {
				batch.Put(op.Key, op.Value)
			}
		}); err != nil {
			m.t.Fatal(err)
		}
	}
	if err := m.store.Commit(&batch); err != nil {
		m.t.Fatal(err)
	}
	m.view.InStore(upTo, m.store.Snapshot())
}

func (m *viewModel) same(who string, got rows.Reader, want map[string][]byte) {
	for _, key := range viewKeys {
		value, ok, err := got.Get([]byte(key))
		wanted, exists := want[key]
		if err != nil || ok != exists || !bytes.Equal(value, wanted) {
			m.t.Fatalf("%s sees %q as %s, %v, %v; want %s, %v", who, key, brief(value), ok, err, brief(wanted), exists)
		}
	}
	lower := viewKeys[rapid.IntRange(0, len(viewKeys)-1).Draw(m.t, "lower")]
	most := rapid.IntRange(1, len(viewKeys)).Draw(m.t, "most")
	var seen, wanted []string
	// Parts of large values are rows of their own, under "k" and the row's key: scans of the
	// engine never cross them, so this one stops before and starts after.
	for _, bounds := range [][2]string{{lower, "k"}, {max(lower, "l"), "\xff"}} {
		if bounds[0] >= bounds[1] {
			continue
		}
		err := got.Scan([]byte(bounds[0]), []byte(bounds[1]), func(key, value []byte) bool {
			if !bytes.Equal(value, want[string(key)]) {
				m.t.Fatalf("%s scans %q as %s; want %s", who, key, brief(value), brief(want[string(key)]))
			}
			seen = append(seen, string(key))
			return len(seen) < most
		})
		if err != nil {
			m.t.Fatal(err)
		}
		if len(seen) == most {
			break
		}
	}
	for _, key := range slices.Sorted(maps.Keys(want)) {
		if key >= lower && key[0] != 'k' && len(wanted) < most {
			wanted = append(wanted, key)
		}
	}
	if !slices.Equal(seen, wanted) {
		m.t.Fatalf("%s scans %q from %q, want %q", who, seen, lower, wanted)
	}
}

func brief(value []byte) string {
	if len(value) > 20 {
		return fmt.Sprintf("%d bytes of %q", len(value), value[0])
	}
	return fmt.Sprintf("%q", value)
}

// end lets everything reach the store: the overlay must be empty and the store the model.
func (m *viewModel) end() {
	m.step("propose")
	m.durable = m.proposed
	m.view.Committed(m.durable)
	if m.applied < m.durable {
		m.apply(m.durable)
	}
	m.step("check")
	for _, p := range m.pins {
		p.snapshot.Release()
	}
	m.pins = nil
	if n := m.view.Bytes(); n != 0 || m.view.mu.overlay.Len() != 0 || len(m.view.mu.batches) != 0 || len(m.view.mu.pins) != 0 {
		m.t.Fatalf("the overlay keeps %d bytes, %d keys, %d records, %d pins", n, m.view.mu.overlay.Len(), len(m.view.mu.batches), len(m.view.mu.pins))
	}
	m.step("check")
	again, err := New(m.store.Snapshot())
	if err != nil {
		m.t.Fatal(err)
	}
	m.same("a new leader", again, m.rows[m.proposed])
	for key := range m.rows[m.proposed] {
		if err := again.Put(1, []engine.Mutation{{Key: []byte(key), Delete: true}}); err != nil {
			m.t.Fatal(err)
		}
	}
	var batch storage.Batch
	if err := storage.DecodeBatch(again.Encode(1, nil), func(op storage.Op) { batch.Delete(op.Key) }); err != nil {
		m.t.Fatal(err)
	}
	if err := m.store.Commit(&batch); err != nil {
		m.t.Fatal(err)
	}
	if keys := m.store.Keys(); len(keys) != 0 {
		m.t.Fatalf("rows are deleted and their parts stay: %q", keys)
	}
}

// TestViewReadersSeeWholeRecords: each record writes the same number to two rows, one of which
// needs parts; whoever reads, however it interleaves, sees them equal.
func TestViewReadersSeeWholeRecords(t *testing.T) {
	store := memstore.New(memstore.Options{MaxBatchBytes: 64 << 20})
	v, err := New(store.Snapshot())
	if err != nil {
		t.Fatal(err)
	}
	var stop atomic.Bool
	var readers sync.WaitGroup
	for range 2 {
		readers.Go(func() {
			last := byte(0)
			for !stop.Load() {
				s, err := v.Pin()
				if err != nil {
					t.Error(err)
					return
				}
				small, _, err1 := s.Get([]byte("s-small"))
				big, _, err2 := s.Get([]byte("s-big"))
				if err1 != nil || err2 != nil || len(big) > 0 && (big[0] != small[0] || big[len(big)-1] != small[0] || small[0] < last) {
					t.Errorf("small %s, big %s, %v, %v after %d", brief(small), brief(big), err1, err2, last)
				}
				if len(small) > 0 {
					last = small[0]
				}
				s.Release()
			}
		})
		readers.Go(func() { // A handler that scans its table while its own writes are evaluated.
			for !stop.Load() {
				if err := v.Scan([]byte("s"), []byte("t"), func(key, value []byte) bool {
					if len(value) == 0 || value[0] != value[len(value)-1] {
						t.Errorf("%q is torn: %s", key, brief(value))
					}
					return true
				}); err != nil {
					t.Error(err)
				}
			}
		})
	}
	var batch storage.Batch
	for sequence := uint64(1); sequence <= 120; sequence++ {
		n := byte(sequence)
		size := inlineBytes/2 + int(sequence%5)*inlineBytes/2
		if err := v.Put(sequence, []engine.Mutation{
			{Key: []byte("s-big"), Value: bytes.Repeat([]byte{n}, size)}, {Key: []byte("s-small"), Value: []byte{n}},
		}); err != nil {
			t.Fatal(err)
		}
		payload := v.Encode(sequence, nil)
		v.Committed(sequence)
		if err := storage.DecodeBatch(payload, func(op storage.Op) {
			if op.Delete {
				batch.Delete(op.Key)
			} else {
				batch.Put(op.Key, op.Value)
			}
		}); err != nil {
			t.Fatal(err)
		}
		if sequence%3 == 0 {
			continue // The store gets this one with the next.
		}
		if err := store.Commit(&batch); err != nil {
			t.Fatal(err)
		}
		batch.Reset()
		v.InStore(sequence, store.Snapshot())
	}
	stop.Store(true)
	readers.Wait()
}
