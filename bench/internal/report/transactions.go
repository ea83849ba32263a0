package report

import (
	"fmt"
	"slices"
	"strings"

	"github.com/perdure/perdure/bench/internal/measure"
	"github.com/perdure/perdure/bench/internal/workload"
)

// reasons of a retry, in the order of the column.
var reasons = []string{"wound", "blocked", "lost", "other"}

// transactionTables has two tables for SmallBank and two for each size of a mix: what transactions did, and what they cost
// beside the same work without atomicity. Every figure is the median over the rounds.
func transactionTables(records *measure.Records) (all []*table) {
	type pair struct{ alone, beside *table }
	byTitle := make(map[string]pair)
	for _, m := range mixes(records) {
		if strings.HasSuffix(m.workload, workload.OneByOne) {
			continue
		}
		title, choice := m.workload, ""
		if at := strings.LastIndex(title, ", "); at >= 0 {
			title, choice = title[:at], title[at+2:]
		}
		tables, known := byTitle[title]
		if !known {
			tables = pair{&table{
				title: title,
				header: []string{"keys", "callers", "transactions/s", "min–max", "p50 ms", "p99 ms", "retries each",
					strings.Join(reasons, " / ") + " %", "rolled back %", "declined %", "written B each"},
				textColumns: 1,
			}, besideTable(title)}
			byTitle[title] = tables
			all = append(all, tables.alone, tables.beside)
		}
		addTransactions(tables.alone, records, m, choice)
		addBeside(tables.beside, records, m, choice)
	}
	return slices.DeleteFunc(all, func(t *table) bool { return len(t.rows) == 0 })
}

func addTransactions(t *table, records *measure.Records, m mix, choice string) {
	windows := clean(records, perdure, m)
	if len(windows) == 0 {
		return
	}
	cell := func(figure func(measure.Window) float64) string {
		value, _ := middle(records, perdure, m, figure)
		return number(value)
	}
	lowest, highest := extremes(windows)
	retries, why, rolledBack := counted(windows)
	t.add(choice, fmt.Sprint(m.callers), cell(perSecond), lowest+"–"+highest, cell(p50), cell(p99), retries, why, rolledBack,
		cell(func(w measure.Window) float64 { return 100 * float64(w.Refused) / float64(w.Calls) }),
		cell(func(w measure.Window) float64 { return w.WrittenPerCall }))
}

// unsafe are the ways to do the same work that are not atomic: what columns call them, who does it and as which workload.
var unsafe = []struct{ name, system, suffix string }{
	{"one by one", perdure, workload.OneByOne},
	{restateDefault, restateDefault, ""},
	{restateBest, restateBest, ""},
}

func besideTable(title string) *table {
	t := &table{
		title:       title + ", beside the same work without atomicity",
		header:      []string{"keys", "callers", "transactions/s", "p50 / p99 ms", "CPU µs"},
		textColumns: 1,
	}
	for _, way := range unsafe {
		t.header = append(t.header, way.name+"/s", "p50 / p99 ms", "CPU µs", "× "+way.name)
	}
	return t
}

// addBeside adds a row if at least one of the other ways was measured.
func addBeside(t *table, records *measure.Records, m mix, choice string) {
	figures := func(system string, m mix) (cells []string, ok bool) {
		rate, ok := middle(records, system, m, perSecond)
		if !ok {
			return []string{"–", "–", "–"}, false
		}
		half, _ := middle(records, system, m, p50)
		tail, _ := middle(records, system, m, p99)
		processor, _ := middle(records, system, m, func(w measure.Window) float64 { return w.CPUPerCallUS })
		return []string{number(rate), number(half) + " / " + number(tail), number(processor)}, true
	}
	row := []string{choice, fmt.Sprint(m.callers)}
	own, _ := figures(perdure, m)
	row = append(row, own...)
	any := false
	for _, way := range unsafe {
		other := mix{m.workload + way.suffix, m.callers}
		cells, ok := figures(way.system, other)
		any = any || ok
		share := "–"
		if quotient, ok := ratio(records, perdure, way.system, m, other, perSecond); ok {
			share = fmt.Sprintf("%.2f ×", quotient)
		}
		row = append(append(row, cells...), share)
	}
	if any {
		t.add(row...)
	}
}

// counted is what the node counted in all windows together: retries for each transaction that ended, their reasons as
// shares in percent, and how many in a hundred were rolled back for good. Where it counted nothing, that is unknown.
func counted(windows []measure.Window) (retries, why, rolledBack string) {
	var committed, lost, all float64
	byReason := make(map[string]float64)
	for _, w := range windows {
		if w.Transactions == nil {
			continue
		}
		committed += w.Transactions.Committed
		lost += w.Transactions.RolledBack
		for reason, count := range w.Transactions.Retries {
			if !slices.Contains(reasons, reason) {
				reason = "other"
			}
			byReason[reason] += count
			all += count
		}
	}
	if committed+lost == 0 {
		return "–", "–", "–"
	}
	shares := make([]string, len(reasons))
	for i, reason := range reasons {
		shares[i] = fmt.Sprintf("%.0f", 100*byReason[reason]/max(all, 1))
	}
	return fmt.Sprintf("%.3f", all/(committed+lost)), strings.Join(shares, " / "), number(100 * lost / (committed + lost))
}

func transactionFoot(records *measure.Records) []string {
	lines := []string{
		fmt.Sprintf("%s customers with two accounts each, and %s entries of 100 bytes. SmallBank: 25 %% SendPayment, 15 %% each of Balance, DepositChecking, TransactSavings, Amalgamate and WriteCheck. YCSB-T: each key is read, or read and written, as often; all at once with Async.",
			number(workload.Customers), number(workload.Entries)),
		"one by one: the caller makes the same calls of single objects (TRANSACTION to change, READ to read) one after the other over HTTP, so nothing is atomic across them; a latency is of all of them together.",
		"Restate: the caller makes one call of a durable handler, which makes the calls of single objects that Perdure's makes, one after the other or, in YCSB-T, all at once. It ends what it began, but nothing is atomic across the calls: others see it by half. What SmallBank's accounts decline, it takes back itself.",
		"× …: the throughput of Perdure's transactions as a multiple of that, the median of the quotients of windows of the same round. CPU µs: processor time of server and handlers for each call, or for all calls of one by one.",
		"retries each: tries that the node gave up and began again by itself, for each transaction; their reasons in percent. rolled back: ended without effect; in SmallBank those that it declined for lack of money, which count as transactions.",
		fmt.Sprintf("Load generator, servers and handlers share the machine; the generator took up to %.2f cores. Closed loop, one keep-alive HTTP/1.1 connection per caller, JSON, no idempotency keys. Perdure's node counts for Prometheus.", busiest(records)),
		"After each turn all objects were read back; unless noted below, their sum was what the acknowledged calls say.",
	}
	return append(lines, records.Notes...)
}
