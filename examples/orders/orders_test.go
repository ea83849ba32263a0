package main

import (
	"context"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/perdure/perdure/actor"
	"github.com/perdure/perdure/actor/actortest"
	bankv1 "github.com/perdure/perdure/examples/bank/gen/bank/v1"
	bank "github.com/perdure/perdure/examples/bank/gen/bank/v1/bankv1perdure"
	shopv1 "github.com/perdure/perdure/examples/orders/gen/shop/v1"
	shop "github.com/perdure/perdure/examples/orders/gen/shop/v1/shopv1perdure"
)

type mailbox struct {
	mu struct {
		sync.Mutex
		texts []string
	}
}

func (m *mailbox) Send(_ context.Context, _, text string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.mu.texts = append(m.mu.texts, text)
	return nil
}

// eachWay runs a test in the ways of actortest.Run, in fake time, so that three days pass at once.
func eachWay(t *testing.T, test func(t *testing.T, c *actor.Client, mail *mailbox)) {
	actortest.Run(t, func(t *testing.T, node *actortest.Node) {
		mail := &mailbox{}
		register(node, Orders{Mail: mail, ApprovalTimeout: 72 * time.Hour})
		c := node.Client()
		if _, err := shop.Inventory(c, "lamp").Stock(t.Context(), shopv1.StockRequest_builder{Quantity: new(int64(10))}.Build()); err != nil {
			t.Fatal(err)
		}
		if _, err := bank.Account(c, "ann").Deposit(t.Context(), &bankv1.DepositRequest{Amount: 100}); err != nil {
			t.Fatal(err)
		}
		test(t, c, mail)
	})
}

func order() *shopv1.RunRequest {
	return shopv1.RunRequest_builder{Sku: new("lamp"), Quantity: new(int64(2)), Customer: new("ann"), Price: new(int64(60))}.Build()
}

func must(t *testing.T, c *actor.Client, stock, money int64, wantPhase string) {
	t.Helper()
	available, err := shop.Inventory(c, "lamp").Available(t.Context(), &shopv1.AvailableRequest{})
	if err != nil || available.GetOnHand() != stock {
		t.Errorf("stock: %d, %v; want %d", available.GetOnHand(), err, stock)
	}
	balance, err := bank.Account(c, "ann").Balance(t.Context(), &bankv1.BalanceRequest{})
	if err != nil || balance.Balance != money {
		t.Errorf("balance: %d, %v; want %d", balance.GetBalance(), err, money)
	}
	status, err := shop.Order(c, "o-1").Status(t.Context(), &shopv1.StatusRequest{})
	if err != nil || status.GetPhase() != wantPhase {
		t.Errorf("phase: %q, %v; want %q", status.GetPhase(), err, wantPhase)
	}
}

func TestOrderIsShipped(t *testing.T) {
	eachWay(t, func(t *testing.T, c *actor.Client, mail *mailbox) {
		o := shop.Order(c, "o-1")
		// Signal and promise may come before anybody waits for them, even before the start.
		if _, err := o.Approve(t.Context(), shopv1.ApproveRequest_builder{By: new("dave"), Ok: new(true)}.Build()); err != nil {
			t.Fatal(err)
		}
		if _, err := o.RunSend(t.Context(), order()); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Hour) // fake
		must(t, c, 8, 40, "waiting for courier")
		if _, err := o.AssignCourier(t.Context(), shopv1.AssignCourierRequest_builder{Courier: new("eve")}.Build()); err != nil {
			t.Fatal(err)
		}
		got, err := o.RunAttach(t.Context())
		if err != nil || got.GetOutcome() != "shipped" || got.GetCourier() != "eve" {
			t.Fatalf("run: %v, %v", got, err)
		}
		must(t, c, 8, 40, "shipped")
		if len(mail.mu.texts) == 0 || !strings.Contains(mail.mu.texts[0], "o-1") {
			t.Errorf("mails: %q", mail.mu.texts)
		}
		// Starting it again is the same run.
		again, err := o.Run(t.Context(), order())
		if err != nil || again.GetCourier() != "eve" {
			t.Errorf("second start: %v, %v", again, err)
		}
	})
}

func TestOrderNotApprovedInThreeDays(t *testing.T) {
	eachWay(t, func(t *testing.T, c *actor.Client, _ *mailbox) {
		began := time.Now()
		_, err := shop.Order(c, "o-1").Run(t.Context(), order())
		if actor.CodeOf(err) != actor.DeadlineExceeded || !strings.Contains(err.Error(), "not approved in 72h") {
			t.Fatalf("run: %v, want deadline_exceeded", err)
		}
		if waited := time.Since(began); waited < 72*time.Hour || waited > 73*time.Hour {
			t.Errorf("waited %s, want 72 h", waited)
		}
		must(t, c, 10, 100, "failed") // stock and money are back
	})
}

func TestOrderTurnedDown(t *testing.T) {
	eachWay(t, func(t *testing.T, c *actor.Client, _ *mailbox) {
		o := shop.Order(c, "o-1")
		if _, err := o.RunSend(t.Context(), order()); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Hour)
		if _, err := o.Approve(t.Context(), shopv1.ApproveRequest_builder{By: new("dave"), Ok: new(false)}.Build()); err != nil {
			t.Fatal(err)
		}
		_, err := o.RunAttach(t.Context())
		if actor.CodeOf(err) != actor.Aborted || !strings.Contains(err.Error(), "turned down by dave") {
			t.Fatalf("run: %v, want aborted", err)
		}
		must(t, c, 10, 100, "failed")
	})
}

func TestOrderCancelled(t *testing.T) {
	eachWay(t, func(t *testing.T, c *actor.Client, _ *mailbox) {
		run, err := shop.Order(c, "o-1").RunSend(t.Context(), order())
		if err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Hour)
		must(t, c, 8, 40, "waiting for approval")
		if err := run.Cancel(t.Context()); err != nil {
			t.Fatal(err)
		}
		if _, err := run.Attach(t.Context()); actor.CodeOf(err) != actor.Canceled {
			t.Fatalf("run: %v, want canceled", err)
		}
		must(t, c, 10, 100, "failed") // what was done is undone
	})
}
