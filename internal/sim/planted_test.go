package sim

import (
	"context"
	"flag"
	"os/exec"
	"strings"
	"testing"
	"time"
)

var (
	planted      = flag.Bool("sim.planted", false, "build with each planted bug and demand that the tests notice")
	plantedShare = flag.Int("sim.planted.share", 1, "of those that the simulation does not notice alone, try only one in so many, others each time")
)

// TestPlantedBugsAreNoticed runs the suites on builds that are broken on purpose. A suite that
// passes there proves nothing.
func TestPlantedBugsAreNoticed(t *testing.T) {
	if !*planted {
		t.Skip("takes minutes; run with -sim.planted")
	}
	const (
		model  = "../engine -run TestModel -rapid.checks=2000 -rapid.nofailfile -rapid.shrinktime=1s"
		worlds = "../engine -run TestTransactions$ -model.for=15s"
		faults = "../partition -run Leadership|TestReplyWaits"
		due    = "../schedule -run TestEveryDueTimeIsAccountedFor"
		firing = "../engine -run TestFiringsSurviveEverything"
		crash  = "../../cluster/replica -run TestCrashAtEveryStep|TestPowerCut"
		nodes  = "../../cluster/replica -run TestWorlds -failfast -world.runs 40"
		// In a world a follower without what it claimed and its leader answer each other until the
		// deadline of the test, which can take minutes.
		behind = "../../cluster/replica -run TestReplaceTwoVotersAtOnce|TestThreeNodes"
		cuts   = "../../cluster/replica -run TestReceiverLosesPower"
		votes  = "../../cluster/replica -run TestElections -failfast -world.runs 100"
		peers  = "../peer -run TestStaleLeader|TestUnanswered"
		whole  = ". -run TestSeed|TestCrowd -sim.from 1 -sim.for 40s" // a slow machine needs more than 20 s for wound, others no time more
		roll   = "../chaos -run TestRollingUpgrade"
		many   = ". -run TestFew$ -sim.from 1 -sim.for 20s" // which is 50 s of it
	)
	turn := int(time.Now().Unix())
	for i, bug := range []struct{ tag, suites string }{
		{"dedup", model}, {"idempotency", model}, {"attempt", model}, {"timer", model}, {"limit", model},
		{"epoch", faults}, {"gate", faults}, {"applied", crash},
		{"majority", nodes}, {"snapshot", behind}, {"stale", nodes}, {"vote", votes}, {"resume", cuts}, {"level", roll},
		{"confirm", peers}, {"again", peers},
		{"gate", whole}, {"idempotency", whole}, {"timer", whole},
		{"due", due}, {"due", firing}, {"due", whole},
		{"decision", worlds}, {"unlock", worlds}, {"prepared", worlds}, {"wound", worlds},
		{"decision", whole}, {"unlock", whole}, {"prepared", whole}, {"wound", whole},
		{"epoch", whole}, {"outbox", many}, {"majority", many}, {"stale", many}, {"dedup", many}, {"snapshot", many},
		{"grant", many},
	} {
		// The tests change seldom, and of runs there are many: each has all those that the simulation is there for, and a share of the others.
		if simulated := bug.suites == many || bug.tag == "epoch" && bug.suites == whole; !simulated && (i+turn)%*plantedShare != 0 {
			continue
		}
		t.Run(bug.tag+" "+strings.Fields(bug.suites)[0], func(t *testing.T) {
			ctx, cancel := context.WithTimeout(t.Context(), 6*time.Minute)
			defer cancel()
			args := append([]string{"test", "-tags", "perdure_bug_" + bug.tag, "-timeout", "4m"}, strings.Fields(bug.suites)...)
			out, err := exec.CommandContext(ctx, "go", args...).CombinedOutput()
			switch {
			case err == nil:
				t.Errorf("go %s passes: the bug is not noticed", strings.Join(args, " "))
			case strings.Contains(string(out), "[build failed]"):
				t.Errorf("go %s does not build:\n%s", strings.Join(args, " "), out)
			case ctx.Err() != nil, strings.Contains(string(out), "panic: test timed out"):
				t.Errorf("go %s found nothing in its time, which a slow machine can do without a bug", strings.Join(args, " "))
			case !strings.Contains(string(out), "--- FAIL: ") && !strings.Contains(string(out), "panic: "):
				t.Errorf("go %s fails for another reason than a test that noticed:\n%s", strings.Join(args, " "), out)
			}
		})
	}
}
