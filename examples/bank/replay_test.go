package main

import (
	"flag"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/perdure/perdure/actor"
	"github.com/perdure/perdure/actor/actortest"
	bankv1 "github.com/perdure/perdure/examples/bank/gen/bank/v1"
	bank "github.com/perdure/perdure/examples/bank/gen/bank/v1/bankv1perdure"
)

var record = flag.Bool("record", false, "write testdata/journals as the code is now")

// TestReplay: what was recorded once is carried on by the code as it is now.
func TestReplay(t *testing.T) {
	if *record {
		recordJournals(t)
	}
	actortest.Replay(t, func(r actor.Registrar) { register(r, logPayouts{}) }, "testdata/journals/*.json")
}

func recordJournals(t *testing.T) {
	t.Run("record", func(t *testing.T) {
		actortest.Run(t, func(t *testing.T, node *actortest.Node) {
			register(node, logPayouts{})
			c := node.Client()
			deposit(t, c, "dora", 55)
			closed, err := bank.Account(c, "dora").CloseOutSend(t.Context(), &bankv1.CloseOutRequest{Iban: "DE02"})
			if err != nil {
				t.Fatal(err)
			}
			deposit(t, c, "tenant", 150)
			order, err := bank.BackOffice(c).StandingOrderSend(t.Context(), &bankv1.StandingOrderRequest{
				OrderId: "rent", From: "tenant", To: "landlord", Amount: 100, Times: 3, Every: durationpb.New(24 * time.Hour),
			})
			if err != nil {
				t.Fatal(err)
			}
			time.Sleep(time.Minute)
			node.Export(t, closed.ID(), "testdata/journals/close_out.json")
			time.Sleep(36 * time.Hour)
			node.Export(t, order.ID(), "testdata/journals/standing_order_running.json")
			time.Sleep(12*time.Hour + 30*time.Minute) // It has ended, and is retained for a day.
			node.Export(t, order.ID(), "testdata/journals/standing_order.json")
		})
	})
}
