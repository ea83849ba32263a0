package handlers

import (
	"github.com/perdure/perdure/actor"
	smallbankv1 "github.com/perdure/perdure/bench/gen/smallbank/v1"
	"github.com/perdure/perdure/bench/gen/smallbank/v1/smallbankv1perdure"
)

// penalty is what a check costs, in cents, that the customer's accounts do not cover.
const penalty = 100

// bankAccount is a checking or a savings account.
type bankAccount struct{}

func (bankAccount) Read(ctx smallbankv1perdure.AccountReadContext, _ *smallbankv1.ReadRequest) (*smallbankv1.ReadResponse, error) {
	return &smallbankv1.ReadResponse{Balance: ctx.State().Get().GetBalance()}, nil
}

func (bankAccount) Move(ctx smallbankv1perdure.AccountTxContext, req *smallbankv1.MoveRequest) (*smallbankv1.MoveResponse, error) {
	balance := ctx.State().Get().GetBalance()
	if req.GetAmount() < 0 && balance+req.GetAmount() < 0 {
		return nil, actor.Errorf(actor.FailedPrecondition, "move %d to account %s: it has %d", req.GetAmount(), ctx.Key(), balance)
	}
	ctx.State().Set(&smallbankv1.AccountState{Balance: balance + req.GetAmount()})
	return &smallbankv1.MoveResponse{Change: req.GetAmount()}, nil
}

func (bankAccount) Empty(ctx smallbankv1perdure.AccountTxContext, _ *smallbankv1.EmptyRequest) (*smallbankv1.EmptyResponse, error) {
	balance := ctx.State().Get().GetBalance()
	ctx.State().Set(&smallbankv1.AccountState{})
	return &smallbankv1.EmptyResponse{Change: -balance}, nil
}

func (bankAccount) Cash(ctx smallbankv1perdure.AccountTxContext, req *smallbankv1.CashRequest) (*smallbankv1.CashResponse, error) {
	balance, taken := ctx.State().Get().GetBalance(), req.GetAmount()
	if balance+req.GetCover() < taken {
		taken += penalty
	}
	ctx.State().Set(&smallbankv1.AccountState{Balance: balance - taken})
	return &smallbankv1.CashResponse{Change: -taken}, nil
}

// bank are the six transactions.
type bank struct{}

func checking(ctx actor.Context, customer string) smallbankv1perdure.AccountStub {
	return smallbankv1perdure.Account(ctx, "checking/"+customer)
}

func savings(ctx actor.Context, customer string) smallbankv1perdure.AccountStub {
	return smallbankv1perdure.Account(ctx, "savings/"+customer)
}

func (bank) Balance(ctx actor.Context, req *smallbankv1.BalanceRequest) (*smallbankv1.BalanceResponse, error) {
	saved, err := savings(ctx, req.GetCustomer()).Read(ctx, &smallbankv1.ReadRequest{})
	if err != nil {
		return nil, err
	}
	rest, err := checking(ctx, req.GetCustomer()).Read(ctx, &smallbankv1.ReadRequest{})
	if err != nil {
		return nil, err
	}
	return &smallbankv1.BalanceResponse{Balance: saved.GetBalance() + rest.GetBalance()}, nil
}

func (bank) DepositChecking(ctx actor.Context, req *smallbankv1.DepositCheckingRequest) (*smallbankv1.DepositCheckingResponse, error) {
	moved, err := checking(ctx, req.GetCustomer()).Move(ctx, &smallbankv1.MoveRequest{Amount: req.GetAmount()})
	return &smallbankv1.DepositCheckingResponse{Change: moved.GetChange()}, err
}

func (bank) TransactSavings(ctx actor.Context, req *smallbankv1.TransactSavingsRequest) (*smallbankv1.TransactSavingsResponse, error) {
	moved, err := savings(ctx, req.GetCustomer()).Move(ctx, &smallbankv1.MoveRequest{Amount: req.GetAmount()})
	return &smallbankv1.TransactSavingsResponse{Change: moved.GetChange()}, err
}

func (bank) Amalgamate(ctx actor.Context, req *smallbankv1.AmalgamateRequest) (*smallbankv1.AmalgamateResponse, error) {
	saved, err := savings(ctx, req.GetFrom()).Empty(ctx, &smallbankv1.EmptyRequest{})
	if err != nil {
		return nil, err
	}
	rest, err := checking(ctx, req.GetFrom()).Empty(ctx, &smallbankv1.EmptyRequest{})
	if err != nil {
		return nil, err
	}
	// A check may have left less than nothing; then Move may refuse, and everything is as it was.
	_, err = checking(ctx, req.GetTo()).Move(ctx, &smallbankv1.MoveRequest{Amount: -saved.GetChange() - rest.GetChange()})
	return &smallbankv1.AmalgamateResponse{}, err
}

func (bank) WriteCheck(ctx actor.Context, req *smallbankv1.WriteCheckRequest) (*smallbankv1.WriteCheckResponse, error) {
	saved, err := savings(ctx, req.GetCustomer()).Read(ctx, &smallbankv1.ReadRequest{})
	if err != nil {
		return nil, err
	}
	cashed, err := checking(ctx, req.GetCustomer()).Cash(ctx, &smallbankv1.CashRequest{Amount: req.GetAmount(), Cover: saved.GetBalance()})
	return &smallbankv1.WriteCheckResponse{Change: cashed.GetChange()}, err
}

func (bank) SendPayment(ctx actor.Context, req *smallbankv1.SendPaymentRequest) (*smallbankv1.SendPaymentResponse, error) {
	if _, err := checking(ctx, req.GetFrom()).Move(ctx, &smallbankv1.MoveRequest{Amount: -req.GetAmount()}); err != nil {
		return nil, err
	}
	if _, err := checking(ctx, req.GetTo()).Move(ctx, &smallbankv1.MoveRequest{Amount: req.GetAmount()}); err != nil {
		return nil, err
	}
	return &smallbankv1.SendPaymentResponse{}, nil
}
