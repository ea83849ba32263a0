package renew

import (
	"bytes"
	"errors"
	"fmt"
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"

	"github.com/perdure/perdure/internal/draft"
	"github.com/perdure/perdure/internal/draft/drafttest"
	"github.com/perdure/perdure/internal/invocation"
	recordv1 "github.com/perdure/perdure/internal/record/v1"
	"github.com/perdure/perdure/internal/table"
)

type rows = drafttest.Rows

func put(t *testing.T, r rows, key []byte, message proto.Message) {
	t.Helper()
	value, err := proto.Marshal(message)
	if err != nil {
		t.Fatal(err)
	}
	r[string(key)] = value
}

var source = invocation.NewID(7, [16]byte{9})

// journalOf has so many Runs with results after start, and ends with a write.
func journalOf(t *testing.T, start, entries uint32, status recordv1.Status) rows {
	t.Helper()
	r := rows{}
	put(t, r, table.Invocation(source), &recordv1.Invocation{Status: status, JournalStart: start, CreatedAt: 5, CompletedAt: 6})
	put(t, r, table.Journal(source, start), &recordv1.Entry{Entry: &recordv1.Entry_Input{Input: &recordv1.Input{Value: []byte("request")}}})
	for i := start + 1; i < start+entries; i++ {
		put(t, r, table.Journal(source, i), &recordv1.Entry{Entry: &recordv1.Entry_Run{Run: &recordv1.Run{Name: "r"}}})
		put(t, r, table.Completion(source, i), &recordv1.Completion{Entry: i, Result: &recordv1.Result{Value: []byte("v")}})
	}
	put(t, r, table.Journal(source, start+entries), &recordv1.Entry{Entry: &recordv1.Entry_SetState{SetState: &recordv1.SetState{Value: []byte("new"), Previous: []byte("old"), HadPrevious: true}}})
	return r
}

var most = Bounds{Bytes: 1000, Writes: 10}

func survey(t *testing.T, r rows, from uint32) *Survey {
	t.Helper()
	s, err := Of(r, source, from, most, func() error { return nil })
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// TestSurvey finds the end of a journal, and what is missing, wherever windows begin and end.
func TestSurvey(t *testing.T) {
	for _, entries := range []uint32{2, window, window + 1} {
		for _, start := range []uint32{0, 1000} {
			r, end := journalOf(t, start, entries, recordv1.Status_STATUS_FAILED), start+entries
			for from, want := range map[uint32]string{
				end - 1: "", end: "", start + 1: "",
				end + 1: fmt.Sprintf("entry %d is behind the end of its journal, which is %d", end+1, end),
				start:   fmt.Sprintf("entry %d is of a run before it continued as new", start),
			} {
				s := survey(t, r, from)
				if got := fmt.Sprint(s.Refused); (want == "") != (s.Refused == nil) || !strings.Contains(got, want) {
					t.Errorf("%d entries after %d, keep up to %d: %v, want %q", entries, start, from, s.Refused, want)
				}
				if s.CreatedAt != 5 || s.CompletedAt != 6 {
					t.Error(s)
				}
				if want != "" {
					continue
				}
				if len(s.Writes) != 1 || string(s.Writes[0].Then) != map[bool]string{true: "new", false: "old"}[from == end] {
					t.Errorf("up to %d of %d: %v is taken back", from, end, s.Writes)
				}
			}
			delete(r, string(table.Completion(source, end-1)))
			if s := survey(t, r, end-1); !strings.Contains(fmt.Sprint(s.Refused), "has no result") {
				t.Errorf("without its last result: %v", s.Refused)
			}
			delete(r, string(table.Journal(source, end-1)))
			s := survey(t, r, end)
			if _, ok := errors.AsType[*Refusal](s.Refused); s.Refused == nil || ok {
				t.Errorf("without an entry: %v", s.Refused)
			}
		}
	}
	if s := survey(t, journalOf(t, 0, 3, recordv1.Status_STATUS_RUNNING), 1); s.CompletedAt != 0 || s.Refused != nil {
		t.Errorf("of one that runs: %v", s)
	}
	if s := survey(t, rows{}, 1); s.CompletedAt != 0 || s.Refused != nil {
		t.Errorf("of one that is not there: %v", s)
	}
	gone := errors.New("the caller is gone")
	if _, err := Of(journalOf(t, 0, 3, recordv1.Status_STATUS_FAILED), source, 1, most, func() error { return gone }); !errors.Is(err, gone) {
		t.Error(err)
	}
}

// TestChanged names the row that somebody else has written.
func TestChanged(t *testing.T) {
	r := journalOf(t, 0, 2, recordv1.Status_STATUS_FAILED)
	put(t, r, table.Journal(source, 3), &recordv1.Entry{Entry: &recordv1.Entry_TablePut{TablePut: &recordv1.TablePut{Table: "lots", Key: "x", Value: []byte("1")}}})
	writes, o := survey(t, r, 1).Writes, invocation.Object{Service: "s", Key: "k"}
	state, row := string(table.State(o)), string(table.Row(o, "lots", "x"))
	for _, test := range []struct {
		rows rows
		want string
	}{
		{rows{state: []byte("new"), row: []byte("1")}, ""},
		{rows{state: []byte("newer"), row: []byte("1")}, "its state"},
		{rows{row: []byte("1")}, "its state"},
		{rows{state: []byte("new"), row: []byte("2")}, `row "x" of its table lots`},
		{rows{state: []byte("new")}, `row "x" of its table lots`},
	} {
		if got, err := Changed(test.rows, o, writes); got != test.want || err != nil {
			t.Errorf("%v: %q, %v, want %q", test.rows, got, err, test.want)
		}
	}
}

// TestSliceOfDamage: what is missing is named, and where the copy stands does not move.
func TestSliceOfDamage(t *testing.T) {
	to := invocation.NewID(7, [16]byte{1})
	for what, missing := range map[string][]byte{
		"entry 2 is missing":                      table.Journal(source, 2),
		"entry 2 (Run \"r\") has no result":       table.Completion(source, 2),
		"part 1 of 3 of the result of entry 1 is": table.Part(source, 1, 1),
	} {
		r := journalOf(t, 0, 4, recordv1.Status_STATUS_FAILED)
		put(t, r, table.Completion(source, 1), &recordv1.Completion{Entry: 1, Parts: &recordv1.Parts{Count: 3}})
		for number := range uint32(3) {
			r[string(table.Part(source, 1, number))] = bytes.Repeat([]byte{'p'}, 100)
		}
		delete(r, string(missing))
		d := draft.New(r)
		at := table.Copy{Source: source, Through: 3, Next: 1}
		after, _, err := Slice(&d, to, at, 10_000)
		if !strings.Contains(fmt.Sprint(err), what) || after != at {
			t.Errorf("%v at %v, want %q", err, after, what)
		}
	}
}

// TestSliceIsBounded in rows too.
func TestSliceIsBounded(t *testing.T) {
	r, d := journalOf(t, 0, 5000, recordv1.Status_STATUS_FAILED), draft.Draft{}
	at, slices := table.Copy{Source: source, Through: 4999, Next: 1}, 0
	for !at.Done() {
		d = draft.New(r)
		var err error
		if at, _, err = Slice(&d, source, at, 10<<20); err != nil {
			t.Fatal(err)
		}
		if slices++; len(d.Mutations()) > sliceRows+1 {
			t.Fatalf("%d rows in one slice", len(d.Mutations()))
		}
	}
	if slices != 10 {
		t.Errorf("%d slices", slices)
	}
}
