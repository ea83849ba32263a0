package measure

import (
	"context"
	"fmt"
	"syscall"
	"time"

	"github.com/perdure/perdure/bench/internal/histogram"
	"github.com/perdure/perdure/bench/internal/load"
	"github.com/perdure/perdure/bench/internal/procfs"
	"github.com/perdure/perdure/bench/internal/system"
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
}

func take(instance *system.Instance, generator *load.Generator, dir string) (s sample, err error) {
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
	if generator != nil {
		s.completed = generator.Completed()
	}
	s.at = time.Now()
	return s, nil
}

// cores is how many processors' worth of time d is within elapsed.
func cores(d, elapsed time.Duration) float64 { return d.Seconds() / elapsed.Seconds() }

func ms(d time.Duration) float64 { return d.Seconds() * 1e3 }

func keyName(i int) string { return fmt.Sprintf("k%d", i) }

// window measures one cell on a running system whose data lies in dir. The calls that succeeded, warm-up and all, are
// returned too.
func window(ctx context.Context, instance *system.Instance, cell Cell, plan Plan, dir string) (Window, uint64, error) {
	requests := make([][]byte, cell.Keys)
	for i := range requests {
		name := keyName(i)
		if cell.Keys == 1 {
			name = "hot"
		}
		requests[i] = instance.Request(cell.Op, name)
	}
	if cell.Op == system.Get {
		if err := fill(ctx, instance, cell.Keys); err != nil {
			return Window{}, 0, err
		}
	}
	generator, err := load.Start(load.Plan{Addr: instance.Addr, Requests: requests, Callers: cell.Callers})
	if err != nil {
		return Window{}, 0, err
	}
	if !sleep(ctx, plan.Warmup) {
		generator.Stop()
		return Window{}, 0, ctx.Err()
	}
	before, err := take(instance, generator, dir)
	if err != nil {
		generator.Stop()
		return Window{}, 0, err
	}
	generator.Record(true)
	slept := sleep(ctx, plan.Window)
	generator.Record(false)
	after, err := take(instance, generator, dir)
	result := generator.Stop()
	if err != nil {
		return Window{}, 0, err
	}
	if !slept {
		return Window{}, 0, ctx.Err()
	}
	w := between(before, after, result.Latency)
	w.Workload, w.Callers, w.Errors = cell.Workload, cell.Callers, result.Failed
	if result.FirstError != nil {
		w.FirstError = result.FirstError.Error()
	}
	return w, result.Completed, nil
}

// fill makes every counter exist, so that reads find something.
func fill(ctx context.Context, instance *system.Instance, keys int) error {
	requests := make([][]byte, keys)
	for i := range requests {
		requests[i] = instance.Request(system.Add, keyName(i))
	}
	generator, err := load.Start(load.Plan{Addr: instance.Addr, Requests: requests, Callers: min(keys, 64), Limit: keys})
	if err != nil {
		return err
	}
	if result := generator.Wait(ctx); result.Completed != uint64(keys) {
		return fmt.Errorf("%d of %d counters made: %v", result.Completed, keys, result.FirstError)
	}
	return nil
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
		DeviceWrittenPerCall: -1, FlushesPerCall: -1,
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
	before, err := take(instance, nil, dir)
	if err != nil {
		return Idle{}, err
	}
	if !sleep(ctx, lasting) {
		return Idle{}, ctx.Err()
	}
	after, err := take(instance, nil, dir)
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
