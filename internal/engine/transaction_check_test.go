package engine

import (
	"cmp"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/perdure/perdure/internal/history"
	"github.com/perdure/perdure/internal/invocation"
	"github.com/perdure/perdure/internal/table"
)

// checkEnd compares, at rest, what callers were told with what is there.
func (w *bank) checkEnd() {
	final, times, place := map[string][]int64{}, map[int64]int{}, map[int64]int{}
	for i := range w.odds.objects {
		key := w.object(i)
		final[key] = w.list(w.partOfKey(key).view, key)
		for i, v := range final[key] {
			times[v]++
			place[v] = i
		}
	}
	for _, p := range w.parts {
		p.checkRest()
	}
	var txns []history.Txn
	for _, t := range w.tasks {
		if t.node.mode == invocation.ModeDurable {
			if t.accepted {
				for _, o := range t.node.ops {
					if o.kind == opAppend && times[o.value] != 1 {
						w.fail("%s was accepted, and its append of %d was made %d times", t.node.name, o.value, times[o.value])
					}
				}
			}
			continue
		}
		if txn, ok := w.checkTask(t, times, place); ok {
			txns = append(txns, txn)
		}
	}
	for _, value := range slices.Sorted(maps.Keys(w.steps)) {
		o := w.steps[value]
		txn := history.Txn{Ops: []history.Op{history.Read(o.key, o.read), history.Append(o.key, o.value)}, Began: o.began, Ended: o.ended}
		if o.ended == 0 {
			txn.Outcome = history.Unknown
		}
		txns = append(txns, txn)
	}
	txns = append(txns, w.txns...)
	for i := range txns {
		txns[i].ID = i + 1
		w.say("history %+v", txns[i])
	}
	if found := history.Check(txns, history.Options{Realtime: true, Final: final}); len(found) > 0 {
		w.fail("%s", history.Format(found))
	}
}

// checkTask compares one root's outcome with the final lists.
func (w *bank) checkTask(t *task, times, place map[int64]int) (history.Txn, bool) {
	succeeds, appends, sends := t.expect()
	all := t.node.appends()
	n := 0
	for _, o := range appends {
		n += times[o.Value]
	}
	total := 0
	for _, o := range all {
		total += times[o.Value]
		if times[o.Value] > 1 {
			w.fail("%s: the append of %d was made %d times", t.node.name, o.Value, times[o.Value])
		}
	}
	happened := total > 0
	outcome := t.outcome
	if !t.ended {
		outcome = history.Unknown
		if t.client && t.asked && t.idem != "" || t.caller != nil && t.caller.accepted && w.partOf(t.caller.id).epoch == 1 {
			w.fail("%s was never answered", t.node.name)
		}
	}
	meddled := t.meddled || w.odds.tangled || t.fickle
	if meddled && outcome == history.Unknown { // What was cut off shows in what is left of it.
		appends = slices.DeleteFunc(slices.Clone(all), func(o history.Op) bool { return times[o.Value] == 0 })
	}
	ops := t.ops
	switch {
	case outcome == history.Aborted && total > 0:
		w.fail("%s was answered with %q and took effect", t.node.name, t.refused)
	case outcome == history.Aborted:
		torn := strings.Contains(t.refused, "a call has seen what another call") && t.node.concurrent()
		if succeeds && !meddled && !torn && w.now < 25_000 {
			w.fail("%s failed, which nothing in it does: %s", t.node.name, t.refused)
		}
		ops = all
	case outcome == history.Committed && t.fickle && total != countAppends(ops, times):
		w.fail("%s committed and says %v, and %d of its appends took effect: %v", t.node.name, ops, total, all)
	case outcome == history.Committed && !meddled && (!succeeds || n != len(appends) || total != n):
		w.fail("%s committed, should be %v, with %d of %d appends", t.node.name, succeeds, n, len(appends))
	case outcome == history.Unknown && !meddled && total != 0 && (!succeeds || n != len(appends) || total != n):
		w.fail("%s happened in part: %d of %d appends, succeeds=%v", t.node.name, n, len(appends), succeeds)
	case outcome == history.Unknown:
		ops = slices.Clone(appends)
		slices.SortStableFunc(ops, func(a, b history.Op) int { return cmp.Compare(place[a.Value], place[b.Value]) })
		if t.oneWay && t.accepted && succeeds && !meddled && n != len(appends) && w.now < 25_000 {
			w.fail("%s was accepted and never happened", t.node.name)
		}
	}
	if outcome == history.Committed {
		happened = true
	}
	if t.sender != nil && total > 0 {
		_, sent, sends := t.sender.expect()
		if t.sender.outcome == history.Aborted && t.sender.ended || !t.sender.meddled && !t.sender.fickle && !slices.Contains(sends, t) {
			w.fail("%s was sent by %s, which did not commit", t.node.name, t.sender.node.name)
		}
		for _, o := range sent {
			if times[o.Value] == 0 && !t.sender.meddled && !t.sender.fickle {
				w.fail("%s was sent by %s, whose append of %d is missing", t.node.name, t.sender.node.name, o.Value)
			}
		}
	}
	if happened && !meddled {
		for _, s := range sends {
			ok, all, _ := s.expect()
			for _, o := range all {
				if ok && times[o.Value] != 1 && !s.meddled && !s.fickle && w.now < 25_000 {
					w.fail("%s committed, and %s, which it sent, did not happen", t.node.name, s.node.name)
				}
			}
		}
	}
	w.checkRows(t.node, times)
	if !t.asked && t.sender == nil {
		return history.Txn{}, false
	}
	return history.Txn{Ops: ops, Outcome: outcome, Began: t.began, Ended: t.endedAt}, true
}

// appends are all that a handler and its callees may append.
func (n *node) appends() (all []history.Op) {
	for _, o := range n.ops {
		if o.kind == opAppend {
			all = append(all, history.Append(n.key, o.value))
		}
		for _, called := range o.called() {
			all = append(all, called.appends()...)
		}
	}
	return all
}

// called are the handlers that an operation may call.
func (o *nodeOp) called() (all []*node) {
	for _, n := range []*node{o.child, o.other} {
		if n != nil {
			all = append(all, n)
		}
	}
	return all
}

// countAppends is how many of a transaction's appends took effect, or -1 if not all did.
func countAppends(ops []history.Op, times map[int64]int) (n int) {
	for _, o := range ops {
		if o.Append {
			if times[o.Value] != 1 {
				return -1
			}
			n++
		}
	}
	return n
}

// concurrent: some of the handlers run at one time.
func (n *node) concurrent() bool {
	return slices.ContainsFunc(n.ops, func(o nodeOp) bool { return o.kind == opAsync || slices.ContainsFunc(o.called(), (*node).concurrent) })
}

// checkRows: rows of tables are written together with the state.
func (w *bank) checkRows(n *node, times map[int64]int) {
	for _, o := range n.ops {
		for _, called := range o.called() {
			w.checkRows(called, times)
		}
		if o.kind != opAppend || !o.row {
			continue
		}
		object := invocation.Object{Service: "List", Key: n.key}
		_, has := w.partOfKey(n.key).view.rows.Get(string(table.Row(object, "t", strconv.FormatInt(o.value, 10))))
		if has != (times[o.value] == 1) {
			w.fail("%s: the row of %d is there: %v, in the list: %v", n.name, o.value, has, !has)
		}
	}
}

// checkRest: nothing is left of transactions that have ended.
func (p *part) checkRest() {
	w, e := p.world, p.engine
	live, held := e.Live()
	if live != 0 || held != 0 || e.Queued() != 0 || len(e.roots) != 0 || len(e.branches) != 0 || len(e.decisions) != 0 || len(e.waiters) != 0 || len(p.attempts) != 0 {
		w.fail("at rest, partition %d has %d waiters: %s", p.id, len(e.waiters), w.describe())
	}
	for object, n := range p.hidden {
		if n != 0 {
			w.fail("at rest, partition %d hides %s", p.id, object)
		}
	}
	p.view.rows.Scan(func(key string, _ []byte) bool {
		// State, rows and their counters, sequences, results that are kept, and their timers.
		if d := table.Describe([]byte(key)); !strings.ContainsRune("smdtniwjc", rune(key[0])) {
			w.fail("at rest, partition %d has a row %s", p.id, d)
		}
		return true
	})
}
