package journal

import (
	"fmt"
	"strings"
	"testing"

	recordv1 "github.com/perdure/perdure/internal/record/v1"
)

func set(value, previous string, first bool) *recordv1.Entry {
	return &recordv1.Entry{Entry: &recordv1.Entry_SetState{SetState: &recordv1.SetState{Value: []byte(value), First: first, Previous: []byte(previous), HadPrevious: previous != ""}}}
}

func TestKeep(t *testing.T) {
	run := &recordv1.Entry{Entry: &recordv1.Entry_Run{Run: &recordv1.Run{Name: "r"}}}
	sleep := &recordv1.Entry{Entry: &recordv1.Entry_Sleep{Sleep: &recordv1.Sleep{Until: 1}}}
	told := &recordv1.Entry{Entry: &recordv1.Entry_Wait{Wait: &recordv1.Wait{Outcome: recordv1.WaitOutcome_WAIT_OUTCOME_CANCELLED}}}
	heard := &recordv1.Entry{Entry: &recordv1.Entry_Wait{Wait: &recordv1.Wait{Outcome: recordv1.WaitOutcome_WAIT_OUTCOME_COMPLETED, CancelHeard: true}}}
	journal := []*recordv1.Entry{run, sleep, set("a", "", true), run, told, heard}
	for _, test := range []struct {
		start, from uint32
		open        uint32 // the run without a result
		want        string
	}{
		{0, 0, 1, ""}, {0, 1, 0, ""}, {0, 1, 1, "entry 1 (Run"}, {0, 4, 0, ""}, {0, 4, 4, "up to 3"}, {0, 3, 4, ""}, // a timer may be open
		{0, 5, 0, "entry 5 its handler heard"}, {0, 7, 0, "which is 6"}, {0, 6, 0, "entry 5"},
		{10, 0, 0, ""}, {10, 10, 0, "before it continued as new"}, {10, 11, 0, ""}, {10, 11, 11, "up to 10"}, {10, 17, 0, "which is 16"},
	} {
		completions := map[uint32]*recordv1.Completion{}
		for i := range journal {
			if index := test.start + uint32(i) + 1; i != 1 && index != test.open {
				completions[index] = &recordv1.Completion{}
			}
		}
		err := Keep(test.start, journal, completions, test.from)
		if got := fmt.Sprint(err); (err != nil) != (test.want != "") || !strings.Contains(got, test.want) {
			t.Errorf("keep up to %d of a journal after %d: %v, want %q", test.from, test.start, err, test.want)
		}
	}
}

func TestRewind(t *testing.T) {
	put := func(row, value, previous string) *recordv1.Entry {
		return &recordv1.Entry{Entry: &recordv1.Entry_TablePut{TablePut: &recordv1.TablePut{
			Table: "t", Key: row, Value: []byte(value), Delete: value == "", First: true, Previous: []byte(previous), HadPrevious: previous != "",
		}}}
	}
	journal := []*recordv1.Entry{set("a", "0", true), put("x", "1", ""), set("b", "", false), put("y", "", "old")}
	for from, want := range map[uint32]string{
		1: "state a; x -; y old", 2: "state a; x 1; y old", 3: "state b; x 1; y old", 4: "state b; x 1; y -",
	} {
		var got []string
		r := NewRewind(from)
		for i, entry := range journal {
			r.Note(uint32(i)+1, entry)
		}
		writes, bytes := r.Writes()
		size := 0
		for _, w := range writes {
			size += len(w.Table) + len(w.Key) + len(w.Then)
		}
		if bytes != size {
			t.Errorf("after entry %d: %d bytes are said, and there are %d", from, bytes, size)
		}
		for _, w := range writes {
			name, value := w.Key, "-"
			if w.Table == "" {
				name = "state"
			}
			if w.HasThen {
				value = string(w.Then)
			}
			got = append(got, name+" "+value)
			if left := map[string]string{"state": "b", "x": "1", "y": ""}[name]; !w.IsLeft([]byte(left), left != "") || w.IsLeft([]byte("other"), true) {
				t.Errorf("%s is not what was left: %q, %v", name, w.Left, w.HasLeft)
			}
		}
		if strings.Join(got, "; ") != want {
			t.Errorf("after entry %d: %s, want %s", from, strings.Join(got, "; "), want)
		}
	}
}

func TestAddFailure(t *testing.T) {
	var kept []*recordv1.Failure
	for attempt := range uint32(30) {
		kept = AddFailure(kept, &recordv1.Failure{Attempt: attempt + 1, Stack: strings.Repeat("s", 1<<20), Error: &recordv1.Error{Message: strings.Repeat("\xff", 1<<20)}})
	}
	if len(kept) != maxFailures || kept[0].Attempt != 1 || kept[1].Attempt != 22 || kept[9].Attempt != 30 {
		t.Error(kept)
	}
	if len(kept[8].Stack) > 0 || len(kept[9].Stack) > 2*maxStackBytes || len(kept[9].Error.Message) > 4*maxMessageBytes {
		t.Errorf("%d, %d and %d bytes are kept", len(kept[8].Stack), len(kept[9].Stack), len(kept[9].Error.Message))
	}
}
