package main

import (
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/perdure/perdure/actor"
	"github.com/perdure/perdure/cluster"
	bankv1 "github.com/perdure/perdure/examples/bank/gen/bank/v1"
	bank "github.com/perdure/perdure/examples/bank/gen/bank/v1/bankv1perdure"
)

func TestTransfer(t *testing.T) {
	eachWay(t, logPayouts{}, func(t *testing.T, c *actor.Client) {
		deposit(t, c, "alice", 100)
		transfer := &bankv1.TransferRequest{TransferId: "t-1", From: "alice", To: "bob", Amount: 30}
		for range 3 { // The id makes it one transfer.
			if _, err := bank.Transfer(c).Transfer(t.Context(), transfer); err != nil {
				t.Fatal(err)
			}
		}
		mustBalance(t, c, "alice", 70)
		mustBalance(t, c, "bob", 30)

		transfer.Amount = 31
		if _, err := bank.Transfer(c).Transfer(t.Context(), transfer); actor.CodeOf(err) != actor.AlreadyExists {
			t.Errorf("another transfer with the same id: %v, want already_exists", err)
		}
	})
}

// TestRefusedTransferChangesNothing: the deposit comes first, and is gone.
func TestRefusedTransferChangesNothing(t *testing.T) {
	eachWay(t, logPayouts{}, func(t *testing.T, c *actor.Client) {
		deposit(t, c, "bob", 30)
		transfer := &bankv1.TransferRequest{TransferId: "t-2", From: "bob", To: "alice", Amount: 31}
		refused := func() {
			t.Helper()
			_, err := bank.Transfer(c).Transfer(t.Context(), transfer)
			if actor.CodeOf(err) != actor.FailedPrecondition || !strings.Contains(err.Error(), "bob has only 30") {
				t.Errorf("transfer of more than there is: %v, want failed_precondition", err)
			}
			mustBalance(t, c, "alice", 0)
		}
		refused()
		mustBalance(t, c, "bob", 30)
		deposit(t, c, "bob", 10)
		refused() // A refusal is an answer too: that of this id, for good.
		mustBalance(t, c, "bob", 40)
	})
}

func TestTransferToClosedAccountChangesNothing(t *testing.T) {
	eachWay(t, logPayouts{}, func(t *testing.T, c *actor.Client) {
		deposit(t, c, "alice", 100)
		deposit(t, c, "carol", 100)
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

// TestOppositeTransfers: each of them holds what the other wants, and all of them end.
func TestOppositeTransfers(t *testing.T) {
	eachWay(t, logPayouts{}, func(t *testing.T, c *actor.Client) {
		deposit(t, c, "alice", 1000)
		deposit(t, c, "bob", 1000)
		var all sync.WaitGroup
		for caller := range 16 {
			from, to, amount := "alice", "bob", int64(3)
			if caller%2 == 1 {
				from, to, amount = "bob", "alice", 2
			}
			all.Go(func() {
				for n := range 10 {
					_, err := bank.Transfer(c).Transfer(t.Context(), &bankv1.TransferRequest{
						TransferId: fmt.Sprintf("t-%d-%d", caller, n), From: from, To: to, Amount: amount,
					})
					if err != nil {
						t.Errorf("from %s to %s: %v", from, to, err)
					}
				}
			})
		}
		all.Wait()
		mustBalance(t, c, "alice", 1000-8*10*3+8*10*2)
		mustBalance(t, c, "bob", 1000+8*10*3-8*10*2)
	})
}

// TestBalanceSeesAnsweredTransfers: whoever has the answer of a transfer, or has heard of it, reads
// it, on an account that many others pay into at once. On disk, where a commit takes its time.
func TestBalanceSeesAnsweredTransfers(t *testing.T) {
	c, stop := start(t, logPayouts{}, cluster.WithDataDir(t.TempDir()))
	defer stop()
	var answered, stale atomic.Int64
	var all sync.WaitGroup
	for caller := range 16 {
		all.Go(func() {
			from := fmt.Sprintf("guest-%d", caller)
			if _, err := bank.Account(c, from).Deposit(t.Context(), &bankv1.DepositRequest{Amount: 100}); err != nil {
				t.Error(err)
			}
			for range 20 {
				if _, err := bank.Transfer(c).Transfer(t.Context(), &bankv1.TransferRequest{From: from, To: "inn", Amount: 1}); err != nil {
					t.Errorf("transfer: %v", err)
					return
				}
				want := answered.Add(1)
				got, err := bank.Account(c, "inn").Balance(t.Context(), &bankv1.BalanceRequest{})
				if err != nil {
					t.Errorf("balance: %v", err)
				}
				if got.GetBalance() < want {
					stale.Add(1)
				}
			}
		})
	}
	all.Wait()
	if stale.Load() > 0 {
		t.Errorf("%d of %d reads missed a transfer that was answered before they began", stale.Load(), answered.Load())
	}
	mustBalance(t, c, "inn", 16*20)
}
