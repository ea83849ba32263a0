package cluster_test

import (
	"fmt"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/perdure/perdure/actor"
	"github.com/perdure/perdure/cluster"
	bankv1 "github.com/perdure/perdure/examples/bank/gen/bank/v1"
	bank "github.com/perdure/perdure/examples/bank/gen/bank/v1/bankv1perdure"
	perdurev1 "github.com/perdure/perdure/proto/perdure/v1"
)

// closedOffice pays no interest.
type closedOffice struct {
	bank.UnimplementedBackOfficeHandler
}

// TestSchedulesOverRestarts: with the node down and up again, and its declared schedules gone for
// a while, every due time is accounted for, and what fired took effect once.
func TestSchedulesOverRestarts(t *testing.T) {
	dir := t.TempDir()
	start := func(declares bool) (*cluster.Node, actor.Schedules) {
		node := cluster.NewNode(cluster.WithDataDir(dir), cluster.WithPartitions(4), cluster.WithoutListener())
		bank.RegisterAccountHandler(node, &accounts{})
		if declares {
			bank.RegisterBackOfficeHandler(node, closedOffice{})
		}
		startNode(t, node)
		return node, node.Client().Schedules()
	}
	const declared = "bank.v1.BackOfficeService/nightly_interest"
	node, schedules := start(true)
	if _, err := schedules.Get(t.Context(), declared); err != nil {
		t.Fatal(err)
	}
	if err := schedules.Pause(t.Context(), declared, "not yet"); err != nil {
		t.Fatal(err)
	}
	for i := range 4 {
		_, err := schedules.Put(t.Context(), &perdurev1.Schedule{
			Name: fmt.Sprint("often ", i), Every: durationpb.New(time.Second), Misfire: []perdurev1.Misfire{1, 2, 3, 2}[i],
			Overlap: []perdurev1.Overlap{1, 3, 2, 5}[i], MisfireGrace: durationpb.New(10 * time.Millisecond),
			Service: bank.AccountServiceName, Handler: "Deposit", Key: fmt.Sprint("account ", i),
		}, &bankv1.DepositRequest{Amount: 1})
		if err != nil {
			t.Fatal(err)
		}
	}
	wait := func(i int, fired uint64) {
		t.Helper()
		for deadline := time.Now().Add(time.Minute); ; {
			got, err := schedules.Get(t.Context(), fmt.Sprint("often ", i))
			if err == nil && got.State.Fired >= fired {
				return
			}
			if time.Now().After(deadline) {
				t.Fatalf("schedule %d has not fired %d times: %v %v", i, fired, got, err)
			}
			time.Sleep(20 * time.Millisecond)
		}
	}
	wait(0, 1)
	for round := range 3 {
		stopNode(t, node)
		time.Sleep(2500 * time.Millisecond) // Down: this is what the test is about.
		node, schedules = start(round != 1)
		_, err := schedules.Get(t.Context(), declared)
		switch {
		case round == 1 && actor.CodeOf(err) != actor.NotFound:
			t.Errorf("a schedule that is declared no more: %v", err)
		case round != 1 && err != nil:
			t.Errorf("a declared schedule: %v", err)
		}
		wait(3, uint64(4*(round+1)))
	}
	for i := range 4 {
		name := fmt.Sprint("often ", i)
		if err := schedules.Pause(t.Context(), name, ""); err != nil {
			t.Fatal(err)
		}
		var got *perdurev1.GetScheduleResponse
		for deadline := time.Now().Add(time.Minute); ; {
			var err error
			if got, err = schedules.Get(t.Context(), name); err != nil {
				t.Fatal(err)
			}
			if got.State.Running == 0 {
				break
			}
			if time.Now().After(deadline) {
				t.Fatalf("schedule %d does not come to rest: %v", i, got.State)
			}
			time.Sleep(20 * time.Millisecond)
		}
		st := got.State
		balance, err := bank.Account(node.Client(), fmt.Sprint("account ", i)).Balance(t.Context(), &bankv1.BalanceRequest{})
		if err != nil || balance.Balance != int64(st.Fired) || st.Succeeded != st.Fired {
			t.Errorf("schedule %d fired %d times, %d succeeded, and the balance is %v, %v", i, st.Fired, st.Succeeded, balance.GetBalance(), err)
		}
		// Every second from the first due time to the pause.
		passed := uint64(st.PausedAt.AsTime().Unix() - st.CreatedAt.AsTime().Unix())
		if sum := st.Fired + st.Skipped + st.Missed; sum != passed {
			t.Errorf("schedule %d: %d fired, %d skipped, %d missed make %d of %d due times", i, st.Fired, st.Skipped, st.Missed, sum, passed)
		}
		if i == 3 && st.Missed+st.Skipped > 0 || i == 2 && st.Missed == 0 {
			t.Errorf("schedule %d: %d skipped, %d missed", i, st.Skipped, st.Missed)
		}
	}
	stopNode(t, node)
}
