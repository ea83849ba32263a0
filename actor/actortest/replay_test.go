package actortest_test

import (
	"cmp"
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/perdure/perdure/actor"
	"github.com/perdure/perdure/actor/actortest"
	bankv1 "github.com/perdure/perdure/examples/bank/gen/bank/v1"
	bank "github.com/perdure/perdure/examples/bank/gen/bank/v1/bankv1perdure"
)

// payOut is version 1 of a handler; closures counts those of its closures that were called.
func payOut(closures *int) func(ctx bank.AccountDurableContext) (string, error) {
	return func(ctx bank.AccountDurableContext) (string, error) {
		ctx.State().Update(func(s *bankv1.AccountState) { s.Balance += 5 })
		ctx.Ledger().Put("x", &bankv1.LedgerEntry{Amount: ctx.State().Get().Balance})
		paid, err := actor.Run(ctx, "pay", func(context.Context) (string, error) { *closures++; return "p-1", nil })
		if err != nil {
			return "", err
		}
		if _, err := bank.Account(ctx, "b").Deposit(ctx, &bankv1.DepositRequest{Amount: 5}); err != nil {
			return "", err
		}
		return paid, actor.Sleep(ctx, time.Hour)
	}
}

// record runs handler up to an instant, and exports its journal.
func record(t *testing.T, after time.Duration, handler func(ctx bank.AccountDurableContext) (string, error)) (file string) {
	t.Helper()
	file = filepath.Join(t.TempDir(), "journal.json")
	t.Run("record", func(t *testing.T) {
		actortest.Run(t, func(t *testing.T, node *actortest.Node) {
			bank.RegisterAccountHandler(node, accounts{closeOut: handler})
			sent, err := bank.Account(node.Client(), "a").CloseOutSend(t.Context(), &bankv1.CloseOutRequest{})
			if err != nil {
				t.Fatal(err)
			}
			time.Sleep(after)
			node.Export(t, sent.ID(), file)
		})
	})
	return file
}

func register(handler func(ctx bank.AccountDurableContext) (string, error)) func(actor.Registrar) {
	return func(r actor.Registrar) { bank.RegisterAccountHandler(r, accounts{closeOut: handler}) }
}

func TestReplaySameCode(t *testing.T) {
	for name, after := range map[string]time.Duration{"ended": 2 * time.Hour, "sleeping": time.Minute} {
		t.Run(name, func(t *testing.T) {
			var closures int
			file := record(t, after, payOut(&closures))
			closures = 0
			actortest.Replay(t, register(payOut(&closures)), file)
			if closures != 0 {
				t.Errorf("%d closures were called", closures)
			}
		})
	}
}

// TestReplayOfCompatibleCode: what comes where the journal stops may change.
func TestReplayOfCompatibleCode(t *testing.T) {
	var closures int
	old := payOut(&closures)
	file := record(t, time.Minute, old)
	actortest.Replay(t, register(func(ctx bank.AccountDurableContext) (string, error) {
		if _, err := old(ctx); err != nil {
			return "", err
		}
		return "another answer", actor.Do(ctx, "more", func(context.Context) error { return nil })
	}), file)
}

// TestReplayOfOneThatWasGivenUp: an invocation that failed since its attempts were used up stopped where its
// journal does, and code that goes on there is what it lacked.
func TestReplayOfOneThatWasGivenUp(t *testing.T) {
	handler := func(mended bool) func(ctx bank.AccountDurableContext) (string, error) {
		return func(ctx bank.AccountDurableContext) (string, error) {
			paid, err := actor.Run(ctx, "pay", func(context.Context) (string, error) { return "p-1", nil })
			if err != nil {
				return "", err
			}
			if !mended {
				return "", errors.New("a bug")
			}
			return paid, actor.Sleep(ctx, time.Hour)
		}
	}
	file := record(t, time.Hour, handler(false))
	if exported, err := os.ReadFile(file); err != nil || !strings.Contains(string(exported), "failed 30 times") {
		t.Fatalf("it was not given up: %v %s", err, exported)
	}
	actortest.Replay(t, register(handler(true)), file)
}

// cancelled sleeps until it is cancelled, and does something about that.
func cancelled(ctx bank.AccountDurableContext) (string, error) {
	err := actor.Sleep(ctx, 24*time.Hour)
	ctx.State().Update(func(s *bankv1.AccountState) { s.Balance = 1 })
	return "", err
}

// changes are later versions of payOut that do not fit its journals.
var changes = map[string]struct {
	handler func(ctx bank.AccountDurableContext) (string, error)
	want    []string
}{
	"another step": {func(ctx bank.AccountDurableContext) (string, error) {
		ctx.State().Update(func(s *bankv1.AccountState) { s.Balance += 5 })
		return actor.Run(ctx, "charge", func(context.Context) (string, error) { return "", nil })
	}, []string{"the code does not replay the journal", "journal", "code", `1 State().Set`, `2 Put of "x" in table ledger`, `| `, `Run "charge"`}},
	"another value": {func(ctx bank.AccountDurableContext) (string, error) {
		ctx.State().Update(func(s *bankv1.AccountState) { s.Balance += 6 })
		return "", nil
	}, []string{"the value differs"}},
	"an earlier end": {func(ctx bank.AccountDurableContext) (string, error) {
		ctx.State().Update(func(s *bankv1.AccountState) { s.Balance += 5 })
		return "", nil
	}, []string{"the code does not replay the journal", "the handler's end"}},
	"a step more": {func(ctx bank.AccountDurableContext) (string, error) {
		var closures int
		if _, err := payOut(&closures)(ctx); err != nil {
			return "", err
		}
		return "", actor.Do(ctx, "more", func(context.Context) error { return nil })
	}, []string{`had ended, and the code makes another step: Run "more" at replay_test.go:`}},
	"another response": {func(ctx bank.AccountDurableContext) (string, error) {
		var closures int
		_, err := payOut(&closures)(ctx)
		return "p-2", err
	}, []string{"the response was", "p-1", "p-2"}},
	"another error": {func(ctx bank.AccountDurableContext) (string, error) {
		var closures int
		if _, err := payOut(&closures)(ctx); err != nil {
			return "", err
		}
		return "", actor.Errorf(actor.Aborted, "no more")
	}, []string{"the invocation ended with success; the code ends with aborted: no more"}},
}

func init() {
	mistakes["replay of a file"] = mistake{test: func(t *testing.T) {
		actortest.Replay(t, register(nil), cmp.Or(os.Getenv("PERDURE_ACTORTEST_FILE"), "no file"))
	}}
	for name, change := range changes {
		mistakes["replay: "+name] = mistake{func(t *testing.T) {
			var closures int
			actortest.Replay(t, register(change.handler), record(t, 2*time.Hour, payOut(&closures)))
		}, change.want}
	}
}

func init() {
	mistakes["replay: another end of a cancelled one"] = mistake{func(t *testing.T) {
		file := filepath.Join(t.TempDir(), "journal.json")
		t.Run("record", func(t *testing.T) {
			actortest.Run(t, func(t *testing.T, node *actortest.Node) {
				bank.RegisterAccountHandler(node, accounts{closeOut: cancelled})
				sent, err := bank.Account(node.Client(), "a").CloseOutSend(t.Context(), &bankv1.CloseOutRequest{})
				if err != nil {
					t.Fatal(err)
				}
				time.Sleep(time.Hour) // of the bubble: it sleeps by then
				if err := sent.Cancel(t.Context()); err != nil {
					t.Fatal(err)
				}
				time.Sleep(time.Minute) // of the bubble: it has ended by then
				node.Export(t, sent.ID(), file)
			})
		})
		actortest.Replay(t, register(cancelled), file)
		actortest.Replay(t, register(func(ctx bank.AccountDurableContext) (string, error) {
			if _, err := cancelled(ctx); err != nil {
				return "", actor.Errorf(actor.Aborted, "no more")
			}
			return "", nil
		}), file)
	}, []string{"the invocation ended with canceled: the invocation was cancelled; the code ends with aborted: no more"}}
}

func TestReplayRefusesFiles(t *testing.T) {
	for name, content := range map[string]string{"newer": `{"format": 2, "fieldOfFormatTwo": 1}`, "other": `{"format": 0}`, "garbage": `no`} {
		file := filepath.Join(t.TempDir(), "journal.json")
		if err := os.WriteFile(file, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		t.Setenv("PERDURE_ACTORTEST_FILE", file)
		out := runMistake(t, "replay of a file")
		want := map[string]string{"newer": "has format 2; this version reads 1 to 1", "other": "has format 0", "garbage": "is not an exported journal"}[name]
		if !strings.Contains(out, want) {
			t.Errorf("%s: the output does not say %q:\n%s", name, want, out)
		}
	}
}
