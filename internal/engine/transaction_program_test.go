package engine

import (
	"cmp"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/cespare/xxhash/v2"

	"github.com/perdure/perdure/internal/history"
	"github.com/perdure/perdure/internal/invocation"
	recordv1 "github.com/perdure/perdure/internal/record/v1"
)

// node is a handler of a transaction or of a DURABLE invocation: what it does, and the handlers
// it calls. Its name is the input of its invocation.
type node struct {
	name  string
	key   string // "o0" and so on; "" for a handler without one
	mode  invocation.Mode
	ops   []nodeOp
	fails bool // after all that
	task  *task
}

type nodeOp struct {
	kind  opKind
	value int64
	row   bool // an append writes a row of a table too
	child *node
	// other is what an attempt may call instead: what a handler does may depend on what it has read,
	// or on anything else, and it may run several times.
	other *node
	catch bool // the handler goes on if the child fails
	task  *task
}

type opKind byte

const (
	opAppend opKind = 'a'
	opRead   opKind = 'r'
	opCall   opKind = 'c' // and wait for it
	opAsync  opKind = 'y'
	opWait   opKind = 'w' // for all asynchronous ones
	opSend   opKind = 's'
	opSleep  opKind = 'z'
)

// task is a root: what a client, a committed handler or a DURABLE handler asks for.
type task struct {
	node      *node
	id        invocation.ID
	idem      string
	retention int64
	client    bool
	oneWay    bool
	sender    *task // whose commit sends it
	caller    *task // the DURABLE handler that calls it

	asked, accepted bool
	token           Token
	ended           bool
	outcome         history.Outcome
	ops             []history.Op
	began, endedAt  int64
	refused         string // with what error it failed
	meddled         bool   // cancelled, killed, or one of its handlers timed out
	fickle          bool   // some of its handlers do not the same in each attempt
}

// durableOp is an append of a DURABLE handler, which is a transaction of its own.
type durableOp struct {
	key          string
	value        int64
	read         []int64
	began, ended int64
}

// durableRead is a READ handler that a client called.
type durableRead struct {
	key   string
	began int64
}

func (w *bank) object(i int) string { return "o" + strconv.Itoa(i) }

// drawTask makes a task; those that a DURABLE handler of object i waits for write only objects
// above i: users' handlers that wait for each other in a circle are users' deadlocks.
func (w *bank) drawTask(above int, depth int) *task {
	t := &task{}
	t.node = w.drawNode(t, above, depth, invocation.ModeTransaction)
	w.addTask(t)
	return t
}

func (w *bank) drawDurable() *task {
	t := &task{oneWay: w.chance(50)}
	i := w.rng.Intn(w.odds.objects)
	n := &node{name: fmt.Sprintf("d%d", len(w.nodes)), key: w.object(i), mode: invocation.ModeDurable, task: t}
	w.nodes[n.name] = n
	t.node = n
	for range 1 + w.rng.Intn(4) {
		switch w.rng.Intn(6) {
		case 0, 1:
			w.values++
			n.ops = append(n.ops, nodeOp{kind: opAppend, value: w.values, row: w.chance(30)})
		case 2, 3:
			child := w.drawTask(i+1, 2)
			child.caller = t
			kind := opCall
			if w.chance(30) {
				kind = opAsync
			}
			n.ops = append(n.ops, nodeOp{kind: kind, task: child})
		case 4:
			n.ops = append(n.ops, nodeOp{kind: opSleep})
		case 5:
			n.ops = append(n.ops, nodeOp{kind: opWait})
		}
	}
	w.addTask(t)
	return t
}

func (w *bank) addTask(t *task) {
	target := invocation.Target{Service: "List", Key: t.node.key, Handler: "H"}
	hash := target.Hash()
	if target.Key == "" {
		hash = xxhash.Sum64String(t.node.name)
	}
	var unique [16]byte
	copy(unique[:], t.node.name)
	t.id = invocation.NewID(hash, unique)
	if w.chance(40) {
		t.idem, t.retention = t.node.name, 1_000_000
	}
	w.byID[t.id] = t
	w.tasks = append(w.tasks, t)
}

// drawNode draws a handler and all that it calls. above is the first object it may write.
func (w *bank) drawNode(t *task, above, depth int, mode invocation.Mode) *node {
	n := &node{name: fmt.Sprintf("n%d", len(w.nodes)), mode: mode, task: t, fails: w.chance(w.odds.fail)}
	w.nodes[n.name] = n
	if mode == invocation.ModeRead {
		n.key = w.object(w.rng.Intn(w.odds.objects))
	} else if above < w.odds.objects && (depth == 0 || !w.chance(w.odds.keyless)) {
		n.key = w.object(above + w.rng.Intn(w.odds.objects-above))
	}
	calls := 0
	if depth > 0 {
		calls = w.rng.Intn(4)
	}
	if n.key != "" {
		for range w.rng.Intn(3) {
			if mode == invocation.ModeRead || w.chance(40) {
				n.ops = append(n.ops, nodeOp{kind: opRead})
				continue
			}
			w.values++
			n.ops = append(n.ops, nodeOp{kind: opAppend, value: w.values, row: w.chance(20)})
		}
	} else if depth > 0 {
		calls++
	}
	for range calls {
		o := nodeOp{kind: opCall, catch: w.chance(50)}
		left := depth - 1
		if w.chance(w.odds.async) {
			o.kind = opAsync
			if !w.odds.tangled { // Siblings that call others could wait for each other.
				left = -1
			}
		}
		childMode := invocation.ModeTransaction
		if mode == invocation.ModeRead || w.chance(w.odds.read) {
			childMode = invocation.ModeRead
		}
		if left < 0 && childMode == invocation.ModeTransaction && above >= w.odds.objects {
			childMode = invocation.ModeRead // else it would call on and on
		}
		o.child = w.drawNode(t, above, max(left, 0), childMode)
		if w.chance(w.odds.fickle) {
			o.other, t.fickle = w.drawNode(t, above, max(left, 0), childMode), true
		}
		at := w.rng.Intn(len(n.ops) + 1)
		n.ops = slices.Insert(n.ops, at, o)
	}
	if calls > 1 && w.chance(30) {
		n.ops = slices.Insert(n.ops, w.rng.Intn(len(n.ops)+1), nodeOp{kind: opWait})
	}
	if mode == invocation.ModeTransaction && len(w.tasks) < 25 && w.chance(8) {
		sent := w.drawTask(0, 1)
		sent.sender = t
		n.ops = append(n.ops, nodeOp{kind: opSend, task: sent})
	}
	return n
}

// expect says whether a handler succeeds if nothing but its own program makes it fail, and
// which appends then take effect. It does not know of a task that is fickle.
func (n *node) expect(held, outer []string) (ok bool, appends []history.Op, sends []*task) {
	if n.key != "" {
		held = append(slices.Clone(held), n.key)
	}
	for i := range n.ops {
		o := &n.ops[i]
		switch o.kind {
		case opAppend:
			appends = append(appends, history.Append(n.key, o.value))
		case opSend:
			sends = append(sends, o.task)
		case opCall, opAsync:
			refused := slices.Contains(held, o.child.key) || o.child.mode != invocation.ModeRead && slices.Contains(outer, o.child.key)
			succeeds := false
			var more []history.Op
			var moreSends []*task
			if !refused || o.child.key == "" {
				succeeds, more, moreSends = o.child.expect(held, outer)
			}
			if succeeds {
				appends, sends = append(appends, more...), append(sends, moreSends...)
			} else if !o.catch {
				return false, nil, nil
			}
		}
	}
	if n.fails {
		return false, nil, nil
	}
	return true, appends, sends
}

func (t *task) expect() (ok bool, appends []history.Op, sends []*task) {
	var outer []string
	if t.caller != nil {
		outer = append(outer, t.caller.node.key)
	}
	return t.node.expect(nil, outer)
}

func (n *node) target() *recordv1.Target {
	return &recordv1.Target{Service: "List", Key: n.key, Handler: n.name}
}

func (t *task) invoke() *recordv1.Invoke {
	return &recordv1.Invoke{
		InvocationId: slices.Clone(t.id[:]), Target: t.node.target(), Mode: uint32(t.node.mode), Input: []byte(t.node.name),
		IdempotencyKey: t.idem, RetentionMs: t.retention,
	}
}

// logged is an operation with its place in the order in which all happened.
type logged struct {
	stamp int64
	op    history.Op
}

func formatLog(log []logged) string {
	var out strings.Builder
	for _, l := range log {
		kind, values := "r", l.op.Read
		if l.op.Append {
			kind, values = "a", []int64{l.op.Value}
		}
		fmt.Fprintf(&out, "%d,%s,%s,%s;", l.stamp, kind, l.op.Key, formatList(values))
	}
	return out.String()
}

// parseLog reads what a handler says, after its name.
func parseLog(text string) (log []logged) {
	_, text, _ = strings.Cut(text, ":")
	for part := range strings.SplitSeq(text, ";") {
		if part == "" {
			continue
		}
		fields := strings.SplitN(part, ",", 4)
		stamp, _ := strconv.ParseInt(fields[0], 10, 64)
		list := parseList(fields[3])
		if fields[1] == "a" {
			log = append(log, logged{stamp, history.Append(fields[2], list[0])})
		} else {
			log = append(log, logged{stamp, history.Read(fields[2], list)})
		}
	}
	return log
}

// readsOf is what a handler that failed has seen of others: without what it or its callees
// wrote themselves.
func (n *node) readsOf(log []logged) (reads []logged) {
	own := map[int64]bool{}
	for _, o := range n.appends() {
		own[o.Value] = true
	}
	for _, l := range log {
		if !l.op.Append {
			kept := slices.DeleteFunc(slices.Clone(l.op.Read), func(v int64) bool { return own[v] })
			reads = append(reads, logged{l.stamp, history.Read(l.op.Key, kept)})
		}
	}
	return reads
}

func opsOf(log []logged) (ops []history.Op) {
	slices.SortStableFunc(log, func(a, b logged) int { return cmp.Compare(a.stamp, b.stamp) })
	for _, l := range log {
		ops = append(ops, l.op)
	}
	return ops
}

func formatList(list []int64) string {
	var words []string
	for _, v := range list {
		words = append(words, strconv.FormatInt(v, 10))
	}
	return strings.Join(words, " ")
}

func parseList(text string) (list []int64) {
	for word := range strings.FieldsSeq(text) {
		v, _ := strconv.ParseInt(word, 10, 64)
		list = append(list, v)
	}
	return list
}
