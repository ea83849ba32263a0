package actortest_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/perdure/perdure/actor"
	"github.com/perdure/perdure/actor/actortest"
	bankv1 "github.com/perdure/perdure/examples/bank/gen/bank/v1"
	bank "github.com/perdure/perdure/examples/bank/gen/bank/v1/bankv1perdure"
	shopv1 "github.com/perdure/perdure/examples/orders/gen/shop/v1"
	shop "github.com/perdure/perdure/examples/orders/gen/shop/v1/shopv1perdure"
)

// accounts move money; closeOut is what CloseOut does.
type accounts struct {
	bank.UnimplementedAccountHandler
	closeOut func(ctx bank.AccountDurableContext) (string, error)
}

func (accounts) Deposit(ctx bank.AccountTxContext, req *bankv1.DepositRequest) (*bankv1.DepositResponse, error) {
	ctx.State().Update(func(s *bankv1.AccountState) { s.Balance += req.Amount })
	return &bankv1.DepositResponse{Balance: ctx.State().Get().Balance}, nil
}

func (accounts) Withdraw(ctx bank.AccountTxContext, req *bankv1.WithdrawRequest) (*bankv1.WithdrawResponse, error) {
	state := ctx.State().Get()
	if state.Balance -= req.Amount; state.Balance < 0 { // Changed, not set, and refused: no mistake.
		return nil, actor.Errorf(actor.FailedPrecondition, "too little")
	}
	ctx.State().Set(state)
	return &bankv1.WithdrawResponse{Balance: state.Balance}, nil
}

func (accounts) Balance(ctx bank.AccountReadContext, _ *bankv1.BalanceRequest) (*bankv1.BalanceResponse, error) {
	return &bankv1.BalanceResponse{Balance: ctx.State().Get().Balance}, nil
}

func (a accounts) CloseOut(ctx bank.AccountDurableContext, _ *bankv1.CloseOutRequest) (*bankv1.CloseOutResponse, error) {
	said, err := a.closeOut(ctx)
	return &bankv1.CloseOutResponse{PayoutId: said}, err
}

type transfers struct{}

func (transfers) Transfer(ctx actor.Context, req *bankv1.TransferRequest) (*bankv1.TransferResponse, error) {
	if _, err := bank.Account(ctx, req.From).Withdraw(ctx, &bankv1.WithdrawRequest{Amount: req.Amount}); err != nil {
		return nil, err
	}
	_, err := bank.Account(ctx, req.To).Deposit(ctx, &bankv1.DepositRequest{Amount: req.Amount})
	return &bankv1.TransferResponse{}, err
}

// orders run run.
type orders struct {
	shop.UnimplementedOrderHandler
	run func(ctx shop.OrderRunContext) (string, error)
}

func (o orders) Run(ctx shop.OrderRunContext, _ *shopv1.RunRequest) (*shopv1.RunResponse, error) {
	said, err := o.run(ctx)
	return shopv1.RunResponse_builder{Outcome: &said}.Build(), err
}

func closeOut(t *testing.T, node *actortest.Node, handler func(ctx bank.AccountDurableContext) (string, error)) string {
	t.Helper()
	bank.RegisterAccountHandler(node, accounts{closeOut: handler})
	answer, err := bank.Account(node.Client(), "a").CloseOut(t.Context(), &bankv1.CloseOutRequest{})
	if err != nil {
		t.Fatal(err)
	}
	return answer.PayoutId
}

// town is a scenario with everything in it: transfers that meet, a workflow with a signal, runs
// that fail and three days.
func town(t *testing.T, node *actortest.Node) {
	var mails atomic.Int64
	bank.RegisterAccountHandler(node, accounts{})
	bank.RegisterTransferHandler(node, transfers{})
	shop.RegisterOrderHandler(node, orders{run: func(ctx shop.OrderRunContext) (string, error) {
		paid := bank.Account(ctx, "a0").WithdrawAsync(ctx, &bankv1.WithdrawRequest{Amount: 5})
		mailed := actor.RunAsync(ctx, "mail", func(context.Context) (int, error) {
			if mails.Add(1) == 1 {
				return 0, errors.New("no network")
			}
			return 1, nil
		})
		approved := ctx.Approve().ReceiveAsync(ctx)
		if _, err := actor.Select(ctx, paid, mailed, approved); err != nil {
			return "", err
		}
		if _, err := actor.Select(ctx, approved, actor.After(ctx, 72*time.Hour)); err != nil {
			return "", err
		}
		if _, err := mailed.Await(ctx); err != nil {
			return "", err
		}
		if _, err := paid.Await(ctx); err != nil {
			return "", err
		}
		return "done", nil
	}})
	c := node.Client()
	var all sync.WaitGroup
	for i := range 4 {
		if _, err := bank.Account(c, fmt.Sprint("a", i)).Deposit(t.Context(), &bankv1.DepositRequest{Amount: 100}); err != nil {
			t.Error(err)
		}
	}
	for i := range 6 {
		all.Go(func() {
			from, to := fmt.Sprint("a", i%4), fmt.Sprint("a", (i+1)%4)
			if _, err := bank.Transfer(c).Transfer(t.Context(), &bankv1.TransferRequest{TransferId: fmt.Sprint("t", i), From: from, To: to, Amount: 7}); err != nil {
				t.Errorf("transfer %d: %v", i, err)
			}
		})
	}
	for i := range 2 {
		all.Go(func() {
			order := shop.Order(c, fmt.Sprint("o", i))
			if i == 0 {
				if _, err := order.Approve(t.Context(), shopv1.ApproveRequest_builder{Ok: new(true)}.Build()); err != nil {
					t.Error(err)
				}
			}
			if _, err := order.Run(t.Context(), &shopv1.RunRequest{}); err != nil {
				t.Errorf("order %d: %v", i, err)
			}
		})
	}
	all.Wait()
	var sum int64
	for i := range 4 {
		got, err := bank.Account(c, fmt.Sprint("a", i)).Balance(t.Context(), &bankv1.BalanceRequest{})
		if err != nil {
			t.Error(err)
		}
		sum += got.GetBalance()
	}
	if sum != 390 {
		t.Errorf("the accounts have %d, want 390", sum)
	}
}

func TestRun(t *testing.T) { actortest.Run(t, town) }

// TestSeedsRepeat: a seed does the same, move by move, however the goroutines were scheduled.
func TestSeedsRepeat(t *testing.T) {
	runs := map[string][][]string{}
	for range 3 {
		t.Run("again", func(t *testing.T) {
			actortest.Seeds(t, 24, func(t *testing.T, node *actortest.Node) {
				town(t, node)
				_, seed, _ := strings.Cut(t.Name(), "seed")
				runs[seed] = append(runs[seed], node.Moves())
			})
		})
	}
	distinct := map[string]bool{}
	for seed, moves := range runs {
		for _, again := range moves[1:] {
			if slices.Equal(moves[0], again) {
				continue
			}
			at := 0
			for at < min(len(moves[0]), len(again)) && moves[0][at] == again[at] {
				at++
			}
			t.Errorf("seed %s made %d moves and then %d, which differ from move %d on:\n%s\n\n%s", seed, len(moves[0]), len(again), at,
				strings.Join(moves[0][max(0, at-5):min(at+3, len(moves[0]))], "\n"), strings.Join(again[max(0, at-5):min(at+3, len(again))], "\n"))
		}
		distinct[strings.Join(moves[0], "\n")] = true
	}
	if len(distinct) != 24 {
		t.Errorf("24 seeds did %d different things", len(distinct))
	}
}

// TestSeedsBreakThings: what a seed can do is done by some of them.
func TestSeedsBreakThings(t *testing.T) {
	var all strings.Builder
	actortest.Seeds(t, 24, func(t *testing.T, node *actortest.Node) {
		town(t, node)
		all.WriteString(strings.Join(node.Moves(), "\n"))
	})
	for _, want := range []string{"the power fails", "loses its leader", ", again", "suspends", "attempt 3 at"} {
		if !strings.Contains(all.String(), want) {
			t.Errorf("no seed made %q happen", want)
		}
	}
}

// TestEveryOrder: three futures come in each of their orders.
func TestEveryOrder(t *testing.T) {
	seen := map[string]int{}
	actortest.EveryOrder(t, func(t *testing.T, node *actortest.Node) {
		seen[closeOut(t, node, func(ctx bank.AccountDurableContext) (string, error) {
			names := []string{"x", "y", "z"}
			futures := map[string]actor.Future[string]{}
			for _, name := range names {
				futures[name] = actor.RunAsync(ctx, name, func(context.Context) (string, error) { return name, nil })
			}
			order := ""
			for len(names) > 0 {
				var waiting []actor.AnyFuture
				for _, name := range names {
					waiting = append(waiting, futures[name])
				}
				which, err := actor.Select(ctx, waiting...)
				if err != nil {
					return "", err
				}
				order += names[which]
				names = slices.Delete(names, which, which+1)
			}
			return order, nil
		})]++
	})
	if len(seen) != 6 {
		t.Errorf("orders: %v, want all six", seen)
	}
}

// TestEveryOrderTriesTheClock: a sleep that ends before what could have been heard at once.
func TestEveryOrderTriesTheClock(t *testing.T) {
	seen := map[string]int{}
	actortest.EveryOrder(t, func(t *testing.T, node *actortest.Node) {
		seen[closeOut(t, node, func(ctx bank.AccountDurableContext) (string, error) {
			done := actor.RunAsync(ctx, "x", func(context.Context) (string, error) { return "x", nil })
			which, err := actor.Select(ctx, done, actor.After(ctx, time.Hour))
			return []string{"done", "late"}[which], err
		})]++
	})
	if seen["done"] == 0 || seen["late"] == 0 {
		t.Errorf("ends: %v, want done and late", seen)
	}
}

func TestFaults(t *testing.T) {
	actortest.Run(t, func(t *testing.T, node *actortest.Node) {
		down := errors.New("down")
		node.FailRun("pay", 1, down)
		node.FailRun("pay", 2, down)
		node.FailCall("bank.v1.AccountService/b/Deposit", 1, actor.Errorf(actor.ResourceExhausted, "full"))
		node.DelayCall("bank.v1.AccountService/Deposit", 2, 3*time.Second)
		var ran atomic.Int64
		said := closeOut(t, node, func(ctx bank.AccountDurableContext) (string, error) {
			if _, err := actor.Run(ctx, "pay", func(context.Context) (int64, error) { return ran.Add(1), nil }); err != nil {
				return "", err
			}
			b := bank.Account(ctx, "b")
			_, err := b.Deposit(ctx, &bankv1.DepositRequest{Amount: 1})
			if actor.CodeOf(err) != actor.ResourceExhausted {
				return "", actor.Errorf(actor.Internal, "first deposit: %v", err)
			}
			before := ctx.Now()
			if _, err := b.Deposit(ctx, &bankv1.DepositRequest{Amount: 1}); err != nil {
				return "", err
			}
			return ctx.Now().Sub(before).Truncate(time.Second).String(), nil
		})
		if said != "3s" {
			t.Errorf("the second deposit took %s, want 3s", said)
		}
		if ran.Load() == 0 {
			t.Error("the closure never ran")
		}
	})
}

func TestCrashAttempt(t *testing.T) {
	actortest.Run(t, func(t *testing.T, node *actortest.Node) {
		node.CrashAttempt("bank.v1.AccountService/CloseOut", 1, 2)
		var attempts atomic.Int64
		closeOut(t, node, func(ctx bank.AccountDurableContext) (string, error) {
			attempts.Store(int64(ctx.Attempt()))
			for i := range 3 {
				if err := actor.Do(ctx, fmt.Sprint("step ", i), func(context.Context) error { return nil }); err != nil {
					return "", err
				}
			}
			return "", nil
		})
		if attempts.Load() < 2 {
			t.Error("no attempt crashed")
		}
	})
}

func TestSettle(t *testing.T) {
	actortest.Run(t, func(t *testing.T, node *actortest.Node) {
		bank.RegisterAccountHandler(node, accounts{})
		a := bank.Account(node.Client(), "a")
		for range 3 {
			if _, err := a.DepositSend(t.Context(), &bankv1.DepositRequest{Amount: 1}); err != nil {
				t.Fatal(err)
			}
		}
		node.Settle()
		if got, err := a.Balance(t.Context(), &bankv1.BalanceRequest{}); err != nil || got.Balance != 3 {
			t.Errorf("balance after Settle: %v, %v; want 3", got, err)
		}
	})
}

type mistake struct {
	test func(t *testing.T)
	want []string
}

// mistakes are scenarios that must fail; each runs in a process of its own.
var mistakes = map[string]mistake{
	"a copy that was not set": {func(t *testing.T) {
		actortest.Run(t, func(t *testing.T, node *actortest.Node) {
			closeOut(t, node, func(ctx bank.AccountDurableContext) (string, error) {
				ctx.State().Get().Balance = 7
				return "", nil
			})
		})
	}, []string{"CloseOut changed a copy that State().Get gave it and did not set it"}},
	"a row that was not put": {func(t *testing.T) {
		actortest.Run(t, func(t *testing.T, node *actortest.Node) {
			closeOut(t, node, func(ctx bank.AccountDurableContext) (string, error) {
				ctx.Ledger().Put("x", &bankv1.LedgerEntry{Amount: 1})
				row, _ := ctx.Ledger().Get("x")
				row.Amount = 2
				return "", nil
			})
		})
	}, []string{`changed a copy that Get("x") of table ledger gave it`}},
	"chance in a handler": {func(t *testing.T) {
		var made atomic.Int64
		actortest.Run(t, func(t *testing.T, node *actortest.Node) {
			closeOut(t, node, func(ctx bank.AccountDurableContext) (string, error) {
				return "", actor.Do(ctx, fmt.Sprint("step ", made.Add(1)), func(context.Context) error { return nil })
			})
		})
	}, []string{"a handler is not deterministic: journal entry 1 does not match"}},
	"a race of futures": {func(t *testing.T) {
		actortest.EveryOrder(t, func(t *testing.T, node *actortest.Node) {
			first := closeOut(t, node, func(ctx bank.AccountDurableContext) (string, error) {
				x := actor.RunAsync(ctx, "x", func(context.Context) (string, error) { return "x", nil })
				y := actor.RunAsync(ctx, "y", func(context.Context) (string, error) { return "y", nil })
				which, err := actor.Select(ctx, x, y)
				return []string{"x", "y"}[which], err
			})
			if first == "y" {
				t.Error("y came first")
			}
		})
	}, []string{"y came first", "-actortest.order=1", "the order:"}},
	"a seed": {func(t *testing.T) {
		actortest.Seeds(t, 50, func(t *testing.T, node *actortest.Node) {
			var ran atomic.Int64
			closeOut(t, node, func(ctx bank.AccountDurableContext) (string, error) {
				return "", actor.Do(ctx, "pay", func(context.Context) error { ran.Add(1); return nil })
			})
			if ran.Load() > 1 {
				t.Error("paid twice")
			}
		})
	}, []string{"paid twice", "-actortest.seed=", "moves"}},
	"a wait for nothing": {func(t *testing.T) {
		actortest.Run(t, func(t *testing.T, node *actortest.Node) {
			closeOut(t, node, func(ctx bank.AccountDurableContext) (string, error) {
				return actor.NewAwakeable[string](ctx).Await(ctx)
			})
		})
	}, []string{"nothing has happened for 730 days of fake time"}},
}

const mistakeVariable = "PERDURE_ACTORTEST_MISTAKE"

// TestMistake is the child of TestMistakesAreFound.
func TestMistake(t *testing.T) {
	mistake, ok := mistakes[os.Getenv(mistakeVariable)]
	if !ok {
		t.Skip("it is for TestMistakesAreFound")
	}
	mistake.test(t)
}

func runMistake(t *testing.T, name string, flags ...string) string {
	t.Helper()
	command := exec.Command(os.Args[0], append([]string{"-test.run=^TestMistake$", "-test.v"}, flags...)...)
	command.Env = append(os.Environ(), mistakeVariable+"="+name)
	out, err := command.CombinedOutput()
	if err == nil {
		t.Errorf("the test passed:\n%s", out)
	}
	return string(out)
}

func TestMistakesAreFound(t *testing.T) {
	for name, mistake := range mistakes {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			out := runMistake(t, name)
			for _, want := range mistake.want {
				if !strings.Contains(out, want) {
					t.Errorf("the output does not say %q:\n%s", want, out)
				}
			}
		})
	}
}

// TestFailingSeedRepeats: the command that a failing seed prints fails in the same way, in another
// process, move by move.
func TestFailingSeedRepeats(t *testing.T) {
	first := runMistake(t, "a seed", "-actortest.moves=-1")
	_, rest, ok := strings.Cut(first, "-actortest.seed=")
	if !ok {
		t.Fatalf("no seed in the output:\n%s", first)
	}
	seed := strings.Fields(rest)[0]
	story := func(out string) string {
		_, out, _ = strings.Cut(out, "what happened")
		out, _, _ = strings.Cut(out, "--- FAIL")
		return out
	}
	for range 2 {
		again := runMistake(t, "a seed", "-actortest.moves=-1", "-actortest.seed="+seed)
		if story(again) != story(first) || story(first) == "" {
			t.Fatalf("seed %s again:\n%s\nbefore:\n%s", seed, again, first)
		}
	}
}
