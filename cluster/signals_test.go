package cluster_test

import (
	"strings"
	"testing"
	"time"

	"github.com/perdure/perdure/actor"
	"github.com/perdure/perdure/cluster"
)

// TestSignalsAreBounded: signals of a workflow that nobody runs are refused once there are too many,
// and forgotten after a week; those of one that runs are neither lost nor forgotten.
func TestSignalsAreBounded(t *testing.T) {
	inMemory(t, func(s *stage) {
		take := s.on("take", func(ctx actor.Context) (string, error) {
			got, err := receive(ctx)
			return got[:min(len(got), 10)], err
		})
		wait := s.on("wait", func(ctx actor.Context) (string, error) {
			if err := actor.Sleep(ctx, 8*24*time.Hour+time.Minute); err != nil {
				return "", err
			}
			return receive(ctx)
		})
		tell := func(key, text string) error {
			_, err := s.invoke(s.t.Context(), s.flows.Methods[flowTell], key, text)
			return err
		}
		const megabyte = 1_000_000
		accepted := 0
		for ; ; accepted++ {
			if err := tell("nobody", strings.Repeat("x", megabyte)); err != nil {
				s.refused(err, actor.ResourceExhausted, "signals of 16000", "at most 10000 signals or 16777216 bytes", "start it if it is not running")
				break
			}
		}
		if accepted != 16 {
			s.t.Errorf("%d signals of a megabyte were taken", accepted)
		}
		s.must(nil, tell("other", "of another workflow"))
		flow, err := s.send(s.t.Context(), s.flows.Methods[flowRun], "waits", wait)
		s.must(nil, err)
		s.must(nil, tell("waits", "kept"))

		time.Sleep(8 * 24 * time.Hour)
		s.must(nil, tell("nobody", "fresh"))
		if got, err := s.invoke(s.t.Context(), s.flows.Methods[flowRun], "nobody", take); got != "fresh" || err != nil {
			s.t.Errorf("a run after a week received %q, %v", got, err)
		}
		if got, err := s.attach(flow); got != "kept" || err != nil {
			s.t.Errorf("a run of more than a week received %q, %v", got, err)
		}
	}, cluster.WithPartitions(2))
}
