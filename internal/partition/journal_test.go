package partition

import (
	"bytes"
	"fmt"
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"

	"github.com/perdure/perdure/internal/engine"
	"github.com/perdure/perdure/internal/invocation"
	"github.com/perdure/perdure/internal/journal/pages"
	"github.com/perdure/perdure/internal/partition/overlay"
	recordv1 "github.com/perdure/perdure/internal/record/v1"
	"github.com/perdure/perdure/internal/table"
	"github.com/perdure/perdure/storage"
	"github.com/perdure/perdure/storage/memstore"
)

// A journal is read in pages, whether its rows are in the store or on their way to it, and a
// page's bytes are bounded.
func TestJournalIsReadInPages(t *testing.T) {
	store := memstore.New(memstore.Options{MaxBatchBytes: 64 << 20})
	v, err := overlay.New(store.Snapshot())
	if err != nil {
		t.Fatal(err)
	}
	id := invocation.NewID(1, [16]byte{1})
	const start, end = 7, 1500
	put := func(key []byte, message proto.Message) engine.Mutation {
		value, err := proto.Marshal(message)
		if err != nil {
			t.Fatal(err)
		}
		return engine.Mutation{Key: key, Value: value}
	}
	// Entries 600 to 620 have large results, and every third has none yet.
	size := func(index uint32) int {
		if index >= 600 && index <= 620 {
			return 100 << 10
		}
		return 10
	}
	for index := uint32(start + 1); index <= end; index++ {
		mutations := []engine.Mutation{put(table.Journal(id, index), &recordv1.Entry{Entry: &recordv1.Entry_Run{Run: &recordv1.Run{Name: fmt.Sprint(index)}}})}
		if index%3 != 0 {
			mutations = append(mutations, put(table.Completion(id, index), &recordv1.Completion{Entry: index, Result: &recordv1.Result{Value: bytes.Repeat([]byte("x"), size(index))}}))
		}
		if err := v.Put(1+uint64(index/800), mutations); err != nil {
			t.Fatal(err)
		}
	}
	var batch storage.Batch
	if err := storage.DecodeBatch(v.Encode(1, nil), func(op storage.Op) { batch.Put(op.Key, op.Value) }); err != nil {
		t.Fatal(err)
	}
	if err := store.Commit(&batch); err != nil {
		t.Fatal(err)
	}
	v.InStore(1, store.Snapshot())

	var damaged []error
	j := pages.New(v, id, end, func(err error) { damaged = append(damaged, err) })
	read, largest := 0, 0
	for index := uint32(start + 1); index <= end; read++ {
		entries, err := j.Entries(index)
		if err != nil {
			t.Fatal(err)
		}
		last := index + uint32(len(entries)) - 1
		for i, entry := range entries {
			if entry.GetRun().GetName() != fmt.Sprint(index+uint32(i)) {
				t.Fatalf("entry %d is %v", index+uint32(i), entry)
			}
		}
		for first := index; first <= last; {
			completions, known, err := j.Completions(first, last)
			if err != nil || known < first || known > last {
				t.Fatalf("completions %d to %d: known to %d, %v", first, last, known, err)
			}
			held := 0
			for at := first; at <= known; at++ {
				got := completions[at]
				if (got != nil) != (at%3 != 0) || got != nil && len(got.Result.Value) != size(at) {
					t.Fatalf("completion %d is %.50v", at, got)
				}
				held += len(got.GetResult().GetValue())
			}
			largest = max(largest, held)
			first = known + 1
		}
		index = last + 1
	}
	if read > 12 && pages.Begin == 0 {
		t.Errorf("%d entries took %d pages", end-start, read)
	}
	if largest > 512<<10 {
		t.Errorf("a page has %d bytes of completions", largest)
	}
	if completion, err := j.Completion(601); err != nil || len(completion.Result.Value) != 100<<10 {
		t.Errorf("completion 601: %v", err)
	}
	if completion, err := j.Completion(603); err != nil || completion != nil {
		t.Errorf("completion 603: %v, %v", completion, err)
	}
	if len(damaged) > 0 {
		t.Errorf("damaged: %v", damaged)
	}
	if err := v.Put(5, []engine.Mutation{{Key: table.Journal(id, 1000), Delete: true}}); err != nil {
		t.Fatal(err)
	}
	if _, err := j.Entries(999); err == nil || !strings.Contains(err.Error(), "entry 1000 is missing") || len(damaged) != 1 {
		t.Errorf("a gap: %v, damaged %v", err, damaged)
	}
	v.Close()
	if _, err := j.Entries(500); err == nil || len(damaged) != 2 {
		t.Errorf("without a leader: %v, damaged %v", err, damaged)
	}
}
