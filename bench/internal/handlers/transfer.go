package handlers

import (
	"github.com/perdure/perdure/actor"
	benchv1 "github.com/perdure/perdure/bench/gen/bench/v1"
	"github.com/perdure/perdure/bench/gen/bench/v1/benchv1perdure"
)

type account struct{}

func (account) Withdraw(ctx benchv1perdure.AccountTxContext, req *benchv1.WithdrawRequest) (*benchv1.WithdrawResponse, error) {
	balance := ctx.State().Get().GetBalance()
	if balance < req.GetAmount() {
		return nil, actor.Errorf(actor.FailedPrecondition, "withdraw %d from account %s: it has %d", req.GetAmount(), ctx.Key(), balance)
	}
	balance -= req.GetAmount()
	ctx.State().Set(&benchv1.AccountState{Balance: balance})
	return &benchv1.WithdrawResponse{Balance: balance, Change: -req.GetAmount()}, nil
}

func (account) Deposit(ctx benchv1perdure.AccountTxContext, req *benchv1.DepositRequest) (*benchv1.DepositResponse, error) {
	balance := ctx.State().Get().GetBalance() + req.GetAmount()
	ctx.State().Set(&benchv1.AccountState{Balance: balance})
	return &benchv1.DepositResponse{Balance: balance, Change: req.GetAmount()}, nil
}

func (account) Balance(ctx benchv1perdure.AccountReadContext, _ *benchv1.BalanceRequest) (*benchv1.BalanceResponse, error) {
	return &benchv1.BalanceResponse{Balance: ctx.State().Get().GetBalance()}, nil
}

type transfer struct{}

func (transfer) Transfer(ctx actor.Context, req *benchv1.TransferRequest) (*benchv1.TransferResponse, error) {
	if _, err := benchv1perdure.Account(ctx, req.GetFrom()).Withdraw(ctx, &benchv1.WithdrawRequest{Amount: req.GetAmount()}); err != nil {
		return nil, err
	}
	if _, err := benchv1perdure.Account(ctx, req.GetTo()).Deposit(ctx, &benchv1.DepositRequest{Amount: req.GetAmount()}); err != nil {
		return nil, err
	}
	return &benchv1.TransferResponse{}, nil
}

type fanOut struct{}

func (fanOut) AddAll(ctx actor.Context, req *benchv1.AddAllRequest) (*benchv1.AddAllResponse, error) {
	added, err := addAll(ctx, req.GetNames())
	return &benchv1.AddAllResponse{Change: added}, err
}

func (fanOut) AddAllOrNone(ctx actor.Context, req *benchv1.AddAllOrNoneRequest) (*benchv1.AddAllOrNoneResponse, error) {
	added, err := addAll(ctx, req.GetNames())
	return &benchv1.AddAllOrNoneResponse{Change: added}, err
}

// addAll adds one to each counter, all at once, and says to how many.
func addAll(ctx actor.Context, names []string) (int64, error) {
	calls := make([]actor.Future[*benchv1.AddResponse], len(names))
	for i, name := range names {
		calls[i] = benchv1perdure.Counter(ctx, name).AddAsync(ctx, &benchv1.AddRequest{Amount: 1})
	}
	answers, err := actor.All(ctx, calls...)
	return int64(len(answers)), err
}
