//go:build unix

package chaos

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"strings"
	"time"

	"github.com/perdure/perdure/actor"
	benchv1 "github.com/perdure/perdure/bench/gen/bench/v1"
	bench "github.com/perdure/perdure/bench/gen/bench/v1/benchv1perdure"
	bankv1 "github.com/perdure/perdure/examples/bank/gen/bank/v1"
	bank "github.com/perdure/perdure/examples/bank/gen/bank/v1/bankv1perdure"
)

// effects is the world outside: a file of lines that a kill cannot take back.
type effects struct{ file *os.File }

func openEffects(path string) (effects, error) {
	if path == "" {
		return effects{}, nil
	}
	file, err := os.OpenFile(path, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	return effects{file}, err
}

// note appends one line in one write, so that lines of several goroutines do not mix.
func (e effects) note(format string, args ...any) error {
	if e.file == nil {
		return nil
	}
	_, err := fmt.Fprintf(e.file, format+"\n", args...)
	return err
}

// timerPrefix marks counters whose Add is a timer's: its amount is when it was due, in
// milliseconds, and it counts one.
const timerPrefix = "timer/"

type counters struct{ effects effects }

func (c counters) Add(ctx bench.CounterTxContext, req *benchv1.AddRequest) (*benchv1.AddResponse, error) {
	amount := req.Amount
	if strings.HasPrefix(ctx.Key(), timerPrefix) {
		if err := c.effects.note("%s %d", ctx.Key(), time.Now().UnixMilli()-amount); err != nil {
			return nil, err
		}
		amount = 1
	}
	state := ctx.State().Get()
	state.Value += amount
	ctx.State().Set(state)
	return &benchv1.AddResponse{Value: state.Value}, nil
}

func (counters) Get(ctx bench.CounterReadContext, _ *benchv1.GetRequest) (*benchv1.GetResponse, error) {
	return &benchv1.GetResponse{Value: ctx.State().Get().Value}, nil
}

type steps struct{ effects effects }

// Run10 makes each of its steps seen outside.
func (s steps) Run10(ctx actor.Context, req *benchv1.Run10Request) (*benchv1.Run10Response, error) {
	if strings.HasPrefix(req.Id, heldPrefix) {
		return s.held(ctx, req)
	}
	for i := range req.Steps {
		if err := actor.Do(ctx, fmt.Sprint("step ", i), func(context.Context) error {
			return s.effects.note("%s %d", req.Id, i)
		}); err != nil {
			return nil, err
		}
	}
	return &benchv1.Run10Response{Steps: req.Steps}, nil
}

// heldPrefix marks invocations whose step in the middle lasts until there is a file.
const heldPrefix = "held-"

// releaseOf names that file.
func releaseOf(effects string) string { return effects + ".release" }

// held notes when a closure begins and ends, in which process and with which result, and adds each result to
// a counter of the step's.
func (s steps) held(ctx actor.Context, req *benchv1.Run10Request) (*benchv1.Run10Response, error) {
	for i := range req.Steps {
		token, err := actor.Run(ctx, fmt.Sprint("step ", i), func(ctx context.Context) (int64, error) {
			token := rand.Int64()
			if err := s.effects.note("%s begin %d %d %d", req.Id, i, os.Getpid(), token); err != nil {
				return 0, err
			}
			for i == req.Steps/2 {
				if _, err := os.Stat(releaseOf(s.effects.file.Name())); err == nil {
					break
				}
				select {
				case <-time.After(10 * time.Millisecond): // another process makes the file
				case <-ctx.Done():
					return 0, ctx.Err()
				}
			}
			return token, s.effects.note("%s end %d %d %d", req.Id, i, os.Getpid(), token)
		})
		if err != nil {
			return nil, err
		}
		if _, err := bench.Counter(ctx, fmt.Sprint(req.Id, "/", i)).Add(ctx, &benchv1.AddRequest{Amount: token}); err != nil {
			return nil, err
		}
	}
	return &benchv1.Run10Response{Steps: req.Steps}, nil
}

// accounts does what its key says; see the table in bad_test.go.
type accounts struct{}

func (accounts) Deposit(ctx bank.AccountTxContext, req *bankv1.DepositRequest) (*bankv1.DepositResponse, error) {
	state := ctx.State().Get()
	state.Balance += req.Amount
	ctx.State().Set(state)
	behaviour, _, _ := strings.Cut(ctx.Key(), "/")
	if req.Amount == 1 { // a plain deposit, which shows that the key goes on
		behaviour = ""
	}
	switch behaviour {
	case "panic":
		panic("a bug in the handler")
	case "block":
		<-ctx.Done() // for its TransactionTimeout
		return nil, ctx.Err()
	case "block-deaf":
		select {} // heeds nothing
	case "nil":
		return nil, nil
	case "plain-error":
		return nil, errors.New("no code")
	case "call-itself":
		return bank.Account(ctx, ctx.Key()).Deposit(ctx, &bankv1.DepositRequest{Amount: 1})
	case "call-around":
		return bank.Account(ctx, "call-home").Deposit(ctx, &bankv1.DepositRequest{Amount: 5})
	case "call-home":
		return bank.Account(ctx, "call-around").Deposit(ctx, &bankv1.DepositRequest{Amount: 5})
	case "call-durable":
		_, err := bank.Account(ctx, "another").CloseOut(ctx, &bankv1.CloseOutRequest{Iban: "plain"})
		return nil, err
	case "call-panic":
		return bank.Account(ctx, "panic").Deposit(ctx, &bankv1.DepositRequest{Amount: 5})
	case "call-and-fail":
		if _, err := bank.Account(ctx, "called-in-vain").Deposit(ctx, &bankv1.DepositRequest{Amount: 5}); err != nil {
			return nil, err
		}
		return nil, actor.Errorf(actor.Aborted, "on purpose")
	case "call-large":
		for i := range 10 {
			if _, err := bank.Account(ctx, fmt.Sprint("large-state/", i)).Deposit(ctx, &bankv1.DepositRequest{Amount: req.Amount}); err != nil {
				return nil, err
			}
		}
	case "run":
		return nil, actor.Do(ctx, "pay", func(context.Context) error { return nil })
	case "sleep":
		return nil, actor.Sleep(ctx, time.Second)
	case "large-state":
		for i := range req.Amount {
			ctx.Ledger().Put(fmt.Sprintf("%06d", i), &bankv1.LedgerEntry{Note: strings.Repeat("x", 1<<20)})
		}
	case "many-rows":
		for i := range req.Amount {
			ctx.Ledger().Put(fmt.Sprintf("%09d", i), &bankv1.LedgerEntry{Amount: i})
		}
	default:
		if err := callBadly(ctx, behaviour); err != nil {
			return nil, err
		}
	}
	return &bankv1.DepositResponse{Balance: state.Balance}, nil
}

func (accounts) Withdraw(ctx bank.AccountTxContext, req *bankv1.WithdrawRequest) (*bankv1.WithdrawResponse, error) {
	state := ctx.State().Get()
	if state.Balance < req.Amount {
		return nil, actor.Errorf(actor.FailedPrecondition, "account %s has only %d", ctx.Key(), state.Balance)
	}
	state.Balance -= req.Amount
	ctx.State().Set(state)
	return &bankv1.WithdrawResponse{Balance: state.Balance}, nil
}

func (accounts) Balance(ctx bank.AccountReadContext, _ *bankv1.BalanceRequest) (*bankv1.BalanceResponse, error) {
	switch ctx.Key() {
	case "panic":
		panic("a bug in the handler")
	case "nil":
		return nil, nil
	}
	return &bankv1.BalanceResponse{Balance: ctx.State().Get().Balance}, nil
}

// CloseOut is the DURABLE one: its iban says what it does.
func (accounts) CloseOut(ctx bank.AccountDurableContext, req *bankv1.CloseOutRequest) (*bankv1.CloseOutResponse, error) {
	behaviour, _, _ := strings.Cut(req.Iban, "/")
	switch behaviour {
	case "self":
		return bank.Account(ctx, ctx.Key()).CloseOut(ctx, &bankv1.CloseOutRequest{Iban: "plain"})
	case "self-transaction":
		_, err := bank.Account(ctx, ctx.Key()).Deposit(ctx, &bankv1.DepositRequest{Amount: 1})
		return nil, err
	case "around":
		return bank.Account(ctx, ctx.Key()+"/2").CloseOut(ctx, &bankv1.CloseOutRequest{Iban: "back/" + ctx.Key()})
	case "back":
		return bank.Account(ctx, strings.TrimPrefix(req.Iban, "back/")).CloseOut(ctx, &bankv1.CloseOutRequest{Iban: "plain"})
	case "foreign":
		done := make(chan error)
		go func() { done <- actor.Sleep(ctx, time.Millisecond) }()
		return nil, <-done
	case "in-run":
		return nil, actor.Do(ctx, "outer", func(context.Context) error { return actor.Sleep(ctx, time.Millisecond) })
	case "nil":
		return nil, nil
	case "panic":
		if ctx.Attempt() == 1 {
			panic("a bug in the handler")
		}
	case "large-run":
		if _, err := actor.Run(ctx, "large", func(context.Context) (string, error) {
			return strings.Repeat("x", 100<<20), nil
		}); err != nil {
			return nil, err
		}
	case "large-response":
		return &bankv1.CloseOutResponse{PayoutId: strings.Repeat("x", 100<<20)}, nil
	case "large-state":
		for i := range 10 {
			ctx.Ledger().Put(fmt.Sprintf("%06d", i), &bankv1.LedgerEntry{Note: strings.Repeat("x", 1<<20)})
		}
	case "sleep":
		return nil, actor.Sleep(ctx, time.Hour)
	}
	return &bankv1.CloseOutResponse{PayoutId: "plain"}, nil
}

type transfers struct{}

// Transfer is one transaction.
func (transfers) Transfer(ctx actor.Context, req *bankv1.TransferRequest) (*bankv1.TransferResponse, error) {
	given := bank.Account(ctx, req.To).DepositAsync(ctx, &bankv1.DepositRequest{Amount: req.Amount})
	if _, err := bank.Account(ctx, req.From).Withdraw(ctx, &bankv1.WithdrawRequest{Amount: req.Amount}); err != nil {
		return nil, err
	}
	_, err := given.Await(ctx)
	return nil, err
}

type backOffice struct {
	bank.UnimplementedBackOfficeHandler
}

// Total is one transaction that only reads.
func (backOffice) Total(ctx actor.Context, req *bankv1.TotalRequest) (*bankv1.TotalResponse, error) {
	var balances []actor.Future[*bankv1.BalanceResponse]
	for _, id := range req.AccountIds {
		balances = append(balances, bank.Account(ctx, id).BalanceAsync(ctx, &bankv1.BalanceRequest{}))
	}
	total := &bankv1.TotalResponse{}
	for _, balance := range balances {
		response, err := balance.Await(ctx)
		if err != nil {
			return nil, err
		}
		total.Sum += response.Balance
	}
	return total, nil
}
