package inprocess_test

import (
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/protobuf/types/known/apipb"

	"github.com/perdure/perdure/actor"
)

// TestTooManyParked: of more handlers that wait than may, those that have waited longest are
// unwound, and each ends as if it had not been.
func TestTooManyParked(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		desc := method("t.Thing", "Do", actor.ModeDurable, func(ctx actor.Context, _ *apipb.Mixin) (*apipb.Mixin, error) {
			if err := actor.Sleep(ctx, time.Hour); err != nil {
				return nil, err
			}
			return reply("done"), actor.Sleep(ctx, time.Minute)
		})
		config := quiet()
		config.InactivityTimeout, config.MaxParked = 30*24*time.Hour, 3
		inv := newInvoker(t, config, desc)
		var doubles []*double
		for range 10 {
			d := newDouble(t, inv)
			d.start(desc, "")
			doubles = append(doubles, d)
			synctest.Wait()
		}
		for i, d := range doubles {
			d.mu.Lock()
			suspended := d.mu.suspended
			d.mu.Unlock()
			if suspended != (i < 7) {
				t.Errorf("handler %d of 10 is suspended: %v", i, suspended)
			}
		}
		for i, d := range doubles {
			if got := text(t, d.wait()); got != "done" {
				t.Errorf("handler %d: %s", i, got)
			}
		}
	})
}
