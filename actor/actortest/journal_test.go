package actortest_test

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/perdure/perdure/actor"
	"github.com/perdure/perdure/actor/actortest"
	bankv1 "github.com/perdure/perdure/examples/bank/gen/bank/v1"
	bank "github.com/perdure/perdure/examples/bank/gen/bank/v1/bankv1perdure"
)

// steps makes one of each of several steps: such that succeed, fail, wait, or never end.
func steps(ctx bank.AccountDurableContext) (string, error) {
	ctx.State().Update(func(s *bankv1.AccountState) { s.Balance += 5 })
	ctx.Ledger().Put("x", &bankv1.LedgerEntry{Amount: 5})
	if _, err := actor.Run(ctx, "pay", func(context.Context) (string, error) { return "p-1", nil }); err != nil {
		return "", err
	}
	err := actor.Do(ctx, "mail", func(context.Context) error { return actor.Errorf(actor.NotFound, "no address") })
	if actor.CodeOf(err) != actor.NotFound {
		return "", err
	}
	if _, err := bank.Account(ctx, "b").Deposit(ctx, &bankv1.DepositRequest{Amount: 7}); err != nil {
		return "", err
	}
	if err := actor.Sleep(ctx, time.Hour); err != nil {
		return "", err
	}
	_, err = actor.NewAwakeable[string](ctx).Await(ctx)
	return "", err
}

// journalOf is that of steps, as long as it waits for its awakeable.
func journalOf(t *testing.T, node *actortest.Node) []actortest.Entry {
	t.Helper()
	bank.RegisterAccountHandler(node, accounts{closeOut: steps})
	sent, err := bank.Account(node.Client(), "a").CloseOutSend(t.Context(), &bankv1.CloseOutRequest{AccountId: "a"})
	if err != nil {
		t.Fatal(err)
	}
	time.Sleep(2 * time.Hour)
	entries := node.Journal(t, sent.ID())
	if err := sent.Cancel(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, err := sent.Attach(t.Context()); !errors.Is(err, actor.ErrCanceled) && actor.CodeOf(err) != actor.Canceled {
		t.Error(err)
	}
	return entries
}

const goldenFile = "testdata/steps.journal"

// TestJournal: an invocation's journal is the same however it was disturbed.
func TestJournal(t *testing.T) {
	actortest.Run(t, func(t *testing.T, node *actortest.Node) {
		entries := journalOf(t, node)
		actortest.Golden(t, goldenFile, entries)
		for i, entry := range entries {
			if entry.Index != i || i > 0 && entry.At.Before(entries[i-1].At) {
				t.Errorf("entry %d has index %d and was made at %s, the one before it at %s", i, entry.Index, entry.At, entries[max(i-1, 0)].At)
			}
			if last := i == len(entries)-1; entry.Pending != last {
				t.Errorf("%s: pending is %v", entry, entry.Pending)
			}
		}
		if slept := entries[len(entries)-1].At.Sub(entries[len(entries)-2].At); slept < time.Hour || slept > 90*time.Minute {
			t.Errorf("the awakeable was made %s after the sleep began", slept)
		}
		if failed := entries[4]; failed.Failure != "not_found: no address" || failed.Result != "" {
			t.Errorf("%+v", failed)
		}
	})
}

func init() {
	mistakes["another journal"] = mistake{func(t *testing.T) {
		actortest.Run(t, func(t *testing.T, node *actortest.Node) {
			entries := journalOf(t, node)
			entries[3].Name = "pay more"
			actortest.Golden(t, goldenFile, entries[:len(entries)-1])
		})
	}, []string{"the journal is not that of " + goldenFile, "-actortest.update takes it over", `3 run pay -> "p-1"`, `| 3 run pay more -> "p-1"`, "7 awakeable -> pending"}}
	mistakes["no golden file"] = mistake{func(t *testing.T) {
		actortest.Golden(t, "testdata/none.journal", nil)
	}, []string{"testdata/none.journal", "-actortest.update writes it"}}
	mistakes["no such invocation"] = mistake{func(t *testing.T) {
		actortest.Run(t, func(t *testing.T, node *actortest.Node) {
			bank.RegisterAccountHandler(node, accounts{})
			node.Journal(t, actor.IDOf(bank.AccountServiceName, "a", "CloseOut", "never called"))
		})
	}, []string{"journal of inv_", "no invocation"}}
}

const updatedVariable = "PERDURE_ACTORTEST_UPDATED"

// TestUpdate is the child of TestGoldenIsWritten.
func TestUpdate(t *testing.T) {
	file := os.Getenv(updatedVariable)
	if file == "" {
		t.Skip("it is for TestGoldenIsWritten")
	}
	actortest.Golden(t, file, []actortest.Entry{{Kind: "input", Name: "s/H"}, {Index: 1, Kind: "run", Name: "pay", Pending: true}})
}

// TestGoldenIsWritten: with -actortest.update the file is made, with its folder, and then fits.
func TestGoldenIsWritten(t *testing.T) {
	file := filepath.Join(t.TempDir(), "new", "x.journal")
	child := func(flags ...string) string {
		command := exec.Command(os.Args[0], append([]string{"-test.run=^TestUpdate$"}, flags...)...)
		command.Env = append(os.Environ(), updatedVariable+"="+file)
		out, err := command.CombinedOutput()
		if err != nil {
			return string(out)
		}
		return ""
	}
	if out := child(); !strings.Contains(out, "-actortest.update writes it") {
		t.Errorf("without a file: %s", out)
	}
	if out := child("-actortest.update"); out != "" {
		t.Error(out)
	}
	text, err := os.ReadFile(file)
	if want := "0 input s/H\n1 run pay -> pending\n"; err != nil || string(text) != want {
		t.Errorf("got %q, %v, want %q", text, err, want)
	}
	if out := child(); out != "" {
		t.Error(out)
	}
}
