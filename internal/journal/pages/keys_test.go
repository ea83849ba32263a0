package pages_test

import (
	"math"
	"testing"

	"github.com/perdure/perdure/internal/journal/pages"
	recordv1 "github.com/perdure/perdure/internal/record/v1"
	"github.com/perdure/perdure/internal/table"
)

// TestKeysOfLargeValues: however many parts values have, no slice of what is removed is large, and
// nothing is left in the end: also of a value of which an earlier attempt wrote more parts.
func TestKeysOfLargeValues(t *testing.T) {
	const most = 10
	for _, parts := range []uint32{0, 1, most - 1, most, most + 1, 3*most - 1, 3 * most, 57} {
		r := journalOf(t, 2, 9)
		value := func(index, count, tried uint32) {
			r.put(t, table.Completion(id, index), &recordv1.Completion{Entry: index, Parts: &recordv1.Parts{Count: count, Bytes: uint64(count)}})
			if tried > 0 {
				r.put(t, table.Tries(id, index), &recordv1.RunTries{Parts: tried})
			}
			for number := range max(count, tried) {
				r.kept[string(table.Part(id, index, number))] = []byte("p")
			}
		}
		value(5, parts, 0)
		value(6, 2, parts+2)
		value(9, parts, parts+3)
		lower, slices := uint32(2), 0
		for ; ; slices++ {
			if slices > 100 {
				t.Fatalf("%d parts: the removal does not end", parts)
			}
			keys, next, err := pages.Keys(r, id, lower, math.MaxUint32, most, 1<<20)
			if err != nil {
				t.Fatal(err)
			}
			if len(keys) > 5*most {
				t.Errorf("%d parts: a slice has %d keys", parts, len(keys))
			}
			for _, key := range keys {
				delete(r.kept, string(key))
			}
			if next == 0 {
				break
			}
			if next < lower {
				t.Fatalf("%d parts: from %d on to %d", parts, lower, next)
			}
			lower = next
		}
		if len(r.kept) != 0 {
			t.Errorf("%d parts: %d rows are left after %d slices", parts, len(r.kept), slices+1)
		}
	}
}
