package main

import (
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/perdure/perdure/actor"
	perdurev1 "github.com/perdure/perdure/proto/perdure/v1"
)

const nightly = "bank.v1.BackOfficeService/nightly_interest"

// TestInterestEveryNight lets days pass, which take no time here.
func TestInterestEveryNight(t *testing.T) {
	eachWay(t, logPayouts{}, func(t *testing.T, c *actor.Client) {
		deposit(t, c, "savings-alice", 10_000)
		time.Sleep(3 * 24 * time.Hour)
		mustBalance(t, c, "savings-alice", 10_006)
		mustBalance(t, c, "savings-bob", 0)

		got, err := c.Schedules().Get(t.Context(), nightly)
		if err != nil {
			t.Fatal(err)
		}
		if st := got.State; !st.Declared || st.Fired != 3 || st.Succeeded != 3 {
			t.Errorf("the schedule is %v", st)
		}
		zone, err := time.LoadLocation("Europe/Berlin")
		if err != nil {
			t.Fatal(err)
		}
		for _, at := range got.DueTimes {
			if due := at.AsTime().In(zone); due.Hour() != 3 || due.Minute() != 0 {
				t.Errorf("due at %s", due)
			}
		}

		// The rate was wrong for two of the nights: pay them once more.
		latest := got.State.Recent[0].DueAt.AsTime()
		err = c.Schedules().Backfill(t.Context(), &perdurev1.BackfillScheduleRequest{
			Name: nightly, From: timestamppb.New(latest.Add(-24 * time.Hour)), Until: timestamppb.New(latest)})
		if err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Minute)
		mustBalance(t, c, "savings-alice", 10_010)
	})
}
