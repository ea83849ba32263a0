package main

import (
	"github.com/perdure/perdure/actor"
	bankv1 "github.com/perdure/perdure/examples/bank/gen/bank/v1"
	bank "github.com/perdure/perdure/examples/bank/gen/bank/v1/bankv1perdure"
)

// PayInterest pays interest for one night. Its schedule calls it, which tells it the night it was due
// for, however late it is: the bank may have been closed. It is paid on what the accounts hold now.
func (BackOffice) PayInterest(ctx actor.Context, req *bankv1.PayInterestRequest) (*bankv1.PayInterestResponse, error) {
	paid := &bankv1.PayInterestResponse{}
	for _, id := range req.AccountIds {
		account := bank.Account(ctx, id)
		balance, err := account.Balance(ctx, &bankv1.BalanceRequest{})
		if err != nil {
			return nil, err
		}
		interest := balance.Balance * req.BasisPoints / 10_000
		if interest <= 0 {
			continue
		}
		if _, err := account.Deposit(ctx, &bankv1.DepositRequest{Amount: interest}); err != nil {
			return nil, err
		}
		paid.Sum += interest
	}
	return paid, nil
}
