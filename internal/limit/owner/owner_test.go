package owner

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/perdure/perdure/internal/draft"
	"github.com/perdure/perdure/internal/draft/drafttest"
	"github.com/perdure/perdure/internal/invocation"
	"github.com/perdure/perdure/internal/limit"
	recordv1 "github.com/perdure/perdure/internal/record/v1"
	"github.com/perdure/perdure/internal/table"
)

// desk is a host that notes what it is told, and Limits over rows that each event is written to.
type desk struct {
	t        *testing.T
	rows     drafttest.Rows
	draft    draft.Draft
	limits   *Limits
	sequence uint64
	now      int64
	granted  []string
	timers   []table.Timer
	// largest is how many rows an event has written at most.
	largest int
}

func newDesk(t *testing.T) *desk {
	d := &desk{t: t, rows: drafttest.Rows{}, now: 1000}
	d.draft = draft.New(d.rows)
	d.limits = New(d, &d.draft, 1)
	return d
}

func (d *desk) Touch()           {}
func (d *desk) Sequence() uint64 { d.sequence++; return d.sequence }
func (d *desk) Arm(timer table.Timer) {
	d.draft.Put(timer.Key(), []byte{})
	d.timers = append(d.timers, timer)
}
func (d *desk) Answer(_ uint32, p *recordv1.Permit) error {
	d.granted = append(d.granted, p.Limit.Name)
	return nil
}
func (d *desk) Granted(string, int64) {}
func (d *desk) Refused(string)        {}

// event evaluates one and writes its rows.
func (d *desk) event(evaluate func() error) {
	d.t.Helper()
	d.draft.Reset()
	if err := evaluate(); err != nil {
		d.t.Fatal(err)
	}
	mutations := d.draft.Mutations()
	d.largest = max(d.largest, len(mutations))
	for _, m := range mutations {
		if m.Delete {
			delete(d.rows, string(m.Key))
		} else {
			d.rows[string(m.Key)] = slices.Clone(m.Value)
		}
	}
}

// restart is the next leader.
func (d *desk) restart() {
	d.t.Helper()
	d.draft = draft.New(d.rows)
	d.limits = New(d, &d.draft, 1)
	if damaged, err := d.limits.Recover(d.now); err != nil || len(damaged) > 0 {
		d.t.Fatal(damaged, err)
	}
}

func idOf(n int) invocation.ID { return invocation.NewID(0, [16]byte{byte(n), byte(n >> 8), 1}) }

func (d *desk) ask(n int, l *recordv1.Limit) (permission recordv1.Permission) {
	d.t.Helper()
	id := idOf(n)
	d.event(func() error {
		p, err := d.limits.Acquire(&recordv1.Acquire{Limit: l, InvocationId: id[:], Number: 1, CreatedAt: d.now}, 2, d.now)
		permission = p.GetPermission()
		return err
	})
	return permission
}

func (d *desk) change(change *recordv1.Rules) {
	d.t.Helper()
	d.event(func() error {
		next, err := d.limits.Book().Change(change, 1, d.now)
		if err != nil {
			return err
		}
		return d.limits.ChangeRules(next, d.now)
	})
}

// fire lets the timers fire that are due.
func (d *desk) fire() (fired int) {
	due := d.timers
	d.timers = nil
	for _, timer := range due {
		if timer.At > d.now {
			d.timers = append(d.timers, timer)
			continue
		}
		fired++
		d.event(func() error {
			d.draft.Delete(timer.Key())
			_, err := d.limits.Fire(timer, d.now)
			return err
		})
	}
	return fired
}

func set(name string, most int32) *recordv1.Rules {
	return &recordv1.Rules{Set: []*recordv1.LimitRule{{Name: name, Concurrency: &recordv1.Bound{Most: most}}}}
}

// TestManyBeginInManyEvents: a rule by which thousands may begin, under one limit and under many, is no
// event of thousands of rows, all of them begin by timers, and a new leader in between goes on with it.
func TestManyBeginInManyEvents(t *testing.T) {
	for _, restarts := range []bool{false, true} {
		t.Run(fmt.Sprint("restarts ", restarts), func(t *testing.T) {
			d := newDesk(t)
			d.change(set("s/x", limit.None))
			const wide, apart = 700, 900
			for i := range wide + apart {
				l := &recordv1.Limit{Name: "s/x=wide", Concurrency: 10_000}
				if i >= wide {
					l = &recordv1.Limit{Name: fmt.Sprintf("s/x=%d", i), Concurrency: 1}
				}
				if got := d.ask(i, l); got != recordv1.Permission_PERMISSION_WAITS {
					t.Fatalf("%d is answered %v", i, got)
				}
			}
			d.largest = 0
			d.change(set("s/y", 1))
			if d.largest != 2 || len(d.timers) != 0 {
				t.Errorf("a rule for another limit writes %d rows, with timers %v", d.largest, d.timers)
			}
			d.change(&recordv1.Rules{Remove: []string{"s/x"}})
			if got := len(d.granted); got == 0 || got > maxGrants {
				t.Errorf("%d began in the event that removed the rule", got)
			}
			for round := 0; d.fire() > 0; round++ {
				if restarts && round%2 == 0 {
					d.restart()
				}
				if round > 100 {
					t.Fatal("the timers never end")
				}
			}
			if got := len(d.granted); got != wide+apart {
				t.Errorf("%d of %d have begun", got, wide+apart)
			}
			if d.largest > 5*maxGrants {
				t.Errorf("an event wrote %d rows", d.largest)
			}
			if _, _, waiting := d.limits.Counts(); waiting != 0 {
				t.Errorf("%d wait still", waiting)
			}
		})
	}
}

// TestRateOfARuleIsKept: the level of a bucket is kept with the rate that it was counted with, which a rule may
// have changed, and removed again, before the row is written anew.
func TestRateOfARuleIsKept(t *testing.T) {
	limited := &recordv1.Limit{Name: "s/x", RateCount: 10, RatePerMs: 1000, Burst: 10}
	for _, restarts := range []bool{false, true} {
		d := newDesk(t)
		next := func(change *recordv1.Rules) {
			if d.change(change); restarts {
				d.restart()
			}
		}
		next(&recordv1.Rules{Set: []*recordv1.LimitRule{{Name: "s/x", Rate: &recordv1.Rate{Count: 1, PerMs: 60_000, Burst: 3}}}})
		asked := 0
		begin := func(when string, want int) {
			t.Helper()
			got := 0
			for d.ask(asked, limited) == recordv1.Permission_PERMISSION_GRANTED {
				asked++
				got++
			}
			asked++
			id := idOf(asked - 1)
			d.event(func() error { return d.limits.Release(&recordv1.Release{Limit: limited, InvocationId: id[:]}, d.now) })
			if got != want {
				t.Errorf("restarts %v: %s %d begin, want %d", restarts, when, got, want)
			}
			if restarts {
				d.restart()
			}
		}
		begin("with a burst of 3", 3)
		d.now += 60_000
		begin("after a minute at one each", 1)
		next(&recordv1.Rules{Remove: []string{"s/x"}})
		begin("as declared, with a bucket that was empty,", 0)
		d.now += 500
		begin("after half a second at ten each", 5)
		next(&recordv1.Rules{Set: []*recordv1.LimitRule{{Name: "s/x", Rate: &recordv1.Rate{Count: 1, PerMs: 1000, Burst: 1}}}})
		d.now += 10_000
		begin("after 10 s at one each with one at once", 1)
	}
}

// TestNextLeaderLetsNoMore: a rule changes a rate, and a new leader comes before anything is written of the limit: its
// bucket has no more than that of the leader before it.
func TestNextLeaderLetsNoMore(t *testing.T) {
	fast, slow := &recordv1.Rate{Count: 100, PerMs: 1000, Burst: 100}, &recordv1.Rate{Count: 1, PerMs: 60_000, Burst: 100}
	for _, c := range []struct {
		name            string
		declared        *recordv1.Rate
		first, then     *recordv1.Rate
		kept, restarted int64
	}{
		{"slower by a rule", fast, nil, slow, 0, 0},
		{"slower without a rule", slow, fast, nil, 0, 0},
		{"faster by a rule", slow, nil, fast, 100, 0},
		{"none any more", fast, nil, &recordv1.Rate{}, 0, 0},
		{"none before", slow, &recordv1.Rate{}, slow, 100, 100},
	} {
		for _, restarts := range []bool{false, true} {
			d := newDesk(t)
			to := func(rate *recordv1.Rate) {
				change := &recordv1.Rules{Remove: []string{"s/x"}}
				if rate != nil {
					change = &recordv1.Rules{Set: []*recordv1.LimitRule{{Name: "s/x", Rate: rate}}}
				}
				d.change(change)
			}
			if c.first != nil {
				to(c.first)
			}
			l := &recordv1.Limit{Name: "s/x", Concurrency: 1000, RateCount: c.declared.Count, RatePerMs: c.declared.PerMs, Burst: c.declared.Burst}
			for i := range 100 {
				if got := d.ask(i, l); got != recordv1.Permission_PERMISSION_GRANTED {
					t.Fatalf("%s: %d is answered %v", c.name, i, got)
				}
			}
			d.now++
			to(c.then)
			d.now += 20_000
			want := c.kept
			if restarts {
				d.restart()
				want = c.restarted
			}
			if status, _ := d.limits.Status("s/x", 1, d.now); status.Tokens != want {
				t.Errorf("%s, restarts %v: there are %d tokens, want %d", c.name, restarts, status.Tokens, want)
			}
		}
	}
}

// TestDamagedRules: rows of the rule book that can't be read are named, and what they were for is as
// declared.
func TestDamagedRules(t *testing.T) {
	d := newDesk(t)
	d.change(&recordv1.Rules{Set: append(set("s/x", 1).Set, set("s/y", 1).Set...)})
	d.rows[string(table.Rule("s/x"))] = []byte{0xff}
	d.rows[string(table.Rule("s/z"))] = d.rows[string(table.Rule("s/y"))]
	d.draft = draft.New(d.rows)
	d.limits = New(d, &d.draft, 1)
	damaged, err := d.limits.Recover(d.now)
	if err != nil || len(damaged) != 2 || !strings.Contains(fmt.Sprint(damaged), `rule "s/x"`) || !strings.Contains(fmt.Sprint(damaged), `rule "s/z"`) {
		t.Errorf("named are %v, %v", damaged, err)
	}
	for name, want := range map[string]recordv1.Permission{"s/x": recordv1.Permission_PERMISSION_GRANTED, "s/y": recordv1.Permission_PERMISSION_WAITS} {
		l := &recordv1.Limit{Name: name, Concurrency: 2}
		d.ask(len(name)+int(name[2]), l)
		if got := d.ask(1000+int(name[2]), l); got != want {
			t.Errorf("the second one of %s is answered %v", name, got)
		}
	}
	if d.limits.Book().Version() != 1 {
		t.Errorf("the version is %d", d.limits.Book().Version())
	}
}
