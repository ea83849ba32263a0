// Command replay runs the simulation so that a seed decides which goroutine runs next, too: a seed
// that fails so fails again in the same way (decision 38).
//
//	go run ./internal/sim/replay -test.run '^TestCrowd$' -seed 2500000554
//	go run ./internal/sim/replay -processes 2 -test.run '^(TestSeed|TestCluster)$' -sim.for 10m -sim.twice
//
// -sim.twice runs each seed twice and compares; with -seed it also says which goroutine was made ready by another one, or
// once more, where two runs part.
//
// It builds the test binary of internal/sim with a few lines of package runtime changed (see overlay.go), by -overlay: the
// toolchain that is installed is not touched. Flags of its own come first, all others are the test binary's. Each process
// has one processor, so that there are as many as the machine has; if they log the trace of the same seed, it must be the same.
package main

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
)

const simulation = "github.com/perdure/perdure/internal/sim"

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := replay(ctx, os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "replay:", err)
		os.Exit(1)
	}
}

func replay(ctx context.Context, args []string) error {
	var own []string // they come first
	for len(args) > 1 && slices.Contains([]string{"-processes", "-tags"}, args[0]) {
		own, args = append(own, args[0], args[1]), args[2:]
	}
	flags := flag.NewFlagSet("replay", flag.ContinueOnError)
	processes := flags.Int("processes", runtime.NumCPU(), "how many of them share the seeds; one if -seed is given")
	tags := flags.String("tags", "", "more build tags, separated by commas")
	if err := flags.Parse(own); err != nil {
		return err
	}
	if slices.ContainsFunc(args, func(arg string) bool { return strings.HasPrefix(strings.TrimLeft(arg, "-"), "seed") }) {
		*processes = 1
	}

	folder, err := os.MkdirTemp("", "perdure-replay-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(folder)
	binary, sources, err := build(ctx, folder, *tags)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	outputs, errs := make([]bytes.Buffer, *processes), make([]error, *processes)
	var all sync.WaitGroup
	for i := range *processes {
		all.Go(func() {
			run := exec.CommandContext(ctx, binary, append(slices.Clone(args), fmt.Sprintf("-sim.share=%d/%d", i, *processes))...)
			run.Dir, run.Stdout, run.Stderr = sources, &outputs[i], &outputs[i]
			run.Env = append(os.Environ(), "GOMAXPROCS=1") // two goroutines that run at once have no order
			if err := run.Run(); err != nil {
				if ctx.Err() == nil {
					errs[i] = fmt.Errorf("process %d of %d: %w", i+1, *processes, err)
				}
				cancel() // The first failure is enough.
			}
		})
	}
	all.Wait()
	for i := range outputs {
		fmt.Printf("process %d of %d:\n%s", i+1, *processes, outputs[i].Bytes())
	}
	if err := errors.Join(errs...); err != nil {
		return err
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	return compare(outputs)
}

// build returns the test binary and the folder it runs in.
func build(ctx context.Context, folder, tags string) (binary, sources string, err error) {
	var toolchain [3]string
	for i, what := range [][]string{{"env", "GOROOT"}, {"env", "GOVERSION"}, {"list", "-f", "{{.Dir}}", simulation}} {
		out, err := exec.CommandContext(ctx, "go", what...).Output()
		if err != nil {
			return "", "", fmt.Errorf("go %s: %w", strings.Join(what, " "), err)
		}
		toolchain[i] = strings.TrimSpace(string(out))
	}
	overlay, err := writeOverlay(toolchain[0], toolchain[1], folder)
	if err != nil {
		return "", "", err
	}
	binary = filepath.Join(folder, "sim.test")
	args := []string{"test", "-c", "-vet=off", "-overlay", overlay, "-tags", strings.Trim("perdure_replay,"+tags, ","), "-o", binary, simulation}
	if out, err := exec.CommandContext(ctx, "go", args...).CombinedOutput(); err != nil {
		return "", "", fmt.Errorf("go %s: %w [build failed]\n%s", strings.Join(args, " "), err, out)
	}
	return binary, toolchain[2], nil
}

// compare demands that lines that tell of a seed's trace are the same in all processes that have them.
func compare(outputs []bytes.Buffer) error {
	traces := map[string]string{}
	for i := range outputs {
		for line := range strings.Lines(outputs[i].String()) {
			_, trace, ok := strings.Cut(strings.TrimSpace(line), "trace of ")
			if !ok {
				continue
			}
			seed, digest, _ := strings.Cut(trace, ": ")
			if other, known := traces[seed]; known && other != digest {
				return fmt.Errorf("%s ran in two ways in two processes: %s, and %s", seed, other, digest)
			}
			traces[seed] = digest
		}
	}
	if len(outputs) > 1 && len(traces) > 0 {
		fmt.Printf("the traces of %d seeds are the same in all %d processes\n", len(traces), len(outputs))
	}
	return nil
}
