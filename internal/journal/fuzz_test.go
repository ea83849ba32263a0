package journal

import (
	"testing"

	"google.golang.org/protobuf/proto"

	recordv1 "github.com/perdure/perdure/internal/record/v1"
)

// FuzzMatch matches arbitrary entries. It never panics, an entry matches itself, and whether two
// match does not depend on which of them was recorded.
func FuzzMatch(f *testing.F) {
	kinds := (&recordv1.Entry{}).ProtoReflect().Descriptor().Oneofs().ByName("entry").Fields()
	var encoded [][]byte
	for position := range kinds.Len() {
		entry := &recordv1.Entry{At: 1, Site: "a.go:1"}
		entry.ProtoReflect().Mutable(kinds.Get(position))
		encoded = append(encoded, marshal(f, entry))
	}
	for _, entry := range []*recordv1.Entry{
		{}, call("alice", []byte("x")), run("pay", "a.go:1"), put("k", []byte("v")), remove("k"), send(4), sleep(5),
		{Entry: &recordv1.Entry_Wait{Wait: &recordv1.Wait{Futures: []uint32{1}}}},
		{Entry: &recordv1.Entry_CancelInvocation{CancelInvocation: &recordv1.CancelInvocation{InvocationId: []byte("short")}}},
	} {
		encoded = append(encoded, marshal(f, entry))
	}
	for i, first := range encoded {
		f.Add(first, encoded[(i+1)%len(encoded)])
		f.Add(first, first)
	}
	f.Fuzz(func(t *testing.T, first, second []byte) {
		var recorded, made recordv1.Entry
		if proto.Unmarshal(first, &recorded) != nil || proto.Unmarshal(second, &made) != nil {
			return
		}
		match := func(a, b *recordv1.Entry, same SameValue) bool {
			cursor := NewCursor([]*recordv1.Entry{a})
			divergence := cursor.Match(b, same)
			if divergence != nil && (divergence.Difference == "" || divergence.Error() == "" || divergence.Index != 1) {
				t.Errorf("%v and %v: %+v", a, b, divergence)
			}
			return divergence == nil
		}
		step := func(entry *recordv1.Entry) bool { return entry.GetEntry() != nil && entry.GetInput() == nil }
		if step(&recorded) && !match(&recorded, &recorded, nil) {
			t.Errorf("%v does not match itself", &recorded)
		}
		if match(&recorded, &made, nil) != match(&made, &recorded, nil) {
			t.Errorf("%v and %v match in one order only", &recorded, &made)
		}
		// Values that are not messages of the type that is expected are the caller's to refuse.
		if match(&recorded, &made, nil) && !match(&recorded, &made, func([]byte, []byte) bool { return true }) {
			t.Errorf("%v and %v match only where values are compared", &recorded, &made)
		}
		match(&recorded, nil, nil)
		match(&recorded, &recordv1.Entry{}, nil)
	})
}

func marshal(tb testing.TB, entry *recordv1.Entry) []byte {
	data, err := proto.Marshal(entry)
	if err != nil {
		tb.Fatal(err)
	}
	return data
}

// TestMatchOfHollowEntries: an entry whose kind is set and whose content is nil is one that no
// decoder makes, but a handler's runtime might.
func TestMatchOfHollowEntries(t *testing.T) {
	hollow := []*recordv1.Entry{
		{Entry: &recordv1.Entry_Call{}}, {Entry: &recordv1.Entry_Send{}}, {Entry: &recordv1.Entry_Run{}}, {Entry: &recordv1.Entry_Sleep{}},
		{Entry: &recordv1.Entry_SetState{}}, {Entry: &recordv1.Entry_TablePut{}}, {Entry: &recordv1.Entry_Awakeable{}},
		{Entry: &recordv1.Entry_AwaitPromise{}}, {Entry: &recordv1.Entry_CompletePromise{}}, {Entry: &recordv1.Entry_Receive{}},
		{Entry: &recordv1.Entry_CompleteAwakeable{}}, {Entry: &recordv1.Entry_Wait{}}, {Entry: &recordv1.Entry_CancelInvocation{}},
	}
	for i, recorded := range hollow {
		for j, made := range append(hollow, nil) {
			cursor := NewCursor([]*recordv1.Entry{recorded})
			divergence := cursor.Match(made, nil)
			if i != j && divergence == nil {
				t.Errorf("%T matches %T", recorded.Entry, made.GetEntry())
			}
			if divergence != nil && divergence.Error() == "" {
				t.Errorf("%T and %T differ without a word", recorded.Entry, made.GetEntry())
			}
		}
	}
}
