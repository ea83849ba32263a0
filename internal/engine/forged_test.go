package engine

import (
	"testing"

	"github.com/perdure/perdure/internal/invocation"
	recordv1 "github.com/perdure/perdure/internal/record/v1"
)

// TestForgedAwakeable has a handler resolve an awakeable id that names a Call of somebody
// else's invocation: ids come from users, so nothing may come of it, here or in another
// partition.
func TestForgedAwakeable(t *testing.T) {
	s := newScript()
	s.run(t, "invoke victim mode=DURABLE token=1\nappend victim index=1 kind=call to=callee key=c mode=TX\nappend victim index=2 kind=awakeable")
	forge := func(index uint32) []*recordv1.Entry {
		return []*recordv1.Entry{{Entry: &recordv1.Entry_CompleteAwakeable{CompleteAwakeable: &recordv1.CompleteAwakeable{
			AwakeableId: invocation.AwakeableID{Invocation: s.id("victim"), Entry: index}.String(), Result: &recordv1.Result{Value: []byte("forged")},
		}}}}
	}
	notified := func(partition uint32, event Event) (entries []uint32) {
		out, err := s.engine(partition).Evaluate(event, s.now)
		if err != nil {
			t.Fatal(err)
		}
		for _, effect := range out.Effects {
			if n, ok := effect.(*Notify); ok {
				entries = append(entries, n.Completion.Entry)
			}
		}
		return entries
	}
	s.run(t, "invoke a key=a token=2\ninvoke b key=b token=3")
	if got := notified(1, &Finish{ID: s.id("a"), Attempt: 1, Result: &recordv1.Result{}, Entries: forge(1)}); len(got) != 0 {
		t.Errorf("entries %v, calls, were completed by a forged id", got)
	}
	message := &recordv1.Message{Message: &recordv1.Message_CompleteAwakeable{CompleteAwakeable: forge(1)[0].GetCompleteAwakeable()}}
	if got := notified(1, &Deliver{From: 2, Sequence: 1, Message: message}); len(got) != 0 {
		t.Errorf("entries %v, calls, were completed by a forged message", got)
	}
	if got := notified(1, &Finish{ID: s.id("b"), Attempt: 1, Result: &recordv1.Result{}, Entries: forge(2)}); len(got) != 1 || got[0] != 2 {
		t.Errorf("the awakeable itself was not completed: %v", got)
	}
}
