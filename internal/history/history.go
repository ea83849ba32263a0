// Package history checks what callers saw of transactions that append to lists and read them,
// and tells which isolation anomalies it shows.
//
// The method is Elle's (Kingsbury and Alvaro, "Elle: Inferring Isolation Anomalies from
// Experimental Observations", VLDB 2020). Every appended value is unique in its list, so a list
// that was read tells which appends were made before it and in which order. From that follow
// the orders that transactions must have had:
//
//	ww  both appended to a list, the second right after the first
//	wr  the second read what the first appended
//	rw  the first read a list as it was before the second appended to it
//	rt  the first had ended before the second began (Options.Realtime)
//
// A circle of such edges is an anomaly, named after the edges it needs. Lists that no order at
// all explains are anomalies of their own. The check never reports a history that a strictly
// serializable store can produce; what it reports, it can show.
//
// Without Options.Final it knows less: appends that nobody read have no place in their list's
// order but "later than all that was read". With the final lists of all keys, and the outcome
// and the reads of all transactions known, it finds every violation of serializability, and
// with Realtime every violation of strict serializability.
package history

import (
	"cmp"
	"slices"
	"strings"
)

// Op is one operation of a transaction: an append of a value to a key's list, or a read of the
// whole list. Make it with Append, Read or ReadUnknown.
type Op struct {
	Key    string
	Append bool
	// Value is what an append appends. No other append to this key has it, in any transaction.
	Value int64
	// Read is the list a read returned, in order. Nil is a read whose answer is unknown, an
	// empty list that is not nil an answer: decoded messages often have nil for both, which is
	// why there is a function Read.
	Read []int64
}

// Append is an append of value to key's list.
func Append(key string, value int64) Op { return Op{Key: key, Append: true, Value: value} }

// Read is a read of key that returned list, which it keeps; nil is the empty list.
func Read(key string, list []int64) Op {
	if list == nil {
		list = []int64{}
	}
	return Op{Key: key, Read: list}
}

// ReadUnknown is a read of key whose answer did not arrive. It proves nothing.
func ReadUnknown(key string) Op { return Op{Key: key} }

// Outcome is how a transaction ended for its caller.
type Outcome uint8

// The outcomes.
const (
	// Committed: the caller was told so.
	Committed Outcome = iota
	// Aborted: the caller was told that nothing of it happened. Its reads are not checked.
	Aborted
	// Unknown: no answer, or one that leaves it open. The transaction takes part if others saw
	// one of its appends, and then has happened as a whole.
	Unknown
)

func (o Outcome) String() string {
	switch o {
	case Committed:
		return "committed"
	case Aborted:
		return "aborted"
	case Unknown:
		return "unknown"
	}
	return "invalid outcome"
}

// Txn is one transaction as its caller saw it. A caller that tries again after Aborted or
// Unknown makes another Txn, with values of its own.
type Txn struct {
	// ID is unique in the history.
	ID int
	// Process is the caller; it is only printed.
	Process int
	// Ops are in the order in which the transaction made them.
	Ops     []Op
	Outcome Outcome
	// Began is the time before the call was made and Ended the time after the answer was there,
	// in nanoseconds of one clock that never goes back. Only Realtime and texts use them.
	// Ended of an Unknown one means nothing.
	Began, Ended int64
}

// Options say what to check beyond the history.
type Options struct {
	// Realtime asks for strict serializability: a transaction that ended before another began
	// comes before it. Without it any order of transactions will do.
	Realtime bool
	// Final has lists as read after everything had ended, Unknown ones included. Keys that are
	// missing here are not checked for lost appends at the end.
	Final map[string][]int64
	// Limit bounds the anomalies returned of each kind; the last one says how many more were
	// seen. Defaults to 10.
	Limit int
}

// Kind names an anomaly.
type Kind string

// The kinds, worst first. Those with Realtime in their names need an rt edge: the history would
// be serializable but for the order in which callers saw transactions end and begin.
const (
	// Malformed: the history itself is wrong, so other findings may be too: an ID twice, a value
	// appended twice to a key by its transactions, an end before its beginning.
	Malformed Kind = "malformed"
	// DuplicateAppend: a list has a value twice, that is, an append was made twice.
	DuplicateAppend Kind = "duplicate-append"
	// LostAppend: an append that was committed, or seen before, is missing from a list that was
	// read later.
	LostAppend Kind = "lost-append"
	// UnwrittenRead: a list has a value that no transaction appended.
	UnwrittenRead Kind = "unwritten-read"
	// Internal: a transaction's read contradicts its own earlier reads and appends, or has what
	// it appended only later.
	Internal Kind = "internal"
	// IncompatibleOrder: two reads of a list, neither of which is the beginning of the other.
	IncompatibleOrder Kind = "incompatible-order"
	// G1a: a read of what an aborted transaction appended.
	G1a Kind = "G1a"
	// G1b: a read of a list between two appends of one transaction.
	G1b Kind = "G1b"
	// G0: a circle of ww edges: appends of transactions interleave.
	G0 Kind = "G0"
	// G1c: a circle of ww and wr edges: transactions see each other.
	G1c Kind = "G1c"
	// GSingle: a circle with exactly one rw edge: lost update, read skew.
	GSingle Kind = "G-single"
	// G2: a circle with several rw edges: write skew.
	G2 Kind = "G2"

	// G0Realtime and the following are the same with rt edges.
	G0Realtime      Kind = "G0-realtime"
	G1cRealtime     Kind = "G1c-realtime"
	GSingleRealtime Kind = "G-single-realtime"
	G2Realtime      Kind = "G2-realtime"
)

var kinds = []Kind{
	Malformed, DuplicateAppend, LostAppend, UnwrittenRead, Internal, IncompatibleOrder, G1a, G1b,
	G0, G1c, GSingle, G2, G0Realtime, G1cRealtime, GSingleRealtime, G2Realtime,
}

// EdgeKind says why one transaction comes before another.
type EdgeKind string

// The kinds of edges; the package comment has their meanings.
const (
	WW EdgeKind = "ww"
	WR EdgeKind = "wr"
	RW EdgeKind = "rw"
	RT EdgeKind = "rt"
)

// Edge is one step of a circle: From comes before To.
type Edge struct {
	// From and To are IDs of transactions.
	From, To int
	Kind     EdgeKind
	// Key is the list that shows it; empty for RT.
	Key string
	// Why tells it in words.
	Why string
}

// Anomaly is one thing that must not be.
type Anomaly struct {
	Kind Kind
	// Txns are the IDs of the transactions concerned; of a circle in its order.
	Txns []int
	// Key is the list concerned; empty for circles, whose edges have keys.
	Key string
	// Cycle has the edges of a circle; the last leads back to where the first came from.
	Cycle []Edge
	// Text explains it, in one or more lines, without the kind.
	Text string
}

func (a Anomaly) String() string { return string(a.Kind) + ": " + a.Text }

// Format prints anomalies one after the other; empty if there are none.
func Format(anomalies []Anomaly) string {
	var out strings.Builder
	for _, a := range anomalies {
		out.WriteString(a.String())
		out.WriteByte('\n')
	}
	return out.String()
}

// Check returns the anomalies of the history, worst first; none: it is serializable as far as
// can be told from it, and with Options.Realtime strictly so. The order of h means nothing.
// Circles that are reported share no transaction, and each is named after the edges it has;
// in histories that are broken all over it may not be the shortest there is. Check takes time
// and memory linear in the history, but for sorting and for the search of short circles, which
// is bounded: seconds for 100,000 transactions. It keeps nothing and changes nothing.
func Check(h []Txn, opts Options) []Anomaly {
	if opts.Limit <= 0 {
		opts.Limit = 10
	}
	c := &checker{txns: h, opts: opts, counts: map[Kind]int{}}
	c.index()
	c.internal()
	c.settle()
	c.order()
	c.reportInternal()
	c.ownOrder()
	c.readsOfOthers()
	c.lost()
	newGraph(c).report()
	return c.anomalies()
}

// add counts an anomaly and has it made if it is within the limit.
func (c *checker) add(kind Kind, anomaly func() Anomaly) {
	c.counts[kind]++
	if c.counts[kind] > c.opts.Limit {
		return
	}
	a := anomaly()
	a.Kind = kind
	c.found = append(c.found, a)
}

func (c *checker) anomalies() []Anomaly {
	slices.SortStableFunc(c.found, func(a, b Anomaly) int {
		return cmp.Compare(slices.Index(kinds, a.Kind), slices.Index(kinds, b.Kind))
	})
	for i := range c.found {
		kind := c.found[i].Kind
		last := i+1 == len(c.found) || c.found[i+1].Kind != kind
		if more := c.counts[kind] - c.opts.Limit; last && more > 0 {
			c.found[i].Text += "\n  and " + plural(more, "more finding of this kind", "more findings of this kind")
		}
	}
	return c.found
}
