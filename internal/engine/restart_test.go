package engine

import (
	"bytes"
	"fmt"
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"

	"github.com/perdure/perdure/internal/invocation"
	recordv1 "github.com/perdure/perdure/internal/record/v1"
	"github.com/perdure/perdure/internal/table"
)

// countingView counts the rows that are scanned.
type countingView struct {
	mapView
	scanned int
}

func (v *countingView) Scan(lower, upper []byte, fn func(key, value []byte) bool) error {
	return v.mapView.Scan(lower, upper, func(key, value []byte) bool {
		v.scanned++
		return fn(key, value)
	})
}

// TestRestartIsBounded: a restart reads of a long journal what it needs and no more, and says what
// is too much.
func TestRestartIsBounded(t *testing.T) {
	const entries, from = 12_000, 100
	put := func(i int, value []byte) *recordv1.Entry {
		return &recordv1.Entry{Entry: &recordv1.Entry_TablePut{TablePut: &recordv1.TablePut{Table: "t", Key: fmt.Sprint(i), Value: value}}}
	}
	large := &recordv1.Entry{Entry: &recordv1.Entry_Version{Version: &recordv1.Version{Change: strings.Repeat("x", 100_000)}}}
	small := &recordv1.Entry{Entry: &recordv1.Entry_Version{Version: &recordv1.Version{Change: "x"}}}
	for _, test := range []struct {
		name   string
		entry  func(i int) *recordv1.Entry
		from   uint32
		writes recordv1.JournalWrites
		want   string // "" for a restart
		reads  int    // at most
	}{
		{"from the beginning", func(int) *recordv1.Entry { return large }, 0, recordv1.JournalWrites_JOURNAL_WRITES_SOME, "", 10},
		{"no writes", func(int) *recordv1.Entry { return small }, from, recordv1.JournalWrites_JOURNAL_WRITES_NONE, "", 210},
		{"entries kept", func(int) *recordv1.Entry { return small }, 3000, recordv1.JournalWrites_JOURNAL_WRITES_NONE, "up to 3000 are more than the 1835008 bytes or the 2500 entries that a restart copies", 2510},
		{"bytes kept", func(int) *recordv1.Entry { return large }, from, recordv1.JournalWrites_JOURNAL_WRITES_NONE, "that a restart copies", 25},
		{"entries behind", func(int) *recordv1.Entry { return small }, from, recordv1.JournalWrites_JOURNAL_WRITES_SOME, "behind entry 100 is taken back, and there are more than the 10000 entries", 10_300},
		{"bytes behind", func(i int) *recordv1.Entry {
			if i > from {
				return large
			}
			return small
		}, from, recordv1.JournalWrites_JOURNAL_WRITES_SOME, "16777216 bytes that are looked at", 400},
		{"rows taken back", func(i int) *recordv1.Entry {
			if i > 9000 {
				return nil
			}
			return put(i, []byte("x"))
		}, from, recordv1.JournalWrites_JOURNAL_WRITES_SOME, "9100 rows of", 9_300},
		{"bytes taken back", func(i int) *recordv1.Entry {
			if i > 1000 {
				return nil
			}
			entry := put(i, nil)
			entry.GetTablePut().Previous, entry.GetTablePut().HadPrevious = bytes.Repeat([]byte("p"), 3000), true
			return entry
		}, from, recordv1.JournalWrites_JOURNAL_WRITES_SOME, "rows or 1835008 bytes that fit", 1_300},
	} {
		t.Run(test.name, func(t *testing.T) {
			id, renewed := invocation.NewID(0, [16]byte{1}), invocation.NewID(0, [16]byte{2})
			view := &countingView{mapView: mapView{}}
			encoded := map[proto.Message][]byte{} // Most entries are one and the same.
			write := func(key []byte, m proto.Message) {
				if encoded[m] == nil {
					value, err := proto.Marshal(m)
					if err != nil {
						t.Fatal(err)
					}
					encoded[m] = value
				}
				view.mapView[string(key)] = encoded[m]
			}
			write(table.Invocation(id), &recordv1.Invocation{
				Target: &recordv1.Target{Service: "Svc", Key: "k", Handler: "H"}, Mode: uint32(invocation.ModeDurable),
				Status: recordv1.Status_STATUS_SUCCEEDED, JournalWrites: test.writes, RetentionMs: 1000,
			})
			write(table.Journal(id, 0), &recordv1.Entry{Entry: &recordv1.Entry_Input{Input: &recordv1.Input{Value: []byte("in")}}})
			for i := 1; i <= entries; i++ {
				entry := test.entry(i)
				if entry == nil {
					break
				}
				write(table.Journal(id, uint32(i)), entry)
			}
			e := New(Config{Partition: 1, Partitions: 1}, view, 1)
			view.scanned = 0
			out, err := e.Evaluate(&RestartAsNew{ID: id, New: renewed, From: test.from, Token: 1}, 100)
			if err != nil {
				t.Fatal(err)
			}
			refused := ""
			for _, effect := range out.Effects {
				if answer, ok := effect.(*Reply); ok {
					refused = answer.Result.GetError().GetMessage()
				}
			}
			if (refused == "") != (test.want == "") || !strings.Contains(refused, test.want) {
				t.Errorf("refused with %q, want %q", refused, test.want)
			}
			if refused != "" && len(out.Mutations) > 0 {
				t.Errorf("%d rows were written all the same", len(out.Mutations))
			}
			if view.scanned > test.reads {
				t.Errorf("%d rows were read, want %d at most", view.scanned, test.reads)
			}
		})
	}
}
