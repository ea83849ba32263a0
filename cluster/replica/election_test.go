package replica

import (
	"flag"
	"slices"
	"testing"
	"testing/synctest"
	"time"
)

var electionRuns = flag.Int("election.runs", 12, "how often TestLostLeaders loses each leader")

// lose makes a node lose its power, or links.
func (w *world) lose(r *worldRun, how string) {
	if how == "power" {
		r.node.crash()
		return
	}
	w.net.change(func() {
		for _, n := range w.nodes {
			w.net.mu.cut[[2]uint64{n.id, r.node.id}] = how != "links from it"
			w.net.mu.cut[[2]uint64{r.node.id, n.id}] = how != "links to it"
		}
	})
}

// TestLostLeaders measures how long idle groups of three are without a leader when its node is lost. Callers
// may wait three seconds for all of it: to notice, to find the next leader, and to ask it.
func TestLostLeaders(t *testing.T) {
	for _, how := range []string{"power", "links", "links to it", "links from it"} {
		for name, idle := range map[string]int{"awake": 1 << 30, "asleep": 0} {
			t.Run(how+" "+name, func(t *testing.T) {
				var took []time.Duration
				for seed := range uint64(*electionRuns) {
					synctest.Test(t, func(t *testing.T) {
						w := newWorld(t, seed, 3, 1, 2)
						w.adjust = func(c *Config) { c.idleTicks = idle }
						for _, n := range w.nodes {
							n.start()
							if seed%2 == 0 { // else all nodes' ticks are in step
								time.Sleep(time.Duration(w.chance().Int64N(int64(100 * time.Millisecond)))) // of fake time
							}
						}
						defer w.stopAll()
						for _, id := range w.groups {
							w.waitLeader(id)
							w.grow(id, 1, 2, 3)
							w.proposing(id, 5)
						}
						if idle == 0 {
							w.untilAsleep()
						}
						time.Sleep(time.Duration(w.chance().Int64N(int64(time.Second)))) // of fake time: the leader is lost anywhere between two heartbeats
						old, lost := w.leader(1), time.Now()
						w.lose(old, how)
						w.until("another leader", 20*time.Second, func() bool { r := w.leader(1); return r != nil && r != old })
						took = append(took, time.Since(lost))
					})
				}
				slices.Sort(took)
				at := func(percent int) time.Duration { return took[min(len(took)*percent/100, len(took)-1)] }
				t.Logf("%d times: p50 %v, p90 %v, p99 %v, longest %v", len(took), at(50), at(90), at(99), at(100))
				most := 2 * time.Second
				if how == "links to it" { // it is heard until it notices that it hears nobody
					most *= 2
				}
				if at(100) > most {
					t.Errorf("another leader came after %v, and should after %v", at(100), most)
				}
			})
		}
	}
}
