package measure

import (
	"context"
	"fmt"
	"math/rand/v2"
	"syscall"
	"time"

	"github.com/perdure/perdure/bench/internal/histogram"
	"github.com/perdure/perdure/bench/internal/load"
	"github.com/perdure/perdure/bench/internal/procfs"
	"github.com/perdure/perdure/bench/internal/system"
)

const (
	// seed draws the calls: the same ones in each round and for each system.
	seed = 20080609
	// callTimeout is longer than a transaction may take, so that a call that ends so is answered.
	callTimeout = 40 * time.Second
)

// sample is every counter at one moment.
type sample struct {
	at        time.Time
	completed uint64
	server    procfs.Process
	service   procfs.Process
	host      procfs.Host
	self      time.Duration
	device    procfs.Device
	noDevice  bool // the file system has no device of its own
	refused   uint64
	// transactions is nil where none were counted yet.
	transactions *system.Transactions
}

func take(ctx context.Context, instance *system.Instance, generator *load.Generator, dir string) (s sample, err error) {
	if s.server, s.service, err = instance.Usage(); err != nil {
		return s, fmt.Errorf("the server is gone: %w", err)
	}
	if s.host, err = procfs.ReadHost(); err != nil {
		return s, err
	}
	var usage syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &usage); err != nil {
		return s, err
	}
	s.self = time.Duration(usage.Utime.Nano() + usage.Stime.Nano())
	if s.device, err = procfs.ReadDevice(dir); err != nil {
		s.noDevice = true
	}
	if s.transactions, err = instance.Transactions(ctx); err != nil {
		return s, err
	}
	if generator != nil {
		s.completed, s.refused = generator.Completed(), generator.Refused()
	}
	s.at = time.Now()
	return s, nil
}

// cores is how many processors' worth of time d is within elapsed.
func cores(d, elapsed time.Duration) float64 { return d.Seconds() / elapsed.Seconds() }

func ms(d time.Duration) float64 { return d.Seconds() * 1e3 }

// window measures one cell on a running system whose data lies in dir. The result of all its calls, warm-up included, is
// returned too.
func window(ctx context.Context, instance *system.Instance, cell Cell, plan Plan, dir string) (Window, load.Result, error) {
	generator, err := load.Start(load.Plan{
		Addr: instance.Addr, Calls: cell.Calls(instance, rand.New(rand.NewPCG(seed, uint64(cell.Callers)))), Callers: cell.Callers,
		Change: cell.Change, Refusal: cell.Refusal, Timeout: callTimeout,
	})
	if err != nil {
		return Window{}, load.Result{}, err
	}
	before, after, err := watch(ctx, instance, generator, plan, dir)
	result := generator.Stop()
	if err != nil {
		return Window{}, result, err
	}
	w := between(before, after, result.Latency)
	w.Workload, w.Callers, w.Errors = cell.Name, cell.Callers, result.Failed
	if result.FirstError != nil {
		w.FirstError = result.FirstError.Error()
	}
	return w, result, nil
}

// watch lets the generator warm up, and then record for a while.
func watch(ctx context.Context, instance *system.Instance, generator *load.Generator, plan Plan, dir string) (before, after sample, err error) {
	if !sleep(ctx, plan.Warmup) {
		return before, after, ctx.Err()
	}
	if before, err = take(ctx, instance, generator, dir); err != nil {
		return before, after, err
	}
	generator.Record(true)
	defer generator.Record(false)
	if !sleep(ctx, plan.Window) {
		return before, after, ctx.Err()
	}
	generator.Record(false)
	after, err = take(ctx, instance, generator, dir)
	return before, after, err
}

func between(before, after sample, latency *histogram.Histogram) Window {
	elapsed := after.at.Sub(before.at)
	calls := after.completed - before.completed
	server, service := after.server.CPU-before.server.CPU, after.service.CPU-before.service.CPU
	self := after.self - before.self
	written := after.server.WrittenBytes - before.server.WrittenBytes + after.service.WrittenBytes - before.service.WrittenBytes
	w := Window{
		Kind: "window", Seconds: elapsed.Seconds(), Calls: calls,
		PerSecond: float64(calls) / elapsed.Seconds(),
		P50MS:     ms(latency.Quantile(0.5)), P90MS: ms(latency.Quantile(0.9)), P99MS: ms(latency.Quantile(0.99)), MaxMS: ms(latency.Max()),
		ServerCores: cores(server, elapsed), ServiceCores: cores(service, elapsed), GeneratorCores: cores(self, elapsed),
		OtherCores:  max(0, cores(after.host.Busy-before.host.Busy-server-service-self, elapsed)),
		StealCores:  cores(after.host.Steal-before.host.Steal, elapsed),
		ServerBytes: after.server.ResidentBytes, ServiceBytes: after.service.ResidentBytes,
		DeviceWrittenPerCall: -1, FlushesPerCall: -1, Refused: after.refused - before.refused,
	}
	if after.transactions != nil {
		var counted system.Transactions
		if before.transactions != nil {
			counted = *before.transactions
		}
		counted = after.transactions.Minus(counted)
		w.Transactions = &Transactions{Committed: counted.Committed, RolledBack: counted.RolledBack, Retries: counted.Retries}
	}
	if calls > 0 {
		w.CPUPerCallUS = (server + service).Seconds() * 1e6 / float64(calls)
		w.WrittenPerCall = float64(written) / float64(calls)
		if !before.noDevice && !after.noDevice {
			w.DeviceWrittenPerCall = float64(after.device.WrittenBytes-before.device.WrittenBytes) / float64(calls)
			w.FlushesPerCall = float64(after.device.Flushes-before.device.Flushes) / float64(calls)
		}
	}
	return w
}

// idle watches a system that nobody calls.
func idle(ctx context.Context, instance *system.Instance, lasting time.Duration, dir string) (Idle, error) {
	// Starting has after-effects (garbage collection, first compactions) that are not what an idle server costs.
	if !sleep(ctx, lasting/2) {
		return Idle{}, ctx.Err()
	}
	before, err := take(ctx, instance, nil, dir)
	if err != nil {
		return Idle{}, err
	}
	if !sleep(ctx, lasting) {
		return Idle{}, ctx.Err()
	}
	after, err := take(ctx, instance, nil, dir)
	if err != nil {
		return Idle{}, err
	}
	elapsed := after.at.Sub(before.at)
	return Idle{
		Kind: "idle", Seconds: elapsed.Seconds(),
		Cores:       cores(after.server.CPU-before.server.CPU+after.service.CPU-before.service.CPU, elapsed),
		ServerBytes: after.server.ResidentBytes, ServiceBytes: after.service.ResidentBytes,
	}, nil
}

// sleep waits for d; it returns false when ctx ended first.
func sleep(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}
