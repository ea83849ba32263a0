package engine

import (
	"fmt"
	"slices"
	"strings"

	"github.com/cespare/xxhash/v2"
	"pgregory.net/rapid"

	"github.com/perdure/perdure/internal/invocation"
	recordv1 "github.com/perdure/perdure/internal/record/v1"
)

// program is what a handler does. A request carries the program's name as its input, so that
// every attempt, replayed or not, finds the same one.
type program struct {
	name      string
	id        invocation.ID
	level     int // calls go to higher ones only
	key       string
	handler   string
	mode      invocation.Mode
	idem      string
	retention int64
	delay     int64
	asked     bool   // a client has asked for it already
	again     bool   // a client has asked for it when nothing was known of an earlier time
	failures  uint32 // attempts that fail before one may finish
	fails     bool   // ends with a terminal error
	ops       []op
	// early are the runs before the last: the handler continues as new after each.
	early [][]op
	flow  *recordv1.Flow
	// renews is the effect of the program that this one was restarted from, begun in which of its
	// runs. restarted: it is taken back what this one did.
	renews    string
	begun     int
	restarted bool
}

type op struct {
	kind   string // set, call, send, sleep, run, awakeable, await, complete, receive, cancel
	child  *program
	delay  int64
	name   string
	target *program
}

func (p *program) exclusive() bool { return p.key != "" && p.mode.Exclusive() }

func (p *program) target() *recordv1.Target {
	return &recordv1.Target{Service: "Svc", Key: p.key, Handler: p.handler}
}

func (p *program) invoke(now int64) *recordv1.Invoke {
	in := &recordv1.Invoke{
		InvocationId: append([]byte(nil), p.id[:]...), Target: p.target(), Mode: uint32(p.mode), Input: []byte(p.name),
		IdempotencyKey: p.idem, RetentionMs: p.retention, Flow: p.flow,
		Retry: &recordv1.RetryPolicy{MaxAttempts: 4, InitialIntervalMs: 10, PauseOnExhausted: len(p.name)%2 == 0},
	}
	if p.delay > 0 {
		in.DueAt = now + p.delay
	}
	return in
}

// draw makes a program for a key: "k0" to "k5"; calls go to larger keys only, since a circle of
// callers that wait for each other is the users' deadlock, not ours.
func (w *world) draw(depth, minKey int, modes ...invocation.Mode) *program {
	p := w.drawProgram(depth, minKey, modes...)
	w.drawFlow(p)
	return p
}

func (w *world) drawProgram(depth, minKey int, modes ...invocation.Mode) *program {
	t := w.t
	w.names++
	key := rapid.IntRange(minKey, 5).Draw(t, "key")
	p := &program{
		name: fmt.Sprintf("n%d", w.names), level: key, key: fmt.Sprintf("k%d", key), handler: "H",
		mode:      rapid.SampledFrom(modes).Draw(t, "mode"),
		retention: rapid.SampledFrom([]int64{0, 500, 5000}).Draw(t, "retention"),
		fails:     rapid.IntRange(0, 9).Draw(t, "fails") == 0,
	}
	switch {
	case p.mode == invocation.ModeRun:
		p.key, p.retention = "w"+p.name, max(p.retention, 1)
	case p.mode == invocation.ModeSignal:
		p.handler, p.fails = "sig", false
	case p.mode == invocation.ModeDurable && rapid.IntRange(0, 5).Draw(t, "service") == 0:
		p.key = ""
	}
	target := invocation.Target{Service: "Svc", Key: p.key, Handler: p.handler}
	if rapid.Bool().Draw(t, "idempotent") && p.retention > 0 {
		p.idem = "idem-" + p.name
		p.id = invocation.DerivedID(target, "idem", p.idem)
	} else {
		var unique [16]byte
		copy(unique[:], p.name)
		hash := target.Hash()
		if p.key == "" {
			hash = xxhash.Sum64String(p.name)
		}
		p.id = invocation.NewID(hash, unique)
	}
	w.programs[p.name] = p
	if p.mode == invocation.ModeTransaction {
		for range rapid.IntRange(0, 2).Draw(t, "sends") {
			p.ops = append(p.ops, w.drawStep(p, depth, key, "send", "complete", "cancel"))
		}
		return p
	}
	if !p.mode.Journaled() {
		return p
	}
	p.failures = uint32(rapid.SampledFrom([]int{0, 0, 0, 1, 2, 5}).Draw(t, "failures"))
	for range rapid.IntRange(0, 5).Draw(t, "ops") {
		p.ops = append(p.ops, w.drawStep(p, depth, key, "call", "send", "sleep", "run", "awakeable", "await", "complete", "receive", "cancel", "recall"))
	}
	for range rapid.SampledFrom([]int{0, 0, 0, 1, 3}).Draw(t, "continuations") {
		var run []op
		for range rapid.IntRange(0, 3).Draw(t, "early ops") {
			run = append(run, w.drawStep(p, 0, key, "sleep", "run", "awakeable", "await", "receive"))
		}
		p.early = append(p.early, run)
	}
	if p.key != "" {
		at := rapid.IntRange(0, len(p.ops)).Draw(t, "set")
		p.ops = slices.Insert(p.ops, at, op{kind: "set"})
	}
	return p
}

func (w *world) drawStep(p *program, depth, key int, kinds ...string) op {
	t := w.t
	o := op{kind: rapid.SampledFrom(kinds).Draw(t, "step"), name: "p", target: p}
	all := []invocation.Mode{invocation.ModeTransaction, invocation.ModeDurable, invocation.ModeSignal, invocation.ModeRun, invocation.ModeRead}
	switch o.kind {
	case "call":
		if depth == 0 || key == 5 {
			o.kind = "run"
			break
		}
		o.child = w.draw(depth-1, key+1, all...)
	case "recall": // a second caller of something that has an idempotency key
		o.kind = "run"
		for _, other := range w.requests {
			if other.idem != "" && other.level > p.level && other.mode != invocation.ModeRead && other.retention >= 5000 {
				o.kind, o.child = "call", other
			}
		}
	case "send":
		if depth == 0 {
			o.kind = "complete"
			break
		}
		o.child = w.draw(depth-1, 0, all...)
		if o.child.mode != invocation.ModeSignal {
			o.child.delay = rapid.SampledFrom([]int64{0, 0, 0, 300}).Draw(t, "delay")
		}
	case "sleep":
		o.delay = rapid.Int64Range(0, 400).Draw(t, "sleep")
	case "cancel":
		if len(w.requests) > 0 {
			o.target = pick(t, "victim", w.requests)
		}
	}
	if (o.kind == "await" || o.kind == "receive") && p.key == "" {
		o.kind = "run"
	}
	return o
}

// modelAttempt is a handler that runs.
type modelAttempt struct {
	leader      *leader
	id          invocation.ID
	number      uint32
	program     *program
	row         *recordv1.Invocation
	state       string
	ops         []op   // of this run
	start       uint32 // of its journal
	step        int    // ops done
	index       uint32 // journal entries
	waits       []uint32
	completions map[uint32]*recordv1.Completion
	cancelled   bool
	delivered   bool // the journal says so
	running     map[uint32]bool
}

func (l *leader) newAttempt(e *StartAttempt) *modelAttempt {
	w := l.world
	p := w.programs[string(e.Input)]
	if renewed := w.renewed[e.ID]; renewed != nil {
		p = renewed
	}
	if p == nil || p.id != e.ID {
		w.t.Fatalf("partition %d: %s started with the input %q", l.id, e.ID, e.Input)
	}
	a := &modelAttempt{
		leader: l, id: e.ID, number: e.Row.Attempt, program: p, row: e.Row, state: string(e.State),
		completions: map[uint32]*recordv1.Completion{}, cancelled: e.CancelRequested, running: map[uint32]bool{},
		start: e.Row.JournalStart, index: e.Row.JournalStart, ops: p.ops, delivered: e.Row.CancelDelivered,
	}
	if runs := p.begun + int(e.Row.Continuations); runs < len(p.early) {
		a.ops = p.early[runs]
	} else if runs > len(p.early) {
		w.t.Fatalf("%s continued as new %d times, not %d", p.name, runs, len(p.early))
	}
	if want := l.state(p.key); p.key != "" && a.state != want {
		w.t.Fatalf("%s started with the state %q, it is %q", p.name, a.state, want)
	}
	for i, entry := range e.Journal {
		a.record(a.start+uint32(i+1), entry)
	}
	for index, c := range e.Completions {
		a.completions[index] = c
	}
	return a
}

// record notes an entry of the journal, new or replayed.
func (a *modelAttempt) record(index uint32, entry *recordv1.Entry) {
	a.index = index
	switch e := entry.Entry.(type) {
	case *recordv1.Entry_Wait:
		a.delivered, a.cancelled = true, false
		return
	case *recordv1.Entry_Call, *recordv1.Entry_Sleep, *recordv1.Entry_Awakeable, *recordv1.Entry_AwaitPromise, *recordv1.Entry_Receive, *recordv1.Entry_Run:
		a.waits = append(a.waits, index)
	case *recordv1.Entry_SetState:
		a.state = string(e.SetState.Value)
	}
	a.step++
}

func (a *modelAttempt) open() (open []uint32) {
	for _, index := range a.waits {
		if a.completions[index] == nil {
			open = append(open, index)
		}
	}
	return open
}

func (a *modelAttempt) result() *recordv1.Result {
	if a.program.fails {
		return &recordv1.Result{Error: &recordv1.Error{Code: 9, Message: a.program.name}}
	}
	return &recordv1.Result{Value: []byte(fmt.Sprintf("%s#%d", a.program.name, a.leader.world.runs))}
}

// advance does the handler's next step. waiting: there is none before a completion comes.
func (a *modelAttempt) advance() (waiting bool) {
	w, l, p := a.leader.world, a.leader, a.program
	w.runs++ // so that no two attempts return the same
	switch {
	case !p.mode.Journaled():
		finish := &Finish{ID: a.id, Attempt: a.number, Result: a.result()}
		if p.mode == invocation.ModeTransaction {
			finish.Entries = append(finish.Entries, &recordv1.Entry{Entry: &recordv1.Entry_SetState{SetState: &recordv1.SetState{Value: []byte(a.add())}}})
			for i := range p.ops {
				finish.Entries = append(finish.Entries, a.entry(&p.ops[i], 0))
			}
		}
		l.evaluate(finish)
		return false
	case a.delivered:
		l.evaluate(&Finish{ID: a.id, Attempt: a.number, Result: &recordv1.Result{Error: &recordv1.Error{Code: codeCanceled, Message: p.name}}})
		return false
	case a.row.Failures < p.failures && a.step == len(a.ops)/2:
		l.evaluate(&Fail{ID: a.id, Attempt: a.number, Error: &recordv1.Error{Code: 2, Message: "again"}})
		return false
	case a.step < len(a.ops):
		a.append(a.entry(&a.ops[a.step], a.index+1))
		return false
	}
	open := a.open()
	if len(open) == 0 && p.begun+int(a.row.Continuations) < len(p.early) {
		l.evaluate(&ContinueAsNew{ID: a.id, Attempt: a.number, Input: []byte(p.name)})
		return false
	}
	if len(open) == 0 {
		l.evaluate(&Finish{ID: a.id, Attempt: a.number, Result: a.result()})
		return false
	}
	if a.cancelled {
		wait := &recordv1.Wait{Outcome: recordv1.WaitOutcome_WAIT_OUTCOME_CANCELLED, Futures: open}
		if heard := a.endedCancelled(); heard != 0 {
			wait = &recordv1.Wait{Outcome: recordv1.WaitOutcome_WAIT_OUTCOME_COMPLETED, Futures: []uint32{heard}, CancelHeard: true}
		}
		// While it waits for a call, it hears by the end of that: which must come.
		if wait.CancelHeard || !a.awaitsCall() {
			a.append(&recordv1.Entry{Entry: &recordv1.Entry_Wait{Wait: wait}})
			return false
		}
	}
	for _, index := range open {
		if !a.running[index] && a.isRun(index) {
			a.runClosure(index)
			return false
		}
	}
	return true
}

func (a *modelAttempt) isCall(index uint32) bool { return a.ops[index-a.start-1].kind == "call" }

func (a *modelAttempt) awaitsCall() bool { return slices.ContainsFunc(a.open(), a.isCall) }

// endedCancelled is a call that ended cancelled, 0 if none did.
func (a *modelAttempt) endedCancelled() uint32 {
	for _, index := range a.waits {
		if a.isCall(index) && a.completions[index].GetResult().GetError().GetCode() == codeCanceled {
			return index
		}
	}
	return 0
}

// isRun: entries and waits are in the same order, but for Wait entries, after which all ends.
func (a *modelAttempt) isRun(index uint32) bool { return a.ops[index-a.start-1].kind == "run" }

// runClosure starts a closure once its entry is durable, and records what it returned.
func (a *modelAttempt) runClosure(index uint32) {
	a.running[index] = true
	a.leader.grant(func() {
		w := a.leader.world
		if a.leader.attempts[a.id] != a {
			return
		}
		w.runs++
		result := &recordv1.Result{Value: []byte(fmt.Sprintf("run %d", w.runs))}
		a.completions[index] = &recordv1.Completion{Entry: index, Result: result}
		a.leader.evaluate(&CompleteRun{ID: a.id, Attempt: a.number, Index: index, Result: result})
	})
}

func (a *modelAttempt) append(entry *recordv1.Entry) {
	index := a.index + 1
	a.record(index, entry)
	a.leader.evaluate(&Append{ID: a.id, Attempt: a.number, Index: index, Entry: entry})
}

func (a *modelAttempt) add() string {
	if slices.Contains(strings.Fields(a.state), a.program.effect()) {
		a.leader.world.t.Fatalf("%s runs although its effect is there: %q", a.program.name, a.state)
	}
	return strings.TrimSpace(a.state + " " + a.program.effect())
}

func (a *modelAttempt) entry(o *op, index uint32) *recordv1.Entry {
	w, e := a.leader.world, &recordv1.Entry{At: a.leader.world.now}
	switch o.kind {
	case "set":
		e.Entry = &recordv1.Entry_SetState{SetState: &recordv1.SetState{Value: []byte(a.add())}}
	case "call":
		in := o.child.invoke(w.now)
		in.DueAt = 0
		in.Caller = &recordv1.Caller{InvocationId: append([]byte(nil), a.id[:]...), Entry: index}
		in.Chain = append(slices.Clone(a.row.Chain), a.program.target())
		e.Entry = &recordv1.Entry_Call{Call: &recordv1.Call{Invoke: in}}
	case "send":
		e.Entry = &recordv1.Entry_Send{Send: &recordv1.Send{Invoke: o.child.invoke(w.now)}}
	case "sleep":
		e.Entry = &recordv1.Entry_Sleep{Sleep: &recordv1.Sleep{Until: w.now + o.delay}}
	case "run":
		e.Entry = &recordv1.Entry_Run{Run: &recordv1.Run{Name: "r"}}
	case "awakeable":
		e.Entry = &recordv1.Entry_Awakeable{Awakeable: &recordv1.Awakeable{}}
	case "await":
		e.Entry = &recordv1.Entry_AwaitPromise{AwaitPromise: &recordv1.AwaitPromise{Name: o.name}}
	case "complete":
		e.Entry = &recordv1.Entry_CompletePromise{CompletePromise: &recordv1.CompletePromise{
			Name: o.name, Target: &recordv1.Target{Service: "Svc", Key: "k0"}, Result: &recordv1.Result{Value: []byte("v")}}}
	case "receive":
		e.Entry = &recordv1.Entry_Receive{Receive: &recordv1.Receive{Name: "sig"}}
	case "cancel":
		e.Entry = &recordv1.Entry_CancelInvocation{CancelInvocation: &recordv1.CancelInvocation{InvocationId: append([]byte(nil), o.target.id[:]...)}}
	}
	return e
}
