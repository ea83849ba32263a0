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

// transactionTables has a table for SmallBank and one for each size of a mix. Each row is a transaction beside the same
// work one by one; every figure is the median over the rounds.
func transactionTables(records *measure.Records) (all []*table) {
	byTitle := make(map[string]*table)
	for _, m := range mixes(records) {
		if strings.HasSuffix(m.workload, workload.OneByOne) {
			continue
		}
		title, choice := m.workload, ""
		if at := strings.LastIndex(title, ", "); at >= 0 {
			title, choice = title[:at], title[at+2:]
		}
		t := byTitle[title]
		if t == nil {
			t = &table{
				title: title,
				header: []string{"keys", "callers", "transactions/s", "min–max", "p50 ms", "p99 ms", "retries each", strings.Join(reasons, " / ") + " %",
					"rolled back %", "declined %", "CPU µs each", "written B each", "one by one/s", "p50 ms", "p99 ms", "transactions are"},
				textColumns: 1,
			}
			byTitle[title] = t
			all = append(all, t)
		}
		addPair(t, records, m, choice)
	}
	return slices.DeleteFunc(all, func(t *table) bool { return len(t.rows) == 0 })
}

func addPair(t *table, records *measure.Records, m mix, choice string) {
	windows := clean(records, perdure, m)
	if len(windows) == 0 {
		return
	}
	apart := mix{m.workload + workload.OneByOne, m.callers}
	cell := func(m mix, figure func(measure.Window) float64) string {
		if value, ok := middle(records, perdure, m, figure); ok {
			return number(value)
		}
		return "–"
	}
	share := "–"
	if quotient, ok := ratio(records, perdure, perdure, m, apart, perSecond); ok {
		share = fmt.Sprintf("%.2f ×", quotient)
	}
	lowest, highest := extremes(windows)
	retries, why, rolledBack := counted(windows)
	t.add(choice, fmt.Sprint(m.callers), cell(m, perSecond), lowest+"–"+highest, cell(m, p50), cell(m, p99),
		retries, why, rolledBack, cell(m, func(w measure.Window) float64 { return 100 * float64(w.Refused) / float64(w.Calls) }),
		cell(m, func(w measure.Window) float64 { return w.CPUPerCallUS }), cell(m, func(w measure.Window) float64 { return w.WrittenPerCall }),
		cell(apart, perSecond), cell(apart, p50), cell(apart, p99), share)
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
		"retries each: tries that the node gave up and began again by itself, for each transaction; their reasons in percent. rolled back: ended without effect; in SmallBank those that it declined for lack of money, which count as transactions.",
		fmt.Sprintf("Load generator and node share the machine; the generator took up to %.2f cores. Closed loop, one keep-alive HTTP/1.1 connection per caller, JSON, no idempotency keys. The node counts for Prometheus.", busiest(records)),
		"After each turn all objects were read back; unless noted below, their sum was what the acknowledged calls say.",
	}
	return append(lines, records.Notes...)
}
