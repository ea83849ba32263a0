package cluster_test

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/perdure/perdure/actor"
	"github.com/perdure/perdure/cluster"
	"github.com/perdure/perdure/internal/stress"
)

// keepFor is a script of a DURABLE handler that holds its key: it adds 1, sleeps and adds 10.
func (s *stage) keepFor(wait time.Duration) string {
	return s.on("keep for "+wait.String(), func(ctx actor.Context) (string, error) {
		add(ctx, 1)
		if err := actor.Sleep(ctx, wait); err != nil {
			return "", err
		}
		return fmt.Sprint(add(ctx, 10)), nil
	})
}

// begin starts the call of a handler in the background; its error comes on the channel.
func (s *stage) begin(call func() error) <-chan error {
	ended := make(chan error, 1)
	go func() { ended <- call() }()
	synctest.Wait()
	return ended
}

// TestTransactionEndedFromOutside: a root that is cancelled, killed or out of time, while it runs
// or waits for a key, leaves nothing, and its keys are free at once.
func TestTransactionEndedFromOutside(t *testing.T) {
	type ending struct {
		code actor.Code
		end  func(s *stage, root *actor.Invocation[*mixin])
	}
	endings := map[string]ending{
		"cancel":   {actor.Canceled, func(s *stage, root *actor.Invocation[*mixin]) { s.must(nil, root.Cancel(s.t.Context())) }},
		"kill":     {actor.Canceled, func(s *stage, root *actor.Invocation[*mixin]) { s.kill(root.ID()) }},
		"deadline": {actor.DeadlineExceeded, func(s *stage, root *actor.Invocation[*mixin]) { time.Sleep(31 * time.Second) }},
	}
	for name, e := range endings {
		t.Run(name, func(t *testing.T) {
			for _, where := range []string{"runs", "its callee runs", "waits for a transaction", "waits for a call", "waits for a DURABLE handler"} {
				t.Run(where, func(t *testing.T) {
					inMemory(t, func(s *stage) {
						others := make(chan struct{})
						hang := s.fn(func(ctx actor.Context) error {
							add(ctx, 1)
							<-ctx.Done()
							return ctx.Err()
						})
						last, name := "b", "add 1"
						hold := s.fn(func(ctx actor.Context) error { <-others; return nil })
						switch where {
						case "its callee runs":
							name = hang
						case "waits for a transaction":
							last = "held"
						case "waits for a call":
							last = "held"
							s.begin(func() error { _, err := s.do(s.t.Context(), "held", hold); return err })
						case "waits for a DURABLE handler":
							last = "held"
							kept, err := s.send(s.t.Context(), s.things.Methods[keep], "held", s.keepFor(45*time.Second))
							s.must(kept, err)
						}
						root, err := s.send(s.t.Context(), s.things.Methods[transact], "root", s.fn(func(ctx actor.Context) error {
							add(ctx, 1)
							s.must(s.do(ctx, "a", "add 1"))
							s.must(s.send(ctx, s.things.Methods[transact], "sent", "add 1"))
							if where == "runs" {
								<-ctx.Done()
								return ctx.Err()
							}
							time.Sleep(2 * time.Second)
							_, err := s.do(ctx, last, name)
							return err
						}))
						s.must(root, err)
						time.Sleep(time.Second)
						if where == "waits for a transaction" { // It is younger, and waits for no key.
							s.begin(func() error {
								_, err := s.batch(s.t.Context(), s.fn(func(ctx actor.Context) error {
									s.must(s.do(ctx, "held", "add 0"))
									<-others
									return nil
								}))
								return err
							})
						}
						time.Sleep(3 * time.Second)
						synctest.Wait()
						e.end(s, root)
						_, err = s.attach(root)
						s.refused(err, e.code)
						s.free("root", "a", "b")
						s.values("root=0 a=0 b=0 sent=0")
						close(others)
						time.Sleep(2 * time.Minute)
						s.free("held")
						s.values("root=0 a=0 b=0 sent=0")
					})
				})
			}
		})
	}
}

// TestTransactionCancelledAtAnyTime: a cancel that comes while it calls, prepares or commits
// leaves all of it or nothing, and says which.
func TestTransactionCancelledAtAnyTime(t *testing.T) {
	s := newStage(t, cluster.WithDataDir(t.TempDir()), cluster.WithPartitions(8)) // A disk makes it prepare for a while.
	made := 0
	outcomes := map[actor.Code]int{}
	for i := range 300 {
		root, err := s.send(t.Context(), s.batches.Methods[transact], "", s.fn(func(ctx actor.Context) error {
			s.must(s.do(ctx, "a", "add -1"))
			s.must(s.do(ctx, "b", "add 1"))
			return nil
		}))
		s.must(root, err)
		time.Sleep(time.Duration(i%30) * 10 * time.Microsecond)
		if i%2 == 0 {
			s.must(nil, root.Cancel(t.Context()))
		} else {
			s.kill(root.ID())
		}
		_, err = s.attach(root)
		outcomes[actor.CodeOf(err)]++
		if err == nil {
			made++
		}
		s.values(fmt.Sprintf("a=%d b=%d", -made, made))
		if t.Failed() {
			t.Fatalf("try %d: %v", i, err)
		}
	}
	s.free("a", "b")
	t.Log(outcomes)
}

// TestTransactionOutlivesItsCaller: a caller that leaves or runs out of time changes nothing.
func TestTransactionOutlivesItsCaller(t *testing.T) {
	eachWay(t, func(s *stage) {
		slow := s.fn(func(ctx actor.Context) error {
			s.must(s.do(ctx, "a", "add -1"))
			time.Sleep(5 * time.Second)
			_, err := s.do(ctx, "b", "add 1")
			return err
		})
		ctx, cancel := context.WithTimeout(s.t.Context(), time.Second)
		defer cancel()
		_, err := s.batch(ctx, slow, actor.IdempotencyKey("k"))
		s.refused(err, actor.DeadlineExceeded)
		s.must(s.batch(s.t.Context(), slow, actor.IdempotencyKey("k")))
		s.values("a=-1 b=1")

		gone, leave := context.WithCancel(s.t.Context())
		left := s.begin(func() error { _, err := s.do(gone, "root", slow); return err })
		leave()
		s.refused(<-left, actor.Canceled)
		time.Sleep(time.Minute)
		s.values("a=-2 b=2")

		// A ctx of its own ends a wait inside a transaction, and not the call.
		s.must(s.batch(s.t.Context(), s.fn(func(ctx actor.Context) error {
			short, cancel := context.WithTimeout(ctx, time.Second)
			defer cancel()
			_, err := s.do(short, "c", s.fn(func(ctx actor.Context) error {
				add(ctx, 1)
				time.Sleep(5 * time.Second)
				return nil
			}))
			s.refused(err, actor.DeadlineExceeded)
			return nil
		})))
		s.values("c=1")
	})
}

// TestTransactionBesideDurable: a transaction that wants to write what a DURABLE handler holds
// waits for it with nothing held; one that reads does not wait.
func TestTransactionBesideDurable(t *testing.T) {
	inMemory(t, func(s *stage) {
		kept, err := s.send(s.t.Context(), s.things.Methods[keep], "held", s.keepFor(10*time.Second))
		s.must(kept, err)
		time.Sleep(time.Second)
		began := time.Now()
		write := s.fn(func(ctx actor.Context) error {
			s.must(s.do(ctx, "a", "add 1"))
			_, err := s.do(ctx, "held", "add 100")
			return err
		})
		service := s.begin(func() error { _, err := s.batch(s.t.Context(), write); return err })
		object := s.begin(func() error { _, err := s.do(s.t.Context(), "root", write); return err })
		for range 3 { // others use its keys meanwhile
			s.free("a", "root")
			time.Sleep(time.Second)
		}
		s.values("a=0 held=1")
		if live := s.counter("perdure_transactions_live"); live != 2 {
			s.t.Errorf("%d transactions are under way, want 2", live)
		}

		read, err := s.batch(s.t.Context(), s.on("read", func(ctx actor.Context) (string, error) {
			s.must(s.do(ctx, "b", "add 1"))
			return s.invoke(ctx, s.things.Methods[look], "held", "get")
		}))
		if err != nil || read != "1" || time.Since(began) > 4*time.Second {
			s.t.Errorf("a READ beside it: %q %v after %s", read, err, time.Since(began))
		}
		for _, ended := range []<-chan error{service, object} {
			s.must(nil, <-ended)
		}
		if waited := time.Since(began); waited < 8*time.Second || waited > 12*time.Second {
			s.t.Errorf("they waited %s", waited)
		}
		s.values("a=2 b=1 held=211")
		s.free("a", "b", "held", "root")
		if blocked := s.retries("blocked"); blocked < 2 {
			s.t.Errorf("%d tries were blocked", blocked)
		}
	})
}

// TestTransactionBlockedForLong: a DURABLE handler that outlasts it ends it, naming the key; it
// was in nobody's way.
func TestTransactionBlockedForLong(t *testing.T) {
	inMemory(t, func(s *stage) {
		kept, err := s.send(s.t.Context(), s.things.Methods[keep], "held", s.keepFor(time.Hour))
		s.must(kept, err)
		time.Sleep(time.Second)
		for _, call := range []func(string) error{
			func(name string) error { _, err := s.batch(s.t.Context(), name); return err },
			func(name string) error { _, err := s.do(s.t.Context(), "root", name); return err },
		} {
			began := time.Now()
			ended := s.begin(func() error {
				return call(s.fn(func(ctx actor.Context) error {
					s.must(s.do(ctx, "a", "add 1"))
					_, err := s.do(ctx, "held", "add 1")
					return err
				}))
			})
			s.free("a", "root")
			s.refused(<-ended, actor.DeadlineExceeded, "did not end within 30000 ms", "stage.v1.ThingService/held", "DURABLE")
			if took := time.Since(began); took < 30*time.Second || took > 33*time.Second {
				s.t.Errorf("it took %s", took)
			}
			s.values("a=0 held=1")
			s.free("a", "root")
		}
		time.Sleep(time.Hour)
		s.values("a=0 held=11")
		s.free("held")
	})
}

// TestTransactionReadWhatDurableWrites: what a transaction has read beside a DURABLE handler and
// that writes before it ends, it reads again: it is never torn.
func TestTransactionReadWhatDurableWrites(t *testing.T) {
	inMemory(t, func(s *stage) {
		kept, err := s.send(s.t.Context(), s.things.Methods[keep], "held", s.keepFor(10*time.Second))
		s.must(kept, err)
		time.Sleep(time.Second)
		got, err := s.batch(s.t.Context(), s.on("copy", func(ctx actor.Context) (string, error) {
			first, err := s.invoke(ctx, s.things.Methods[look], "held", "get")
			if err != nil {
				return "", err
			}
			s.must(s.do(ctx, "copy", "add "+first))
			time.Sleep(12 * time.Second) // the handler writes, and ends
			second, err := s.invoke(ctx, s.things.Methods[look], "held", "get")
			return fmt.Sprint(ctx.Attempt(), " ", first, " ", second), err
		}))
		want := "2 11 11"
		if stress.Crashing() { // which ends the one that would commit once before it does
			want = "3 11 11"
		}
		if err != nil || got != want {
			s.t.Errorf("attempt and what it read: %q %v, want %q", got, err, want)
		}
		s.values("held=11 copy=11")
		s.free("held", "copy")
	})
}

// TestTransactionGivesWay: the younger of two that want each other's keys runs again, without
// its caller's knowing, and what it did before is not seen.
func TestTransactionGivesWay(t *testing.T) {
	inMemory(t, func(s *stage) {
		cross := func(first, second string) string {
			return s.on(first+second, func(ctx actor.Context) (string, error) {
				s.must(s.do(ctx, first, "add 1"))
				time.Sleep(2 * time.Second)
				_, err := s.do(ctx, second, "add 1")
				return fmt.Sprint(ctx.Attempt()), err
			})
		}
		var both sync.WaitGroup
		var attempts [2]string
		for i, name := range []string{cross("a", "b"), cross("b", "a")} {
			both.Go(func() {
				var err error
				attempts[i], err = s.batch(s.t.Context(), name)
				s.must(nil, err)
			})
			time.Sleep(time.Second)
		}
		both.Wait()
		want := [2]string{"1", "2"}
		if stress.Crashing() { // likewise, each of them
			want = [2]string{"2", "3"}
		}
		if attempts != want {
			s.t.Errorf("attempts %v, want %v", attempts, want)
		}
		if wounds := s.retries("wound"); wounds != 1 {
			s.t.Errorf("%d tries gave way", wounds)
		}
		s.values("a=2 b=2")
		s.free("a", "b")
	})
}
