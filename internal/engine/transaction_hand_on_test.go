package engine

import (
	"maps"
	"strings"
	"testing"

	recordv1 "github.com/perdure/perdure/internal/record/v1"
)

// decidedButUnheard is a transaction t, begun in partition 1, that writes fay in 2 and kim in 3. 3 has
// decided, 2 has heard of it, and the word to the coordinator is on its way.
const decidedButUnheard = "hand on\ninvoke t token=1 input=one now=1000\ncall t index=1 key=fay input=f\nfinish f set=first\n" +
	"call t index=2 key=kim input=k\nfinish k set=first\nunsynced 3\nfinish t value=done\nhold vote\nsynced 3"

// A coordinator that has been superseded and does not know it has asked for the decision, which was
// made. Its successor, which knows nothing of the try, is the one that hears of it and says so: the
// decision is forgotten. The predecessor, whose answer was lost, asks again, hears that it was never
// decided, and runs the transaction again. That must not take effect without a record of its own,
// which the log refuses.
func TestSuccessorForgetsTheDecision(t *testing.T) {
	for _, moved := range []bool{false, true} {
		s := newScript()
		out := s.run(t, decidedButUnheard)
		if !strings.Contains(out, `state Svc fay "first"`) || !strings.Contains(out, `state Svc kim "first"`) {
			t.Fatalf("it was not decided:\n%s", out)
		}
		s.run(t, "lose vote") // or it came to the successor

		successor := New(Config{Partition: 1, Partitions: 4}, mapView(maps.Clone(s.rows[1])), 8)
		if _, err := successor.Recover(s.now); err != nil {
			t.Fatal(err)
		}
		// What the decider says to the coordinator's partition reaches the one or the other.
		s.run(t, "hold commit")
		s.run(t, "tick partition=3 now=3000")
		var commit *recordv1.Peer
		for _, l := range s.mail.held {
			if l.to == 1 {
				commit = l.peer
			}
		}
		if commit == nil {
			t.Fatal("partition 1 is not told")
		}
		heard, err := successor.Evaluate(&Told{Peer: commit}, s.now)
		if err != nil {
			t.Fatal(err)
		}
		s.collect(1, heard)
		if out := s.run(t, "lose commit"); !strings.Contains(out, "- decision t") {
			t.Logf("the decision stays:\n%s", out)
		}
		if moved { // to a node that believes in the predecessor still
			s.run(t, "restart partition=3")
		}
		if out := s.run(t, "tick partition=1 now=5000"); strings.Contains(out, "start t attempt 2") {
			// Having read what it wrote the first time, it asks for less.
			out += s.run(t, "call t attempt=2 index=1 key=fay input=f2\nfinish f2 attempt=2 set=second\nhold vote\nfinish t attempt=2 value=done")
			if strings.Contains(out, `+ state Svc fay "second"`) {
				t.Errorf("moved: %v: it has taken effect twice:\n%s", moved, out)
			}
		}
	}
}

// The same with one participant, which keeps no decision: the successor, asked, ends what is left of
// the try there, and then the predecessor is told no.
func TestSuccessorForgetsWhoCommittedAlone(t *testing.T) {
	s := newScript()
	s.run(t, "hand on\ninvoke t token=1 input=one now=1000\ncall t index=1 key=kim input=k\nfinish k set=first\nhold vote\nfinish t value=done\nlose vote\nhold inquire\ntick partition=3 now=3000")
	successor := New(Config{Partition: 1, Partitions: 4}, mapView(maps.Clone(s.rows[1])), 8)
	if _, err := successor.Recover(s.now); err != nil {
		t.Fatal(err)
	}
	heard, err := successor.Evaluate(&Told{Peer: s.mail.held[0].peer}, s.now)
	if err != nil {
		t.Fatal(err)
	}
	s.collect(1, heard)
	s.run(t, "lose inquire")
	out := s.run(t, "tick partition=1 now=5000")
	if strings.Contains(out, "start t attempt 2") {
		out += s.run(t, "call t attempt=2 index=1 key=kim input=k2\nfinish k2 attempt=2 set=second\nhold vote\nfinish t attempt=2 value=done")
	}
	if strings.Contains(out, `+ state Svc kim "second"`) {
		t.Errorf("it has taken effect twice:\n%s", out)
	}
}

// A DURABLE handler waits for the result of a transaction that nobody keeps, after that was handed
// on. The root must not be written down for that, as one that runs: when its leader is lost after the
// decision, the next one would find it and run it again. It hears what it would a moment later.
func TestAttachedAfterItWasHandedOn(t *testing.T) {
	begin := "hand on\ninvoke d mode=DURABLE key=ann oneway=1 token=9 now=1000\ninvoke t token=1 input=one\ncall t index=1 key=fay input=f\nfinish f set=first\n" +
		"call t index=2 key=kim input=k\nfinish k set=first\n"
	attach := "append d index=1 kind=attach-to to=t\n"
	for at, script := range map[string]string{
		"while the others promise": begin + "hold prepare\nfinish t value=done\n" + attach + "unsynced 3\nrelease prepare\nhold vote\nsynced 3",
		"while one commits alone":  "hand on\ninvoke d mode=DURABLE key=ann oneway=1 token=9 now=1000\ninvoke t token=1 input=one\ncall t index=1 key=kim input=k\nfinish k set=first\nunsynced 3\nfinish t value=done\n" + attach + "hold vote\nsynced 3",
		"while it is decided":      begin + "unsynced 3\nfinish t value=done\n" + attach + "hold vote\nsynced 3",
	} {
		s := newScript()
		out := s.run(t, script)
		if !strings.Contains(out, `+ state Svc kim "first"`) || !strings.Contains(out, "nobody keeps its result") {
			t.Fatalf("%s: not decided, or d waits:\n%s", at, out)
		}
		// The successor is told of the decision too, and does not know what to do with it.
		out = s.run(t, "lose vote\nrestart partition=1\ntick partition=3 now=3000")
		if strings.Contains(out, "start t attempt") {
			t.Errorf("%s: it has committed and runs again:\n%s", at, out)
		}
	}
}

// Nor must it be written down for whoever makes the same call again and is no caller that waits
// here: a handler, or one that wants to know that it is taken.
func TestCalledAgainAfterItWasHandedOn(t *testing.T) {
	for _, call := range []string{"invoke t input=one idem=t oneway=1 token=2", "append d index=1 kind=call to=t input=one"} {
		s := newScript()
		s.run(t, "hand on\ninvoke d mode=DURABLE key=ann oneway=1 token=9 now=1000\n"+
			"invoke t token=1 input=one idem=t\ncall t index=1 key=fay input=f\nfinish f set=first\n"+
			"call t index=2 key=kim input=k\nfinish k set=first\nhold vote\nfinish t value=done")
		if out := s.run(t, call); strings.Contains(out, "invocation t") || !strings.Contains(out, "nobody keeps its result") {
			t.Errorf("%s: it is taken:\n%s", call, out)
		}
		if out := s.run(t, "release vote"); !strings.Contains(out, `reply 1 "done"`) {
			t.Errorf("%s: it has no answer:\n%s", call, out)
		}
	}
}
