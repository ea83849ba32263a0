package cluster_test

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/apipb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/perdure/perdure/actor"
	"github.com/perdure/perdure/cluster"
)

// TestTransactionCallerGoesOn: what a failed callee did, and had done on its behalf, is taken
// back, and nothing else is.
func TestTransactionCallerGoesOn(t *testing.T) {
	for _, failure := range []string{"fail", "panic"} {
		t.Run(failure, func(t *testing.T) {
			eachWay(t, func(s *stage) {
				deep := s.fn(func(ctx actor.Context) error {
					add(ctx, 100)
					s.must(s.do(ctx, "c", "add 100"))
					s.must(s.do(ctx, "a", "add 100"))
					_, err := s.do(ctx, "d", failure)
					return err
				})
				s.must(s.batch(s.t.Context(), s.fn(func(ctx actor.Context) error {
					s.must(s.do(ctx, "a", "add 1"))
					if _, err := s.do(ctx, "b", deep); err == nil {
						s.t.Error("the callee did not fail")
					}
					got, err := s.do(ctx, "a", "add 1") // 2: the 100 was taken back
					if err != nil || got != "2" {
						s.t.Errorf("a is %s in the transaction, %v", got, err)
					}
					s.must(s.do(ctx, "c", "add 1"))
					return nil
				})))
				s.values("a=2 b=0 c=1 d=0")
				s.free("a", "b", "c", "d")

				// The callee handles its own callee's failure.
				s.must(s.do(s.t.Context(), "a", s.fn(func(ctx actor.Context) error {
					add(ctx, 1)
					s.must(s.do(ctx, "b", s.fn(func(ctx actor.Context) error {
						add(ctx, 1)
						if _, err := s.do(ctx, "c", failure); err == nil {
							s.t.Error("the callee did not fail")
						}
						return nil
					})))
					return nil
				})))
				s.values("a=3 b=1 c=1")
			})
		})
	}
}

// TestTransactionTakesTooLong: a handler that does not heed ctx, the root's or a callee's, is
// given up, its keys are free and what it does later comes to nothing.
func TestTransactionTakesTooLong(t *testing.T) {
	for _, where := range []string{"root", "callee", "deaf callee"} {
		t.Run(where, func(t *testing.T) {
			inMemory(t, func(s *stage) {
				release := make(chan struct{})
				hang := s.fn(func(ctx actor.Context) error {
					add(ctx, 1)
					if where != "deaf callee" {
						<-ctx.Done()
						return ctx.Err()
					}
					<-release
					add(ctx, 1)
					return nil
				})
				root := s.fn(func(ctx actor.Context) error {
					add(ctx, 1)
					s.must(s.do(ctx, "b", "add 1"))
					if where == "root" {
						<-ctx.Done()
						return ctx.Err()
					}
					_, err := s.do(ctx, "c", hang)
					return err
				})
				began := time.Now()
				_, err := s.do(s.t.Context(), "a", root)
				s.refused(err, actor.DeadlineExceeded, "did not end within 3000 ms", "stage.v1.ThingService")
				if took := time.Since(began); took < 3*time.Second || took > 5*time.Second {
					s.t.Errorf("it took %s", took)
				}
				s.free("a", "b", "c")
				close(release)
				time.Sleep(time.Minute)
				s.values("a=0 b=0 c=0")
			}, transactionTimeout(3*time.Second))
		})
	}
}

// TestTransactionStepTimeout: the root's rpc may have less time than the node allows, and the
// time is that of all tries together.
func TestTransactionStepTimeout(t *testing.T) {
	inMemory(t, func(s *stage) {
		began := time.Now()
		_, err := s.invoke(s.t.Context(), s.batches.Methods[short], "", s.fn(func(ctx actor.Context) error {
			s.must(s.do(ctx, "a", "add 1"))
			_, err := s.do(ctx, "b", s.fn(func(ctx actor.Context) error {
				<-ctx.Done() // The deadline is the root's.
				return ctx.Err()
			}))
			return err
		}))
		s.refused(err, actor.DeadlineExceeded, "HSHORT did not end within 1000 ms")
		if took := time.Since(began); took > 2*time.Second {
			s.t.Errorf("it took %s", took)
		}
		s.values("a=0 b=0")
		s.free("a", "b")
	})
}

// TestTransactionRefusedSteps: what a transaction can't do is refused with the mode to use,
// in the root and in a callee, and nothing of it takes effect.
func TestTransactionRefusedSteps(t *testing.T) {
	inMemory(t, func(s *stage) {
		promise := func(ctx actor.Context) actor.Promise[*apipb.Mixin] { return actor.PromiseOf[*apipb.Mixin](ctx, "p") }
		for name, test := range map[string]struct {
			step func(ctx actor.Context) error
			says []string
		}{
			"Run": {func(ctx actor.Context) error {
				_, err := actor.Run(ctx, "pay", func(context.Context) (int, error) { s.t.Error("it ran"); return 0, nil })
				return err
			}, []string{`Run "pay"`, "mode: DURABLE"}},
			"Do": {func(ctx actor.Context) error { return actor.Do(ctx, "pay", func(context.Context) error { return nil }) }, []string{`Run "pay"`, "mode: DURABLE"}},
			"RunAsync": {func(ctx actor.Context) error {
				_, err := actor.RunAsync(ctx, "pay", func(context.Context) (int, error) { return 0, nil }).Await(ctx)
				return err
			}, []string{`Run "pay"`, "mode: DURABLE"}},
			"Sleep":     {func(ctx actor.Context) error { return actor.Sleep(ctx, time.Second) }, []string{"Sleep", "mode: DURABLE"}},
			"After":     {func(ctx actor.Context) error { _, err := actor.After(ctx, time.Second).Await(ctx); return err }, []string{"mode: DURABLE"}},
			"awakeable": {func(ctx actor.Context) error { _, err := actor.NewAwakeable[string](ctx).Await(ctx); return err }, []string{"NewAwakeable", "mode: DURABLE"}},
			"promise":   {func(ctx actor.Context) error { _, err := promise(ctx).Await(ctx); return err }, []string{"Await of promise p", "mode: DURABLE"}},
			"receive": {func(ctx actor.Context) error {
				_, err := actor.InboxOf[*apipb.Mixin](ctx, "HSIGNAL").Receive(ctx)
				return err
			}, []string{"Receive", "mode: DURABLE"}},
			"call of DURABLE": {func(ctx actor.Context) error {
				_, err := s.invoke(ctx, s.things.Methods[keep], "x", "add 1")
				return err
			},
				[]string{"HDURABLE is DURABLE", "Send it", "mode: DURABLE"}},
			"call of RUN": {func(ctx actor.Context) error {
				_, err := s.invoke(ctx, s.flows.Methods[flowRun], "x", "get")
				return err
			},
				[]string{"HRUN is RUN", "Send it", "mode: DURABLE"}},
			"call of SIGNAL": {func(ctx actor.Context) error {
				_, err := s.invoke(ctx, s.flows.Methods[flowTell], "x", "get")
				return err
			},
				[]string{"SIGNAL", "Send"}},
		} {
			step := s.fn(func(ctx actor.Context) error {
				add(ctx, 1)
				return test.step(ctx)
			})
			root := s.fn(func(ctx actor.Context) error {
				s.must(s.do(ctx, "b", "add 1"))
				_, err := s.do(ctx, "a", step)
				return err
			})
			for where, call := range map[string]func() (string, error){
				"root": func() (string, error) { return s.do(s.t.Context(), "a", step) }, "callee": func() (string, error) { return s.batch(s.t.Context(), root) },
			} {
				s.t.Logf("%s in %s", name, where)
				_, err := call()
				s.refused(err, actor.FailedPrecondition, test.says...)
				s.values("a=0 b=0 x=0")
				s.free("a", "b")
			}
		}
	})
}

// TestTransactionCycles: a call back to a key up the chain fails at once, naming the chain, with
// any kind of handler up the chain; its caller may go on.
func TestTransactionCycles(t *testing.T) {
	eachWay(t, func(s *stage) {
		call := func(key, name string) string {
			return s.on("call "+key+" "+name, func(ctx actor.Context) (string, error) { return s.do(ctx, key, name) })
		}
		thing := func(key string) string { return "stage.v1.ThingService/" + key }
		began := time.Now()

		_, err := s.do(s.t.Context(), "a", call("a", "add 1"))
		s.refused(err, actor.FailedPrecondition, "wait for itself", thing("a"), "Send")
		_, err = s.do(s.t.Context(), "a", call("b", call("a", "add 1")))
		s.refused(err, actor.FailedPrecondition, thing("a")+"/HTRANSACTION → "+thing("b")+"/HTRANSACTION → "+thing("a"))
		_, err = s.batch(s.t.Context(), call("a", call("b", call("c", call("b", "add 1")))))
		s.refused(err, actor.FailedPrecondition, thing("b")+"/HTRANSACTION → "+thing("c")+"/HTRANSACTION → "+thing("b"))
		_, err = s.invoke(s.t.Context(), s.things.Methods[keep], "d", call("b", call("d", "add 1")))
		s.refused(err, actor.FailedPrecondition, thing("d")+"/HDURABLE → "+thing("b")+"/HTRANSACTION → "+thing("d"))
		_, err = s.invoke(s.t.Context(), s.things.Methods[keep], "d", s.on("by a service", func(ctx actor.Context) (string, error) {
			return s.batch(ctx, call("b", call("d", "add 1")))
		}))
		s.refused(err, actor.FailedPrecondition, thing("d")+"/HDURABLE", thing("b")+"/HTRANSACTION → "+thing("d"))
		if took := time.Since(began); took > time.Second {
			s.t.Errorf("the refusals took %s", took)
		}

		// A READ handler of what a DURABLE ancestor holds, and a caller that goes on.
		_, err = s.invoke(s.t.Context(), s.things.Methods[keep], "d", s.on("reads", func(ctx actor.Context) (string, error) {
			return s.batch(ctx, s.on("reads in a transaction", func(ctx actor.Context) (string, error) {
				return s.invoke(ctx, s.things.Methods[look], "d", "get")
			}))
		}))
		s.must(nil, err)
		s.must(s.do(s.t.Context(), "a", s.fn(func(ctx actor.Context) error {
			add(ctx, 1)
			_, err := s.do(ctx, "b", call("a", "add 1"))
			s.refused(err, actor.FailedPrecondition)
			_, err = s.do(ctx, "b", "add 1")
			return err
		})))
		s.values("a=1 b=1 c=0 d=0")
		s.free("a", "b", "c", "d")
	})
}

// TestTransactionSiblingsWaitForEachOther: two calls of one transaction side by side, each of
// which calls the other's object, never end by themselves and are ended within seconds.
func TestTransactionSiblingsWaitForEachOther(t *testing.T) {
	eachWay(t, func(s *stage) {
		ready := make(chan struct{}, 1000)
		cross := func(other string) string {
			return s.fn(func(ctx actor.Context) error {
				add(ctx, 1)
				ready <- struct{}{}
				time.Sleep(time.Second) // both have their key
				_, err := s.do(ctx, other, "add 1")
				return err
			})
		}
		began := time.Now()
		_, err := s.batch(s.t.Context(), s.fn(func(ctx actor.Context) error {
			_, err := actor.All(ctx, s.async(ctx, "a", cross("b")), s.async(ctx, "b", cross("a")))
			return err
		}))
		s.refused(err, actor.FailedPrecondition, "wait for each other", "ThingService/a", "ThingService/b")
		if took := time.Since(began); took > 10*time.Second {
			s.t.Errorf("it took %s", took)
		}
		s.values("a=0 b=0")
		s.free("a", "b")
	})
}

// TestTransactionLimits: more than fits a record, of one call or of all calls in a partition
// together, is refused with the numbers.
func TestTransactionLimits(t *testing.T) {
	inMemory(t, func(s *stage) {
		fill := func(rowsEach, bytes int) string {
			return s.fn(func(ctx actor.Context) error {
				for i := range rowsEach {
					rows(ctx).Put(fmt.Sprint(i), wrapperspb.String(strings.Repeat("x", bytes)))
				}
				return nil
			})
		}
		sends := s.fn(func(ctx actor.Context) error {
			for range 1000 {
				if _, err := s.send(ctx, s.things.Methods[transact], "never", "add 1"); err != nil {
					return err
				}
			}
			return nil
		})
		for _, test := range []struct {
			name, script string
			calls        int
			says         []string
		}{
			{"bytes of one call", fill(4, 1<<19), 1, []string{"bytes", "more than the 1887436 that fit one record", "split it"}},
			{"bytes of many calls", fill(1, 1<<19), 8, []string{"bytes", "more than the 1887436 that fit one record", "split it"}},
			{"rows of one call", fill(5001, 1), 1, []string{"5001", "more than the 5000 that fit one record", "split it"}},
			{"rows of many calls", fill(1000, 1), 10, []string{"writes", "more than the 5000 that fit one record", "split it"}},
			{"sends of many calls", sends, 10, []string{"sends", "more than the 5000 that fit one record", "split it"}},
		} {
			for where, call := range map[string]func(context.Context, string) (string, error){
				"service": func(ctx context.Context, name string) (string, error) { return s.batch(ctx, name) },
				"object":  func(ctx context.Context, name string) (string, error) { return s.do(ctx, "root", name) },
			} {
				s.t.Logf("%s, %s", test.name, where)
				_, err := call(s.t.Context(), s.fn(func(ctx actor.Context) error {
					for i := range test.calls {
						if _, err := s.do(ctx, fmt.Sprint("key-", i), test.script); err != nil {
							return err
						}
					}
					return nil
				}))
				s.refused(err, actor.ResourceExhausted, test.says...)
			}
		}
		time.Sleep(time.Minute)
		s.values("never=0")
		empty := s.on("rows", func(ctx actor.Context) (string, error) { return fmt.Sprint(rows(ctx).Len()), nil })
		for i := range 10 {
			if got, err := s.do(s.t.Context(), fmt.Sprint("key-", i), empty); err != nil || got != "0" {
				s.t.Errorf("key-%d has %s rows, %v", i, got, err)
			}
		}
		s.must(s.batch(s.t.Context(), s.fn(func(ctx actor.Context) error { // just below
			_, err := s.do(ctx, "key-0", fill(4990, 1))
			return err
		})))
	}, cluster.WithPartitions(1))
}
