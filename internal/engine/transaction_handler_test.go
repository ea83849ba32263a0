package engine

import (
	"slices"
	"strconv"
	"strings"

	"github.com/perdure/perdure/internal/history"
	"github.com/perdure/perdure/internal/invocation"
	recordv1 "github.com/perdure/perdure/internal/record/v1"
)

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
	fickle  bool // this attempt makes the other calls
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
		fickle: n.task.fickle && w.chance(50),
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
	said := strings.TrimPrefix(c.Result.GetError().GetMessage(), failed)
	if c.Result.GetError() == nil {
		said = string(c.Result.Value)
	}
	if by, _, ok := strings.Cut(said, ":"); ok && strings.HasPrefix(by, "n") && by != o.child.name && h.part.world.nodes[by] != nil {
		h.part.world.fail("%s calls %s and hears what %s says", h.node.name, o.child.name, by)
	}
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
				if o.other != nil && h.fickle {
					o = &nodeOp{kind: o.kind, child: o.other, catch: o.catch}
				}
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
	result := &recordv1.Result{Value: []byte(h.node.name + ":" + formatLog(h.log))}
	if h.hasFail || h.node.fails {
		result = &recordv1.Result{Error: &recordv1.Error{Code: 9, Message: failed + h.node.name + ":" + formatLog(h.log)}}
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
