package peer

import (
	"errors"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/protobuf/proto"

	bankv1 "github.com/perdure/perdure/examples/bank/gen/bank/v1"
	"github.com/perdure/perdure/internal/invocation"
	"github.com/perdure/perdure/internal/routing"
)

// TestStaleLeader: a leader that was superseded and does not know it says nothing that the new one
// knows better, and those who ask it have the new one's answer.
func TestStaleLeader(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 2, 1, 1)
		ctx := t.Context()
		key := w.keyIn(1, 0)
		total := func(n *node, idempotency string) (int64, error) {
			result, err := n.Call(ctx, invoke(bankOffice, "", "Total", invocation.ModeTransaction, idempotency, &bankv1.TotalRequest{AccountIds: []string{key}}))
			if err != nil || result.Error != nil {
				return 0, errors.Join(err, fmt.Errorf("result: %v", result))
			}
			response := &bankv1.TotalResponse{}
			err = proto.Unmarshal(result.Value, response)
			return response.Sum, err
		}
		want := int64(0)
		for name, ask := range map[string]func(n *node, last []byte) (int64, error){
			"read":               func(n *node, _ []byte) (int64, error) { return n.balance(ctx, key) },
			"transaction":        func(n *node, _ []byte) (int64, error) { return total(n, "") },
			"transaction, keyed": func(n *node, _ []byte) (int64, error) { return total(n, fmt.Sprint(want)) },
			"attach": func(n *node, last []byte) (int64, error) {
				result, err := n.Attach(ctx, idFrom(last))
				response := &bankv1.DepositResponse{}
				return response.GetBalance() + want, errors.Join(err, proto.Unmarshal(result.GetValue(), response))
			},
			"state": func(n *node, _ []byte) (int64, error) {
				state, err := n.StatePage(ctx, routing.StateQuery{Object: invocation.Object{Service: bankAccount, Key: key}})
				if err != nil {
					return 0, err
				}
				account := &bankv1.AccountState{}
				err = proto.Unmarshal(state.State, account)
				return account.Balance, err
			},
			"journal": func(n *node, last []byte) (int64, error) {
				_, err := n.Invocation(ctx, idFrom(last))
				return want, err
			},
		} {
			old := w.at(1, true)
			heir := w.at(1, false)
			w.groups[0].lead(heir.id, 700*time.Millisecond)
			w.until("the heir leads", func() bool { return heir.local.Leads(1) })
			in := deposit(key, fmt.Sprint("deposit ", want), 1)
			if _, err := heir.Call(ctx, in); err != nil {
				t.Fatal(err)
			}
			want++
			if !old.local.Leads(1) {
				t.Fatal("the old leader knows already")
			}
			got, err := ask(old, in.InvocationId)
			if _, again := errors.AsType[*routing.Error](err); again && name == "transaction" {
				// It may have been accepted, and has no name: its caller makes another one.
				got, err = ask(old, in.InvocationId)
			}
			if err != nil || got != want {
				t.Errorf("%s: %d, %v, want %d", name, got, err, want)
			}
			w.settle()
		}
	})
}
