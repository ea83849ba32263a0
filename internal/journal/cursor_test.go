package journal

import (
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/apipb"

	recordv1 "github.com/perdure/perdure/internal/record/v1"
)

func run(name, site string) *recordv1.Entry {
	return &recordv1.Entry{Site: site, Entry: &recordv1.Entry_Run{Run: &recordv1.Run{Name: name}}}
}

func call(key string, input []byte) *recordv1.Entry {
	return &recordv1.Entry{Site: "a.go:1", Entry: &recordv1.Entry_Call{Call: &recordv1.Call{Invoke: &recordv1.Invoke{
		Target: &recordv1.Target{Service: "s.v1.S", Key: key, Handler: "Do"}, Input: input,
	}}}}
}

func wait(futures ...uint32) *recordv1.Entry {
	return &recordv1.Entry{Entry: &recordv1.Entry_Wait{Wait: &recordv1.Wait{Futures: futures}}}
}

// sameMixin compares as messages.
func sameMixin(recorded, made []byte) bool {
	var was, is apipb.Mixin
	return proto.Unmarshal(recorded, &was) == nil && proto.Unmarshal(made, &is) == nil && proto.Equal(&was, &is)
}

func TestMatch(t *testing.T) {
	// One message in two encodings: its fields in either order.
	straight, turned := []byte("\x0a\x01a\x12\x01b"), []byte("\x12\x01b\x0a\x01a")
	for name, test := range map[string]struct {
		recorded, made *recordv1.Entry
		difference     string
	}{
		"same run":            {run("pay", ""), run("pay", ""), ""},
		"renamed run":         {run("pay", ""), run("paid", ""), "the name"},
		"kind":                {run("pay", ""), call("k", nil), "the kind of step"},
		"same call":           {call("k", straight), call("k", turned), ""},
		"another key":         {call("k", nil), call("l", nil), "the key"},
		"another request":     {call("k", straight), call("k", []byte("\x0a\x01x")), "the request"},
		"same wait":           {wait(1, 2), wait(1, 2), ""},
		"another wait":        {wait(1, 2), wait(1, 3), "what is waited for"},
		"sleep":               {sleep(1), sleep(2), ""},
		"another row":         {put("k", nil), put("l", nil), "the row"},
		"another value":       {put("k", straight), put("k", nil), "the value"},
		"same value":          {put("k", straight), put("k", turned), ""},
		"delete for a put":    {put("k", nil), remove("k"), "the value"},
		"send with a delay":   {send(0), send(5), "the delay"},
		"send at another due": {send(4), send(5), ""},
	} {
		t.Run(name, func(t *testing.T) {
			cursor := NewCursor([]*recordv1.Entry{test.recorded})
			divergence := cursor.Match(test.made, sameMixin)
			got := ""
			if divergence != nil {
				got = divergence.Difference
			}
			if got != test.difference {
				t.Errorf("differs in %q, want %q", got, test.difference)
			}
		})
	}
}

func sleep(until int64) *recordv1.Entry {
	return &recordv1.Entry{Entry: &recordv1.Entry_Sleep{Sleep: &recordv1.Sleep{Until: until}}}
}

func put(key string, value []byte) *recordv1.Entry {
	return &recordv1.Entry{Entry: &recordv1.Entry_TablePut{TablePut: &recordv1.TablePut{Table: "t", Key: key, Value: value}}}
}

func remove(key string) *recordv1.Entry {
	return &recordv1.Entry{Entry: &recordv1.Entry_TablePut{TablePut: &recordv1.TablePut{Table: "t", Key: key, Delete: true}}}
}

func send(due int64) *recordv1.Entry {
	return &recordv1.Entry{Entry: &recordv1.Entry_Send{Send: &recordv1.Send{Invoke: &recordv1.Invoke{DueAt: due}}}}
}

func TestCursorGoesPastTheEnd(t *testing.T) {
	cursor := NewCursor([]*recordv1.Entry{run("one", "")})
	if !cursor.Replaying() || cursor.Passed() != 0 {
		t.Error("not at the start")
	}
	if index := cursor.Pass(); index != 1 || cursor.Replaying() || cursor.Next() != nil {
		t.Errorf("index %d", index)
	}
	if divergence := cursor.Match(run("new", ""), nil); divergence != nil {
		t.Error(divergence)
	}
	if index := cursor.Pass(); index != 2 {
		t.Errorf("index %d", index)
	}
}

func TestDivergenceHasBothSites(t *testing.T) {
	cursor := NewCursor([]*recordv1.Entry{run("pay", "orders.go:42")})
	text := cursor.Match(call("alice", nil), nil).Error()
	for _, part := range []string{"journal entry 1", `Run "pay", made at orders.go:42`, "Call s.v1.S/alice/Do at a.go:1", "deploy the code"} {
		if !strings.Contains(text, part) {
			t.Errorf("%q is not in %s", part, text)
		}
	}
}

// TestEveryKindIsCompared fails when a kind of entry is added and not matched with itself.
func TestEveryKindIsCompared(t *testing.T) {
	kinds := (&recordv1.Entry{}).ProtoReflect().Descriptor().Oneofs().ByName("entry").Fields()
	for position := range kinds.Len() {
		kind := kinds.Get(position)
		if kind.Name() == "input" { // not a step
			continue
		}
		entry := new(recordv1.Entry)
		entry.ProtoReflect().Mutable(kind)
		cursor := NewCursor([]*recordv1.Entry{entry})
		if divergence := cursor.Match(entry, nil); divergence != nil {
			t.Errorf("%s: %v", kind.Name(), divergence)
		}
		if Describe(entry) == Describe(nil) {
			t.Errorf("%s has no description", kind.Name())
		}
	}
}
