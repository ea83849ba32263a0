package cluster_test

import (
	"context"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/apipb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/perdure/perdure/actor"
	"github.com/perdure/perdure/internal/stress"
)

// TestTransactionNested: three calls deep, all of it or nothing, begun by a service or by an
// object.
func TestTransactionNested(t *testing.T) {
	eachWay(t, func(s *stage) {
		nested := func(innermost string) string {
			c := s.fn(func(ctx actor.Context) error {
				add(ctx, 3)
				_, err := s.do(ctx, "d", innermost)
				return err
			})
			b := s.fn(func(ctx actor.Context) error {
				add(ctx, 2)
				_, err := s.do(ctx, "c", c)
				return err
			})
			return s.fn(func(ctx actor.Context) error {
				_, err := s.do(ctx, "b", b)
				return err
			})
		}
		s.must(s.batch(s.t.Context(), nested("add 4")))
		s.values("b=2 c=3 d=4")
		_, err := s.batch(s.t.Context(), nested("fail"))
		s.refused(err, actor.Aborted, "on purpose")
		s.values("b=2 c=3 d=4")
		s.must(s.do(s.t.Context(), "root", nested("add 4")))
		s.values("b=4 c=6 d=8")
		_, err = s.do(s.t.Context(), "root", nested("panic"))
		s.refused(err, actor.Internal, "panicked")
		s.values("b=4 c=6 d=8 root=0")
		s.free("b", "c", "d", "root")
	})
}

func hundred() []string {
	keys := make([]string, 100)
	for i := range keys {
		keys[i] = fmt.Sprint("key-", i)
	}
	return keys
}

// fanOut calls a script of many things at once.
func (s *stage) fanOut(ctx actor.Context, keys []string, name func(i int) string) ([]*apipb.Mixin, error) {
	var calls []actor.Future[*apipb.Mixin]
	for i, key := range keys {
		calls = append(calls, s.async(ctx, key, name(i)))
	}
	return actor.All(ctx, calls...)
}

func (s *stage) total(ctx context.Context, keys []string) (int, error) {
	sum := s.on("total of "+fmt.Sprint(keys), func(ctx actor.Context) (string, error) {
		var calls []actor.Future[*apipb.Mixin]
		for _, key := range keys {
			calls = append(calls, actor.InvokeAsync[*apipb.Mixin](ctx, s.client, s.things.Methods[look], key, &apipb.Mixin{Root: "get"}, nil))
		}
		all, err := actor.All(ctx, calls...)
		total := 0
		for _, one := range all {
			var value int
			if _, err := fmt.Sscan(one.Root, &value); err != nil {
				return "", err
			}
			total += value
		}
		return fmt.Sprint(ctx.Attempt(), " ", total), err
	})
	got, err := s.batch(ctx, sum)
	if err != nil {
		return 0, err
	}
	var attempt, total int
	if _, err := fmt.Sscan(got, &attempt, &total); err != nil {
		return 0, err
	}
	if attempt != 1 && !stress.Crashing() {
		return 0, fmt.Errorf("a transaction that only reads needed %d tries", attempt)
	}
	return total, nil
}

// TestTransactionFanOut: a hundred objects at once, of a service's transaction and of an object's.
func TestTransactionFanOut(t *testing.T) {
	eachWay(t, func(s *stage) {
		keys := hundred()
		all := func(last string) string {
			return s.fn(func(ctx actor.Context) error {
				_, err := s.fanOut(ctx, keys, func(i int) string {
					if i == len(keys)-1 {
						return last
					}
					return "add 1"
				})
				return err
			})
		}
		s.must(s.batch(s.t.Context(), all("add 1")))
		s.must(s.do(s.t.Context(), "root", all("add 1")))
		_, err := s.batch(s.t.Context(), all("fail"))
		s.refused(err, actor.Aborted)
		for _, key := range []string{keys[0], keys[50], keys[99]} {
			s.values(key + "=2")
		}
		if strings.Contains(s.t.Name(), "crash") {
			return // A total runs once in vain then.
		}
		if total, err := s.total(s.t.Context(), keys); err != nil || total != 200 {
			s.t.Errorf("total %d, %v", total, err)
		}
		s.free(keys...)
	})
}

// TestTransactionNotAwaited: what nobody waits for is waited for, and is part of it.
func TestTransactionNotAwaited(t *testing.T) {
	eachWay(t, func(s *stage) {
		slow := s.fn(func(ctx actor.Context) error {
			time.Sleep(3 * time.Second)
			_, err := s.do(ctx, "c", fmt.Sprint("add ", add(ctx, 1)))
			return err
		})
		s.must(s.batch(s.t.Context(), s.fn(func(ctx actor.Context) error {
			s.async(ctx, "a", slow)
			s.async(ctx, "b", "fail") // its error is lost, and what it did with it
			return nil
		})))
		s.values("a=1 b=0 c=1")
		s.free("a", "b", "c")
	})
}

// TestTransactionSeesItsOwnWrites: the same object again begins with what the first call left,
// its state and its rows; others see none of it before the end.
func TestTransactionSeesItsOwnWrites(t *testing.T) {
	eachWay(t, func(s *stage) {
		s.must(s.do(s.t.Context(), "a", s.fn(func(ctx actor.Context) error {
			rows(ctx).Put("kept", wrapperspb.String("old"))
			rows(ctx).Put("gone", wrapperspb.String("old"))
			return nil
		})))
		list := s.on("list", func(ctx actor.Context) (string, error) {
			var all []string
			for key, row := range actor.TableReaderOf[*wrapperspb.StringValue](ctx, "rows").From("") {
				all = append(all, key+"="+row.Value)
			}
			return fmt.Sprint(actor.StateReaderOf[*wrapperspb.Int64Value](ctx).Get().GetValue(), " ", strings.Join(all, " ")), nil
		})
		write := s.fn(func(ctx actor.Context) error {
			add(ctx, 5)
			rows(ctx).Put("added", wrapperspb.String("new"))
			rows(ctx).Delete("gone")
			return nil
		})
		s.must(s.batch(s.t.Context(), s.fn(func(ctx actor.Context) error {
			for _, want := range []string{"5 added=new kept=old", "10 added=new kept=old"} {
				s.must(s.do(ctx, "a", write))
				again, err := s.do(ctx, "a", list)
				read, readErr := s.invoke(ctx, s.things.Methods[look], "a", list)
				if err != nil || readErr != nil || again != want || read != want {
					s.t.Errorf("in the transaction: %q %v, %q %v; want %q", again, err, read, readErr, want)
				}
			}
			outside, err := s.outside(s.things.Methods[look], "a", list)
			if err != nil || outside != "0 gone=old kept=old" {
				s.t.Errorf("outside before the commit: %q %v", outside, err)
			}
			return nil
		})))
		if after, err := s.invoke(s.t.Context(), s.things.Methods[look], "a", list); err != nil || after != "10 added=new kept=old" {
			s.t.Errorf("after the commit: %q %v", after, err)
		}
	})
}

// outside calls as somebody who has nothing to do with the handler that asks.
func (s *stage) outside(m *actor.MethodDesc, key, name string) (got string, err error) {
	var other sync.WaitGroup
	other.Go(func() { got, err = s.invoke(s.t.Context(), m, key, name) })
	other.Wait()
	return got, err
}

// TestTransactionSends: sends and delayed sends, of the root and of a callee, leave with the
// commit and never without one.
func TestTransactionSends(t *testing.T) {
	eachWay(t, func(s *stage) {
		sends := s.fn(func(ctx actor.Context) error {
			add(ctx, 1)
			s.must(s.send(ctx, s.things.Methods[transact], "sent", "add 1"))
			s.must(s.send(ctx, s.things.Methods[transact], "later", "add 1", actor.Delay(time.Hour)))
			return nil
		})
		root := func(last string) string {
			return s.fn(func(ctx actor.Context) error {
				s.must(s.do(ctx, "a", sends))
				s.must(s.send(ctx, s.things.Methods[transact], "sent", "add 10"))
				s.must(s.send(ctx, s.things.Methods[transact], "later", "add 10", actor.Delay(time.Hour)))
				time.Sleep(5 * time.Second)
				if got, err := s.outside(s.things.Methods[look], "sent", "get"); err != nil || got != "0" {
					s.t.Errorf("before the commit: %s %v", got, err)
				}
				_, err := s.do(ctx, "b", last)
				return err
			})
		}
		_, err := s.batch(s.t.Context(), root("fail"))
		s.refused(err, actor.Aborted)
		time.Sleep(2 * time.Hour)
		s.values("a=0 sent=0 later=0")
		s.must(s.batch(s.t.Context(), root("add 1")))
		time.Sleep(time.Minute)
		s.values("a=1 sent=11 later=0")
		time.Sleep(2 * time.Hour)
		s.values("a=1 b=1 sent=11 later=11")

		// Only the failed callee's sends are taken back.
		s.must(s.batch(s.t.Context(), s.fn(func(ctx actor.Context) error {
			_, err := s.do(ctx, "c", s.fn(func(ctx actor.Context) error {
				s.must(s.send(ctx, s.things.Methods[transact], "sent", "add 1000"))
				return errDone
			}))
			s.refused(err, actor.Unknown, "done")
			s.must(s.send(ctx, s.things.Methods[transact], "sent", "add 100"))
			return nil
		})))
		time.Sleep(time.Minute)
		s.values("sent=111")
	})
}

// TestTransactionCompletions: promises and awakeables are completed by the commit.
func TestTransactionCompletions(t *testing.T) {
	eachWay(t, func(s *stage) {
		ids := make(chan string, 100)
		waits := s.on("waits", func(ctx actor.Context) (string, error) {
			awakeable := actor.NewAwakeable[string](ctx)
			select {
			case ids <- awakeable.ID():
			default:
			}
			return awakeable.Await(ctx)
		})
		awaits := s.on("awaits", func(ctx actor.Context) (string, error) {
			got, err := actor.PromiseOf[*apipb.Mixin](ctx, "p").Await(ctx)
			return got.GetRoot(), err
		})
		waiting, err := s.send(s.t.Context(), s.batches.Methods[keep], "", waits)
		s.must(waiting, err)
		flow, err := s.send(s.t.Context(), s.flows.Methods[flowRun], "f", awaits)
		s.must(flow, err)
		id := <-ids
		complete := func(text string, fail bool) error {
			resolve := s.fn(func(ctx actor.Context) error {
				return actor.PromiseOf[*apipb.Mixin](ctx, "p").Resolve(ctx, &apipb.Mixin{Root: text})
			})
			_, err := s.batch(s.t.Context(), s.fn(func(ctx actor.Context) error {
				s.must(s.invoke(ctx, s.flows.Methods[flowLook], "f", resolve))
				s.must(nil, actor.ResolveAwakeable(ctx, ctx, id, text))
				time.Sleep(5 * time.Second)
				if fail {
					return errDone
				}
				return nil
			}))
			return err
		}
		s.refused(complete("in vain", true), actor.Unknown, "done")
		s.must(nil, complete("good", false))
		for name, of := range map[string]*actor.Invocation[*apipb.Mixin]{"awakeable": waiting, "promise": flow} {
			if got, err := s.attach(of); err != nil || got != "good" {
				s.t.Errorf("%s: %v %v", name, got, err)
			}
		}
	})
}

// TestTransactionOfAnObject: what the root's own object writes belongs to it.
func TestTransactionOfAnObject(t *testing.T) {
	eachWay(t, func(s *stage) {
		root := func(fail bool) string {
			return s.fn(func(ctx actor.Context) error {
				value := add(ctx, 1)
				rows(ctx).Put(fmt.Sprint(value), wrapperspb.String("x"))
				s.must(s.do(ctx, "b", "add 1"))
				add(ctx, 1)
				if fail {
					return errDone
				}
				return nil
			})
		}
		_, err := s.do(s.t.Context(), "a", root(true))
		s.refused(err, actor.Unknown, "done")
		s.values("a=0 b=0")
		s.must(s.do(s.t.Context(), "a", root(false)))
		s.values("a=2 b=1")
		s.must(s.do(s.t.Context(), "a", s.fn(func(ctx actor.Context) error {
			if got := rows(ctx).Len(); got != 1 {
				s.t.Errorf("%d rows", got)
			}
			return nil
		})))
	})
}

// TestTransactionAsStep: a DURABLE handler makes each of its transactions once, crashes or not,
// and keeps what was done when it is cancelled between them.
func TestTransactionAsStep(t *testing.T) {
	eachWay(t, func(s *stage) {
		both := s.on("both", func(ctx actor.Context) (string, error) {
			s.must(s.do(ctx, "a", "add -1"))
			return s.do(ctx, "b", "add 1")
		})
		refused := s.on("refused", func(ctx actor.Context) (string, error) {
			s.must(s.do(ctx, "a", "add -1000"))
			return s.do(ctx, "b", "fail")
		})
		for name, m := range map[string]*actor.MethodDesc{"service": s.batches.Methods[keep], "object": s.things.Methods[keep]} {
			key := ""
			if name == "object" {
				key = "keeper"
			}
			steps := s.on("steps of a "+name, func(ctx actor.Context) (string, error) {
				for range 3 {
					if _, err := s.batch(ctx, both); err != nil {
						return "", err
					}
					if _, err := s.batch(ctx, refused); actor.CodeOf(err) != actor.Aborted {
						return "", fmt.Errorf("the refused step: %v", err)
					}
					if err := actor.Sleep(ctx, time.Hour); err != nil {
						return "", err
					}
				}
				return "made", nil
			})
			before := s.value("b")
			order, err := s.send(s.t.Context(), m, key, steps)
			s.must(order, err)
			if got, err := s.attach(order); err != nil || got != "made" {
				s.t.Errorf("%s: %v %v", name, got, err)
			}
			cancelled, err := s.send(s.t.Context(), m, key, steps)
			s.must(cancelled, err)
			time.Sleep(90 * time.Minute)
			s.must(nil, cancelled.Cancel(s.t.Context()))
			_, err = s.attach(cancelled)
			s.refused(err, actor.Canceled)
			time.Sleep(3 * time.Hour)
			var was, is int
			fmt.Sscan(before, &was)
			fmt.Sscan(s.value("b"), &is)
			if is-was != 5 {
				s.t.Errorf("%s: %d transactions, want 3 and then 2", name, is-was)
			}
		}
		s.values("a=-10 b=10")
		s.free("a", "b", "keeper")
	})
}

// TestTransactionExactlyOnce: the key of the call that began it makes it one, one after the
// other or at once, and its result can be attached to.
func TestTransactionExactlyOnce(t *testing.T) {
	eachWay(t, func(s *stage) {
		roots := map[string]*actor.MethodDesc{"": s.batches.Methods[transact], "root": s.things.Methods[transact]}
		var runs atomic.Int32
		pay := s.on("pay", func(ctx actor.Context) (string, error) {
			runs.Add(1)
			time.Sleep(time.Second)
			s.must(s.do(ctx, "a", "add -1"))
			got, err := s.do(ctx, "b", "add 1")
			return got + " " + ctx.InvocationID(), err
		})
		refuse := s.on("refuse", func(ctx actor.Context) (string, error) {
			runs.Add(1)
			s.must(s.do(ctx, "a", "add -1"))
			return s.do(ctx, "b", "fail")
		})
		for key, m := range roots {
			before := s.value("b")
			var all sync.WaitGroup
			answers := make([]string, 8)
			for i := range answers {
				all.Go(func() {
					var err error
					answers[i], err = s.invoke(s.t.Context(), m, key, pay, actor.IdempotencyKey("k"))
					s.must(nil, err)
				})
			}
			all.Wait()
			ran := runs.Load()
			again, err := s.invoke(s.t.Context(), m, key, pay, actor.IdempotencyKey("k"))
			s.must(again, err)
			for _, answer := range answers {
				if answer != again || answer == "" {
					s.t.Errorf("answers %q, and again %q", answers, again)
				}
			}
			var was, is int
			fmt.Sscan(before, &was)
			if _, err := fmt.Sscan(s.value("b"), &is); err != nil || is != was+1 {
				s.t.Errorf("%q: b was %d and is %d", key, was, is)
			}
			_, id, _ := strings.Cut(again, " ")
			attached, err := actor.Attach[*apipb.Mixin](s.client, id).Attach(s.t.Context())
			if err != nil || attached.Root != again {
				s.t.Errorf("attached: %v %v", attached, err)
			}
			_, err = s.invoke(s.t.Context(), m, key, refuse, actor.IdempotencyKey("k"))
			s.refused(err, actor.AlreadyExists)
			if runs.Load() != ran {
				s.t.Error("a repeated call ran the handler")
			}
			for range 2 {
				_, err = s.invoke(s.t.Context(), m, key, refuse, actor.IdempotencyKey("refused"))
				s.refused(err, actor.Aborted, "on purpose")
			}
		}
		s.values("a=-2 b=2")

		// Keys of calls inside mean nothing.
		for range 2 {
			s.must(s.batch(s.t.Context(), s.fn(func(ctx actor.Context) error {
				s.must(s.do(ctx, "c", "add 1", actor.IdempotencyKey("inside")))
				_, err := s.do(ctx, "c", "add 1", actor.IdempotencyKey("inside"))
				return err
			})))
		}
		s.values("c=4")
	})
}

// TestTransactionWithoutKey: a call without an idempotency key, as from curl, leaves nothing
// behind but what it wrote: the cheapest commit, with one object elsewhere, and the others.
func TestTransactionWithoutKey(t *testing.T) {
	eachWay(t, func(s *stage) {
		call := func(name string) (int, string) {
			return s.post("/stage.v1.BatchService/HTRANSACTION", fmt.Sprintf(`{"root":%q}`, name))
		}
		calls := func(last string, keys ...string) string {
			return s.fn(func(ctx actor.Context) error {
				for _, key := range keys {
					s.must(s.do(ctx, key, "add 1"))
				}
				_, err := s.do(ctx, keys[0], last)
				return err
			})
		}
		for n := 1; n <= 20; n++ { // Of the keys most are in other partitions than the root.
			one, other := fmt.Sprint("one-", n), fmt.Sprint("other-", n)
			if status, body := call(calls("add 1", one)); status != http.StatusOK {
				s.t.Errorf("one object: %d %s", status, body)
			}
			s.values(one + "=2")
			if status, body := call(calls("fail", one)); status == http.StatusOK || !strings.Contains(body, "on purpose") {
				s.t.Errorf("one object, refused: %d %s", status, body)
			}
			if status, body := call(calls("add 1", one, other)); status != http.StatusOK {
				s.t.Errorf("two objects: %d %s", status, body)
			}
			if status, body := call(calls("fail", one, other)); status == http.StatusOK || !strings.Contains(body, "on purpose") {
				s.t.Errorf("two objects, refused: %d %s", status, body)
			}
			s.values(one + "=4 " + other + "=1")
			s.free(one, other)
		}
	})
}
