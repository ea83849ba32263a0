package main

import (
	"bytes"
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/perdure/perdure/actor"
	bankv1 "github.com/perdure/perdure/examples/bank/gen/bank/v1"
	bank "github.com/perdure/perdure/examples/bank/gen/bank/v1/bankv1perdure"
	counterv1 "github.com/perdure/perdure/examples/counter/gen/counter/v1"
	counter "github.com/perdure/perdure/examples/counter/gen/counter/v1/counterv1perdure"
	shopv1 "github.com/perdure/perdure/examples/orders/gen/shop/v1"
	shop "github.com/perdure/perdure/examples/orders/gen/shop/v1/shopv1perdure"
	"github.com/perdure/perdure/internal/admin"
	"github.com/perdure/perdure/internal/deployment"
	"github.com/perdure/perdure/internal/invocation"
	"github.com/perdure/perdure/internal/limit/rule"
	recordv1 "github.com/perdure/perdure/internal/record/v1"
	"github.com/perdure/perdure/internal/routing"
	"github.com/perdure/perdure/internal/routing/routingtest"
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

// noon is when everything happened.
var noon = time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC).UnixMilli()

func nodeInfo() admin.NodeInfo {
	return admin.NodeInfo{
		NodeID: "n1", Version: "v0.1.0",
		Partitions: []admin.PartitionInfo{{ID: 1, Leader: true}, {ID: 2, Failure: fmt.Errorf("record 7: checksum differs")}},
		Storage:    admin.StorageInfo{Directory: "data", LogBytes: 3 << 20, StoreBytes: 1500, FreeBytes: 7 << 30},
	}
}

// deploymentsOf has what runs as v2, and before it v1, which served the counter and no orders.
func deploymentsOf(current []*actor.ServiceDesc) (*deployment.Catalog, error) {
	catalog := deployment.InMemory()
	before := []deployment.Service{{Name: counter.CounterServiceName, File: counterv1.File_counter_v1_counter_proto}}
	var now []deployment.Service
	for _, desc := range current {
		now = append(now, deployment.Service{Name: desc.Name, File: desc.File})
	}
	for i, services := range [][]deployment.Service{before, before, now} {
		build, err := deployment.Describe(fmt.Sprint("v", i), fmt.Sprint("git ", i), "v0.1.0", services)
		if err != nil {
			return nil, err
		}
		if err := catalog.Started(build, nil, time.UnixMilli(noon+int64(i)*3600_000)); err != nil {
			return nil, err
		}
	}
	return catalog, nil
}

// shopRouter has one order under way, one that failed, and one that waits to be tried again.
type shopRouter struct {
	routingtest.Fake
	rules struct {
		sync.Mutex
		book rule.Book
	}
}

func id(n byte) invocation.ID { return invocation.NewID(uint64(n), [16]byte{n}) }

func encoded(message proto.Message) []byte {
	data, err := proto.Marshal(message)
	if err != nil {
		panic(err)
	}
	return data
}

func invocations() []*routing.InvocationDetail {
	order := func(key string) *recordv1.Target {
		return &recordv1.Target{Service: shop.OrderServiceName, Key: key, Handler: "Run"}
	}
	run := func(key string) []byte {
		return encoded(shopv1.RunRequest_builder{OrderId: proto.String(key), Price: proto.Int64(30)}.Build())
	}
	withdrawal := id(9)
	return []*routing.InvocationDetail{
		{
			ID: id(1),
			Row: &recordv1.Invocation{
				Target: order("o-1"), Mode: 4, Status: recordv1.Status_STATUS_SUSPENDED, CreatedAt: noon, StartedAt: noon + 2, Attempt: 2, Continuations: 2,
				Deployment: "v1", EarlierDeployments: []string{"v0"}, Scheduled: &recordv1.ScheduledCall{Schedule: "early\x1b[31m", Number: 3, DueAt: noon - 5},
				RetentionMs: 7 * 24 * 3600 * 1000, IdempotencyKey: "first", Headers: []*recordv1.Header{{Name: "accept-language", Value: "de"}, {Name: "x-team", Value: "blue"}}, Input: run("o-1"),
			},
			Journal: []*recordv1.Entry{
				{Site: "orders.go:92", At: noon + 3, Entry: &recordv1.Entry_SetState{SetState: &recordv1.SetState{
					Value: encoded(shopv1.OrderState_builder{Phase: proto.String("paying")}.Build()),
				}}},
				{Site: "orders.go:51", At: noon + 4, Entry: &recordv1.Entry_Call{Call: &recordv1.Call{Invoke: &recordv1.Invoke{
					InvocationId: withdrawal[:], Target: &recordv1.Target{Service: bank.AccountServiceName, Key: "carla", Handler: "Withdraw"},
					Input: encoded(&bankv1.WithdrawRequest{AccountId: "carla", Amount: 30}),
				}}}},
				{Site: "orders.go:70", At: noon + 20, Entry: &recordv1.Entry_Run{Run: &recordv1.Run{Name: "mail"}}},
				{Site: "orders.go:60", At: noon + 1500, Entry: &recordv1.Entry_Receive{Receive: &recordv1.Receive{Name: "Approve"}}},
				{Site: "orders.go:72", At: noon + 1500, Entry: &recordv1.Entry_Run{Run: &recordv1.Run{Name: "print"}}},
			},
			Tries: map[uint32]*recordv1.RunTries{5: {Failed: 3, NextAt: noon + 61_500, LastFailure: &recordv1.Error{Code: 14, Message: "no paper"}}},
			Completions: map[uint32]*recordv1.Completion{
				2: {Entry: 2, At: noon + 9, Result: &recordv1.Result{Value: encoded(&bankv1.WithdrawResponse{Balance: 70})}},
				3: {Entry: 3, At: noon + 1400, Result: &recordv1.Result{Error: &recordv1.Error{Code: 14, Message: "no mail\x1b[31m today"}}},
			},
		},
		{ID: id(2), Row: &recordv1.Invocation{
			Target: order("o-2"), Mode: 4, Status: recordv1.Status_STATUS_FAILED, CreatedAt: noon + 60_000, StartedAt: noon + 60_001,
			CompletedAt: noon + 63_456, Attempt: 1, Result: &recordv1.Result{Error: &recordv1.Error{Code: 9, Message: "account carla has only 0"}}, Input: run("o-2"),
			Failed: []*recordv1.Failure{{
				Error: &recordv1.Error{Code: 9, Message: "account carla has only 0"}, At: noon + 63_456, Attempt: 1,
				Entry: 2, Step: "Call bank.v1.AccountService/carla/Withdraw", Site: "orders.go:51", Terminal: true,
			}},
		}},
		{ID: id(3), Row: &recordv1.Invocation{
			Target: &recordv1.Target{Service: bank.TransferServiceName, Handler: "Transfer"}, Mode: 1, Status: recordv1.Status_STATUS_BACKING_OFF,
			CreatedAt: noon - 60_000, StartedAt: noon - 59_000, Attempt: 4, RetryAt: noon + 5_000, CancelRequested: true,
			LastFailure: &recordv1.Error{Code: 13, Message: "panic: no"}, Failures: 2, FailedAttempts: 3,
			Failed: []*recordv1.Failure{
				{Error: &recordv1.Error{Code: 14, Message: "no\x1b[31m line"}, At: noon - 58_000, Attempt: 2},
				{Error: &recordv1.Error{Code: 13, Message: "panic: no"}, At: noon - 5_000, Attempt: 4, Entry: 1, Step: `Run "pay"`, Site: "bank.go:7", Stack: "goroutine 1\n\tmain.go:1"},
			},
			Flow: &recordv1.Flow{Tenant: "team a", Priority: 3, LimitKey: "carla", Ask: 5, AskedAt: noon - 1000, Limits: []*recordv1.Limit{{Name: bank.TransferServiceName + "/slow"}}},
			Divergence: &recordv1.Divergence{
				Entry: 2, Attempt: 4, Difference: "the key",
				Recorded: &recordv1.DivergentStep{Step: "Call bank.v1.AccountService/alice/Deposit", Site: "transfer.go:31"},
				Made:     &recordv1.DivergentStep{Step: "Call bank.v1.AccountService/bob/Deposit", Site: "transfer.go:34"},
				Fields: []*recordv1.DivergentField{
					{Name: "key", Recorded: "alice", Made: "bob"}, {Name: "handler", Recorded: "Deposit", Made: "Deposit"},
					{Name: "idempotency key", Made: "k"},
				},
			},
		}},
	}
}

// InvocationsPage implements routing.Router. It looks at two invocations a page, so that the
// command has to go on where nothing matches.
func (*shopRouter) InvocationsPage(_ context.Context, filter routing.Filter) (*routing.InvocationsPage, error) {
	page := &routing.InvocationsPage{}
	all := invocations()
	slices.SortFunc(all, func(a, b *routing.InvocationDetail) int { return bytes.Compare(a.ID[:], b.ID[:]) })
	for _, detail := range all {
		row := detail.Row
		if bytes.Compare(detail.ID[:], filter.After[:]) <= 0 || !filter.Until.IsZero() && bytes.Compare(detail.ID[:], filter.Until[:]) > 0 {
			continue
		}
		if page.Scanned == 2 {
			return page, nil
		}
		page.Scanned++
		page.Next = detail.ID
		if (filter.Service == "" || filter.Service == row.Target.Service) && (filter.Key == "" || filter.Key == row.Target.Key) &&
			(filter.Deployment == "" || filter.Deployment == row.Deployment) && (len(filter.Statuses) == 0 || slices.Contains(filter.Statuses, row.Status)) {
			page.Found = append(page.Found, routing.InvocationDetail{ID: detail.ID, Row: row})
		}
	}
	page.Next = invocation.ID{}
	return page, nil
}

// Invocation implements routing.Router.
func (r *shopRouter) Invocation(ctx context.Context, id invocation.ID) (*routing.InvocationDetail, error) {
	return r.Journal(ctx, id, 0, routing.MaxPage)
}

// Journal implements routing.Router.
func (r *shopRouter) Journal(ctx context.Context, id invocation.ID, after uint32, limit int) (*routing.InvocationDetail, error) {
	for _, detail := range invocations() {
		if detail.ID == id {
			detail.After, detail.Journal = after, detail.Journal[after:]
			detail.More = len(detail.Journal) > limit
			detail.Journal = detail.Journal[:min(limit, len(detail.Journal))]
			return detail, nil
		}
	}
	if target, ok := byName[id.String()]; ok {
		return &routing.InvocationDetail{ID: id, Row: &recordv1.Invocation{Target: target, Status: recordv1.Status_STATUS_SUCCEEDED}}, nil
	}
	return r.Fake.Invocation(ctx, id)
}

// Cancel implements routing.Router.
func (r *shopRouter) Cancel(ctx context.Context, id invocation.ID, _ bool) error {
	_, err := r.Journal(ctx, id, 0, 0)
	return err
}

// Pause implements routing.Router.
func (r *shopRouter) Pause(ctx context.Context, id invocation.ID) error {
	return r.Cancel(ctx, id, false)
}

// Resume implements routing.Router.
func (r *shopRouter) Resume(ctx context.Context, id invocation.ID, _ string) error {
	return r.Cancel(ctx, id, false)
}

// Purge implements routing.Router.
func (r *shopRouter) Purge(ctx context.Context, id invocation.ID) error {
	return r.Cancel(ctx, id, false)
}

// RestartAsNew implements routing.Router.
func (r *shopRouter) RestartAsNew(ctx context.Context, id invocation.ID, _ uint32, _ string) (invocation.ID, error) {
	return id, r.Cancel(ctx, id, false)
}

// byName are invocations that have ended and that callers know by other names than their ids.
var byName = map[string]*recordv1.Target{
	actor.IDOf(bank.AccountServiceName, "alice", "Deposit", "rent"): {Service: bank.AccountServiceName, Key: "alice", Handler: "Deposit"},
	actor.IDOf(shop.OrderServiceName, "o-7", "Run", ""):             {Service: shop.OrderServiceName, Key: "o-7", Handler: "Run"},
}

// Attach implements routing.Router.
func (r *shopRouter) Attach(ctx context.Context, of invocation.ID) (*recordv1.Result, error) {
	switch of {
	case id(1):
		<-ctx.Done()
		return nil, ctx.Err()
	case id(2):
		return &recordv1.Result{Error: &recordv1.Error{Code: 9, Message: "account carla has only 0"}}, nil
	case id(3):
		return &recordv1.Result{Value: encoded(&bankv1.TransferResponse{})}, nil
	}
	switch byName[of.String()].GetHandler() {
	case "Deposit":
		return &recordv1.Result{Value: encoded(&bankv1.DepositResponse{Balance: 7})}, nil
	case "Run":
		return &recordv1.Result{Value: encoded(shopv1.RunResponse_builder{}.Build())}, nil
	}
	return r.Fake.Attach(ctx, of)
}

// Transactions implements routing.Router. One waits for an object, one for a promise, one for a
// participant to hear that it has committed, one for a partition that refuses to serve.
func (r *shopRouter) Transactions(context.Context) ([]routing.Transaction, error) {
	at := func(milliseconds int64) time.Time { return time.UnixMilli(noon + milliseconds) }
	account := func(key string) routing.TransactionLock {
		return routing.TransactionLock{Object: invocation.Object{Service: bank.AccountServiceName, Key: key}}
	}
	wanted, read := account("dora"), account("rates\x1b[31m")
	wanted.By, read.Shared = []string{"the transaction of " + id(6).String()}, true
	transfer := invocation.Target{Service: bank.TransferServiceName, Handler: "Transfer"}
	return []routing.Transaction{
		{Root: id(5), Sequence: 3<<32 | 1, Partition: 1, Phase: routing.TransactionPrepared, At: at(-7_200_000), Since: at(-7_199_000),
			Held: []routing.TransactionLock{account("erik")}, Reason: "has promised to commit and waits for the decision of partition 2"},
		{Root: id(8), Sequence: 1<<32 | 4, Partition: 1, Coordinator: true, Phase: routing.TransactionCommitted, At: at(-900), Since: at(-900), Members: []uint32{1},
			Reason: "waits until its participants have written their part"},
		{Root: id(8), Sequence: 1<<32 | 4, Partition: 1, Phase: routing.TransactionPrepared, At: at(-6_000), Since: at(-1_000), Held: []routing.TransactionLock{account("fred")},
			Reason: "has promised to commit and waits for the decision of partition 1"},
		{Root: id(6), Sequence: 1<<32 | 8, Partition: 1, Coordinator: true, Phase: routing.TransactionPreparing, Target: transfer, At: at(-4_000), Since: at(-1_500),
			Try: 2, Members: []uint32{1, 3}, Reason: "waits for the participants to promise"},
		{Root: id(6), Sequence: 1<<32 | 8, Partition: 1, Phase: routing.TransactionRunning, At: at(-4_000), Since: at(-2_000),
			Held: []routing.TransactionLock{account("dora"), read}},
		{Root: id(7), Sequence: 1<<32 | 9, Partition: 1, Coordinator: true, Phase: routing.TransactionRunning, Target: transfer, At: at(-40), Since: at(-40), Try: 1, Members: []uint32{1}},
		{Root: id(7), Sequence: 1<<32 | 9, Partition: 1, Phase: routing.TransactionRunning, At: at(-40), Since: at(-30),
			Waiting: []routing.TransactionLock{wanted}, Reason: "waits for " + wanted.Object.String() + ", held by " + wanted.By[0]},
	}, nil
}

// Limits implements routing.Router.
func (*shopRouter) Limits(_ context.Context, query routing.LimitQuery) ([]routing.Limit, error) {
	at := func(milliseconds int64) time.Time { return time.UnixMilli(noon + milliseconds) }
	workers := routing.Limit{
		Name: bank.AccountServiceName + "/workers", Partition: 2,
		LimitSettings: routing.LimitSettings{Concurrency: 2, RateCount: 10, RateBurst: 5, RatePer: time.Second, MaxQueue: 100},
		Held:          2, Waiting: 3, Tokens: 4, Oldest: at(-61_000),
	}
	all := []routing.Limit{workers, {Name: shop.OrderServiceName + "/Run/customer=carla\x1b[31m", Partition: 1, LimitSettings: routing.LimitSettings{Concurrency: 1, MaxQueue: -1}, UntilDone: true, Held: 1}}
	ruled := routing.Limit{
		Name: "ruled.v1.Service/some", Partition: 1, Rule: "ruled.v1.Service/some", Held: 2,
		LimitSettings: routing.LimitSettings{Concurrency: -1, RateCount: 1, RateBurst: 1, RatePer: time.Minute}, Declared: routing.LimitSettings{Concurrency: 3},
	}
	if strings.HasPrefix(ruled.Name, cmp.Or(query.Service, query.Name, "-")) {
		return []routing.Limit{ruled}, nil
	}
	if query.Name == workers.Name {
		workers.Tenants = []routing.LimitTenant{{Tenant: "team a", Held: 1, Waiting: 2}, {Held: 1, Waiting: 1}}
		workers.Holders = []routing.LimitMember{{ID: id(1), Tenant: "team a", Since: at(-3000)}, {ID: id(2), Since: at(-2000)}}
		workers.Queue = []routing.LimitMember{{ID: id(3), Since: at(-61_000), Begun: true}, {ID: id(4), Tenant: "team a", Since: at(-1000), Priority: -7}}
		return []routing.Limit{workers}, nil
	}
	return slices.DeleteFunc(all, func(l routing.Limit) bool {
		return query.Name != "" || query.Waiting && l.Waiting == 0 || query.Service != "" && !strings.HasPrefix(l.Name, query.Service+"/")
	}), nil
}

// ChangeRules implements routing.Router, for one partition.
func (r *shopRouter) ChangeRules(_ context.Context, asked *recordv1.Rules) (*recordv1.RulesReply, error) {
	r.rules.Lock()
	defer r.rules.Unlock()
	change, err := r.rules.book.Change(asked, 1, noon-90_000)
	if err != nil {
		return nil, routing.Errorf(routing.CodeInvalidArgument, "%v", err)
	}
	return &recordv1.RulesReply{}, r.rules.book.Take(change)
}

// RulesPage implements routing.Router.
func (r *shopRouter) RulesPage(_ context.Context, query routing.RuleQuery) (*recordv1.RulesReply, error) {
	r.rules.Lock()
	defer r.rules.Unlock()
	reply := &recordv1.RulesReply{}
	reply.Rules, reply.More = r.rules.book.Page(query.Prefix, query.After, query.Limit)
	return reply, nil
}

// Call implements routing.Router.
func (r *shopRouter) Call(ctx context.Context, in *recordv1.Invoke) (*recordv1.Result, error) {
	switch in.Target.Handler {
	case "Deposit":
		var request bankv1.DepositRequest
		if err := proto.Unmarshal(in.Input, &request); err != nil {
			return nil, err
		}
		return &recordv1.Result{Value: encoded(&bankv1.DepositResponse{Balance: request.Amount + int64(len(in.IdempotencyKey))})}, nil
	case "Withdraw":
		return &recordv1.Result{Error: &recordv1.Error{Code: 9, Message: "account " + in.Target.Key + " has only 0"}}, nil
	case "Run":
		<-ctx.Done()
		return nil, ctx.Err()
	}
	return r.Fake.Call(ctx, in)
}

// StatePage implements routing.Router.
func (*shopRouter) StatePage(_ context.Context, query routing.StateQuery) (*routing.ObjectState, error) {
	state := &routing.ObjectState{}
	if strings.HasPrefix(query.Object.Key, "carla") && (query.Table == "" || query.Table == "ledger") {
		state.Has, state.State = true, encoded(&bankv1.AccountState{Balance: 70})
		ledger := &routing.Table{Size: 3}
		for _, row := range []routing.TableRow{
			{Key: "r1", Value: encoded(&bankv1.LedgerEntry{Amount: 100, Note: "salary"})},
			{Key: "r2", Value: encoded(&bankv1.LedgerEntry{Amount: -30})},
			{Key: "r3", Value: []byte("??")},
		} {
			if row.Key >= query.From {
				ledger.Rows = append(ledger.Rows, row)
			}
		}
		ledger.More = len(ledger.Rows) > query.Limit
		ledger.Rows = ledger.Rows[:min(query.Limit, len(ledger.Rows))]
		state.Tables = map[string]*routing.Table{"ledger": ledger}
	}
	return state, nil
}
