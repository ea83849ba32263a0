package report

import (
	"cmp"
	"slices"

	"github.com/perdure/perdure/bench/internal/measure"
)

// The systems, as package system names them.
const (
	perdure        = "Perdure"
	restateDefault = "Restate default"
	restateBest    = "Restate best"
)

// median of values; 0 and false when there are none.
func median(values []float64) (float64, bool) {
	if len(values) == 0 {
		return 0, false
	}
	sorted := slices.Sorted(slices.Values(values))
	n := len(sorted)
	if n%2 == 1 {
		return sorted[n/2], true
	}
	return (sorted[n/2-1] + sorted[n/2]) / 2, true
}

// mix names one cell of the plan.
type mix struct {
	workload string
	callers  int
}

// clean are the comparable windows of one cell on one system, in round order.
func clean(records *measure.Records, system string, m mix) (windows []measure.Window) {
	for _, w := range records.Windows {
		if w.System == system && w.Workload == m.workload && w.Callers == m.callers && w.Clean() {
			windows = append(windows, w)
		}
	}
	return windows
}

// middle is the median of one figure over the rounds.
func middle(records *measure.Records, system string, m mix, figure func(measure.Window) float64) (float64, bool) {
	var values []float64
	for _, w := range clean(records, system, m) {
		values = append(values, figure(w))
	}
	return median(values)
}

// ratio is the median over the rounds of a's figure divided by b's. Each quotient is of two windows of one round, a few
// seconds apart, so it holds even when the machine is faster in one round than in another.
func ratio(records *measure.Records, a, b string, am, bm mix, figure func(measure.Window) float64) (float64, bool) {
	other := make(map[int]float64)
	for _, w := range clean(records, b, bm) {
		other[w.Round] = figure(w)
	}
	var quotients []float64
	for _, w := range clean(records, a, am) {
		if divisor := other[w.Round]; divisor > 0 {
			quotients = append(quotients, figure(w)/divisor)
		}
	}
	return median(quotients)
}

func perSecond(w measure.Window) float64 { return w.PerSecond }
func p50(w measure.Window) float64       { return w.P50MS }
func p99(w measure.Window) float64       { return w.P99MS }

// extremes are the lowest and the highest throughput of windows, of which there is at least one.
func extremes(windows []measure.Window) (lowest, highest string) {
	byRate := func(a, b measure.Window) int { return cmp.Compare(a.PerSecond, b.PerSecond) }
	return number(slices.MinFunc(windows, byRate).PerSecond), number(slices.MaxFunc(windows, byRate).PerSecond)
}

// mixes are the cells in the order they were first measured.
func mixes(records *measure.Records) (all []mix) {
	for _, w := range records.Windows {
		if m := (mix{w.Workload, w.Callers}); w.Workload != measure.WorkloadHTTP && !slices.Contains(all, m) {
			all = append(all, m)
		}
	}
	return all
}

// systems are those that were started, in a fixed order.
func systems(records *measure.Records) (all []string) {
	for _, name := range []string{perdure, restateDefault, restateBest} {
		if slices.ContainsFunc(records.Starts, func(s measure.Start) bool { return s.System == name }) {
			all = append(all, name)
		}
	}
	return all
}

// over is the median of figure over those of list that belong to system.
func over[T any](list []T, system func(T) string, name string, figure func(T) float64) (float64, bool) {
	var values []float64
	for _, item := range list {
		if system(item) == name {
			values = append(values, figure(item))
		}
	}
	return median(values)
}

func starts(records *measure.Records, name string, figure func(measure.Start) float64) (float64, bool) {
	return over(records.Starts, func(s measure.Start) string { return s.System }, name, figure)
}

func idles(records *measure.Records, name string, figure func(measure.Idle) float64) (float64, bool) {
	return over(records.Idles, func(i measure.Idle) string { return i.System }, name, figure)
}

func recoveries(records *measure.Records, name string, figure func(measure.Recovery) float64) (float64, bool) {
	return over(records.Recoveries, func(r measure.Recovery) string { return r.System }, name, figure)
}

func floors(records *measure.Records, figure func(measure.Floor) float64) (float64, bool) {
	return over(records.Floors, func(measure.Floor) string { return "" }, "", figure)
}
