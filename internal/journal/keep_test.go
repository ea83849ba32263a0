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
	for _, test := range []struct {
		entry *recordv1.Entry
		has   bool
		want  string
	}{
		{run, true, ""}, {run, false, `entry 7 (Run "r") has no result, which a replay would need: keep the entries before it, up to 6`},
		{sleep, false, ""}, {sleep, true, ""}, {set("a", "", true), false, ""},
		{told, false, "entry 7 its handler heard"}, {heard, false, "up to 6"},
	} {
		err := Keep(7, test.entry, test.has)
		if got := fmt.Sprint(err); (err != nil) != (test.want != "") || !strings.Contains(got, test.want) {
			t.Errorf("keep %s, result %t: %v, want %q", Describe(test.entry), test.has, err, test.want)
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
		writes := r.Writes()
		_, bytes := r.Size()
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
				t.Errorf("%s is not what was left", name)
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
