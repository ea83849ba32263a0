package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os/exec"
	"strings"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/perdure/perdure/cluster"
	bankv1 "github.com/perdure/perdure/examples/bank/gen/bank/v1"
	bank "github.com/perdure/perdure/examples/bank/gen/bank/v1/bankv1perdure"
)

// threeWays calls the same account by the Go stub, by curl and by a stock gRPC client.
func threeWays(ctx context.Context, url string) error {
	step("Go stub: Deposit 100 to alice")
	alice := bank.Account(cluster.Dial(nil, url), "alice")
	deposited, err := alice.Deposit(ctx, &bankv1.DepositRequest{Amount: 100})
	if err != nil {
		return fmt.Errorf("go stub: %w", err)
	}
	if deposited.Balance != 100 {
		return fmt.Errorf("go stub: balance %d, want 100", deposited.Balance)
	}
	done("balance %d", deposited.Balance)

	step("curl and JSON: Withdraw 30")
	answer, how, err := postJSON(ctx, url+"/"+bank.AccountServiceName+"/Withdraw", `{"accountId":"alice","amount":"30"}`)
	if err != nil {
		return err
	}
	if answer != `{"balance":"70"}` {
		return fmt.Errorf("%s: %s, want a balance of 70", how, answer)
	}
	done("%s (%s)", answer, how)

	step("the same again, too much")
	answer, how, err = postJSON(ctx, url+"/"+bank.AccountServiceName+"/Withdraw", `{"accountId":"alice","amount":"500"}`)
	if err != nil {
		return err
	}
	if !strings.Contains(answer, "failed_precondition") {
		return fmt.Errorf("%s: %s, want failed_precondition", how, answer)
	}
	done("%s", answer)

	step("gRPC: Balance")
	conn, err := grpc.NewClient(strings.TrimPrefix(url, "http://"), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return err
	}
	defer conn.Close()
	balance := &bankv1.BalanceResponse{}
	if err := conn.Invoke(ctx, "/"+bank.AccountServiceName+"/Balance", &bankv1.BalanceRequest{AccountId: "alice"}, balance); err != nil {
		return fmt.Errorf("grpc: %w", err)
	}
	if balance.Balance != 70 {
		return fmt.Errorf("grpc: balance %d, want 70", balance.Balance)
	}
	done("balance %d", balance.Balance)
	return nil
}

// postJSON uses curl where there is one, and net/http where not.
func postJSON(ctx context.Context, url, body string) (answer, how string, err error) {
	if curl, lookErr := exec.LookPath("curl"); lookErr == nil {
		out, err := exec.CommandContext(ctx, curl, "-sS", "--max-time", "10", url, "-H", "Content-Type: application/json", "-d", body).Output()
		var exit *exec.ExitError
		if errors.As(err, &exit) {
			err = fmt.Errorf("curl: %w: %s", err, exit.Stderr)
		}
		return strings.TrimSpace(string(out)), "curl", err
	}
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, url, bytes.NewReader([]byte(body)))
	if err != nil {
		return "", "", err
	}
	request.Header.Set("Content-Type", "application/json")
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return "", "", err
	}
	defer response.Body.Close()
	out, err := io.ReadAll(io.LimitReader(response.Body, 1<<20))
	return strings.TrimSpace(string(out)), "net/http, since there is no curl", err
}
