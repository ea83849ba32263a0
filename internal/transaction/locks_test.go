package transaction_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/perdure/perdure/internal/invocation"
	"github.com/perdure/perdure/internal/transaction"
)

// A line of a script is "who does: answer; what follows; what follows". Who is a letter and a
// number:
//
//	t3   a transaction's hold of the key; t1 is older than t3
//	r3   the same of one that has only read so far
//	w3   the same of one that was wounded before it asked
//	a3   the same of one that holds nothing else, so that it may wait for anybody
//	c3   a call that is no part of a transaction
//	d3   a DURABLE handler
//
// What follows are changes: "t3 granted", "t3 in the way", "t3 stuck".
var lockScripts = []struct{ name, script string }{
	// The table of the package's comment, row by row.
	{"wanted by a transaction, held by a younger one: wounds it, waits", `
		t2 writes: has
		t1 writes: waits; t2 in the way
		t2 releases: t1 granted`},
	{"wanted by a transaction, held by an older one: waits", `
		t1 writes: has
		t2 writes: waits
		t1 releases: t2 granted`},
	{"wanted by a transaction, held by a call: waits", `
		c1 writes: has
		t1 writes: waits
		c1 releases: t1 granted`},
	{"wanted by a transaction, held by a DURABLE handler: gives way", `
		d1 writes: has
		t1 writes: blocked
		d1 releases: free`},
	{"it waits for a DURABLE handler when it holds nothing", `
		d1 writes: has
		a1 writes: waits
		d1 releases: a1 granted`},
	{"to read, held by a younger one: wounds it, waits", `
		t2 writes: has
		t1 reads: waits; t2 in the way
		t2 releases: t1 granted`},
	{"to read, held by an older one: waits", `
		t1 writes: has
		t2 reads: waits
		t1 releases: t2 granted`},
	{"to read, held by a call: waits", `
		c1 writes: has
		t1 reads: waits
		c1 releases: t1 granted`},
	{"to read, held by a DURABLE handler: reads beside it", `
		d1 writes: has
		t1 reads: has, beside
		d1 releases:
		t1 releases: free`},
	{"to read, held by those that read: shares", `
		t1 reads: has
		t2 reads: has
		t1 releases:
		t2 releases: free`},
	{"wanted by a call: waits, whoever holds it", `
		t1 writes: has
		c1 writes: waits
		t1 releases: c1 granted
		d1 writes: waits
		c1 releases: d1 granted
		c2 writes: waits
		d1 releases: c2 granted
		c2 releases: free`},

	// Ages.
	{"one that has only read is older than all that write", `
		r9 reads: has
		t1 writes: waits
		r9 releases: t1 granted`},
	{"when it writes at last, the older ones need not wait", `
		r9 reads: has
		t1 writes: waits
		r9 turns: r9 in the way`},
	{"a holder hears only once that it is in the way", `
		t3 writes: has
		t2 writes: waits; t3 in the way
		t1 writes: waits
		remind: t3 in the way; t3 in the way`},
	{"who has promised is in nobody's way", `
		t2 writes: has
		t2 promises:
		t1 writes: waits
		t2 releases: t1 granted`},
	{"a call whose handler calls others is in the way from then on", `
		c2 writes: has
		t1 writes: waits
		c2 spreads: c2 in the way
		c2 releases: t1 granted`},
	{"an older call's transaction is not", `
		c1 writes: has
		t2 writes: waits
		c1 spreads:`},

	// The wounded.
	{"a wounded one takes what is free", `
		w1 writes: has`},
	{"a wounded one does not begin to wait", `
		t1 writes: has
		w2 writes: yields
		t1 releases: free`},
	{"a wounded one that waits is stuck", `
		t1 writes: has
		t2 writes: waits
		t2 wounded: t2 stuck
		t2 releases:
		t1 releases: free`},
	{"a wounded one that only holds goes on", `
		t2 writes: has
		t1 writes: waits; t2 in the way
		t2 wounded:`},
	{"one that holds nothing waits though it is wounded", `
		t1 writes: has
		a2 writes: waits
		a2 wounded:
		t1 releases: a2 granted`},
	{"once it holds something it must not wait for anybody any more", `
		t3 writes: has
		a2 writes: waits
		a2 holds: t3 in the way
		t3 releases: a2 granted
		a2 releases: free
		d1 writes: has
		a4 writes: waits
		a4 holds: a4 stuck
		a4 releases:
		a5 writes: waits
		a5 wounded:
		a5 holds: a5 stuck; a5 stuck`},
	{"those that wait are stuck when a DURABLE handler comes first", `
		c1 writes: has
		d1 writes: waits
		t1 writes: waits
		c1 releases: d1 granted; t1 stuck
		t1 releases:
		d1 releases: free`},

	// Whose turn it is.
	{"calls come first come first served", `
		c1 writes: has
		c2 writes: waits
		d3 writes: waits
		c4 writes: waits
		c1 releases: c2 granted
		c2 releases: d3 granted
		d3 releases: c4 granted
		c4 releases: free`},
	{"older transactions come before younger", `
		t1 writes: has
		t4 writes: waits
		t2 writes: waits
		t3 writes: waits
		t1 releases: t2 granted
		t2 releases: t3 granted
		t3 releases: t4 granted`},
	{"a transaction does not pass the calls that came before it", `
		c1 writes: has
		c2 writes: waits
		t1 writes: waits
		c1 releases: c2 granted
		c2 releases: t1 granted`},
	{"an older transaction passes the calls that came behind a younger", `
		c1 writes: has
		t2 writes: waits
		c2 writes: waits
		t1 writes: waits
		c1 releases: t1 granted
		t1 releases: t2 granted
		t2 releases: c2 granted`},
	{"readers come in together", `
		t1 writes: has
		t2 reads: waits
		t3 reads: waits
		t4 writes: waits
		t5 reads: waits
		t1 releases: t2 granted; t3 granted
		t2 releases:
		t3 releases: t4 granted
		t4 releases: t5 granted`},
	{"a younger reader does not pass a transaction that waits to write", `
		t1 reads: has
		t2 writes: waits
		t3 reads: waits
		t1 releases: t2 granted
		t2 releases: t3 granted`},
	{"an older reader does", `
		t2 reads: has
		t3 writes: waits
		t1 reads: has`},
	{"a reader that may hold other keys passes the calls that wait", `
		t1 reads: has
		c1 writes: waits
		t2 reads: has
		t1 releases:
		t2 releases: c1 granted`},
	{"one that holds nothing does not", `
		t1 reads: has
		c1 writes: waits
		a2 reads: waits
		t1 releases: c1 granted
		c1 releases: a2 granted`},

	// Those that wait while others read: after three it is said, and again after three more.
	{"a transaction is passed by readers", `
		r1 reads: has
		t1 writes: waits
		r2 reads: has
		t2 reads: waits
		r3 reads: has
		r4 reads: has; t1 passed
		r5 reads: has
		r6 reads: has
		r7 reads: has; t1 passed`},
	{"a call is", `
		r1 reads: has
		c1 writes: waits
		c2 writes: waits
		r2 reads: has
		r3 reads: has
		r4 reads: has; c1 passed`},
	{"a DURABLE handler is", `
		r1 reads: has
		d1 writes: waits
		r2 reads: has
		r3 reads: has
		r4 reads: has; d1 passed`},
	{"who comes before it in the queue passes it too", `
		t9 writes: has
		t1 writes: waits; t9 in the way
		r2 reads: waits
		r3 reads: waits
		r4 reads: waits; t1 passed`},
	{"nobody passes who waits for a DURABLE handler", `
		d1 writes: has
		c1 writes: waits
		r1 reads: has, beside
		r2 reads: has, beside
		r3 reads: has, beside
		r4 reads: has, beside`},

	// Upgrades.
	{"who reads alone writes at once", `
		t1 reads: has
		t1 upgrades: has
		t2 reads: waits`},
	{"one that shares waits for the others, and the younger give way", `
		t1 reads: has
		t2 reads: has
		t1 upgrades: waits; t2 in the way
		t2 releases: t1 granted`},
	{"of two that upgrade the older stays", `
		t1 reads: has
		t2 reads: has
		t2 upgrades: waits
		t1 upgrades: waits; t2 in the way
		t2 wounded: t2 stuck
		t2 releases: t1 granted`},
	{"who upgrades comes before all that wait", `
		t2 reads: has
		t3 reads: has
		c1 writes: waits
		t1 writes: waits; t2 in the way; t3 in the way
		t3 upgrades: waits
		t2 releases: t3 granted
		t3 releases: c1 granted
		c1 releases: t1 granted`},
	{"who upgrades is not passed by younger readers", `
		t1 reads: has
		t2 reads: has
		t1 upgrades: waits; t2 in the way
		t3 reads: waits
		t2 releases: t1 granted
		t1 releases: t3 granted`},
	{"a wounded one does not wait to upgrade", `
		t1 reads: has
		t2 reads: has
		t2 wounded:
		t2 upgrades: yields`},
	{"nobody upgrades beside a DURABLE handler", `
		d1 writes: has
		t1 reads: has, beside
		t1 upgrades: blocked`},

	// Giving way.
	{"who gives way comes back before the calls, behind the older", `
		c5 writes: has
		c6 writes: waits
		c5 spreads:
		t1 writes: waits; c5 in the way
		c7 writes: waits
		c5 releases: c6 granted
		c5 returns: waits
		c6 releases: t1 granted
		t1 releases: c5 granted
		c5 releases: c7 granted`},
	{"a key nobody wants is taken back at once", `
		c1 writes: has
		c1 spreads:
		c1 releases: free
		c1 returns: has`},
}

func TestLocks(t *testing.T) {
	for _, test := range lockScripts {
		t.Run(test.name, func(t *testing.T) {
			s := &lockScript{locks: transaction.NewLocks(3), requests: map[string]*transaction.Request{}}
			for line := range strings.Lines(strings.TrimSpace(test.script)) {
				line = strings.TrimSpace(line)
				command, want, _ := strings.Cut(line, ":")
				got := s.do(t, command)
				if want = strings.TrimSpace(want); got != want {
					t.Fatalf("%s:\n got: %s\nwant: %s", command, got, want)
				}
			}
		})
	}
}

// lockScript runs the lines of a script on one key.
type lockScript struct {
	locks    *transaction.Locks
	requests map[string]*transaction.Request
}

var lockKey = invocation.Object{Service: "S", Key: "k"}

func (s *lockScript) request(who string) *transaction.Request {
	if r := s.requests[who]; r != nil {
		return r
	}
	r := &transaction.Request{Owner: who, Object: lockKey, Kind: transaction.Branch, Age: ageOf(who)}
	switch who[0] {
	case 'c':
		r.Kind = transaction.Call
	case 'd':
		r.Kind = transaction.Durable
	case 'r':
		r.Age.Reader = true
	case 'w':
		r.Wounded = true
	case 'a':
		r.Alone = true
	}
	s.requests[who] = r
	return r
}

func ageOf(who string) transaction.Age {
	return transaction.Age{At: int64(who[1] - '0'), Root: invocation.ID{who[0], who[1]}}
}

func (s *lockScript) do(t *testing.T, command string) string {
	t.Helper()
	who, verb, _ := strings.Cut(command, " ")
	var said []string
	answer := func(a transaction.Answer) {
		said = append(said, map[transaction.Answer]string{transaction.Has: "has", transaction.Waits: "waits", transaction.Blocked: "blocked", transaction.Yields: "yields"}[a])
		if a == transaction.Has && s.requests[who].Beside {
			said[0] += ", beside"
		}
	}
	switch r := s.request(who); verb {
	case "":
		s.locks.Remind()
	case "writes":
		answer(s.locks.Acquire(r))
	case "reads":
		r.Shared = true
		answer(s.locks.Acquire(r))
	case "upgrades":
		answer(s.locks.Upgrade(r))
	case "returns":
		answer(s.locks.Return(r))
	case "releases":
		s.locks.Release(r)
	case "spreads":
		s.locks.Spread(r, transaction.ID{Root: r.Age.Root}, r.Age)
	case "turns":
		s.locks.Writes(r)
	case "wounded":
		s.locks.Wound(r)
	case "holds":
		s.locks.NotAlone(r)
	case "promises":
		r.Prepared = true
	default:
		t.Fatalf("what is %q?", command)
	}
	for c, ok := s.locks.Next(); ok; c, ok = s.locks.Next() {
		what := map[transaction.What]string{transaction.Granted: "granted", transaction.InTheWay: "in the way", transaction.Stuck: "stuck", transaction.Passed: "passed"}[c.What]
		said = append(said, fmt.Sprint(c.Request.Owner, " ", what))
	}
	s.consistent(t, command)
	if s.locks.Held() == 0 {
		said = append(said, "free")
	}
	return strings.Join(said, "; ")
}

// consistent holds after every line.
func (s *lockScript) consistent(t *testing.T, command string) {
	t.Helper()
	holders, queue := s.locks.Holders(lockKey), s.locks.Queue(lockKey)
	if len(queue) != s.locks.Queued() {
		t.Errorf("after %s: %d wait, Queued is %d", command, len(queue), s.locks.Queued())
	}
	if len(holders) == 0 && len(queue) > 0 {
		t.Errorf("after %s: nobody holds the key and %d wait for it", command, len(queue))
	}
	for _, r := range s.requests {
		held, waiting := false, false
		for _, h := range holders {
			held = held || h == r
		}
		for _, q := range queue {
			waiting = waiting || q == r
		}
		if held != r.Held() || waiting != r.Waiting() {
			t.Errorf("after %s: %s holds %t and waits %t, and says %t and %t", command, r.Owner, held, waiting, r.Held(), r.Waiting())
		}
	}
	for _, h := range holders {
		if !h.Shared && h.Kind != transaction.Durable && len(holders) > 1 {
			t.Errorf("after %s: %s has the key for itself, beside %d others", command, h.Owner, len(holders)-1)
		}
	}
}
