package system

import (
	"context"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/perdure/perdure/bench/internal/floor"
)

// TestMain lets the test program be the server that it starts.
func TestMain(m *testing.M) {
	if len(os.Args) == 3 && os.Args[1] == "serve" {
		if err := floor.Serve(context.Background(), os.Args[2]); err != nil {
			os.Exit(1)
		}
		return
	}
	os.Exit(m.Run())
}

func alive(pid int) bool {
	stat, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	if err != nil {
		return false
	}
	_, after, _ := strings.Cut(string(stat), ") ")
	return !strings.HasPrefix(after, "Z")
}

func TestKillReachesWhatTheProcessStarted(t *testing.T) {
	dir := t.TempDir()
	p, err := launch(dir, filepath.Join(dir, "log"), "/bin/sh", "-c", "sleep 1000 & echo $! > child; wait")
	if err != nil {
		t.Fatal(err)
	}
	var child int
	waitFor(t, func() bool {
		text, _ := os.ReadFile(filepath.Join(dir, "child"))
		child, err = strconv.Atoi(strings.TrimSpace(string(text)))
		return err == nil
	})
	if !alive(child) {
		t.Fatal("the child does not run")
	}
	p.kill()
	waitFor(t, func() bool { return !alive(child) })
	if syscall.Kill(p.command.Process.Pid, 0) != syscall.ESRCH {
		t.Error("the process is still there, or was not waited for")
	}
	p.kill() // again: nothing happens
	(*process)(nil).kill()
}

func TestStartTellsWhyAServerEnded(t *testing.T) {
	_, err := HTTP{Command: []string{"/bin/sh", "-c", "echo no room on disk; exit 3"}}.Start(t.Context(), t.TempDir())
	if err == nil || !strings.Contains(err.Error(), "no room on disk") || !strings.Contains(err.Error(), "exit status 3") {
		t.Errorf("error %v, want the log and the exit status", err)
	}
	if _, err := (HTTP{Command: []string{"/absent"}}).Start(t.Context(), t.TempDir()); err == nil {
		t.Error("a program that does not exist started")
	}
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	if _, err := (HTTP{Command: []string{"/bin/sh", "-c", "sleep 1000"}}).Start(ctx, t.TempDir()); err == nil {
		t.Error("a server that never answers counted as started")
	}
}

func TestKillAndRestartOnTheSamePort(t *testing.T) {
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	instance, err := HTTP{Command: []string{self, "serve"}}.Start(t.Context(), t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	defer instance.Stop()
	if instance.Serving <= 0 || instance.FirstCall < instance.Serving {
		t.Errorf("serving after %v, first call after %v", instance.Serving, instance.FirstCall)
	}
	if server, _, err := instance.Usage(); err != nil || server.ResidentBytes == 0 {
		t.Errorf("usage %+v, %v", server, err)
	}
	instance.Kill()
	if err := instance.call(t.Context()); err == nil {
		t.Error("a killed server answered")
	}
	if err := instance.Restart(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := instance.call(t.Context()); err != nil {
		t.Error(err)
	}
}

func waitFor(t *testing.T, condition func() bool) {
	t.Helper()
	for deadline := time.Now().Add(20 * time.Second); !condition(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("condition not met within 20 s")
		}
	}
}

func TestParseTransactions(t *testing.T) {
	if counted, err := parseTransactions("perdure_records_total 1\n"); counted != nil || err != nil {
		t.Errorf("counted %+v, %v where there are no transactions", counted, err)
	}
	page := func(committed int) string {
		return "# TYPE perdure_transactions_total counter\n" +
			"perdure_transactions_total{otel_scope_name=\"perdure\",outcome=\"committed\"} " + strconv.Itoa(committed) + "\n" +
			"perdure_transactions_total{outcome=\"rolled_back\"} 3 1700000000\n" +
			"perdure_transaction_retries_total{reason=\"wound\"} 1e+02\n" +
			"perdure_transaction_retries_total{reason=\"lost\"} 1\n"
	}
	before, err := parseTransactions(page(5))
	if err != nil {
		t.Fatal(err)
	}
	if before.RolledBack != 3 || before.Retries["wound"] != 100 || before.Retries["lost"] != 1 {
		t.Errorf("counted %+v", before)
	}
	after, err := parseTransactions(page(25))
	if err != nil {
		t.Fatal(err)
	}
	if d := after.Minus(*before); d.Committed != 20 || d.RolledBack != 0 || d.Retries["wound"] != 0 {
		t.Errorf("difference %+v, want 20 committed and no more", d)
	}
	for _, bad := range []string{"perdure_transactions_total{outcome=\"committed\"}\n", "perdure_transactions_total{outcome=\"committed\"} x\n"} {
		if _, err := parseTransactions(bad); err == nil {
			t.Errorf("%q was read", bad)
		}
	}
}
