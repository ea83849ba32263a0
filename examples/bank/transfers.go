package main

import (
	"github.com/perdure/perdure/actor"
	bankv1 "github.com/perdure/perdure/examples/bank/gen/bank/v1"
	bank "github.com/perdure/perdure/examples/bank/gen/bank/v1/bankv1perdure"
)

// Transfers implements bank.TransferHandler.
type Transfers struct{}

// Transfer moves money. Each of its calls happens exactly once, however often the node dies:
// either both accounts change, or the money is back where it was.
func (Transfers) Transfer(ctx actor.Context, req *bankv1.TransferRequest) (*bankv1.TransferResponse, error) {
	from, to := bank.Account(ctx, req.From), bank.Account(ctx, req.To)
	if _, err := from.Withdraw(ctx, &bankv1.WithdrawRequest{Amount: req.Amount}); err != nil {
		return nil, err
	}
	if _, err := to.Deposit(ctx, &bankv1.DepositRequest{Amount: req.Amount}); err != nil {
		if _, undo := from.Deposit(ctx, &bankv1.DepositRequest{Amount: req.Amount}); undo != nil {
			ctx.Logger().Error("money could not be put back", "from", req.From, "amount", req.Amount, "error", undo)
		}
		return nil, err
	}
	return nil, nil // an empty response
}
