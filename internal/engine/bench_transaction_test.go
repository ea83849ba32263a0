package engine

import (
	"testing"

	"github.com/perdure/perdure/internal/invocation"
	recordv1 "github.com/perdure/perdure/internal/record/v1"
)

// BenchmarkTransfer is a transaction over objects of two partitions with its root in a third: all
// that three engines have to do for it, messages delivered at once and without any I/O.
func BenchmarkTransfer(b *testing.B) {
	const partitions = 3
	keyIn := func(partition uint32) string {
		for i := byte('a'); ; i++ {
			if invocation.PartitionOf(invocation.Target{Service: "s", Key: string(i)}.Hash(), partitions) == partition {
				return string(i)
			}
		}
	}
	root, keys := invocation.NewID(0, [16]byte{1}), []string{keyIn(2), keyIn(3)} // hash 0 is partition 1
	state := []*recordv1.Entry{{Entry: &recordv1.Entry_SetState{SetState: &recordv1.SetState{Value: []byte("state")}}}}
	done := &recordv1.Result{Value: []byte("result")}
	type delivery struct {
		to    uint32
		event Event
	}
	engines, views := make([]*Engine, partitions+1), make([]mapView, partitions+1)
	for p := uint32(1); p <= partitions; p++ {
		views[p] = mapView{}
		engines[p] = New(Config{Partition: p, Partitions: partitions, HandOn: always}, views[p], 1)
	}
	var queue []delivery
	replies := 0
	call := func(index uint32) delivery {
		return delivery{1, &Call{ID: root, Attempt: 1, Index: index, Invoke: &recordv1.Invoke{
			Target: &recordv1.Target{Service: "s", Key: keys[index-1], Handler: "H"}, Mode: uint32(invocation.ModeTransaction),
		}}}
	}
	act := func(at uint32, effect Effect) {
		switch e := effect.(type) {
		case *Tell:
			queue = append(queue, delivery{e.To, &Told{Peer: e.Peer}})
		case *StartAttempt:
			if e.ID == root {
				queue = append(queue, call(1))
				return
			}
			queue = append(queue, delivery{at, &Finish{ID: e.ID, Attempt: e.Row.Attempt, Result: done, Entries: state}})
		case *Notify:
			if e.Completion.Entry < uint32(len(keys)) {
				queue = append(queue, call(e.Completion.Entry+1))
				return
			}
			queue = append(queue, delivery{1, &Finish{ID: root, Attempt: 1, Result: done}})
		case *Reply:
			replies++
		}
	}
	transfers := 0
	b.ReportAllocs()
	for b.Loop() {
		transfers++
		queue = append(queue[:0], delivery{1, &Invoke{Token: 1, Invoke: &recordv1.Invoke{
			InvocationId: root[:], Mode: uint32(invocation.ModeTransaction), Target: &recordv1.Target{Service: "t", Handler: "Transfer"},
		}}})
		for i := 0; i < len(queue); i++ {
			d := queue[i]
			out, err := engines[d.to].Evaluate(d.event, 1)
			if err != nil {
				b.Fatal(err)
			}
			applyTo(views[d.to], out)
			for _, effect := range out.Effects {
				act(d.to, effect)
			}
		}
	}
	if replies != transfers {
		b.Fatalf("%d replies to %d transfers", replies, transfers)
	}
	for p := 1; p <= partitions; p++ {
		if live, held := engines[p].Live(); live != 0 || held != 0 || engines[p].Busy() {
			b.Fatalf("partition %d: %d invocations and %d keys are left", p, live, held)
		}
	}
}
