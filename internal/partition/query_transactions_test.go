package partition

import (
	"context"
	"errors"
	"reflect"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/perdure/perdure/internal/invocation"
	"github.com/perdure/perdure/internal/invoker"
	recordv1 "github.com/perdure/perdure/internal/record/v1"
	"github.com/perdure/perdure/internal/routing"
	"github.com/perdure/perdure/internal/transaction"
)

// caller is an invoker whose handler "Root" calls "Do" of the object that its input names and
// ends when it is told to. "Do" ends at once.
type caller struct {
	adder
	called chan struct{} // the callee has answered
	end    chan struct{}
}

func (c caller) Start(a *invoker.Attempt) invoker.Running {
	if a.Target.Handler != "Root" {
		a.Host.Finish(a, &invoker.Outcome{Result: &recordv1.Result{}, Entries: []*recordv1.Entry{
			{Entry: &recordv1.Entry_SetState{SetState: &recordv1.SetState{Value: []byte("v")}}},
		}})
		return adder{}
	}
	a.Host.Call(a, 1, &recordv1.Invoke{
		Target: &recordv1.Target{Service: queried, Key: string(a.Input), Handler: "Do"}, Mode: uint32(invocation.ModeTransaction),
	})
	return &rootRun{c, a}
}

type rootRun struct {
	caller
	attempt *invoker.Attempt
}

func (r *rootRun) Notify(uint32, *recordv1.Completion) {
	go func() {
		r.called <- struct{}{}
		<-r.end
		r.attempt.Host.Finish(r.attempt, &invoker.Outcome{Result: &recordv1.Result{Value: []byte("done")}})
	}()
}

// TestTransactions looks at one over two partitions while its root is at work.
func TestTransactions(t *testing.T) {
	inv := caller{called: make(chan struct{}, 1), end: make(chan struct{})}
	n := startWith(t, 4, inv)
	of := func(key string) uint32 { return n.ofObject(invocation.Object{Service: queried, Key: key}).id }
	root, branch := "a", "b"
	for of(branch) == of(root) {
		branch += "b"
	}
	if all, err := n.Transactions(t.Context()); err != nil || len(all) != 0 {
		t.Fatalf("at the start: %+v, %v", all, err)
	}
	in, id := asked("Root", root, branch, invocation.ModeTransaction)
	done := make(chan error, 1)
	go func() {
		_, err := n.Call(context.WithoutCancel(t.Context()), in)
		done <- err
	}()
	<-inv.called
	all, err := n.Transactions(t.Context())
	if err != nil || len(all) < 2 {
		t.Fatalf("got %+v, %v", all, err)
	}
	c := all[0]
	if !c.Coordinator || c.Root != id || c.Partition != of(root) || c.Phase != routing.TransactionRunning || c.Try != 1 ||
		c.Target != (invocation.Target{Service: queried, Key: root, Handler: "Root"}) || !slices.Contains(c.Members, of(branch)) {
		t.Errorf("the coordinator is %+v", c)
	}
	if age := time.Since(c.At); age < 0 || age > time.Minute {
		t.Errorf("it was accepted at %s", c.At)
	}
	at := slices.IndexFunc(all, func(p routing.Transaction) bool { return p.Partition == of(branch) })
	if at < 0 {
		t.Fatalf("partition %d says nothing: %+v", of(branch), all)
	}
	if p := all[at]; p.Coordinator || p.Root != id || p.Sequence != c.Sequence || len(p.Held) != 1 || p.Held[0].Object.Key != branch || p.Held[0].Shared {
		t.Errorf("the participant is %+v", p)
	}
	close(inv.end)
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	for deadline := time.Now().Add(10 * time.Second); ; {
		all, err := n.Transactions(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if len(all) == 0 {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("still there: %+v", all)
		}
	}
}

func TestPhaseNumbers(t *testing.T) {
	for phase, want := range map[transaction.Phase]routing.TransactionPhase{
		transaction.Running: routing.TransactionRunning, transaction.Preparing: routing.TransactionPreparing, transaction.Prepared: routing.TransactionPrepared,
		transaction.Committed: routing.TransactionCommitted, transaction.RollingBack: routing.TransactionRollingBack,
	} {
		if uint8(phase) != uint8(want) {
			t.Errorf("%s is %d here and %d for the edge", phase, phase, want)
		}
	}
}

func TestTransactionOrder(t *testing.T) {
	one := func(at int64, root byte, partition uint32, coordinator bool) routing.Transaction {
		return routing.Transaction{At: time.UnixMilli(at), Root: invocation.ID{root}, Partition: partition, Coordinator: coordinator}
	}
	want := []routing.Transaction{one(1, 9, 4, false), one(2, 1, 7, true), one(2, 1, 2, false), one(2, 1, 7, false), one(2, 2, 1, true), one(2, 2, 1, false), one(3, 0, 1, false)}
	got := slices.Clone(want)
	slices.Reverse(got)
	got = routing.SortTransactions(got)
	for i := range want {
		if !reflect.DeepEqual(got[i], want[i]) {
			t.Fatalf("place %d: %+v, want %+v", i, got[i], want[i])
		}
	}
}

// TestTransactionsUnanswered: a partition that says nothing is not taken for one that has none.
func TestTransactionsUnanswered(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := &Router{}
		for id := uint32(1); id <= 12; id++ {
			r.partitions = append(r.partitions, &Partition{id: id, wake: make(chan struct{}, 1)})
		}
		start := time.Now()
		_, err := r.Transactions(t.Context())
		failed, ok := errors.AsType[*routing.Error](err)
		if !ok || failed.Code != routing.CodeUnavailable || !strings.Contains(failed.Message, "partitions 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 2 more did not answer within 5s") {
			t.Errorf("got %v", err)
		}
		if took := time.Since(start); took != transactionsWait {
			t.Errorf("it took %s", took)
		}
		r.partitions = r.partitions[2:3]
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if _, err := r.Transactions(ctx); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("the caller's deadline: %v", err)
		}
		if got := routing.PartitionNames([]uint32{3}); got != "partition 3" {
			t.Errorf("one of them is %q", got)
		}
	})
}

func startWith(t *testing.T, partitions uint32, inv invoker.Invoker) *node {
	t.Helper()
	n := startNode(t, t.TempDir(), partitions, inv)
	t.Cleanup(n.stop)
	return n
}
