//go:build unix

package chaos

import (
	"fmt"
	"strings"
	"time"

	"github.com/perdure/perdure/actor"
	bankv1 "github.com/perdure/perdure/examples/bank/gen/bank/v1"
	bank "github.com/perdure/perdure/examples/bank/gen/bank/v1/bankv1perdure"
)

const officePath = "/bank.v1.BackOfficeService/"

func transfer(from, to string, amount int) string {
	return fmt.Sprintf(`{"from":%q,"to":%q,"amount":"%d"}`, from, to, amount)
}

// badTransactions are what a transaction over several objects can do wrong.
var badTransactions = []badCall{
	{name: "refused by a callee", path: transferPath + "Transfer", body: transfer("poor", "not-paid", 5), code: "failed_precondition", want: []string{"account poor has only 0"}, key: "not-paid"},
	{name: "refused once more by its key", path: transferPath + "Transfer", body: `{"transferId":"bad-1","from":"poor","to":"not-paid-2","amount":"5"}`, code: "failed_precondition", want: []string{"account poor has only 0"}},
	{name: "refused once more, repeated", path: transferPath + "Transfer", body: `{"transferId":"bad-1","from":"poor","to":"not-paid-2","amount":"5"}`, code: "failed_precondition", want: []string{"account poor has only 0"}, key: "not-paid-2"},
	{name: "another request with its key", path: transferPath + "Transfer", body: `{"transferId":"bad-1","from":"poor","to":"not-paid-3","amount":"5"}`, code: "already_exists", want: []string{"bad-1", "another request"}, key: "not-paid-3"},
	{name: "a key in the request and another in the header", path: transferPath + "Transfer", body: `{"transferId":"bad-2","from":"poor","to":"p","amount":"5"}`, headers: []string{"Idempotency-Key", "other"}, code: "invalid_argument"},
	{name: "a callee's key is too long", path: transferPath + "Transfer", body: transfer(strings.Repeat("k", 256), "long-key", 5), code: "invalid_argument", want: []string{"256 bytes", "at most 255"}, key: "long-key"},
	{name: "the same account twice", path: transferPath + "Transfer", body: transfer("self-transfer", "self-transfer", 5), key: "self-transfer"},
	{name: "a read of the same account twice", path: officePath + "Total", body: `{"accountIds":["a","a"]}`, code: "invalid_argument", want: []string{"unique"}, details: true},
	{name: "a read that panics", path: officePath + "Total", body: `{"accountIds":["fine","panic"]}`, code: "internal", want: []string{"panicked"}, key: "fine"},
	{name: "a callee blocks", path: accountPath + "Deposit", body: deposit("calls-block", 5), code: "deadline_exceeded", want: []string{"did not end within 2000 ms", "calls-block"}, key: "calls-block"},
	{name: "a callee blocks and is deaf", path: accountPath + "Deposit", body: deposit("calls-deaf", 5), code: "deadline_exceeded", want: []string{"did not end within 2000 ms", "calls-deaf"}, key: "calls-deaf"},
	{name: "calls that wait for each other", path: accountPath + "Deposit", body: deposit("calls-crossing", 5), code: "deadline_exceeded", want: []string{"calls-crossing"}, key: "crossing-1"},
	{name: "more calls of a chain than there may be", path: accountPath + "Deposit", body: deposit("calls-deep/0", 5), code: "resource_exhausted", want: []string{"chain"}, key: "calls-deep/1"},
	{name: "Sleep in a callee", path: accountPath + "Deposit", body: deposit("calls-sleep", 5), code: "failed_precondition", want: []string{"Sleep", "mode: DURABLE"}, key: "calls-sleep"},
	{name: "Run in a callee", path: accountPath + "Deposit", body: deposit("calls-run", 5), code: "failed_precondition", want: []string{"Run", "mode: DURABLE"}, key: "calls-run"},
	{name: "a failed callee is heeded", path: accountPath + "Deposit", body: deposit("calls-and-goes-on", 5), key: "call-and-fail"},
	{name: "a step from a foreign goroutine", path: accountPath + "Deposit", body: deposit("calls-foreign", 5), code: "failed_precondition", want: []string{"goroutine"}, key: "calls-foreign"},
	{name: "too many writes with its calls", path: accountPath + "Deposit", body: deposit("calls-many", 5), code: "resource_exhausted", want: []string{"writes"}, key: "many-rows/0"},
	{name: "a DURABLE handler begins to hold a key", path: accountPath + "CloseOut", body: closeOut("held-for-long", "sleep"), headers: []string{"Perdure-Send", "1"}},
	{name: "a DURABLE handler holds a callee's key", path: accountPath + "Deposit", body: deposit("calls-held", 5), code: "deadline_exceeded", want: []string{"did not end within 2000 ms", "held-for-long", "DURABLE"}, key: "calls-held"},
	{name: "a DURABLE handler holds what is read", path: officePath + "Total", body: `{"accountIds":["held-for-long"]}`},
}

// callBadly is a Deposit that calls others, as its account's name says.
func callBadly(ctx bank.AccountTxContext, behaviour string) error {
	put := func(key string, amount int64) error {
		_, err := bank.Account(ctx, key).Deposit(ctx, &bankv1.DepositRequest{Amount: amount})
		return err
	}
	switch behaviour {
	case "calls-block":
		return put("block", 5)
	case "calls-deaf":
		return put("block-deaf", 5)
	case "calls-crossing":
		one := bank.Account(ctx, "crossing-1").DepositAsync(ctx, &bankv1.DepositRequest{Amount: 5})
		two := bank.Account(ctx, "crossing-2").DepositAsync(ctx, &bankv1.DepositRequest{Amount: 5})
		_, err := actor.All(ctx, one, two)
		return err
	case "crossing-1":
		time.Sleep(100 * time.Millisecond)
		return put("crossing-2", 1)
	case "crossing-2":
		time.Sleep(100 * time.Millisecond)
		return put("crossing-1", 1)
	case "calls-deep":
		var depth int
		if _, err := fmt.Sscanf(ctx.Key(), "calls-deep/%d", &depth); err != nil {
			return err
		}
		return put(fmt.Sprint("calls-deep/", depth+1), 5)
	case "calls-sleep":
		return put("sleep", 5)
	case "calls-run":
		return put("run", 5)
	case "calls-and-goes-on":
		if err := put("call-and-fail", 5); actor.CodeOf(err) != actor.Aborted {
			return actor.Errorf(actor.Internal, "the callee did not fail: %v", err)
		}
	case "calls-foreign":
		failed := make(chan error)
		go func() { failed <- put("foreign-callee", 5) }()
		return <-failed
	case "calls-many":
		for i := range 10 {
			if err := put(fmt.Sprint("many-rows/", i), 1000); err != nil {
				return err
			}
		}
	case "calls-held":
		return put("held-for-long", 5)
	}
	return nil
}
