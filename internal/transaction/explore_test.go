// The explorer looks at every execution of small worlds of two and three partitions, through the
// real engine: TestExplore.
//
// # A world
//
// A setup is two or three clients that each call a root once, the handlers being small programs
// (program), and hazards are what may go wrong. What can happen is a move: a message is
// delivered (or doubled, or lost), the oldest record of a partition becomes durable, a partition
// crashes (the records on their way to the disk are all kept or all lost, and what hung on them
// does not happen), a second passes. Time passes only when nothing else can happen, or as a
// hazard. Handlers do what they do at once. Messages of a leadership that has ended are still
// delivered; a client whose call had an idempotency key makes it again after a crash.
//
// # How every execution is one of few
//
// Listing executions one by one is hopeless: the smallest setup has more than 10^12, which
// differ in the order of things that do not touch each other. But after any order of those the
// world is in the same state, and what can happen from there is the same. So the search is over
// states, each of which is visited once, and the executions are counted, not made:
//
//   - A partition's state is all that the engine and the place around it have in memory, and
//     its rows (fingerprint). An engine is deterministic, so what an action comes to in such a
//     state is found out once and then known (step): the engine is run some thousand times,
//     while the states of the world, which are only a number for each partition and the
//     messages on their way, are millions.
//   - Messages with the same content are the same message, so that it does not matter in which
//     order they were sent.
//
// Sleep sets, the usual way, only save visiting the same state twice; this saves all that
// they would. The states are complete, so checks that look at one state miss none: an engine
// keeps no history, and what matters of the past (who was answered before whose call) is part
// of the state.
//
// # What is checked
//
// In every state: no key has two holders of which one has it for itself; no effect of a
// transaction that has failed is on any disk; all that a transaction wrote whose caller has its
// answer is on the disk, or hidden from READ handlers. In every state in which nothing more can
// happen: every client has its answer; some order of the transactions, which puts one that was
// answered before another was called first, explains every list and every answer, and all that
// handlers have read; no lock, waiter, promise, decision, handler or message is left. That
// nothing effects anything before it is durable is how the world is made. No execution goes on
// for ever: none goes round in a circle, makes more than tooMany moves, or takes longer than
// the setup's seconds, which is less than the limit of a transaction's tries.
//
// # Running it
//
//	go test ./internal/transaction                                       what fits a few seconds
//	go test ./internal/transaction -run Explore -v -args -explore.for=10m   all of it
//
// A setup that does not end in its time is looked at along random executions for a third of
// that time more. A failure is shown with as few moves as can be found.
package transaction_test

import (
	"flag"
	"math/rand"
	"sync/atomic"
	"testing"
	"time"
)

var (
	exploreFor  = flag.Duration("explore.for", 0, "how long to look at each setup with each of its hazards; 0 is short")
	exploreSeed = flag.Int64("explore.seed", 1, "decides what is looked at first")
)

// setups are the small worlds. The digit in an object's name is its partition.
func setups() []*setup {
	first := func(root *program) *client { return &client{root: root, at: 1, keyed: true, older: true} }
	second := func(root *program) *client { return &client{root: root, at: 2, keyed: true} }
	unkeyed := func(c *client) *client { c.keyed = false; return c }
	younger := func(c *client) *client { c.older = false; return c }
	older := func(c *client) *client { c.older = true; return c }
	t1 := func() *client { return first(write("T1", "", write("T1a", "a1"), write("T1b", "b2"))) }
	t2 := func() *client { return second(write("T2", "", write("T2b", "b2"), write("T2a", "a1"))) }
	two := func(name string, clients ...*client) *setup {
		return &setup{name: name, partitions: 2, seconds: 15, clients: clients}
	}
	three := func(name string, clients ...*client) *setup {
		return &setup{name: name, partitions: 3, seconds: 15, clients: clients}
	}
	return []*setup{
		two("crosswise", t1(), t2()),
		two("nested",
			first(write("T1", "", write("T1a", "a1", write("T1b", "b2")))),
			second(write("T2", "", write("T2b", "b2", write("T2a", "a1"))))),
		two("together", first(together(write("T1", "", write("T1a", "a1"), write("T1b", "b2")))), t2()),
		two("objects",
			first(write("T1a", "a1", write("T1b", "b2"))),
			second(write("T2b", "b2", write("T2a", "a1")))),
		two("older reader", first(read("T1", "", read("T1a", "a1"), read("T1b", "b2"))), t2()),
		two("younger reader", younger(first(write("T1", "", read("T1a", "a1"), read("T1b", "b2")))), older(t2())),
		two("write skew",
			first(write("T1", "", read("T1a", "a1"), write("T1b", "b2"))),
			second(write("T2", "", read("T2b", "b2"), write("T2a", "a1")))),
		two("upgrades",
			first(write("T1", "", read("T1a", "a1"), write("T1c", "a1"))),
			second(write("T2", "", read("T2a", "a1"), write("T2c", "a1")))),
		two("same object twice",
			first(write("T1", "", write("T1a", "a1"), write("T1b", "b2"), write("T1c", "a1"))), t2()),
		two("failing root", first(failing(write("T1", "", write("T1a", "a1"), write("T1b", "b2")))), t2()),
		two("failing callee",
			first(tolerant(write("T1", "", failing(write("T1a", "a1", write("T1b", "b2"))), write("T1c", "b2")))), t2()),
		two("alone", unkeyed(first(write("T1", "", write("T1b", "b2")))), unkeyed(second(write("T2", "", write("T2a", "a1"))))),
		two("without keys", unkeyed(t1()), unkeyed(t2())),
		three("handed on",
			unkeyed(first(write("T1", "", write("T1b", "b2"), write("T1c", "c3")))),
			unkeyed(first(write("T2", "", write("T2c", "c3"), write("T2b", "b2"))))),
		three("handed on, and who reads",
			unkeyed(first(write("T1", "", write("T1b", "b2"), write("T1c", "c3")))),
			unkeyed(first(read("T2", "", read("T2c", "c3"), read("T2b", "b2"))))),
		three("handed on by calls of calls",
			unkeyed(first(write("T1", "", write("T1b", "b2", write("T1c", "c3"))))),
			unkeyed(second(write("T2c", "c3", write("T2b", "b2"))))),
		three("three partitions",
			first(write("T1", "", write("T1a", "a1"), write("T1b", "b2"), write("T1c", "c3"))),
			second(write("T2", "", write("T2c", "c3"), write("T2a", "a1")))),
		two("three transactions", t1(), t2(),
			&client{root: write("T3a", "a1"), keyed: true}),
		two("a DURABLE handler", t1(), &client{root: durable("Db", "b2"), keyed: true}),
		two("a DURABLE handler, and who reads", first(read("T1", "", read("T1a", "a1"), read("T1b", "b2"))),
			&client{root: durable("Db", "b2"), keyed: true}),
		two("an object and a DURABLE handler", first(write("T1a", "a1", write("T1b", "b2"))),
			&client{root: durable("Db", "b2"), keyed: true}),
	}
}

// dangers are the hazards that each setup is looked at with.
var dangers = []struct {
	hazards
	// long: it takes more than a second, and the short test only looks at some executions.
	long bool
}{
	{hazards: hazards{inOrder: true, crashes: 1}},
	{hazards: hazards{}},
	{hazards: hazards{inOrder: true, doubles: 1, losses: 1}},
	{hazards: hazards{inOrder: true, early: 1}},
	{hazards{losses: 1}, true},
	{hazards{doubles: 2}, true},
	{hazards{crashes: 1}, true},
	{hazards{inOrder: true, crashes: 2}, true},
	{hazards{inOrder: true, crashes: 1, losses: 1, early: 1}, true},
}

// TestExplore looks at all setups with all hazards.
func TestExplore(t *testing.T) {
	var failed atomic.Bool
	for _, s := range setups() {
		t.Run(s.name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(s)
			for _, h := range dangers {
				budget := *exploreFor
				switch {
				case budget > 0:
				case h.long:
					budget = 20 * time.Millisecond
				default:
					budget = 400 * time.Millisecond
				}
				look := explore(t, w, h.hazards, budget)
				if look.failure == "" {
					continue
				}
				if failed.Swap(true) {
					t.Fatal(look.failure) // One story is enough.
				}
				look.shortest(2_000_000, time.Now().Add(5*time.Second))
				t.Fatalf("%s\n%s", look.failure, look.story())
			}
		})
	}
}

func explore(t *testing.T, w *world, h hazards, budget time.Duration) *search {
	t.Helper()
	begun := time.Now()
	w.longest = 0
	look := &search{w: w, hazards: h, until: begun.Add(budget), order: rand.New(rand.NewSource(*exploreSeed)), seen: map[[16]byte]float64{}}
	paths := look.all(w.begin(h))
	how := "complete"
	if look.stopped {
		how = "STOPPED "
		for until := time.Now().Add(budget / 3); look.failure == "" && time.Now().Before(until); look.walks++ {
			look.walk()
		}
	}
	t.Logf("%s %-34s %8d states %9d moves %7.1g executions, %3d moves and %d s at most; %4d walks; %d local states; %s",
		how, h, len(look.seen), look.edges, paths, look.deepest, w.longest, look.walks, len(w.locals), time.Since(begun).Round(time.Millisecond))
	return look
}
