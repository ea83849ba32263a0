package main

import (
	"github.com/perdure/perdure/actor"
	bankv1 "github.com/perdure/perdure/examples/bank/gen/bank/v1"
	bank "github.com/perdure/perdure/examples/bank/gen/bank/v1/bankv1perdure"
)

// customers are the accounts that orders are paid from: as much of examples/bank as a shop
// needs. An rpc it does not have fails with unimplemented.
type customers struct {
	bank.UnimplementedAccountHandler
}

func registerBank(r actor.Registrar) { bank.RegisterAccountHandler(r, customers{}) }

// Deposit adds money.
func (customers) Deposit(ctx bank.AccountTxContext, req *bankv1.DepositRequest) (*bankv1.DepositResponse, error) {
	state := ctx.State().Get()
	state.Balance += req.Amount
	ctx.State().Set(state)
	return &bankv1.DepositResponse{Balance: state.Balance}, nil
}

// Withdraw takes money, if there is enough.
func (customers) Withdraw(ctx bank.AccountTxContext, req *bankv1.WithdrawRequest) (*bankv1.WithdrawResponse, error) {
	state := ctx.State().Get()
	if state.Balance < req.Amount {
		return nil, actor.Errorf(actor.FailedPrecondition, "account %s has only %d", ctx.Key(), state.Balance)
	}
	state.Balance -= req.Amount
	ctx.State().Set(state)
	return &bankv1.WithdrawResponse{Balance: state.Balance}, nil
}

// Balance reads the last committed state.
func (customers) Balance(ctx bank.AccountReadContext, _ *bankv1.BalanceRequest) (*bankv1.BalanceResponse, error) {
	return &bankv1.BalanceResponse{Balance: ctx.State().Get().Balance}, nil
}
