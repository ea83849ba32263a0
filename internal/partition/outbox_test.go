package partition

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/perdure/perdure/internal/engine"
	"github.com/perdure/perdure/internal/invocation"
	"github.com/perdure/perdure/internal/invoker"
	recordv1 "github.com/perdure/perdure/internal/record/v1"
)

// receiver is the leader of partition 2, on another node. It takes messages in order, as any does.
type receiver struct {
	reach
	lost atomic.Bool // what is sent to it
	took atomic.Uint64
	all  atomic.Int64
	acks func(uint64)
}

// Post implements Elsewhere.
func (r *receiver) Post(_, _ uint32, event engine.Event) {
	message, ok := event.(*engine.Deliver)
	if !ok || r.lost.Load() {
		return
	}
	r.all.Add(1)
	if message.Sequence == r.took.Load()+1 {
		r.took.Add(1)
	}
	if took := r.took.Load(); message.Sequence <= took {
		time.AfterFunc(time.Millisecond, func() { r.acks(took) })
	}
}

// Learned implements Elsewhere.
func (r *receiver) Learned(uint32, uint64, uint64) {}

// sender is a router that leads partition 1 and sends to the receiver.
type sender struct {
	*Router
	group   *fakeGroup
	attempt *manual
	to      *receiver
	calls   int
}

func withSender(t *testing.T, test func(t *testing.T, s *sender)) {
	synctest.Test(t, func(t *testing.T) {
		s := &sender{group: newFakeGroup(t), attempt: &manual{}, to: &receiver{}}
		router, err := NewRouter(Config{Invoker: s.attempt, Partitions: 2, Node: 1, Elsewhere: s.to}, func(id uint32, p *Partition) Group {
			if id == 1 {
				s.group.listener = p
				return s.group
			}
			return newFakeGroup(t)
		})
		if err != nil {
			t.Fatal(err)
		}
		s.Router = router
		s.to.acks = func(took uint64) { router.Take(1, &engine.Acked{By: 2, Sequence: took}) }
		ctx, cancel := context.WithCancel(context.Background())
		var all sync.WaitGroup
		all.Go(func() { _ = router.Run(ctx) })
		defer all.Wait()
		defer cancel()
		s.group.listener.LeaderChanged(1, 1)
		s.group.lead()
		test(t, s)
	})
}

// inPartition is the request of a key there.
func inPartition(partition uint32, mode invocation.Mode) *recordv1.Invoke {
	for i := 0; ; i++ {
		in := request(fmt.Sprint("key", i), 1, mode)
		if id, _ := invocation.IDFromBytes(in.InvocationId); id.Partition(2) == partition {
			return in
		}
	}
}

// send has a TRANSACTION send so many messages.
func (s *sender) send(t *testing.T, messages int) {
	go func() {
		if _, err := s.Call(t.Context(), inPartition(1, invocation.ModeTransaction)); err != nil {
			t.Error(err)
		}
	}()
	synctest.Wait()
	outcome := &invoker.Outcome{Result: &recordv1.Result{}}
	for range messages {
		outcome.Entries = append(outcome.Entries, &recordv1.Entry{Entry: &recordv1.Entry_Send{Send: &recordv1.Send{Invoke: inPartition(2, invocation.ModeTransaction)}}})
	}
	a := s.attempt.attempt(s.calls)
	s.calls++
	a.Host.Finish(a, outcome)
	s.settle()
}

// settle makes all durable that there is.
func (s *sender) settle() {
	time.Sleep(lazyDelay) // of the bubble: what is not urgent is written then
	synctest.Wait()
	s.group.commit()
	synctest.Wait()
}

// TestManyMessagesAreSentAgain: acknowledgements bring the next of what is sent again, however much that is, and not
// only time.
func TestManyMessagesAreSentAgain(t *testing.T) {
	const many = 3*maxPosted + 1
	withSender(t, func(t *testing.T, s *sender) {
		s.to.lost.Store(true)
		for range 7 {
			s.send(t, many/7)
		}
		s.to.lost.Store(false)
		s.Resend(2)
		began := time.Now()
		synctest.Wait()
		if all := s.to.all.Load(); all != maxPosted {
			t.Errorf("%d messages are on their way at once, not %d", all, maxPosted)
		}
		for s.to.took.Load() < many/7*7 && time.Since(began) < time.Minute {
			time.Sleep(time.Millisecond) // of the bubble, whose time is what is measured
			synctest.Wait()
		}
		if took := time.Since(began); took > resendAfter/2 {
			t.Errorf("%d messages took %s", s.to.took.Load(), took)
		}
		if all, took := s.to.all.Load(), s.to.took.Load(); all != int64(took) {
			t.Errorf("%d messages were sent %d times", took, all)
		}
	})
}

// TestNewMessagesDoNotOvertakeThoseSentAgain: what is sent while others are sent again goes behind them. Sent at once, it
// would be lost, as would what is sent while that one is sent again, and so on for as long as there is something to send.
func TestNewMessagesDoNotOvertakeThoseSentAgain(t *testing.T) {
	withSender(t, func(t *testing.T, s *sender) {
		s.to.lost.Store(true)
		s.send(t, 2*maxPosted)
		s.to.lost.Store(false)
		s.Resend(2)
		synctest.Wait()
		s.send(t, 100)
		began := time.Now()
		for s.to.took.Load() < 2*maxPosted+100 && time.Since(began) < time.Minute {
			time.Sleep(time.Millisecond) // of the bubble, whose time is what is measured
			synctest.Wait()
		}
		if took := time.Since(began); took > resendAfter/2 {
			t.Errorf("%d messages took %s", s.to.took.Load(), took)
		}
	})
}
