package sim

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/perdure/perdure/internal/history"
	"github.com/perdure/perdure/internal/invocation"
	recordv1 "github.com/perdure/perdure/internal/record/v1"
	"github.com/perdure/perdure/internal/routing"
)

const (
	purses = 5 // accounts that only transactions touch
	movers = 3
)

func purse(i int) string { return fmt.Sprint("b", i) }
func mover(i int) string { return fmt.Sprint("m", i) }
func target(service, key, handler string) invocation.Target {
	return invocation.Target{Service: service, Key: key, Handler: handler}
}

// lists is what callers did to the lists and saw of them.
type lists struct {
	history *history.Recorder
	mu      struct {
		sync.Mutex
		last  int64              // value that was appended
		acked map[string][]int64 // values whose append was acknowledged
	}
}

// value is the first of two new ones.
func (l *lists) value() int64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.mu.last += 2
	return l.mu.last
}

func (l *lists) ack(ops []history.Op) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, op := range ops {
		if op.Append {
			l.mu.acked[op.Key] = append(l.mu.acked[op.Key], op.Value)
		}
	}
}

func (w *world) anyList(random *chance) string { return w.load.lists[random.intn(len(w.load.lists))] }

// transactor makes one caller's transactions, one after another.
func (w *world) transactor(number int) {
	for i := range w.load.calls {
		random := newCallChance(w.seed, 200+number, i)
		if w.failure() != "" {
			return
		}
		key := fmt.Sprintf("t%d-%d", number, i)
		kind := random.intn(w.load.kinds)
		w.note(fmt.Sprint("transactor ", number), fmt.Sprint(key, " kind ", kind))
		switch {
		case kind < 10:
			w.batch(number, key, random)
		case kind < 12:
			w.appendOne(number, key, random)
		case kind < 13:
			w.slow(number, key, random)
		case kind < 14:
			w.readList(number, w.anyList(random))
		case kind < 15:
			w.total(key, random)
		default:
			w.move(key, random)
		}
		time.Sleep(random.between(0, 30*time.Millisecond))
	}
}

// plan makes up a transaction over some lists.
func (w *world) planBatch(random *chance) batch {
	b := batch{Together: random.intn(3) == 0, Fail: random.intn(12) == 0}
	only := random.intn(5) == 0 // reads
	free := random.intn(len(w.load.lists))
	key := func() string {
		if b.Together { // Two of them at once in one list would have no order.
			free++
			return w.load.lists[free%len(w.load.lists)]
		}
		return w.anyList(random)
	}
	for range 2 + random.intn(3) {
		switch kind := random.intn(20); {
		case only || kind < 5:
			if random.intn(5) == 0 && !b.Together {
				b.Steps = append(b.Steps, step{Do: "GetVia", Key: key(), Then: &step{Do: "Get", Key: key()}})
				continue
			}
			b.Steps = append(b.Steps, step{Do: "Get", Key: key()})
		case kind < 7:
			b.Steps = append(b.Steps, step{Do: "Look", Key: key()})
		case kind < 15:
			b.Steps = append(b.Steps, step{Do: "Append", Key: key(), Value: w.lists.value()})
		case kind < 16:
			b.Steps = append(b.Steps, step{Do: "Fail", Key: key(), Value: w.lists.value()})
		case b.Together:
			b.Steps = append(b.Steps, step{Do: "Append", Key: key(), Value: w.lists.value()})
		default:
			s := step{Do: "Via", Key: key(), Value: w.lists.value(), Then: &step{Do: "Append", Key: key(), Value: w.lists.value()}}
			if random.intn(3) == 0 {
				s.Do = "FailVia"
			}
			if random.intn(3) == 0 {
				below := s
				s = step{Do: "Via", Key: key(), Value: w.lists.value(), Then: &below}
			}
			b.Steps = append(b.Steps, s)
		}
	}
	return b
}

// fails reports whether a step, made by a handler whose callers hold the keys of chain, comes
// to nothing: on purpose, or because it calls back to one of them.
func (s *step) fails(chain ...string) bool {
	if slices.Contains(chain, s.Key) && !reads[s.Do] || strings.HasPrefix(s.Do, "Fail") {
		return true
	}
	return s.Then != nil && !reads[s.Then.Do] && s.Then.fails(append(chain, s.Key)...)
}

// fails says which steps of a batch come to nothing.
func (b batch) fails(i int) bool {
	s := &b.Steps[i]
	switch {
	case b.Root == "":
		return s.fails()
	case s.Key == b.Root && s.Then == nil:
		return s.Do == "Fail" // It makes that one itself.
	}
	return s.fails(b.Root)
}

// appends are what a batch appends if it takes effect, and what it takes back itself.
func (b batch) appends() (done, undone []history.Op) {
	for i := range b.Steps {
		for s := &b.Steps[i]; s != nil; s = s.Then {
			switch {
			case s.Value == 0:
			case b.Fail || b.fails(i):
				undone = append(undone, history.Append(s.Key, s.Value))
			default:
				done = append(done, history.Append(s.Key, s.Value))
			}
		}
	}
	return done, undone
}

// ops are what a batch that took effect did, in its order.
func (b batch) ops(all []*seen) (done []history.Op) {
	for i := range b.Steps {
		for s, saw := &b.Steps[i], all[i]; s != nil && !all[i].Failed; s, saw = s.Then, saw.Then {
			if s.Value != 0 {
				done = append(done, history.Append(s.Key, s.Value))
			}
			done = append(done, history.Read(s.Key, saw.List))
		}
	}
	return done
}

// batch runs a transaction over lists and notes what came of it.
func (w *world) batch(process int, key string, random *chance) {
	b := w.planBatch(random)
	if random.intn(3) == 0 {
		b.Root = w.anyList(random)
	}
	t, mode := b.target(), invocation.ModeTransaction
	limit, delay := time.Duration(0), time.Duration(0)
	way := random.intn(12)
	switch way {
	case 0, 1:
		t, mode = target("sim.Errands", "", "Errand"), invocation.ModeDurable
	case 2:
		limit = random.between(time.Millisecond, 200*time.Millisecond)
	case 3:
		delay = random.between(0, 100*time.Millisecond)
	}
	in := func() *recordv1.Invoke {
		in := invoke(t, mode, encode(b), key)
		in.StepTimeoutMs = limit.Milliseconds()
		return in
	}
	appends, undone := b.appends()
	w.lists.history.Begin(process).Aborted(undone...)
	pending := w.lists.history.Begin(process, appends...)
	var result *recordv1.Result
	switch {
	case way == 3:
		w.sendThis(in, delay)
		result = w.requestThis(key, in, random)
	case way >= 4 && way < 7:
		result = w.once(in(), random)
	default:
		var canceller sync.WaitGroup
		if random.intn(12) == 0 {
			id, _ := invocation.IDFromBytes(in().InvocationId)
			after, kill := random.between(0, 40*time.Millisecond), random.intn(2) == 0 || mode == invocation.ModeDurable
			canceller.Go(func() { w.cancel(id, after, kill) })
		}
		result = w.requestThis(key, in, random)
		canceller.Wait()
	}
	switch code := result.GetError().GetCode(); {
	case result == nil || code == codeUnavailable:
		pending.Unknown(appends...)
	case code == codeCanceled && mode == invocation.ModeDurable:
		pending.Unknown(appends...) // Its transaction goes on without it.
	case code == codeAborted && b.Fail || code == codeCanceled || code == codeDeadlineExceeded && limit > 0:
		pending.Aborted(appends...)
	case code != 0:
		w.fail("%s %s: %s", key, encode(b), text(result))
		pending.Unknown(appends...)
	default:
		var all []*seen
		decode(result.Value, &all)
		for i, saw := range all {
			if saw.Failed != b.fails(i) && b.Steps[i].Do != "GetVia" {
				w.fail("%s %s at %s: step %d has failed: %t", key, encode(b), t, i+1, saw.Failed)
			}
		}
		done := b.ops(all)
		w.lists.ack(done)
		pending.Committed(done...)
	}
}

// sendThis asks for an invocation one-way.
func (w *world) sendThis(in func() *recordv1.Invoke, delay time.Duration) {
	w.call(func(ctx context.Context, n *node) (*recordv1.Result, error) {
		in := in()
		if delay > 0 {
			in.DueAt = n.now().Add(delay).UnixMilli()
		}
		_, err := n.Send(ctx, in)
		return nil, err
	})
}

// once calls without a key and takes what comes: nil is no answer.
func (w *world) once(in *recordv1.Invoke, random *chance) *recordv1.Result {
	in.IdempotencyKey, in.RetentionMs = "", 0
	n := w.current()
	if n == nil {
		return nil
	}
	patience := 40 * time.Second
	if w.load.brisk > 1 {
		patience = time.Second
	}
	if random.intn(6) == 0 { // a caller that goes away
		patience = random.between(0, 20*time.Millisecond)
	}
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	result, err := n.Call(ctx, in)
	if err != nil || n.dead.Load() {
		return nil
	}
	return result
}

func (w *world) current() *node {
	n, _ := w.pick()
	return n
}

// cancel asks for the end of an invocation, which may not have begun or be over.
func (w *world) cancel(id invocation.ID, after time.Duration, kill bool) {
	time.Sleep(after)
	if n := w.current(); n != nil {
		ctx, cancel := context.WithTimeout(context.Background(), w.load.brief(5*time.Second))
		defer cancel()
		_ = n.Cancel(ctx, id, kill)
	}
}

// appendOne appends without a transaction.
func (w *world) appendOne(process int, key string, random *chance) {
	s := step{Do: "Append", Key: w.anyList(random), Value: w.lists.value()}
	op := history.Append(s.Key, s.Value)
	pending := w.lists.history.Begin(process, op)
	result := w.request(key, target("sim.List", s.Key, "Append"), invocation.ModeTransaction, encode(s), random)
	if result == nil || result.Error != nil {
		if result != nil {
			w.fail("%s: %s", key, text(result))
		}
		pending.Unknown(op)
		return
	}
	var saw seen
	decode(result.Value, &saw)
	w.lists.ack([]history.Op{op})
	pending.Committed(op, history.Read(s.Key, saw.List))
}

// watcher appends to a list and, as soon as that is acknowledged, looks at others, so that what
// transactions do to several lists is seen between any two instants.
func (w *world) watcher(process int) {
	random := newChance(w.seed, 200+uint64(process))
	for i := range 3 * w.load.calls {
		if w.failure() != "" {
			return
		}
		s := step{Do: "Append", Key: w.anyList(random), Value: w.lists.value()}
		op := history.Append(s.Key, s.Value)
		pending := w.lists.history.Begin(process, op)
		in := invoke(target("sim.List", s.Key, "Append"), invocation.ModeTransaction, encode(s), fmt.Sprintf("v%d-%d", process, i))
		if result := w.once(in, random); result == nil || result.Error != nil {
			pending.Unknown(op)
			time.Sleep(random.between(0, 50*time.Millisecond))
			continue
		}
		w.lists.ack([]history.Op{op})
		pending.Committed(op)
		for range 2 {
			w.readList(process, w.anyList(random))
		}
	}
}

// slow appends twice in a DURABLE handler, each append for itself.
func (w *world) slow(process int, key string, random *chance) {
	s := step{Do: "Slow", Key: w.anyList(random), Value: w.lists.value()}
	ops := []history.Op{history.Append(s.Key, s.Value), history.Append(s.Key, s.Value+1)}
	first, second := w.lists.history.Begin(process, ops[0]), w.lists.history.Begin(process, ops[1])
	result := w.request(key, target("sim.List", s.Key, "Slow"), invocation.ModeDurable, encode(s), random)
	if result == nil || result.Error != nil {
		if result != nil {
			w.fail("%s: %s", key, text(result))
		}
		first.Unknown(ops[0])
		second.Unknown(ops[1])
		return
	}
	w.lists.ack(ops)
	first.Committed(ops[0])
	second.Committed(ops[1])
}

// readList is a READ outside of any transaction. What was acknowledged before it is in it.
func (w *world) readList(process int, key string) {
	w.lists.mu.Lock()
	acked := slices.Clone(w.lists.mu.acked[key])
	w.lists.mu.Unlock()
	pending := w.lists.history.Begin(process)
	result, ok := w.call(func(ctx context.Context, n *node) (*recordv1.Result, error) {
		return n.look(ctx, target("sim.List", key, "Get"))
	})
	if !ok {
		return
	}
	values := list(result.Value)
	pending.Committed(history.Read(key, values))
	for _, v := range acked {
		if !slices.Contains(values, v) {
			w.fail("READ of %s saw %v, without %d, which was acknowledged before", key, values, v)
		}
	}
}

// move transfers money in one transaction.
func (w *world) move(key string, random *chance) {
	from := random.intn(purses)
	to := (from + 1 + random.intn(purses-1)) % purses
	name := purse
	if random.intn(4) == 0 { // among those that DURABLE transfers use too
		name = account
	}
	input := fmt.Sprintf("%s %s %d", name(from), name(to), 1+random.intn(500))
	t := target("sim.Mover", "", "Move")
	switch random.intn(3) {
	case 0:
		t.Key = mover(random.intn(movers))
	case 1:
		t = target("sim.Account", name(from), "Pay")
	}
	result := w.request(key, t, invocation.ModeTransaction, []byte(input), random)
	if code := result.GetError().GetCode(); code != 0 && code != codeFailedPrecondition {
		w.fail("%s %s: %s", key, input, text(result))
	}
}

// total is a transaction that only reads.
func (w *world) total(key string, random *chance) {
	var result *recordv1.Result
	t := target("sim.Mover", "", "Total")
	if random.intn(2) == 0 {
		result = w.once(invoke(t, invocation.ModeTransaction, nil, key), random)
	} else {
		result = w.request(key, t, invocation.ModeTransaction, nil, random)
	}
	switch code := result.GetError().GetCode(); {
	case result == nil || code == codeUnavailable:
	case code != 0:
		w.fail("%s: %s", key, text(result))
	case number(result.Value) != purses*funds:
		w.fail("a transaction saw %d of money, there is %d", number(result.Value), purses*funds)
	}
}

// checkNothingIsHeld: no transaction is left, in doubt or otherwise, and every object answers
// in the time that callers may wait when a leader is lost: leaderships may still be handed over, and what a transaction asked of
// the leader before is asked of the next one after a second or two.
func (w *world) checkNothingIsHeld(n *node) {
	// A leader that has just been elected takes up again what the one before had not yet written that it is over, and asks
	// at once whether it is.
	var left []routing.Transaction
	var err error
	for until := time.Now().Add(2 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		if left, err = n.Transactions(context.Background()); err == nil && len(left) == 0 || time.Now().After(until) {
			break
		}
	}
	if err != nil {
		w.fail("transactions: %v", err)
	}
	for _, t := range left {
		w.fail("at the end transaction %s/%d is %v in partition %d: %s", t.Root, t.Sequence, t.Phase, t.Partition, t.Reason)
	}
	answers := func(service, handler string, input []byte, keys []string) {
		atOnce(keys, func(key string) {
			t := target(service, key, handler)
			ctx, cancel := context.WithTimeout(context.Background(), 3*time.Second)
			defer cancel()
			result, err := n.Call(ctx, invoke(t, invocation.ModeTransaction, input, "probe"+t.String()))
			if err != nil || result.Error != nil {
				w.fail("at the end %s does not answer: %v %s", t, err, text(result))
			}
		})
	}
	answers("sim.List", "Look", nil, w.load.lists)
	answers("sim.Account", "Deposit", value(0), slices.Concat(names(purses, purse), names(accounts, account)))
	answers("sim.Mover", "Total", nil, names(movers, mover))
}

// checkLists holds the history of all transactions against strict serializability.
func (w *world) checkLists(n *node) {
	final := map[string][]int64{}
	for key, state := range w.states(n, "sim.List", w.load.lists...) {
		final[key] = list(state)
	}
	if w.failure() != "" {
		return
	}
	if found := history.Check(w.lists.history.History(), history.Options{Realtime: true, Final: final}); len(found) > 0 {
		w.fail("%s", history.Format(found))
	}
}
