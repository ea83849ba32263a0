package transaction_test

import (
	"fmt"
	"slices"
	"strings"

	"github.com/tidwall/btree"
	"google.golang.org/protobuf/proto"

	"github.com/perdure/perdure/internal/engine"
	"github.com/perdure/perdure/internal/invocation"
	recordv1 "github.com/perdure/perdure/internal/record/v1"
	"github.com/perdure/perdure/internal/table"
)

// rows are a partition's rows. A copy is cheap.
type rows struct{ btree.Map[string, []byte] }

// Get implements engine.View.
func (r *rows) Get(key []byte) ([]byte, bool, error) {
	value, ok := r.Map.Get(string(key))
	return value, ok, nil
}

// Scan implements engine.View.
func (r *rows) Scan(lower, upper []byte, fn func(key, value []byte) bool) error {
	r.Ascend(string(lower), func(key string, value []byte) bool {
		return (upper == nil || key < string(upper)) && fn([]byte(key), value)
	})
	return nil
}

func (r *rows) apply(mutations []engine.Mutation) {
	for _, m := range mutations {
		if m.Delete {
			r.Delete(string(m.Key))
		} else {
			r.Set(string(m.Key), m.Value)
		}
	}
}

// place is a partition: the engine under test, and around it what internal/partition does.
type place struct {
	w       *world
	id      uint32
	now     int64
	epoch   uint64
	engine  *engine.Engine
	view    *rows // as all events left it
	durable *rows // what a crash leaves
	// pending are the records that are not durable yet, oldest first.
	pending  []*record
	handlers map[invocation.ID]*handler
	// todo is what handlers have said and the engine has not heard yet.
	todo []engine.Event
	// hidden are the objects that READ handlers must not look at, and how many promises say so.
	hidden map[string]int
	// callers are the clients whose roots live here.
	callers []caller
	// wakes are messages to handlers that wait for somebody outside.
	wakes   []int32
	failure string

	sends []int32
	acks  []acknowledgement
}

// record is what one action wrote, and what waits until it is durable.
type record struct {
	mutations []engine.Mutation
	gated     []gated
}

// gated is an effect that waits; message is the one that an Ack is about.
type gated struct {
	effect  engine.Effect
	message int32
	wake    int32
}

// acknowledgement is an Ack on its way.
type acknowledgement struct {
	to       uint32
	by       uint32
	sequence uint64
}

// caller is what a client knows.
type caller struct {
	token engine.Token // outstanding; 0 is none
	calls int
	// answer is the text of the result, "" before there is one, "?" if it is lost for good.
	answer string
}

func newPlace(w *world, id uint32) *place {
	p := &place{w: w, id: id, now: 10_000 + w.skew[id], durable: &rows{}, callers: make([]caller, len(w.clients))}
	p.lead()
	return p
}

// lead starts the next leadership from what is durable.
func (p *place) lead() {
	p.epoch++
	p.view = &rows{*p.durable.Copy()}
	p.pending, p.handlers, p.hidden = nil, map[invocation.ID]*handler{}, map[string]int{}
	p.engine = engine.New(engine.Config{Partition: p.id, Partitions: p.w.partitions, HandOn: func() bool { return true }}, p.view, p.epoch)
	out, err := p.engine.Recover(p.now)
	if err != nil {
		p.fail("recover: %v", err)
		return
	}
	if len(out.Damaged) > 0 {
		p.fail("recover: %v", out.Damaged)
	}
	var r *record
	p.take(out, &r, 0)
	p.hear(&r, 0)
}

func (p *place) fail(format string, args ...any) {
	if p.failure == "" {
		p.failure = fmt.Sprintf("partition %d: ", p.id) + fmt.Sprintf(format, args...)
	}
}

// act does one action of this partition.
func (p *place) act(a action) {
	p.sends, p.acks = nil, nil
	switch a.kind {
	case deliver:
		p.deliver(a.message)
	case makeDurable:
		p.makeDurable()
	case crash:
		p.crash(a.sequence == 1)
	case tick:
		p.now += 1000
		if p.engine.Busy() {
			p.evaluate(&engine.Tick{}, 0)
		}
	case acked:
		p.evaluate(&engine.Acked{By: a.by, Sequence: a.sequence}, 0)
	}
}

func (p *place) deliver(number int32) {
	m := p.w.messages[number]
	switch m.kind {
	case told:
		peer := &recordv1.Peer{}
		if err := proto.Unmarshal([]byte(m.content), peer); err != nil {
			p.fail("%v", err)
			return
		}
		p.evaluate(&engine.Told{Peer: peer}, number)
	case outbox:
		message := &recordv1.Message{}
		if err := proto.Unmarshal([]byte(m.content), message); err != nil {
			p.fail("%v", err)
			return
		}
		p.evaluate(&engine.Deliver{From: m.from, Sequence: m.sequence, Message: message}, number)
	case request:
		c, who := &p.callers[m.sequence], p.w.clients[m.sequence]
		c.calls++
		c.token = engine.Token(m.sequence*100) + engine.Token(c.calls)
		p.evaluate(&engine.Invoke{Invoke: who.invoke(), Token: c.token}, 0)
	case wake:
		id, _ := invocation.IDFromBytes([]byte(m.content))
		p.evaluate(&engine.CompleteAwakeable{ID: invocation.AwakeableID{Invocation: id, Entry: 1}, Result: &recordv1.Result{}}, 0)
	}
}

// evaluate feeds the engine an event and then all that handlers say: one record.
func (p *place) evaluate(event engine.Event, message int32) {
	var r *record
	p.todo = append(p.todo, event)
	p.hear(&r, message)
}

func (p *place) hear(r **record, message int32) {
	for i := 0; len(p.todo) > 0; i++ {
		event := p.todo[0]
		p.todo = p.todo[1:]
		out, err := p.engine.Evaluate(event, p.now)
		if err != nil {
			p.fail("%T: %v", event, err)
			return
		}
		p.take(out, r, message)
		if i == 200 {
			p.fail("goes on without end")
			return
		}
	}
	for _, number := range p.wakes {
		p.hang(gated{wake: number}, true) // Somebody outside hears of an awakeable once it is durable.
	}
	p.wakes = nil
}

// take does what an event came to: the handlers' part at once, the rest when it is durable.
func (p *place) take(out *engine.Output, r **record, message int32) {
	if len(out.Mutations) > 0 {
		var mutations []engine.Mutation
		for _, m := range out.Mutations {
			m.Key, m.Value = slices.Clone(m.Key), slices.Clone(m.Value)
			mutations = append(mutations, m)
		}
		p.view.apply(mutations)
		if *r == nil {
			*r = &record{}
			p.pending = append(p.pending, *r)
		}
		(*r).mutations = append((*r).mutations, mutations...)
	}
	for _, effect := range out.Effects {
		if tell, ok := effect.(*engine.Tell); ok {
			tell.Peer = proto.Clone(tell.Peer).(*recordv1.Peer) // As it is now.
		}
		p.hang(gated{effect: effect, message: message}, effect.Gated())
	}
}

// hang does something when everything so far is durable, or at once.
func (p *place) hang(g gated, wait bool) {
	if n := len(p.pending); wait && n > 0 {
		p.pending[n-1].gated = append(p.pending[n-1].gated, g)
		return
	}
	p.do(g)
}

// makeDurable puts the oldest record on the disk.
func (p *place) makeDurable() {
	r := p.pending[0]
	p.pending = p.pending[1:]
	p.durable.apply(r.mutations)
	for _, g := range r.gated {
		p.do(g)
	}
	var next *record
	p.hear(&next, 0)
}

// crash ends the leadership: the records on their way are all kept or all lost, and what hung
// on them does not happen.
func (p *place) crash(keep bool) {
	for _, r := range p.pending {
		if keep {
			p.durable.apply(r.mutations)
		}
		for _, g := range r.gated {
			if _, ok := g.effect.(*engine.Ack); ok {
				p.sends = append(p.sends, g.message) // Its sender repeats it.
			}
		}
	}
	for i := range p.callers {
		c := &p.callers[i]
		if c.token == 0 {
			continue
		}
		c.token = 0
		if p.w.clients[i].keyed {
			p.sends = append(p.sends, p.w.intern(message{to: p.id, kind: request, sequence: uint64(i)}))
		} else {
			c.answer = "?"
		}
	}
	p.lead()
}

func (p *place) do(g gated) {
	switch e := g.effect.(type) {
	case nil:
		p.sends = append(p.sends, g.wake)
	case *engine.Reply:
		p.reply(e)
	case *engine.StartAttempt:
		p.start(e)
	case *engine.Notify:
		p.notify(e)
	case *engine.AbortAttempt:
		delete(p.handlers, e.ID)
	case *engine.EndAttempt:
		delete(p.handlers, e.ID)
	case *engine.SendMessage:
		p.send(e.To, outbox, e.Sequence, e.Message)
	case *engine.Tell:
		p.send(e.To, told, 0, e.Peer)
	case *engine.Ack:
		p.acks = append(p.acks, acknowledgement{to: e.To, by: p.id, sequence: e.Sequence})
	case *engine.Hide:
		p.hidden[e.Object.Key]++
	case *engine.Show:
		if p.hidden[e.Object.Key]--; p.hidden[e.Object.Key] == 0 {
			delete(p.hidden, e.Object.Key)
		}
	}
}

func (p *place) send(to uint32, kind messageKind, sequence uint64, content proto.Message) {
	data, err := proto.MarshalOptions{Deterministic: true}.Marshal(content)
	if err != nil {
		p.fail("%v", err)
	}
	p.sends = append(p.sends, p.w.intern(message{from: p.id, to: to, kind: kind, sequence: sequence, content: string(data)}))
}

func (p *place) reply(e *engine.Reply) {
	if e.Token == 0 {
		return
	}
	c := &p.callers[(e.Token-1)/100]
	if c.token != e.Token {
		p.fail("token %d is answered and waits no more", e.Token)
		return
	}
	c.token = 0
	answer := textOf(e.Result)
	if e.Result.GetError().GetCode() == 14 { // unavailable: nobody knows
		answer = "?"
	}
	c.answer = answer
}

// leftovers says what should be gone when all has ended, "" if nothing is there.
func (p *place) leftovers() string {
	var left []string
	if live, held := p.engine.Live(); live+held > 0 || p.engine.Queued() > 0 || p.engine.Busy() || len(p.handlers) > 0 {
		left = append(left, fmt.Sprintf("%d invocations, %d keys, %d waiting, busy %t, %d handlers", live, held, p.engine.Queued(), p.engine.Busy(), len(p.handlers)))
	}
	for _, s := range p.engine.Transactions() {
		left = append(left, fmt.Sprintf("transaction %s %s", s.ID, s.Phase))
	}
	for object := range p.hidden {
		left = append(left, "hidden "+object)
	}
	p.durable.Map.Scan(func(key string, value []byte) bool {
		switch key[0] {
		case 's', 'd', 'm', 'w', 'j', 'c': // state, sequences, timers, the journal of what is kept
			return true
		case 'i':
			row := &recordv1.Invocation{}
			if proto.Unmarshal(value, row) == nil && row.CompletedAt != 0 && row.RetentionMs > 0 {
				return true
			}
		}
		left = append(left, table.Describe([]byte(key)))
		return true
	})
	return strings.Join(left, "; ")
}

// delivered is the sequence of the last message taken from a partition.
func (p *place) delivered(from uint32) uint64 {
	value, _, _ := p.view.Get(table.Delivered(from))
	n, err := table.ParseNumber(value)
	if err != nil {
		p.fail("%v", err)
	}
	return n
}

// list is an object's durable state.
func (p *place) list(on string) string {
	value, _ := p.durable.Map.Get(string(table.State(invocation.Object{Service: "S", Key: p.w.keys[on]})))
	return string(value)
}

// checkLocks looks for a key that two hold, one of them exclusively.
func (p *place) checkLocks() {
	holders := map[invocation.Object][]string{}
	exclusive := map[invocation.Object]bool{}
	for _, s := range p.engine.Transactions() {
		if s.Coordinator {
			continue
		}
		for _, lock := range s.Held {
			holders[lock.Object] = append(holders[lock.Object], s.ID.String())
			exclusive[lock.Object] = exclusive[lock.Object] || !lock.Shared
		}
	}
	for _, h := range p.handlers {
		if h.program.writes() && h.isOutside(p.w) {
			object := invocation.Object{Service: "S", Key: h.program.key}
			holders[object] = append(holders[object], h.program.name)
			exclusive[object] = exclusive[object] || h.program.mode != invocation.ModeDurable
		}
	}
	for object, all := range holders {
		if len(all) > 1 && exclusive[object] {
			p.fail("%s is held exclusively, and by %v", object, all)
		}
	}
}
