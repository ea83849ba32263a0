package main

import (
	"context"
	"fmt"

	"github.com/perdure/perdure/actor"
	bankv1 "github.com/perdure/perdure/examples/bank/gen/bank/v1"
	bank "github.com/perdure/perdure/examples/bank/gen/bank/v1/bankv1perdure"
)

// Payouts is an outside bank. A payment with a request id that it has seen is the same
// payment: Perdure may ask again when a node died before the answer was recorded.
type Payouts interface {
	Pay(ctx context.Context, iban string, amount int64, requestID string) (payoutID string, err error)
}

// Accounts implements bank.AccountHandler.
type Accounts struct{ Payouts Payouts }

// Deposit adds money. A TRANSACTION: the balance and the ledger change together, or not at all.
func (Accounts) Deposit(ctx bank.AccountTxContext, req *bankv1.DepositRequest) (*bankv1.DepositResponse, error) {
	state := ctx.State().Get()
	if state.Closed {
		return nil, actor.Errorf(actor.FailedPrecondition, "account %s is closed", ctx.Key())
	}
	state.Balance += req.Amount
	ctx.State().Set(state)
	note(ctx.Ledger(), req.Amount, "deposit")
	return &bankv1.DepositResponse{Balance: state.Balance}, nil
}

// Withdraw takes money, if there is enough.
func (Accounts) Withdraw(ctx bank.AccountTxContext, req *bankv1.WithdrawRequest) (*bankv1.WithdrawResponse, error) {
	state := ctx.State().Get()
	if state.Closed {
		return nil, actor.Errorf(actor.FailedPrecondition, "account %s is closed", ctx.Key())
	}
	if state.Balance < req.Amount {
		return nil, actor.Errorf(actor.FailedPrecondition, "account %s has only %d", ctx.Key(), state.Balance)
	}
	state.Balance -= req.Amount
	ctx.State().Set(state)
	note(ctx.Ledger(), -req.Amount, "withdrawal")
	return &bankv1.WithdrawResponse{Balance: state.Balance}, nil
}

// Balance reads the last committed state.
func (Accounts) Balance(ctx bank.AccountReadContext, _ *bankv1.BalanceRequest) (*bankv1.BalanceResponse, error) {
	return &bankv1.BalanceResponse{Balance: ctx.State().Get().Balance}, nil
}

// CloseOut pays the rest out through an outside bank. DURABLE: what happened outside can't be
// rolled back, so every step is recorded, and after a crash it goes on where it was.
func (a Accounts) CloseOut(ctx bank.AccountDurableContext, req *bankv1.CloseOutRequest) (*bankv1.CloseOutResponse, error) {
	state := ctx.State().Get()
	if state.Closed {
		return nil, actor.Errorf(actor.FailedPrecondition, "account %s is closed", ctx.Key())
	}
	rest := state.Balance
	ctx.State().Set(&bankv1.AccountState{Closed: true})
	payoutID, err := actor.Run(ctx, "pay out", func(c context.Context) (string, error) {
		return a.Payouts.Pay(c, req.Iban, rest, ctx.InvocationID())
	})
	if err != nil { // Run has used up its attempts: the account is as it was.
		ctx.State().Set(&bankv1.AccountState{Balance: rest})
		return nil, err
	}
	note(ctx.Ledger(), -rest, "paid out to "+req.Iban)
	return &bankv1.CloseOutResponse{PayoutId: payoutID}, nil
}

// note adds a line to the ledger; the keys sort in the order of the lines.
func note(ledger actor.Table[*bankv1.LedgerEntry], amount int64, text string) {
	ledger.Put(fmt.Sprintf("%012d", ledger.Len()), &bankv1.LedgerEntry{Amount: amount, Note: text})
}
