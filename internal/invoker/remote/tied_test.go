package remote_test

import (
	"log/slog"
	"testing"
	"testing/synctest"
	"time"

	"github.com/perdure/perdure/internal/invocation"
	"github.com/perdure/perdure/internal/invoker"
	"github.com/perdure/perdure/internal/invoker/remote"
)

// tied is an attempt of an invocation that a deployment has begun.
func tied(h *host, deployment string) *invoker.Attempt {
	a := attempt(h, invocation.ModeDurable)
	a.Deployment = deployment
	return a
}

// ended is how many attempts have.
func (h *host) ended() int {
	h.mu.Lock()
	defer h.mu.Unlock()
	return len(h.outcomes)
}

// upgraded is a world whose nodes 1 and 3 host what node 2 hosts, in a newer build.
func upgraded(t *testing.T) *world {
	w := newWorld(t, 1, 2, 3)
	w.builds = map[uint64]string{1: "new", 2: "old", 3: "new"}
	return w
}

func (w *world) begun() (attempts [3]int) {
	for i := range attempts {
		attempts[i], _ = w.locals[uint64(i+1)].counts()
	}
	return attempts
}

func TestTiedAttemptRunsOnItsDeployment(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, h := upgraded(t), &host{}
		target := tied(h, "old").Target
		for _, question := range []struct{ tied, want string }{{"old", "old"}, {"", "new"}, {"new", "new"}, {"older", "new"}} {
			if got := w.nodes[1].DeploymentOf(target, question.tied); got != question.want {
				t.Errorf("what is tied to %q is to run on %q, not %q", question.tied, got, question.want)
			}
		}
		for _, step := range []struct {
			attempt *invoker.Attempt
			want    [3]int
		}{
			{tied(h, "old"), [3]int{0, 1, 0}},
			{tied(h, "new"), [3]int{1, 1, 0}}, // which nodes 1 and 3 are
			{tied(h, ""), [3]int{2, 1, 0}},
			{attempt(h, invocation.ModeTransaction), [3]int{3, 1, 0}},
		} {
			w.nodes[1].Start(step.attempt)
			synctest.Wait()
			if got := w.begun(); got != step.want {
				t.Fatalf("after %s of %q the nodes have begun %v, not %v", step.attempt.Mode, step.attempt.Deployment, got, step.want)
			}
		}
		if len(h.outcomes) != 0 {
			t.Errorf("outcomes: %v", h.outcomes)
		}
	})
}

// TestTiedAttemptMovesOn: the one node of its deployment is lost, and the next attempt does not wait for it.
func TestTiedAttemptMovesOn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, h := upgraded(t), &host{}
		w.nodes[1].Start(tied(h, "old"))
		synctest.Wait()
		began := time.Now()
		w.sever(1, 2)
		for h.ended() == 0 && time.Since(began) < time.Minute {
			time.Sleep(10 * time.Millisecond) // of the bubble: the next beat notices
			synctest.Wait()
		}
		if took := time.Since(began); len(h.outcomes) != 1 || !h.outcomes[0].Lost || took > 2*time.Second {
			t.Fatalf("after %s the leader heard %v of the node that is lost", took, h.outcomes)
		}
		next := tied(h, "")
		if next.Deployment = w.nodes[1].DeploymentOf(next.Target, "old"); next.Deployment != "new" {
			t.Fatalf("what is tied to what is lost is to run on %q", next.Deployment)
		}
		w.nodes[1].Start(next)
		if got := w.begun(); got != [3]int{1, 1, 0} {
			t.Errorf("the nodes have begun %v", got)
		}
		// It is tried again once it may be there again, and given up as soon.
		time.Sleep(5 * time.Second) // of the bubble: longer than a node is passed over
		if got := w.nodes[1].DeploymentOf(next.Target, "old"); got != "old" {
			t.Errorf("what is tied to a node that may be there again is to run on %q", got)
		}
		w.nodes[1].Start(tied(h, "old"))
		synctest.Wait()
		if len(h.outcomes) != 2 || !h.outcomes[1].Lost || w.nodes[1].DeploymentOf(next.Target, "old") != "new" {
			t.Errorf("outcomes: %v", h.outcomes)
		}
	})
}

// TestTiedAttemptWhoseNodeIsGone: between the question and the start it has left.
func TestTiedAttemptWhoseNodeIsGone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, h := upgraded(t), &host{}
		w.host(1, 3)
		w.nodes[1].Start(tied(h, "old"))
		synctest.Wait()
		if len(h.outcomes) != 1 || !h.outcomes[0].Lost || w.begun() != [3]int{} {
			t.Errorf("outcomes: %v, begun: %v; want it lost, so that the partition starts the next attempt and notes where", h.outcomes, w.begun())
		}
	})
}

// TestTiedAttemptWaitsForAStartThatSettles: a leader that has only just started has heard of nobody yet.
func TestTiedAttemptWaitsForAStartThatSettles(t *testing.T) {
	for _, found := range []bool{true, false} {
		synctest.Test(t, func(t *testing.T) {
			w, h := upgraded(t), &host{}
			w.host(1, 3)
			leader := remote.New(remote.Config{Node: 1, Local: w.locals[1], Settling: true, Logger: slog.New(slog.DiscardHandler), Directory: directory{w, 1}, Call: w.callFrom(1)})
			w.nodes[1].Close()
			w.nodes[1] = leader
			target := tied(h, "old").Target
			if got := leader.DeploymentOf(target, "old"); got != "old" {
				t.Errorf("it moves on to %q before it is known that nobody has it", got)
			}
			leader.Start(tied(h, "old"))
			leader.Start(tied(h, "new"))
			synctest.Wait()
			if got := w.begun(); got != [3]int{1, 0, 0} || h.ended() != 0 {
				t.Fatalf("begun: %v, ended: %d; want what is tied to this build to run, and the other to wait", got, h.ended())
			}
			if found {
				w.host(1, 2, 3)
				time.Sleep(time.Second) // of the bubble
				synctest.Wait()
				if got := w.begun(); got != [3]int{1, 1, 0} || h.ended() != 0 {
					t.Errorf("begun: %v, ended: %d; want it to run where it is found", got, h.ended())
				}
			}
			leader.Settle()
			time.Sleep(time.Second) // of the bubble
			synctest.Wait()
			if lost := h.ended() == 1 && h.outcomes[0].Lost; lost == found {
				t.Errorf("found: %t, outcomes: %v; want it lost if nobody has it, so that the partition asks again", found, h.outcomes)
			}
			if got := leader.DeploymentOf(target, "old"); (got == "old") != found {
				t.Errorf("found: %t, and then it is to run on %q", found, got)
			}
		})
	}
}

// TestLeaderWithoutTheServiceGoesByDeployment: of the nodes that have it the one that it is tied to comes first,
// also if most others are another build.
func TestLeaderWithoutTheServiceGoesByDeployment(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, h := newWorld(t, 2, 3), &host{}
		w.builds = map[uint64]string{1: "new", 2: "old", 3: "new"} // 1 knows that most are new
		if got := w.nodes[1].DeploymentOf(tied(h, "").Target, "old"); got != "old" {
			t.Errorf("what is tied to old is to run on %q", got)
		}
		for range 4 {
			w.nodes[1].Start(tied(h, "old"))
		}
		synctest.Wait()
		if got := w.begun(); got != [3]int{0, 4, 0} {
			t.Errorf("the nodes have begun %v", got)
		}
	})
}

// TestOneBuildCostsNothing: who is what is looked up only when there are several builds.
func TestOneBuildCostsNothing(t *testing.T) {
	w := newWorld(t, 1, 2, 3)
	w.builds = map[uint64]string{1: "one", 2: "one", 3: "one"}
	target := attempt(&host{}, invocation.ModeDurable).Target
	if allocations := testing.AllocsPerRun(100, func() {
		if w.nodes[1].DeploymentOf(target, "one") != "one" {
			t.Fatal("it is another build")
		}
	}); allocations != 0 {
		t.Errorf("%v allocations for each attempt", allocations)
	}
}
