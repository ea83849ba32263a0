// Command orders is a shop: an order is a workflow that reserves stock, takes money, waits for
// approval and for a courier, and undoes all of it if it fails.
//
//	go run ./examples/orders
package main

import (
	"context"
	"log/slog"
	"time"

	"github.com/perdure/perdure/actor"
	"github.com/perdure/perdure/cluster"
	shop "github.com/perdure/perdure/examples/orders/gen/shop/v1/shopv1perdure"
)

func main() {
	cluster.Main(func(n *cluster.Node) { register(n, Orders{Mail: logMailer{}, ApprovalTimeout: 72 * time.Hour}) })
}

func register(r actor.Registrar, orders Orders) {
	shop.RegisterInventoryHandler(r, Inventory{})
	shop.RegisterOrderHandler(r, orders)
	registerBank(r)
}

// logMailer writes mails to the log.
type logMailer struct{}

func (logMailer) Send(_ context.Context, to, text string) error {
	slog.Info("mail", "to", to, "text", text)
	return nil
}
