package engine

import (
	"flag"
	"fmt"
	"maps"
	"math/rand"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/perdure/perdure/internal/history"
	"github.com/perdure/perdure/internal/invocation"
	recordv1 "github.com/perdure/perdure/internal/record/v1"
	"github.com/perdure/perdure/internal/table"
)

var (
	modelFor  = flag.Duration("model.for", 0, "how long TestTransactions tries new worlds; 0 tries a fixed number of them")
	modelFrom = flag.Int64("model.from", 1, "the first world's seed")
	modelSeed = flag.Int64("model.seed", 0, "run only this world, and print what happens in it")
)

// TestTransactions runs random worlds of transactions over partitions that crash and messages
// that get lost, and checks that they are strictly serializable, take effect as a whole and
// once, and leave nothing behind.
func TestTransactions(t *testing.T) {
	if *modelSeed != 0 {
		trace, broken := runBank(*modelSeed, true)
		t.Log("\n" + strings.Join(trace, "\n"))
		if broken != "" {
			t.Fatal(broken)
		}
		return
	}
	worlds := 4000
	if testing.Short() {
		worlds = 300
	}
	began, n := time.Now(), 0
	for ; *modelFor > 0 && time.Since(began) < *modelFor || *modelFor == 0 && n < worlds; n++ {
		seed := *modelFrom + int64(n)
		if _, broken := runBank(seed, false); broken != "" {
			t.Fatalf("world %d: %s\ngo test ./internal/engine -run TestTransactions$ -v -args -model.seed=%d", seed, broken, seed)
		}
	}
	t.Logf("%d worlds from %d in %v", n, *modelFrom, time.Since(began).Round(time.Millisecond))
}

// odds are what a world is like. Each draws its own, so that some have no fault of a kind, and
// some nothing else.
type odds struct {
	partitions, objects, tasks int
	// in percent
	lose, double, fail, keyless, async, read, durable, fickle int
	// watch is how often somebody looks at all objects when one caller has its answer, and plain
	// how many tasks call nobody.
	watch, plain int
	weights      map[string]int
	// patience of the engines with transactions that only read.
	patience int
	// tangled: asynchronous siblings call others, and may so wait for each other for ever.
	tangled bool
}

func drawOdds(r *rand.Rand) odds {
	some := func(values ...int) int { return values[r.Intn(len(values))] }
	o := odds{
		partitions: 2 + r.Intn(3), objects: some(1, 2, 2, 3, 4, 6), tasks: 1 + r.Intn(10),
		lose: some(0, 0, 0, 2, 10), double: some(0, 0, 3, 15), fail: some(0, 0, 5, 25), keyless: some(10, 50, 80),
		async: some(0, 30, 80), read: some(0, 20, 60), durable: some(0, 0, 15, 40), tangled: r.Intn(4) == 0,
		fickle: some(0, 0, 20, 50),
		watch:  some(0, 0, 30), patience: some(1, 1, 2, 64),
	}
	if r.Intn(2) == 0 { // Few objects, and somebody looks at them wherever a transaction stands.
		o.objects, o.tasks, o.keyless, o.read, o.watch, o.plain = 2+r.Intn(2), 4+r.Intn(12), 80, some(20, 60), 100, some(30, 60)
		o.durable = some(0, 0, 20)
	}
	rerun := r.Intn(3) == 0
	if rerun { // Partitions lose their leaders while handlers within handlers are at work.
		o.partitions, o.objects, o.tasks, o.keyless, o.fickle, o.durable, o.tangled = 3+r.Intn(2), 3+r.Intn(4), 1+r.Intn(3), some(30, 80), 70, 0, false
		o.lose, o.double, o.fail, o.async, o.plain, o.watch = 0, 0, 0, some(0, 0, 30), 0, 0
	}
	o.weights = map[string]int{
		"ask": some(3, 10, 40), "again": 3, "advance": 40, "mail": some(20, 50), "flush": some(5, 20), "resend": some(0, 1),
		"time": some(0, 1, 4), "reached": some(0, 1, 4), "crash": some(0, 0, 0, 1, 3), "cancel": some(0, 0, 1), "kill": some(0, 0, 1),
		"timeout": some(0, 0, 0, 1), "restart": some(0, 0, 1), "read": some(0, 2, 8), "suspend": 3,
	}
	if rerun {
		maps.Copy(o.weights, map[string]int{"advance": 30, "mail": 20, "flush": 20, "crash": some(3, 6), "time": some(6, 12), "cancel": 0, "kill": 0, "timeout": 0, "restart": 0, "read": 0})
	}
	return o
}

func runBank(seed int64, loud bool) (trace []string, broken violation) {
	var w *bank
	defer func() {
		if w != nil {
			trace = w.trace
		}
		if r := recover(); r != nil {
			v, ok := r.(violation)
			if !ok {
				panic(fmt.Sprintf("world %d: %v", seed, r))
			}
			broken = v
		}
	}()
	w = newBank(seed, loud)
	for range w.odds.tasks {
		if w.chance(w.odds.durable) {
			w.drawDurable().client = true
		} else {
			depth := 1 + w.rng.Intn(3)
			if w.chance(w.odds.plain) {
				depth = 0
			}
			w.drawTask(0, depth).client = true
		}
	}
	if loud {
		for _, t := range w.tasks {
			w.say("%s %s client=%v idem=%q: %s", t.node.name, t.id, t.client, t.idem, describeNode(t.node))
		}
	}
	actions := slices.Sorted(maps.Keys(w.odds.weights))
	total := 0
	for _, weight := range w.odds.weights {
		total += weight
	}
	for range 20 + w.rng.Intn(60*w.odds.tasks) {
		at := w.rng.Intn(total)
		for _, action := range actions {
			if at -= w.odds.weights[action]; at < 0 {
				w.act(action)
				break
			}
		}
	}
	w.heal()
	w.checkEnd()
	return w.trace, ""
}

func describeNode(n *node) string {
	var ops []string
	for _, o := range n.ops {
		text := string(o.kind)
		switch {
		case o.kind == opAppend:
			text += strconv.FormatInt(o.value, 10)
		case o.child != nil:
			text += describeNode(o.child)
			if o.other != nil {
				text += "|" + describeNode(o.other)
			}
			if o.catch {
				text += "?"
			}
		case o.task != nil:
			text += o.task.node.name
		}
		ops = append(ops, text)
	}
	text := fmt.Sprintf("%s:%s:%s(%s)", n.name, n.mode, n.key, strings.Join(ops, " "))
	if n.fails {
		text += "!"
	}
	return text
}

func pickOf[T any](w *bank, from []T) (picked T, ok bool) {
	if len(from) == 0 {
		return picked, false
	}
	return from[w.rng.Intn(len(from))], true
}

// tasksThat are those of a kind, in a fixed order.
func (w *bank) tasksThat(is func(t *task) bool) (all []*task) {
	for _, t := range w.tasks {
		if is(t) {
			all = append(all, t)
		}
	}
	return all
}

func (w *bank) act(action string) {
	p := w.parts[w.rng.Intn(len(w.parts))]
	switch action {
	case "ask":
		if t, ok := pickOf(w, w.tasksThat(func(t *task) bool { return t.client && !t.asked })); ok {
			w.ask(t)
		}
	case "again":
		if t, ok := pickOf(w, w.tasksThat((*task).wantsAgain)); ok {
			w.ask(t)
		}
	case "advance":
		if h, ok := pickOf(w, p.sortedHandlers()); ok {
			h.advance()
		}
	case "suspend":
		if h, ok := pickOf(w, p.sortedHandlers()); ok {
			h.suspend()
		}
	case "timeout":
		if h, ok := pickOf(w, p.sortedHandlers()); ok && h.node.mode != invocation.ModeDurable {
			h.node.task.meddled = true
			p.evaluate(&TimeOut{ID: h.id, Attempt: h.number, After: 1000})
		}
	case "restart":
		if h, ok := pickOf(w, p.sortedHandlers()); ok {
			p.evaluate(&Restart{ID: h.id, Attempt: h.number})
		}
	case "mail":
		if len(w.mail) > 0 {
			w.carry(w.rng.Intn(min(len(w.mail), 1+w.rng.Intn(20))))
		}
	case "flush":
		p.flush(1 + w.rng.Intn(5))
	case "resend":
		p.resend()
	case "time":
		w.now += 1 + int64(w.rng.Intn(900))
		p.fireDue()
		if p.engine.Busy() {
			p.evaluate(&Tick{})
		}
	case "reached":
		p.evaluate(&Reached{Partition: w.parts[w.rng.Intn(len(w.parts))].id})
	case "crash":
		p.crash()
	case "cancel", "kill":
		t, ok := pickOf(w, w.tasksThat(func(t *task) bool { return t.asked && !t.ended && t.node.mode == invocation.ModeTransaction }))
		if ok && w.chance(40) {
			t.meddled = true
			w.partOf(t.id).evaluate(&Cancel{ID: t.id, Kill: action == "kill"})
		}
	case "read":
		w.wanted = append(w.wanted, &durableRead{w.object(w.rng.Intn(w.odds.objects)), w.tick()})
		w.serveReads()
	}
}

// wantsAgain: its answer was lost, and its caller may ask again.
func (t *task) wantsAgain() bool {
	return t.client && t.asked && !t.ended && t.token == 0 && t.idem != ""
}

func (w *bank) ask(t *task) {
	if !t.asked {
		t.asked, t.began = true, w.tick()
	}
	w.token++
	t.token = w.token
	w.byToken[t.token] = t
	w.partOf(t.id).evaluate(&Invoke{Invoke: t.invoke(), Token: t.token, OneWay: t.oneWay})
}

func (w *bank) replied(r *Reply) {
	t := w.byToken[r.Token]
	if t == nil {
		w.fail("token %d was answered and asked nothing, or has its answer", r.Token)
	}
	delete(w.byToken, r.Token)
	switch {
	case r.Refused:
		w.fail("%s was refused: %s", t.node.name, resultText(r.Result))
	case t.node.mode == invocation.ModeDurable:
		t.ended, t.accepted = true, true
	case t.oneWay:
		t.accepted, t.ended = true, true
		t.outcome = history.Unknown
	default:
		w.answered(t, r.Result)
	}
}

// answered ends a root for its caller. A DURABLE caller may hear twice, of the same.
func (w *bank) answered(t *task, result *recordv1.Result) {
	err := result.GetError()
	text := strings.TrimPrefix(err.GetMessage(), failed)
	ours := text != err.GetMessage()
	switch {
	case err == nil:
		w.end(t, history.Committed, opsOf(parseLog(string(result.Value))))
	case err.Code == codeUnavailable:
		t.refused = err.Message
		w.end(t, history.Unknown, nil)
	default:
		t.refused = err.Message
		if t.ended && t.outcome == history.Aborted {
			return
		}
		w.end(t, history.Aborted, nil)
		if !ours {
			return
		}
		if reads := t.node.readsOf(parseLog(text)); len(reads) > 0 {
			w.txns = append(w.txns, history.Txn{Ops: opsOf(reads), Outcome: history.Committed, Began: t.began, Ended: t.endedAt})
		}
	}
}

func (w *bank) end(t *task, outcome history.Outcome, ops []history.Op) {
	if t.ended {
		if t.outcome != outcome || len(t.ops) != len(ops) {
			w.fail("%s was %s and then %s", t.node.name, t.outcome, outcome)
		}
		return
	}
	w.say("%s is %s: %v", t.node.name, outcome, ops)
	t.ended, t.outcome, t.ops, t.endedAt = true, outcome, ops, w.tick()
	if w.chance(w.odds.watch) {
		w.watch()
	}
}

// watch looks at all objects.
func (w *bank) watch() {
	for i := range w.odds.objects {
		w.wanted = append(w.wanted, &durableRead{w.object(i), w.tick()})
	}
	w.serveReads()
}

// serveReads answers READ handlers as internal/partition does: from what is durable, as soon as
// the object is not hidden.
func (w *bank) serveReads() {
	w.wanted = slices.DeleteFunc(w.wanted, func(r *durableRead) bool {
		p := w.partOfKey(r.key)
		if p.hidden[invocation.Object{Service: "List", Key: r.key}] > 0 {
			return false
		}
		list := w.list(p.durable, r.key)
		w.txns = append(w.txns, history.Txn{Ops: []history.Op{history.Read(r.key, list)}, Outcome: history.Committed, Began: r.began, Ended: w.tick()})
		w.say("read of %s: %v", r.key, list)
		return true
	})
}

// healMost bounds, in fake milliseconds, how long a world without faults may need to come to
// rest: a transaction that waits for another one's time limit is stuck.
const healMost = 12_000

// heal lets everything end: no more faults, and time goes on only when nothing else does.
func (w *bank) heal() {
	w.healing = true
	w.say("heal")
	began := w.now
	for round := range 20_000 {
		busy := len(w.mail) > 0
		for len(w.mail) > 0 {
			w.carry(0)
		}
		for _, p := range w.parts {
			for _, h := range p.sortedHandlers() {
				if p.attempts[h.id] == h {
					busy = !h.advance() || busy
				}
			}
			busy = len(p.pending) > 0 || busy
			p.flush(len(p.pending))
			busy = p.fireDue() || busy
		}
		w.serveReads()
		for _, t := range w.tasksThat((*task).wantsAgain) {
			busy = true
			w.ask(t)
		}
		if busy {
			// Siblings that see what another takes back later are run again, and may do so again
			// until their time is over.
			if w.odds.tangled && round%50 == 49 {
				w.now += 1000
				for _, p := range w.parts {
					p.evaluate(&Tick{})
				}
			}
			continue
		}
		working := len(w.wanted) > 0
		for _, p := range w.parts {
			if p.resend() {
				working = true
			}
			if p.engine.Busy() {
				working = true
				p.evaluate(&Tick{})
			}
			for _, timer := range p.timers() {
				working = working || timer.Kind != table.TimerExpire
			}
		}
		if !working {
			return
		}
		w.now += 500
		if w.now-began > healMost && !w.odds.tangled {
			w.fail("no rest after %d ms without faults: %s", w.now-began, w.describe())
		}
	}
	w.fail("no rest: %s", w.describe())
}

func (w *bank) describe() string {
	var out strings.Builder
	for _, p := range w.parts {
		live, held := p.engine.Live()
		fmt.Fprintf(&out, "\npartition %d: %d live, %d keys held, %d waiting", p.id, live, held, p.engine.Queued())
		for _, s := range p.engine.Transactions() {
			fmt.Fprintf(&out, "\n  %s coordinator=%v %s held=%v waiting=%v members=%v: %s", s.ID, s.Coordinator, s.Phase, s.Held, s.Waiting, s.Members, s.Reason)
		}
		for _, h := range p.sortedHandlers() {
			fmt.Fprintf(&out, "\n  %s runs %s attempt %d step %d", h.id, h.node.name, h.number, h.step)
		}
	}
	return out.String()
}
