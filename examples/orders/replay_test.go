package main

import (
	"flag"
	"testing"
	"time"

	"github.com/perdure/perdure/actor"
	"github.com/perdure/perdure/actor/actortest"
	bankv1 "github.com/perdure/perdure/examples/bank/gen/bank/v1"
	bank "github.com/perdure/perdure/examples/bank/gen/bank/v1/bankv1perdure"
	shopv1 "github.com/perdure/perdure/examples/orders/gen/shop/v1"
	shop "github.com/perdure/perdure/examples/orders/gen/shop/v1/shopv1perdure"
)

var record = flag.Bool("record", false, "write testdata/journals as the code is now")

// TestReplay: orders that were recorded once are carried on by the code as it is now. A change of
// Orders.Run that fails here would break the orders that are on their way.
func TestReplay(t *testing.T) {
	if *record {
		recordJournals(t)
	}
	actortest.Replay(t, func(r actor.Registrar) { register(r, Orders{ApprovalTimeout: 72 * time.Hour}) }, "testdata/journals/*.json")
}

func recordJournals(t *testing.T) {
	approve := func(t *testing.T, c *actor.Client, ok bool) {
		if _, err := shop.Order(c, "o-1").Approve(t.Context(), shopv1.ApproveRequest_builder{By: new("dave"), Ok: new(ok)}.Build()); err != nil {
			t.Fatal(err)
		}
	}
	for name, story := range map[string]func(t *testing.T, c *actor.Client){
		"waiting": func(*testing.T, *actor.Client) {},
		"late":    func(*testing.T, *actor.Client) { time.Sleep(73 * time.Hour) },
		"refused": func(t *testing.T, c *actor.Client) { approve(t, c, false) },
		"shipped": func(t *testing.T, c *actor.Client) {
			approve(t, c, true)
			if _, err := shop.Order(c, "o-1").AssignCourier(t.Context(), shopv1.AssignCourierRequest_builder{Courier: new("eve")}.Build()); err != nil {
				t.Fatal(err)
			}
		},
	} {
		t.Run("record "+name, func(t *testing.T) {
			actortest.Run(t, func(t *testing.T, node *actortest.Node) {
				register(node, Orders{Mail: &mailbox{}, ApprovalTimeout: 72 * time.Hour})
				c := node.Client()
				if _, err := shop.Inventory(c, "lamp").Stock(t.Context(), shopv1.StockRequest_builder{Quantity: new(int64(10))}.Build()); err != nil {
					t.Fatal(err)
				}
				if _, err := bank.Account(c, "ann").Deposit(t.Context(), &bankv1.DepositRequest{Amount: 100}); err != nil {
					t.Fatal(err)
				}
				sent, err := shop.Order(c, "o-1").RunSend(t.Context(), order())
				if err != nil {
					t.Fatal(err)
				}
				time.Sleep(time.Minute)
				story(t, c)
				time.Sleep(time.Minute)
				node.Export(t, sent.ID(), "testdata/journals/"+name+".json")
			})
		})
	}
}
