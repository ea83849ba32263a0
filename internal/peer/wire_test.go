package peer

import (
	"reflect"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/perdure/perdure/internal/invocation"
	recordv1 "github.com/perdure/perdure/internal/record/v1"
	"github.com/perdure/perdure/internal/routing"
)

// fill sets every field to something that is not its zero value, so that one that is forgotten on
// the way is missed: one that is added later, too.
func fill(v reflect.Value, n *int64) {
	*n++
	switch x := v.Addr().Interface().(type) {
	case *time.Time:
		*x = time.UnixMilli(*n * 1000)
		return
	case *time.Duration:
		*x = time.Duration(*n) * time.Millisecond
		return
	case **recordv1.Invocation:
		*x = &recordv1.Invocation{CreatedAt: *n}
		return
	case **recordv1.Entry:
		*x = &recordv1.Entry{At: *n}
		return
	case *map[uint32]*recordv1.Completion:
		*x = map[uint32]*recordv1.Completion{4: {Entry: 4, At: *n}, 9: {Entry: 9}}
		return
	case *map[uint32]*recordv1.RunTries:
		*x = map[uint32]*recordv1.RunTries{4: {Failed: 2, NextAt: *n}}
		return
	case *[]recordv1.Status:
		*x = []recordv1.Status{recordv1.Status_STATUS_FAILED}
		return
	}
	switch v.Kind() {
	case reflect.Struct:
		for i := range v.NumField() {
			fill(v.Field(i), n)
		}
	case reflect.Slice:
		v.Set(reflect.MakeSlice(v.Type(), 2, 2))
		for i := range 2 {
			fill(v.Index(i), n)
		}
	case reflect.Array:
		for i := range v.Len() {
			fill(v.Index(i), n)
		}
	case reflect.Map:
		v.Set(reflect.MakeMap(v.Type()))
		for _, name := range []string{"a", "b"} {
			element := reflect.New(v.Type().Elem()).Elem()
			fill(element, n)
			v.SetMapIndex(reflect.ValueOf(name), element)
		}
	case reflect.Pointer:
		v.Set(reflect.New(v.Type().Elem()))
		fill(v.Elem(), n)
	case reflect.String:
		v.SetString(time.Duration(*n).String())
	case reflect.Bool:
		v.SetBool(true)
	case reflect.Int, reflect.Int32, reflect.Int64:
		v.SetInt(*n % 100)
	case reflect.Uint8, reflect.Uint32, reflect.Uint64:
		v.SetUint(uint64(*n%100) + 1)
	default:
		panic(v.Type().String())
	}
}

// over takes a message over the wire.
func over[M proto.Message](t *testing.T, message M) M {
	t.Helper()
	data, err := proto.Marshal(message)
	if err != nil {
		t.Fatal(err)
	}
	got := message.ProtoReflect().New().Interface()
	if err := proto.Unmarshal(data, got); err != nil {
		t.Fatal(err)
	}
	return got.(M)
}

func TestNothingIsLostOnTheWire(t *testing.T) {
	n := int64(0)
	check := func(what string, want, got any) {
		t.Helper()
		if !same(want, got) {
			t.Errorf("%s:\n got %s\nwant %s", what, text(reflect.ValueOf(got)), text(reflect.ValueOf(want)))
		}
	}
	var transactions []routing.Transaction
	fill(reflect.ValueOf(&transactions).Elem(), &n)
	check("transactions", transactions, transactionsFrom(over(t, transactionsOf(transactions))))
	var limits []routing.Limit
	fill(reflect.ValueOf(&limits).Elem(), &n)
	check("limits", limits, limitsFrom(over(t, limitsOf(limits))))
	limits[0].Oldest = time.Time{}
	check("limits without anybody who waits", limits, limitsFrom(over(t, limitsOf(limits))))
	var filter routing.Filter
	fill(reflect.ValueOf(&filter).Elem(), &n)
	filter.KeyPrefix = "\xc3" // half of a letter
	check("filter", filter, filterFrom(over(t, filterOf(filter))))
	check("no filter", routing.Filter{}, filterFrom(over(t, filterOf(routing.Filter{}))))
	var state routing.ObjectState
	fill(reflect.ValueOf(&state).Elem(), &n)
	state.Tables["a"].Rows[0].Key = "\xff\x00"
	check("state", state, stateFrom(over(t, stateOf(&state))))
	var detail routing.InvocationDetail
	fill(reflect.ValueOf(&detail).Elem(), &n)
	check("journal", detail, journalFrom(detail.ID, over(t, journalOf(&detail))))
	page := routing.InvocationsPage{Next: invocation.ID{7}, Scanned: 8, Found: []routing.InvocationDetail{{ID: invocation.ID{1}, Row: &recordv1.Invocation{CreatedAt: 5}}}}
	check("page", page, invocationsFrom(over(t, invocationsOf(&page))))
	failed := routing.Errorf(routing.CodeDataLoss, "it is \xff")
	fill(reflect.ValueOf(&failed.Elsewhere).Elem(), &n)
	got := failureOf(over(t, failureFrom(failed))).(*routing.Error)
	check("elsewhere", failed.Elsewhere, got.Elsewhere)
	if got.Code != failed.Code || got.Message != "it is ?" {
		t.Errorf("%+v", got)
	}
}

// TestMerge: a page has what all nodes have looked at, in order, and goes on where the one that
// looked at least has stopped.
func TestMerge(t *testing.T) {
	found := func(ids ...byte) (all []routing.InvocationDetail) {
		for _, id := range ids {
			all = append(all, routing.InvocationDetail{ID: invocation.ID{id}, Row: &recordv1.Invocation{}})
		}
		return all
	}
	for name, test := range map[string]struct {
		pages []*routing.InvocationsPage
		limit int
		found []byte
		next  byte
	}{
		"all there is":         {[]*routing.InvocationsPage{{Found: found(1, 4)}, {Found: found(2)}, {}}, 10, []byte{1, 2, 4}, 0},
		"one has more":         {[]*routing.InvocationsPage{{Found: found(1, 4), Next: invocation.ID{4}}, {Found: found(2, 9)}}, 10, []byte{1, 2, 4}, 4},
		"it has found nothing": {[]*routing.InvocationsPage{{Next: invocation.ID{3}}, {Found: found(2, 9)}}, 10, []byte{2}, 3},
		"more than the limit":  {[]*routing.InvocationsPage{{Found: found(1, 4)}, {Found: found(2, 9)}}, 3, []byte{1, 2, 4}, 4},
		"as many as the limit": {[]*routing.InvocationsPage{{Found: found(1, 4)}, {Found: found(2)}}, 3, []byte{1, 2, 4}, 0},
	} {
		merged := mergeInvocations(test.pages, test.limit)
		want := found(test.found...)
		if merged.Next != (invocation.ID{test.next}) || len(merged.Found) != len(want) {
			t.Errorf("%s: %d found, next %v", name, len(merged.Found), merged.Next)
			continue
		}
		for i := range want {
			if merged.Found[i].ID != want[i].ID {
				t.Errorf("%s: %v is at %d", name, merged.Found[i].ID, i)
			}
		}
	}
	large := &routing.InvocationsPage{}
	for id := range byte(10) {
		large.Found = append(large.Found, routing.InvocationDetail{ID: invocation.ID{id + 1}, Row: &recordv1.Invocation{Input: make([]byte, 1<<20)}})
	}
	if got := cut(large, 1000); len(got.Found) != 4 || got.Next != (invocation.ID{4}) {
		t.Errorf("10 MiB: a page has %d, next %v", len(got.Found), got.Next)
	}
}

// TestLeaders: later terms win, within one the first that was named, and only a leader that is
// believed in can be lost.
func TestLeaders(t *testing.T) {
	l := NewLeaders(2)
	var told []uint64
	l.OnChange(func(partition uint32, node, term uint64) { told = append(told, uint64(partition), node, term) })
	const lost = 1 << 60
	for i, step := range []struct{ node, term, want, in uint64 }{
		{7, 3, 7, 3}, {8, 2, 7, 3}, {8, 3, 7, 3}, {0, 4, 7, 3}, {lost, 2, 7, 3}, {lost, 3, 0, 3}, {lost, 3, 0, 3}, {8, 2, 0, 3},
		{7, 3, 7, 3}, {lost, 4, 0, 3}, {9, 5, 9, 5},
	} {
		changed, anyone := l.Changed(2), l.AnyChanged()
		before, _ := l.Leader(2)
		if step.node == lost {
			l.Lost(2, step.term)
		} else {
			l.Learned(2, step.node, step.term)
		}
		if node, term := l.Leader(2); node != step.want || term != step.in {
			t.Errorf("step %d: %d leads in %d", i, node, term)
		}
		if after, _ := l.Leader(2); after != before {
			<-changed
			<-anyone
		}
	}
	if want := []uint64{2, 7, 3, 2, 0, 3, 2, 7, 3, 2, 0, 3, 2, 9, 5}; !reflect.DeepEqual(told, want) {
		t.Errorf("told %v", told)
	}
	l.Learned(0, 1, 1)
	l.Learned(3, 1, 1)
	if node, term := l.Leader(3); node != 0 || term != 0 {
		t.Error("there is no partition 3")
	}
}

func TestConfigIsChecked(t *testing.T) {
	for _, config := range []Config{{}, {Partitions: 70_000}, {Partitions: 1, Network: link{}}, {Partitions: 1, MaxBytes: -1}, {Partitions: 1, Patience: -1}} {
		if err := config.Validate(); err == nil {
			t.Errorf("%+v is valid", config)
		}
	}
	if config := (Config{Partitions: 1}); config.Validate() != nil || config.Leaders == nil || config.Patience != 3*time.Second {
		t.Errorf("the defaults are %+v", config)
	}
}
