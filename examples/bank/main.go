// Command bank is a bank of accounts that one can pay into, take from and transfer between.
//
//	go run ./examples/bank
package main

import (
	"context"
	"log/slog"

	"buf.build/go/protovalidate"
	"google.golang.org/protobuf/proto"

	"github.com/perdure/perdure/cluster"
	bank "github.com/perdure/perdure/examples/bank/gen/bank/v1/bankv1perdure"
)

func main() {
	cluster.Main(register, cluster.WithValidator(func(m proto.Message) error { return protovalidate.Validate(m) }))
}

func register(n *cluster.Node) {
	bank.RegisterAccountHandler(n, Accounts{Payouts: logPayouts{}})
	bank.RegisterTransferHandler(n, Transfers{})
}

// logPayouts is an outside bank that writes down what it was asked for.
type logPayouts struct{}

func (logPayouts) Pay(_ context.Context, iban string, amount int64, requestID string) (string, error) {
	slog.Info("paid out", "iban", iban, "amount", amount, "request_id", requestID)
	return "payout-" + requestID, nil
}
