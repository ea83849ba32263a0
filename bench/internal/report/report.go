package report

import (
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/perdure/perdure/bench/internal/measure"
)

// noisy is from how many cores used by other processes a row is marked.
const noisy = 0.2

// Text writes the tables for a terminal.
func Text(w io.Writer, records *measure.Records) {
	for _, line := range head(records) {
		fmt.Fprintln(w, line)
	}
	for _, t := range tables(records) {
		t.text(w)
	}
	fmt.Fprintln(w)
	for _, line := range foot(records) {
		fmt.Fprintln(w, line)
	}
}

// Markdown writes the tables as a page for docs.
func Markdown(w io.Writer, records *measure.Records) {
	title := "Benchmark"
	if records.Transactions {
		title += ": transactions across objects"
	}
	fmt.Fprintf(w, "# %s\n\nMade by `%s` on %s in %s. Do not edit: run it again.\n\n",
		title, records.Command, records.Started.UTC().Format("2 January 2006"), records.Took.Round(1e9))
	for _, line := range head(records) {
		fmt.Fprintln(w, "- "+line)
	}
	for _, t := range tables(records) {
		t.markdown(w)
	}
	fmt.Fprintf(w, "\n## Notes\n\n")
	for _, line := range foot(records) {
		fmt.Fprintln(w, "- "+strings.ReplaceAll(line, "\n", " "))
	}
}

func head(records *measure.Records) []string {
	lines := []string{"machine: " + records.Machine, "disk: " + records.Disk}
	if len(records.Versions) > 0 {
		lines = append(lines, "versions: "+strings.Join(records.Versions, ", "))
	}
	return lines
}

func tables(records *measure.Records) []*table {
	if records.Transactions {
		return append([]*table{floorTable(records)}, transactionTables(records)...)
	}
	all := []*table{floorTable(records), calls(records), lifecycle(records)}
	all = slices.DeleteFunc(all, func(t *table) bool { return len(t.rows) == 0 })
	if slices.Contains(systems(records), perdure) {
		all = append(all, budgets(records))
	}
	return all
}

func floorTable(records *measure.Records) *table {
	t := &table{title: "Floor: what this machine can do at all", header: []string{"what", "per second", "p50 ms", "p99 ms"}, textColumns: 1}
	if rate, ok := floors(records, func(f measure.Floor) float64 { return f.PerSecond }); ok {
		middle, _ := floors(records, func(f measure.Floor) float64 { return f.P50MS })
		tail, _ := floors(records, func(f measure.Floor) float64 { return f.P99MS })
		t.add("256-byte append + fdatasync, one after the other", number(rate), number(middle), number(tail))
	}
	m := mix{measure.WorkloadHTTP, 64}
	if rate, ok := middle(records, "HTTP floor", m, perSecond); ok {
		half, _ := middle(records, "HTTP floor", m, p50)
		tail, _ := middle(records, "HTTP floor", m, func(w measure.Window) float64 { return w.P99MS })
		t.add("empty HTTP/1.1 call to net/http over loopback, 64 callers", number(rate), number(half), number(tail))
	}
	return t
}

// calls is the main table: each row is the median over the rounds.
func calls(records *measure.Records) *table {
	t := &table{
		title: "Calls, medians over the rounds",
		header: []string{"workload", "system", "callers", "calls/s", "min–max", "p50 ms", "p99 ms", "CPU µs/call",
			"written B/call", "flushes/call", "RSS MiB", "other cores", "Perdure is"},
		textColumns: 2,
	}
	for _, m := range mixes(records) {
		for _, name := range systems(records) {
			windows := clean(records, name, m)
			if len(windows) == 0 {
				continue
			}
			cell := func(figure func(measure.Window) float64) float64 {
				value, _ := middle(records, name, m, figure)
				return value
			}
			lowest, highest := extremes(windows)
			others := cell(func(w measure.Window) float64 { return w.OtherCores })
			mark := ""
			if others > noisy {
				mark = "~"
			}
			resident := mebibytes(cell(func(w measure.Window) float64 { return float64(w.ServerBytes) }))
			if service := cell(func(w measure.Window) float64 { return float64(w.ServiceBytes) }); service > 0 {
				resident += "+" + mebibytes(service)
			}
			versus := ""
			if name != perdure {
				if times, ok := ratio(records, perdure, name, m, m, perSecond); ok {
					versus = fmt.Sprintf("%.1f ×", times)
				}
			}
			flushes := cell(func(w measure.Window) float64 { return w.FlushesPerCall })
			flushed := "–"
			if flushes >= 0 {
				flushed = number(flushes)
			}
			t.add(m.workload, name, fmt.Sprint(m.callers), mark+number(cell(perSecond)), lowest+"–"+highest,
				number(cell(p50)), number(cell(p99)),
				number(cell(func(w measure.Window) float64 { return w.CPUPerCallUS })),
				number(cell(func(w measure.Window) float64 { return w.WrittenPerCall })),
				flushed, resident, number(others), versus)
		}
	}
	return t
}

func lifecycle(records *measure.Records) *table {
	t := &table{
		title: "Start, idle and SIGKILL under load (64 callers, restarted at once)",
		header: []string{"system", "exec to serving s", "exec to first call s", "idle % of a core", "idle RSS MiB",
			"silence after SIGKILL s", "all callers back s", "acknowledged and checked", "lost or doubled"},
		textColumns: 1,
	}
	known := func(value float64, ok bool, format string) string {
		if !ok {
			return "–"
		}
		return fmt.Sprintf(format, value)
	}
	for _, name := range systems(records) {
		row := []string{name}
		value, ok := starts(records, name, func(s measure.Start) float64 { return s.ServingMS / 1e3 })
		row = append(row, known(value, ok, "%.2f"))
		value, ok = starts(records, name, func(s measure.Start) float64 { return s.FirstCallMS / 1e3 })
		row = append(row, known(value, ok, "%.2f"))
		value, ok = idles(records, name, func(i measure.Idle) float64 { return i.Cores * 100 })
		row = append(row, known(value, ok, "%.1f"))
		value, ok = idles(records, name, func(i measure.Idle) float64 { return float64(i.ServerBytes) / (1 << 20) })
		resident := known(value, ok, "%.0f")
		if service, _ := idles(records, name, func(i measure.Idle) float64 { return float64(i.ServiceBytes) }); service > 0 {
			resident += "+" + mebibytes(service)
		}
		row = append(row, resident)
		value, ok = recoveries(records, name, func(r measure.Recovery) float64 { return r.GapMS / 1e3 })
		row = append(row, known(value, ok, "%.2f"))
		value, ok = recoveries(records, name, func(r measure.Recovery) float64 { return r.AllResumedMS / 1e3 })
		row = append(row, known(value, ok, "%.2f"))
		var acknowledged, problems int
		for _, r := range records.Recoveries {
			if r.System == name {
				acknowledged += r.Acknowledged
				problems += len(r.Problems)
			}
		}
		row = append(row, known(float64(acknowledged), ok, "%.0f"), known(float64(problems), ok, "%.0f"))
		t.add(row...)
	}
	return t
}

// busiest is how many cores the load generator took at most.
func busiest(records *measure.Records) (cores float64) {
	for _, w := range records.Windows {
		cores = max(cores, w.GeneratorCores)
	}
	return cores
}

func foot(records *measure.Records) []string {
	if records.Transactions {
		return transactionFoot(records)
	}
	lines := []string{
		fmt.Sprintf("Load generator, servers and Restate's handlers share the machine; the generator took up to %.2f cores. Closed loop, one keep-alive HTTP/1.1 connection per caller, JSON.", busiest(records)),
		"Systems take turns on freshly started servers; \"Perdure is\" is the median of the quotients of windows of the same round.",
		"RSS and CPU of Restate include the process with its handlers on the Go SDK (after the plus sign).",
		"flushes/call: how often the disk's write cache was flushed, by whatever runs on the machine, for each call; one group-committed sync serves many calls.",
		fmt.Sprintf("~: other processes used more than %.1f cores during the window, so the row is a lower bound.", noisy),
	}
	return append(lines, records.Notes...)
}
