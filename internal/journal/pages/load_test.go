package pages_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"

	"github.com/perdure/perdure/internal/invocation"
	"github.com/perdure/perdure/internal/journal/pages"
	recordv1 "github.com/perdure/perdure/internal/record/v1"
	"github.com/perdure/perdure/internal/table"
)

// rows counts how it is read.
type rows struct {
	kept        map[string][]byte
	gets, scans int
}

func (r *rows) Get(key []byte) ([]byte, bool, error) {
	r.gets++
	value, ok := r.kept[string(key)]
	return value, ok, nil
}

func (r *rows) Scan(lower, upper []byte, fn func(key, value []byte) bool) error {
	r.scans++
	var keys []string
	for key := range r.kept {
		if key >= string(lower) && key < string(upper) {
			keys = append(keys, key)
		}
	}
	slices.Sort(keys)
	for _, key := range keys {
		if !fn([]byte(key), r.kept[key]) {
			break
		}
	}
	return nil
}

func (r *rows) put(t *testing.T, key []byte, message proto.Message) {
	t.Helper()
	value, err := proto.Marshal(message)
	if err != nil {
		t.Fatal(err)
	}
	r.kept[string(key)] = value
}

var id = invocation.NewID(7, [16]byte{9})

// journalOf has entries of several kinds after start; every other one that can has completed.
func journalOf(t *testing.T, start, entries uint32) *rows {
	t.Helper()
	r := &rows{kept: map[string][]byte{}}
	r.put(t, table.Journal(id, start), &recordv1.Entry{Entry: &recordv1.Entry_Input{Input: &recordv1.Input{Value: []byte("in")}}})
	for i := range entries {
		index, entry := start+1+i, &recordv1.Entry{Site: fmt.Sprint("site ", i)}
		switch i % 4 {
		case 0:
			entry.Entry = &recordv1.Entry_Sleep{Sleep: &recordv1.Sleep{}}
		case 1:
			entry.Entry = &recordv1.Entry_SetState{SetState: &recordv1.SetState{Value: []byte("s")}}
		case 2:
			entry.Entry = &recordv1.Entry_Run{Run: &recordv1.Run{Name: "r"}}
		case 3:
			entry.Entry = &recordv1.Entry_Receive{Receive: &recordv1.Receive{Name: "n"}}
		}
		r.put(t, table.Journal(id, index), entry)
		if i%4 == 0 || i%8 == 2 {
			r.put(t, table.Completion(id, index), &recordv1.Completion{Entry: index, Result: &recordv1.Result{Value: []byte{byte(i)}}})
		}
	}
	return r
}

func describe(b *pages.Beginning) string {
	var text strings.Builder
	fmt.Fprintf(&text, "%q %d entries to %d, known %d, more %v, %v %v %v:", b.Input, len(b.Entries), b.Last, b.Known, b.More, b.Receives, b.Writes, b.Runs)
	for i, entry := range b.Entries {
		fmt.Fprint(&text, " ", entry.GetSite())
		if c := b.Completions[b.Last-uint32(len(b.Entries))+1+uint32(i)]; c != nil {
			fmt.Fprintf(&text, "=%d", c.GetResult().GetValue())
		}
	}
	return text.String()
}

// TestLoad: what is read of a journal does not depend on how much of it the row knew.
func TestLoad(t *testing.T) {
	for _, start := range []uint32{0, 5} {
		for entries := range uint32(9) {
			r := journalOf(t, start, entries)
			scanned, err := pages.Load(r, id, start, start+entries, 64)
			if err != nil {
				t.Fatal(err)
			}
			want := describe(scanned)
			if len(scanned.Entries) != int(entries) || string(scanned.Input) != "in" || (entries > 2) != scanned.Runs || (entries > 1) != scanned.Writes || (entries > 3) != scanned.Receives {
				t.Errorf("%d entries after %d: %s", entries, start, want)
			}
			for known := start; known <= start+entries; known++ {
				r.gets, r.scans = 0, 0
				got, err := pages.Load(r, id, start, known, 64)
				if err != nil || describe(got) != want {
					t.Errorf("known %d: %v\n%s, want\n%s", known, err, describe(got), want)
				}
				if short := entries <= 4 && known == start+entries; short != (r.scans == 0) {
					t.Errorf("%d entries after %d, known %d: %d scans", entries, start, known, r.scans)
				}
			}
		}
	}
}

// TestLoadSaysWhatIsMissing: in a short journal as in one that is scanned.
func TestLoadSaysWhatIsMissing(t *testing.T) {
	for _, entries := range []uint32{3, 7} {
		for gone, want := range map[uint32]string{0: "entry 0, the request, is missing", 2: "entry"} {
			r := journalOf(t, 0, entries)
			delete(r.kept, string(table.Journal(id, gone)))
			if _, err := pages.Load(r, id, 0, entries, 64); err == nil || !strings.Contains(err.Error(), want) {
				t.Errorf("%d entries without %d: %v", entries, gone, err)
			}
		}
	}
}

// TestLoadLarge: a few entries may be large; then they are read in pages.
func TestLoadLarge(t *testing.T) {
	r := journalOf(t, 0, 3)
	for index := range uint32(3) {
		r.put(t, table.Completion(id, index+1), &recordv1.Completion{Entry: index + 1, Result: &recordv1.Result{Value: make([]byte, 200<<10)}})
	}
	b, err := pages.Load(r, id, 0, 3, 64)
	if err != nil || b.Known >= 3 || len(b.Entries) != 3 {
		t.Errorf("%v: %d entries, completions known to %d", err, len(b.Entries), b.Known)
	}
}
