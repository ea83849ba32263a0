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
// which appends then take effect.
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

func parseLog(text string) (log []logged) {
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

// handler is an attempt at work.
type handler struct {
	part    *part
	id      invocation.ID
	number  uint32
	node    *node
	row     *recordv1.Invocation
	list    []int64
	entries []*recordv1.Entry
	dirty   bool
	step    int
	calls   map[uint32]*nodeOp // not answered
	index   uint32
	waiting uint32
	failed  string
	hasFail bool
	ended   bool // and waits for its transaction
	log     []logged

	done map[uint32]bool // of a DURABLE handler
}

const failed = "fail|"

func (p *part) startHandler(e *StartAttempt) {
	w := p.world
	n := w.nodes[string(e.Input)]
	if p.attempts[e.ID] != nil || n == nil {
		w.fail("partition %d: %s with the input %q is started, running: %v", p.id, e.ID, e.Input, p.attempts[e.ID] != nil)
	}
	h := &handler{
		part: p, id: e.ID, number: e.Row.Attempt, node: n, row: e.Row, list: parseList(string(e.State)),
		calls: map[uint32]*nodeOp{}, done: map[uint32]bool{},
	}
	if n.mode == invocation.ModeDurable {
		h.step, h.index = len(e.Journal), uint32(len(e.Journal))
		for index, c := range e.Completions {
			h.complete(index, c.Result)
		}
	}
	p.attempts[e.ID] = h
}

func (h *handler) complete(index uint32, result *recordv1.Result) {
	h.done[index] = true
	if o := &h.node.ops[index-1]; o.task != nil {
		// The handler goes on at once, but a crash may take back what it has heard.
		h.part.grant(func() { h.part.world.answered(o.task, result) })
	}
}

// notify takes the result of a call.
func (h *handler) notify(c *recordv1.Completion) {
	if h.node.mode == invocation.ModeDurable {
		h.complete(c.Entry, c.Result)
		return
	}
	o := h.calls[c.Entry]
	if o == nil {
		h.part.world.fail("%s hears twice of call %d", h.node.name, c.Entry)
	}
	delete(h.calls, c.Entry)
	if c.Result.GetError() == nil {
		h.log = append(h.log, parseLog(string(c.Result.Value))...)
		return
	}
	text, ours := strings.CutPrefix(c.Result.Error.Message, failed)
	if ours {
		h.log = append(h.log, o.child.readsOf(parseLog(text))...)
	}
	if !o.catch && !h.hasFail {
		h.hasFail = true
		if !ours {
			h.failed = c.Result.Error.Message
		}
	}
}

// advance does the next thing. waiting: there is none before a call is answered.
func (h *handler) advance() (waiting bool) {
	if h.node.mode == invocation.ModeDurable {
		return h.advanceDurable()
	}
	w := h.part.world
	if h.ended {
		return true
	}
	if !h.hasFail {
		if h.waiting != 0 && h.calls[h.waiting] != nil {
			return true
		}
		for h.step < len(h.node.ops) {
			o := &h.node.ops[h.step]
			if o.kind == opWait && len(h.calls) > 0 {
				return true
			}
			h.step++
			switch o.kind {
			case opAppend:
				h.list = append(h.list, o.value)
				h.dirty = true
				h.log = append(h.log, logged{w.tick(), history.Append(h.node.key, o.value)})
				if o.row {
					h.entries = append(h.entries, rowEntry(o.value))
				}
			case opRead:
				h.log = append(h.log, logged{w.tick(), history.Read(h.node.key, slices.Clone(h.list))})
			case opSend:
				o.task.began = h.node.task.began
				h.entries = append(h.entries, &recordv1.Entry{Entry: &recordv1.Entry_Send{Send: &recordv1.Send{Invoke: o.task.invoke()}}})
			case opCall, opAsync:
				h.index++
				h.calls[h.index] = o
				if o.kind == opCall {
					h.waiting = h.index
				}
				h.part.evaluate(&Call{ID: h.id, Attempt: h.number, Index: h.index, Invoke: &recordv1.Invoke{
					Target: o.child.target(), Mode: uint32(o.child.mode), Input: []byte(o.child.name),
				}})
				return false
			}
		}
	}
	if len(h.calls) > 0 {
		return true
	}
	h.finish()
	return false
}

func (h *handler) finish() {
	result := &recordv1.Result{Value: []byte(formatLog(h.log))}
	if h.hasFail || h.node.fails {
		result = &recordv1.Result{Error: &recordv1.Error{Code: 9, Message: failed + formatLog(h.log)}}
	}
	if h.dirty {
		h.entries = append(h.entries, stateEntry(h.list))
	}
	h.ended = true
	h.part.evaluate(&Finish{ID: h.id, Attempt: h.number, Result: result, Entries: h.entries})
}

func stateEntry(list []int64) *recordv1.Entry {
	return &recordv1.Entry{Entry: &recordv1.Entry_SetState{SetState: &recordv1.SetState{Value: []byte(formatList(list))}}}
}

func rowEntry(value int64) *recordv1.Entry {
	return &recordv1.Entry{Entry: &recordv1.Entry_TablePut{TablePut: &recordv1.TablePut{
		Table: "t", Key: strconv.FormatInt(value, 10), Value: []byte("row"),
	}}}
}

// advanceDurable: each operation is an entry of the journal, but for opWait, which is one too so
// that entries and operations are in step.
func (h *handler) advanceDurable() (waiting bool) {
	w := h.part.world
	if len(h.blockedBy()) > 0 {
		return true
	}
	if h.step == len(h.node.ops) {
		h.part.evaluate(&Finish{ID: h.id, Attempt: h.number, Result: &recordv1.Result{Value: []byte("done")}})
		return false
	}
	o := &h.node.ops[h.step]
	h.step++
	h.index++
	entry := &recordv1.Entry{At: w.now}
	var after func()
	switch o.kind {
	case opAppend:
		step := &durableOp{key: h.node.key, value: o.value, read: slices.Clone(h.list), began: w.tick()}
		h.list = append(h.list, o.value)
		w.steps[o.value] = step
		entry = stateEntry(h.list)
		after = func() { step.ended = w.tick() }
	case opCall, opAsync:
		in := o.task.invoke()
		in.Caller = &recordv1.Caller{InvocationId: slices.Clone(h.id[:]), Entry: h.index}
		in.Chain = []*recordv1.Target{h.node.target()}
		if !o.task.asked {
			o.task.asked, o.task.began = true, w.tick()
		}
		entry.Entry = &recordv1.Entry_Call{Call: &recordv1.Call{Invoke: in}}
	case opSleep:
		entry.Entry = &recordv1.Entry_Sleep{Sleep: &recordv1.Sleep{Until: w.now + int64(w.rng.Intn(500))}}
	case opWait:
		entry.Entry = &recordv1.Entry_Wait{Wait: &recordv1.Wait{}}
	}
	h.part.evaluate(&Append{ID: h.id, Attempt: h.number, Index: h.index, Entry: entry})
	if after != nil {
		h.part.grant(after)
	}
	return false
}

// blockedBy are the entries that a DURABLE handler must see completed before it goes on.
func (h *handler) blockedBy() (open []uint32) {
	all := h.step == len(h.node.ops) || h.step > 0 && h.node.ops[h.step-1].kind == opWait
	for i := range h.step {
		o := &h.node.ops[i]
		if (o.kind == opSleep || o.kind == opCall || o.kind == opAsync && all) && !h.done[uint32(i+1)] {
			open = append(open, uint32(i+1))
		}
	}
	return open
}

// suspend unwinds a DURABLE handler that waits.
func (h *handler) suspend() {
	if h.node.mode != invocation.ModeDurable {
		return
	}
	if open := h.blockedBy(); len(open) > 0 {
		h.part.evaluate(&Suspend{ID: h.id, Attempt: h.number, WaitingFor: open})
	}
}
