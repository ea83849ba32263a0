package main

import (
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/perdure/perdure/actor"
	"github.com/perdure/perdure/cluster"
	bankv1 "github.com/perdure/perdure/examples/bank/gen/bank/v1"
	bank "github.com/perdure/perdure/examples/bank/gen/bank/v1/bankv1perdure"
)

func accountIDs(count int) []string {
	ids := make([]string, count)
	for i := range ids {
		ids[i] = fmt.Sprintf("account-%03d", i)
	}
	return ids
}

func TestPayRollPaysAllOrNobody(t *testing.T) {
	eachWay(t, logPayouts{}, func(t *testing.T, c *actor.Client) {
		const staff = 100
		ids := accountIDs(staff)
		roll := &bankv1.PayRollRequest{From: "employer"}
		for _, id := range ids {
			roll.Payments = append(roll.Payments, &bankv1.Payment{To: id, Amount: 7})
		}
		unpaid := func() {
			t.Helper()
			total, err := bank.BackOffice(c).Total(t.Context(), &bankv1.TotalRequest{AccountIds: ids})
			if err != nil || total.Sum != 0 {
				t.Errorf("the staff has %d, %v; want nothing", total.GetSum(), err)
			}
		}

		deposit(t, c, "employer", 7*staff-1)
		roll.PayrollId = "too little"
		if _, err := bank.BackOffice(c).PayRoll(t.Context(), roll); actor.CodeOf(err) != actor.FailedPrecondition || !strings.Contains(err.Error(), "employer has only 699") {
			t.Errorf("a pay roll without the money: %v, want failed_precondition", err)
		}
		unpaid()

		deposit(t, c, "employer", 1)
		if _, err := bank.Account(c, "gone").CloseOut(t.Context(), &bankv1.CloseOutRequest{Iban: "DE02"}); err != nil {
			t.Fatal(err)
		}
		closed := &bankv1.PayRollRequest{PayrollId: "closed", From: "employer", Payments: append(roll.Payments[1:staff:staff], &bankv1.Payment{To: "gone", Amount: 7})}
		if _, err := bank.BackOffice(c).PayRoll(t.Context(), closed); actor.CodeOf(err) != actor.FailedPrecondition || !strings.Contains(err.Error(), "gone is closed") {
			t.Errorf("a pay roll with a closed account: %v, want failed_precondition", err)
		}
		unpaid()

		roll.PayrollId = "good"
		for range 2 {
			if paid, err := bank.BackOffice(c).PayRoll(t.Context(), roll); err != nil || paid.Sum != 7*staff {
				t.Errorf("pay roll: %v, %v; want %d", paid, err, 7*staff)
			}
		}
		mustBalance(t, c, "employer", 0)
		mustBalance(t, c, ids[0], 7)
		mustBalance(t, c, ids[staff-1], 7)
	})
}

// TestPayRollSeesItsOwnWrites: an account that is paid twice, and an employer who pays himself.
func TestPayRollSeesItsOwnWrites(t *testing.T) {
	eachWay(t, logPayouts{}, func(t *testing.T, c *actor.Client) {
		deposit(t, c, "employer", 20)
		_, err := bank.BackOffice(c).PayRoll(t.Context(), &bankv1.PayRollRequest{From: "employer", Payments: []*bankv1.Payment{
			{To: "bob", Amount: 10}, {To: "employer", Amount: 5}, {To: "bob", Amount: 8},
		}})
		if err != nil {
			t.Fatal(err)
		}
		mustBalance(t, c, "bob", 18)
		mustBalance(t, c, "employer", 2)
	})
}

// TestTotalSeesNoHalfOfATransfer: while money is on the move, its sum stays the same. On a node that
// does many things at once, which a test's node does not.
func TestTotalSeesNoHalfOfATransfer(t *testing.T) {
	for name, opts := range map[string][]cluster.Option{"plain": nil, "crash at every entry": {cluster.WithCrashAtEveryEntry()}} {
		t.Run(name, func(t *testing.T) {
			c, end := start(t, logPayouts{}, append(opts, cluster.WithInMemory())...)
			defer end()
			const each = 1000
			ids := accountIDs(8)
			for _, id := range ids {
				deposit(t, c, id, each)
			}
			var stop atomic.Bool
			var moved atomic.Int64
			var all sync.WaitGroup
			for caller := range 8 {
				all.Go(func() {
					for n := 0; !stop.Load() && !t.Failed(); n++ {
						from := (caller + n) % len(ids)
						to := (from + 1 + n%(len(ids)-1)) % len(ids)
						_, err := bank.Transfer(c).Transfer(t.Context(), &bankv1.TransferRequest{From: ids[from], To: ids[to], Amount: 1 + int64(n%9)})
						if err != nil && actor.CodeOf(err) != actor.FailedPrecondition {
							t.Errorf("transfer: %v", err)
						}
						moved.Add(1)
					}
				})
			}
			for audits := 0; (audits < 50 || moved.Load() < 100) && !t.Failed(); audits++ {
				total, err := bank.BackOffice(c).Total(t.Context(), &bankv1.TotalRequest{AccountIds: ids})
				if err != nil || total.Sum != int64(len(ids)*each) {
					t.Errorf("total %d, %v after %d transfers; want %d", total.GetSum(), err, moved.Load(), len(ids)*each)
				}
			}
			stop.Store(true)
			all.Wait()
		})
	}
}

// TestStandingOrder: months of fake time, the node crashing all along, and each transfer happens
// once or is refused.
func TestStandingOrder(t *testing.T) {
	eachWay(t, logPayouts{}, func(t *testing.T, c *actor.Client) {
		const month = 30 * 24 * time.Hour
		deposit(t, c, "tenant", 1250)
		order, err := bank.BackOffice(c).StandingOrderSend(t.Context(), &bankv1.StandingOrderRequest{
			OrderId: "rent", From: "tenant", To: "landlord", Amount: 500, Times: 4, Every: durationpb.New(month),
		})
		if err != nil {
			t.Fatal(err)
		}
		for _, want := range []int64{500, 1000, 1000} { // The third one is refused.
			time.Sleep(month / 2)
			mustBalance(t, c, "landlord", want)
			mustBalance(t, c, "tenant", 1250-want)
			time.Sleep(month / 2)
		}
		got, err := order.Attach(t.Context())
		if err != nil || got.Made != 2 || got.Refused != 2 {
			t.Errorf("standing order: %v, %v; want 2 made and 2 refused", got, err)
		}
		mustBalance(t, c, "landlord", 1000)
	})
}

func TestStandingOrderCancelled(t *testing.T) {
	eachWay(t, logPayouts{}, func(t *testing.T, c *actor.Client) {
		deposit(t, c, "tenant", 1000)
		order, err := bank.BackOffice(c).StandingOrderSend(t.Context(), &bankv1.StandingOrderRequest{
			OrderId: "rent", From: "tenant", To: "landlord", Amount: 100, Times: 10, Every: durationpb.New(time.Hour),
		})
		if err != nil {
			t.Fatal(err)
		}
		time.Sleep(90 * time.Minute)
		if err := order.Cancel(t.Context()); err != nil {
			t.Fatal(err)
		}
		if _, err := order.Attach(t.Context()); actor.CodeOf(err) != actor.Canceled {
			t.Errorf("a cancelled order: %v, want canceled", err)
		}
		time.Sleep(24 * time.Hour)
		mustBalance(t, c, "landlord", 200) // What was transferred stays, and no more comes.
	})
}
