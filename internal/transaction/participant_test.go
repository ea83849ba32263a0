package transaction_test

import (
	"fmt"
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"

	"github.com/perdure/perdure/internal/invocation"
	recordv1 "github.com/perdure/perdure/internal/record/v1"
	"github.com/perdure/perdure/internal/transaction"
)

func set(value string) *recordv1.Entry {
	return &recordv1.Entry{Entry: &recordv1.Entry_SetState{SetState: &recordv1.SetState{Value: []byte(value)}}}
}

func clearState() *recordv1.Entry {
	return &recordv1.Entry{Entry: &recordv1.Entry_SetState{SetState: &recordv1.SetState{Clear: true}}}
}

func put(key string) *recordv1.Entry {
	return &recordv1.Entry{Entry: &recordv1.Entry_TablePut{TablePut: &recordv1.TablePut{Table: "t", Key: key}}}
}

func newParticipant() *transaction.Participant {
	return transaction.NewParticipant(transaction.ID{Root: [24]byte{1}, Sequence: 7}, transaction.Age{At: 5, Root: [24]byte{1}}, 9)
}

func wanted(p *transaction.Participant, key string) *transaction.Hold {
	return p.Want(&recordv1.Target{Service: "S", Key: key}, false)
}

// TestOwnWrites: a call sees what earlier calls of its transaction have written.
func TestOwnWrites(t *testing.T) {
	p := newParticipant()
	h := wanted(p, "k")
	state := func() string {
		value, has, wrote := h.State()
		return fmt.Sprintf("%q %t %t, %d rows, %d entries, writes %t", value, has, wrote, len(h.Rows()), len(h.Entries()), p.Writes())
	}
	for _, step := range []struct {
		entries []*recordv1.Entry
		want    string
	}{
		{nil, `"" false false, 0 rows, 0 entries, writes false`},
		{[]*recordv1.Entry{put("1")}, `"" false false, 1 rows, 1 entries, writes true`},
		{[]*recordv1.Entry{set("a"), set("b"), put("2")}, `"b" true true, 2 rows, 4 entries, writes true`},
		{[]*recordv1.Entry{clearState()}, `"" false true, 2 rows, 5 entries, writes true`},
		{[]*recordv1.Entry{set("c")}, `"c" true true, 2 rows, 6 entries, writes true`},
	} {
		h.Write(path(1), step.entries)
		if got := state(); got != step.want {
			t.Errorf("after %v: %s, want %s", step.entries, got, step.want)
		}
	}
}

// TestParticipantUndo: what a failed call wrote goes, and a try of which another call has seen
// that is Torn.
func TestParticipantUndo(t *testing.T) {
	type call struct {
		path   transaction.Path
		writes bool // else it only looks
	}
	writes := func(indexes ...uint32) call { return call{path(indexes...), true} }
	looks := func(indexes ...uint32) call { return call{path(indexes...), false} }
	for _, test := range []struct {
		name  string
		calls []call // of one object, one after the other
		undo  []transaction.Path
		left  int
		torn  bool
	}{
		{"nothing", []call{writes(1), writes(2)}, nil, 2, false},
		{"another call", []call{writes(1), writes(2)}, []transaction.Path{path(3)}, 2, false},
		{"the last", []call{writes(1), writes(2)}, []transaction.Path{path(2)}, 1, false},
		{"what was done on its behalf", []call{writes(1), writes(2, 1), writes(2, 2, 5)}, []transaction.Path{path(2)}, 1, false},
		{"all", []call{writes(1), writes(2)}, []transaction.Path{path()}, 0, false},
		{"one that a later call has seen", []call{writes(1), writes(2)}, []transaction.Path{path(1)}, 1, true},
		{"one that a later call has only read", []call{writes(1), looks(2)}, []transaction.Path{path(1)}, 0, true},
		{"one that came after who looked", []call{looks(2), writes(1)}, []transaction.Path{path(1)}, 0, false},
		{"one that was seen by who is taken back too", []call{writes(1, 1), looks(1, 2)}, []transaction.Path{path(1)}, 0, false},
	} {
		p := newParticipant()
		wanted(p, "other").Write(path(9), []*recordv1.Entry{set("x")})
		h := wanted(p, "k")
		for _, c := range test.calls {
			h.Sees(c.path)
			if c.writes {
				h.Write(c.path, []*recordv1.Entry{set(string(c.path))})
			}
		}
		p.Undo(test.undo)
		if got := len(h.Entries()); got != test.left || p.Torn != test.torn {
			t.Errorf("%s: %d writes are left, torn %t; want %d, %t", test.name, got, p.Torn, test.left, test.torn)
		}
	}
}

// TestPromise: what Record writes down Restore reads.
func TestPromise(t *testing.T) {
	p := newParticipant()
	wanted(p, "a").Write(path(1), []*recordv1.Entry{set("1"), put("x")})
	wanted(p, "only read")
	wanted(p, "b").Write(path(2), []*recordv1.Entry{set("2")})
	data, err := proto.Marshal(p.Record(p.ID.Record()))
	if err != nil {
		t.Fatal(err)
	}
	row := &recordv1.Prepared{}
	if err := proto.Unmarshal(data, row); err != nil {
		t.Fatal(err)
	}
	restored, ok := transaction.Restore(row)
	if !ok || restored.ID != p.ID || restored.Age != p.Age || restored.Since != p.Since || restored.Phase != transaction.Prepared {
		t.Errorf("%t: %+v, want %+v", ok, restored, p)
	}
	var holds []string
	for _, h := range restored.Holds {
		holds = append(holds, fmt.Sprintf("%s:%d:%t", h.Request.Object.Key, len(h.Entries()), h.Request.Prepared))
	}
	if got := strings.Join(holds, " "); got != "a:2:true only read:0:true b:1:true" {
		t.Errorf("restored %s", got)
	}
	if restored.Find(invocation.Object{Service: "S", Key: "b"}) != restored.Holds[2] || restored.Find(invocation.Object{Service: "S", Key: "c"}) != nil {
		t.Error("Find does not find")
	}
	for name, damaged := range map[string]*recordv1.Prepared{
		"no id":     {Age: row.Age, Objects: row.Objects},
		"no target": {Id: row.Id, Age: row.Age, Objects: []*recordv1.PreparedObject{{}}},
	} {
		if _, ok := transaction.Restore(damaged); ok {
			t.Errorf("%s: restored", name)
		}
	}
}
