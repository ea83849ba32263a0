package admin

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protodesc"

	"connectrpc.com/connect/v2"
	"connectrpc.com/connect/v2/connecthttp"

	"github.com/perdure/perdure/actor"
	bankv1 "github.com/perdure/perdure/examples/bank/gen/bank/v1"
	bank "github.com/perdure/perdure/examples/bank/gen/bank/v1/bankv1perdure"
	shopv1 "github.com/perdure/perdure/examples/orders/gen/shop/v1"
	shop "github.com/perdure/perdure/examples/orders/gen/shop/v1/shopv1perdure"
	"github.com/perdure/perdure/internal/ingress"
	"github.com/perdure/perdure/internal/invocation"
	recordv1 "github.com/perdure/perdure/internal/record/v1"
	"github.com/perdure/perdure/internal/routing"
	"github.com/perdure/perdure/internal/routing/routingtest"
	adminv1 "github.com/perdure/perdure/proto/perdure/admin/v1"
	perdurev1 "github.com/perdure/perdure/proto/perdure/v1"
)

// descs collects what generated code registers.
type descs []*actor.ServiceDesc

func (d *descs) RegisterService(desc *actor.ServiceDesc, _ any) { *d = append(*d, desc) }

func services() []*actor.ServiceDesc {
	var d descs
	bank.RegisterAccountHandler(&d, bank.UnimplementedAccountHandler{})
	bank.RegisterTransferHandler(&d, bank.UnimplementedTransferHandler{})
	shop.RegisterOrderHandler(&d, shop.UnimplementedOrderHandler{})
	return d
}

// router has what it is given.
type router struct {
	routingtest.Fake
	// rows in the order of their ids.
	rows    []routing.InvocationDetail
	detail  *routing.InvocationDetail
	state   *routing.ObjectState
	filters []routing.Filter
	// budget of rows that a page looks at, 0 for none.
	budget int
	block  bool
}

func (r *router) InvocationsPage(ctx context.Context, filter routing.Filter) (*routing.InvocationsPage, error) {
	r.filters = append(r.filters, filter)
	if r.block {
		<-ctx.Done()
		return nil, ctx.Err()
	}
	page := &routing.InvocationsPage{}
	for _, row := range r.rows {
		switch {
		case row.ID.String() <= filter.After.String() || !filter.Until.IsZero() && row.ID.String() > filter.Until.String():
			continue
		case len(page.Found) == routing.MaxPage || r.budget > 0 && page.Scanned == r.budget:
			return page, nil
		}
		page.Scanned++
		page.Next = row.ID
		if filter.Handler == "" || filter.Handler == row.Row.GetTarget().GetHandler() {
			page.Found = append(page.Found, row)
		}
	}
	page.Next = invocation.ID{}
	return page, nil
}

func (r *router) Journal(_ context.Context, id invocation.ID, after uint32, limit int) (*routing.InvocationDetail, error) {
	if r.detail == nil || r.detail.ID != id {
		return nil, routing.Errorf(routing.CodeNotFound, "no invocation %s", id)
	}
	page := *r.detail
	page.After, page.Journal = after, page.Journal[min(int(after), len(page.Journal)):]
	page.More = len(page.Journal) > limit
	page.Journal = page.Journal[:min(limit, len(page.Journal))]
	return &page, nil
}

func (r *router) Cancel(context.Context, invocation.ID, bool) error { return nil }

func (r *router) StatePage(_ context.Context, query routing.StateQuery) (*routing.ObjectState, error) {
	state := &routing.ObjectState{State: r.state.State, Has: r.state.Has, Tables: map[string]*routing.Table{}}
	for name, whole := range r.state.Tables {
		if query.Table != "" && query.Table != name {
			continue
		}
		page := &routing.Table{Size: uint64(len(whole.Rows))}
		for _, row := range whole.Rows {
			if page.More = len(page.Rows) == query.Limit; page.More {
				break
			}
			if row.Key >= query.From {
				page.Rows = append(page.Rows, row)
			}
		}
		state.Tables[name] = page
	}
	return state, nil
}

func newService(t *testing.T, r routing.Router) *Service {
	t.Helper()
	s, err := New(Config{Router: r, Services: services(), Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func number(n int) invocation.ID {
	return invocation.NewID(uint64(n), [16]byte{15: byte(n)})
}

func encode(t *testing.T, message proto.Message) []byte {
	t.Helper()
	data, err := proto.Marshal(message)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

func wantCode(t *testing.T, err error, code routing.Code, text string) {
	t.Helper()
	failed, ok := errors.AsType[*routing.Error](err)
	if !ok || failed.Code != code || !strings.Contains(failed.Message, text) {
		t.Errorf("got error %v, want code %d with %q", err, code, text)
	}
}

func TestStatusNumbersAreThoseOfTheRecord(t *testing.T) {
	if len(recordv1.Status_name) != len(adminv1.InvocationStatus_name) {
		t.Fatalf("the record has %d statuses, AdminService %d", len(recordv1.Status_name), len(adminv1.InvocationStatus_name))
	}
	for n, name := range recordv1.Status_name {
		if got := adminv1.InvocationStatus_name[n]; got != "INVOCATION_"+name {
			t.Errorf("status %d is %s in the record and %s in AdminService", n, name, got)
		}
	}
}

// TestListPages walks 2,500 invocations whose age has nothing to do with their ids.
func TestListPages(t *testing.T) {
	const total = 2500
	r := &router{}
	for n := 1; n <= total; n++ {
		row := &recordv1.Invocation{CreatedAt: int64(1 + n*7919%total/2), Target: &recordv1.Target{Service: "s"}}
		r.rows = append(r.rows, routing.InvocationDetail{ID: number(n), Row: row})
	}
	s := newService(t, r)
	seen := map[string]bool{}
	request := &adminv1.ListInvocationsRequest{PageSize: 300}
	var sizes []int
	for {
		page, err := s.listInvocations(t.Context(), request)
		if err != nil {
			t.Fatal(err)
		}
		sizes = append(sizes, len(page.Invocations))
		for i, inv := range page.Invocations {
			if seen[inv.Id] {
				t.Fatalf("%s is in two pages", inv.Id)
			}
			seen[inv.Id] = true
			if i > 0 && inv.CreatedAt.AsTime().After(page.Invocations[i-1].CreatedAt.AsTime()) {
				t.Fatalf("%s is newer than the one before it", inv.Id)
			}
		}
		if request.PageToken = page.NextPageToken; request.PageToken == "" {
			break
		}
	}
	if len(seen) != total {
		t.Errorf("the pages held %d of %d invocations", len(seen), total)
	}
	if want := []int{300, 300, 300, 100, 300, 300, 300, 100, 300, 200}; !slices.Equal(sizes, want) {
		t.Errorf("pages of %v, want %v", sizes, want)
	}
}

// TestListGoesOnPastWhatDoesNotMatch has a router that looks at 100 rows a page, of which hardly
// any match.
func TestListGoesOnPastWhatDoesNotMatch(t *testing.T) {
	const total = 1050
	r := &router{budget: 100}
	for n := 1; n <= total; n++ {
		handler := "Common"
		if n%400 == 0 {
			handler = "Rare"
		}
		r.rows = append(r.rows, routing.InvocationDetail{ID: number(n), Row: &recordv1.Invocation{Target: &recordv1.Target{Service: "s", Handler: handler}}})
	}
	s := newService(t, r)
	request := &adminv1.ListInvocationsRequest{Service: "s", Handler: "Rare"}
	found, pages, scanned := 0, 0, uint64(0)
	for {
		page, err := s.listInvocations(t.Context(), request)
		if err != nil {
			t.Fatal(err)
		}
		found, pages, scanned = found+len(page.Invocations), pages+1, scanned+page.Scanned
		if request.PageToken = page.NextPageToken; request.PageToken == "" {
			break
		}
	}
	if found != 2 || pages != 11 || scanned != total {
		t.Errorf("%d found on %d pages after %d rows, want 2 on 11 after %d", found, pages, scanned, total)
	}
}

// TestListWindowStaysWhereItWas: rows that vanish between two pages pull none of the next
// window's into this one, where a newer one would be taken for one that was shown.
func TestListWindowStaysWhereItWas(t *testing.T) {
	r := &router{}
	for n := 1; n <= 1500; n++ {
		r.rows = append(r.rows, routing.InvocationDetail{ID: number(n), Row: &recordv1.Invocation{CreatedAt: int64(n)}})
	}
	s := newService(t, r)
	seen := map[string]bool{}
	request := &adminv1.ListInvocationsRequest{PageSize: 600}
	for {
		page, err := s.listInvocations(t.Context(), request)
		if err != nil {
			t.Fatal(err)
		}
		for _, inv := range page.Invocations {
			if seen[inv.Id] {
				t.Errorf("%s is in two pages", inv.Id)
			}
			seen[inv.Id] = true
		}
		if len(r.rows) == 1500 { // after the first page: the oldest 300 are gone
			r.rows = r.rows[300:]
		}
		if request.PageToken = page.NextPageToken; request.PageToken == "" {
			break
		}
	}
	for _, row := range r.rows {
		if !seen[row.ID.String()] {
			t.Fatalf("%s, created at %d, is in no page", row.ID, row.Row.CreatedAt)
		}
	}
}

func TestListFilters(t *testing.T) {
	r := &router{}
	s := newService(t, r)
	_, err := s.listInvocations(t.Context(), &adminv1.ListInvocationsRequest{
		Service: "a.B", Key: "k", Handler: "H", Deployment: "d",
		Status: []adminv1.InvocationStatus{adminv1.InvocationStatus_INVOCATION_STATUS_PAUSED},
	})
	if err != nil {
		t.Fatal(err)
	}
	got := r.filters[0]
	if got.Service != "a.B" || got.Key != "k" || got.Handler != "H" || got.Deployment != "d" || !slices.Equal(got.Statuses, []recordv1.Status{recordv1.Status_STATUS_PAUSED}) {
		t.Errorf("the router was asked for %+v", got)
	}
	for _, bad := range []struct {
		request *adminv1.ListInvocationsRequest
		text    string
	}{
		{&adminv1.ListInvocationsRequest{Key: "k"}, "set service too"},
		{&adminv1.ListInvocationsRequest{PageSize: 1001}, "at most 1000"},
		{&adminv1.ListInvocationsRequest{PageToken: "x"}, "pageToken"},
		{&adminv1.ListInvocationsRequest{Status: []adminv1.InvocationStatus{99}}, "status 99"},
	} {
		_, err := s.listInvocations(t.Context(), bad.request)
		wantCode(t, err, routing.CodeInvalidArgument, bad.text)
	}
}

func target(service, key, handler string) *recordv1.Target {
	return &recordv1.Target{Service: service, Key: key, Handler: handler}
}

// TestJournal has one entry of each kind.
func TestJournal(t *testing.T) {
	phase := shopv1.OrderState_builder{Phase: new("paying")}.Build()
	deposit := encode(t, &bankv1.DepositRequest{AccountId: "a", Amount: 5})
	callee := invocation.NewID(1, [16]byte{1})
	invoke := &recordv1.Invoke{InvocationId: callee[:], Target: target(bank.AccountServiceName, "a", "Deposit"), Input: deposit}
	at := int64(1_000)
	entries := []*recordv1.Entry{
		{Entry: &recordv1.Entry_Call{Call: &recordv1.Call{Invoke: invoke}}},
		{Entry: &recordv1.Entry_Send{Send: &recordv1.Send{Invoke: invoke}}},
		{Entry: &recordv1.Entry_Sleep{Sleep: &recordv1.Sleep{Until: at + 90_000}}},
		{Entry: &recordv1.Entry_Run{Run: &recordv1.Run{Name: "pay"}}},
		{Entry: &recordv1.Entry_SetState{SetState: &recordv1.SetState{Value: encode(t, phase)}}},
		{Entry: &recordv1.Entry_SetState{SetState: &recordv1.SetState{Clear: true}}},
		{Entry: &recordv1.Entry_TablePut{TablePut: &recordv1.TablePut{Table: "old", Key: "k", Value: []byte("??")}}},
		{Entry: &recordv1.Entry_TablePut{TablePut: &recordv1.TablePut{Table: "old", Key: "k", Delete: true}}},
		{Entry: &recordv1.Entry_Awakeable{Awakeable: &recordv1.Awakeable{}}},
		{Entry: &recordv1.Entry_AwaitPromise{AwaitPromise: &recordv1.AwaitPromise{Name: "courier"}}},
		{Entry: &recordv1.Entry_CompletePromise{CompletePromise: &recordv1.CompletePromise{Name: "courier", Result: &recordv1.Result{}}}},
		{Entry: &recordv1.Entry_Receive{Receive: &recordv1.Receive{Name: "Approve"}}},
		{Entry: &recordv1.Entry_CompleteAwakeable{CompleteAwakeable: &recordv1.CompleteAwakeable{AwakeableId: "awk_1", Result: &recordv1.Result{Value: []byte(`[ 1 ]`)}}}},
		{Entry: &recordv1.Entry_Wait{Wait: &recordv1.Wait{Futures: []uint32{3, 9}, Winner: 1, Outcome: recordv1.WaitOutcome_WAIT_OUTCOME_COMPLETED}}},
		{Entry: &recordv1.Entry_Wait{Wait: &recordv1.Wait{Outcome: recordv1.WaitOutcome_WAIT_OUTCOME_CANCELLED}}},
		{Entry: &recordv1.Entry_CancelInvocation{CancelInvocation: &recordv1.CancelInvocation{InvocationId: callee[:]}}},
		{Entry: &recordv1.Entry_Version{Version: &recordv1.Version{Change: "fraud", Version: 2}}},
		{Entry: &recordv1.Entry_StopTimer{StopTimer: &recordv1.StopTimer{Entry: 3}}},
		{Entry: &recordv1.Entry_Attach{Attach: &recordv1.Attach{InvocationId: callee[:]}}},
		{Entry: &recordv1.Entry_Attach{Attach: &recordv1.Attach{InvocationId: callee[:], Peek: true}}},
		{Entry: &recordv1.Entry_Wait{Wait: &recordv1.Wait{Outcome: recordv1.WaitOutcome_WAIT_OUTCOME_COMPLETED, Condition: &recordv1.Condition{
			Quantifier: recordv1.Quantifier_QUANTIFIER_ALL, Entries: []uint32{1, 2},
		}}}},
		{},
	}
	for _, entry := range entries {
		entry.At, entry.Site = at, "orders.go:1"
	}
	completions := map[uint32]*recordv1.Completion{
		1:  {Result: &recordv1.Result{Value: encode(t, &bankv1.DepositResponse{Balance: 7})}, At: at + 5},
		4:  {Result: &recordv1.Result{Error: &recordv1.Error{Code: 5, Message: "no such card"}}, At: at + 6},
		9:  {Result: &recordv1.Result{Value: []byte(strings.Repeat("1", 5<<10))}, At: at + 7},
		10: {Result: &recordv1.Result{Value: encode(t, shopv1.CourierAssigned_builder{Courier: new("dhl")}.Build())}, At: at + 8},
	}
	id := number(1)
	r := &router{detail: &routing.InvocationDetail{
		ID: id, Journal: entries, Completions: completions,
		Row: &recordv1.Invocation{
			Target: target(shop.OrderServiceName, "o-1", "Run"), Mode: 4, Status: recordv1.Status_STATUS_SUCCEEDED,
			Input:  encode(t, shopv1.RunRequest_builder{OrderId: new("o-1")}.Build()),
			Result: &recordv1.Result{Value: encode(t, shopv1.RunResponse_builder{Outcome: new("shipped")}.Build())},
		},
	}}
	s := newService(t, r)
	var got []string
	request := &adminv1.GetInvocationRequest{InvocationId: id.String(), PageSize: 10}
	for {
		page, err := s.getInvocation(t.Context(), request)
		if err != nil {
			t.Fatal(err)
		}
		if page.Input.Json != `{"orderId":"o-1"}` || page.Response.Json != `{"outcome":"shipped"}` {
			t.Errorf("input %v, response %v", page.Input, page.Response)
		}
		for _, e := range page.Journal {
			if e.Site != "orders.go:1" {
				t.Errorf("entry %d is of %q", e.Index, e.Site)
			}
			show := func(p *adminv1.Payload) string { return p.GetJson() + p.GetNote() }
			line := fmt.Sprint(e.Index, " ", e.Kind, " ", e.Name, " ", strings.TrimPrefix(e.Outcome.String(), "ENTRY_OUTCOME_"),
				" ", e.CompletedAt.AsTime().UnixMilli(), " in=", show(e.Input), " out=", show(e.Result), " ", e.Error.GetMessage())
			got = append(got, strings.TrimSpace(line))
		}
		if request.PageToken = page.NextPageToken; request.PageToken == "" {
			break
		}
	}
	want := []string{
		`1 call bank.v1.AccountService/a/Deposit SUCCEEDED 1005 in={"accountId":"a","amount":"5"} out={"balance":"7"}`,
		`2 send bank.v1.AccountService/a/Deposit SUCCEEDED 1000 in={"accountId":"a","amount":"5"} out=`,
		`3 sleep 1m30s PENDING 0 in= out=`,
		`4 run pay FAILED 1006 in= out= no such card`,
		`5 set_state  SUCCEEDED 1000 in={"phase":"paying"} out=`,
		`6 set_state clear SUCCEEDED 1000 in= out=`,
		`7 table_put old/k SUCCEEDED 1000 in=2 bytes of a type that is not registered here out=`,
		`8 table_delete old/k SUCCEEDED 1000 in= out=`,
		`9 awakeable  SUCCEEDED 1007 in= out=5120 bytes, left out: at most 4096 bytes are shown`,
		`10 await_promise courier SUCCEEDED 1008 in= out={"courier":"dhl"}`,
		`11 complete_promise courier SUCCEEDED 1000 in={} out=`,
		`12 receive Approve PENDING 0 in= out=`,
		`13 complete_awakeable awk_1 SUCCEEDED 1000 in=[1] out=`,
		`14 wait entry 9 SUCCEEDED 1000 in= out=`,
		`15 wait cancelled SUCCEEDED 1000 in= out=`,
		`16 cancel_invocation  SUCCEEDED 1000 in= out=`,
		`17 version fraud: 2 SUCCEEDED 1000 in= out=`,
		`18 stop_timer entry 3 SUCCEEDED 1000 in= out=`,
		`19 attach  PENDING 0 in= out=`,
		`20 peek  PENDING 0 in= out=`,
		`21 wait all of (1, 2) SUCCEEDED 1000 in= out=`,
		`22 unknown  SUCCEEDED 1000 in= out=`,
	}
	if len(got) != len(want) {
		t.Fatalf("%d entries, want %d", len(got), len(want))
	}
	for i := range want {
		if got[i] != want[i] {
			t.Errorf("got  %s\nwant %s", got[i], want[i])
		}
	}
}

func TestCancelSaysWhatBecameOfIt(t *testing.T) {
	id := number(1)
	s := newService(t, &router{detail: &routing.InvocationDetail{ID: id, Row: &recordv1.Invocation{Status: recordv1.Status_STATUS_FAILED}}})
	cancelled, err := s.cancelInvocation(t.Context(), &adminv1.CancelInvocationRequest{InvocationId: id.String()})
	if err != nil || cancelled.Status != adminv1.InvocationStatus_INVOCATION_STATUS_FAILED {
		t.Errorf("got %v, %v", cancelled, err)
	}
	killed, err := s.killInvocation(t.Context(), &adminv1.KillInvocationRequest{InvocationId: number(2).String()})
	if err != nil || killed.Status != 0 {
		t.Errorf("got %v, %v", killed, err)
	}
	_, err = s.killInvocation(t.Context(), &adminv1.KillInvocationRequest{})
	wantCode(t, err, routing.CodeInvalidArgument, "invocationId is empty")
}

func TestState(t *testing.T) {
	ledger := func(text string) []byte { return encode(t, &bankv1.LedgerEntry{Note: text}) }
	r := &router{state: &routing.ObjectState{
		Has: true, State: encode(t, &bankv1.AccountState{Balance: 12}),
		Tables: map[string]*routing.Table{
			"ledger": {Rows: []routing.TableRow{{Key: "", Value: ledger("1")}, {Key: "b", Value: ledger("2")}, {Key: "c", Value: ledger("3")}}},
			"gone":   {Rows: []routing.TableRow{{Key: "x", Value: []byte("??")}}},
		},
	}}
	s := newService(t, r)
	got, err := s.getState(t.Context(), &adminv1.GetStateRequest{Service: bank.AccountServiceName, Key: "a", PageSize: 2})
	if err != nil {
		t.Fatal(err)
	}
	if !got.HasState || got.StateJson != `{"balance":"12"}` || got.StateType != "bank.v1.AccountState" || got.Note != "" {
		t.Errorf("state is %v", got)
	}
	if len(got.Tables) != 2 || got.Tables[0].Size != 3 || len(got.Tables[0].Rows) != 2 || got.Tables[0].NextPageToken == "" {
		t.Fatalf("tables are %v", got.Tables)
	}
	if gone := got.Tables[1]; gone.Name != "gone" || gone.Rows[0].Note == "" {
		t.Errorf("a table that is not declared is %v", gone)
	}
	next, err := s.getState(t.Context(), &adminv1.GetStateRequest{
		Service: bank.AccountServiceName, Key: "a", Table: "ledger", PageToken: got.Tables[0].NextPageToken,
	})
	if err != nil {
		t.Fatal(err)
	}
	if len(next.Tables) != 1 || len(next.Tables[0].Rows) != 1 || next.Tables[0].Rows[0].Key != "c" || next.Tables[0].NextPageToken != "" {
		t.Errorf("the second page is %v", next.Tables)
	}
	for _, bad := range []struct {
		request *adminv1.GetStateRequest
		code    routing.Code
		text    string
	}{
		{&adminv1.GetStateRequest{Service: "x.Y", Key: "a"}, routing.CodeNotFound, "not registered"},
		{&adminv1.GetStateRequest{Service: bank.TransferServiceName, Key: "a"}, routing.CodeInvalidArgument, "neither keys nor state"},
		{&adminv1.GetStateRequest{Service: bank.AccountServiceName}, routing.CodeInvalidArgument, "key is empty"},
		{&adminv1.GetStateRequest{Service: bank.AccountServiceName, Key: strings.Repeat("k", 256)}, routing.CodeInvalidArgument, "at most 255"},
		{&adminv1.GetStateRequest{Service: bank.AccountServiceName, Key: "a", Table: "nope"}, routing.CodeNotFound, "it has: ledger"},
		{&adminv1.GetStateRequest{Service: bank.AccountServiceName, Key: "a", PageToken: "YQ"}, routing.CodeInvalidArgument, "set table"},
		{&adminv1.GetStateRequest{Service: bank.AccountServiceName, Key: "a", Table: "ledger", PageToken: "!"}, routing.CodeInvalidArgument, "pageToken"},
	} {
		_, err := s.getState(t.Context(), bad.request)
		wantCode(t, err, bad.code, bad.text)
	}
}

// TestStatePageIsBounded has rows of 1 MiB, of which at most 4 and a bit fit an answer.
func TestStatePageIsBounded(t *testing.T) {
	var rows []routing.TableRow
	for n := range 20 {
		rows = append(rows, routing.TableRow{Key: fmt.Sprintf("%02d", n), Value: encode(t, &bankv1.LedgerEntry{Note: strings.Repeat("x", 1<<20)})})
	}
	s := newService(t, &router{state: &routing.ObjectState{Tables: map[string]*routing.Table{"ledger": {Rows: rows}}}})
	request := &adminv1.GetStateRequest{Service: bank.AccountServiceName, Key: "a", Table: "ledger"}
	seen := 0
	for {
		got, err := s.getState(t.Context(), request)
		if err != nil {
			t.Fatal(err)
		}
		if size := proto.Size(got); size > 6<<20 {
			t.Fatalf("an answer has %d bytes", size)
		}
		seen += len(got.Tables[0].Rows)
		if request.PageToken = got.Tables[0].NextPageToken; request.PageToken == "" {
			break
		}
	}
	if seen != len(rows) {
		t.Errorf("the pages held %d of %d rows", seen, len(rows))
	}
}

func TestServices(t *testing.T) {
	s := newService(t, &router{})
	listed, err := s.listServices(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, service := range listed.Services {
		names = append(names, service.Name)
	}
	if want := []string{bank.AccountServiceName, bank.TransferServiceName, shop.OrderServiceName}; !slices.Equal(names, want) {
		t.Errorf("services are %v, want %v", names, want)
	}
	described, err := s.describeService(t.Context(), &adminv1.DescribeServiceRequest{Name: shop.OrderServiceName})
	if err != nil {
		t.Fatal(err)
	}
	run := described.Service.Methods[0]
	if run.Name != "Run" || run.Mode != perdurev1.Mode_RUN || run.KeyField != "order_id" || run.Options.GetRetention().AsDuration() != 7*24*time.Hour {
		t.Errorf("Run is %v", run)
	}
	if _, err := protodesc.NewFiles(described.Schema); err != nil {
		t.Errorf("the schema does not hold together in its order: %v", err)
	}
	_, err = s.describeService(t.Context(), &adminv1.DescribeServiceRequest{Name: "nope"})
	wantCode(t, err, routing.CodeNotFound, "registered: "+bank.AccountServiceName)
}

func TestNode(t *testing.T) {
	s, err := New(Config{Router: &router{}, Node: func() NodeInfo {
		return NodeInfo{
			NodeID: "n1", StartedAt: time.Now().Add(-time.Minute), NotReady: errors.New("it starts"),
			Partitions: []PartitionInfo{{ID: 1, Leader: true, Epoch: 3}, {ID: 2, Failure: errors.New("damaged")}},
		}
	}})
	if err != nil {
		t.Fatal(err)
	}
	got, err := s.getNode(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	if got.Ready || got.NotReadyReason != "it starts" || got.Uptime.AsDuration() < time.Minute || got.Partitions[1].Failure != "damaged" || !got.Partitions[0].Leader {
		t.Errorf("the node is %v", got)
	}
}

func TestNewReportsAllMistakes(t *testing.T) {
	twice := services()
	_, err := New(Config{Services: append(twice, nil, twice[0])})
	if err == nil {
		t.Fatal("no error")
	}
	for _, want := range []string{"no router", "is nil", "twice"} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("%q is not in %q", want, err)
		}
	}
}

// TestOverTheWire serves the rpcs as a node does.
func TestOverTheWire(t *testing.T) {
	r := &router{}
	s, err := New(Config{Router: r, Services: services(), Logger: slog.New(slog.DiscardHandler), Timeout: 20 * time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	edge, err := ingress.New(ingress.Config{Router: r, Services: services(), Others: []ingress.Other{s}})
	if err != nil {
		t.Fatal(err)
	}
	server := httptest.NewServer(edge)
	defer server.Close()
	client := connect.NewClient(connecthttp.NewTransport(http.DefaultClient, server.URL))
	call := func(rpc string, request, response proto.Message) error {
		return client.CallUnary(t.Context(), connect.Spec{Procedure: "/perdure.admin.v1.AdminService/" + rpc, StreamType: connect.StreamTypeUnary}, request, response)
	}
	listed := &adminv1.ListServicesResponse{}
	if err := call("ListServices", &adminv1.ListServicesRequest{}, listed); err != nil || len(listed.Services) != 3 {
		t.Errorf("ListServices: %v, %v", listed, err)
	}
	err = call("GetInvocation", &adminv1.GetInvocationRequest{InvocationId: number(1).String()}, &adminv1.GetInvocationResponse{})
	if connect.CodeOf(err) != connect.CodeNotFound {
		t.Errorf("GetInvocation of none: %v", err)
	}
	err = call("GetState", &adminv1.GetStateRequest{}, &adminv1.GetStateResponse{})
	if connect.CodeOf(err) != connect.CodeInvalidArgument {
		t.Errorf("GetState of none: %v", err)
	}
	r.block = true
	err = call("ListInvocations", &adminv1.ListInvocationsRequest{}, &adminv1.ListInvocationsResponse{})
	if connect.CodeOf(err) != connect.CodeDeadlineExceeded || !strings.Contains(err.Error(), "ask for less") {
		t.Errorf("a list that takes too long: %v", err)
	}
	for range maxConcurrent {
		s.places <- struct{}{}
	}
	err = call("ListServices", &adminv1.ListServicesRequest{}, listed)
	if connect.CodeOf(err) != connect.CodeResourceExhausted {
		t.Errorf("one call too many: %v", err)
	}
}
