package balance

import (
	"context"
	"errors"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/perdure/perdure/cluster/placement"
	"github.com/perdure/perdure/cluster/registry"
)

// TestGrows: of one node three, then four, then one less.
func TestGrows(t *testing.T) {
	bubble(t, func(t *testing.T) {
		w := newWorld(t, 12, 1)
		b := w.run()
		pass(10 * time.Second)
		if w.count() != 0 {
			t.Errorf("one node alone: %v", w.taken)
		}
		w.join(2)
		w.join(3)
		pass(2 * time.Minute)
		if leads := w.leads(); leads[1] != 4 || leads[2] != 4 || leads[3] != 4 {
			t.Errorf("three nodes lead %v", leads)
		}
		for id, p := range w.partitions {
			if len(p.voters) != 3 || len(p.learners) != 0 {
				t.Errorf("partition %d: voters %d, learners %d", id, p.voters, p.learners)
			}
		}
		w.join(4)
		pass(2 * time.Minute)
		if leads := w.leads(); leads[4] != 3 || w.on(4) != 9+1 {
			t.Errorf("the fourth leads %d and has %d", leads[4], w.on(4))
		}
		w.set(1, placement.Draining)
		pass(2 * time.Minute)
		if w.leads()[1] != 0 || w.on(1) != 1 {
			t.Errorf("drained, it leads %v and has %d", w.leads(), w.on(1))
		}
		w.set(1, placement.Removed)
		pass(time.Minute)
		asked := w.times(1)
		pass(time.Minute)
		if w.on(1) != 0 || w.times(1) != asked {
			t.Errorf("removed, it has %d, and was asked %d times more", w.on(1), w.times(1)-asked)
		}
		report := b.Report()
		if w.most > 4 || len(report.Waits) != 0 || len(report.Underway) != 0 || report.Problem != nil || report.Epoch != 1 || len(report.Partitions) != 13 || len(report.Nodes) != 4 {
			t.Errorf("%d steps at once; %+v", w.most, report)
		}
		if len(report.Recent) != min(keep, w.count()) || report.Recent[0].Err != nil || report.Recent[0].Step.String() != w.taken[len(w.taken)-1].String() {
			t.Errorf("%d of %d steps are remembered; the last is %s", len(report.Recent), w.count(), report.Recent[0].Step)
		}
		// At rest it asks now and then, and no more.
		asked = w.times(2)
		pass(time.Minute)
		if rounds := w.times(2) - asked; rounds < 25 || rounds > 35 {
			t.Errorf("%d rounds in an idle minute, want one every 2 s", rounds)
		}
	})
}

// TestGrace: a node that dies is replaced after the grace, and not before.
func TestGrace(t *testing.T) {
	bubble(t, func(t *testing.T) {
		w := newWorld(t, 4, 1, 2, 3, 4)
		b := w.run()
		pass(2 * time.Minute)
		had := w.on(3)
		w.kill(3)
		pass(time.Minute) // leaders are evened out meanwhile
		taken := w.count()
		pass(4*time.Minute - 5*time.Second)
		if w.count() != taken || w.on(3) != had || had < 2 {
			t.Errorf("within the grace: %d of %d copies, %v", w.on(3), had, w.taken[taken:])
		}
		if node := b.Report().Nodes[2]; node.Health != placement.Silent || node.Failure == nil || time.Since(node.AnsweredAt) < 4*time.Minute {
			t.Errorf("%+v", node)
		}
		pass(time.Minute)
		if w.on(3) != 1 { // that of group 0
			t.Errorf("after the grace it has %d copies", w.on(3))
		}
		if node := b.Report().Nodes[2]; node.Health != placement.Lost {
			t.Errorf("%+v", node)
		}
	})
}

// TestNoLeader: who led a partition and is gone is asked for nothing, though it was a leader when
// it answered last.
func TestNoLeader(t *testing.T) {
	bubble(t, func(t *testing.T) {
		w := newWorld(t, 4, 1, 2)
		w.run()
		pass(time.Minute)
		if leads := w.leads(); leads[2] != 2 {
			t.Fatalf("leaders: %v", leads)
		}
		w.kill(2)
		taken := w.count()
		w.join(3)
		pass(time.Minute)
		w.mu.Lock()
		defer w.mu.Unlock()
		for _, s := range w.taken[taken:] {
			if s.Leader == 2 {
				t.Errorf("%s was asked of the node that is gone", s)
			}
		}
		if len(w.taken) == taken {
			t.Error("nothing was done")
		}
	})
}

// TestHangs: a node that does not answer holds nobody up for longer than AskTimeout.
func TestHangs(t *testing.T) {
	bubble(t, func(t *testing.T) {
		w := newWorld(t, 4, 1, 2, 3)
		w.hangs[3] = true
		b := w.run()
		pass(time.Minute)
		if w.on(2) != 5 || w.on(3) != 0 || w.leads()[2] != 2 {
			t.Errorf("the second has %d and leads %v, the third has %d", w.on(2), w.leads(), w.on(3))
		}
		if node := b.Report().Nodes[2]; node.Health != placement.Silent || !errors.Is(node.Failure, context.DeadlineExceeded) {
			t.Errorf("%+v", node)
		}
	})
}

// TestStepFails: a partition whose steps fail rests longer and longer, and others go on.
func TestStepFails(t *testing.T) {
	bubble(t, func(t *testing.T) {
		w := newWorld(t, 6, 1)
		var mended atomic.Bool
		w.fail = func(s placement.Step) error {
			if !mended.Load() && s.Partition < 4 {
				return errors.New("the disk is on fire")
			}
			return nil
		}
		b := w.run()
		w.join(2)
		w.join(3)
		pass(10 * time.Minute)
		times := 0
		for _, s := range w.taken {
			if s.Partition == 1 {
				times++
			}
		}
		// 1+2+4+8+16+32 s, then one a minute.
		if times < 13 || times > 18 {
			t.Errorf("the step was tried %d times in 10 minutes", times)
		}
		if w.on(2) != 3 || w.on(3) != 3 {
			t.Errorf("the others: %d and %d copies", w.on(2), w.on(3))
		}
		report := b.Report()
		if len(report.Waits) != 4 || !strings.Contains(report.Waits[1].Reason, "disk is on fire") || !strings.Contains(report.Waits[1].Reason, "the next is tried in") {
			t.Errorf("waits: %v", report.Waits)
		}
		if len(report.Recent) == 0 || report.Recent[0].Err == nil {
			t.Errorf("recent: %v", report.Recent)
		}
		mended.Store(true)
		pass(3 * time.Minute)
		if w.on(2) != 7 || w.on(3) != 7 || len(b.Report().Waits) != 0 {
			t.Errorf("mended: %d and %d copies, %v", w.on(2), w.on(3), b.Report().Waits)
		}
	})
}

// TestLeadershipLost: steps under way are given up, and no more are begun until it leads again.
func TestLeadershipLost(t *testing.T) {
	bubble(t, func(t *testing.T) {
		w := newWorld(t, 6, 1, 2, 3)
		w.delay = 10 * time.Second
		b := w.run()
		pass(time.Second)
		if report := b.Report(); len(report.Underway) != 4 || report.Underway[0].Step.Partition != 0 {
			t.Errorf("under way: %+v", report.Underway)
		}
		w.change(func(v *registry.View) { v.Epoch = 0 })
		pass(time.Second)
		taken := w.count()
		pass(10 * time.Minute)
		if w.cancelled != 4 || w.count() != taken || w.running != 0 {
			t.Errorf("%d steps were given up, %d begun after that", w.cancelled, w.count()-taken)
		}
		if report := b.Report(); report.Epoch != 0 || len(report.Recent) != 0 {
			t.Errorf("a report: %+v", report)
		}
		w.mu.Lock()
		w.delay = 10 * time.Millisecond
		w.mu.Unlock()
		w.change(func(v *registry.View) { v.Epoch = 5 })
		pass(time.Minute)
		if w.on(2) != 7 || b.Report().Epoch != 5 {
			t.Errorf("leading again: %d copies, epoch %d", w.on(2), b.Report().Epoch)
		}
	})
}

// TestUnconfirmed: who is not sure to lead begins nothing.
func TestUnconfirmed(t *testing.T) {
	bubble(t, func(t *testing.T) {
		w := newWorld(t, 2, 1, 2)
		superseded := errors.New("superseded")
		var leads atomic.Bool
		b := w.run(func(c *Config) {
			c.Confirm = func(context.Context) error {
				if leads.Load() {
					return nil
				}
				return superseded
			}
		})
		pass(time.Minute)
		if report := b.Report(); w.count() != 0 || !errors.Is(report.Problem, superseded) {
			t.Errorf("%d steps, problem: %v", w.count(), report.Problem)
		}
		leads.Store(true)
		pass(time.Minute)
		if report := b.Report(); w.on(2) != 3 || report.Problem != nil {
			t.Errorf("%d copies, problem: %v", w.on(2), report.Problem)
		}
	})
}

// TestStepHangs: a step that never ends is given up after StepTimeout, and others go on meanwhile.
func TestStepHangs(t *testing.T) {
	bubble(t, func(t *testing.T) {
		w := newWorld(t, 6, 1, 2, 3)
		w.stuck = 1
		b := w.run()
		pass(55 * time.Second)
		if w.on(2) != 6 || len(b.Report().Underway) != 1 || w.cancelled != 0 {
			t.Errorf("%d copies, under way: %v", w.on(2), b.Report().Underway)
		}
		pass(10 * time.Second)
		if recent := b.Report().Recent; !errors.Is(recent[0].Err, context.DeadlineExceeded) || recent[0].Took != time.Minute {
			t.Errorf("given up: %+v", recent[0])
		}
		w.mu.Lock()
		w.stuck = 0
		w.mu.Unlock()
		pass(2 * time.Minute)
		if w.on(2) != 7 {
			t.Errorf("%d copies", w.on(2))
		}
	})
}

func TestMerge(t *testing.T) {
	one := Status{Partition: 1, Voters: []uint64{1, 2, 3}, Commit: 10, Term: 4}
	leading := func(s Status, term uint64, voters ...uint64) Status {
		s.Leading, s.Term, s.Voters, s.CaughtUp = true, term, voters, []uint64{2}
		return s
	}
	newer := one
	newer.Commit, newer.Voters = 11, []uint64{1, 2}
	for _, test := range []struct {
		name     string
		statuses []said
		leader   uint64
		voters   []uint64
	}{
		{"the leader is believed", []said{{2, newer}, {1, leading(one, 4, 1)}}, 1, []uint64{1}},
		{"that of the higher term", []said{{1, leading(one, 4, 1)}, {2, leading(one, 5, 2)}, {3, leading(one, 3, 3)}}, 2, []uint64{2}},
		{"without one, who knows most", []said{{1, one}, {2, newer}, {3, one}}, 0, []uint64{1, 2}},
	} {
		known := map[uint32]placement.Partition{}
		merge(known, test.statuses)
		if p := known[1]; p.Leader != test.leader || !slices.Equal(p.Voters, test.voters) || p.CaughtUp[2] != (test.leader != 0) {
			t.Errorf("%s: %+v", test.name, p)
		}
		// Nobody answers any more: what it was is remembered, and nobody leads.
		merge(known, nil)
		if p := known[1]; p.Leader != 0 || !slices.Equal(p.Voters, test.voters) {
			t.Errorf("%s, and then silence: %+v", test.name, p)
		}
	}
}

func TestConfigProblems(t *testing.T) {
	_, err := New(Config{Grace: time.Second, Limit: -1, Interval: -1})
	for _, want := range []string{"Statuses", "Interval is -1ns", "Limit is -1", "Grace is 1s"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v: nothing of %q", err, want)
		}
	}
}

// TestLeaving: a node that is about to stop is given nothing, though it still answers.
func TestLeaving(t *testing.T) {
	bubble(t, func(t *testing.T) {
		w := newWorld(t, 6, 1, 2, 3)
		var leaving atomic.Uint64
		leaving.Store(2)
		b := w.run(func(c *Config) { c.Leaving = func(node uint64) bool { return node == leaving.Load() } })
		pass(time.Minute)
		if w.on(2) != 0 || w.leads()[2] != 0 || w.leads()[3] == 0 {
			t.Errorf("while it leaves it has %d copies and leads %d", w.on(2), w.leads()[2])
		}
		if node := b.Report().Nodes[1]; node.Health != placement.Silent || node.Failure != nil {
			t.Errorf("%+v", node)
		}
		leaving.Store(0)
		pass(time.Minute)
		if w.on(2) != 7 || w.leads()[2] != 2 {
			t.Errorf("after it came back it has %d copies and leads %d", w.on(2), w.leads()[2])
		}
	})
}
