package partition

import (
	"bytes"
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/perdure/perdure/internal/invocation"
	"github.com/perdure/perdure/internal/invoker"
	recordv1 "github.com/perdure/perdure/internal/record/v1"
	"github.com/perdure/perdure/internal/routing"
	"github.com/perdure/perdure/storage/memstore"
	"github.com/perdure/perdure/storage/nodelog"
	"github.com/perdure/perdure/storage/vfs"
)

const queried = "query.v1.QueryService"

// writer is an invoker whose handlers write as much as their input says: "Fill" rows of a
// table, "Walk" entries of a journal. "Hang" never ends.
type writer struct{}

func (writer) Start(a *invoker.Attempt) invoker.Running {
	var table string
	var from, to, size int
	_, _ = fmt.Sscan(string(a.Input), &table, &from, &to, &size)
	value := bytes.Repeat([]byte("v"), size)
	switch a.Target.Handler {
	case "Hang":
	case "Fill":
		outcome := &invoker.Outcome{Result: &recordv1.Result{}}
		for n := from; n < to; n++ {
			outcome.Entries = append(outcome.Entries, &recordv1.Entry{Entry: &recordv1.Entry_TablePut{
				TablePut: &recordv1.TablePut{Table: table, Key: fmt.Sprintf("%06d", n), Value: value},
			}})
		}
		a.Host.Finish(a, outcome)
	case "Walk":
		for n := from; n < to; n++ {
			a.Host.Append(a, uint32(n), &recordv1.Entry{Entry: &recordv1.Entry_Run{Run: &recordv1.Run{Name: fmt.Sprint(n)}}})
			a.Host.Complete(a, uint32(n), &recordv1.Result{Value: append([]byte(fmt.Sprint(n)), value...)})
		}
		a.Host.Finish(a, &invoker.Outcome{Result: &recordv1.Result{}})
	default:
		a.Host.Finish(a, &invoker.Outcome{Result: &recordv1.Result{Value: []byte("done")}})
	}
	return adder{}
}

func (writer) Read(context.Context, *invoker.Read) *recordv1.Result { return &recordv1.Result{} }

func startQueried(t *testing.T, partitions uint32) *node {
	t.Helper()
	log, err := nodelog.Open(nodelog.Options{Dir: "log", FS: vfs.NewMem(), MinFreeBytes: -1})
	if err != nil {
		t.Fatal(err)
	}
	store := memstore.New(memstore.Options{})
	n := startOn(t, log, store, partitions, writer{}, func() {
		if err := store.Close(); err != nil {
			t.Error(err)
		}
		if err := log.Close(); err != nil {
			t.Error(err)
		}
	})
	t.Cleanup(n.stop)
	return n
}

// asked is a request whose invocation is kept for an hour.
func asked(handler, key, input string, mode invocation.Mode) (*recordv1.Invoke, invocation.ID) {
	target := invocation.Target{Service: queried, Key: key, Handler: handler}
	in := request(key, 0, mode)
	unique := [16]byte(in.InvocationId[8:])
	id := invocation.NewID(target.Hash(), unique)
	in.InvocationId, in.Input, in.RetentionMs = id[:], []byte(input), time.Hour.Milliseconds()
	in.Target = &recordv1.Target{Service: target.Service, Key: target.Key, Handler: target.Handler}
	return in, id
}

type listed struct {
	*node
	all, unfinished []invocation.ID // in order
	byKey           map[string][]invocation.ID
}

const listedKeys = 30

// startListed has count finished transactions over listedKeys keys, and a scheduled and a
// running invocation of every third key.
func startListed(t *testing.T, count int) *listed {
	l := &listed{node: startQueried(t, 7), byKey: map[string][]invocation.ID{}}
	var mu sync.Mutex
	add := func(key string, id invocation.ID, unfinished bool) {
		mu.Lock()
		defer mu.Unlock()
		l.all = append(l.all, id)
		l.byKey[key] = append(l.byKey[key], id)
		if unfinished {
			l.unfinished = append(l.unfinished, id)
		}
	}
	var callers sync.WaitGroup
	for caller := range 16 {
		callers.Go(func() {
			for n := caller; n < count; n += 16 {
				key := fmt.Sprint("k", n%listedKeys)
				in, id := asked("Do", key, strings.Repeat("i", 100), invocation.ModeTransaction)
				if _, err := l.Call(t.Context(), in); err != nil {
					t.Error(err)
					return
				}
				add(key, id, false)
			}
		})
	}
	callers.Wait()
	for n := 0; n < listedKeys; n += 3 {
		key := fmt.Sprint("k", n)
		for handler, due := range map[string]int64{"Later": time.Now().Add(time.Hour).UnixMilli(), "Hang": 0} {
			mode := invocation.ModeDurable
			if due != 0 {
				mode = invocation.ModeTransaction // which keeps its input in its row until then
			}
			in, id := asked(handler, key, "input", mode)
			in.DueAt = due
			if _, err := l.Send(t.Context(), in); err != nil {
				t.Fatal(err)
			}
			add(key, id, true)
		}
	}
	for _, ids := range append([][]invocation.ID{l.all, l.unfinished}, slicesOf(l.byKey)...) {
		slices.SortFunc(ids, compareIDs)
	}
	return l
}

func slicesOf(byKey map[string][]invocation.ID) (all [][]invocation.ID) {
	for _, ids := range byKey {
		all = append(all, ids)
	}
	return all
}

func compareIDs(a, b invocation.ID) int { return bytes.Compare(a[:], b[:]) }

// walk lists page by page and returns what was found, the pages and the rows looked at.
func (l *listed) walk(t *testing.T, filter routing.Filter) (found []invocation.ID, pages, scanned int) {
	t.Helper()
	for {
		page, err := l.InvocationsPage(t.Context(), filter)
		if err != nil {
			t.Fatal(err)
		}
		if pages++; pages > 10_000 {
			t.Fatalf("%+v has no end", filter)
		}
		for _, detail := range page.Found {
			found = append(found, detail.ID)
			if len(detail.Row.Input) > 0 || len(detail.Row.GetResult().GetValue()) > 0 {
				t.Fatalf("the row of %s has its payload", detail.ID)
			}
		}
		if filter.Limit > 0 && len(page.Found) > filter.Limit {
			t.Fatalf("a page has %d invocations, its limit is %d", len(page.Found), filter.Limit)
		}
		// Each partition gives one row at least, so that the list goes on.
		if budget := filter.Scan; budget > 0 && page.Scanned > budget+len(l.partitions) {
			t.Fatalf("a page looked at %d rows, its budget is %d", page.Scanned, budget)
		}
		scanned += page.Scanned
		if filter.After = page.Next; filter.After.IsZero() {
			return found, pages, scanned
		}
	}
}

func TestInvocationsPages(t *testing.T) {
	const count = 3000
	l := startListed(t, count)
	unfinished := []recordv1.Status{recordv1.Status_STATUS_SCHEDULED, recordv1.Status_STATUS_RUNNING}
	total := len(l.all)
	for _, test := range []struct {
		name   string
		filter routing.Filter
		want   []invocation.ID
		// pages and scanned are the most there may be.
		pages, scanned int
	}{
		{"all", routing.Filter{}, l.all, 4, 2 * total},
		{"small pages", routing.Filter{Limit: 100}, l.all, total/100 + 1, 31 * 7 * (firstChunk + 100)},
		{"small budget", routing.Filter{Scan: 10}, l.all, total, 10 * total},
		{"both small", routing.Filter{Limit: 3, Scan: 5}, l.all, total, 10 * total},
		{"nothing matches", routing.Filter{Handler: "Nope", Scan: 500}, nil, 20, 2 * total},
		{"few match", routing.Filter{Handler: "Hang", Scan: 500}, nil, 20, 2 * total},
		{"an object", routing.Filter{Service: queried, Key: "k3"}, l.byKey["k3"], 1, len(l.byKey["k3"])},
		{"an object in parts", routing.Filter{Service: queried, Key: "k3", Scan: 10, Limit: 7}, l.byKey["k3"], 16, 2 * len(l.byKey["k3"])},
		{"no such object", routing.Filter{Service: queried, Key: "nobody"}, nil, 1, 0},
		{"unfinished", routing.Filter{Statuses: unfinished}, l.unfinished, 1, len(l.unfinished)},
		{"unfinished of an object", routing.Filter{Service: queried, Key: "k3", Statuses: unfinished[:1]}, nil, 1, 2},
		{"finished and not", routing.Filter{Statuses: append([]recordv1.Status{recordv1.Status_STATUS_SUCCEEDED}, unfinished...)}, l.all, 4, 2 * total},
		{"up to one", routing.Filter{Until: l.all[1500]}, l.all[:1501], 2, 2 * 1501},
		{"between two", routing.Filter{After: l.all[9], Until: l.all[12]}, l.all[10:13], 1, 3},
		{"an empty range", routing.Filter{After: l.all[9], Until: l.all[9]}, nil, 1, 0},
		{"after the last", routing.Filter{After: l.all[total-1]}, nil, 1, 0},
	} {
		t.Run(test.name, func(t *testing.T) {
			found, pages, scanned := l.walk(t, test.filter)
			switch test.name {
			case "few match":
				if len(found) != len(l.unfinished)/2 {
					t.Errorf("%d found, want %d", len(found), len(l.unfinished)/2)
				}
			case "unfinished of an object":
				if len(found) != 1 || !slices.Contains(l.byKey["k3"], found[0]) {
					t.Errorf("found %v", found)
				}
			default:
				if !slices.Equal(found, test.want) {
					t.Errorf("%d found, in order: %v; want %d", len(found), slices.IsSortedFunc(found, compareIDs), len(test.want))
				}
			}
			if pages > test.pages || scanned > test.scanned {
				t.Errorf("%d pages and %d rows looked at, at most %d and %d wanted", pages, scanned, test.pages, test.scanned)
			}
		})
	}
	found, err := l.Invocations(t.Context(), routing.Filter{Handler: "Hang", Scan: 10})
	if err != nil || len(found) != len(l.unfinished)/2 {
		t.Errorf("Invocations: %d, %v", len(found), err)
	}
	gone, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := l.InvocationsPage(gone, routing.Filter{}); err != context.Canceled {
		t.Errorf("a caller that went away gets %v", err)
	}
}

func TestJournalPages(t *testing.T) {
	n := startQueried(t, 1)
	const entries = 2500
	in, id := asked("Walk", "k", fmt.Sprint("- 1 ", entries+1, " 10"), invocation.ModeDurable)
	if _, err := n.Call(t.Context(), in); err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		limit int
		pages []int
	}{
		{1000, []int{1000, 1000, 500}}, {1250, []int{1000, 1000, 500}}, {-1, []int{1000, 1000, 500}},
		{500, []int{500, 500, 500, 500, 500}},
	} {
		var sizes []int
		after := uint32(0)
		for {
			page, err := n.Journal(t.Context(), id, after, test.limit)
			if err != nil {
				t.Fatal(err)
			}
			if page.After != after || !bytes.Equal(page.Row.Input, in.Input) || page.Row.Entries != entries || len(page.Completions) != len(page.Journal) {
				t.Fatalf("after %d: page after %d with %d entries, %d completions, input %q", after, page.After, len(page.Journal), len(page.Completions), page.Row.Input)
			}
			for i, entry := range page.Journal {
				index := after + uint32(i) + 1
				want := fmt.Sprint(index)
				if entry.GetRun().GetName() != want || !strings.HasPrefix(string(page.Completions[index].GetResult().GetValue()), want+"v") {
					t.Fatalf("entry %d is %v, its completion %v", index, entry, page.Completions[index])
				}
			}
			sizes = append(sizes, len(page.Journal))
			after += uint32(len(page.Journal))
			if !page.More {
				break
			}
		}
		if !slices.Equal(sizes, test.pages) {
			t.Errorf("limit %d: pages of %v, want %v", test.limit, sizes, test.pages)
		}
	}
	for _, after := range []uint32{entries, entries + 10, ^uint32(0)} {
		if page, err := n.Journal(t.Context(), id, after, 10); err != nil || len(page.Journal) != 0 || page.More {
			t.Errorf("after %d: %v, %v", after, page, err)
		}
	}
	if page, err := n.Journal(t.Context(), id, 0, 0); err != nil || len(page.Journal) != 0 || len(page.Row.Input) == 0 {
		t.Errorf("without entries: %v, %v", page, err)
	}
	if page, err := n.Invocation(t.Context(), id); err != nil || len(page.Journal) != routing.MaxPage || !page.More {
		t.Errorf("Invocation: %d entries, %v", len(page.Journal), err)
	}
	_, none := asked("Walk", "k", "", invocation.ModeDurable)
	if _, err := n.Invocation(t.Context(), none); err == nil || !strings.Contains(err.Error(), "no invocation "+none.String()) {
		t.Errorf("of none: %v", err)
	}
}

// TestJournalPageIsBounded has completions of 1 MiB, of which about 4 fit a page.
func TestJournalPageIsBounded(t *testing.T) {
	n := startQueried(t, 1)
	in, id := asked("Walk", "k", fmt.Sprint("- 1 ", 11, " ", 1<<20), invocation.ModeDurable)
	if _, err := n.Call(t.Context(), in); err != nil {
		t.Fatal(err)
	}
	pages := 0
	for after := uint32(0); after < 10; pages++ {
		page, err := n.Journal(t.Context(), id, after, 100)
		if err != nil {
			t.Fatal(err)
		}
		if len(page.Journal) == 0 || len(page.Journal) > 5 || len(page.Completions) != len(page.Journal) {
			t.Fatalf("a page has %d entries and %d completions", len(page.Journal), len(page.Completions))
		}
		after += uint32(len(page.Journal))
		if page.More != (after < 10) {
			t.Errorf("after %d entries: more is %v", after, page.More)
		}
	}
	if pages > 4 {
		t.Errorf("%d pages", pages)
	}
}

func TestStatePages(t *testing.T) {
	n := startQueried(t, 2)
	const rows = 12_000
	fill := func(table string, from, to, size int) {
		t.Helper()
		in, _ := asked("Fill", "k", fmt.Sprint(table, " ", from, " ", to, " ", size), invocation.ModeTransaction)
		if result, err := n.Call(t.Context(), in); err != nil || result.Error != nil {
			t.Fatal(result, err)
		}
	}
	for from := 0; from < rows; from += 1000 {
		fill("many", from, from+1000, 10)
	}
	fill("few", 0, 5, 10)
	for from := range 8 {
		fill("large", from, from+1, 1<<20)
	}
	object := invocation.Object{Service: queried, Key: "k"}
	state, err := n.StatePage(t.Context(), routing.StateQuery{Object: object, Limit: 7})
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]routing.Table{
		"many": {Size: rows, Rows: make([]routing.TableRow, 7), More: true},
		"few":  {Size: 5, Rows: make([]routing.TableRow, 5)},
	} {
		if got := state.Tables[name]; got == nil || got.Size != want.Size || len(got.Rows) != len(want.Rows) || got.More != want.More {
			t.Errorf("table %s is %+v", name, got)
		}
	}
	if large := state.Tables["large"]; large == nil || large.Size != 8 || len(large.Rows) == 0 || len(large.Rows) > 5 || !large.More {
		t.Errorf("the large table's page is not bounded")
	}
	seen := 0
	query := routing.StateQuery{Object: object, Table: "many"}
	for {
		if state, err = n.StatePage(t.Context(), query); err != nil {
			t.Fatal(err)
		}
		page := state.Tables["many"]
		if page == nil || page.Size != rows || len(state.Tables) != 1 {
			t.Fatalf("a page of %+v", state.Tables)
		}
		for _, row := range page.Rows {
			if want := fmt.Sprintf("%06d", seen); row.Key != want || len(row.Value) != 10 {
				t.Fatalf("row %d is %q with %d bytes", seen, row.Key, len(row.Value))
			}
			seen++
		}
		if !page.More {
			break
		}
		query.From = page.Rows[len(page.Rows)-1].Key + "\x00"
	}
	if seen != rows {
		t.Errorf("the pages held %d of %d rows", seen, rows)
	}
	if state, err = n.StatePage(t.Context(), routing.StateQuery{Object: object, Table: "none"}); err != nil || len(state.Tables) != 0 {
		t.Errorf("a table without rows: %v, %v", state, err)
	}
}
