package engine

import (
	"testing"

	"github.com/perdure/perdure/internal/invocation"
	recordv1 "github.com/perdure/perdure/internal/record/v1"
	"github.com/perdure/perdure/internal/transaction"
)

// traffic is three partitions whose messages arrive at once: 1 has most roots, 2 has the object a
// and 3 the object b.
type traffic struct {
	t       *testing.T
	now     int64
	engines [4]*Engine
	views   [4]mapView
	queue   []delivered
	roots   map[invocation.ID]*rootProgram
	keys    map[string]string
	// hash is where new roots are: 0 is partition 1.
	hash uint64
	// lost: messages that one starves, or does not any more, do not arrive.
	lost bool
}

type delivered struct {
	to    uint32
	event Event
}

// rootProgram calls one object after the other. Before the call pause, from 0, and before it ends
// if that is the number of its calls, it waits to be resumed.
type rootProgram struct {
	id      invocation.ID
	mode    invocation.Mode
	objects []string
	pause   int
	tries   uint32
	at      int
	paused  bool
	ended   *recordv1.Result
}

func newTraffic(t *testing.T) *traffic {
	w := &traffic{t: t, now: 1000, roots: map[invocation.ID]*rootProgram{}, keys: map[string]string{}}
	for p := uint32(1); p <= 3; p++ {
		w.views[p] = mapView{}
		w.engines[p] = New(Config{Partition: p, Partitions: 3}, w.views[p], 1)
	}
	for name, partition := range map[string]uint32{"a": 2, "b": 3} {
		for i := byte('a'); w.keys[name] == ""; i++ {
			if invocation.PartitionOf(invocation.Target{Service: "s", Key: string(i)}.Hash(), 3) == partition {
				w.keys[name] = string(i)
			}
		}
	}
	return w
}

// begin starts a transaction that has no key of its own.
func (w *traffic) begin(mode invocation.Mode, pause int, objects ...string) *rootProgram {
	w.now++
	id := invocation.NewID(w.hash, [16]byte{byte(len(w.roots) >> 8), byte(len(w.roots))})
	r := &rootProgram{id: id, mode: mode, objects: objects, pause: pause}
	w.roots[id] = r
	w.queue = append(w.queue, delivered{id.Partition(3), &Invoke{Token: 1, Invoke: &recordv1.Invoke{
		InvocationId: id[:], Mode: uint32(invocation.ModeTransaction), Target: &recordv1.Target{Service: "t", Handler: "T"},
	}}})
	w.settle()
	return r
}

// call calls one object, as a TRANSACTION of its own.
func (w *traffic) call(name string) *rootProgram {
	w.now++
	target := &recordv1.Target{Service: "s", Key: w.keys[name], Handler: "H"}
	id := invocation.NewID(targetOf(target).Hash(), [16]byte{1})
	r := &rootProgram{id: id, pause: -1}
	w.roots[id] = r
	w.queue = append(w.queue, delivered{id.Partition(3), &Invoke{Token: 1, Invoke: &recordv1.Invoke{InvocationId: id[:], Mode: uint32(invocation.ModeTransaction), Target: target}}})
	w.settle()
	return r
}

// resume lets a root go on that has paused.
func (w *traffic) resume(r *rootProgram) {
	if r.paused {
		r.paused, r.pause = false, -1
		w.step(r)
		w.settle()
	}
}

func (w *traffic) step(r *rootProgram) {
	switch {
	case r.at == r.pause:
		r.paused = true
	case r.at == len(r.objects):
		w.queue = append(w.queue, delivered{r.id.Partition(3), &Finish{ID: r.id, Attempt: r.tries, Result: &recordv1.Result{}}})
	default:
		w.queue = append(w.queue, delivered{r.id.Partition(3), &Call{ID: r.id, Attempt: r.tries, Index: uint32(r.at + 1), Invoke: &recordv1.Invoke{
			Target: &recordv1.Target{Service: "s", Key: w.keys[r.objects[r.at]], Handler: "H"}, Mode: uint32(r.mode),
		}}})
	}
}

func (w *traffic) settle() {
	for len(w.queue) > 0 {
		d := w.queue[0]
		w.queue = w.queue[1:]
		w.evaluate(d.to, d.event)
	}
}

func (w *traffic) tick() {
	for p := uint32(1); p <= 3; p++ {
		w.evaluate(p, &Tick{})
	}
	w.settle()
}

func (w *traffic) evaluate(at uint32, event Event) {
	out, err := w.engines[at].Evaluate(event, w.now)
	if err != nil {
		w.t.Fatal(err)
	}
	applyTo(w.views[at], out)
	for _, effect := range out.Effects {
		switch e := effect.(type) {
		case *Tell:
			if e.Peer.GetStarving() == nil || !w.lost {
				w.queue = append(w.queue, delivered{e.To, &Told{Peer: e.Peer}})
			}
		case *StartAttempt:
			if r := w.roots[e.ID]; r != nil {
				r.tries, r.at, r.paused = e.Row.Attempt, 0, false
				w.step(r)
				break
			}
			finish := &Finish{ID: e.ID, Attempt: e.Row.Attempt, Result: &recordv1.Result{}}
			if invocation.Mode(e.Row.Mode) == invocation.ModeTransaction {
				finish.Entries = []*recordv1.Entry{{Entry: &recordv1.Entry_SetState{SetState: &recordv1.SetState{Value: []byte("v")}}}}
			}
			w.queue = append(w.queue, delivered{at, finish})
		case *Notify:
			r := w.roots[e.ID]
			r.at++
			w.step(r)
		case *EndInvocation:
			w.roots[e.ID].ended = e.Row.Result
		case *EndAttempt:
			if r := w.roots[e.ID]; r != nil && len(r.objects) == 0 {
				r.ended = &recordv1.Result{}
			}
		}
	}
}

// TestReadersThatFollowEachOtherStarveNoWriter: there is always a transaction that reads an object
// the writer wants, and the next one has begun before it ends.
func TestReadersThatFollowEachOtherStarveNoWriter(t *testing.T) {
	for _, test := range []struct {
		name   string
		reads  [2][]string // by turns
		pause  int
		writer func(*traffic) *rootProgram
	}{
		{"they hold both objects until the next one does", [2][]string{{"a", "b"}, {"a", "b"}}, 2,
			func(w *traffic) *rootProgram { return w.begin(invocation.ModeTransaction, -1, "a", "b") }},
		{"they hold the second while they come for the first", [2][]string{{"b", "a"}, {"b", "a"}}, 1,
			func(w *traffic) *rootProgram { return w.begin(invocation.ModeTransaction, -1, "a", "b") }},
		{"each holds what the writer wants and comes for what it has", [2][]string{{"a", "b"}, {"b", "a"}}, 1,
			func(w *traffic) *rootProgram { return w.begin(invocation.ModeTransaction, -1, "b", "a") }},
		{"a call of one object", [2][]string{{"b", "a"}, {"b", "a"}}, 2,
			func(w *traffic) *rootProgram { return w.call("a") }},
	} {
		t.Run(test.name, func(t *testing.T) {
			const most, mostTries = 200, 10
			w := newTraffic(t)
			last := w.begin(invocation.ModeRead, test.pause, test.reads[0]...)
			writer := test.writer(w)
			readers := []*rootProgram{last}
			for writer.ended == nil && len(readers) < most {
				next := w.begin(invocation.ModeRead, test.pause, test.reads[len(readers)%2]...)
				readers = append(readers, next)
				w.resume(last)
				last = next
			}
			if writer.ended == nil || writer.ended.GetError() != nil || writer.tries > mostTries {
				t.Errorf("after %d readers the writer is in its try %d and has %v; want it to succeed in %d tries", len(readers), writer.tries, writer.ended, mostTries)
			}
			w.resume(last)
			for i, r := range readers {
				if r.ended == nil || r.ended.GetError() != nil || r.tries != 1 {
					t.Errorf("reader %d of %d is in try %d and has %v; want it to succeed in its first", i, len(readers), r.tries, r.ended)
				}
			}
			for p := 1; p <= 3; p++ {
				if e := w.engines[p]; e.Busy() || e.starving.Len() > 0 || len(e.early) > 0 {
					t.Errorf("partition %d: busy %v, %d starve, %d are held back", p, e.Busy(), e.starving.Len(), len(e.early))
				}
			}
		})
	}
}

// starvedBy makes a writer say that it starves, and returns it with the readers it waits for.
func starvedBy(w *traffic) (writer, first, last *rootProgram) {
	first = w.begin(invocation.ModeRead, 1, "a")
	writer = w.begin(invocation.ModeTransaction, -1, "a", "b")
	for last = first; w.engines[1].starving.Len() == 0; {
		next := w.begin(invocation.ModeRead, 1, "a")
		w.resume(last)
		last = next
	}
	return writer, first, last
}

// TestOnlyWhatIsYoungerAndReadsWaitsForOneThatStarves: nobody else does, and who is held back makes
// its calls in order once the other has ended.
func TestOnlyWhatIsYoungerAndReadsWaitsForOneThatStarves(t *testing.T) {
	w := newTraffic(t)
	w.now = 500
	older := w.begin(invocation.ModeRead, 0, "b")
	w.now = 1000
	writer, _, last := starvedBy(w)
	if w.resume(older); older.ended == nil {
		t.Errorf("one that began before the writer is held back")
	}
	held := w.begin(invocation.ModeRead, -1, "b", "a")
	if other := w.begin(invocation.ModeTransaction, -1, "b"); other.ended == nil {
		t.Errorf("one that writes is held back")
	}
	if held.ended != nil || len(w.engines[1].early) != 1 {
		t.Fatalf("one that only reads has begun: %v", held.ended)
	}
	if w.resume(last); writer.ended == nil || held.ended == nil || held.tries != 1 {
		t.Errorf("the writer has %v; who was held back has %v, in try %d", writer.ended, held.ended, held.tries)
	}
}

// TestWhoIsHeldBackGoesOnWithAWrite: one that reads and then writes is not one that only reads, and
// its calls are made in the order in which it made them.
func TestWhoIsHeldBackGoesOnWithAWrite(t *testing.T) {
	w := newTraffic(t)
	starvedBy(w)
	r := w.begin(invocation.ModeRead, 0, "b")
	call := func(index uint32, mode invocation.Mode) {
		w.evaluate(1, &Call{ID: r.id, Attempt: 1, Index: index, Invoke: &recordv1.Invoke{
			Target: &recordv1.Target{Service: "s", Key: w.keys["b"], Handler: "H"}, Mode: uint32(mode),
		}})
	}
	call(1, invocation.ModeRead)
	call(2, invocation.ModeRead)
	if len(w.queue) != 0 || len(w.engines[1].early) != 2 {
		t.Fatalf("%d messages, %d calls held back; want the two calls held back", len(w.queue), len(w.engines[1].early))
	}
	call(3, invocation.ModeTransaction)
	var order []uint32
	for _, d := range w.queue {
		if join := d.event.(*Told).Peer.GetJoin(); join != nil {
			order = append(order, join.Index)
		}
	}
	if len(order) != 3 || order[0] != 1 || order[1] != 2 || order[2] != 3 {
		t.Errorf("calls were made in the order %v", order)
	}
}

// TestHeldBackOnlySoLong: the word that it is over was lost.
func TestHeldBackOnlySoLong(t *testing.T) {
	w := newTraffic(t)
	writer, _, last := starvedBy(w)
	w.lost = true
	w.resume(last)
	w.hash = 1 << 63
	held := w.begin(invocation.ModeRead, -1, "a", "b")
	w.tick()
	if writer.ended == nil || held.ended != nil {
		t.Fatalf("the writer has %v, the reader %v; want it held back still", writer.ended, held.ended)
	}
	w.now += transaction.HeldBackFor
	if w.tick(); held.ended == nil {
		t.Errorf("the reader is held back for longer than %d ms", transaction.HeldBackFor)
	}
}
