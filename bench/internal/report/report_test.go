package report

import (
	"slices"
	"strings"
	"testing"

	"github.com/perdure/perdure/bench/internal/measure"
	"github.com/perdure/perdure/bench/internal/workload"
)

// fixture is a machine that runs twice as fast in its second round, with Perdure 12 times Restate in both.
func fixture() *measure.Records {
	records := &measure.Records{Machine: "a machine", Disk: "ext4", Command: "make bench", Notes: []string{"a | note"}}
	for round := range 2 {
		speed := float64(round + 1)
		records.Floors = append(records.Floors, measure.Floor{Round: round, PerSecond: 3000, P50MS: 0.3, P99MS: 1})
		for _, callers := range []int{1, 64} {
			for name, rate := range map[string]float64{perdure: 12000, restateDefault: 1000, restateBest: 3000} {
				records.Windows = append(records.Windows, measure.Window{
					System: name, Workload: workload.NameAdd, Callers: callers, Round: round, Calls: 10_000,
					PerSecond: rate * speed, P50MS: 0.7, P99MS: 2, CPUPerCallUS: 80, WrittenPerCall: 900, ServerBytes: 100 << 20,
				})
			}
		}
		for _, name := range []string{perdure, restateDefault, restateBest} {
			records.Starts = append(records.Starts, measure.Start{System: name, Round: round, ServingMS: 250, FirstCallMS: 260})
		}
	}
	records.Recoveries = []measure.Recovery{{System: perdure, Acknowledged: 5000, GapMS: 1500}}
	return records
}

func TestRatiosArePairedByRound(t *testing.T) {
	records := fixture()
	// A third round in which only Restate was measured, on a far faster machine, must not move the ratio.
	records.Windows = append(records.Windows, measure.Window{System: restateDefault, Workload: workload.NameAdd, Callers: 64, Round: 2, Calls: 1, PerSecond: 1e6})
	m := mix{workload.NameAdd, 64}
	if got, ok := ratio(records, perdure, restateDefault, m, m, perSecond); !ok || got != 12 {
		t.Errorf("ratio %v, %v, want 12", got, ok)
	}
}

func TestWindowsWithErrorsAreLeftOut(t *testing.T) {
	records := fixture()
	for i := range records.Windows {
		records.Windows[i].Errors = records.Windows[i].Calls / 100
	}
	if got := len(calls(records).rows); got != 0 {
		t.Errorf("%d rows made of windows in which 1 %% of the calls failed", got)
	}
}

func TestBudgetsAreJudgedOnlyWhenMeasured(t *testing.T) {
	verdicts := map[string]string{}
	for _, row := range budgets(fixture()).rows {
		verdicts[row[0]+" "+row[1]] = row[3]
	}
	for what, want := range map[string]string{
		"Add, one caller, p50 ≤ 1.5 × synced append + 0.3 ms = 0.75 ms": met,
		"Add, 1,000 keys, 64 callers ≥ 10 × Restate default":            met,
		"Add, 1,000 keys, 64 callers ≥ 5 × Restate best":                missed,
		"Add, 1,000 keys, 256 callers ≥ 5 × Restate best":               notMeasured,
		"bytes written per Add, 64 callers ≤ 1,024":                     met,
		"SIGKILL under load to calls succeeding ≤ 1 s":                  missed,
		"acknowledged calls lost or doubled 0 of 5,000":                 met,
		"processor, idle ≤ 1 % of a core":                               notMeasured,
	} {
		if verdicts[what] != want {
			t.Errorf("%s: %q, want %q", what, verdicts[what], want)
		}
	}
}

func TestTextAndMarkdown(t *testing.T) {
	var text, markdown strings.Builder
	Text(&text, fixture())
	Markdown(&markdown, fixture())
	for _, want := range []string{"256-byte append", "12.0 ×", "18,000", "MISSED"} {
		if !strings.Contains(text.String(), want) || !strings.Contains(markdown.String(), want) {
			t.Errorf("%q is not in both outputs", want)
		}
	}
	for line := range strings.Lines(markdown.String()) {
		if strings.HasPrefix(line, "|") && !strings.HasSuffix(line, "|\n") {
			t.Errorf("broken table row %q", line)
		}
	}
	empty := &measure.Records{}
	Text(&text, empty)
	Markdown(&markdown, empty)
}

func TestTransfersAndFanOutsAreJudged(t *testing.T) {
	records := fixture()
	for name, rate := range map[string]float64{perdure: 6000, restateDefault: 300} {
		records.Windows = append(records.Windows,
			measure.Window{System: name, Workload: workload.NameTransfer, Callers: 64, Calls: 1000, PerSecond: rate},
			measure.Window{System: name, Workload: workload.NameFanOut, Callers: 16, Calls: 1000, PerSecond: rate})
	}
	verdicts := map[string]string{}
	for _, row := range budgets(records).rows {
		verdicts[row[0]+" "+row[1]] = row[2] + " " + row[3]
	}
	for what, want := range map[string]string{
		"transfer over two objects, atomic, 64 callers ≥ 10 × Restate default":    "20.0 × met",
		"transfer over two objects, atomic, 64 callers ≥ 40 % of Add, 1,000 keys": "50 % met",
		"fan-out to 100 objects and join, 16 callers ≥ 20 × Restate default":      "20.0 × met",
	} {
		if verdicts[what] != want {
			t.Errorf("%s: %q, want %q", what, verdicts[what], want)
		}
	}
}

func TestTransactionsStandBesideTheSameWorkWithoutAtomicity(t *testing.T) {
	records := &measure.Records{Transactions: true}
	name := workload.MixName(4, workload.Choice{Zipf: 0.9})
	for round := range 2 {
		rate := 1000 * float64(round+1)
		records.Windows = append(records.Windows,
			measure.Window{System: perdure, Workload: name, Callers: 64, Round: round, Calls: 1000, PerSecond: rate,
				Transactions: &measure.Transactions{Committed: 900, RolledBack: 100, Retries: map[string]float64{"wound": 300, "new": 100}}},
			measure.Window{System: perdure, Workload: name + workload.OneByOne, Callers: 64, Round: round, Calls: 1000, PerSecond: 2 * rate},
			measure.Window{System: restateBest, Workload: name, Callers: 64, Round: round, Calls: 1000, PerSecond: rate / 4, P50MS: 7, P99MS: 80, CPUPerCallUS: 5000},
			measure.Window{System: perdure, Workload: name, Callers: 1, Round: round, Calls: 1000, PerSecond: rate})
	}
	tables := transactionTables(records)
	if len(tables) != 2 || tables[0].title != "YCSB-T, 4 keys" || len(tables[0].rows) != 2 || len(tables[1].rows) != 1 {
		t.Fatalf("tables %+v, want one of two rows, and one of the row that has anything beside it", tables)
	}
	for column, want := range map[string]string{
		"keys": "zipfian 0.9", "transactions/s": "1,500", "one by one/s": "3,000", "× one by one": "0.50 ×", "× Restate default": "–",
		"Restate best/s": "375", "× Restate best": "4.00 ×",
	} {
		at := slices.Index(tables[1].header, column)
		if got := tables[1].rows[0][at]; got != want {
			t.Errorf("%s: %q, want %q", column, got, want)
		}
		if column == "Restate best/s" && tables[1].rows[0][at+1] != "7.00 / 80.0" {
			t.Errorf("Restate's latencies are %q", tables[1].rows[0][at+1])
		}
	}
	for callers, want := range map[string]map[string]string{
		"64": {"keys": "zipfian 0.9", "transactions/s": "1,500", "retries each": "0.400", "wound / blocked / lost / other %": "75 / 0 / 0 / 25",
			"rolled back %": "10.0"},
		"1": {"retries each": "–", "rolled back %": "–"},
	} {
		for _, row := range tables[0].rows {
			if row[1] != callers {
				continue
			}
			for column, cell := range want {
				if got := row[slices.Index(tables[0].header, column)]; got != cell {
					t.Errorf("%s callers, %s: %q, want %q", callers, column, got, cell)
				}
			}
		}
	}
	var markdown strings.Builder
	Markdown(&markdown, records)
	if text := markdown.String(); !strings.Contains(text, "10,000 customers") || strings.Contains(text, "Budgets") {
		t.Errorf("the page is not one of transactions:\n%s", text)
	}
}

func TestNumberAndMedian(t *testing.T) {
	for v, want := range map[float64]string{0.123: "0.12", 12.34: "12.3", 123.4: "123", 1234.5: "1,234", 1234567: "1,234,567"} {
		if got := number(v); got != want {
			t.Errorf("number(%v) = %s, want %s", v, got, want)
		}
	}
	if got, ok := median([]float64{4, 1, 3, 2}); !ok || got != 2.5 {
		t.Errorf("median %v, want 2.5", got)
	}
	if _, ok := median(nil); ok {
		t.Error("nothing has a median")
	}
}
