package engine

import (
	"strconv"
	"testing"

	"github.com/perdure/perdure/internal/invocation"
	recordv1 "github.com/perdure/perdure/internal/record/v1"
)

// The engine's own work per call, without any I/O: rows live in a map.

func applyTo(view mapView, out *Output) {
	for _, m := range out.Mutations {
		if m.Delete {
			delete(view, string(m.Key))
		} else {
			view[string(m.Key)] = m.Value
		}
	}
}

func benchInvoke(i int, key string, mode invocation.Mode) *recordv1.Invoke {
	target := invocation.Target{Service: "bench.v1.CounterService", Key: key, Handler: "Add"}
	id := invocation.DerivedID(target, "bench", strconv.Itoa(i))
	return &recordv1.Invoke{
		InvocationId: id[:], Mode: uint32(mode), Input: []byte("12345678"),
		Target: &recordv1.Target{Service: target.Service, Key: target.Key, Handler: target.Handler},
	}
}

// BenchmarkTransaction is a call with its commit.
func BenchmarkTransaction(b *testing.B) {
	view := mapView{}
	e := New(Config{Partition: 1, Partitions: 1}, view, 1)
	state := []*recordv1.Entry{{Entry: &recordv1.Entry_SetState{SetState: &recordv1.SetState{Value: []byte("state")}}}}
	invokes := make([]*recordv1.Invoke, 1000)
	for i := range invokes {
		invokes[i] = benchInvoke(i, "k"+strconv.Itoa(i), invocation.ModeTransaction)
	}
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		in := invokes[i%len(invokes)]
		out, err := e.Evaluate(&Invoke{Invoke: in, Token: 1}, 1)
		if err != nil || len(out.Effects) != 1 {
			b.Fatal(err, out)
		}
		out, err = e.Evaluate(&Finish{ID: invocation.ID(in.InvocationId), Attempt: 1, Result: &recordv1.Result{Value: []byte("result")}, Entries: state}, 1)
		if err != nil || len(out.Mutations) != 1 {
			b.Fatal(err, out)
		}
		applyTo(view, out)
	}
}

// BenchmarkDurable is a call with ten Run steps.
func BenchmarkDurable(b *testing.B) {
	view := mapView{}
	e := New(Config{Partition: 1, Partitions: 1}, view, 1)
	run := &recordv1.Entry{Site: "bench.go:1", Entry: &recordv1.Entry_Run{Run: &recordv1.Run{Name: "step"}}}
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		in := benchInvoke(i, "", invocation.ModeDurable)
		id := invocation.ID(in.InvocationId)
		evaluate := func(event Event) {
			out, err := e.Evaluate(event, 1)
			if err != nil {
				b.Fatal(err)
			}
			applyTo(view, out)
		}
		evaluate(&Invoke{Invoke: in, Token: 1})
		for step := uint32(1); step <= 10; step++ {
			evaluate(&Append{ID: id, Attempt: 1, Index: step, Entry: run})
			evaluate(&CompleteRun{ID: id, Attempt: 1, Index: step, Result: &recordv1.Result{Value: []byte("1")}})
		}
		evaluate(&Finish{ID: id, Attempt: 1, Result: &recordv1.Result{Value: []byte("result")}})
	}
	if live, held := e.Live(); live != 0 || held != 0 {
		b.Fatalf("%d invocations and %d keys are left", live, held)
	}
}
