//go:build unix

package chaos

import (
	"fmt"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	benchv1 "github.com/perdure/perdure/bench/gen/bench/v1"
	bench "github.com/perdure/perdure/bench/gen/bench/v1/benchv1perdure"
	"github.com/perdure/perdure/cluster"
	perdurev1 "github.com/perdure/perdure/proto/perdure/v1"
)

// TestSchedulesOutliveKills: schedules that are due every second, and kills at any instant: each
// firing took effect once, and each due time fired or was counted as skipped or missed.
func TestSchedulesOutliveKills(t *testing.T) {
	t.Parallel()
	random := choices(t)
	kills := 12
	if testing.Short() {
		kills = 4
	}
	n := newNode(t, t.TempDir(), nodeSettings{Partitions: 8})
	n.start()
	client := cluster.Dial(nil, n.url)
	const schedules = 10
	name := func(i int) string { return fmt.Sprint("scheduled ", i) }
	for i := range schedules {
		_, err := client.Schedules().Put(t.Context(), &perdurev1.Schedule{
			Name: name(i), Key: name(i), Service: bench.CounterServiceName, Handler: "Add", Every: durationpb.New(time.Second),
			Overlap: perdurev1.Overlap(1 + i%5), Misfire: perdurev1.Misfire(1 + i%3), MisfireGrace: durationpb.New(time.Duration(1+i*100) * time.Millisecond),
			Jitter: durationpb.New(time.Duration(i%2) * 300 * time.Millisecond),
		}, &benchv1.AddRequest{Amount: 1})
		if err != nil {
			t.Fatal(err)
		}
	}
	for range kills {
		time.Sleep(upTo(random, 1500*time.Millisecond)) // until some instant between two due times
		n.kill()
		time.Sleep(upTo(random, 2500*time.Millisecond))
		n.start()
	}
	client = cluster.Dial(nil, n.url)
	var fired, skipped, missed uint64
	for i := range schedules {
		if err := client.Schedules().Pause(t.Context(), name(i), ""); err != nil {
			t.Fatal(err)
		}
		var st *perdurev1.ScheduleState
		for deadline := time.Now().Add(time.Minute); ; {
			got, err := client.Schedules().Get(t.Context(), name(i))
			if err != nil {
				t.Fatal(err)
			}
			if st = got.State; st.Running == 0 && len(st.Pending) == 0 {
				break
			}
			if time.Now().After(deadline) {
				t.Fatalf("%s does not come to rest: %v", name(i), st)
			}
			time.Sleep(20 * time.Millisecond) // polling another process
		}
		value, err := bench.Counter(client, name(i)).Get(t.Context(), &benchv1.GetRequest{})
		if err != nil || uint64(value.GetValue()) != st.Fired || st.Succeeded != st.Fired {
			t.Errorf("%s fired %d times, %d succeeded, and its counter is %v, %v", name(i), st.Fired, st.Succeeded, value.GetValue(), err)
		}
		passed := uint64(st.PausedAt.AsTime().Unix() - st.CreatedAt.AsTime().Unix())
		if sum := st.Fired + st.Skipped + st.Missed; sum != passed {
			t.Errorf("%s: %d fired, %d skipped, %d missed make %d of %d due times", name(i), st.Fired, st.Skipped, st.Missed, sum, passed)
		}
		fired, skipped, missed = fired+st.Fired, skipped+st.Skipped, missed+st.Missed
	}
	t.Logf("%d kills: %d due times fired, %d were skipped, %d missed", kills, fired, skipped, missed)
}
