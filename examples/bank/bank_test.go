package main

import (
	"context"
	"errors"
	"sync"
	"testing"

	"github.com/perdure/perdure/actor"
	"github.com/perdure/perdure/actor/actortest"
	"github.com/perdure/perdure/cluster"
	bankv1 "github.com/perdure/perdure/examples/bank/gen/bank/v1"
	bank "github.com/perdure/perdure/examples/bank/gen/bank/v1/bankv1perdure"
)

// eachWay runs a test in the ways of actortest.Run: undisturbed, with handlers that die after every
// step, with every wait suspended, and with leaders that are lost.
func eachWay(t *testing.T, payouts Payouts, test func(t *testing.T, c *actor.Client)) {
	actortest.Run(t, func(t *testing.T, node *actortest.Node) {
		register(node, payouts)
		test(t, node.Client())
	})
}

func start(t *testing.T, payouts Payouts, opts ...cluster.Option) (c *actor.Client, stop func()) {
	t.Helper()
	n := cluster.NewNode(append(opts, cluster.WithoutListener())...)
	register(n, payouts)
	if err := n.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	return n.Client(), func() {
		if err := n.Shutdown(context.Background()); err != nil {
			t.Error(err)
		}
	}
}

func deposit(t *testing.T, c *actor.Client, id string, amount int64) {
	t.Helper()
	if _, err := bank.Account(c, id).Deposit(t.Context(), &bankv1.DepositRequest{Amount: amount}); err != nil {
		t.Fatal(err)
	}
}

func mustBalance(t *testing.T, c *actor.Client, id string, want int64) {
	t.Helper()
	got, err := bank.Account(c, id).Balance(t.Context(), &bankv1.BalanceRequest{})
	if err != nil || got.Balance != want {
		t.Errorf("balance of %s: %v, %v; want %d", id, got.GetBalance(), err, want)
	}
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
		deposit(t, c, "dora", 55)
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
		deposit(t, c, "erik", 55)
		_, err := bank.Account(c, "erik").CloseOut(t.Context(), &bankv1.CloseOutRequest{Iban: "DE02"}, actor.IdempotencyKey("close-1"))
		if err == nil {
			t.Fatal("CloseOut succeeded")
		}
		mustBalance(t, c, "erik", 55)
	})
}
