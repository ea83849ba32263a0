//go:build linux

package chaos

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	benchv1 "github.com/perdure/perdure/bench/gen/bench/v1"
	bench "github.com/perdure/perdure/bench/gen/bench/v1/benchv1perdure"
	"github.com/perdure/perdure/cluster"
)

// seen is a line that a held step left outside: see steps.held.
type seen struct {
	id    string
	step  int
	ended bool
	pid   int
	token int64
}

func seenIn(t *testing.T, path string) (all []seen) {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil && !os.IsNotExist(err) {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(text)) {
		var s seen
		var what string
		if _, err := fmt.Sscanf(line, "%s %s %d %d %d", &s.id, &what, &s.step, &s.pid, &s.token); err != nil {
			t.Fatalf("%q: %v", line, err)
		}
		s.ended = what == "end"
		all = append(all, s)
	}
	return all
}

// TestHostsKilledInARun: of four nodes two host a service. The one that runs a step of some invocations is
// killed in the middle of its closure, and so is the one that takes them over. Each step has the result of one
// closure all the same, which what follows sees once, and no closure runs again after its result was durable.
func TestHostsKilledInARun(t *testing.T) {
	const count, steps = 12, 4
	l := newLab(t, 4, false)
	outside := filepath.Join(t.TempDir(), "effects")
	for i, n := range l.nodes {
		n.settings.EffectsFile, n.settings.WithoutSteps = outside, i < 2
	}
	l.start()
	l.settled(4)
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
	defer cancel()
	client := cluster.Dial(nil, l.nodes[0].url, l.nodes[1].url)
	ids := map[string]bool{}
	var results []func() error
	for i := range count {
		id := fmt.Sprint(heldPrefix, i)
		ids[id] = true
		sent, err := bench.Steps(client).Run10Send(ctx, &benchv1.Run10Request{Id: id, Steps: steps})
		if err != nil {
			t.Fatal(err)
		}
		results = append(results, func() error {
			response, err := sent.Attach(ctx)
			if err == nil && response.Steps != steps {
				err = fmt.Errorf("%s ended with %v", id, response)
			}
			return err
		})
	}
	// held waits until the step in the middle of each invocation has begun at a node of these, and returns
	// which one has most of them.
	held := func(by ...*node) *node {
		t.Helper()
		for {
			at := map[string]int{}
			for _, s := range seenIn(t, outside) {
				if s.step == steps/2 && !s.ended {
					at[s.id] = s.pid
				}
			}
			most, with := (*node)(nil), 0
			for _, n := range by {
				has := 0
				for _, pid := range at {
					if pid == n.command.Process.Pid {
						has++
					}
				}
				if has > with {
					most, with = n, has
				}
			}
			there := 0
			for _, pid := range at {
				if slices.ContainsFunc(by, func(n *node) bool { return n.command.Process.Pid == pid }) {
					there++
				}
			}
			if there == count {
				return most
			}
			select {
			case <-time.After(20 * time.Millisecond): // what other processes write is looked for
			case <-ctx.Done():
				t.Fatalf("of %d invocations %d are held: %v", count, there, at)
			}
		}
	}
	first := held(l.nodes[2], l.nodes[3])
	second := l.nodes[2]
	if first == second {
		second = l.nodes[3]
	}
	first.kill()
	held(second)
	second.kill()
	first.launch()
	held(first)
	if err := os.WriteFile(releaseOf(outside), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, result := range results {
		if err := result(); err != nil {
			t.Error(err)
		}
	}
	second.launch()
	if err := second.ready(30 * time.Second); err != nil {
		t.Fatal(err)
	}

	begun, tokens, last, again := map[string]int{}, map[string][]int64{}, map[string]int{}, 0
	for _, s := range seenIn(t, outside) {
		step := fmt.Sprint(s.id, "/", s.step)
		if s.ended { // which one that was given up does after others
			tokens[step] = append(tokens[step], s.token)
			continue
		}
		// A step begins once the result of the one before is durable.
		if s.step < last[s.id] {
			t.Errorf("step %d of %s began after step %d: its result was durable", s.step, s.id, last[s.id])
		}
		last[s.id] = s.step
		begun[step]++
	}
	for id := range ids {
		for i := range steps {
			step := fmt.Sprint(id, "/", i)
			if len(tokens[step]) == 0 {
				t.Errorf("%s: its closure began %d times and never ended", step, begun[step])
			}
			if i < steps/2 { // with no node killed: only a machine that stands still for seconds has it run again
				again += begun[step] - 1
			}
			if i == steps/2 && begun[step] < 2 {
				t.Errorf("%s began once: it was held at no node that was killed", step)
			}
			got, err := bench.Counter(client, step).Get(ctx, &benchv1.GetRequest{})
			if err != nil || !slices.Contains(tokens[step], got.GetValue()) {
				t.Errorf("%s: what followed counted %d, and its closures returned %v: %v", step, got.GetValue(), tokens[step], err)
			}
		}
	}
	if again > 0 {
		t.Logf("%d closures were given up before a node was killed", again)
	}
}
