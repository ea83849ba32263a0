// Command restate serves the benchmark's handlers on the Restate Go SDK: the same work as the handlers of
// bench/proto, so that both systems can be measured in one run.
//
// It lives in a module of its own, so that nobody who uses Perdure downloads Restate's SDK.
package main

import (
	"context"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"slices"
	"syscall"

	restate "github.com/restatedev/sdk-go"
	"github.com/restatedev/sdk-go/server"
)

// The only state entries of a counter and of an account.
const (
	valueState   = "value"
	balanceState = "balance"
)

type addRequest struct {
	Amount int64 `json:"amount"`
}

type counterValue struct {
	Value int64 `json:"value"`
}

type run10Request struct {
	// Steps is how many durable steps to take. 0 is ten.
	Steps uint32 `json:"steps"`
}

type run10Response struct {
	Steps uint32 `json:"steps"`
}

type amountRequest struct {
	Amount int64 `json:"amount"`
}

type accountResponse struct {
	Balance int64 `json:"balance"`
	// Change of the sum of all accounts.
	Change int64 `json:"change"`
}

type balanceResponse struct {
	Balance int64 `json:"balance"`
}

type transferRequest struct {
	From   string `json:"from"`
	To     string `json:"to"`
	Amount int64  `json:"amount"`
}

type addAllRequest struct {
	Names []string `json:"names"`
}

type addAllResponse struct {
	// Change of the sum of all counters.
	Change int64 `json:"change"`
}

func add(ctx restate.ObjectContext, req addRequest) (counterValue, error) {
	value, err := restate.Get[int64](ctx, valueState)
	if err != nil {
		return counterValue{}, err
	}
	value += req.Amount
	restate.Set(ctx, valueState, value)
	return counterValue{Value: value}, nil
}

func get(ctx restate.ObjectSharedContext, _ struct{}) (counterValue, error) {
	value, err := restate.Get[int64](ctx, valueState)
	return counterValue{Value: value}, err
}

func run10(ctx restate.Context, req run10Request) (run10Response, error) {
	steps := req.Steps
	if steps == 0 {
		steps = 10
	}
	for i := range steps {
		_, err := restate.Run(ctx, func(restate.RunContext) (uint32, error) { return i, nil })
		if err != nil {
			return run10Response{}, err
		}
	}
	return run10Response{Steps: steps}, nil
}

func withdraw(ctx restate.ObjectContext, req amountRequest) (accountResponse, error) {
	balance, err := restate.Get[int64](ctx, balanceState)
	if err != nil {
		return accountResponse{}, err
	}
	if balance < req.Amount {
		return accountResponse{}, restate.TerminalErrorf("withdraw %d from account %s: it has %d", req.Amount, restate.Key(ctx), balance)
	}
	balance -= req.Amount
	restate.Set(ctx, balanceState, balance)
	return accountResponse{Balance: balance, Change: -req.Amount}, nil
}

func deposit(ctx restate.ObjectContext, req amountRequest) (accountResponse, error) {
	balance, err := restate.Get[int64](ctx, balanceState)
	if err != nil {
		return accountResponse{}, err
	}
	balance += req.Amount
	restate.Set(ctx, balanceState, balance)
	return accountResponse{Balance: balance, Change: req.Amount}, nil
}

func balance(ctx restate.ObjectSharedContext, _ struct{}) (balanceResponse, error) {
	balance, err := restate.Get[int64](ctx, balanceState)
	return balanceResponse{Balance: balance}, err
}

// transfer is durable but not atomic: between its two calls the money is on neither account.
func transfer(ctx restate.Context, req transferRequest) (struct{}, error) {
	amount := amountRequest{Amount: req.Amount}
	if _, err := restate.Object[accountResponse](ctx, "AccountService", req.From, "Withdraw").Request(amount); err != nil {
		return struct{}{}, err
	}
	_, err := restate.Object[accountResponse](ctx, "AccountService", req.To, "Deposit").Request(amount)
	return struct{}{}, err
}

func addAll(ctx restate.Context, req addAllRequest) (addAllResponse, error) {
	calls := make([]restate.ResponseFuture[counterValue], len(req.Names))
	for i, name := range req.Names {
		calls[i] = restate.Object[counterValue](ctx, "CounterService", name, "Add").RequestFuture(addRequest{Amount: 1})
	}
	for _, call := range calls {
		if _, err := call.Response(); err != nil {
			return addAllResponse{}, err
		}
	}
	return addAllResponse{Change: int64(len(calls))}, nil
}

func main() {
	listen := flag.String("listen", "127.0.0.1:9080", "address to serve the SDK's protocol on")
	flag.Parse()

	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()

	// The SDK logs every invocation at info, which would cost Restate time that Perdure does not spend.
	quiet := slog.NewTextHandler(io.Discard, &slog.HandlerOptions{Level: slog.LevelError})
	endpoint := server.NewRestate().WithLogger(quiet, true).
		Bind(restate.NewObject("CounterService").
			Handler("Add", restate.NewObjectHandler(add)).
			Handler("Get", restate.NewObjectSharedHandler(get))).
		Bind(restate.NewService("StepsService").
			Handler("Run10", restate.NewServiceHandler(run10))).
		Bind(restate.NewObject("AccountService").
			Handler("Withdraw", restate.NewObjectHandler(withdraw)).
			Handler("Deposit", restate.NewObjectHandler(deposit)).
			Handler("Balance", restate.NewObjectSharedHandler(balance))).
		Bind(restate.NewService("TransferService").
			Handler("Transfer", restate.NewServiceHandler(transfer))).
		Bind(restate.NewService("FanOutService").
			Handler("AddAll", restate.NewServiceHandler(addAll)))
	for _, service := range slices.Concat(smallBank(), ycsb()) {
		endpoint = endpoint.Bind(service)
	}
	if err := endpoint.Start(ctx, *listen); err != nil {
		fmt.Fprintln(os.Stderr, "restate service:", err)
		os.Exit(1)
	}
}
