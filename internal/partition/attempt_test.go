package partition

import (
	"context"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/uuid"

	"github.com/perdure/perdure/internal/engine"
	"github.com/perdure/perdure/internal/invocation"
	"github.com/perdure/perdure/internal/invoker"
	recordv1 "github.com/perdure/perdure/internal/record/v1"
	"github.com/perdure/perdure/internal/table"
	"github.com/perdure/perdure/internal/transaction"
)

// deaf is an invoker whose attempts do what the test says, after their abort too.
type deaf struct {
	manual
	aborted sync.Map // *invoker.Attempt → error
}

func (d *deaf) Start(a *invoker.Attempt) invoker.Running {
	d.manual.Start(a)
	return unheeding{inv: d, attempt: a}
}

func (d *deaf) wasAborted(a *invoker.Attempt) bool {
	_, aborted := d.aborted.Load(a)
	return aborted
}

type unheeding struct {
	adder
	inv     *deaf
	attempt *invoker.Attempt
}

func (u unheeding) Abort(cause error) { u.inv.aborted.Store(u.attempt, cause) }

func runEntry(name string) *recordv1.Entry {
	return &recordv1.Entry{Entry: &recordv1.Entry_Run{Run: &recordv1.Run{Name: name}}}
}

// TestAttemptWithTheNameOfAnotherIsNotHeard: an invocation that was killed and purged is made again, by its
// idempotency key, in the same leadership. Its first attempt has the id and the number of the one before,
// which has not heeded its abort and says something yet.
func TestAttemptWithTheNameOfAnotherIsNotHeard(t *testing.T) {
	stale := &recordv1.Result{Value: []byte("stale")}
	granted := false
	for name, word := range map[string]func(*invoker.Attempt){
		"Append":           func(a *invoker.Attempt) { a.Host.Append(a, 2, runEntry("stale")) },
		"too large Append": func(a *invoker.Attempt) { a.Host.Append(a, 2, runEntry(strings.Repeat("x", 8<<20))) },
		"AwaitDurable":     func(a *invoker.Attempt) { a.Host.AwaitDurable(a, func() { granted = true }) },
		"Complete":         func(a *invoker.Attempt) { a.Host.Complete(a, 1, stale) },
		"Part":             func(a *invoker.Attempt) { a.Host.Part(a, 1, 0, []byte("stale")) },
		"Retry":            func(a *invoker.Attempt) { a.Host.Retry(a, 1, &recordv1.RunTries{Failed: 1}) },
		"result":           func(a *invoker.Attempt) { a.Host.Finish(a, &invoker.Outcome{Result: stale}) },
		"failure":          func(a *invoker.Attempt) { a.Host.Finish(a, &invoker.Outcome{Retry: &recordv1.Error{Message: "stale"}}) },
		"suspension":       func(a *invoker.Attempt) { a.Host.Finish(a, &invoker.Outcome{Suspended: true, WaitingFor: []uint32{1}}) },
		"loss":             func(a *invoker.Attempt) { a.Host.Finish(a, &invoker.Outcome{Lost: true}) },
		"new beginning":    func(a *invoker.Attempt) { a.Host.Finish(a, &invoker.Outcome{ContinueAsNew: []byte("stale")}) },
	} {
		t.Run(name, func(t *testing.T) {
			inv := &deaf{}
			withPartition(t, inv, func(t *testing.T, r *Router, g *fakeGroup) {
				g.lead()
				settle := func() {
					time.Sleep(time.Second) // of the bubble: what nobody waits for is proposed by then
					g.commit()
					synctest.Wait()
				}
				in := request("k", 1, invocation.ModeDurable)
				in.IdempotencyKey, in.RetentionMs = "again", time.Hour.Milliseconds()
				id := invocation.ID(in.InvocationId)
				call := func() chan string {
					answer := make(chan string, 1)
					go func() {
						result, err := r.Call(context.Background(), in)
						if err != nil {
							answer <- err.Error()
							return
						}
						answer <- string(result.GetValue())
					}()
					settle()
					return answer
				}
				call()
				first := inv.attempt(0)
				for _, operation := range []func(){
					func() { _ = r.Cancel(context.Background(), id, true) },
					func() { _ = r.Purge(context.Background(), id) },
				} {
					go operation()
					settle()
				}
				if !inv.wasAborted(first) {
					t.Fatal("the attempt of an invocation that was killed runs on")
				}
				answer := call()
				second := inv.attempt(1)
				if second == nil || second.ID != first.ID || second.Number != first.Number {
					t.Fatalf("the second invocation began with %+v, which another name tells from %+v", second, first)
				}
				second.Host.Append(second, 1, runEntry("fresh"))
				settle()
				granted = false
				word(first)
				settle()
				if granted {
					t.Error("the earlier attempt was told that what it did is durable")
				}
				for _, row := range [][]byte{table.Tries(id, 1), table.Part(id, 1, 0)} {
					if _, found, err := r.partitions[0].leading.Load().view.Get(row); found || err != nil {
						t.Errorf("the earlier attempt left %s, %v", table.Describe(row), err)
					}
				}
				if inv.wasAborted(second) || inv.attempt(2) != nil {
					t.Error("the attempt that runs was taken for another one")
				}
				found, err := r.Journal(context.Background(), id, 0, 100)
				switch {
				case err != nil:
					t.Fatal(err)
				case found.Row.GetStatus() != recordv1.Status_STATUS_RUNNING, len(found.Completions) != 0, found.Row.GetFailures() != 0:
					t.Errorf("the earlier attempt left %v, completions %v", found.Row, found.Completions)
				case len(found.Journal) != 1:
					t.Errorf("the journal has %v", found.Journal)
				}
				second.Host.AwaitDurable(second, func() { granted = true })
				second.Host.Complete(second, 1, &recordv1.Result{Value: []byte("fresh")})
				second.Host.Finish(second, &invoker.Outcome{Result: &recordv1.Result{Value: []byte("fresh")}})
				settle()
				select {
				case got := <-answer:
					if got != "fresh" || !granted {
						t.Errorf("answered %q; told that it was durable: %t", got, granted)
					}
				default:
					t.Error("the caller has no answer")
				}
			})
		})
	}
}

// TestCallThatIsMadeAgainIsNotTheOneBefore: a call of a transaction comes late, after its try was rolled
// back here, and begins it anew. Its attempt has the id and the number of the one that was aborted.
func TestCallThatIsMadeAgainIsNotTheOneBefore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		inv := &deaf{}
		var groups []*fakeGroup
		r, err := NewRouter(Config{Invoker: inv, Partitions: 2}, func(_ uint32, p *Partition) Group {
			g := newFakeGroup(t)
			g.listener = p
			groups = append(groups, g)
			return g
		})
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(context.Background())
		var all sync.WaitGroup
		all.Go(func() { _ = r.Run(ctx) })
		defer all.Wait()
		defer cancel()
		groups[1].lead()

		target := &recordv1.Target{Service: "bench.v1.CounterService", Key: "a", Handler: "Add"}
		for r.ofObject(invocation.Object{Service: target.Service, Key: target.Key}).id != 2 {
			target.Key += "a"
		}
		root := invocation.NewID(0, uuid.Must(uuid.NewV7())) // of partition 1, which nobody leads
		hear := func(peer *recordv1.Peer) {
			peer.Id = &recordv1.TransactionID{Root: root[:], Sequence: 1<<32 | 1}
			if !r.Take(2, &engine.Told{Peer: peer}) {
				t.Fatal("partition 2 is not led")
			}
			synctest.Wait()
		}
		join := func() *invoker.Attempt {
			inv.mu.Lock()
			before := len(inv.mu.attempts)
			inv.mu.Unlock()
			hear(&recordv1.Peer{Message: &recordv1.Peer_Join{Join: &recordv1.Join{
				Age: &recordv1.TransactionAge{At: 1, Root: root[:]}, From: 1, Caller: root[:], Attempt: 1, Index: 1, Try: 1,
				Path: []byte(transaction.Path("").Child(1)), Invoke: &recordv1.Invoke{Target: target, Mode: uint32(invocation.ModeTransaction), Input: []byte("1")},
			}}})
			if a := inv.attempt(before); a != nil {
				return a
			}
			t.Fatal("the call did not begin")
			return nil
		}
		first := join()
		hear(&recordv1.Peer{Message: &recordv1.Peer_Rollback{Rollback: &recordv1.Rollback{}}})
		if !inv.wasAborted(first) {
			t.Fatal("the call of a transaction that was rolled back runs on")
		}
		second := join()
		if second.ID != first.ID || second.Number != first.Number {
			t.Fatalf("the call began again as %s, attempt %d, not as %s, attempt %d", second.ID, second.Number, first.ID, first.Number)
		}
		finish(first, "1")
		synctest.Wait()
		groups[1].stepDown()
		synctest.Wait()
		if !inv.wasAborted(second) {
			t.Error("the leadership has ended and left an attempt behind: the earlier one's end was taken for its own")
		}
	})
}
