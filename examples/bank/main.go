// Command bank is a bank of accounts that one can pay into, take from and transfer between.
//
//	go run ./examples/bank
package main

import (
	"context"
	"fmt"
	"log/slog"

	"buf.build/go/protovalidate"
	"google.golang.org/protobuf/proto"

	"github.com/perdure/perdure/actor"
	"github.com/perdure/perdure/cluster"
	bank "github.com/perdure/perdure/examples/bank/gen/bank/v1/bankv1perdure"
)

func main() {
	cluster.Main(func(n *cluster.Node) { register(n, logPayouts{}) },
		cluster.WithValidator(func(m proto.Message) error { return protovalidate.Validate(m) }),
		cluster.WithOnServing(try))
}

// try tells a newcomer what to do next.
func try(url string) {
	fmt.Printf(`
Try it in another terminal:

  curl %[1]s/bank.v1.AccountService/Deposit  -H 'Content-Type: application/json' -d '{"accountId":"alice","amount":"5"}'
  curl %[1]s/bank.v1.AccountService/Withdraw -H 'Content-Type: application/json' -d '{"accountId":"alice","amount":"7"}'
  curl %[1]s/bank.v1.AccountService/Balance  -H 'Content-Type: application/json' -d '{"accountId":"alice"}'

Two accounts at once, or neither:

  curl %[1]s/bank.v1.TransferService/Transfer  -H 'Content-Type: application/json' -d '{"transferId":"t-1","from":"alice","to":"bob","amount":"3"}'
  curl %[1]s/bank.v1.BackOfficeService/Total   -H 'Content-Type: application/json' -d '{"accountIds":["alice","bob"]}'

Then kill it, start it again and look at the balance. Ctrl-C stops it.

`, url)
}

func register(r actor.Registrar, payouts Payouts) {
	bank.RegisterAccountHandler(r, Accounts{Payouts: payouts})
	bank.RegisterTransferHandler(r, Transfers{})
	bank.RegisterBackOfficeHandler(r, BackOffice{})
}

// logPayouts is an outside bank that writes down what it was asked for.
type logPayouts struct{}

func (logPayouts) Pay(_ context.Context, iban string, amount int64, requestID string) (string, error) {
	slog.Info("paid out", "iban", iban, "amount", amount, "request_id", requestID)
	return "payout-" + requestID, nil
}
