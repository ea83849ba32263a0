package measure

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/perdure/perdure/bench/internal/floor"
	"github.com/perdure/perdure/bench/internal/load"
	"github.com/perdure/perdure/bench/internal/system"
	"github.com/perdure/perdure/bench/internal/workload"
)

// TestMain lets the test program be the server that it measures.
func TestMain(m *testing.M) {
	if len(os.Args) == 3 && os.Args[1] == "serve" {
		if err := floor.Serve(context.Background(), os.Args[2]); err != nil {
			os.Exit(1)
		}
		return
	}
	os.Exit(m.Run())
}

// named is the HTTP floor under another name, so that several systems can take turns.
type named struct {
	system.HTTP
	name string
}

func (n named) Name() string { return n.name }

// broken never starts.
type broken struct{}

func (broken) Name() string { return "broken" }
func (broken) Start(context.Context, string) (*system.Instance, error) {
	return nil, io.ErrUnexpectedEOF
}

func TestRunTakesTurnsAndLeavesNothingBehind(t *testing.T) {
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	server := system.HTTP{Command: []string{self, "serve"}}
	var raw strings.Builder
	// Each of 14 windows has a call, so it has to be longer than the server may wait for a processor on a busy machine.
	const window = 500 * time.Millisecond
	r := &Run{
		Plan: Plan{
			Rounds: 2, Warmup: 10 * time.Millisecond, Window: window, Floor: 5 * time.Millisecond, Idle: 20 * time.Millisecond,
			Groups: [][]Cell{{{workload.Adds(), 2}, {workload.Gets(), 1}}, {{workload.Hot(), 2}, {workload.KeyedTransfers(), 1}}},
		},
		Systems: []system.System{named{server, "a"}, broken{}, named{server, "b"}},
		HTTP:    server,
		Dir:     t.TempDir(), Raw: &raw, Progress: io.Discard,
	}
	if err := r.Do(t.Context()); err != nil {
		t.Fatal(err)
	}
	var turns []string
	for _, w := range r.Records.Windows {
		if w.Workload == workload.NameAdd {
			turns = append(turns, w.System)
		}
		if w.Calls == 0 || w.Errors > 0 || w.P50MS <= 0 || w.P99MS < w.P50MS || w.Seconds < window.Seconds() || w.ServerBytes == 0 {
			t.Errorf("window %+v", w)
		}
	}
	if got := strings.Join(turns, " "); got != "a b b a" {
		t.Errorf("turns %q, want a b in the first round and b a in the second", got)
	}
	if len(r.Records.Windows) != 14 || len(r.Records.Floors) != 2 || len(r.Records.Idles) != 2 || len(r.Records.Starts) != 10 {
		t.Errorf("%d windows, %d floors, %d idles, %d starts", len(r.Records.Windows), len(r.Records.Floors), len(r.Records.Idles), len(r.Records.Starts))
	}
	notes := strings.Join(r.Records.Notes, "\n")
	// Keyed transfers are for Perdure, so nobody made any here.
	// The floor's server counts nothing, so the hot counter must be found wrong.
	for _, want := range []string{"broken: a turn failed", "broken: left out", "WRONG: a: the hot counter: 0, and "} {
		if !strings.Contains(notes, want) {
			t.Errorf("no note %q in:\n%s", want, notes)
		}
	}
	lines := 0
	for line := range strings.Lines(raw.String()) {
		var record struct{ Kind string }
		if err := json.Unmarshal([]byte(line), &record); err != nil || record.Kind == "" {
			t.Errorf("raw line %q: %v", line, err)
		}
		lines++
	}
	if want := 14 + 2 + 2 + 10; lines != want {
		t.Errorf("%d raw lines, want %d", lines, want)
	}
	if left, _ := os.ReadDir(r.Dir); len(left) > 0 {
		t.Errorf("left %s behind", left[0].Name())
	}
}

func TestRunEndsWithItsContext(t *testing.T) {
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	plan := Full()
	plan.Floor, plan.Idle = time.Millisecond, 0
	r := &Run{Plan: plan, Systems: []system.System{named{system.HTTP{Command: []string{self, "serve"}}, "a"}}, Dir: t.TempDir(), Raw: io.Discard, Progress: io.Discard}
	start := time.Now()
	if err := r.Do(ctx); err == nil {
		t.Error("Do returned no error though its context ended")
	}
	if took := time.Since(start); took > 10*time.Second {
		t.Errorf("Do took %v after a deadline of 200 ms", took)
	}
}

func TestBooksAreNotCheckedWhenOutcomesAreUnknown(t *testing.T) {
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	instance, err := system.HTTP{Command: []string{self, "serve"}}.Start(t.Context(), t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	defer instance.Stop()
	cell := Cell{workload.Hot(), 1}
	for name, c := range map[string]struct {
		result load.Result
		want   string
	}{
		"right":    {load.Result{Changed: 0}, ""},
		"lost":     {load.Result{Changed: 3}, "WRONG: x: the hot counter: 0, and 3 by what was acknowledged"},
		"rejected": {load.Result{Failed: 2, Rejected: 2}, ""},
		"unknown":  {load.Result{Changed: 3, Failed: 3, Rejected: 1}, "x: not checked: what the hot counter must be, since 2 calls have an unknown outcome"},
	} {
		b := books{}
		if err := b.open(t.Context(), instance, cell.Ledger); err != nil {
			t.Fatal(err)
		}
		b.enter(cell, c.result)
		var notes strings.Builder
		if err := b.check(t.Context(), "x", instance, func(format string, args ...any) { fmt.Fprintf(&notes, format, args...) }); err != nil {
			t.Fatal(err)
		}
		if notes.String() != c.want {
			t.Errorf("%s: note %q, want %q", name, notes.String(), c.want)
		}
	}
}

func TestOnly(t *testing.T) {
	plan, err := Full().Only("Add.*/64$")
	if err != nil {
		t.Fatal(err)
	}
	if len(plan.Groups) != 2 || len(plan.Groups[0]) != 1 || plan.RecoveryRounds != 0 {
		t.Errorf("kept %+v, %d recoveries", plan.Groups, plan.RecoveryRounds)
	}
	if plan, err = Full().Only("recovery"); err != nil || len(plan.Groups) != 0 || plan.RecoveryRounds == 0 {
		t.Errorf("recovery alone: %+v, %v", plan, err)
	}
	for _, pattern := range []string{"(", "nothing of the kind"} {
		if _, err := Full().Only(pattern); err == nil {
			t.Errorf("Only(%q) accepted", pattern)
		}
	}
}
