package main

import (
	"fmt"

	restate "github.com/restatedev/sdk-go"
)

// The names of the bank's services.
const (
	bankService        = "smallbank.v1.BankService"
	bankAccountService = "smallbank.v1.AccountService"
)

const (
	// penalty is what a check costs, in cents, that the customer's accounts do not cover.
	penalty = 100
	// covered is more than any check.
	covered = 1 << 40
	// declined is the status of an answer by which an account says that it has too little.
	declined = 400
)

// moneyRequest is what accounts are asked. Numbers are texts, as in Protobuf's JSON.
type moneyRequest struct {
	Amount int64 `json:"amount,string"`
	// Cover is what the customer has elsewhere to cover the amount of Cash.
	Cover int64 `json:"cover,string"`
}

// bankRequest is what the bank is asked: about Customer, or about From and To.
type bankRequest struct {
	Customer string `json:"customer"`
	From     string `json:"from"`
	To       string `json:"to"`
	Amount   int64  `json:"amount,string"`
}

// changeResponse says by how much a call changed the money of the bank, or the versions of the entries.
type changeResponse struct {
	Change int64 `json:"change"`
}

func bankRead(ctx restate.ObjectSharedContext, _ struct{}) (balanceResponse, error) {
	balance, err := restate.Get[int64](ctx, balanceState)
	return balanceResponse{Balance: balance}, err
}

func bankMove(ctx restate.ObjectContext, req moneyRequest) (changeResponse, error) {
	balance, err := restate.Get[int64](ctx, balanceState)
	if err != nil {
		return changeResponse{}, err
	}
	if req.Amount < 0 && balance+req.Amount < 0 {
		return changeResponse{}, restate.ToTerminalError(fmt.Errorf("failed_precondition: move %d to account %s: it has %d", req.Amount, restate.Key(ctx), balance), restate.WithErrorCode(declined))
	}
	restate.Set(ctx, balanceState, balance+req.Amount)
	return changeResponse{Change: req.Amount}, nil
}

func bankEmpty(ctx restate.ObjectContext, _ struct{}) (changeResponse, error) {
	balance, err := restate.Get[int64](ctx, balanceState)
	if err != nil {
		return changeResponse{}, err
	}
	restate.Set(ctx, balanceState, int64(0))
	return changeResponse{Change: -balance}, nil
}

func bankCash(ctx restate.ObjectContext, req moneyRequest) (changeResponse, error) {
	balance, err := restate.Get[int64](ctx, balanceState)
	if err != nil {
		return changeResponse{}, err
	}
	taken := req.Amount
	if balance+req.Cover < taken {
		taken += penalty
	}
	restate.Set(ctx, balanceState, balance-taken)
	return changeResponse{Change: -taken}, nil
}

func checking(customer string) string { return "checking/" + customer }
func savings(customer string) string  { return "savings/" + customer }

func move(ctx restate.Context, account string, amount int64) (changeResponse, error) {
	return restate.Object[changeResponse](ctx, bankAccountService, account, "Move").Request(moneyRequest{Amount: amount})
}

func empty(ctx restate.Context, account string) (changeResponse, error) {
	return restate.Object[changeResponse](ctx, bankAccountService, account, "Empty").Request(struct{}{})
}

func cash(ctx restate.Context, account string, amount, cover int64) (changeResponse, error) {
	return restate.Object[changeResponse](ctx, bankAccountService, account, "Cash").Request(moneyRequest{Amount: amount, Cover: cover})
}

func read(ctx restate.Context, account string) (balanceResponse, error) {
	return restate.Object[balanceResponse](ctx, bankAccountService, account, "Read").Request(struct{}{})
}

func customerBalance(ctx restate.Context, req bankRequest) (balanceResponse, error) {
	saved, err := read(ctx, savings(req.Customer))
	if err != nil {
		return balanceResponse{}, err
	}
	rest, err := read(ctx, checking(req.Customer))
	return balanceResponse{Balance: saved.Balance + rest.Balance}, err
}

func depositChecking(ctx restate.Context, req bankRequest) (changeResponse, error) {
	return move(ctx, checking(req.Customer), req.Amount)
}

func transactSavings(ctx restate.Context, req bankRequest) (changeResponse, error) {
	return move(ctx, savings(req.Customer), req.Amount)
}

// amalgamate puts back what it took when it may not be put elsewhere.
func amalgamate(ctx restate.Context, req bankRequest) (changeResponse, error) {
	saved, err := empty(ctx, savings(req.From))
	if err != nil {
		return changeResponse{}, err
	}
	rest, err := empty(ctx, checking(req.From))
	if err != nil {
		return changeResponse{}, err
	}
	_, refused := move(ctx, checking(req.To), -saved.Change-rest.Change)
	if !restate.IsTerminalError(refused) {
		return changeResponse{}, refused
	}
	if _, err := move(ctx, savings(req.From), -saved.Change); err != nil {
		return changeResponse{}, err
	}
	// Cash and not Move, which would refuse it if it is less than nothing.
	if _, err := cash(ctx, checking(req.From), rest.Change, covered); err != nil {
		return changeResponse{}, err
	}
	return changeResponse{}, refused
}

func writeCheck(ctx restate.Context, req bankRequest) (changeResponse, error) {
	saved, err := read(ctx, savings(req.Customer))
	if err != nil {
		return changeResponse{}, err
	}
	return cash(ctx, checking(req.Customer), req.Amount, saved.Balance)
}

// sendPayment takes first, which may be refused, and gives then, which is not.
func sendPayment(ctx restate.Context, req bankRequest) (changeResponse, error) {
	if _, err := move(ctx, checking(req.From), -req.Amount); err != nil {
		return changeResponse{}, err
	}
	_, err := move(ctx, checking(req.To), req.Amount)
	return changeResponse{}, err
}

// smallBank are the six transactions of bench/proto/smallbank, each a durable handler: what it began it ends, but others
// see it by half.
func smallBank() []restate.ServiceDefinition {
	return []restate.ServiceDefinition{
		restate.NewObject(bankAccountService).
			Handler("Read", restate.NewObjectSharedHandler(bankRead)).
			Handler("Move", restate.NewObjectHandler(bankMove)).
			Handler("Empty", restate.NewObjectHandler(bankEmpty)).
			Handler("Cash", restate.NewObjectHandler(bankCash)),
		restate.NewService(bankService).
			Handler("Balance", restate.NewServiceHandler(customerBalance)).
			Handler("DepositChecking", restate.NewServiceHandler(depositChecking)).
			Handler("TransactSavings", restate.NewServiceHandler(transactSavings)).
			Handler("Amalgamate", restate.NewServiceHandler(amalgamate)).
			Handler("WriteCheck", restate.NewServiceHandler(writeCheck)).
			Handler("SendPayment", restate.NewServiceHandler(sendPayment)),
	}
}
