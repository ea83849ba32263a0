package history

import (
	"fmt"
	"maps"
	"math"
	"slices"
)

// final is the reader of Options.Final where an index of a transaction is expected.
const final = int32(-1)

// none is the place in a list of an append that is not in it.
const none = int32(-1)

// cell is one value in one list.
type cell struct {
	key   int32
	value int64
}

// write is an append that a transaction tried.
type write struct {
	cell
	txn, op int32
	// at is its place in the longest list of the key, none if it is not there.
	at int32
	// seen in any list that counts, the longest or another.
	seen bool
	// last append of its transaction to this key.
	last bool
	// reused: other appends of the history have this value too.
	reused bool
	// missed is set once it was reported as lost.
	missed bool
}

// read is a read with a known answer, of a transaction that is not aborted.
type read struct {
	txn, op, key int32
	list         []int64
	// broken reads contradict their own transaction. They order nothing.
	broken bool
	// prefix: it is the beginning of the key's longest list.
	prefix bool
}

// list is what is known of a key.
type list struct {
	name string
	// longest list that was read, by whom, and whether anybody has read it.
	longest []int64
	by      int32
	read    bool
	// final is the list in Options.Final, if hasFinal.
	final    []int64
	hasFinal bool
	// writes are the key's appends, as indexes, in the order of the history.
	writes []int32
	// order has, for each place of longest, the index of the write that takes part, or none: an
	// aborted one, a second occurrence, garbage.
	order []int32
}

// checker is one run of Check. Transactions are meant by their index in txns.
type checker struct {
	txns   []Txn
	opts   Options
	found  []Anomaly
	counts map[Kind]int

	lists  []list
	writes []write
	wrote  map[cell]int32
	reads  []read
	// firstRead is, for each transaction, its first read; one more marks the end.
	firstRead []int32
	// opKeys are the keys of all operations, firstOp says where those of a transaction begin.
	opKeys  []int32
	firstOp []int32
	// takes says whether a transaction takes part: committed, or unknown and seen.
	takes []bool
}

func (c *checker) txn(index int32) *Txn { return &c.txns[index] }

// ids of transactions; the final read has none.
func (c *checker) ids(indexes ...int32) []int {
	var ids []int
	for _, index := range indexes {
		if index != final && !slices.Contains(ids, c.txns[index].ID) {
			ids = append(ids, c.txns[index].ID)
		}
	}
	return ids
}

// index numbers the keys and lists all appends and reads.
func (c *checker) index() {
	total := 0
	for i := range c.txns {
		total += len(c.txns[i].Ops)
	}
	c.wrote = make(map[cell]int32, total/2)
	c.opKeys = make([]int32, 0, total)
	c.firstOp = make([]int32, 0, len(c.txns)+1)
	c.firstRead = make([]int32, 0, len(c.txns)+1)
	c.takes = make([]bool, len(c.txns))
	numbers := map[string]int32{}
	number := func(name string) int32 {
		key, known := numbers[name]
		if !known {
			key = int32(len(c.lists))
			numbers[name] = key
			c.lists = append(c.lists, list{name: name, by: final})
		}
		return key
	}
	ids := make(map[int]struct{}, len(c.txns))
	for i := range c.txns {
		txn := &c.txns[i]
		c.firstOp = append(c.firstOp, int32(len(c.opKeys)))
		c.firstRead = append(c.firstRead, int32(len(c.reads)))
		c.takes[i] = txn.Outcome == Committed
		if _, twice := ids[txn.ID]; twice {
			c.add(Malformed, func() Anomaly {
				return Anomaly{Txns: []int{txn.ID}, Text: fmt.Sprintf("two transactions have the ID %d; give each its own", txn.ID)}
			})
		}
		ids[txn.ID] = struct{}{}
		if c.opts.Realtime && txn.Outcome == Committed && txn.Ended < txn.Began {
			c.add(Malformed, func() Anomaly {
				return Anomaly{Txns: []int{txn.ID}, Text: fmt.Sprintf("%s ended at %d ns, before it began at %d ns; take both times from one monotonic clock", c.name(int32(i)), txn.Ended, txn.Began)}
			})
		}
		for o, op := range txn.Ops {
			key := number(op.Key)
			c.opKeys = append(c.opKeys, key)
			switch {
			case op.Append:
				c.indexWrite(key, op.Value, int32(i), int32(o))
			case op.Read != nil && txn.Outcome != Aborted:
				c.reads = append(c.reads, read{txn: int32(i), op: int32(o), key: key, list: op.Read})
			}
		}
	}
	c.firstOp = append(c.firstOp, int32(len(c.opKeys)))
	c.firstRead = append(c.firstRead, int32(len(c.reads)))
	for _, name := range slices.Sorted(maps.Keys(c.opts.Final)) {
		l := &c.lists[number(name)]
		l.final, l.hasFinal = c.opts.Final[name], true
	}
}

func (c *checker) indexWrite(key int32, value int64, txn, op int32) {
	at := cell{key, value}
	if first, reused := c.wrote[at]; reused {
		c.writes[first].reused = true
		c.add(Malformed, func() Anomaly {
			return Anomaly{
				Key: c.lists[key].name, Txns: c.ids(c.writes[first].txn, txn),
				Text: fmt.Sprintf("%s and %s both append %d to %s; each append to a key needs a value of its own", c.name(c.writes[first].txn), c.name(txn), value, c.lists[key].name),
			}
		})
		return
	}
	index := int32(len(c.writes))
	c.wrote[at] = index
	l := &c.lists[key]
	// Appends of one transaction to a key follow each other in the key's writes.
	if n := len(l.writes); n > 0 && c.writes[l.writes[n-1]].txn == txn {
		c.writes[l.writes[n-1]].last = false
	}
	l.writes = append(l.writes, index)
	c.writes = append(c.writes, write{cell: at, txn: txn, op: op, at: none, last: true})
}

// settle finds the longest list of each key and which unknown transactions take part. The
// lists of a transaction that takes part can show that others do.
func (c *checker) settle() {
	for key := range c.lists {
		if l := &c.lists[key]; l.hasFinal {
			l.longest, l.read = l.final, true
		}
	}
	for i := range c.reads {
		if r := &c.reads[i]; c.takes[r.txn] && !r.broken {
			c.offer(r)
		}
	}
	var queue []int32
	see := func(key int32, values []int64) {
		for _, value := range values {
			index, known := c.wrote[cell{key, value}]
			if !known {
				continue
			}
			w := &c.writes[index]
			w.seen = true
			if c.txns[w.txn].Outcome == Unknown && !c.takes[w.txn] {
				c.takes[w.txn] = true
				queue = append(queue, w.txn)
			}
		}
	}
	for key := range c.lists {
		l := &c.lists[key]
		see(int32(key), l.longest)
		if !isPrefix(l.final, l.longest) {
			see(int32(key), l.final)
		}
	}
	for i := range c.reads {
		r := &c.reads[i]
		if c.txns[r.txn].Outcome == Committed && !r.broken && !isPrefix(r.list, c.lists[r.key].longest) {
			see(r.key, r.list)
		}
	}
	for len(queue) > 0 {
		txn := queue[len(queue)-1]
		queue = queue[:len(queue)-1]
		for i := c.firstRead[txn]; i < c.firstRead[txn+1]; i++ {
			r := &c.reads[i]
			l := &c.lists[r.key]
			if r.broken {
				continue
			}
			if !isPrefix(r.list, l.longest) {
				see(r.key, r.list)
			}
			c.offer(r)
		}
	}
	for i := range c.reads {
		r := &c.reads[i]
		r.prefix = isPrefix(r.list, c.lists[r.key].longest)
	}
}

// offer makes a read the longest of its key if it is.
func (c *checker) offer(r *read) {
	l := &c.lists[r.key]
	if !l.read || len(r.list) > len(l.longest) {
		l.longest, l.by, l.read = r.list, r.txn, true
	}
}

func isPrefix(short, long []int64) bool {
	return len(short) <= len(long) && slices.Equal(short, long[:len(short)])
}

// order gives the appends their places in the longest lists, and reports lists that have what
// no list may have, or that contradict each other.
func (c *checker) order() {
	for key := range c.lists {
		l := &c.lists[key]
		l.order = make([]int32, len(l.longest))
		for at, value := range l.longest {
			l.order[at] = none
			index, known := c.wrote[cell{int32(key), value}]
			if !known {
				continue
			}
			w := &c.writes[index]
			if w.at == none {
				w.at = int32(at)
				if c.takes[w.txn] {
					l.order[at] = index
				}
			}
		}
		c.contents(int32(key), l.longest, l.by)
		if l.hasFinal && !isPrefix(l.final, l.longest) {
			c.incompatible(int32(key), l.final, final)
			c.contents(int32(key), l.final, final)
		}
	}
	for i := range c.reads {
		r := &c.reads[i]
		if r.prefix || !c.takes[r.txn] {
			continue
		}
		if !r.broken {
			c.incompatible(r.key, r.list, r.txn)
		}
		c.contents(r.key, r.list, r.txn)
	}
}

// contents reports duplicates, garbage and aborted appends of a list. It is called for the
// longest list of a key and for those that are no beginnings of it: all others have nothing
// that these do not have.
func (c *checker) contents(key int32, values []int64, reader int32) {
	name := c.lists[key].name
	counts := make(map[int64]int, len(values))
	for at, value := range values {
		counts[value]++
		if counts[value] > 2 {
			continue
		}
		index, known := c.wrote[cell{key, value}]
		switch {
		case counts[value] == 2:
			if known && c.writes[index].reused {
				continue
			}
			c.add(DuplicateAppend, func() Anomaly {
				first := slices.Index(values, value)
				who := "nobody, as far as is known, appended it"
				indexes := []int32{reader}
				if known {
					w := c.writes[index]
					who = fmt.Sprintf("%s (%s) appended it once", c.name(w.txn), c.txn(w.txn).Outcome)
					indexes = []int32{w.txn, reader}
				}
				return Anomaly{Key: name, Txns: c.ids(indexes...), Text: fmt.Sprintf("%s has %d at places %d and %d, in %s; %s", name, value, first, at, c.reading(key, values, reader), who)}
			})
		case !known:
			c.add(UnwrittenRead, func() Anomaly {
				return Anomaly{Key: name, Txns: c.ids(reader), Text: fmt.Sprintf("%s has %d at place %d, in %s; no transaction appended it", name, value, at, c.reading(key, values, reader))}
			})
		case c.txn(c.writes[index].txn).Outcome == Aborted:
			w := c.writes[index]
			c.add(G1a, func() Anomaly {
				reader, values := c.earliest(key, values, reader, at)
				return Anomaly{Key: name, Txns: c.ids(w.txn, reader), Text: fmt.Sprintf("%s was aborted, but %d, which it appended to %s, is in %s", c.name(w.txn), value, name, c.reading(key, values, reader))}
			})
		}
	}
}

// earliest is the shortest beginning of a list that was read and has the given place: it shows
// a finding best.
func (c *checker) earliest(key int32, values []int64, reader int32, at int) (int32, []int64) {
	for i := range c.reads {
		r := &c.reads[i]
		if r.key == key && c.takes[r.txn] && len(r.list) > at && len(r.list) < len(values) && isPrefix(r.list, values) {
			reader, values = r.txn, r.list
		}
	}
	return reader, values
}

func (c *checker) incompatible(key int32, values []int64, reader int32) {
	l := &c.lists[key]
	c.add(IncompatibleOrder, func() Anomaly {
		at := 0
		for at < len(values) && at < len(l.longest) && values[at] == l.longest[at] {
			at++
		}
		return Anomaly{Key: l.name, Txns: c.ids(reader, l.by), Text: fmt.Sprintf("two reads of %s differ at place %d, and neither is the beginning of the other:\n  %s\n  %s",
			l.name, at, c.reading(key, values, reader), c.reading(key, l.longest, l.by))}
	})
}

// lost reports appends that a list read later should have and does not have.
func (c *checker) lost() {
	latest := make([]int32, len(c.lists))
	for key := range latest {
		latest[key] = none
	}
	if c.opts.Realtime {
		for i := range c.reads {
			r := &c.reads[i]
			if l := latest[r.key]; c.takes[r.txn] && !r.broken && (l == none || c.txn(r.txn).Began > c.txn(c.reads[l].txn).Began) {
				latest[r.key] = int32(i)
			}
		}
	}
	for key := range c.lists {
		l := &c.lists[key]
		prefix := isPrefix(l.final, l.longest)
		for _, index := range l.writes {
			w := &c.writes[index]
			switch txn := c.txn(w.txn); {
			case !c.takes[w.txn]:
			case l.hasFinal:
				kept := w.at != none && int(w.at) < len(l.final)
				if !prefix {
					kept = slices.Contains(l.final, w.value)
				}
				if !kept {
					c.addLost(w, l.final, final)
				}
			case w.seen || latest[key] == none || c.end(w.txn) == math.MaxInt64:
			// Where it was seen, a read without it makes a circle.
			case txn.Ended < c.txn(c.reads[latest[key]].txn).Began:
				c.addLost(w, c.reads[latest[key]].list, c.reads[latest[key]].txn)
			}
		}
	}
}

func (c *checker) addLost(w *write, values []int64, reader int32) {
	w.missed = true
	c.add(LostAppend, func() Anomaly {
		name := c.lists[w.key].name
		did := "committed"
		if c.txn(w.txn).Outcome == Unknown {
			did = "had no answer but took effect, as reads show, and"
		}
		return Anomaly{Key: name, Txns: c.ids(w.txn, reader), Text: fmt.Sprintf("%s %s appended %d to %s, which is missing later: %s", c.name(w.txn), did, w.value, name, c.reading(w.key, values, reader))}
	})
}

// end is when a transaction has certainly ended; at no time that is known for one without an
// answer.
func (c *checker) end(txn int32) int64 {
	if c.txns[txn].Outcome != Committed {
		return math.MaxInt64
	}
	return c.txns[txn].Ended
}
