package peer

import (
	"fmt"
	"reflect"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/protobuf/proto"

	bankv1 "github.com/perdure/perdure/examples/bank/gen/bank/v1"
	"github.com/perdure/perdure/internal/invocation"
	recordv1 "github.com/perdure/perdure/internal/record/v1"
	"github.com/perdure/perdure/internal/routing"
	"github.com/perdure/perdure/internal/schedule"
)

// same reports whether two values are the same, protobuf messages inside them by what they say.
func same(a, b any) bool { return text(reflect.ValueOf(a)) == text(reflect.ValueOf(b)) }

// text writes a value out. Empty and nil are the same.
func text(v reflect.Value) string {
	if !v.IsValid() {
		return "nil"
	}
	if v.CanInterface() {
		switch x := v.Interface().(type) {
		case proto.Message:
			if v.IsNil() {
				return "nil"
			}
			data, err := proto.MarshalOptions{Deterministic: true}.Marshal(x)
			return fmt.Sprintf("%T %x %v", x, data, err)
		case time.Time:
			return fmt.Sprint(x.UnixMilli(), x.IsZero())
		case []byte:
			return fmt.Sprintf("%x", x)
		}
	}
	var out []string
	switch v.Kind() {
	case reflect.Pointer, reflect.Interface:
		return text(v.Elem())
	case reflect.Struct:
		for i := range v.NumField() {
			out = append(out, v.Type().Field(i).Name+": "+text(v.Field(i)))
		}
	case reflect.Slice, reflect.Array:
		for i := range v.Len() {
			out = append(out, text(v.Index(i)))
		}
	case reflect.Map:
		for _, key := range v.MapKeys() {
			out = append(out, text(key)+": "+text(v.MapIndex(key)))
		}
		slices.Sort(out)
	default:
		return fmt.Sprint(v)
	}
	return "{" + strings.Join(out, ", ") + "}"
}

// TestMethods: each method of a node that does not lead does and answers the same as one of the
// node that does.
func TestMethods(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 2, 2, 1)
		ctx := t.Context()
		far, near := w.at(1, false), w.at(1, true)
		key := w.keyIn(1, 0)
		object := invocation.Object{Service: bankAccount, Key: key}
		// compare asks both.
		compare := func(what string, ask func(r routing.Router) (any, error)) any {
			t.Helper()
			sent := w.sent.Load()
			got, err := ask(far)
			if w.sent.Load() == sent {
				t.Errorf("%s: nothing went over the network", what)
			}
			want, wantErr := ask(near.local)
			if !same(got, want) || code(err) != code(wantErr) || err != nil && err.Error() != wantErr.Error() {
				t.Errorf("%s:\n %s, %v\nwant\n %s, %v", what, text(reflect.ValueOf(got)), err, text(reflect.ValueOf(want)), wantErr)
			}
			return got
		}
		in := deposit(key, "first", 10)
		for range 2 {
			if result, err := far.Call(ctx, in); err != nil || result.Error != nil {
				t.Fatal(result, err)
			}
		}
		for i, want := range []bool{false, true} {
			if previously, err := far.Send(ctx, deposit(key, "second", 10)); err != nil || previously != want {
				t.Errorf("send %d: %t, %v", i, previously, err)
			}
		}
		if _, err := far.Call(ctx, deposit(key, "first", 11)); code(err) != routing.CodeAlreadyExists {
			t.Errorf("another request of the same key: %v", err)
		}
		w.until("the sent one has ended", func() bool { got, err := far.balance(ctx, key); return err == nil && got == 20 })
		compare("read", func(r routing.Router) (any, error) {
			return r.Read(ctx, invoke(bankAccount, key, "Balance", invocation.ModeRead, "", &bankv1.BalanceRequest{AccountId: key}))
		})
		id := idFrom(in.InvocationId)
		unknown := invocation.NewID(0, [16]byte{9}) // of partition 1
		for _, id := range []invocation.ID{id, unknown} {
			compare("attach", func(r routing.Router) (any, error) { return r.Attach(ctx, id) })
			compare("invocation", func(r routing.Router) (any, error) { return r.Invocation(ctx, id) })
			compare("cancel", func(r routing.Router) (any, error) { return nil, r.Cancel(ctx, id, false) })
			compare("pause", func(r routing.Router) (any, error) { return nil, r.Pause(ctx, id) })
			compare("resume", func(r routing.Router) (any, error) { return nil, r.Resume(ctx, id, "") })
			compare("restart", func(r routing.Router) (any, error) { return r.RestartAsNew(ctx, id, 0, "x") })
			compare("awakeable", func(r routing.Router) (any, error) {
				return nil, r.CompleteAwakeable(ctx, invocation.AwakeableID{Invocation: id, Entry: 3}.String(), &recordv1.Result{})
			})
		}
		if err := far.CompleteAwakeable(ctx, "nonsense", nil); code(err) != routing.CodeInvalidArgument {
			t.Errorf("nonsense: %v", err)
		}
		state := compare("state", func(r routing.Router) (any, error) {
			return r.StatePage(ctx, routing.StateQuery{Object: object})
		}).(*routing.ObjectState)
		if len(state.Tables["ledger"].Rows) != 2 {
			t.Errorf("the ledger has %v", state.Tables["ledger"])
		}
		for _, query := range []routing.StateQuery{{Object: object, Table: "ledger", From: "11"}, {Object: object, Table: "ledger", Limit: 1}, {Object: object, Table: "none"}} {
			compare(fmt.Sprint("state ", query), func(r routing.Router) (any, error) { return r.StatePage(ctx, query) })
		}

		// One that waits: paused, resumed, completed from outside, purged, restarted.
		waits := invoke(bankAccount, w.keyIn(1, 1), "CloseOut", invocation.ModeDurable, "", &bankv1.CloseOutRequest{Iban: "wait"})
		waiting := idFrom(waits.InvocationId)
		if _, err := far.Send(ctx, waits); err != nil {
			t.Fatal(err)
		}
		status := func(want recordv1.Status) {
			t.Helper()
			w.until("it is "+want.String(), func() bool {
				detail, err := far.Journal(ctx, waiting, 0, 0)
				return err == nil && detail.Row.Status == want
			})
		}
		steps := func(errs ...error) {
			t.Helper()
			for _, err := range errs {
				if err != nil {
					t.Error(err)
				}
			}
		}
		status(recordv1.Status_STATUS_SUSPENDED)
		steps(far.Pause(ctx, waiting))
		status(recordv1.Status_STATUS_PAUSED)
		steps(far.Resume(ctx, waiting, ""))
		status(recordv1.Status_STATUS_SUSPENDED)
		waitsFor, err := far.Journal(ctx, waiting, 0, 1)
		if err != nil {
			t.Fatal(err)
		}
		awakeable := invocation.AwakeableID{Invocation: waiting, Entry: 1, Nonce: waitsFor.Journal[0].GetAwakeable().GetNonce()}.String()
		hello := &recordv1.Result{Value: []byte(`"hello"`)}
		steps(far.CompleteAwakeable(ctx, awakeable, hello), far.CompleteAwakeable(ctx, awakeable, hello))
		if err := far.CompleteAwakeable(ctx, awakeable, &recordv1.Result{}); code(err) != routing.CodeFailedPrecondition {
			t.Errorf("another result: %v", err)
		}
		status(recordv1.Status_STATUS_SUCCEEDED)
		detail := compare("journal", func(r routing.Router) (any, error) { return r.Journal(ctx, waiting, 0, 10) }).(*routing.InvocationDetail)
		if len(detail.Journal) == 0 || len(detail.Completions) == 0 {
			t.Errorf("the journal has %d entries and %d completions", len(detail.Journal), len(detail.Completions))
		}
		compare("journal's second page", func(r routing.Router) (any, error) { return r.Journal(ctx, waiting, 1, 1) })
		one, err := far.RestartAsNew(ctx, waiting, 1, "again")
		two, err2 := far.RestartAsNew(ctx, waiting, 1, "again")
		if err != nil || err2 != nil || one != two || one == waiting {
			t.Errorf("restarted as %s, %v and %s, %v", one, err, two, err2)
		}
		if _, err := far.Attach(ctx, one); err != nil {
			t.Error(err)
		}
		steps(far.Purge(ctx, waiting))
		if _, err := far.Invocation(ctx, waiting); code(err) != routing.CodeNotFound {
			t.Errorf("purged: %v", err)
		}
		kept := invoke(bankAccount, w.keyIn(1, 1), "CloseOut", invocation.ModeDurable, "", &bankv1.CloseOutRequest{Iban: "wait"})
		if _, err := far.Send(ctx, kept); err != nil {
			t.Fatal(err)
		}
		steps(far.Cancel(ctx, idFrom(kept.InvocationId), true))
		if result, err := far.Attach(ctx, idFrom(kept.InvocationId)); err != nil || result.Error == nil {
			t.Errorf("killed: %v, %v", result, err)
		}

		promised := &recordv1.Result{Value: []byte("promised")}
		steps(far.CompletePromise(ctx, object, "p", promised), near.local.CompletePromise(ctx, object, "p", promised))
		if err := far.CompletePromise(ctx, object, "p", hello); code(err) != routing.CodeFailedPrecondition {
			t.Errorf("another promise: %v", err)
		}

		name := "every"
		for schedule.ID(name).Partition(2) != 1 {
			name += "!"
		}
		put := &recordv1.ScheduleChange{Change: &recordv1.ScheduleChange_Put{Put: &recordv1.PutSchedule{Schedule: &recordv1.Schedule{
			Name: name, Timetable: &recordv1.Timetable{EveryMs: 3_600_000}, Paused: true, Invoke: deposit(key, "", 1),
		}}}}
		if reply, err := far.ChangeSchedule(ctx, name, put); err != nil || reply.Schedule.Name != name {
			t.Fatal(reply, err)
		}
		compare("schedule", func(r routing.Router) (any, error) { return r.Schedule(ctx, name) })
		compare("no schedule", func(r routing.Router) (any, error) { return r.Schedule(ctx, name+"?"+name) })

		// A request that is too large says so, and is not sent.
		far.maxBytes = 1000
		sent := w.sent.Load()
		if _, err := far.Call(ctx, deposit(key, strings.Repeat("x", 1000), 1)); code(err) != routing.CodeResourceExhausted || w.sent.Load() != sent {
			t.Errorf("too large: %v", err)
		}
		far.maxBytes = 1 << 20
		if err := far.CompletePromise(ctx, object, "\xff", hello); code(err) != routing.CodeInvalidArgument {
			t.Errorf("a name that is no UTF-8: %v", err)
		}
	})
}

// TestLists: what nodes list together is what one node with all of it lists.
func TestLists(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const partitions = 5
		w := newWorld(t, 3, partitions, 1)
		ctx := t.Context()
		for i := range 60 {
			key := w.keyIn(uint32(i%partitions)+1, i%3)
			if _, err := w.nodes[uint64(i%3)+1].Call(ctx, deposit(key, fmt.Sprint("k", i), 1)); err != nil {
				t.Fatal(err)
			}
			name := fmt.Sprintf("s%02d", i)
			if _, err := w.nodes[1].ChangeSchedule(ctx, name, &recordv1.ScheduleChange{Change: &recordv1.ScheduleChange_Put{Put: &recordv1.PutSchedule{Schedule: &recordv1.Schedule{
				Name: name, Timetable: &recordv1.Timetable{EveryMs: 3_600_000}, Paused: true, Invoke: deposit(key, "", 1),
			}}}}); err != nil {
				t.Fatal(err)
			}
		}
		limits := []*recordv1.Limit{{Name: bankAccount + "/l", Concurrency: 1, UntilDone: true}}
		for i := range 8 { // One has the permit, four wait for it, and three for the key of another one.
			in := invoke(bankAccount, w.keyIn(uint32(i%partitions)+1, 4), "CloseOut", invocation.ModeDurable, "", &bankv1.CloseOutRequest{Iban: "wait"})
			in.Flow = &recordv1.Flow{Tenant: fmt.Sprint("t", i%2), Limits: limits}
			if _, err := w.nodes[2].Send(ctx, in); err != nil {
				t.Fatal(err)
			}
		}
		time.Sleep(3 * time.Second)
		synctest.Wait()
		// The same data on one node. Nobody writes any more.
		alone := newWorldOn(t, 1, w.groups)
		for _, filter := range []routing.Filter{
			{}, {Limit: 7}, {Limit: 7, Scan: 10}, {Limit: 1000, Scan: 1}, {Service: bankAccount, Key: w.keyIn(3, 0), Limit: 2},
			{KeyPrefix: "a1"}, {Handler: "CloseOut", Limit: 3}, {Statuses: []recordv1.Status{recordv1.Status_STATUS_QUEUED, recordv1.Status_STATUS_SUSPENDED}, Limit: 3},
			{CreatedFrom: 1, Limit: 50}, {CreatedBefore: 1},
		} {
			all := func(r routing.Router) (ids []string) {
				f := filter
				for pages := 0; ; pages++ {
					page, err := r.InvocationsPage(ctx, f)
					if err != nil {
						t.Fatal(err)
					}
					if f.Limit > 0 && len(page.Found) > f.Limit {
						t.Errorf("%+v: a page has %d", filter, len(page.Found))
					}
					for _, found := range page.Found {
						ids = append(ids, found.ID.String()+text(reflect.ValueOf(found.Row)))
					}
					if f.After = page.Next; f.After.IsZero() {
						return ids
					}
					if pages > 1000 {
						t.Fatalf("%+v: it does not end", filter)
					}
				}
			}
			want := all(alone.nodes[1])
			for _, n := range w.nodes {
				if got := all(n); !slices.Equal(got, want) {
					t.Errorf("node %d, %+v: %d invocations, want %d, or in another order", n.id, filter, len(got), len(want))
				}
			}
			if len(want) == 0 && filter.CreatedBefore == 0 {
				t.Errorf("%+v finds nothing", filter)
			}
		}
		for _, query := range []routing.ScheduleQuery{{}, {Limit: 7}, {Prefix: "s1", Limit: 3}, {After: "s30"}, {Prefix: "none"}} {
			all := func(r routing.Router) (names []string) {
				q := query
				for {
					page, err := r.SchedulesPage(ctx, q)
					if err != nil {
						t.Fatal(err)
					}
					for _, found := range page.Found {
						names = append(names, text(reflect.ValueOf(found)))
					}
					if q.After = page.Next; q.After == "" {
						return names
					}
				}
			}
			want := all(alone.nodes[1])
			for _, n := range w.nodes {
				if got := all(n); !slices.Equal(got, want) {
					t.Errorf("node %d, %+v: %d schedules, want %d, or in another order", n.id, query, len(got), len(want))
				}
			}
		}
		for _, query := range []routing.LimitQuery{{}, {Name: bankAccount + "/l"}, {Waiting: true}, {Service: "none"}} {
			first, err := w.nodes[1].Limits(ctx, query)
			if err != nil {
				t.Fatal(err)
			}
			if (query.Service == "") != (len(first) == 1) {
				t.Errorf("%+v: %d limits", query, len(first))
			}
			for _, n := range w.nodes {
				if got, err := n.Limits(ctx, query); err != nil || !same(got, first) {
					t.Errorf("node %d, %+v: %v, %v, want %v", n.id, query, got, err, first)
				}
			}
			if query.Name != "" && (first[0].Held != 1 || first[0].Waiting != 4 || len(first[0].Queue) != 4) {
				t.Errorf("%+v", first)
			}
		}
		// A partition without a leader is missed.
		w.cut.Store(uint64(2), true)
		began := time.Now()
		for what, list := range map[string]func() error{
			"invocations":  func() error { _, err := w.nodes[1].InvocationsPage(ctx, routing.Filter{}); return err },
			"schedules":    func() error { _, err := w.nodes[1].SchedulesPage(ctx, routing.ScheduleQuery{}); return err },
			"transactions": func() error { _, err := w.nodes[1].Transactions(ctx); return err },
			"limits":       func() error { _, err := w.nodes[1].Limits(ctx, routing.LimitQuery{}); return err },
		} {
			if err := list(); code(err) != routing.CodeUnavailable || !strings.Contains(err.Error(), "partitions 1, 4 have no leader that can be reached from here") {
				t.Errorf("%s: %v", what, err)
			}
		}
		if took := time.Since(began); took > 15*time.Second {
			t.Errorf("four lists took %s", took)
		}
	})
}

// TestTransactionsElsewhere: transactions that are under way are seen from everywhere.
func TestTransactionsElsewhere(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 3, 3, 1)
		ctx := t.Context()
		from, to := w.keyIn(1, 0), w.keyIn(2, 0)
		if _, err := w.nodes[1].Call(ctx, deposit(from, "", 10)); err != nil {
			t.Fatal(err)
		}
		// Its participant can't promise.
		w.lost.Store(1000)
		go func() {
			_, _ = w.nodes[3].Call(ctx, invoke(bankTransfer, "", "Transfer", invocation.ModeTransaction, "t", &bankv1.TransferRequest{From: from, To: to, Amount: 1}))
		}()
		time.Sleep(100 * time.Millisecond)
		first, err := w.nodes[1].Transactions(ctx)
		if err != nil || len(first) == 0 || !first[0].Coordinator || first[0].Target.Handler != "Transfer" {
			t.Errorf("%+v, %v", first, err)
		}
		for _, n := range w.nodes {
			if got, err := n.Transactions(ctx); err != nil || !same(got, first) {
				t.Errorf("node %d: %+v, %v, want %+v", n.id, got, err, first)
			}
		}
		w.lost.Store(0)
		w.until("it has ended", func() bool { all, err := w.nodes[1].Transactions(ctx); return err == nil && len(all) == 0 })
		if got, err := w.nodes[2].balance(ctx, to); err != nil || got != 1 {
			t.Errorf("%d, %v", got, err)
		}
	})
}
