package partition

import (
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/uuid"

	"github.com/perdure/perdure/internal/invocation"
	"github.com/perdure/perdure/internal/invoker"
	recordv1 "github.com/perdure/perdure/internal/record/v1"
	"github.com/perdure/perdure/internal/routing"
	"github.com/perdure/perdure/storage/memstore"
	"github.com/perdure/perdure/storage/nodelog"
	"github.com/perdure/perdure/storage/vfs"
)

// spreader is an invoker whose handlers without a key call "Add" of the object that their input
// names; a DURABLE one never ends. Others are an adder's, and write what spoil says.
type spreader struct {
	adder
	spoil []*recordv1.Entry
}

func (s spreader) Start(a *invoker.Attempt) invoker.Running {
	switch {
	case a.Mode == invocation.ModeDurable:
		return adder{}
	case a.Target.Key == "":
		a.Host.Call(a, 1, &recordv1.Invoke{
			Target: &recordv1.Target{Service: "bench.v1.CounterService", Key: string(a.Input), Handler: "Add"},
			Mode:   uint32(invocation.ModeTransaction), Input: []byte("1"),
		})
		return root{attempt: a}
	case s.spoil != nil:
		a.Host.Finish(a, &invoker.Outcome{Result: &recordv1.Result{}, Entries: s.spoil})
		return adder{}
	}
	return s.adder.Start(a)
}

type root struct {
	adder
	attempt *invoker.Attempt
}

func (r root) Notify(_ uint32, c *recordv1.Completion) {
	r.attempt.Host.Finish(r.attempt, &invoker.Outcome{Result: c.Result})
}

// rootIn is a call of a handler without a key that runs in a partition.
func rootIn(partition uint32, callee string) *recordv1.Invoke {
	id := invocation.NewID(uint64(partition-1), uuid.Must(uuid.NewV7()))
	return &recordv1.Invoke{
		InvocationId: id[:], Target: &recordv1.Target{Service: "bench.v1.RootService", Handler: "Do"},
		Mode: uint32(invocation.ModeTransaction), Input: []byte(callee),
	}
}

func startInMemory(t *testing.T, partitions uint32, inv invoker.Invoker) *node {
	t.Helper()
	log, err := nodelog.Open(nodelog.Options{Dir: "/log", FS: vfs.NewMem()})
	if err != nil {
		t.Fatal(err)
	}
	return startOn(t, log, memstore.New(memstore.Options{}), partitions, inv, func() { _ = log.Close() })
}

// A transaction within one partition sends no messages, and its time is over all the same.
func TestTransactionInOnePartitionTakesNoLongerThanItMay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := startInMemory(t, 1, spreader{})
		defer n.stop()
		time.Sleep(10 * time.Second) // It has nothing to look after for long.
		if _, err := n.Send(t.Context(), request("busy", 1, invocation.ModeDurable)); err != nil {
			t.Fatal(err)
		}
		began := time.Now()
		result, err := n.Call(t.Context(), rootIn(1, "busy"))
		if err != nil || result.GetError().GetCode() != uint32(routing.CodeDeadlineExceeded) {
			t.Errorf("got %v, %v, want deadline_exceeded", result, err)
		}
		if took := time.Since(began); took > 35*time.Second {
			t.Errorf("it took %s, want about 30 s", took)
		}
	})
}

// What breaks the evaluation of a participant's part costs one leadership, not all that follow.
func TestPromiseThatBreaksTheEvaluation(t *testing.T) {
	for name, spoil := range map[string]*recordv1.Entry{
		"when it is written":  {},
		"when it is promised": {Entry: &recordv1.Entry_TablePut{TablePut: &recordv1.TablePut{Table: "t", Key: "\xff", Value: []byte("x")}}},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				n := startInMemory(t, 2, spreader{spoil: []*recordv1.Entry{spoil}})
				defer n.stop()
				key := "a"
				for n.ofObject(invocation.Object{Service: "bench.v1.CounterService", Key: key}).id != 2 {
					key += "a"
				}
				before := n.partitions[1].leading.Load().epoch
				in := rootIn(1, key)
				in.RetentionMs, in.IdempotencyKey = 60_000, "once" // It is not asked alone.
				result, err := n.Call(t.Context(), in)
				t.Log(result, err)
				time.Sleep(2 * time.Minute)
				l := n.partitions[1].leading.Load()
				if l == nil {
					t.Fatal("nobody leads")
				}
				t.Log("leaderships lost:", l.epoch-before)
				if lost := l.epoch - before; lost > 1 {
					t.Errorf("%d leaderships were lost", lost)
				}
			})
		})
	}
}

// Calls that wait for each other are found soon in a transaction that sends no messages too.
func TestCircleInOnePartitionIsFound(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := startInMemory(t, 1, crosser{})
		defer n.stop()
		time.Sleep(10 * time.Second)
		began := time.Now()
		result, err := n.Call(t.Context(), rootIn(1, ""))
		if took := time.Since(began); err != nil || !strings.Contains(result.GetError().GetMessage(), "wait for each other") || took > 10*time.Second {
			t.Errorf("after %s: %v, %v", took, result, err)
		}
	})
}

// crosser is an invoker whose handlers without a key call those of x and y at once, each of
// which calls the other's object.
type crosser struct{ adder }

func (crosser) Start(a *invoker.Attempt) invoker.Running {
	call := func(index uint32, key, input string) {
		a.Host.Call(a, index, &recordv1.Invoke{
			Target: &recordv1.Target{Service: "bench.v1.CounterService", Key: key, Handler: "Add"},
			Mode:   uint32(invocation.ModeTransaction), Input: []byte(input),
		})
	}
	switch input := string(a.Input); {
	case a.Target.Key == "":
		call(1, "x", "y")
		call(2, "y", "x")
	case input != "":
		call(1, input, "")
	default:
		return adder{}.Start(a)
	}
	return adder{}
}
