package cluster_test

import (
	"context"
	"io"
	"log/slog"
	"net/http"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/perdure/perdure/actor"
	"github.com/perdure/perdure/cluster"
	bankv1 "github.com/perdure/perdure/examples/bank/gen/bank/v1"
	bank "github.com/perdure/perdure/examples/bank/gen/bank/v1/bankv1perdure"
)

type accounts struct {
	bank.UnimplementedAccountHandler
}

func (accounts) Deposit(ctx bank.AccountTxContext, req *bankv1.DepositRequest) (*bankv1.DepositResponse, error) {
	state := ctx.State().Get()
	state.Balance += req.Amount
	ctx.State().Set(state)
	return &bankv1.DepositResponse{Balance: state.Balance}, nil
}

func (accounts) Withdraw(ctx bank.AccountTxContext, req *bankv1.WithdrawRequest) (*bankv1.WithdrawResponse, error) {
	state := ctx.State().Get()
	if state.Balance < req.Amount {
		return nil, actor.Errorf(actor.FailedPrecondition, "account %s has only %d", ctx.Key(), state.Balance)
	}
	state.Balance -= req.Amount
	ctx.State().Set(state)
	return &bankv1.WithdrawResponse{Balance: state.Balance}, nil
}

func (accounts) Balance(ctx bank.AccountReadContext, _ *bankv1.BalanceRequest) (*bankv1.BalanceResponse, error) {
	return &bankv1.BalanceResponse{Balance: ctx.State().Get().Balance}, nil
}

func newNode(t testing.TB, dir string, opts ...cluster.Option) *cluster.Node {
	t.Helper()
	opts = append([]cluster.Option{
		cluster.WithDataDir(dir), cluster.WithListen("127.0.0.1:0"), cluster.WithPartitions(8),
		cluster.WithLogger(slog.New(slog.NewTextHandler(io.Discard, nil))),
	}, opts...)
	node := cluster.NewNode(opts...)
	bank.RegisterAccountHandler(node, accounts{})
	return node
}

func startNode(t testing.TB, node *cluster.Node) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	if err := node.Start(ctx); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { stopNode(t, node) })
}

func stopNode(t testing.TB, node *cluster.Node) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	if err := shutDown(t, node, ctx); err != nil {
		t.Error(err)
	}
}

// cutOff stops a node that waits for nobody. What it cuts off is its error.
func cutOff(t testing.TB, node *cluster.Node) {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	_ = shutDown(t, node, ctx)
}

// shutDown has a node that does not come to its end fail the test with what it is doing, and not the whole package
// when that runs out of time.
func shutDown(t testing.TB, node *cluster.Node, ctx context.Context) error {
	t.Helper()
	ended := make(chan error, 1)
	go func() { ended <- node.Shutdown(ctx) }()
	select {
	case err := <-ended:
		return err
	case <-time.After(time.Minute): // a real node with real connections, which has twice DrainTimeout at most
		stacks := make([]byte, 1<<20)
		t.Fatalf("the node does not come to its end; all goroutines:\n%s", stacks[:runtime.Stack(stacks, true)])
		return nil
	}
}

// TestNode is the whole way, from an HTTP call to the disk and back after a restart.
func TestNode(t *testing.T) {
	dir := t.TempDir()
	node := newNode(t, dir)
	startNode(t, node)
	request, err := http.NewRequestWithContext(t.Context(), http.MethodPost, node.URL()+"/bank.v1.AccountService/Deposit",
		strings.NewReader(`{"accountId":"alice","amount":"5"}`))
	if err != nil {
		t.Fatal(err)
	}
	request.Header.Set("Content-Type", "application/json")
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		t.Fatal(err)
	}
	body, err := io.ReadAll(response.Body)
	response.Body.Close()
	if err != nil || strings.ReplaceAll(string(body), " ", "") != `{"balance":"5"}` {
		t.Fatalf("%s %v", body, err)
	}

	for _, caller := range []struct {
		name   string
		client *actor.Client
	}{
		{"in process", node.Client()},
		{"dialled", cluster.Dial(nil, node.URL())},
	} {
		t.Run(caller.name, func(t *testing.T) {
			alice := bank.Account(caller.client, "alice")
			before, err := alice.Balance(t.Context(), &bankv1.BalanceRequest{})
			if err != nil {
				t.Fatal(err)
			}
			after, err := alice.Deposit(t.Context(), &bankv1.DepositRequest{Amount: 7})
			if err != nil || after.Balance != before.Balance+7 {
				t.Errorf("deposit: %v %v", after, err)
			}
			_, err = alice.Withdraw(t.Context(), &bankv1.WithdrawRequest{Amount: 1000})
			if actor.CodeOf(err) != actor.FailedPrecondition || !strings.Contains(err.Error(), "account alice has only") {
				t.Errorf("withdraw: %v", err)
			}
			sent, err := alice.DepositSend(t.Context(), &bankv1.DepositRequest{Amount: 1}, actor.IdempotencyKey("once "+caller.name))
			if err != nil {
				t.Fatal(err)
			}
			result, err := sent.Attach(t.Context())
			if err != nil || result.Balance != after.Balance+1 {
				t.Errorf("attach: %v %v", result, err)
			}
			again, err := alice.Deposit(t.Context(), &bankv1.DepositRequest{Amount: 1}, actor.IdempotencyKey("once "+caller.name))
			if err != nil || again.Balance != result.Balance {
				t.Errorf("the same call again: %v %v", again, err)
			}
		})
	}

	want, err := bank.Account(node.Client(), "alice").Balance(t.Context(), &bankv1.BalanceRequest{})
	if err != nil {
		t.Fatal(err)
	}
	stopNode(t, node)
	_, err = bank.Account(node.Client(), "alice").Balance(t.Context(), &bankv1.BalanceRequest{})
	if actor.CodeOf(err) != actor.FailedPrecondition || !strings.Contains(err.Error(), "the node is closed") {
		t.Errorf("a call after shutdown: %v", err)
	}

	again := newNode(t, dir)
	startNode(t, again)
	got, err := bank.Account(again.Client(), "alice").Balance(t.Context(), &bankv1.BalanceRequest{})
	if err != nil || got.Balance != want.Balance {
		t.Errorf("after a restart: %v %v, want %v", got, err, want)
	}
}

// TestAdmin: the node's own service is on its port, and tells what the node knows of itself.
func TestAdmin(t *testing.T) {
	dir := t.TempDir()
	node := newNode(t, dir, cluster.WithTelemetry(cluster.Telemetry{Prometheus: true}))
	startNode(t, node)
	if _, err := bank.Account(node.Client(), "alice").Deposit(t.Context(), &bankv1.DepositRequest{Amount: 7}); err != nil {
		t.Fatal(err)
	}
	fetch := func(method, path, body string) string {
		t.Helper()
		request, err := http.NewRequestWithContext(t.Context(), method, node.URL()+path, strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		request.Header.Set("Content-Type", "application/json")
		response, err := http.DefaultClient.Do(request)
		if err != nil {
			t.Fatal(err)
		}
		defer response.Body.Close()
		got, err := io.ReadAll(response.Body)
		if err != nil {
			t.Fatal(err)
		}
		return strings.ReplaceAll(string(got), " ", "")
	}
	described := fetch(http.MethodPost, "/perdure.admin.v1.AdminService/GetNode", "{}")
	for _, want := range []string{`"ready":true`, `"directory":"` + dir + `"`, `"logBytes":"`, `{"id":8,"leader":true,"epoch":"`} {
		if !strings.Contains(described, want) {
			t.Errorf("%s does not say %s", described, want)
		}
	}
	state := fetch(http.MethodPost, "/perdure.admin.v1.AdminService/GetState", `{"service":"bank.v1.AccountService","key":"alice"}`)
	if !strings.Contains(state, `balance\":\"7`) {
		t.Errorf("state: %s", state)
	}
	metrics := fetch(http.MethodGet, "/metrics", "")
	for _, want := range []string{`perdure_calls_total{code="ok",handler="Deposit"`, "perdure_log_size_bytes"} {
		if !strings.Contains(metrics, want) {
			t.Errorf("%q is not in the metrics", want)
		}
	}
}
