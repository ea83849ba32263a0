package report

import (
	"fmt"

	"github.com/perdure/perdure/bench/internal/measure"
	"github.com/perdure/perdure/bench/internal/workload"
)

// verdicts of a budget.
const (
	met         = "met"
	missed      = "MISSED"
	notMeasured = "not measured"
)

// budgets compares the run with ARCHITECTURE.md section 11. A budget that this run cannot judge says so.
func budgets(records *measure.Records) *table {
	t := &table{title: "Budgets", header: []string{"what", "budget", "measured", "verdict"}, textColumns: 4}

	add1, add64, add256 := mix{workload.NameAdd, 1}, mix{workload.NameAdd, 64}, mix{workload.NameAdd, 256}
	hot64, get64 := mix{workload.NameHot, 64}, mix{workload.NameGet, 64}
	steps1, steps64 := mix{workload.NameSteps, 1}, mix{workload.NameSteps, 64}
	transfer64, fanOut16 := mix{workload.NameTransfer, 64}, mix{workload.NameFanOut, 16}

	sync, haveSync := floors(records, func(f measure.Floor) float64 { return f.P50MS })
	latency, haveLatency := middle(records, perdure, add1, p50)
	bound := 1.5*sync + 0.3
	t.limit("Add, one caller, p50", fmt.Sprintf("≤ 1.5 × synced append + 0.3 ms = %.2f ms", bound), latency, bound, "%.2f ms", haveSync && haveLatency)

	t.times(records, "Add, 1,000 keys, 64 callers", restateDefault, add64, 10)
	t.times(records, "Add, 1,000 keys, 64 callers", restateBest, add64, 5)
	t.times(records, "Add, 1,000 keys, 256 callers", restateDefault, add256, 10)
	t.times(records, "Add, 1,000 keys, 256 callers", restateBest, add256, 5)
	t.times(records, "Get (READ), 64 callers", restateDefault, get64, 15)
	t.times(records, "Add, one key, 64 callers", restateDefault, hot64, 30)
	hot, ok := ratio(records, perdure, perdure, hot64, add64, perSecond)
	t.atLeast("Add, one key, 64 callers", "≥ 0.5 × the spread keys", hot, 0.5, "%.2f ×", ok)
	t.times(records, "transfer over two objects, atomic, 64 callers", restateDefault, transfer64, 10)
	share, ok := ratio(records, perdure, perdure, transfer64, add64, perSecond)
	t.atLeast("transfer over two objects, atomic, 64 callers", "≥ 40 % of Add, 1,000 keys", share*100, 40, "%.0f %%", ok)
	t.add("10 Run steps, durable records", "≤ 11", "–", notMeasured)
	t.times(records, "10 Run steps, 64 callers", restateDefault, steps64, 5)
	t.times(records, "10 Run steps, one caller", restateDefault, steps1, 4)
	t.times(records, "fan-out to 100 objects and join, 16 callers", restateDefault, fanOut16, 20)

	written, ok := middle(records, perdure, add64, func(w measure.Window) float64 { return w.WrittenPerCall })
	t.limit("bytes written per Add, 64 callers", "≤ 1,024", written, 1024, "%.0f", ok)
	serving, ok := starts(records, perdure, func(s measure.Start) float64 { return s.ServingMS })
	t.limit("exec to serving, empty directory", "≤ 0.3 s", serving/1e3, 0.3, "%.2f s", ok)
	gap, ok := recoveries(records, perdure, func(r measure.Recovery) float64 { return r.GapMS })
	t.limit("SIGKILL under load to calls succeeding", "≤ 1 s", gap/1e3, 1, "%.2f s", ok)
	resident, ok := idles(records, perdure, func(i measure.Idle) float64 { return float64(i.ServerBytes) })
	t.limit("resident memory, idle", "≤ 150 MB", resident/1e6, 150, "%.0f MB", ok)
	cores, ok := idles(records, perdure, func(i measure.Idle) float64 { return i.Cores })
	t.limit("processor, idle", "≤ 1 % of a core", cores*100, 1, "%.1f %%", ok)
	resident, ok = middle(records, perdure, add64, func(w measure.Window) float64 { return float64(w.ServerBytes) })
	t.limit("resident memory, Add, 64 callers", "≤ 300 MB", resident/1e6, 300, "%.0f MB", ok)

	var acknowledged, problems int
	for _, r := range records.Recoveries {
		if r.System == perdure {
			acknowledged += r.Acknowledged
			problems += len(r.Problems)
		}
	}
	t.limit("acknowledged calls lost or doubled", fmt.Sprintf("0 of %s", number(float64(acknowledged))), float64(problems), 0, "%.0f", acknowledged > 0)
	return t
}

// limit adds a budget that measured must not exceed.
func (t *table) limit(what, budget string, measured, limit float64, format string, known bool) {
	t.judge(what, budget, measured, measured <= limit, format, known)
}

// atLeast adds a budget that measured must reach.
func (t *table) atLeast(what, budget string, measured, least float64, format string, known bool) {
	t.judge(what, budget, measured, measured >= least, format, known)
}

// times adds a budget of calls per second as a multiple of another system.
func (t *table) times(records *measure.Records, what, other string, m mix, factor float64) {
	measured, known := ratio(records, perdure, other, m, m, perSecond)
	t.atLeast(what, fmt.Sprintf("≥ %.0f × %s", factor, other), measured, factor, "%.1f ×", known)
}

func (t *table) judge(what, budget string, measured float64, holds bool, format string, known bool) {
	switch {
	case !known:
		t.add(what, budget, "–", notMeasured)
	case holds:
		t.add(what, budget, fmt.Sprintf(format, measured), met)
	default:
		t.add(what, budget, fmt.Sprintf(format, measured), missed)
	}
}
