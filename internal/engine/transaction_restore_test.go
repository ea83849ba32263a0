package engine

import (
	"strings"
	"testing"

	"github.com/perdure/perdure/internal/invocation"
	"github.com/perdure/perdure/internal/table"
)

// promised is a transaction, t or u, that reads fay and writes key, both in partition 2, and writes
// third in partition 3, up to where its handler has ended.
func promised(name, key, third string) string {
	return strings.NewReplacer("KEY", key, "THIRD", third, "T", name).Replace("invoke T token=" + map[string]string{"t": "1", "u": "2"}[name] + " input=T now=1000\n" +
		"call T index=1 key=fay mode=READ input=T1\nfinish T1 value=x\ncall T index=2 key=KEY input=T2\nfinish T2 set=T\n" +
		"call T index=3 key=THIRD input=T3\nfinish T3 set=T\nfinish T value=T\n")
}

// restore gives a partition another leader, which must find nothing damaged.
func (s *script) restore(t *testing.T, partition uint32) *Output {
	t.Helper()
	s.crash(partition)
	out, err := s.engine(partition).Recover(s.now)
	if err != nil {
		t.Fatal(err)
	}
	if len(out.Damaged) > 0 {
		t.Error(out.Damaged)
	}
	return out
}

// sharedBy is how many promises share an object's key.
func (s *script) sharedBy(partition uint32, key string) (n int) {
	for _, r := range s.engine(partition).locks.Holders(invocation.Object{Service: "Svc", Key: key}) {
		if r.Shared && r.Prepared {
			n++
		}
	}
	return n
}

func hiddenBy(out *Output) map[string]int {
	hidden := map[string]int{}
	for _, effect := range out.Effects {
		if hide, ok := effect.(*Hide); ok {
			hidden[hide.Object.Key]++
		}
	}
	return hidden
}

// Two promises that share an object are both restored. Its key is free when both have ended, in
// whatever order, and however often the partition loses its leader.
func TestPromisesThatShareAnObjectAreRestored(t *testing.T) {
	for _, order := range [][2]string{{"t", "u"}, {"u", "t"}} {
		s := newScript()
		s.run(t, "hold vote\n"+promised("t", "ivan", "kim")+promised("u", "joe", "leo"))
		for range 3 {
			out := s.restore(t, 2)
			if n := s.sharedBy(2, "fay"); n != 2 {
				t.Errorf("fay is shared by %d promises, want 2", n)
			}
			if hidden := hiddenBy(out); len(hidden) != 2 || hidden["ivan"] != 1 || hidden["joe"] != 1 {
				t.Errorf("hidden: %v, want ivan and joe once each", hidden)
			}
		}
		s.run(t, "invoke w@2 partition=2 token=3 key=fay input=w")
		// What a restored promise has read it can't confirm: the transaction begins anew. The
		// other one's vote is kept back.
		held := s.mail.held
		s.mail.held = nil
		for i, name := range order {
			for _, l := range held {
				if root, _ := invocation.IDFromBytes(l.peer.Id.GetRoot()); root == s.id(name) {
					s.mail.held = append(s.mail.held, l)
				}
			}
			out := s.run(t, "release vote\nhold vote")
			if strings.Contains(out, "start w@2") != (i == 1) {
				t.Errorf("%v: after the end of %s w has begun: %t\n%s", order, name, i == 0, out)
			}
		}
	}
}

// An object is promised again before what was promised first is durable: a crash leaves the one
// or the other promise, and the value that goes with it.
func TestPromiseOnTopOfACommit(t *testing.T) {
	for _, durable := range []bool{true, false} {
		s := newScript()
		// t's decision is durable; that partition 2 has written its part may not be. u has promised
		// on top of that.
		first, second := strings.ReplaceAll(promised("t", "ivan", "kim"), "call t index=1 key=fay mode=READ input=t1\nfinish t1 value=x\n", ""),
			strings.ReplaceAll(promised("u", "ivan", "leo"), "call u index=1 key=fay mode=READ input=u1\nfinish u1 value=x\n", "")
		s.run(t, "hold commit\n"+first)
		if !durable {
			s.run(t, "unsynced 2")
		}
		s.run(t, "hold vote\nrelease commit\n"+second)
		ivan := invocation.Object{Service: "Svc", Key: "ivan"}
		if value := string(s.rows[2][string(table.State(ivan))]); value != "t" {
			t.Fatalf("ivan is %q before the crash, want t", value)
		}
		out := s.restore(t, 2)
		want := map[bool]string{true: "t", false: ""}[durable]
		if value := string(s.rows[2][string(table.State(ivan))]); value != want {
			t.Errorf("durable %t: ivan is %q after the crash, want %q", durable, value, want)
		}
		if hidden := hiddenBy(out); hidden["ivan"] != 1 {
			t.Errorf("durable %t: ivan is hidden %d times", durable, hidden["ivan"])
		}
		if n := len(s.engine(2).locks.Holders(ivan)); n != 1 {
			t.Errorf("durable %t: ivan is held by %d", durable, n)
		}
		// The decision and the question are repeated until everybody has done his part.
		all := s.run(t, "lose vote\nrelease commit\ntick partition=1 now=3000\ntick partition=1 now=5000\ntick partition=1 now=7000")
		if !durable { // u begins anew: its handler writes again.
			if !strings.Contains(all, "transaction retried") {
				t.Errorf("u goes on without its promise:\n%s", all)
			}
			s.run(t, "call u index=2 key=ivan attempt=2 input=u4\nfinish u4 attempt=2 set=u\ncall u index=3 attempt=2 key=leo input=u5\n"+
				"finish u5 attempt=2 set=u\nfinish u attempt=2 value=u")
			all += s.run(t, "tick partition=1 now=9000")
		}
		if value := string(s.rows[2][string(table.State(ivan))]); value != "u" {
			t.Errorf("durable %t: ivan is %q at the end, want u\n%s", durable, value, all)
		}
		if e := s.engine(2); len(e.branches) != 0 || e.locks.Held() != 0 {
			t.Errorf("durable %t: %d branches and %d keys are left", durable, len(e.branches), e.locks.Held())
		}
	}
}

// A root that is stored keeps its deadline over a crash: whatever it had begun is rolled back, and
// once it has committed the deadline is gone.
func TestDeadlineOfAStoredRootAfterACrash(t *testing.T) {
	begin := "invoke t oneway=1 token=9 input=t retention=60000 deadline=6000 now=1000\ncall t index=1 key=fay input=f\nfinish f set=1\ncall t index=2 key=kim input=k\nfinish k set=1\n"
	free := func(t *testing.T, s *script) {
		t.Helper()
		for _, partition := range []uint32{1, 2, 3} {
			e := s.engine(partition)
			if len(e.branches)+len(e.roots)+len(e.live)+len(e.decisions) != 0 || e.locks.Held() != 0 {
				t.Errorf("partition %d: %d branches, %d roots, %d live, %d decisions, %d keys held",
					partition, len(e.branches), len(e.roots), len(e.live), len(e.decisions), e.locks.Held())
			}
		}
	}
	for name, until := range map[string]string{
		"while it runs":         "",
		"after the promises":    "hold vote\nfinish t value=done\nlose vote\n",
		"with a promise absent": "unsynced 3\nfinish t value=done\n",
	} {
		for _, lost := range []string{"1", "1 2", "1 2 3"} {
			t.Run(name+" "+lost, func(t *testing.T) {
				s := newScript()
				s.run(t, begin+until)
				for partition := range strings.FieldsSeq(lost) {
					s.run(t, "restart partition="+partition)
				}
				if out := s.run(t, "fire t kind=t at=6000 now=6000"); !strings.Contains(out, "FAILED") {
					t.Errorf("it has not ended:\n%s", out)
				}
				s.run(t, "synced 3")
				for _, partition := range []string{"2", "3", "1", "2", "3"} {
					s.run(t, "tick partition="+partition+" now=9000")
				}
				free(t, s)
				for _, key := range []string{"fay", "kim"} {
					partition := map[string]uint32{"fay": 2, "kim": 3}[key]
					if value, ok := s.rows[partition][string(table.State(invocation.Object{Service: "Svc", Key: key}))]; ok {
						t.Errorf("%s is %q", key, value)
					}
				}
			})
		}
	}
	t.Run("after the decision", func(t *testing.T) {
		s := newScript()
		s.run(t, begin+"hold commit\nfinish t value=done\nlose commit\nrestart partition=1")
		if out := s.run(t, "fire t kind=t at=6000 now=6000"); strings.Contains(out, "FAILED") {
			t.Errorf("it fails though it has committed:\n%s", out)
		}
		s.run(t, "tick partition=1 now=9000")
		free(t, s)
		if value := string(s.rows[2][string(table.State(invocation.Object{Service: "Svc", Key: "fay"}))]); value != "1" {
			t.Errorf("fay is %q", value)
		}
	})
}
