package engine

import (
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
