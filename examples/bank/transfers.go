package main

import (
	"github.com/perdure/perdure/actor"
	bankv1 "github.com/perdure/perdure/examples/bank/gen/bank/v1"
	bank "github.com/perdure/perdure/examples/bank/gen/bank/v1/bankv1perdure"
)

// Transfers implements bank.TransferHandler.
type Transfers struct{}

// Transfer is a TRANSACTION, and the handlers it calls are part of it: both accounts change in the
// same instant, or neither does. So there is nothing to undo and no saga, whatever fails.
func (Transfers) Transfer(ctx actor.Context, req *bankv1.TransferRequest) (*bankv1.TransferResponse, error) {
	if _, err := bank.Account(ctx, req.To).Deposit(ctx, &bankv1.DepositRequest{Amount: req.Amount}); err != nil {
		return nil, err
	}
	if _, err := bank.Account(ctx, req.From).Withdraw(ctx, &bankv1.WithdrawRequest{Amount: req.Amount}); err != nil {
		return nil, err // and the deposit never happened
	}
	return nil, nil // an empty response
}
