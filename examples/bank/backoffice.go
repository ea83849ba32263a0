package main

import (
	"github.com/perdure/perdure/actor"
	bankv1 "github.com/perdure/perdure/examples/bank/gen/bank/v1"
	bank "github.com/perdure/perdure/examples/bank/gen/bank/v1/bankv1perdure"
)

// BackOffice implements bank.BackOfficeHandler.
type BackOffice struct{}

// PayRoll pays everybody at once: the deposits run side by side. The account that pays is touched
// last, since other pay rolls and transfers have to wait for it from then on until the end.
func (BackOffice) PayRoll(ctx actor.Context, req *bankv1.PayRollRequest) (*bankv1.PayRollResponse, error) {
	var sum int64
	var deposits []actor.Future[*bankv1.DepositResponse]
	for _, payment := range req.Payments {
		sum += payment.Amount
		deposits = append(deposits, bank.Account(ctx, payment.To).DepositAsync(ctx, &bankv1.DepositRequest{Amount: payment.Amount}))
	}
	if _, err := actor.All(ctx, deposits...); err != nil {
		return nil, err // One account is closed: nobody is paid.
	}
	if _, err := bank.Account(ctx, req.From).Withdraw(ctx, &bankv1.WithdrawRequest{Amount: sum}); err != nil {
		return nil, err
	}
	return &bankv1.PayRollResponse{Sum: sum}, nil
}

// Total adds up what accounts hold at one instant. It calls READ handlers only, so it keeps
// nobody from reading and is never rolled back for somebody who writes; but it sees no half of a
// transfer. Balances that are read one by one, outside a transaction, are each of its own instant.
func (BackOffice) Total(ctx actor.Context, req *bankv1.TotalRequest) (*bankv1.TotalResponse, error) {
	var balances []actor.Future[*bankv1.BalanceResponse]
	for _, id := range req.AccountIds {
		balances = append(balances, bank.Account(ctx, id).BalanceAsync(ctx, &bankv1.BalanceRequest{}))
	}
	read, err := actor.All(ctx, balances...)
	if err != nil {
		return nil, err
	}
	total := &bankv1.TotalResponse{}
	for _, balance := range read {
		total.Sum += balance.Balance
	}
	return total, nil
}

// StandingOrder is DURABLE: it sleeps for months between two transfers, and no transaction may take
// that long. Each transfer is a step of it, all or nothing by itself, and made once however often
// the node dies: so it needs no transfer id.
func (BackOffice) StandingOrder(ctx actor.Context, req *bankv1.StandingOrderRequest) (*bankv1.StandingOrderResponse, error) {
	order := &bankv1.StandingOrderResponse{}
	for n := range req.Times {
		if n > 0 {
			if err := actor.Sleep(ctx, req.Every.AsDuration()); err != nil {
				return nil, err // Somebody has cancelled the order: what was transferred stays.
			}
		}
		_, err := bank.Transfer(ctx).Transfer(ctx, &bankv1.TransferRequest{From: req.From, To: req.To, Amount: req.Amount})
		switch {
		case err == nil:
			order.Made++
		case actor.CodeOf(err) == actor.FailedPrecondition: // There may be more money next time.
			order.Refused++
		default:
			return nil, err
		}
	}
	return order, nil
}
