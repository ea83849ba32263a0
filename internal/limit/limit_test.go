package limit

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/perdure/perdure/internal/invocation"
)

func idOf(n int) invocation.ID {
	return invocation.ID{byte(n >> 24), byte(n >> 16), byte(n >> 8), byte(n), 1}
}

// arrive makes everybody wait who is named "tenant" or "tenant:priority" or "+tenant" (one who
// has begun), in that order, behind one who holds the only permit.
func arrive(t *testing.T, l *Limit, names string) {
	t.Helper()
	if answer := l.Ask(&Ask{ID: idOf(0), Holds: true}, 0); answer != Granted {
		t.Fatalf("the first was answered %d", answer)
	}
	for i, name := range strings.Fields(names) {
		a := &Ask{ID: idOf(i + 1), Holds: true, Sequence: uint64(i + 1)}
		name, a.Begun = strings.CutPrefix(name, "+")
		a.Tenant, _, _ = strings.Cut(name, ":")
		if _, priority, ok := strings.Cut(name, ":"); ok {
			if _, err := fmt.Sscan(priority, &a.Priority); err != nil {
				t.Fatal(err)
			}
		}
		if answer := l.Ask(a, 0); answer != Waits {
			t.Fatalf("%s was answered %d", name, answer)
		}
	}
}

// leave lets one after the other end, and names who begins, with the number of arrival.
func leave(l *Limit) string {
	var order []string
	holder := idOf(0)
	for {
		if _, found := l.Release(holder, 0); !found {
			return strings.Join(order, " ")
		}
		a, ok := l.Next(0)
		if !ok {
			return strings.Join(order, " ")
		}
		order = append(order, fmt.Sprintf("%s%d", a.Tenant, a.Sequence))
		holder = a.ID
	}
}

func TestOrder(t *testing.T) {
	tests := map[string]struct{ arrive, leave string }{
		"first come":                    {"a a a", "a1 a2 a3"},
		"tenants take turns":            {"a a a a b b", "a1 b5 a2 b6 a3 a4"},
		"three of them":                 {"a a a b b c", "a1 b4 c6 a2 b5 a3"},
		"priority before tenants":       {"a a:1 a:1 b", "a2 a3 a1 b4"},
		"turns within a priority":       {"a:1 a:1 a:1 b:1 a b", "a1 b4 a2 a3 a5 b6"},
		"a low one last":                {"a:-100 b:100 c", "b2 c3 a1"},
		"begun before any priority":     {"a:100 +b", "b2 a1"},
		"the begun of tenants in turns": {"+a +a +b", "a1 b3 a2"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			l := New(Settings{Concurrency: 1}, 0)
			arrive(t, l, test.arrive)
			if got := leave(l); got != test.leave {
				t.Errorf("%s began as %s, want %s", test.arrive, got, test.leave)
			}
			if !l.Idle(0) {
				t.Errorf("in use by %d, %d wait", l.Held(), l.Waiting())
			}
		})
	}
}

// TestLateTenant: one that comes late starts at the turn of the others: neither behind all that
// wait, nor owed the turns it was not there for.
func TestLateTenant(t *testing.T) {
	l := New(Settings{Concurrency: 1}, 0)
	arrive(t, l, "a a a a a")
	holder := idOf(0)
	for range 3 {
		l.Release(holder, 0)
		a, _ := l.Next(0)
		holder = a.ID
	}
	for i := range 3 {
		l.Ask(&Ask{ID: idOf(100 + i), Holds: true, Tenant: "b", Sequence: uint64(100 + i)}, 0)
	}
	var order []string
	for l.Waiting() > 0 {
		l.Release(holder, 0)
		a, _ := l.Next(0)
		order, holder = append(order, a.Tenant), a.ID
	}
	if got := strings.Join(order, " "); got != "b a b a b" {
		t.Errorf("began as %s", got)
	}
}

// TestFairUnderOverload: a tenant that asks ten times as often as another gets no more than it
// has to, and the quick one that always comes back at once does not starve it.
func TestFairUnderOverload(t *testing.T) {
	l := New(Settings{Concurrency: 4}, 0)
	n := 0
	began := map[string]int{}
	var running []*Ask
	ask := func(tenant string) {
		n++
		a := &Ask{ID: idOf(n), Holds: true, Tenant: tenant, Sequence: uint64(n)}
		if l.Ask(a, 0) == Granted {
			running = append(running, a)
		}
	}
	for range 100 {
		for range 10 {
			ask("greedy")
		}
		ask("modest")
	}
	for range 180 {
		a := running[0]
		running = running[1:]
		l.Release(a.ID, 0)
		next, ok := l.Next(0)
		if !ok {
			t.Fatal("nobody begins")
		}
		began[next.Tenant]++
		running = append(running, next)
	}
	if greedy, modest := began["greedy"], began["modest"]; greedy-modest > 1 || modest-greedy > 1 {
		t.Errorf("of %d, greedy began %d times and modest %d times", greedy+modest, greedy, modest)
	}
}

func TestClosedLoopDoesNotStarve(t *testing.T) {
	l := New(Settings{Concurrency: 1}, 0)
	arrive(t, l, "a a a a a a a a b")
	holder, began, n := idOf(0), map[string]int{}, 1000
	for range 12 {
		l.Release(holder, 0)
		a, ok := l.Next(0)
		if !ok {
			break
		}
		began[a.Tenant]++
		holder = a.ID
		if a.Tenant == "b" { // It asks again as soon as it has begun.
			n++
			l.Ask(&Ask{ID: idOf(n), Holds: true, Tenant: "b", Sequence: uint64(n)}, 0)
		}
	}
	if began["a"] != 6 || began["b"] != 6 {
		t.Errorf("a began %d times and b %d times", began["a"], began["b"])
	}
}

func TestMaxQueue(t *testing.T) {
	l := New(Settings{Concurrency: 1, MaxQueue: 2}, 0)
	arrive(t, l, "a b")
	ask := func(a *Ask) Answer {
		a.Holds = true
		return l.Ask(a, 0)
	}
	if got := ask(&Ask{ID: idOf(10)}); got != Refused || l.Waiting() != 2 {
		t.Errorf("the third was answered %d, %d wait", got, l.Waiting())
	}
	if got := ask(&Ask{ID: idOf(11), Firm: true}); got != Waits {
		t.Errorf("a promised one was answered %d", got)
	}
	if got := ask(&Ask{ID: idOf(12), Begun: true}); got != Waits {
		t.Errorf("one that has begun was answered %d", got)
	}
	none := New(Settings{Concurrency: 1, MaxQueue: NoQueue}, 0)
	if got := none.Ask(&Ask{ID: idOf(1), Holds: true}, 0); got != Granted {
		t.Errorf("the first of a limit without a queue was answered %d", got)
	}
	if got := none.Ask(&Ask{ID: idOf(2), Holds: true}, 0); got != Refused {
		t.Errorf("the second of a limit without a queue was answered %d", got)
	}
}

// TestRateIsExact: over a long time no more begin than the rate and one burst, and no fewer,
// also when the period is no multiple of the count.
func TestRateIsExact(t *testing.T) {
	for _, rate := range []Rate{{3, 1000, 1}, {7, 1000, 7}, {1000, 1000, 10}, {1, 86_400_000, 1}, {999_999, 1000, 5000}} {
		l := New(Settings{Rate: rate}, 0)
		began := int64(0)
		waiting := 0
		for i := range 20_000 {
			if l.Ask(&Ask{ID: idOf(i), Sequence: uint64(i)}, 0) == Granted {
				began++
			} else {
				waiting++
			}
		}
		if began != min(rate.Burst, 20_000) {
			t.Errorf("%+v: %d began at once", rate, began)
		}
		now := int64(0)
		for began < 20_000 && now < 100*rate.Per {
			at := l.Wake(now)
			if at <= now {
				t.Fatalf("%+v: at %d it wakes at %d with %d waiting", rate, now, at, l.Waiting())
			}
			if _, ok := l.Next(at - 1); ok {
				t.Fatalf("%+v: one began before its token was there", rate)
			}
			now = at
			for {
				if _, ok := l.Next(now); !ok {
					break
				}
				began++
			}
			if most := rate.Burst + now*rate.Count/rate.Per; began > most {
				t.Fatalf("%+v: %d began in %d ms, more than %d", rate, began, now, most)
			} else if began < min(most, 20_000)-1 {
				t.Fatalf("%+v: %d began in %d ms, %d could have", rate, began, now, most)
			}
		}
	}
}

// TestClockSetBack: tokens neither come nor go.
func TestClockSetBack(t *testing.T) {
	const noon = 1_000_000_000
	l := New(Settings{Rate: Rate{1, 100, 1}}, noon)
	if l.Ask(&Ask{ID: idOf(1)}, noon) != Granted || l.Ask(&Ask{ID: idOf(2)}, noon) != Waits {
		t.Fatal("the bucket does not hold one token")
	}
	const early = noon - 3_600_000
	if _, ok := l.Next(early); ok {
		t.Fatal("a clock that was set back brought a token")
	}
	if at := l.Wake(early); at != early+100 {
		t.Errorf("it wakes at %d, want %d", at, early+100)
	}
	if _, ok := l.Next(early + 99); ok {
		t.Error("a token came early")
	}
	// Events that overtake each other bring no time twice.
	if _, ok := l.Next(early + 50); ok {
		t.Error("a token came early")
	}
	if _, ok := l.Next(early + 100); !ok {
		t.Error("no token after 100 ms of the clock that was set back")
	}
	if l.Ask(&Ask{ID: idOf(3)}, early+100) != Waits {
		t.Fatal("there was another token")
	}
	for i := range int64(99) {
		if _, ok := l.Next(early + 101 + i - i%2*30); ok {
			t.Fatalf("a token came after %d ms", i+1)
		}
	}
}

func TestSettingsChange(t *testing.T) {
	l := New(Settings{Concurrency: 1}, 0)
	arrive(t, l, "a b c")
	l.Set(Settings{Concurrency: 3}, 0)
	var began int
	for {
		if _, ok := l.Next(0); !ok {
			break
		}
		began++
	}
	if began != 2 || l.Held() != 3 {
		t.Errorf("with two permits more, %d began and %d run", began, l.Held())
	}
	l.Set(Settings{Concurrency: 1}, 0)
	l.Release(idOf(0), 0)
	if a, ok := l.Next(0); ok {
		t.Errorf("%s began while two of one ran", a.Tenant)
	}
	l.Set(Settings{Rate: Rate{10, 1000, 4}}, 0)
	if got := l.Tokens(0); got != 4 {
		t.Errorf("a new rate has %d tokens", got)
	}
	l.Set(Settings{Rate: Rate{1, 7, 2}}, 0)
	if got := l.Tokens(0); got != 2 {
		t.Errorf("a smaller bucket has %d tokens", got)
	}
}

func TestRelease(t *testing.T) {
	l := New(Settings{Concurrency: 1}, 0)
	l.Ask(&Ask{ID: idOf(1), Number: 5, Holds: true}, 0)
	l.Ask(&Ask{ID: idOf(2), Number: 6, Holds: true, Sequence: 1}, 0)
	if _, found := l.Release(idOf(1), 4); found {
		t.Error("a permit of another ask was released")
	}
	if waited, found := l.Release(idOf(2), 6); !found || waited == nil || l.Waiting() != 0 {
		t.Error("one that waits could not take its ask back")
	}
	if waited, found := l.Release(idOf(1), 0); !found || waited != nil {
		t.Error("the permit was not released")
	}
	if _, found := l.Release(idOf(1), 0); found {
		t.Error("it was released twice")
	}
}

// TestRetryAfter grows with the queue and stays in bounds.
func TestRetryAfter(t *testing.T) {
	l := New(Settings{Concurrency: 1}, 0)
	arrive(t, l, strings.Repeat("a ", 20))
	if got := l.RetryAfter(0); got != unknownRetryAfter {
		t.Errorf("with nothing known it is %d ms", got)
	}
	holder, now := idOf(0), int64(0)
	for range 10 {
		now += 2000
		l.Release(holder, 0)
		a, _ := l.Next(now)
		holder = a.ID
	}
	if got := l.RetryAfter(now); got < 5000 || got > 12_000 {
		t.Errorf("with 10 waiting and one each 2 s it is %d ms", got)
	}
	slow := New(Settings{Rate: Rate{1, 3_600_000, 1}}, 0)
	arrive(t, slow, "a a a")
	if got := slow.RetryAfter(0); got != maxRetryAfter {
		t.Errorf("with one an hour it is %d ms", got)
	}
}

// TestRestoreKeepsTheOrder: what is written down is read back in any order as the same queue.
func TestRestoreKeepsTheOrder(t *testing.T) {
	const names = "a a a b:3 +c b a:3 c"
	l := New(Settings{Concurrency: 1}, 0)
	arrive(t, l, names)
	restored := Restore(Settings{Concurrency: 1}, 0, 0)
	restored.Hold(idOf(0), Permit{})
	rows := slices.Clone(l.queue)
	slices.Reverse(rows)
	for _, a := range rows {
		clone := *a
		restored.Queue(&clone)
	}
	want := leave(l)
	if got := leave(restored); got != want {
		t.Errorf("began as %s, before the restart it would have been %s", got, want)
	}
}

func TestShow(t *testing.T) {
	l := New(Settings{Concurrency: 2}, 0)
	l.Ask(&Ask{ID: idOf(1), Tenant: "a", Holds: true}, 5)
	l.Ask(&Ask{ID: idOf(2), Tenant: "b", Holds: true}, 4)
	for i, tenant := range []string{"b", "b", "c"} {
		l.Ask(&Ask{ID: idOf(10 + i), Tenant: tenant, Holds: true, At: int64(20 - i), Sequence: uint64(i)}, 20)
	}
	if holders := l.Holders(1); len(holders) != 1 || holders[0].ID != idOf(2) || holders[0].Tenant != "b" {
		t.Errorf("holders: %v", holders)
	}
	if queued := l.Queued(2); len(queued) != 2 || queued[0].ID != idOf(10) || queued[1].ID != idOf(12) {
		t.Errorf("the queue does not begin with those that begin first")
	}
	if at := l.Oldest(); at != 18 {
		t.Errorf("the oldest asked at %d", at)
	}
	if got := fmt.Sprint(l.Shares(2)); got != "[{b 1 2} {c 0 1}]" {
		t.Errorf("shares: %s", got)
	}
}
