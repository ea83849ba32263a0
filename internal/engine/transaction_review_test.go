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
	asked := map[uint32]bool{}
	for _, l := range s.mail.held {
		asked[l.to] = true
	}
	if !asked[2] || !asked[3] || asked[4] {
		t.Errorf("asked first: %v, want those that write, 2 and 3", asked)
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
