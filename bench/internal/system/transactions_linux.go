package system

import (
	"context"
	"fmt"
	"strconv"
	"strings"
)

// Transactions is what a Perdure node has counted of transactions since its start.
type Transactions struct {
	Committed, RolledBack float64
	// Retries are tries that ended without an outcome and began again, by reason: wound (an older transaction wanted the
	// key), blocked, lost (a partition changed its leader) and other.
	Retries map[string]float64
}

// Minus is what was counted after earlier.
func (t Transactions) Minus(earlier Transactions) Transactions {
	difference := Transactions{
		Committed: t.Committed - earlier.Committed, RolledBack: t.RolledBack - earlier.RolledBack, Retries: make(map[string]float64),
	}
	for reason, count := range t.Retries {
		difference.Retries[reason] = count - earlier.Retries[reason]
	}
	return difference
}

// Transactions reads the counters. It returns nil when this system counts no transactions, or counted none yet.
func (i *Instance) Transactions(ctx context.Context) (*Transactions, error) {
	if i.metrics == "" {
		return nil, nil
	}
	page, err := get(ctx, "http://"+i.Addr.String()+i.metrics)
	if err != nil {
		return nil, fmt.Errorf("reading the metrics: %w", err)
	}
	return parseTransactions(string(page))
}

func parseTransactions(page string) (*Transactions, error) {
	var found *Transactions
	for line := range strings.Lines(page) {
		name, rest, labelled := strings.Cut(line, "{")
		if !labelled || name != "perdure_transactions_total" && name != "perdure_transaction_retries_total" {
			continue
		}
		labels, value, _ := strings.Cut(rest, "}")
		fields := strings.Fields(value) // a time may follow the value
		if len(fields) == 0 {
			return nil, fmt.Errorf("metrics line %q has no value", line)
		}
		count, err := strconv.ParseFloat(fields[0], 64)
		if err != nil {
			return nil, fmt.Errorf("metrics line %q: %w", line, err)
		}
		if found == nil {
			found = &Transactions{Retries: make(map[string]float64)}
		}
		switch outcome := label(labels, "outcome"); {
		case name == "perdure_transaction_retries_total":
			found.Retries[label(labels, "reason")] += count
		case outcome == "committed":
			found.Committed += count
		default:
			found.RolledBack += count
		}
	}
	return found, nil
}

// label is the value of one label of a metric; the values read here hold neither commas nor quotes.
func label(labels, name string) string {
	for pair := range strings.SplitSeq(labels, ",") {
		if key, value, _ := strings.Cut(pair, "="); key == name {
			return strings.Trim(value, `"`)
		}
	}
	return ""
}
