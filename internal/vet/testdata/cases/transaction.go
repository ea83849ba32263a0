package cases

import (
	"context"
	"net/http"
	"time"

	"github.com/perdure/perdure/actor"
	bankv1 "github.com/perdure/perdure/examples/bank/gen/bank/v1"
	bank "github.com/perdure/perdure/examples/bank/gen/bank/v1/bankv1perdure"
)

// PayRoll makes the mistakes of a TRANSACTION; clocks and maps are none.
func (o *Office) PayRoll(ctx actor.Context, req *bankv1.PayRollRequest) (*bankv1.PayRollResponse, error) {
	_ = time.Now() // fine: a transaction is not replayed
	for id := range byKey {
		o.pay(ctx, id) // fine
	}
	_ = actor.Do(ctx, "mail", func(context.Context) error { return nil }) // want `mode: actor.Do in a TRANSACTION handler is refused when it runs`
	_ = actor.Sleep(ctx, time.Second)                                     // want `mode: actor.Sleep in a TRANSACTION handler`
	_, _ = http.Get("http://localhost")                                   // want `io: http.Get in a TRANSACTION handler: nothing takes it back`
	byKey["pay roll"]++                                                   // want `global: a TRANSACTION handler writes byKey, a variable of the package: a try that is rolled back`
	go unused()                                                           // want `goroutine: go starts a goroutine in a TRANSACTION handler: it outlives the try`
	return nil, nil
}

// Total is fine.
func (o *Office) Total(ctx actor.Context, req *bankv1.TotalRequest) (*bankv1.TotalResponse, error) {
	return nil, nil
}

var _ bank.BackOfficeHandler = (*Office)(nil)

// Accounts has copies of state.
type Accounts struct {
	bank.UnimplementedAccountHandler
}

// Deposit loses what it changes.
func (Accounts) Deposit(ctx bank.AccountTxContext, req *bankv1.DepositRequest) (*bankv1.DepositResponse, error) {
	st := ctx.State().Get() // want `getset: st is a copy, which is changed and never given to Set or Put: the change is lost`
	st.Balance += req.Amount
	ctx.State().Get().Closed = true      // want `getset: what Get returns is a copy: the change is lost`
	row, ok := ctx.Ledger().Get("first") // want `getset: row is a copy`
	if ok {
		row.Note = "changed"
	}
	return &bankv1.DepositResponse{Balance: st.Balance}, nil
}

// Withdraw keeps it, in different ways.
func (Accounts) Withdraw(ctx bank.AccountTxContext, req *bankv1.WithdrawRequest) (*bankv1.WithdrawResponse, error) {
	st := ctx.State().Get()
	st.Balance -= req.Amount
	ctx.State().Set(st)
	ctx.State().Update(func(s *bankv1.AccountState) { s.Closed = false })
	row, _ := ctx.Ledger().Get("first")
	row.Note = "changed"
	keep(ctx, row)
	only := ctx.State().Get() // only looked at
	return &bankv1.WithdrawResponse{Balance: only.Balance}, nil
}

func keep(ctx bank.AccountTxContext, row *bankv1.LedgerEntry) { ctx.Ledger().Put("first", row) }

// Balance is READ: nothing is said of it.
func (Accounts) Balance(ctx bank.AccountReadContext, _ *bankv1.BalanceRequest) (*bankv1.BalanceResponse, error) {
	st := ctx.State().Get()
	st.Balance += int64(time.Now().Second())
	_, _ = http.Get("http://localhost")
	return &bankv1.BalanceResponse{Balance: st.Balance}, nil
}

// CloseOut is DURABLE by its context's type.
func (Accounts) CloseOut(ctx bank.AccountDurableContext, req *bankv1.CloseOutRequest) (*bankv1.CloseOutResponse, error) {
	_ = time.Now()                               // want `clock: time.Now`
	for id := range map[string]bool{"a": true} { // want `maprange: steps in the order of a map`
		ctx.Ledger().Delete(id)
	}
	return nil, nil
}

// helper belongs to no handler here; its parameter says how it runs.
func helper(ctx bank.AccountDurableContext) {
	_ = time.Now() // want `clock: time.Now`
}

var _ = helper
