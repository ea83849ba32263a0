package telemetry

import (
	"context"
	"errors"
	"runtime"
	"runtime/metrics"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"
)

// observeRuntime exports the few numbers of the Go runtime that tell a leak or a starved
// collector from a slow disk. Reading them takes microseconds and stops nothing; the names are
// OpenTelemetry's.
func (i *Instruments) observeRuntime() error {
	samples := []metrics.Sample{
		{Name: "/sched/goroutines:goroutines"},
		{Name: "/memory/classes/total:bytes"},
		{Name: "/memory/classes/heap/released:bytes"},
		{Name: "/gc/heap/goal:bytes"},
		{Name: "/gc/heap/allocs:bytes"},
	}
	goroutines, err1 := i.meter.Int64ObservableUpDownCounter("go.goroutine.count", metric.WithUnit("{goroutine}"), metric.WithDescription("Goroutines."))
	used, err2 := i.meter.Int64ObservableUpDownCounter("go.memory.used", metric.WithUnit("By"), metric.WithDescription("Memory of the Go runtime that it has not given back."))
	goal, err3 := i.meter.Int64ObservableUpDownCounter("go.memory.gc.goal", metric.WithUnit("By"), metric.WithDescription("Heap size at which the next collection ends."))
	allocated, err4 := i.meter.Int64ObservableCounter("go.memory.allocated", metric.WithUnit("By"), metric.WithDescription("Bytes allocated on the heap."))
	if err := errors.Join(err1, err2, err3, err4); err != nil {
		return err
	}
	_, err := i.meter.RegisterCallback(func(_ context.Context, observer metric.Observer) error {
		read := make([]metrics.Sample, len(samples))
		copy(read, samples)
		metrics.Read(read)
		for _, sample := range read {
			if sample.Value.Kind() != metrics.KindUint64 {
				return nil // of a Go version to come
			}
		}
		observer.ObserveInt64(goroutines, int64(read[0].Value.Uint64()))
		observer.ObserveInt64(used, int64(read[1].Value.Uint64()-read[2].Value.Uint64()))
		observer.ObserveInt64(goal, int64(read[3].Value.Uint64()))
		observer.ObserveInt64(allocated, int64(read[4].Value.Uint64()))
		return nil
	}, goroutines, used, goal, allocated)
	return err
}

// observeBuild exports which build this is.
func (i *Instruments) observeBuild(version string) error {
	label := metric.WithAttributeSet(attribute.NewSet(
		attribute.String("version", version), attribute.String("go_version", runtime.Version())))
	_, err := i.meter.Int64ObservableGauge("perdure.build.info", metric.WithDescription("Always 1; the labels say which build this is."),
		metric.WithInt64Callback(func(_ context.Context, observer metric.Int64Observer) error {
			observer.Observe(1, label)
			return nil
		}))
	return err
}
