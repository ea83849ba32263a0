package history

import (
	"fmt"
	"slices"
)

// view is what a transaction knows of a key while its operations are gone through.
type view struct {
	// txn it is of; views of earlier ones are stale.
	txn int32
	// known: there was a read, whose list is list.
	known bool
	list  []int64
	// appended since that read, or since the beginning.
	appended []int64
}

// internal marks the reads that contradict their own transaction. It comes before anything is
// concluded from reads; only later is it known which of them count.
func (c *checker) internal() {
	views := make([]view, len(c.lists))
	for key := range views {
		views[key].txn = final
	}
	for i := range c.txns {
		next := c.firstRead[i]
		for o, op := range c.txns[i].Ops {
			v := &views[c.opKeys[int(c.firstOp[i])+o]]
			if v.txn != int32(i) {
				*v = view{txn: int32(i), appended: v.appended[:0]}
			}
			if op.Append {
				v.appended = append(v.appended, op.Value)
				continue
			}
			if next == c.firstRead[i+1] || c.reads[next].op != int32(o) {
				continue
			}
			r := &c.reads[next]
			next++
			before := len(r.list) - len(v.appended)
			r.broken = before < 0 || !slices.Equal(r.list[before:], v.appended) ||
				v.known && !slices.Equal(r.list[:before], v.list)
			if !r.broken {
				v.known, v.list, v.appended = true, r.list, v.appended[:0]
			}
		}
	}
}

func (c *checker) reportInternal() {
	for i := range c.reads {
		r := &c.reads[i]
		if !r.broken || !c.takes[r.txn] {
			continue
		}
		c.add(Internal, func() Anomaly {
			name := c.lists[r.key].name
			return Anomaly{Key: name, Txns: c.ids(r.txn), Text: fmt.Sprintf("%s, operation %d, contradicts what it read and appended before:\n  %s",
				c.reading(r.key, r.list, r.txn), r.op, c.describe(r.txn, name))}
		})
	}
}

// ownOrder reports transactions that read what they appended only later, and those whose
// appends are in the list in another order.
func (c *checker) ownOrder() {
	type places struct {
		txn int32
		// length of the longest list read so far, and place of the last append.
		length, last int32
	}
	seen := make([]places, len(c.lists))
	for key := range seen {
		seen[key].txn = final
	}
	for i := range c.txns {
		if !c.takes[i] {
			continue
		}
		next := c.firstRead[i]
		for o, op := range c.txns[i].Ops {
			key := c.opKeys[int(c.firstOp[i])+o]
			p := &seen[key]
			if p.txn != int32(i) {
				*p = places{txn: int32(i), last: none}
			}
			if !op.Append {
				if next < c.firstRead[i+1] && c.reads[next].op == int32(o) {
					if r := &c.reads[next]; r.prefix && !r.broken {
						p.length = max(p.length, int32(len(r.list)))
					}
					next++
				}
				continue
			}
			w := &c.writes[c.wrote[cell{key, op.Value}]]
			if w.at == none || w.txn != int32(i) {
				continue
			}
			if w.at < p.length {
				c.addOwn(w, "read %d in %s before it appended it")
			}
			if w.at < p.last {
				c.addOwn(w, "appended %d to %s after other values, but the list has it before them")
			}
			p.last = max(p.last, w.at)
		}
	}
}

func (c *checker) addOwn(w *write, format string) {
	c.add(Internal, func() Anomaly {
		l := &c.lists[w.key]
		return Anomaly{Key: l.name, Txns: c.ids(w.txn), Text: fmt.Sprintf("%s "+format+":\n  %s\n  %s",
			c.name(w.txn), w.value, l.name, c.describe(w.txn, l.name), c.reading(w.key, l.longest, l.by))}
	})
}

// readsOfOthers reports reads that end between two appends of another transaction.
func (c *checker) readsOfOthers() {
	for i := range c.reads {
		r := &c.reads[i]
		if r.broken || !c.takes[r.txn] {
			continue
		}
		w := c.lastOfOthers(r)
		if w == nil || w.last {
			continue
		}
		c.add(G1b, func() Anomaly {
			name := c.lists[r.key].name
			return Anomaly{Key: name, Txns: c.ids(w.txn, r.txn), Text: fmt.Sprintf("%s ends with %d, between two appends of %s:\n  %s",
				c.reading(r.key, r.list, r.txn), w.value, c.name(w.txn), c.describe(w.txn, name))}
		})
	}
}

// lastOfOthers is the last append in the read that takes part and is not its transaction's
// own; nil if there is none.
func (c *checker) lastOfOthers(r *read) *write {
	for at := len(r.list) - 1; at >= 0; at-- {
		var index int32
		if r.prefix {
			if index = c.lists[r.key].order[at]; index == none {
				continue
			}
		} else {
			var known bool
			if index, known = c.wrote[cell{r.key, r.list[at]}]; !known || !c.takes[c.writes[index].txn] {
				continue
			}
		}
		if w := &c.writes[index]; w.txn != r.txn {
			return w
		}
	}
	return nil
}
