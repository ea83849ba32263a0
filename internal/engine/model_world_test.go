package engine

import (
	"fmt"
	"slices"
	"strings"

	"github.com/tidwall/btree"
	"google.golang.org/protobuf/proto"
	"pgregory.net/rapid"

	"github.com/perdure/perdure/internal/invocation"
	"github.com/perdure/perdure/internal/limit/rule"
	recordv1 "github.com/perdure/perdure/internal/record/v1"
	"github.com/perdure/perdure/internal/table"
	"github.com/perdure/perdure/internal/transaction"
)

// rowMap is a partition's rows. Copy is cheap, so each durable point keeps its own.
type rowMap struct{ rows btree.Map[string, []byte] }

func (v *rowMap) Get(key []byte) ([]byte, bool, error) {
	value, ok := v.rows.Get(string(key))
	return value, ok, nil
}

func (v *rowMap) Scan(lower, upper []byte, fn func(key, value []byte) bool) error {
	v.rows.Ascend(string(lower), func(key string, value []byte) bool {
		return (upper == nil || key < string(upper)) && fn([]byte(key), value)
	})
	return nil
}

func (v *rowMap) apply(mutations []Mutation) {
	for _, m := range mutations {
		if m.Delete {
			v.rows.Delete(string(m.Key))
		} else {
			v.rows.Set(string(m.Key), append([]byte{}, m.Value...))
		}
	}
}

// leader is one partition of the model: the engine under test, and around it what
// internal/partition does, reduced to what can be said about it.
type leader struct {
	world   *world
	id      uint32
	epoch   uint64
	engine  *Engine
	view    *rowMap // as all events left it
	durable *rowMap // what a crash leaves
	pending []*pendingRecord
	// attempts that run, and each key's queue (holder first) after the last event.
	attempts map[invocation.ID]*modelAttempt
	queues   map[invocation.Object][]invocation.ID
	// kept are the queues as of what is durable.
	kept   map[invocation.Object][]invocation.ID
	tokens map[Token]invocation.ID
	// copies are the slices that are asked for.
	copies []CopyEntries
	// checked is the rule book that was looked at last, and version is its own then.
	checked *rule.Book
	version uint64
	// recovered: it has just begun to lead, and nothing was looked at since.
	recovered bool
}

type pendingRecord struct {
	mutations []Mutation
	// queues are as of this record.
	queues  map[invocation.Object][]invocation.ID
	gated   []Effect
	granted []func()
}

// packet is an event on its way to a partition.
type packet struct {
	to    uint32
	event Event
}

const modelPartitions = 4

// world is four partitions, the messages between them, and what callers were told.
type world struct {
	t       *rapid.T
	now     int64
	leaders []*leader
	network []packet

	programs map[string]*program // by input
	requests []*program          // made by clients, to be repeated, attached to, cancelled
	token    Token
	answered map[Token]bool
	results  map[invocation.ID]string
	accepted map[string]bool // names that were acknowledged as durable
	purged   map[string]bool
	// books are the rule books by their version, awaited what is to be everywhere when a token is
	// answered, and held how many permits of each limit were held after the last event.
	books   map[uint64]string
	awaited map[Token]uint64
	held    map[string]int
	names   int
	runs    int
	// renewed are those that others were restarted as. copyBytes are copied at a time.
	renewed              map[invocation.ID]*program
	copyBytes, purgeRows int
}

func newWorld(t *rapid.T) *world {
	w := &world{
		t: t, now: 1000, programs: map[string]*program{}, answered: map[Token]bool{},
		results: map[invocation.ID]string{}, accepted: map[string]bool{}, purged: map[string]bool{},
		books: map[uint64]string{}, awaited: map[Token]uint64{},
		renewed: map[invocation.ID]*program{}, copyBytes: rapid.SampledFrom([]int{0, 1, 100}).Draw(t, "copied at a time"),
		purgeRows: rapid.SampledFrom([]int{0, 4}).Draw(t, "removed at a time"),
	}
	for id := uint32(1); id <= modelPartitions; id++ {
		l := &leader{world: w, id: id, view: &rowMap{}, durable: &rowMap{}}
		w.leaders = append(w.leaders, l)
		l.lead()
	}
	return w
}

func (w *world) of(id invocation.ID) *leader { return w.leaders[id.Partition(modelPartitions)-1] }

// lead starts the next leadership from what is durable.
func (l *leader) lead() {
	l.epoch++
	before := l.kept
	l.view = &rowMap{rows: *l.durable.rows.Copy()}
	l.copies = nil
	l.pending, l.attempts, l.queues, l.tokens = nil, map[invocation.ID]*modelAttempt{}, map[invocation.Object][]invocation.ID{}, map[Token]invocation.ID{}
	l.engine = New(Config{Partition: l.id, Partitions: modelPartitions, MaxInbox: 3, HandOn: always, CopyBytes: l.world.copyBytes, PurgeRows: l.world.purgeRows}, l.view, l.epoch)
	out, err := l.engine.Recover(l.world.now)
	if err != nil {
		l.world.t.Fatalf("partition %d: recover: %v", l.id, err)
	}
	l.recovered = true
	l.take(out)
	for key, after := range l.queuesNow() {
		var common []invocation.ID
		for _, id := range after {
			if slices.Contains(before[key], id) {
				common = append(common, id)
			}
		}
		if !isSubsequence(common, before[key]) {
			l.world.t.Fatalf("partition %d: %s: queue %v became %v in a restart", l.id, key, before[key], after)
		}
	}
	l.check()
}

// crash loses everything not durable. Whoever waits is told nothing.
func (l *leader) crash() { l.lead() }

func (l *leader) evaluate(event Event) {
	out, err := l.engine.Evaluate(event, l.world.now)
	if err != nil {
		l.world.t.Fatalf("partition %d: %T: %v", l.id, event, err)
	}
	l.take(out)
	l.check()
}

// take does what an event came to: attempts at once, the rest when it is durable.
func (l *leader) take(out *Output) {
	t := l.world.t
	armed := map[int64]bool{}
	for _, effect := range out.Effects {
		if arm, ok := effect.(*ArmTimer); ok {
			armed[arm.At] = true
		}
	}
	var mutations []Mutation
	for _, m := range out.Mutations {
		m.Key, m.Value = append([]byte(nil), m.Key...), append([]byte(nil), m.Value...)
		mutations = append(mutations, m)
		if timer, err := table.ParseTimer(m.Key); err == nil && !m.Delete && !armed[timer.At] {
			t.Fatalf("partition %d: %s is written and not armed", l.id, table.Describe(m.Key))
		}
	}
	if len(mutations) > 0 {
		l.view.apply(mutations)
		l.pending = append(l.pending, &pendingRecord{mutations: mutations, queues: l.queuesNow()})
	}
	for _, effect := range out.Effects {
		switch {
		case !effect.Gated():
			l.act(effect)
		case len(l.pending) > 0:
			last := l.pending[len(l.pending)-1]
			last.gated = append(last.gated, effect)
		default:
			l.act(effect)
		}
	}
}

// flush makes the oldest n records durable and opens the gate for them.
func (l *leader) flush(n int) {
	for ; n > 0 && len(l.pending) > 0; n-- {
		record := l.pending[0]
		l.pending = l.pending[1:]
		for _, m := range record.mutations {
			before, ok := l.durable.rows.Get(string(m.Key))
			immutable := len(m.Key) == 1+invocation.IDBytes+4 && (m.Key[0] == 'j' || m.Key[0] == 'c')
			if immutable && ok && !m.Delete && string(before) != string(m.Value) {
				l.world.t.Fatalf("partition %d: durable row %s changed", l.id, table.Describe(m.Key))
			}
		}
		l.durable.apply(record.mutations)
		l.kept = record.queues
		for _, effect := range record.gated {
			l.act(effect)
		}
		for _, granted := range record.granted {
			granted()
		}
	}
}

// grant calls fn when everything so far is durable.
func (l *leader) grant(fn func()) {
	if n := len(l.pending); n > 0 {
		l.pending[n-1].granted = append(l.pending[n-1].granted, fn)
		return
	}
	fn()
}

func (l *leader) act(effect Effect) {
	t := l.world.t
	switch e := effect.(type) {
	case *Reply:
		l.reply(e)
	case *StartAttempt:
		if l.attempts[e.ID] != nil {
			t.Fatalf("partition %d: %s started while an attempt of it runs", l.id, e.ID)
		}
		a := l.newAttempt(e)
		for _, other := range l.attempts {
			if a.program.exclusive() && other.program.exclusive() && a.program.key == other.program.key {
				t.Fatalf("partition %d: %s and %s hold %s together", l.id, a.program.name, other.program.name, a.program.key)
			}
		}
		l.attempts[e.ID] = a
	case *Notify:
		a := l.attempts[e.ID]
		if a == nil {
			t.Fatalf("partition %d: notify %s, which does not run", l.id, e.ID)
		}
		a.completions[e.Completion.Entry] = e.Completion
	case *CancelAttempt:
		if l.attempts[e.ID] == nil {
			t.Fatalf("partition %d: cancel %s, which does not run", l.id, e.ID)
		}
		l.attempts[e.ID].cancelled = true
	case *CopyOn:
		l.copies = append(l.copies, e.CopyEntries)
	case *AbortAttempt:
		delete(l.attempts, e.ID)
	case *EndAttempt:
		delete(l.attempts, e.ID)
	case *SendMessage:
		l.world.network = append(l.world.network, packet{e.To, &Deliver{From: l.id, Sequence: e.Sequence, Message: proto.Clone(e.Message).(*recordv1.Message)}})
	case *Ack:
		l.world.network = append(l.world.network, packet{e.To, &Acked{By: l.id, Sequence: e.Sequence}})
	}
}

func (l *leader) reply(e *Reply) {
	w := l.world
	if w.answered[e.Token] {
		w.t.Fatalf("partition %d: token %d was answered twice", l.id, e.Token)
	}
	w.answered[e.Token] = true
	id, ok := l.tokens[e.Token]
	if !ok {
		w.t.Fatalf("partition %d: token %d was answered by a leadership that was not asked", l.id, e.Token)
	}
	delete(l.tokens, e.Token)
	w.rulesReached(e.Token)
	if e.Refused || id.IsZero() {
		return
	}
	if name := w.nameOf(id); name != "" {
		w.accepted[name] = true
	}
	if e.Result == nil {
		return
	}
	got := resultText(e.Result)
	if before, ok := w.results[id]; ok && before != got {
		w.t.Fatalf("%s: the result %s became %s; row %v", w.nameOf(id), before, got, l.row(id))
	}
	w.results[id] = got
}

func (w *world) nameOf(id invocation.ID) string {
	for _, p := range w.programs {
		if p.id == id {
			return p.name
		}
	}
	return ""
}

func (l *leader) newToken(id invocation.ID) Token {
	l.world.token++
	l.tokens[l.world.token] = id
	return l.world.token
}

func (l *leader) queuesNow() map[invocation.Object][]invocation.ID {
	queues := map[invocation.Object][]invocation.ID{}
	locks := l.engine.locks
	for _, key := range locks.Objects() {
		for _, r := range slices.Concat(locks.Holders(key), locks.Queue(key)) {
			queues[key] = append(queues[key], ownerOf(r))
		}
	}
	return queues
}

func ownerOf(r *transaction.Request) invocation.ID {
	switch owner := r.Owner.(type) {
	case invocation.ID:
		return owner
	case *live:
		return owner.id
	}
	return r.ID.Root
}

func isSubsequence(part, whole []invocation.ID) bool {
	for _, id := range whole {
		if len(part) > 0 && part[0] == id {
			part = part[1:]
		}
	}
	return len(part) == 0
}

// check holds after every event.
func (l *leader) check() {
	t := l.world.t
	after := l.queuesNow()
	for key, queue := range after {
		before := l.queues[key]
		n := 0
		for n < len(queue) && slices.Contains(before, queue[n]) {
			n++
		}
		if !isSubsequence(queue[:n], before) {
			t.Fatalf("partition %d: %s: not first in, first out: %v, then %v", l.id, key, before, queue)
		}
		for _, id := range queue[n:] {
			if slices.Contains(before, id) {
				t.Fatalf("partition %d: %s: %s was overtaken", l.id, key, id)
			}
		}
		if len(before) > 0 && queue[0] != before[0] {
			// One that was paused before it began leaves the inbox, though it may have come to wait for a permit.
			left := func(row *recordv1.Invocation) bool {
				return row.Status == recordv1.Status_STATUS_PAUSED && row.Attempt == 0
			}
			if row := l.row(before[0]); row != nil && !completed(row.Status) && !left(row) {
				t.Fatalf("partition %d: %s lost the key %s and has not completed", l.id, l.world.nameOf(before[0]), key)
			}
		}
	}
	l.queues = after

	holders := map[invocation.Object]invocation.ID{}
	active := map[invocation.ID]bool{}
	l.view.rows.Ascend("a", func(key string, value []byte) bool {
		if key[0] != 'a' {
			return false
		}
		id, _ := table.ParseID([]byte(key))
		active[id] = true
		a, err := table.ParseActive(value)
		if err != nil {
			t.Fatalf("partition %d: %s: %v", l.id, table.Describe([]byte(key)), err)
		}
		row := l.row(id)
		if row == nil || completed(row.Status) || row.Status != a.Status {
			t.Fatalf("partition %d: %s is active as %s, its row says %s", l.id, l.world.nameOf(id), a.Status, row.GetStatus())
		}
		waits := a.Status == recordv1.Status_STATUS_QUEUED || a.Status == recordv1.Status_STATUS_SCHEDULED
		if a.Object != (invocation.Object{}) && !waits {
			if other, ok := holders[a.Object]; ok {
				t.Fatalf("partition %d: %s is held by %s and %s", l.id, a.Object, l.world.nameOf(other), l.world.nameOf(id))
			}
			holders[a.Object] = id
		}
		return true
	})
	l.view.rows.Ascend("i", func(key string, _ []byte) bool {
		if key[0] != 'i' {
			return false
		}
		id, _ := table.ParseID([]byte(key))
		if row := l.row(id); !completed(row.Status) && !active[id] {
			t.Fatalf("partition %d: %s is %s and not active: a new leader would not find it", l.id, l.world.nameOf(id), row.Status)
		}
		return true
	})
	for id, a := range l.attempts {
		if lv := l.engine.live[id]; lv == nil || !lv.running || lv.row.Attempt != a.number {
			t.Fatalf("partition %d: attempt %d of %s runs and the engine does not know", l.id, a.number, a.program.name)
		}
	}
	for id, lv := range l.engine.live {
		if lv.running && l.attempts[id] == nil {
			t.Fatalf("partition %d: %s should run and no attempt was started", l.id, l.world.nameOf(id))
		}
	}
	l.world.checkLimits()
}

func (l *leader) row(id invocation.ID) *recordv1.Invocation {
	value, ok := l.view.rows.Get(string(table.Invocation(id)))
	if !ok {
		return nil
	}
	row := &recordv1.Invocation{}
	if err := proto.Unmarshal(value, row); err != nil {
		l.world.t.Fatal(err)
	}
	return row
}

// timers returns the timers of the view, in order.
func (l *leader) timers() []table.Timer {
	var timers []table.Timer
	l.view.rows.Ascend("w", func(key string, _ []byte) bool {
		timer, err := table.ParseTimer([]byte(key))
		if err == nil {
			timers = append(timers, timer)
		}
		return key[0] == 'w'
	})
	return timers
}

func (l *leader) fireDue() (fired bool) {
	for _, timer := range l.timers() {
		if timer.At <= l.world.now {
			l.evaluate(&Fire{Timer: timer})
			fired = true
		}
	}
	return fired
}

// resend repeats everything in the durable outbox.
func (l *leader) resend() {
	l.durable.rows.Ascend("o", func(key string, value []byte) bool {
		to, sequence, err := table.ParseOutbox([]byte(key))
		if err != nil || key[0] != 'o' {
			return false
		}
		m := &recordv1.Message{}
		if err := proto.Unmarshal(value, m); err != nil {
			l.world.t.Fatal(err)
		}
		l.world.network = append(l.world.network, packet{to, &Deliver{From: l.id, Sequence: sequence, Message: m}})
		return true
	})
}

func (l *leader) state(key string) string {
	value, _ := l.view.rows.Get(string(table.State(invocation.Object{Service: "Svc", Key: key})))
	return string(value)
}

// leaked lists the rows that should be gone.
func (l *leader) leaked() string {
	var rows []string
	l.view.rows.Scan(func(key string, _ []byte) bool {
		// State, its counters, sequences, the version of the rules, and promises that nobody took stay.
		if !strings.ContainsRune("smdpf", rune(key[0])) {
			rows = append(rows, table.Describe([]byte(key)))
		}
		return true
	})
	if len(rows) == 0 {
		return ""
	}
	return fmt.Sprintf("partition %d: %s", l.id, strings.Join(rows, "; "))
}
