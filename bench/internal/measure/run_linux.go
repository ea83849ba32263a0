package measure

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"github.com/perdure/perdure/bench/internal/floor"
	"github.com/perdure/perdure/bench/internal/load"
	"github.com/perdure/perdure/bench/internal/system"
	"github.com/perdure/perdure/bench/internal/workload"
)

const (
	// recoveryCallers is how many callers see the server die.
	recoveryCallers = 64
	// recoveryTimeout bounds how long callers may wait until they are answered again.
	recoveryTimeout = 30 * time.Second
	// mostFailures is after how many failed turns a system is left out of the rest.
	mostFailures = 2
)

// Run is one benchmark run in progress.
type Run struct {
	Plan Plan
	// Systems take turns; HTTP, when not nil, is measured once in each round.
	Systems []system.System
	HTTP    system.System
	// Dir is an empty directory on the disk to measure.
	Dir string
	// Raw gets each record as a line of JSON as soon as it is there. Progress gets a line for people.
	Raw, Progress io.Writer

	Records  Records
	failures map[string]int
	turns    int
}

// Do measures everything in the plan. What is measured until ctx ends is in Records. An error says that measuring itself
// failed; what a system did wrong is a note.
func (r *Run) Do(ctx context.Context) error {
	r.failures = make(map[string]int)
	for round := range r.Plan.Rounds {
		if err := r.floor(ctx, round); err != nil {
			return err
		}
		for _, group := range r.Plan.Groups {
			for _, s := range r.order(round) {
				if err := r.turn(ctx, s, round, func(instance *system.Instance, dir string) error {
					return r.cells(ctx, s, instance, group, round, dir)
				}); err != nil {
					return err
				}
			}
		}
	}
	for round := range r.Plan.RecoveryRounds {
		for _, s := range r.order(round) {
			if err := r.turn(ctx, s, round, func(instance *system.Instance, _ string) error {
				return r.recover(ctx, s, instance, round)
			}); err != nil {
				return err
			}
		}
	}
	return nil
}

// order is who comes when: each round starts with another system, so that none always runs on what the one before left.
func (r *Run) order(round int) []system.System {
	n := len(r.Systems)
	if n == 0 {
		return nil
	}
	first := round % n
	return append(append([]system.System(nil), r.Systems[first:]...), r.Systems[:first]...)
}

// turn runs do on a fresh instance of s. What s does wrong is noted; only ctx ending is an error.
func (r *Run) turn(ctx context.Context, s system.System, round int, do func(*system.Instance, string) error) error {
	if r.failures[s.Name()] >= mostFailures {
		return ctx.Err()
	}
	r.turns++
	dir := filepath.Join(r.Dir, "turn"+strconv.Itoa(r.turns))
	if err := os.Mkdir(dir, 0o700); err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	instance, err := s.Start(ctx, dir)
	if err == nil {
		defer instance.Stop()
		r.Records.Starts = append(r.Records.Starts, record(r, Start{
			Kind: "start", System: s.Name(), Round: round,
			ServingMS: ms(instance.Serving), FirstCallMS: ms(instance.FirstCall),
		}))
		err = do(instance, dir)
	}
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if err != nil {
		r.failures[s.Name()]++
		r.note("%s: a turn failed: %v", s.Name(), err)
		if r.failures[s.Name()] >= mostFailures {
			r.note("%s: left out from here on after %d failed turns", s.Name(), mostFailures)
		}
	}
	return nil
}

func (r *Run) cells(ctx context.Context, s system.System, instance *system.Instance, group []Cell, round int, dir string) error {
	if r.Plan.Idle > 0 && round == 0 && group[0].Name == r.Plan.Groups[0][0].Name {
		idled, err := idle(ctx, instance, r.Plan.Idle, dir)
		if err != nil {
			return err
		}
		idled.System = s.Name()
		r.Records.Idles = append(r.Records.Idles, record(r, idled))
	}
	sums := books{}
	for _, cell := range group {
		if cell.System != "" && cell.System != s.Name() {
			continue
		}
		if err := sums.open(ctx, instance, cell.Ledger); err != nil {
			return fmt.Errorf("%s: %w", cell.Name, err)
		}
		w, result, err := window(ctx, instance, cell, r.Plan, dir)
		if err != nil {
			return fmt.Errorf("%s with %d callers: %w", cell.Name, cell.Callers, err)
		}
		sums.enter(cell, result)
		w.System, w.Round = s.Name(), round
		r.Records.Windows = append(r.Records.Windows, record(r, w))
		r.progress("round %d  %-28s %4d callers  %-16s %9.0f calls/s  p50 %8.2f ms  p99 %8.2f ms  others %.2f cores", round+1,
			cell.Name, cell.Callers, s.Name(), w.PerSecond, w.P50MS, w.P99MS, w.OtherCores)
		switch {
		case w.Clean():
		case w.Calls+w.Errors == 0:
			r.note("%s: %s with %d callers: no call ended within the window, which is left out", s.Name(), cell.Name, cell.Callers)
		default:
			r.note("%s: %s with %d callers: %d of %d calls failed, the window is left out: %s",
				s.Name(), cell.Name, cell.Callers, w.Errors, w.Calls+w.Errors, w.FirstError)
		}
	}
	return sums.check(ctx, s.Name(), instance, r.note)
}

func (r *Run) recover(ctx context.Context, s system.System, instance *system.Instance, round int) error {
	calls := load.StartRecovery(load.RecoveryPlan{
		Addr: instance.Addr.String(), Keys: workload.Counters, Callers: recoveryCallers,
		Add:  func(key int, idempotencyKey string) []byte { return instance.Add(keyName(key), idempotencyKey) },
		Read: func(key int) []byte { return instance.Request(system.Get, keyName(key)) },
	})
	sleep(ctx, r.Plan.RecoveryLoad)
	instance.Kill()
	calls.Killed()
	restart := instance.Restart(ctx)

	within, cancel := context.WithTimeout(ctx, recoveryTimeout)
	defer cancel()
	if restart != nil {
		cancel() // nobody will answer any more
	}
	for !calls.Resumed() && sleep(within, 10*time.Millisecond) {
	}
	sleep(within, r.Plan.RecoveryLoad/3)
	outcome := calls.Finish(within)
	if restart != nil {
		return fmt.Errorf("restart after SIGKILL: %w", restart)
	}
	if ctx.Err() != nil {
		return ctx.Err()
	}
	r.Records.Recoveries = append(r.Records.Recoveries, record(r, Recovery{
		Kind: "recovery", System: s.Name(), Round: round,
		Acknowledged: outcome.Acknowledged, Retried: outcome.Retried,
		GapMS: ms(outcome.Gap), AllResumedMS: ms(outcome.AllResumed), ServingMS: ms(instance.Serving),
		Problems: outcome.Problems,
	}))
	r.progress("round %d  %-28s %4d callers  %-16s %9d acknowledged  gap %.2f s  all back %.2f s  %d problems", round+1,
		"SIGKILL and restart", recoveryCallers, s.Name(), outcome.Acknowledged, outcome.Gap.Seconds(), outcome.AllResumed.Seconds(), len(outcome.Problems))
	for _, problem := range outcome.Problems {
		r.note("WRONG: %s after SIGKILL: %s", s.Name(), problem)
	}
	return nil
}

func keyName(i int) string { return "k" + strconv.Itoa(i) }

// empty is the floor's call.
var empty = Cell{Callers: 64, Workload: workload.Workload{
	Name: WorkloadHTTP,
	Calls: func(instance *system.Instance, _ *rand.Rand) []load.Call {
		return load.Single(instance.Request(system.Add, "floor"))
	},
}}

// floor measures what the disk and the loopback device can do.
func (r *Run) floor(ctx context.Context, round int) error {
	perSecond, latency, err := floor.Append(ctx, r.Dir, r.Plan.Floor)
	if err != nil || ctx.Err() != nil {
		return errors.Join(err, ctx.Err())
	}
	f := Floor{Kind: "floor", Round: round, PerSecond: perSecond, P50MS: ms(latency.Quantile(0.5)), P99MS: ms(latency.Quantile(0.99))}
	r.Records.Floors = append(r.Records.Floors, record(r, f))
	r.progress("round %d  256-byte append + fdatasync: %.0f/s, p50 %.2f ms, p99 %.2f ms", round+1, f.PerSecond, f.P50MS, f.P99MS)
	if r.HTTP == nil {
		return nil
	}
	return r.turn(ctx, r.HTTP, round, func(instance *system.Instance, dir string) error {
		w, _, err := window(ctx, instance, empty, r.Plan, dir)
		if err != nil {
			return err
		}
		w.System, w.Round = r.HTTP.Name(), round
		r.Records.Windows = append(r.Records.Windows, record(r, w))
		r.progress("round %d  %-28s %4d callers  %-16s %9.0f calls/s  p50 %8.2f ms  p99 %8.2f ms  generator %.2f cores", round+1,
			w.Workload, w.Callers, w.System, w.PerSecond, w.P50MS, w.P99MS, w.GeneratorCores)
		return nil
	})
}

func (r *Run) note(format string, args ...any) {
	text := fmt.Sprintf(format, args...)
	r.Records.Notes = append(r.Records.Notes, text)
	r.progress("%s", text)
}

func (r *Run) progress(format string, args ...any) { fmt.Fprintf(r.Progress, format+"\n", args...) }

// record writes one raw line and returns what it wrote. A raw file that cannot be written is no reason to stop a run
// whose table will still be printed.
func record[T any](r *Run, value T) T {
	if err := json.NewEncoder(r.Raw).Encode(value); err != nil {
		r.progress("raw record lost: %v", err)
	}
	return value
}
