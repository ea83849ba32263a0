package partition

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/perdure/perdure/cluster/replica"
	"github.com/perdure/perdure/internal/engine"
	"github.com/perdure/perdure/internal/invocation"
	recordv1 "github.com/perdure/perdure/internal/record/v1"
	"github.com/perdure/perdure/internal/routing"
)

// rounds is a group with several voters: each question waits until the test answers it.
type rounds struct {
	asked   int
	answers chan error
}

func (r *rounds) ask(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	r.asked++
	select {
	case err := <-r.answers:
		return err
	case <-ctx.Done():
		return ctx.Err()
	}
}

// TestAnswersWithoutARecord: what no record stands behind leaves when the group has confirmed
// that this node leads, and never if it does not.
func TestAnswersWithoutARecord(t *testing.T) {
	withPartition(t, adder{}, func(t *testing.T, r *Router, g *fakeGroup) {
		group := &rounds{answers: make(chan error)}
		g.barrier = group.ask
		g.lead()
		in := request("k", 1, invocation.ModeTransaction)
		in.IdempotencyKey, in.RetentionMs = "once", 60_000
		begin := func(do func() error) chan error {
			answer := make(chan error, 1)
			go func() { answer <- do() }()
			synctest.Wait()
			return answer
		}
		still := func(what string, answer chan error) {
			t.Helper()
			select {
			case err := <-answer:
				t.Errorf("%s: answered before the group: %v", what, err)
			default:
			}
		}
		call := func() error {
			result, err := r.Call(context.Background(), in)
			if err == nil && string(result.Value) != "1" {
				err = fmt.Errorf("got %q", result.Value)
			}
			return err
		}
		// Its record is proposed after the call was evaluated: that is enough.
		first := begin(call)
		still("call", first)
		g.commit()
		if err := <-first; err != nil || group.asked != 0 {
			t.Errorf("a call with a record: %v, the group was asked %d times", err, group.asked)
		}
		id := invocation.ID(in.InvocationId)
		object := invocation.Object{Service: in.Target.Service, Key: "k"}
		for what, do := range map[string]func() error{
			"the same call": call,
			"attach":        func() error { _, err := r.Attach(context.Background(), id); return err },
			"read":          func() error { _, err := r.Read(context.Background(), request("k", 0, invocation.ModeRead)); return err },
			"journal":       func() error { _, err := r.Invocation(context.Background(), id); return err },
			"state":         func() error { _, err := r.State(context.Background(), object); return err },
		} {
			asked := group.asked
			answer := begin(do)
			still(what, answer)
			if group.asked != asked+1 {
				t.Errorf("%s: the group was asked %d times", what, group.asked-asked)
			}
			group.answers <- nil
			if err := <-answer; err != nil {
				t.Errorf("%s: %v", what, err)
			}
		}
		// What comes while the group is asked waits for the next question.
		asked := group.asked
		one, two, three := begin(call), begin(call), begin(call)
		group.answers <- nil
		if err := <-one; err != nil {
			t.Error(err)
		}
		synctest.Wait()
		still("two", two)
		group.answers <- nil
		if err := errors.Join(<-two, <-three); err != nil || group.asked != asked+2 {
			t.Errorf("%v; the group was asked %d times for three calls, want 2", err, group.asked-asked)
		}
		// A leader that was superseded: whoever waits hears that, and not what it thought.
		for what, do := range map[string]func() error{
			"the same call": call,
			"read":          func() error { _, err := r.Read(context.Background(), request("k", 0, invocation.ModeRead)); return err },
			"schedule":      func() error { _, err := r.Schedule(context.Background(), "nightly"); return err },
		} {
			answer := begin(do)
			still(what, answer)
			group.answers <- replica.ErrNotLeader
			err := <-answer
			failed, ok := errors.AsType[*routing.Error](err)
			if !ok || failed.Code != routing.CodeUnavailable || failed.Elsewhere == nil {
				t.Errorf("%s: %v", what, err)
			}
			synctest.Wait()
			g.lead()
		}
		// Nobody waits for the group after the leadership.
		answer := begin(call)
		g.stepDown()
		if err := <-answer; err == nil {
			t.Error("answered by a leader that had stepped down")
		}
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		g.lead()
		if _, err := r.Read(ctx, request("k", 0, invocation.ModeRead)); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("a read that the group does not answer: %v", err)
		}
	})
}

// TestWordsOfASupersededLeader: that a try is not known, that a promise it has not is kept, and
// that a reader agrees: a participant or coordinator says so only as the leader that it is.
func TestWordsOfASupersededLeader(t *testing.T) {
	withTwo(t, func(t *testing.T, r *Router, g *fakeGroup, said chan engine.Event) {
		group := &rounds{answers: make(chan error)}
		g.barrier = group.ask
		g.lead()
		// A root of partition 1, with a try of the first epoch that nobody knows of.
		root := invocation.NewID(0, [16]byte{1})
		name := &recordv1.TransactionID{Root: root[:], Sequence: 1<<32 | 7}
		far := invocation.NewID(1, [16]byte{1})
		theirs := &recordv1.TransactionID{Root: far[:], Sequence: 1<<32 | 7}
		for what, told := range map[string]*recordv1.Peer{
			"rollback":  {Id: name, Message: &recordv1.Peer_Inquire{Inquire: &recordv1.Inquire{From: 2}}},
			"committed": {Id: theirs, Message: &recordv1.Peer_Commit{Commit: &recordv1.Commit{}}},
		} {
			r.partitions[0].postEvent(&engine.Told{Peer: told})
			synctest.Wait()
			select {
			case event := <-said:
				t.Errorf("%s: said %v before the group was asked", what, event)
			default:
			}
			group.answers <- nil
			synctest.Wait()
			select {
			case event := <-said:
				peer := event.(*engine.Told).Peer
				if (peer.GetRollback() != nil) != (what == "rollback") || (peer.GetCommitted() != nil) != (what == "committed") {
					t.Errorf("%s: said %v", what, peer)
				}
			default:
				t.Errorf("%s: nothing was said", what)
			}
			r.partitions[0].postEvent(&engine.Told{Peer: told})
			synctest.Wait()
			group.answers <- replica.ErrNotLeader
			synctest.Wait()
			select {
			case event := <-said:
				t.Errorf("%s: said %v by one that does not lead", what, event)
			default:
			}
			g.lead()
		}
	})
}

// elsewhere takes what goes to other nodes.
type elsewhere struct {
	reach
	said    chan engine.Event
	learned []uint64
}

func (e *elsewhere) Post(_, _ uint32, event engine.Event) { e.said <- event }
func (e *elsewhere) Learned(_ uint32, node, term uint64)  { e.learned = append(e.learned, node, term) }

// withTwo runs a test on partition 1 of two; the other one is led by another node.
func withTwo(t *testing.T, test func(t *testing.T, r *Router, g *fakeGroup, said chan engine.Event)) {
	synctest.Test(t, func(t *testing.T) {
		groups := []*fakeGroup{newFakeGroup(t), newFakeGroup(t)}
		other := &elsewhere{said: make(chan engine.Event, 100)}
		router, err := NewRouter(Config{Invoker: adder{}, Partitions: 2, Node: 1, Elsewhere: other}, func(id uint32, p *Partition) Group {
			groups[id-1].listener = p
			return groups[id-1]
		})
		if err != nil {
			t.Fatal(err)
		}
		other.reach = router
		ctx, cancel := context.WithCancel(context.Background())
		done := make(chan struct{})
		go func() { _ = router.Run(ctx); close(done) }()
		groups[1].listener.(*Partition).LeaderChanged(2, 9)
		test(t, router, groups[0], other.said)
		cancel()
		<-done
		if fmt.Sprint(other.learned) != "[2 9]" {
			t.Errorf("it was learned that %v lead", other.learned)
		}
	})
}

// TestElsewhere: an error says who leads instead, and whether the request may have had an effect.
func TestElsewhere(t *testing.T) {
	withTwo(t, func(t *testing.T, r *Router, g *fakeGroup, _ chan engine.Event) {
		g.lead()
		far := invocation.NewID(1, [16]byte{1})
		err := r.Cancel(context.Background(), far, false)
		failed, ok := errors.AsType[*routing.Error](err)
		if !ok || failed.Elsewhere == nil || *failed.Elsewhere != (routing.Elsewhere{Partition: 2, Leader: 2, Term: 9, Untouched: true}) {
			t.Errorf("of partition 2: %v, %+v", err, failed.Elsewhere)
		}
		if r.Leads(2) || !r.Leads(1) || r.Leads(0) || r.Leads(3) {
			t.Error("it leads partition 1, and no other")
		}
		for _, list := range []func() error{
			func() error {
				_, err := r.InvocationsOf(context.Background(), []uint32{1, 2}, routing.Filter{})
				return err
			},
			func() error { _, err := r.TransactionsOf(context.Background(), []uint32{1, 2}); return err },
			func() error {
				_, err := r.LimitsOf(context.Background(), []uint32{1, 2}, routing.LimitQuery{})
				return err
			},
			func() error {
				_, err := r.SchedulesOf(context.Background(), []uint32{1, 2}, routing.ScheduleQuery{})
				return err
			},
		} {
			if failed, ok := errors.AsType[*routing.Error](list()); !ok || failed.Elsewhere == nil || failed.Elsewhere.Partition != 2 {
				t.Errorf("a list of partition 2: %v", failed)
			}
		}
		if _, err := r.TransactionsOf(context.Background(), []uint32{3}); err == nil {
			t.Error("there is no partition 3")
		}
		// One that waits when the leadership ends may have been accepted.
		answer := make(chan error, 1)
		id := invocation.NewID(0, [16]byte{1})
		go func() {
			_, err := r.Send(context.Background(), &recordv1.Invoke{
				InvocationId: id[:], Mode: uint32(invocation.ModeTransaction), Target: &recordv1.Target{Service: "s", Key: "k", Handler: "h"},
			})
			answer <- err
		}()
		synctest.Wait()
		g.stepDown()
		failed, ok = errors.AsType[*routing.Error](<-answer)
		if !ok || failed.Elsewhere == nil || failed.Elsewhere.Untouched {
			t.Errorf("after the leadership: %+v", failed)
		}
	})
}
