package engine

import (
	"strings"
	"testing"

	"github.com/perdure/perdure/internal/invocation"
	recordv1 "github.com/perdure/perdure/internal/record/v1"
)

// A promise that has read an object beside a DURABLE handler leaves that handler its key when
// the partition gets another leader.
func TestPromiseBesideADurableHandlerIsRecovered(t *testing.T) {
	for _, state := range []string{"running", "suspended", "paused"} {
		t.Run(state, func(t *testing.T) {
			s := newScript()
			s.run(t, "invoke d@2 partition=2 mode=DURABLE key=fay oneway=1 token=9 attempts=1 pause=1 now=1000")
			switch state {
			case "suspended":
				s.run(t, "append d@2 index=1 kind=await name=p\nsuspend d@2 waiting=1")
			case "paused":
				s.run(t, "fail d@2")
			}
			s.run(t, "invoke t token=1 input=one\ncall t index=1 key=fay mode=READ input=f\nfinish f value=x\n"+
				"call t index=2 key=ivan input=i\nfinish i set=1\ncall t index=3 key=kim input=k\nfinish k set=1\nhold vote\nfinish t value=done")
			s.crash(2)
			out, err := s.engine(2).Recover(s.now)
			if err != nil {
				t.Fatal(err)
			}
			if len(out.Damaged) > 0 {
				t.Error(out.Damaged)
			}
			started := 0
			for _, effect := range out.Effects {
				if _, ok := effect.(*StartAttempt); ok {
					started++
				}
			}
			if want := map[string]int{"running": 1}[state]; started != want {
				t.Errorf("%d attempts started, want %d", started, want)
			}
			var durable, shared bool
			for _, r := range s.engine(2).locks.Holders(invocation.Object{Service: "Svc", Key: "fay"}) {
				durable, shared = durable || r.Owner == any(s.id("d@2")), shared || r.Shared
			}
			if !durable || !shared {
				t.Errorf("held by the DURABLE handler: %v, by the promise: %v", durable, shared)
			}
		})
	}
}

// What a call says of its partition may be older than what another has said.
func TestMemberThatWritesIsNoReader(t *testing.T) {
	s := newScript()
	// b in partition 2 reads kim in 3 and goes on; meanwhile t writes leo in 3, and reads dan in 4.
	s.run(t, "invoke t token=1 input=one now=1000\ncall t index=1 key=fay input=b\ncall b index=1 key=kim mode=READ input=k\nfinish k\n"+
		"call t index=2 key=leo input=l\nfinish l set=1\ncall t index=3 key=dan mode=READ input=d\nfinish d\nfinish b set=1")
	s.run(t, "hold prepare\nfinish t value=done")
	for _, l := range s.mail.held {
		if p := l.peer.Message.(*recordv1.Peer_Prepare).Prepare; p.Final {
			t.Errorf("partition %d is asked finally", l.to)
		}
	}
	if out := s.run(t, "lose prepare\ntick now=3000"); !strings.Contains(out, "Svc/leo: 1 entries") {
		t.Errorf("partition 3 has not promised:\n%s", out)
	}
}

// A participant of which only the vote says that it has nothing left to write lets go of its
// keys like others that have only read: what the coordinator's partition writes is hidden before.
func TestOwnWritesAreHiddenBeforeAReaderLetsGo(t *testing.T) {
	s := newScript()
	s.run(t, "invoke t token=1 key=bob input=one now=1000\ncall t index=1 key=ann input=a\ncall a index=1 key=fay input=f\nfinish f set=1\n"+
		"finish a error=no\nhold vote\nfinish t set=1 value=done")
	if out := s.run(t, "hold prepare\nrelease vote"); !strings.Contains(out, "hide Svc/bob") {
		t.Errorf("not hidden:\n%s", out)
	}
	if out := s.run(t, "release prepare"); !strings.Contains(out, "show Svc/bob") || !strings.Contains(out, `reply 1 "done"`) {
		t.Errorf("not shown or not decided:\n%s", out)
	}
}

// A DURABLE handler of the coordinator's partition that writes what a transaction has read makes
// that run again as long as it is not decided, also while it waits for votes.
func TestOverwrittenWhileVotesAreMissing(t *testing.T) {
	s := newScript()
	s.run(t, "invoke d mode=DURABLE key=ann oneway=1 token=9 now=1000\ninvoke t token=1 input=one\ncall t index=1 key=ann mode=READ input=a\nfinish a value=x\n"+
		"call t index=2 key=fay input=f\nfinish f set=1\ncall t index=3 key=kim input=k\nfinish k set=1\nhold vote\nfinish t value=done")
	out := s.run(t, "append d index=1 kind=set value=new\nrelease vote")
	if !strings.Contains(out, "transaction retried") || strings.Contains(out, "reply 1") {
		t.Errorf("it did not begin anew:\n%s", out)
	}
}

// A call outlives its caller, which was out of time, and the root, which has not failed for that:
// what it writes is taken back however late it is.
func TestLateCallOfAFailedCallerIsTakenBack(t *testing.T) {
	s := newScript()
	s.run(t, "invoke t token=1 key=bob input=one now=1000\ncall t index=1 key=fay input=f\ncall f index=1 key=ann input=a\ntimeout f\n"+
		"hold vote\nfinish t set=1 value=done")
	if out := s.run(t, "finish a set=late\nrelease vote"); !strings.Contains(out, `reply 1 "done"`) || strings.Contains(out, "late") {
		t.Errorf("its write took effect:\n%s", out)
	}
}

// A participant that has promised, and has read beside a DURABLE handler that writes after that,
// says no when it is asked to confirm: others may have seen what the handler wrote, and objects of
// this transaction as they were before it.
func TestOverwrittenAfterThePromise(t *testing.T) {
	begin := "invoke d@2 partition=2 mode=DURABLE key=fay oneway=1 token=9 now=1000\ninvoke t token=1 input=one\ncall t index=1 key=fay mode=READ input=a\nfinish a value=x\n" +
		"call t index=2 key=ivan input=f\nfinish f set=1\ncall t index=3 key=kim input=k\nfinish k set=1\nhold vote\nfinish t value=done"
	s := newScript()
	s.run(t, begin)
	out := s.run(t, "append d@2 index=1 kind=set value=new\nrelease vote")
	if !strings.Contains(out, "transaction retried") || strings.Contains(out, "reply 1") {
		t.Errorf("it did not begin anew:\n%s", out)
	}
	s = newScript()
	s.run(t, begin)
	if out := s.run(t, "release vote"); !strings.Contains(out, `reply 1 "done"`) {
		t.Errorf("it did not commit though nothing was written:\n%s", out)
	}
}

// A coordinator's successor knows nothing of a try, and says so to whoever asks. That must not end
// a promise about which a participant decides: its predecessor may not know yet that it is one, and
// have that participant decide. Only who decides, or who would have asked it to, ends such a promise.
func TestPromiseHandedOnOutlivesTheCoordinator(t *testing.T) {
	s := newScript()
	s.run(t, "hand on\ninvoke t token=1 input=one\ncall t index=1 key=fay input=f\nfinish f set=f\ncall t index=2 key=kim input=k\nfinish k set=k\n"+
		"hold prepare\nfinish t value=done")
	asked := s.mail.held[0].peer
	s.run(t, "hold vote\nrelease prepare")
	vote := s.mail.held
	rollBack := func(promised bool) string {
		s.mail.held = nil
		s.mail.on = append(s.mail.on, scriptLetter{2, &recordv1.Peer{Id: asked.Id, Message: &recordv1.Peer_Rollback{Rollback: &recordv1.Rollback{Promised: promised}}}})
		return s.run(t, "release nothing")
	}
	if out := rollBack(false); strings.Contains(out, "- promise t") {
		t.Fatalf("the promise is forgotten:\n%s", out)
	}
	s.mail.held = vote
	if out := s.run(t, "release vote"); !strings.Contains(out, `reply 1 "done"`) || !strings.Contains(out, `state Svc fay "f"`) || !strings.Contains(out, `state Svc kim "k"`) {
		t.Errorf("it did not commit:\n%s", out)
	}
	s = newScript()
	s.run(t, "hand on\ninvoke t token=1 input=one\ncall t index=1 key=fay input=f\nfinish f set=f\ncall t index=2 key=kim input=k\nfinish k set=k\n"+
		"hold vote\nfinish t value=done")
	if out := rollBack(true); !strings.Contains(out, "- promise t") {
		t.Errorf("the promise is kept:\n%s", out)
	}
}

// READ handlers see what is durable only. So nobody who has read lets go of a key before all that
// the transaction has read, wherever, is durable: what is written after that, and seen, would come
// before what this transaction has already seen.
func TestReadersLetGoWhenAllThatWasReadIsDurable(t *testing.T) {
	s := newScript()
	out := s.run(t, "unsynced 3\ninvoke w@3 partition=3 token=2 key=kim input=w now=1000\nfinish w@3 set=1\n"+
		"invoke t token=1 input=one\ncall t index=1 key=fay mode=READ input=f\nfinish f value=x\ncall t index=2 key=kim mode=READ input=k\nfinish k value=y\n"+
		"finish t value=done")
	if strings.Contains(out, "final") || strings.Contains(out, `reply 1`) {
		t.Errorf("a reader lets go of its key:\n%s", out)
	}
	if out := s.run(t, "synced 3"); !strings.Contains(out, "tell 2: prepare t/7.1 final") || !strings.Contains(out, `reply 1 "done"`) {
		t.Errorf("it did not end:\n%s", out)
	}
}

// The same if the partition that is not yet durable is the coordinator's, and if the transaction
// fails: its caller hears of what it has read then too.
func TestReadersLetGoWhenWhatTheRootHasReadIsDurable(t *testing.T) {
	for _, end := range []string{"finish t value=done", "finish t error=no"} {
		s := newScript()
		out := s.run(t, "invoke w token=2 key=ann input=w now=1000\nfinish w set=1\nunsynced 1\ninvoke t token=1 key=ann input=one\n"+
			"call t index=1 key=fay mode=READ input=f\nfinish f value=x\n"+end)
		if strings.Contains(out, "partition 2 hears prepare") || !strings.Contains(out, "| tell 2: prepare t/7.1") {
			t.Errorf("%s: it asks at once:\n%s", end, out)
		}
		if out := s.run(t, "synced 1"); !strings.Contains(out, "reply 1") {
			t.Errorf("%s: it did not end:\n%s", end, out)
		}
	}
}

// A promise says that what was read beside a DURABLE handler stays as it was until it is confirmed.
// Another leadership does not know whether it did, even if the handler has ended: it says no.
func TestOverwrittenBeforeAnotherLeadership(t *testing.T) {
	s := newScript()
	s.run(t, "invoke d@2 partition=2 mode=DURABLE key=fay oneway=1 token=9 now=1000\ninvoke t token=1 input=one\ncall t index=1 key=fay mode=READ input=a\nfinish a value=x\n"+
		"call t index=2 key=ivan input=f\nfinish f set=1\ncall t index=3 key=kim input=k\nfinish k set=1\nhold vote\nfinish t value=done")
	s.run(t, "append d@2 index=1 kind=set value=new\nfinish d@2 value=done\nlose vote\nrestart partition=2")
	out := s.run(t, "tick now=3000")
	if !strings.Contains(out, "transaction retried") || strings.Contains(out, "reply 1") {
		t.Errorf("it did not begin anew:\n%s", out)
	}
}

// A call that waits to have alone what its transaction shares is of no use when its caller has
// failed. What the transaction has read before stays read.
func TestPromiseKeepsWhatACallWaitsToHaveAlone(t *testing.T) {
	s := newScript()
	s.run(t, "invoke u token=2 input=u now=1000\ncall u index=1 key=fay mode=READ input=uf\nfinish uf value=x\n"+
		"invoke t token=1 input=one\ncall t index=1 key=fay mode=READ input=f\nfinish f value=x\ncall t index=2 key=ivan input=i\nfinish i set=1\n"+
		"call t index=3 key=kim input=k\ncall k index=1 key=fay input=kf\ntimeout k\nhold vote\nfinish t value=done\nfinish u value=done")
	fay := invocation.Object{Service: "Svc", Key: "fay"}
	held := func() (shared int) {
		for _, r := range s.engine(2).locks.Holders(fay) {
			if r.Shared && r.Prepared {
				shared++
			}
		}
		return shared
	}
	if held() != 1 || len(s.engine(2).locks.Queue(fay)) != 0 {
		t.Errorf("shared by %d that have promised, %d wait", held(), len(s.engine(2).locks.Queue(fay)))
	}
	s.run(t, "invoke w@2 partition=2 token=3 key=fay input=w\n")
	if out := s.run(t, "release vote"); !strings.Contains(out, `reply 1 "done"`) || !strings.Contains(out, "start w@2") {
		t.Errorf("it did not end:\n%s", out)
	}
}

// A handler that has made calls runs anew when its partition loses its leader: what it called the
// first time is not what it calls now, and does not take effect.
func TestCallsOfAHandlerThatRunsAnew(t *testing.T) {
	for name, again := range map[string]string{
		"makes no call":          "finish b value=b",
		"makes another call":     "call b index=1 key=leo input=other\nfinish other set=2\nfinish b value=b",
		"makes the call, and on": "call b index=1 key=kim input=k\nfinish b value=b",
	} {
		for _, then := range []string{"kim", "ann"} { // another participant, and the coordinator's partition
			t.Run(name+" "+then, func(t *testing.T) {
				s := newScript()
				first := strings.ReplaceAll("invoke t token=1 input=one now=1000\ncall t index=1 key=fay input=b\ncall b index=1 key=kim input=k\nfinish k set=first\n"+
					"restart partition=2\ntick now=3000", "kim", then)
				out := s.run(t, first) + s.run(t, strings.ReplaceAll(again, "kim", then)) +
					s.run(t, strings.ReplaceAll("call t index=2 key=kim mode=READ input=r\nfinish r value=r\nfinish t value=done", "kim", then))
				if !strings.Contains(out, "transaction retried") || strings.Contains(out, "reply 1") || strings.Contains(out, "+ state") {
					t.Errorf("it did not begin anew:\n%s", out)
				}
			})
		}
	}
}

// What answers a call that a handler made before it ran anew does not answer the one that it makes
// in its place.
func TestAnswerToAHandlerThatRunsAnew(t *testing.T) {
	s := newScript()
	out := s.run(t, "invoke t token=1 input=one now=1000\ncall t index=1 key=fay input=b\ncall b index=1 key=kim input=k\n"+
		"hold joined\nfinish k error=old\nrestart partition=2\ntick now=3000\ncall b index=1 key=dan input=other\nrelease joined")
	if !strings.Contains(out, "partition 2 hears joined t/7.1 call 1 error") || strings.Contains(out, "notify b") {
		t.Errorf("b hears of a call that it has not made:\n%s", out)
	}
	out = s.run(t, "finish other set=2\nfinish b value=b\nfinish t value=done")
	if !strings.Contains(out, "notify b") || !strings.Contains(out, `reply 1 "done"`) {
		t.Errorf("it did not end:\n%s", out)
	}
}
