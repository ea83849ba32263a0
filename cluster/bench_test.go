package cluster_test

import (
	"testing"

	"github.com/perdure/perdure/cluster"
	bankv1 "github.com/perdure/perdure/examples/bank/gen/bank/v1"
	bank "github.com/perdure/perdure/examples/bank/gen/bank/v1/bankv1perdure"
)

// BenchmarkStub is one call through the generated stub, in process: with the log and the store
// in memory it is all of Perdure's own work, and on disk it is a sync beside it.
func BenchmarkStub(b *testing.B) {
	for name, opts := range map[string][]cluster.Option{
		"memory": {cluster.WithInMemory(), cluster.WithoutListener()},
		"disk":   {cluster.WithoutListener()},
	} {
		node := newNode(b, b.TempDir(), opts...)
		startNode(b, node)
		account := bank.Account(node.Client(), "alice")
		b.Run(name+"/transaction", func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if _, err := account.Deposit(b.Context(), &bankv1.DepositRequest{Amount: 1}); err != nil {
					b.Fatal(err)
				}
			}
		})
		b.Run(name+"/read", func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if _, err := account.Balance(b.Context(), &bankv1.BalanceRequest{}); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
