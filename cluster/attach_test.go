package cluster_test

import (
	"context"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/perdure/perdure/actor"
	"github.com/perdure/perdure/cluster"
	bankv1 "github.com/perdure/perdure/examples/bank/gen/bank/v1"
	bank "github.com/perdure/perdure/examples/bank/gen/bank/v1/bankv1perdure"
)

// slowAccounts waits in Deposit.
type slowAccounts struct {
	bank.UnimplementedAccountHandler
	began   chan string
	release chan struct{}
}

func (s slowAccounts) Deposit(ctx bank.AccountTxContext, req *bankv1.DepositRequest) (*bankv1.DepositResponse, error) {
	s.began <- ctx.InvocationID()
	<-s.release
	return &bankv1.DepositResponse{Balance: req.Amount}, nil
}

// TestAttachToWhatIsNotKept: a call without an idempotency key leaves no row, and whoever
// attached to it in time has its result all the same, be its caller still there or not.
func TestAttachToWhatIsNotKept(t *testing.T) {
	for name, leave := range map[string]bool{"its caller waits": false, "its caller left": true} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				node := cluster.NewNode(cluster.WithInMemory(), cluster.WithoutListener(), cluster.WithPartitions(2))
				handler := slowAccounts{began: make(chan string, 1), release: make(chan struct{})}
				bank.RegisterAccountHandler(node, handler)
				if err := node.Start(t.Context()); err != nil {
					t.Fatal(err)
				}
				defer stopNode(t, node)
				ctx, hangUp := context.WithCancel(t.Context())
				defer hangUp()
				called := httptest.NewRecorder()
				go func() {
					request := httptest.NewRequestWithContext(ctx, http.MethodPost, depositPath, strings.NewReader(`{"accountId":"alice","amount":"5"}`))
					request.Header.Set("Content-Type", "application/json")
					node.Handler().ServeHTTP(called, request)
				}()
				id := <-handler.began
				if leave {
					hangUp()
					synctest.Wait()
				}
				var attached *bankv1.DepositResponse
				var failure error
				go func() {
					attached, failure = actor.Attach[*bankv1.DepositResponse](node.Client(), id).Attach(t.Context())
				}()
				synctest.Wait() // it waits for the result
				close(handler.release)
				synctest.Wait()
				if failure != nil || attached.GetBalance() != 5 {
					t.Errorf("attached: %v %v", attached, failure)
				}
				if answered := strings.Contains(called.Body.String(), `"5"`); answered == leave {
					t.Errorf("called: %s", called.Body)
				}
				if _, err := actor.Attach[*bankv1.DepositResponse](node.Client(), id).Attach(t.Context()); actor.CodeOf(err) != actor.NotFound {
					t.Errorf("attached too late: %v", err)
				}
			})
		})
	}
}
