package main

import (
	"context"
	"errors"
	"sync"
	"testing"

	"github.com/perdure/perdure/actor"
	"github.com/perdure/perdure/cluster"
	bankv1 "github.com/perdure/perdure/examples/bank/gen/bank/v1"
	bank "github.com/perdure/perdure/examples/bank/gen/bank/v1/bankv1perdure"
)

// eachWay runs a test on a plain node, on one that crashes at every journal entry, and on one
// that suspends every wait.
func eachWay(t *testing.T, payouts Payouts, test func(t *testing.T, c *actor.Client)) {
	for name, opts := range map[string][]cluster.Option{
		"plain":                 nil,
		"crash at every entry":  {cluster.WithCrashAtEveryEntry()},
		"suspend at every wait": {cluster.WithInactivityTimeout(1)},
	} {
		t.Run(name, func(t *testing.T) {
			n := cluster.NewNode(append(opts, cluster.WithoutListener(), cluster.WithInMemory())...)
			bank.RegisterAccountHandler(n, Accounts{Payouts: payouts})
			bank.RegisterTransferHandler(n, Transfers{})
			if err := n.Start(t.Context()); err != nil {
				t.Fatal(err)
			}
			defer func() {
				if err := n.Shutdown(context.Background()); err != nil {
					t.Error(err)
				}
			}()
			test(t, n.Client())
		})
	}
}

func mustBalance(t *testing.T, c *actor.Client, id string, want int64) {
	t.Helper()
	got, err := bank.Account(c, id).Balance(t.Context(), &bankv1.BalanceRequest{})
	if err != nil || got.Balance != want {
		t.Errorf("balance of %s: %v, %v; want %d", id, got.GetBalance(), err, want)
	}
}

func TestTransfer(t *testing.T) {
	eachWay(t, logPayouts{}, func(t *testing.T, c *actor.Client) {
		if _, err := bank.Account(c, "alice").Deposit(t.Context(), &bankv1.DepositRequest{Amount: 100}); err != nil {
			t.Fatal(err)
		}
		transfer := &bankv1.TransferRequest{TransferId: "t-1", From: "alice", To: "bob", Amount: 30}
		for range 3 { // The id makes it one transfer.
			if _, err := bank.Transfer(c).Transfer(t.Context(), transfer); err != nil {
				t.Fatal(err)
			}
		}
		mustBalance(t, c, "alice", 70)
		mustBalance(t, c, "bob", 30)

		_, err := bank.Transfer(c).Transfer(t.Context(), &bankv1.TransferRequest{TransferId: "t-2", From: "bob", To: "alice", Amount: 31})
		if actor.CodeOf(err) != actor.FailedPrecondition {
			t.Errorf("transfer of more than there is: %v, want failed_precondition", err)
		}
		mustBalance(t, c, "bob", 30)
	})
}

func TestTransferToClosedAccountPutsTheMoneyBack(t *testing.T) {
	eachWay(t, logPayouts{}, func(t *testing.T, c *actor.Client) {
		for _, id := range []string{"alice", "carol"} {
			if _, err := bank.Account(c, id).Deposit(t.Context(), &bankv1.DepositRequest{Amount: 100}); err != nil {
				t.Fatal(err)
			}
		}
		if _, err := bank.Account(c, "carol").CloseOut(t.Context(), &bankv1.CloseOutRequest{Iban: "DE02"}); err != nil {
			t.Fatal(err)
		}
		_, err := bank.Transfer(c).Transfer(t.Context(), &bankv1.TransferRequest{TransferId: "t-3", From: "alice", To: "carol", Amount: 10})
		if actor.CodeOf(err) != actor.FailedPrecondition {
			t.Errorf("transfer to a closed account: %v, want failed_precondition", err)
		}
		mustBalance(t, c, "alice", 100)
		mustBalance(t, c, "carol", 0)
	})
}

// outsideBank counts payments by request id: the same id again is the same payment.
type outsideBank struct {
	mu struct {
		sync.Mutex
		paid map[string]int64
	}
	refuse error
}

func (o *outsideBank) Pay(_ context.Context, _ string, amount int64, requestID string) (string, error) {
	if o.refuse != nil {
		return "", o.refuse
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.mu.paid == nil {
		o.mu.paid = map[string]int64{}
	}
	o.mu.paid[requestID] = amount
	return "p-" + requestID, nil
}

func TestCloseOutPaysOnce(t *testing.T) {
	outside := &outsideBank{}
	eachWay(t, outside, func(t *testing.T, c *actor.Client) {
		outside.mu.paid = nil
		if _, err := bank.Account(c, "dora").Deposit(t.Context(), &bankv1.DepositRequest{Amount: 55}); err != nil {
			t.Fatal(err)
		}
		got, err := bank.Account(c, "dora").CloseOut(t.Context(), &bankv1.CloseOutRequest{Iban: "DE02"})
		if err != nil {
			t.Fatal(err)
		}
		if len(outside.mu.paid) != 1 {
			t.Errorf("%d payments, want one: %v", len(outside.mu.paid), outside.mu.paid)
		}
		for id, amount := range outside.mu.paid {
			if amount != 55 || got.PayoutId != "p-"+id {
				t.Errorf("paid %d as %q, answered %q", amount, id, got.PayoutId)
			}
		}
		mustBalance(t, c, "dora", 0)
	})
}

func TestCloseOutThatFailsChangesNothing(t *testing.T) {
	outside := &outsideBank{refuse: actor.Terminal(actor.ResourceExhausted, errors.New("the outside bank has no money"))}
	eachWay(t, outside, func(t *testing.T, c *actor.Client) {
		if _, err := bank.Account(c, "erik").Deposit(t.Context(), &bankv1.DepositRequest{Amount: 55}); err != nil {
			t.Fatal(err)
		}
		_, err := bank.Account(c, "erik").CloseOut(t.Context(), &bankv1.CloseOutRequest{Iban: "DE02"}, actor.IdempotencyKey("close-1"))
		if err == nil {
			t.Fatal("CloseOut succeeded")
		}
		mustBalance(t, c, "erik", 55)
	})
}
