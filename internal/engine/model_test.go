package engine

import (
	"bytes"
	"fmt"
	"slices"
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"
	"pgregory.net/rapid"

	"github.com/perdure/perdure/internal/invocation"
	recordv1 "github.com/perdure/perdure/internal/record/v1"
	"github.com/perdure/perdure/internal/table"
)

// TestModel runs random programs on four partitions whose messages are lost, repeated and
// overtaken and whose leaders die, and checks after each event what must always hold and, once
// everything has come to rest, that what was promised was kept.
func TestModel(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		w := newWorld(t)
		for range rapid.IntRange(1, 150).Draw(t, "steps") {
			w.step()
		}
		w.rest()
		w.checkPromises()
		w.expire()
	})
}

// pick draws an index: the elements are too large for rapid's report.
func pick[T any](t *rapid.T, label string, from []T) T {
	return from[rapid.IntRange(0, len(from)-1).Draw(t, label)]
}

var clientModes = []invocation.Mode{
	invocation.ModeTransaction, invocation.ModeTransaction, invocation.ModeTransaction,
	invocation.ModeDurable, invocation.ModeDurable, invocation.ModeRun, invocation.ModeSignal,
}

func (w *world) step() {
	t := w.t
	l := pick(t, "partition", w.leaders)
	action := rapid.SampledFrom([]string{
		"request", "request", "repeat", "advance", "advance", "advance", "advance", "advance", "flush", "flush", "deliver", "deliver", "deliver",
		"drop", "duplicate", "resend", "crash", "time", "stale", "suspend", "suspend", "timeout", "restart", "cancel", "kill", "pause", "resume", "purge", "attach", "hangup", "awakeable", "promise", "rules", "rules",
		"restart as new", "restart as new", "copy", "copy",
	}).Draw(t, "action")
	switch action {
	case "request":
		p := w.draw(2, 0, clientModes...)
		p.delay = rapid.SampledFrom([]int64{0, 0, 0, 200}).Draw(t, "delay")
		if p.mode == invocation.ModeSignal {
			p.delay = 0
		}
		w.requests = append(w.requests, p)
		w.request(p)
	case "repeat":
		if p := w.drawRequest(); p != nil && p.idem != "" {
			w.request(p)
		}
	case "advance":
		if a := l.drawAttempt(); a != nil {
			a.advance()
		}
	case "flush":
		l.flush(rapid.IntRange(1, 8).Draw(t, "records"))
	case "deliver", "drop", "duplicate":
		if len(w.network) == 0 {
			return
		}
		i := rapid.IntRange(0, min(len(w.network)-1, 5)).Draw(t, "packet")
		p := w.network[i]
		if action != "duplicate" {
			w.network = slices.Delete(w.network, i, i+1)
		}
		if action != "drop" {
			w.deliver(p)
		}
	case "resend":
		l.resend()
	case "crash":
		l.crash()
	case "time":
		w.now += rapid.Int64Range(1, 200).Draw(t, "ms")
		l.fireDue()
	case "stale":
		if a := l.drawAttempt(); a != nil {
			l.stale(a)
		}
	case "suspend":
		if a := l.drawAttempt(); a != nil {
			a.suspend()
		}
	case "timeout":
		if a := l.drawAttempt(); a != nil && rapid.IntRange(0, 3).Draw(t, "rare") == 0 {
			l.evaluate(&TimeOut{ID: a.id, Attempt: a.number})
		}
	case "restart":
		if a := l.drawAttempt(); a != nil {
			l.evaluate(&Restart{ID: a.id, Attempt: a.number})
		}
	case "cancel", "kill":
		if p := w.drawRequest(); p != nil && rapid.IntRange(0, 2).Draw(t, "rare") == 0 {
			at := w.of(p.id)
			at.evaluate(&Cancel{ID: p.id, Kill: action == "kill", Token: at.newToken(invocation.ID{})})
		}
	case "pause", "resume", "purge":
		p := w.drawRequest()
		if p == nil || action == "purge" && p.idem != "" {
			return // A repeated request would run again.
		}
		at := w.of(p.id)
		events := map[string]Event{
			"pause": &Pause{ID: p.id, Token: at.newToken(invocation.ID{})}, "resume": &Resume{ID: p.id, Token: at.newToken(invocation.ID{})},
			"purge": &Purge{ID: p.id, Token: at.newToken(invocation.ID{})},
		}
		before := at.row(p.id)
		_, copied := at.engine.copies.Of(p.id)
		at.evaluate(events[action])
		switch row := at.row(p.id); {
		case action == "pause" && at.attempts[p.id] != nil && p.mode.Journaled():
			t.Fatalf("%s is paused, and an attempt of it runs", p.name)
		case action == "resume" && before.GetStatus() == recordv1.Status_STATUS_PAUSED && row.GetStatus() == recordv1.Status_STATUS_PAUSED:
			t.Fatalf("%s was resumed and is paused", p.name)
		case action == "purge" && copied:
			if row == nil || row.Purging {
				t.Fatalf("%s was purged while it was copied", p.name)
			}
		case action == "purge" && before != nil && completed(before.Status) && row != nil && !row.Purging:
			t.Fatalf("%s was purged and is there", p.name)
		case action == "purge" && before != nil && completed(before.Status):
			w.purged[p.name] = true
		}
	case "attach", "hangup":
		if p := w.drawRequest(); p != nil {
			at := w.of(p.id)
			token := at.newToken(p.id)
			at.evaluate(&Attach{ID: p.id, Token: token})
			if action == "hangup" && !w.answered[token] && !at.isGated(token) {
				at.evaluate(&Hangup{ID: p.id, Token: token})
				w.answered[token] = true // any answer from now on is one too many
			}
		}
	case "rules":
		w.changeRules()
	case "restart as new":
		w.restartAsNew()
	case "copy":
		l.copyOn()
	case "awakeable":
		w.completeAwakeables(1)
	case "promise":
		o := invocation.Object{Service: "Svc", Key: fmt.Sprintf("k%d", rapid.IntRange(0, 5).Draw(t, "key"))}
		at := w.leaders[invocation.PartitionOf(invocation.Target{Service: o.Service, Key: o.Key}.Hash(), modelPartitions)-1]
		at.evaluate(&CompletePromise{Object: o, Name: "p", Result: &recordv1.Result{Value: []byte("v")}, Token: at.newToken(invocation.ID{})})
	}
}

// isGated: the answer is given and waits for the log.
func (l *leader) isGated(token Token) bool {
	for _, r := range l.pending {
		for _, effect := range r.gated {
			if reply, ok := effect.(*Reply); ok && reply.Token == token {
				return true
			}
		}
	}
	return false
}

func (w *world) drawRequest() *program {
	if len(w.requests) == 0 {
		return nil
	}
	return pick(w.t, "request", w.requests)
}

func (w *world) request(p *program) {
	l := w.of(p.id)
	if l.row(p.id) == nil {
		if p.asked && l.engine.live[p.id] == nil {
			// Its retention was over, or a crash took it back: it runs again, once all have heard of
			// the time before.
			l.flush(len(l.pending))
			p.again = true
		}
		delete(w.results, p.id)
	}
	p.asked = true
	l.evaluate(&Invoke{Invoke: p.invoke(w.now), Token: l.newToken(p.id), OneWay: len(p.name)%2 == 0 || p.delay > 0})
}

func (w *world) deliver(p packet) { w.leaders[p.to-1].evaluate(p.event) }

func (l *leader) sortedAttempts() []*modelAttempt {
	var all []*modelAttempt
	for _, a := range l.attempts {
		all = append(all, a)
	}
	slices.SortFunc(all, func(a, b *modelAttempt) int { return bytes.Compare(a.id[:], b.id[:]) })
	return all
}

func (l *leader) drawAttempt() *modelAttempt {
	all := l.sortedAttempts()
	if len(all) == 0 {
		return nil
	}
	return pick(l.world.t, "attempt", all)
}

// stale says what a superseded attempt might say; nothing may come of it.
func (l *leader) stale(a *modelAttempt) {
	old := a.number - 1
	for _, event := range []Event{
		&Append{ID: a.id, Attempt: old, Index: a.index + 1, Entry: &recordv1.Entry{Entry: &recordv1.Entry_Awakeable{Awakeable: &recordv1.Awakeable{}}}},
		&CompleteRun{ID: a.id, Attempt: old, Index: 1, Result: &recordv1.Result{Value: []byte("stale")}},
		&Finish{ID: a.id, Attempt: old, Result: &recordv1.Result{Value: []byte("stale")}},
		&Fail{ID: a.id, Attempt: old}, &Suspend{ID: a.id, Attempt: old}, &TimeOut{ID: a.id, Attempt: old}, &Restart{ID: a.id, Attempt: old},
	} {
		out, err := l.engine.Evaluate(event, l.world.now)
		if err != nil || len(out.Mutations) > 0 || len(out.Effects) > 0 {
			l.world.t.Fatalf("%T of attempt %d of %s was heeded, attempt %d runs: %v, %d mutations, %d effects",
				event, old, a.program.name, a.number, err, len(out.Mutations), len(out.Effects))
		}
	}
}

func (a *modelAttempt) suspend() {
	open := a.open()
	if !a.program.mode.Journaled() || a.step < len(a.ops) || len(open) == 0 || a.cancelled && (a.endedCancelled() != 0 || !a.awaitsCall()) || a.delivered {
		return
	}
	for _, index := range open {
		if a.isRun(index) {
			return
		}
	}
	a.leader.evaluate(&Suspend{ID: a.id, Attempt: a.number, WaitingFor: open})
}

// completeAwakeables resolves up to n awakeables that nobody resolved.
func (w *world) completeAwakeables(n int) (did bool) {
	for _, l := range w.leaders {
		var keys []string
		l.view.rows.Ascend("j", func(key string, _ []byte) bool {
			if key[0] == 'j' {
				keys = append(keys, key)
			}
			return key[0] == 'j'
		})
		for _, key := range keys {
			value, _ := l.view.rows.Get(key)
			entry := &recordv1.Entry{}
			if err := proto.Unmarshal(value, entry); err != nil || entry.GetAwakeable() == nil {
				continue
			}
			id := invocation.ID([]byte(key[1 : 1+invocation.IDBytes]))
			index, _ := table.ParseEntry([]byte(key))
			row := l.row(id)
			if _, done := l.view.rows.Get(string(table.Completion(id, index))); done || row == nil || completed(row.Status) || index <= row.JournalStart {
				continue
			}
			if n--; n < 0 {
				return did
			}
			did = true
			l.evaluate(&CompleteAwakeable{ID: invocation.AwakeableID{Invocation: id, Entry: index, Nonce: entry.GetAwakeable().GetNonce()}, Result: &recordv1.Result{Value: []byte("v")}, Token: l.newToken(invocation.ID{})})
		}
	}
	return did
}

// rest lets everything end: no more faults, and whatever waits gets what it waits for.
func (w *world) rest() {
	for round := range 500 {
		busy := false
		for _, l := range w.leaders {
			l.flush(len(l.pending))
			busy = l.copyOn() || l.fireDue() || busy
			for _, a := range l.sortedAttempts() {
				if l.attempts[a.id] == a {
					busy = !a.advance() || busy
				}
			}
			l.flush(len(l.pending))
		}
		busy = len(w.network) > 0 || busy
		packets := w.network
		w.network = nil
		for _, p := range packets {
			w.deliver(p)
		}
		if busy {
			continue
		}
		if w.wake(round) {
			continue
		}
		return
	}
	w.t.Fatalf("no rest: %s", w.describe())
}

// wake gives those that wait what they wait for: time, messages that were lost, awakeables,
// promises, signals. Paused ones are killed.
func (w *world) wake(round int) bool {
	for _, l := range w.leaders {
		l.resend()
	}
	if len(w.network) > 0 {
		return true
	}
	next := int64(0)
	for _, l := range w.leaders {
		for _, timer := range l.timers() {
			if timer.Kind != table.TimerExpire && timer.Kind != table.TimerInbox && (next == 0 || timer.At < next) {
				next = timer.At
			}
		}
	}
	if next > 0 {
		w.now = max(w.now, next)
		return true
	}
	if w.removeRules() || w.completeAwakeables(1000) || w.suspendAll() {
		return true
	}
	woken := false
	for _, l := range w.leaders {
		var kill []invocation.ID
		l.view.rows.Ascend("i", func(key string, _ []byte) bool {
			id, err := table.ParseID([]byte(key))
			if err == nil {
				if l.row(id).Status == recordv1.Status_STATUS_PAUSED {
					kill = append(kill, id)
				}
			}
			return key[0] == 'i'
		})
		for _, id := range kill {
			woken = true
			l.evaluate(&Cancel{ID: id, Kill: true, Token: l.newToken(invocation.ID{})})
		}
		for _, p := range w.sortedPrograms() {
			if w.of(p.id) != l || p.key == "" || l.row(p.id) == nil || completed(l.row(p.id).Status) {
				continue
			}
			o := invocation.Object{Service: "Svc", Key: p.key}
			if value, ok := l.view.rows.Get(string(table.Promise(o, "p"))); ok {
				row := &recordv1.Promise{}
				if err := proto.Unmarshal(value, row); err != nil {
					w.t.Fatal(err)
				}
				if row.Result == nil {
					woken = true
					l.evaluate(&CompletePromise{Object: o, Name: "p", Result: &recordv1.Result{Value: []byte("v")}, Token: l.newToken(invocation.ID{})})
				}
			}
			if l.waitsForSignal(p) {
				woken = true
				signal := &program{name: fmt.Sprintf("signal %d %s", round, p.name), key: p.key, handler: "sig", mode: invocation.ModeSignal}
				hash := invocation.Target{Service: "Svc", Key: p.key}.Hash()
				signal.id = invocation.NewID(hash, [16]byte{byte(round), byte(round >> 8), 's'})
				l.evaluate(&Invoke{Invoke: signal.invoke(w.now), Token: l.newToken(invocation.ID{})})
			}
		}
	}
	return woken
}

// waitsForSignal: a live invocation has a Receive entry without a completion.
func (l *leader) waitsForSignal(p *program) bool {
	for i := l.row(p.id).GetJournalStart() + 1; ; i++ {
		value, ok := l.view.rows.Get(string(table.Journal(p.id, i)))
		if !ok {
			return false
		}
		entry := &recordv1.Entry{}
		if err := proto.Unmarshal(value, entry); err != nil {
			l.world.t.Fatal(err)
		}
		if _, done := l.view.rows.Get(string(table.Completion(p.id, i))); entry.GetReceive() != nil && !done {
			return true
		}
	}
}

func (w *world) sortedPrograms() []*program {
	var all []*program
	for _, p := range w.programs {
		all = append(all, p)
	}
	slices.SortFunc(all, func(a, b *program) int { return strings.Compare(a.name, b.name) })
	return all
}

func (w *world) describe() string {
	var out strings.Builder
	for _, l := range w.leaders {
		live, held := l.engine.Live()
		fmt.Fprintf(&out, "\npartition %d: %d live, %d keys held", l.id, live, held)
		for _, p := range w.sortedPrograms() {
			if row := l.row(p.id); row != nil && !completed(row.Status) {
				fmt.Fprintf(&out, "\n  %s %s key=%s waiting for %v%s", p.name, row.Status, p.key, row.WaitingFor, flowText(row))
			}
		}
	}
	return out.String()
}

// checkPromises compares what callers were told, what the rows say and what happened.
func (w *world) checkPromises() {
	t := w.t
	effects := map[string]int{}
	for _, l := range w.leaders {
		live, held := l.engine.Live()
		if live != 0 || held != 0 || len(l.engine.waiters) != 0 || len(l.attempts) != 0 {
			t.Fatalf("at rest, partition %d has %d waiters, %d attempts: %s", l.id, len(l.engine.waiters), len(l.attempts), w.describe())
		}
		if got, want := l.engine.Limits().Book().Version(), w.rulesHome().durableRules(); got != want {
			t.Fatalf("at rest, partition %d has rules of version %d, not %d", l.id, got, want)
		}
		l.view.rows.Ascend("s", func(key string, value []byte) bool {
			if key[0] != 's' {
				return false
			}
			for _, name := range strings.Fields(string(value)) {
				effects[name]++
			}
			return true
		})
	}
	for name, n := range effects {
		if n != 1 {
			t.Fatalf("%s took effect %d times", name, n)
		}
	}
	for _, p := range w.sortedPrograms() {
		l := w.of(p.id)
		row, took := l.row(p.id), effects[p.effect()] == 1
		if row != nil && !completed(row.Status) {
			t.Fatalf("%s never completed: %s", p.name, w.describe())
		}
		if row != nil && row.Result == nil {
			t.Fatalf("%s is %s without a result", p.name, row.Status)
		}
		told, wasTold := w.results[p.id]
		if row != nil && wasTold && told != resultText(row.Result) {
			t.Fatalf("%s returned %s and its row says %s", p.name, told, resultText(row.Result))
		}
		if w.accepted[p.name] && row == nil && p.mode != invocation.ModeSignal && p.retention >= 5000 && !w.expired(p) {
			t.Fatalf("%s was acknowledged and is gone", p.name)
		}
		if p.mode == invocation.ModeTransaction || p.mode == invocation.ModeDurable && p.key != "" {
			succeeded := wasTold && !strings.HasPrefix(told, "error") || row.GetStatus() == recordv1.Status_STATUS_SUCCEEDED
			if succeeded && !took && !p.restarted {
				t.Fatalf("%s succeeded (%s, %s) without its effect", p.name, told, row.GetStatus())
			}
			// One that may have run twice can have taken effect the first time.
			if p.mode == invocation.ModeTransaction && took && !p.again && (row != nil && row.Status != recordv1.Status_STATUS_SUCCEEDED || strings.HasPrefix(told, "error")) {
				t.Fatalf("%s failed (%s, %s) and took effect", p.name, told, row.GetStatus())
			}
		}
		for i := range p.ops {
			w.checkChild(p, &p.ops[i], took, effects)
		}
	}
}

// checkChild: what a handler sent exists if and only if the handler took effect.
func (w *world) checkChild(p *program, o *op, took bool, effects map[string]int) {
	if o.kind != "send" || p.mode != invocation.ModeTransaction {
		return
	}
	child := o.child
	row := w.of(child.id).row(child.id)
	exists := row != nil || effects[child.name] == 1
	if exists && !took {
		w.t.Fatalf("%s was sent by %s, which did not commit", child.name, p.name)
	}
	if took && !exists && child.mode != invocation.ModeSignal && child.retention >= 5000 && !w.expired(child) {
		w.t.Fatalf("%s was sent by %s, which committed, and is gone", child.name, p.name)
	}
}

// expired: so much time has passed that its row may have been removed.
func (w *world) expired(p *program) bool { return w.now > p.retention || w.purged[p.name] }

// expire lets every retention end: nothing may be left but objects' data.
func (w *world) expire() {
	for range 20 {
		w.now += 2 * runRetention
		for _, l := range w.leaders {
			l.fireDue()
			l.flush(len(l.pending))
		}
	}
	for _, l := range w.leaders {
		if rows := l.leaked(); rows != "" {
			w.t.Fatalf("rows are left: %s", rows)
		}
	}
}
