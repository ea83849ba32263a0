package engine

import (
	"bytes"
	"fmt"
	"maps"
	"math/rand"
	"slices"
	"strings"

	"google.golang.org/protobuf/proto"

	"github.com/perdure/perdure/internal/history"
	"github.com/perdure/perdure/internal/invocation"
	recordv1 "github.com/perdure/perdure/internal/record/v1"
	"github.com/perdure/perdure/internal/table"
)

// bank is a world of transactions: partitions, each a real engine and around it what
// internal/partition does; handlers that are small programs; messages that are lost, doubled
// and overtaken; and what callers saw.
type bank struct {
	rng   *rand.Rand
	odds  odds
	now   int64 // milliseconds
	clock int64 // for the history: it grows with every event
	parts []*part
	mail  []letter
	trace []string
	loud  bool // keep a trace

	nodes   map[string]*node
	tasks   []*task
	byToken map[Token]*task
	byID    map[invocation.ID]*task
	values  int64
	token   Token
	txns    []history.Txn        // reads and refusals, which are transactions of their own
	steps   map[int64]*durableOp // by appended value
	wanted  []*durableRead       // READ handlers that wait for their object to be shown
	healing bool
}

// violation is what a world panics with.
type violation string

func (w *bank) fail(format string, args ...any) { panic(violation(fmt.Sprintf(format, args...))) }

func (w *bank) say(format string, args ...any) {
	if w.loud {
		w.trace = append(w.trace, fmt.Sprintf("%6d ", w.now)+fmt.Sprintf(format, args...))
	}
}

// letter is an event on its way to a partition.
type letter struct {
	to    uint32
	event Event
}

// part is a partition: its leader, and what outlives it.
type part struct {
	world    *bank
	id       uint32
	epoch    uint64
	engine   *Engine
	view     *rowMap
	durable  *rowMap
	pending  []*bankRecord
	attempts map[invocation.ID]*handler
	hidden   map[invocation.Object]int
}

// bankRecord is an entry of the log that is not durable yet, and what waits for it.
type bankRecord struct {
	mutations []Mutation
	gated     []func()
}

func newBank(seed int64, loud bool) *bank {
	w := &bank{
		rng: rand.New(rand.NewSource(seed)), now: 1000, loud: loud, nodes: map[string]*node{},
		byToken: map[Token]*task{}, byID: map[invocation.ID]*task{}, steps: map[int64]*durableOp{},
	}
	w.odds = drawOdds(w.rng)
	for id := range w.odds.partitions {
		p := &part{world: w, id: uint32(id + 1), view: &rowMap{}, durable: &rowMap{}}
		w.parts = append(w.parts, p)
		p.lead()
	}
	return w
}

func (w *bank) chance(percent int) bool { return w.rng.Intn(100) < percent }

func (w *bank) tick() int64 { w.clock++; return w.clock }

func (w *bank) partitions() uint32 { return uint32(w.odds.partitions) }

func (w *bank) partOf(id invocation.ID) *part { return w.parts[id.Partition(w.partitions())-1] }

func (w *bank) partOfKey(key string) *part {
	return w.parts[invocation.PartitionOf(invocation.Target{Service: "List", Key: key}.Hash(), w.partitions())-1]
}

// lead starts the next leadership from what is durable.
func (p *part) lead() {
	w := p.world
	p.epoch++
	p.view = &rowMap{rows: *p.durable.rows.Copy()}
	p.pending, p.attempts, p.hidden = nil, map[invocation.ID]*handler{}, map[invocation.Object]int{}
	p.engine = New(Config{Partition: p.id, Partitions: w.partitions(), Patience: w.odds.patience, HandOn: always}, p.view, p.epoch)
	out, err := p.engine.Recover(w.now)
	if err != nil {
		w.fail("partition %d: recover: %v", p.id, err)
	}
	for _, damaged := range out.Damaged {
		w.fail("partition %d: recover: %v", p.id, damaged)
	}
	p.take(out)
	p.check()
}

// crash loses what is not durable, but for a first part of it that may just have become so.
// Whoever waits for an answer gets none.
func (p *part) crash() {
	w := p.world
	kept := w.rng.Intn(len(p.pending) + 1)
	w.say("crash of partition %d: %d of %d records survive", p.id, kept, len(p.pending))
	for _, record := range p.pending[:kept] {
		p.durable.apply(record.mutations)
	}
	p.lead()
	for _, t := range w.tasks {
		if t.client && t.asked && !t.ended && w.partOf(t.id) == p {
			delete(w.byToken, t.token)
			t.token = 0
			if t.idem == "" {
				w.end(t, history.Unknown, nil)
			}
		}
	}
}

func (p *part) evaluate(event Event) {
	w := p.world
	w.tick()
	if w.loud {
		w.say("%d: %s", p.id, describeEvent(event))
	}
	out, err := p.engine.Evaluate(event, w.now)
	if err != nil {
		w.fail("partition %d: %s: %v", p.id, describeEvent(event), err)
	}
	p.take(out)
	p.check()
}

// take does what an event came to: attempts at once, the rest when it is durable.
func (p *part) take(out *Output) {
	if len(out.Mutations) > 0 {
		record := &bankRecord{}
		for _, m := range out.Mutations {
			m.Key, m.Value = bytes.Clone(m.Key), bytes.Clone(m.Value)
			record.mutations = append(record.mutations, m)
			p.world.say("%d:     row %s deleted=%v", p.id, table.Describe(m.Key), m.Delete)
		}
		p.view.apply(record.mutations)
		p.pending = append(p.pending, record)
	}
	for _, effect := range out.Effects {
		if effect.Gated() {
			p.grant(func() { p.act(effect) })
			continue
		}
		p.act(effect)
	}
}

// grant calls fn when everything so far is durable.
func (p *part) grant(fn func()) {
	if n := len(p.pending); n > 0 {
		p.pending[n-1].gated = append(p.pending[n-1].gated, fn)
		return
	}
	fn()
}

// flush makes the oldest n records durable and opens the gate for them.
func (p *part) flush(n int) {
	for ; n > 0 && len(p.pending) > 0; n-- {
		record := p.pending[0]
		p.pending = p.pending[1:]
		p.durable.apply(record.mutations)
		for _, fn := range record.gated {
			fn()
		}
	}
}

func (p *part) act(effect Effect) {
	w := p.world
	w.say("%d:     %s", p.id, describeEffect(effect))
	switch e := effect.(type) {
	case *Reply:
		w.replied(e)
	case *StartAttempt:
		p.startHandler(e)
	case *Notify:
		h := p.attempts[e.ID]
		if h == nil {
			w.fail("partition %d: notify %s, which does not run", p.id, e.ID)
		}
		h.notify(e.Completion)
	case *AbortAttempt:
		delete(p.attempts, e.ID)
	case *EndAttempt:
		delete(p.attempts, e.ID)
	case *SendMessage:
		w.post(e.To, &Deliver{From: p.id, Sequence: e.Sequence, Message: proto.Clone(e.Message).(*recordv1.Message)})
	case *Ack:
		w.post(e.To, &Acked{By: p.id, Sequence: e.Sequence})
	case *Tell:
		if e.To == p.id || e.To < 1 || e.To > w.partitions() {
			w.fail("partition %d: tells partition %d", p.id, e.To)
		}
		w.post(e.To, &Told{Peer: proto.Clone(e.Peer).(*recordv1.Peer)})
	case *Hide:
		p.hidden[e.Object]++
	case *Show:
		p.hidden[e.Object]--
		if p.hidden[e.Object] < 0 {
			w.fail("partition %d: %s is shown and was not hidden", p.id, e.Object)
		}
	}
}

func (w *bank) post(to uint32, event Event) {
	if !w.healing && w.chance(w.odds.lose) {
		w.say("lost on its way to %d: %s", to, describeEvent(event))
		return
	}
	w.mail = append(w.mail, letter{to, event})
}

// carry takes a letter to its partition, now and then twice.
func (w *bank) carry(i int) {
	l := w.mail[i]
	w.mail = slices.Delete(w.mail, i, i+1)
	if !w.healing && w.chance(w.odds.double) {
		w.mail = append(w.mail, letter{l.to, cloneEvent(l.event)})
	}
	w.parts[l.to-1].evaluate(l.event)
}

func cloneEvent(event Event) Event {
	switch e := event.(type) {
	case *Told:
		return &Told{Peer: proto.Clone(e.Peer).(*recordv1.Peer)}
	case *Deliver:
		return &Deliver{From: e.From, Sequence: e.Sequence, Message: proto.Clone(e.Message).(*recordv1.Message)}
	}
	return event
}

// resend repeats what is in the durable outbox, in order.
func (p *part) resend() (any bool) {
	p.durable.rows.Ascend("o", func(key string, value []byte) bool {
		to, sequence, err := table.ParseOutbox([]byte(key))
		if err != nil || key[0] != 'o' {
			return false
		}
		m := &recordv1.Message{}
		if err := proto.Unmarshal(value, m); err != nil {
			p.world.fail("partition %d: outbox: %v", p.id, err)
		}
		any = true
		p.world.post(to, &Deliver{From: p.id, Sequence: sequence, Message: m})
		return true
	})
	return any
}

func (p *part) timers() []table.Timer {
	var timers []table.Timer
	p.view.rows.Ascend("w", func(key string, _ []byte) bool {
		timer, err := table.ParseTimer([]byte(key))
		if err == nil {
			timers = append(timers, timer)
		}
		return key[0] == 'w'
	})
	return timers
}

func (p *part) fireDue() (fired bool) {
	for _, timer := range p.timers() {
		if timer.At <= p.world.now {
			p.evaluate(&Fire{Timer: timer})
			fired = true
		}
	}
	return fired
}

func (p *part) sortedHandlers() []*handler {
	return slices.SortedFunc(maps.Values(p.attempts), func(a, b *handler) int { return bytes.Compare(a.id[:], b.id[:]) })
}

// check holds after every event: the engine and the handlers agree about what runs, and no two
// that may write share an object.
func (p *part) check() {
	w := p.world
	writer := map[string]*handler{}
	for id, h := range p.attempts {
		if l := p.engine.live[id]; l == nil || l.running == h.ended || l.row.Attempt != h.number {
			w.fail("partition %d: attempt %d of %s runs and the engine does not know", p.id, h.number, h.node.name)
		}
		if h.node.key == "" || h.node.mode == invocation.ModeRead {
			continue
		}
		if other := writer[h.node.key]; other != nil {
			w.fail("partition %d: %s and %s write %s together", p.id, h.node.name, other.node.name, h.node.key)
		}
		writer[h.node.key] = h
	}
	for id, l := range p.engine.live {
		if l.running && p.attempts[id] == nil {
			w.fail("partition %d: %s should run and no attempt was started", p.id, id)
		}
	}
}

// list reads an object's list from rows.
func (w *bank) list(rows *rowMap, key string) []int64 {
	value, _ := rows.rows.Get(string(table.State(invocation.Object{Service: "List", Key: key})))
	return parseList(string(value))
}

func describeEvent(event Event) string {
	switch e := event.(type) {
	case *Invoke:
		return fmt.Sprintf("invoke %s of %s", e.Invoke.Input, e.Invoke.Target.GetKey())
	case *Call:
		return fmt.Sprintf("call %s attempt %d index %d: %s of %s", e.ID, e.Attempt, e.Index, e.Invoke.Input, e.Invoke.Target.GetKey())
	case *Finish:
		return fmt.Sprintf("finish %s attempt %d: %s", e.ID, e.Attempt, resultText(e.Result))
	case *Told:
		return "told " + describePeer(e.Peer)
	case *Deliver:
		return fmt.Sprintf("deliver %d from %d: %s", e.Sequence, e.From, strings.TrimPrefix(fmt.Sprintf("%T", e.Message.Message), "*recordv1.Message_"))
	case *Acked:
		return fmt.Sprintf("acked %d by %d", e.Sequence, e.By)
	case *Cancel:
		return fmt.Sprintf("cancel %s kill=%v", e.ID, e.Kill)
	}
	return fmt.Sprintf("%T %+v", event, event)
}

func describeEffect(effect Effect) string {
	switch e := effect.(type) {
	case *Reply:
		return fmt.Sprintf("reply %d %s", e.Token, resultText(e.Result))
	case *StartAttempt:
		return fmt.Sprintf("start %s attempt %d: %s state=%q", e.ID, e.Row.Attempt, e.Input, e.State)
	case *Notify:
		return fmt.Sprintf("notify %s entry %d %s", e.ID, e.Completion.Entry, resultText(e.Completion.Result))
	case *AbortAttempt:
		return fmt.Sprintf("abort %s: %s", e.ID, e.Reason)
	case *EndAttempt:
		return fmt.Sprintf("end %s", e.ID)
	case *Tell:
		return fmt.Sprintf("tell %d %s", e.To, describePeer(e.Peer))
	case *SendMessage:
		return fmt.Sprintf("message %d to %d: %s", e.Sequence, e.To, strings.TrimPrefix(fmt.Sprintf("%T", e.Message.Message), "*recordv1.Message_"))
	}
	return fmt.Sprintf("%T%+v", effect, effect)
}

func describePeer(p *recordv1.Peer) string {
	root, _ := invocation.IDFromBytes(p.Id.GetRoot())
	text := fmt.Sprintf("%s/%d.%d ", root, p.Id.GetSequence()>>32, uint32(p.Id.GetSequence()))
	switch m := p.Message.(type) {
	case *recordv1.Peer_Join:
		return text + fmt.Sprintf("join %s of %s index %d wounded=%v", m.Join.Invoke.GetInput(), m.Join.Invoke.GetTarget().GetKey(), m.Join.Index, m.Join.Wounded)
	case *recordv1.Peer_Joined:
		return text + fmt.Sprintf("joined index %d %s members=%v", m.Joined.Index, resultText(m.Joined.Result), m.Joined.Members)
	case *recordv1.Peer_Prepare:
		return text + fmt.Sprintf("prepare epoch=%d undone=%d discard=%v alone=%v", m.Prepare.Epoch, len(m.Prepare.Undone), m.Prepare.Discard, m.Prepare.Alone)
	case *recordv1.Peer_Vote:
		return text + fmt.Sprintf("vote from %d yes=%v reader=%v committed=%v", m.Vote.From, m.Vote.Yes, m.Vote.Reader, m.Vote.Committed)
	case *recordv1.Peer_Died:
		return text + fmt.Sprintf("died blocked=%s", m.Died.Blocked.GetKey())
	}
	return text + strings.TrimPrefix(fmt.Sprintf("%T", p.Message), "*recordv1.Peer_")
}

func always() bool { return true }
