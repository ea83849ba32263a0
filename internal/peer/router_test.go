package peer

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/protobuf/proto"

	bankv1 "github.com/perdure/perdure/examples/bank/gen/bank/v1"
	"github.com/perdure/perdure/internal/invocation"
	recordv1 "github.com/perdure/perdure/internal/record/v1"
	"github.com/perdure/perdure/internal/routing"
)

// code is what a router's error has.
func code(err error) routing.Code {
	if failed, ok := errors.AsType[*routing.Error](err); ok {
		return failed.Code
	}
	return 0
}

// TestMovingLeaders: callers at three nodes deposit, transfer and give standing orders while the
// network loses, doubles and delays what it can, leaders move all the time and the last one often
// does not know it. What was answered has happened, once; what was not has happened at most once.
func TestMovingLeaders(t *testing.T) {
	for seed := range uint64(6) {
		t.Run(fmt.Sprint("seed ", seed), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) { movingLeaders(t, seed) })
		})
	}
}

func movingLeaders(t *testing.T, seed uint64) {
	const partitions, nodes = 4, 3
	w := newWorld(t, nodes, partitions, seed)
	var keys []string
	for p := range uint32(partitions) {
		keys = append(keys, w.keyIn(p+1, 0), w.keyIn(p+1, 1))
	}
	const funds = 1000
	for _, key := range keys {
		if _, err := w.nodes[1].Call(t.Context(), deposit(key, "", funds)); err != nil {
			t.Fatal(err)
		}
	}
	w.unreachable.Store(30)
	w.unanswered.Store(50)
	w.lost.Store(60)
	w.doubled.Store(100)
	w.late.Store(60)
	stop := make(chan struct{})
	var moving sync.WaitGroup
	moving.Go(func() {
		for {
			select {
			case <-stop:
				return
			case <-time.After(w.chance.between(0, 300*time.Millisecond)):
			}
			unaware := time.Duration(0)
			if w.chance.intn(2) == 0 {
				unaware = w.chance.between(0, 300*time.Millisecond)
			}
			w.groups[w.chance.intn(partitions)].lead(uint64(w.chance.intn(nodes))+1, unaware)
		}
	})
	// What was put into each account: at least what was answered, at most what was asked for.
	var least, most [2 * partitions]atomic.Int64
	var all sync.WaitGroup
	for caller := range 9 {
		n := w.nodes[uint64(caller%nodes)+1]
		all.Go(func() {
			for i := range 25 {
				ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
				at, to := w.chance.intn(len(keys)), w.chance.intn(len(keys))
				name := fmt.Sprint("caller ", caller, " call ", i)
				switch w.chance.intn(5) {
				case 0: // Without a key: made once, and perhaps accepted if it is not answered.
					_, err := n.Call(ctx, deposit(keys[at], "", 1))
					most[at].Add(1)
					if err == nil {
						least[at].Add(1)
					} else if code(err) != routing.CodeUnavailable && !errors.Is(err, context.DeadlineExceeded) {
						t.Errorf("%s: deposit: %v", name, err)
					}
				case 1: // With one: again until it is answered, here and by its caller.
					in := deposit(keys[at], name, 1)
					for {
						result, err := n.Call(t.Context(), proto.CloneOf(in))
						if err == nil && result.Error != nil {
							t.Errorf("%s: deposit: %v", name, result.Error)
						}
						if err == nil {
							least[at].Add(1)
							break
						}
						if code(err) != routing.CodeUnavailable {
							t.Errorf("%s: deposit with a key: %v", name, err)
							break
						}
					}
					most[at].Add(1)
				case 2:
					if at == to {
						break
					}
					in := invoke(bankTransfer, "", "Transfer", invocation.ModeTransaction, "", &bankv1.TransferRequest{From: keys[at], To: keys[to], Amount: 3})
					if _, err := n.Call(ctx, in); err != nil && code(err) != routing.CodeUnavailable && !errors.Is(err, context.DeadlineExceeded) {
						t.Errorf("%s: transfer: %v", name, err)
					}
				case 3: // DURABLE, without a key: it is found by its id.
					if at == to {
						break
					}
					in := invoke(bankOffice, "", "StandingOrder", invocation.ModeDurable, "", &bankv1.StandingOrderRequest{From: keys[at], To: keys[to], Amount: 1, Times: 3})
					result, err := n.Call(ctx, in)
					if err != nil && code(err) != routing.CodeUnavailable && !errors.Is(err, context.DeadlineExceeded) {
						t.Errorf("%s: order: %v", name, err)
					}
					order := &bankv1.StandingOrderResponse{}
					if err == nil && result.Error == nil {
						if err := proto.Unmarshal(result.Value, order); err != nil || order.Made != 3 {
							t.Errorf("%s: %d transfers were made, %v", name, order.Made, err)
						}
					}
				case 4: // The sum over all accounts, at one instant, is what it may be then.
					low := int64(len(keys) * funds)
					for k := range keys {
						low += least[k].Load()
					}
					result, err := n.Call(ctx, invoke(bankOffice, "", "Total", invocation.ModeTransaction, "", &bankv1.TotalRequest{AccountIds: keys}))
					if err != nil || result.Error != nil {
						break
					}
					high := int64(len(keys) * funds)
					for k := range keys {
						high += most[k].Load()
					}
					total := &bankv1.TotalResponse{}
					if err := proto.Unmarshal(result.Value, total); err != nil {
						t.Error(err)
					}
					// Deposits under way count in high once they are answered: 9 callers have one each.
					if total.Sum < low || total.Sum > high+9 {
						t.Errorf("%s: the total is %d, want %d to %d", name, total.Sum, low, high)
					}
				}
				cancel()
			}
		})
	}
	all.Wait()
	close(stop)
	moving.Wait()
	w.unreachable.Store(0)
	w.unanswered.Store(0)
	w.lost.Store(0)
	w.doubled.Store(0)
	time.Sleep(5 * time.Second) // Whoever is unaware hears of it, and what is late comes.
	w.settle()
	var left any
	t.Cleanup(func() {
		if t.Failed() {
			t.Log("left over: ", left)
		}
	})
	for _, n := range w.nodes {
		w.until("nothing is under way", func() bool {
			under, err := n.Transactions(t.Context())
			page, listErr := n.InvocationsPage(t.Context(), routing.Filter{Statuses: []recordv1.Status{
				recordv1.Status_STATUS_QUEUED, recordv1.Status_STATUS_RUNNING, recordv1.Status_STATUS_SUSPENDED, recordv1.Status_STATUS_BACKING_OFF,
			}})
			left = fmt.Sprint(n.id, under, err, page, listErr)
			return err == nil && len(under) == 0 && listErr == nil && len(page.Found) == 0
		})
	}
	var sum, low, high int64
	for i, key := range keys {
		n := w.nodes[uint64(i%nodes)+1]
		got, err := n.balance(t.Context(), key)
		if err != nil {
			t.Error(err)
		}
		sum += got
		low += funds + least[i].Load()
		high += funds + most[i].Load()
	}
	if sum < low || sum > high {
		t.Errorf("there is %d in all accounts, want %d to %d", sum, low, high)
	}
	t.Logf("%d requests and %d frames went over the network; %d deposits were answered, %d asked for", w.sent.Load(), w.frames.Load(), low-8*funds, high-8*funds)
}

// TestUnanswered: what may have been accepted is made again only if two of it are as good as one.
func TestUnanswered(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 2, 2, 1)
		key := w.keyIn(1, 0)
		far := w.at(1, false)
		breaks := func(times int) *atomic.Int64 {
			left := &atomic.Int64{}
			left.Store(int64(times))
			intercept := func(from, to uint64, request []byte) error {
				if left.Add(-1) < 0 {
					return nil
				}
				if _, err := w.nodes[to].server.Call(w.ctx, from, request); err != nil {
					t.Error(err)
				}
				return errBroken
			}
			w.intercept.Store(&intercept)
			return left
		}
		want := int64(0)
		expect := func(what string, by int64) {
			t.Helper()
			want += by
			if got, err := w.at(1, true).balance(t.Context(), key); err != nil || got != want {
				t.Fatalf("after %s there is %d, want %d: %v", what, got, want, err)
			}
		}
		// The answers of two tries get lost, and the third finds what the first began.
		left := breaks(2)
		if result, err := far.Call(t.Context(), deposit(key, "a", 5)); err != nil || result.Error != nil {
			t.Fatal(result, err)
		}
		if left.Load() != -1 {
			t.Errorf("it was tried %d times, want 3", 2-left.Load())
		}
		expect("a deposit with a key", 5)

		left = breaks(1)
		_, err := far.Call(t.Context(), deposit(key, "", 7))
		if code(err) != routing.CodeUnavailable || !strings.Contains(err.Error(), "unless it was accepted before") {
			t.Errorf("without a key: %v", err)
		}
		if left.Load() != 0 {
			t.Error("it was made again")
		}
		expect("a deposit without a key", 7)

		// A DURABLE call has no key, and is kept: it is found by its id, also when it has ended.
		from, to := w.keyIn(1, 0), w.keyIn(2, 0)
		for i := range 20 {
			order := invoke(bankOffice, "", "StandingOrder", invocation.ModeDurable, "", &bankv1.StandingOrderRequest{From: from, To: to, Amount: 1, Times: 1})
			if idFrom(order.InvocationId).Partition(2) != 1 {
				continue // It is led here.
			}
			breaks(1)
			result, err := far.Call(t.Context(), order)
			if err != nil || result.Error != nil {
				t.Fatal(result, err)
			}
			previously, err := far.Send(t.Context(), order)
			if err != nil || previously {
				t.Errorf("sent again: %t, %v", previously, err)
			}
			w.intercept.Store(nil)
			expect("an order", -1)
			breaks(1)
			if previously, err := far.Send(t.Context(), deposit(key, fmt.Sprint("sent ", i), 1)); err != nil {
				t.Error(previously, err)
			}
			w.intercept.Store(nil)
			w.until("the deposit is there", func() bool { got, _ := far.balance(t.Context(), key); return got == want+1 })
			expect("a deposit that was sent", 1)
		}

		// What its retention may have ended.
		brief := deposit(key, "brief", 1)
		brief.RetentionMs = 1
		breaks(1)
		if _, err := far.Call(t.Context(), brief); err != nil && code(err) != routing.CodeUnavailable {
			t.Error(err)
		}
		w.intercept.Store(nil)

		id := idFrom(brief.InvocationId)
		breaks(1)
		if err := far.Pause(t.Context(), id); code(err) != routing.CodeUnavailable {
			t.Errorf("pause: %v", err)
		}
		// That there is nothing to cancel says nothing, if the first try may have done it.
		breaks(1)
		if err := far.Cancel(t.Context(), id, false); code(err) != routing.CodeUnavailable {
			t.Errorf("cancel: %v", err)
		}
		breaks(1)
		if _, err := far.Attach(t.Context(), id); code(err) != routing.CodeNotFound {
			t.Errorf("attach: %v", err)
		}
		breaks(3)
		if got, err := far.balance(t.Context(), key); err != nil || got < want {
			t.Errorf("read: %d, %v", got, err)
		}
	})
}

// TestRetentionPasses: what may have been accepted is not made again once the invocation that it
// would find may be gone, also if all that happened since is that nobody could be reached.
func TestRetentionPasses(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 2, 1, 1)
		key := w.keyIn(1, 0)
		began := time.Now()
		var tries atomic.Int64
		intercept := func(from, to uint64, request []byte) error {
			switch {
			case tries.Add(1) == 1:
				if _, err := w.nodes[to].server.Call(w.ctx, from, request); err != nil {
					t.Error(err)
				}
				return errBroken
			case time.Since(began) < 2*time.Second:
				return ErrUnreachable
			}
			return nil
		}
		w.intercept.Store(&intercept)
		brief := deposit(key, "brief", 7)
		brief.RetentionMs = 1000
		if _, err := w.at(1, false).Call(t.Context(), brief); code(err) != routing.CodeUnavailable || !strings.Contains(err.Error(), "unless it was accepted before") {
			t.Errorf("got %v", err)
		}
		w.intercept.Store(nil)
		if got, err := w.at(1, true).balance(t.Context(), key); err != nil || got != 7 || tries.Load() < 3 {
			t.Errorf("after %d tries there is %d, want 7: %v", tries.Load(), got, err)
		}
	})
}

// TestHints: nodes that send each other on for ever cost a bounded number of requests, and no
// leader at all is an error after three seconds.
func TestHints(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 3, 1, 1)
		key := w.keyIn(1, 0)
		var requests, term atomic.Int64
		term.Store(100)
		intercept := func(from, to uint64, request []byte) error {
			requests.Add(1)
			// Each names another one, with better reason than the one before.
			w.nodes[from].Leaders().Learned(1, 5-to, uint64(term.Add(1)))
			return ErrUnreachable
		}
		w.intercept.Store(&intercept)
		w.nodes[1].Leaders().Learned(1, 2, 100)
		w.groups[0].replicas[2].tell <- func() { w.groups[0].replicas[2].partition.StepDown(1, errOutvoted) }
		began := time.Now()
		_, err := w.nodes[1].Call(t.Context(), deposit(key, "", 1))
		if code(err) != routing.CodeUnavailable || !strings.Contains(err.Error(), "partition 1 has no leader that can be reached") {
			t.Errorf("got %v", err)
		}
		if took := time.Since(began); took < 2900*time.Millisecond || took > 3500*time.Millisecond {
			t.Errorf("it took %s", took)
		}
		if n := requests.Load(); n < 5 || n > 30 {
			t.Errorf("it took %d requests", n)
		}
		requests.Store(0)
		ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
		defer cancel()
		if _, err := w.nodes[1].Call(ctx, deposit(key, "", 1)); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("got %v", err)
		}
		if _, err := w.nodes[1].InvocationsPage(t.Context(), routing.Filter{}); code(err) != routing.CodeUnavailable || !strings.Contains(err.Error(), "partition 1 has no leader") {
			t.Errorf("list: %v", err)
		}
	})
}

// TestAttachFollows: who waits for a result waits on when the leader changes, by itself and
// without the one before.
func TestAttachFollows(t *testing.T) {
	for name, cut := range map[string]bool{"the leader says so": false, "the leader is cut off": true} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t, 3, 1, 1)
				key := w.keyIn(1, 0)
				w.groups[0].lead(2, 0)
				w.settle()
				in := invoke(bankAccount, key, "CloseOut", invocation.ModeDurable, "", &bankv1.CloseOutRequest{AccountId: key})
				if _, err := w.nodes[1].Send(t.Context(), in); err != nil {
					t.Fatal(err)
				}
				began := time.Now()
				var all sync.WaitGroup
				for _, wait := range []func() (*recordv1.Result, error){
					func() (*recordv1.Result, error) {
						return w.nodes[1].Attach(t.Context(), idFrom(in.InvocationId))
					},
					func() (*recordv1.Result, error) {
						return w.nodes[1].Call(t.Context(), invoke(bankAccount, key, "CloseOut", invocation.ModeDurable, "k", &bankv1.CloseOutRequest{AccountId: key}))
					},
				} {
					all.Go(func() {
						result, err := wait()
						if err != nil || result.Error != nil {
							t.Error(result, err)
						}
					})
				}
				time.Sleep(time.Second)
				if cut {
					w.cut.Store(uint64(2), true)
					w.groups[0].lead(3, time.Hour)
				} else {
					w.groups[0].lead(3, 0)
				}
				all.Wait()
				if took := time.Since(began); took > 7500*time.Millisecond {
					t.Errorf("two times three seconds took %s", took)
				}
				if cut { // so that the world can end
					w.cut.Delete(uint64(2))
				}
			})
		})
	}
}

// TestNewLeaderHearsAtOnce: a message that the old leader did not take goes to the new one as soon
// as that is known.
func TestNewLeaderHearsAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 3, 2, 1)
		w.groups[0].lead(1, 0)
		w.groups[1].lead(2, 0)
		w.settle()
		to := w.keyIn(2, 0)
		// The order runs in partition 1, and what it calls in partition 2.
		w.cut.Store(uint64(2), true)
		w.groups[1].lead(2, 0)
		began := time.Now()
		done := make(chan error, 1)
		go func() {
			_, err := w.nodes[1].Call(t.Context(), w.orderFrom(1, to))
			done <- err
		}()
		time.Sleep(300 * time.Millisecond)
		w.groups[1].lead(3, time.Hour)
		if err := <-done; err != nil {
			t.Error(err)
		}
		if took := time.Since(began); took > 900*time.Millisecond {
			t.Errorf("it took %s", took)
		}
		w.cut.Delete(uint64(2))
	})
}

// TestNewConnectionCarriesWhatIsLostAtOnce: a message that was lost with a connection goes over the next one, and does not wait
// until it would have been acknowledged.
func TestNewConnectionCarriesWhatIsLostAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 3, 2, 1)
		w.groups[0].lead(1, 0)
		w.groups[1].lead(2, 0)
		w.settle()
		w.cut.Store(uint64(2), true)
		began := time.Now()
		done := make(chan error, 1)
		go func() {
			_, err := w.nodes[1].Call(t.Context(), w.orderFrom(1, w.keyIn(2, 0)))
			done <- err
		}()
		time.Sleep(300 * time.Millisecond)
		w.cut.Delete(uint64(2))
		w.nodes[1].Connected(3)            // which leads nothing
		time.Sleep(100 * time.Millisecond) // of the bubble, as above: within it, it would have been answered
		select {
		case err := <-done:
			t.Errorf("it was sent again, to node 2, when node 3 was connected: %v", err)
		default:
		}
		w.nodes[1].Connected(2)
		if err := <-done; err != nil {
			t.Error(err)
		}
		if took := time.Since(began); took > 900*time.Millisecond {
			t.Errorf("it took %s", took)
		}
	})
}

// orderFrom is a request that runs in one partition and deposits to an account in another.
func (w *world) orderFrom(partition uint32, to string) *recordv1.Invoke {
	for {
		in := invoke(bankOffice, "", "StandingOrder", invocation.ModeDurable, "", &bankv1.StandingOrderRequest{To: to, Amount: 1, Times: 1})
		if idFrom(in.InvocationId).Partition(w.partitions) == partition {
			return in
		}
	}
}

// TestTransactionHearsOfNewLeaderAtOnce: what a transaction asks of a partition whose leader is lost it asks the
// new one as soon as that is known, and that one heeds it though its leadership begins a moment later. So
// does a participant whose coordinator is lost: its objects are free soon after there is another one.
func TestTransactionHearsOfNewLeaderAtOnce(t *testing.T) {
	// in is a transfer whose root is in partition 1.
	in := func(from, to string) *recordv1.Invoke {
		for {
			in := invoke(bankTransfer, "", "Transfer", invocation.ModeTransaction, rand.Text(), &bankv1.TransferRequest{From: from, To: to, Amount: 1})
			if idFrom(in.InvocationId).Partition(3) == 1 {
				return in
			}
		}
	}
	for _, test := range []struct {
		name string
		lost uint32 // the partition whose leader is lost
		by   uint64 // the node that is asked
	}{{"a participant", 2, 1}, {"the coordinator", 1, 3}} {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t, 4, 3, 1)
				for i, g := range w.groups {
					g.lead(uint64(i+1), 0)
				}
				w.settle()
				from, to := w.keyIn(2, 0), w.keyIn(3, 0)
				for _, key := range []string{from, to} {
					if _, err := w.nodes[1].Call(t.Context(), deposit(key, rand.Text(), 100)); err != nil {
						t.Fatal(err)
					}
				}
				began := time.Now()
				done := make(chan error, 2)
				transfer := func(by uint64) {
					_, err := w.nodes[by].Call(t.Context(), in(from, to))
					done <- err
				}
				w.cut.Store(uint64(test.lost), true)
				if test.name == "the coordinator" {
					w.cut.Delete(uint64(test.lost))
					go transfer(test.by)             // is under way when its coordinator is lost
					time.Sleep(3 * time.Millisecond) // of the bubble: the transaction gets on meanwhile
					w.cut.Store(uint64(test.lost), true)
				}
				go transfer(test.by)
				time.Sleep(300 * time.Millisecond) // of the bubble: how long there is no leader
				w.leadAfter.Store(int64(100 * time.Millisecond))
				w.groups[test.lost-1].lead(4, time.Hour)
				if err := <-done; err != nil {
					t.Error(err)
				}
				if test.name == "the coordinator" {
					if err := <-done; err != nil {
						t.Error(err)
					}
				}
				if took := time.Since(began); took > 950*time.Millisecond {
					t.Errorf("it took %s", took)
				}
				w.cut.Delete(uint64(test.lost))
			})
		})
	}
}

// TestHaltedLeaderPassesOn: a node whose group halts while it leads, and which hears of no leader after that but
// from other nodes, takes nothing that is for the next one.
func TestHaltedLeaderPassesOn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 3, 2, 1)
		w.groups[0].lead(1, 0)
		w.groups[1].lead(1, 0)
		w.settle()
		to := w.keyIn(2, 0)
		halted := w.groups[1].replicas[1]
		halted.mu.Lock()
		epoch := halted.mu.epoch
		halted.mu.epoch = 0
		halted.mu.Unlock()
		halted.partition.StepDown(epoch, errOutvoted)
		w.groups[1].lead(3, time.Hour)
		w.nodes[1].Learned(2, 3, epoch+1)
		time.Sleep(10 * time.Millisecond) // of the bubble
		began := time.Now()
		var in *recordv1.Invoke
		for in == nil || idFrom(in.InvocationId).Partition(2) != 1 {
			in = invoke(bankOffice, "", "StandingOrder", invocation.ModeDurable, "", &bankv1.StandingOrderRequest{To: to, Amount: 1, Times: 1})
		}
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		defer cancel()
		if _, err := w.nodes[1].Call(ctx, in); err != nil {
			t.Error(err)
		}
		if took := time.Since(began); took > 900*time.Millisecond {
			t.Errorf("it took %s", took)
		}
	})
}

// TestServingNodeStops: a node that stops ends what it was asked. That is no answer: who asked is not
// told that a caller has gone, and what has a key is asked again.
func TestServingNodeStops(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 2, 2, 1)
		key, far := w.keyIn(1, 0), w.at(1, false)
		var stops atomic.Bool
		intercept := func(from, to uint64, request []byte) error {
			if !stops.Swap(false) {
				return nil
			}
			stopping, stop := context.WithCancel(w.ctx)
			stop()
			if answer, err := w.nodes[to].server.Call(stopping, from, request); err == nil {
				t.Errorf("it answered %x", answer)
			}
			return errBroken
		}
		w.intercept.Store(&intercept)
		stops.Store(true)
		if result, err := far.Call(t.Context(), deposit(key, "once", 5)); err != nil || result.Error != nil {
			t.Errorf("with a key: %v %v", result, err)
		}
		stops.Store(true)
		if _, err := far.Call(t.Context(), deposit(key, "", 1)); code(err) != routing.CodeUnavailable {
			t.Errorf("without a key: %v", err)
		}
		if got, err := w.at(1, true).balance(t.Context(), key); err != nil || got != 5 && got != 6 {
			t.Errorf("there is %d: %v", got, err)
		}
	})
}
