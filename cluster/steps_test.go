package cluster_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/perdure/perdure/actor"
)

// TestAttachBetweenObjects: handlers attach to and peek at invocations anywhere, by id, by
// idempotency key and by workflow.
func TestAttachBetweenObjects(t *testing.T) {
	eachWayToWait(t, func(s *stage) {
		slow := s.on("slow", func(ctx actor.Context) (string, error) {
			return "slept", actor.Sleep(ctx, time.Hour)
		})
		fails := s.on("fails", func(ctx actor.Context) (string, error) {
			if err := actor.Sleep(ctx, time.Minute); err != nil {
				return "", err
			}
			return "", actor.Errorf(actor.Aborted, "on purpose")
		})
		var ids []string
		for i := range 6 { // in as many partitions
			sent, err := s.send(s.t.Context(), s.things.Methods[keep], fmt.Sprint("slow ", i), slow)
			s.must(nil, err)
			ids = append(ids, sent.ID())
		}
		_, err := s.send(s.t.Context(), s.things.Methods[keep], "failing", fails, actor.IdempotencyKey("once"))
		s.must(nil, err)
		_, err = s.send(s.t.Context(), s.flows.Methods[flowRun], "f", slow)
		s.must(nil, err)
		failing := actor.IDOf(s.things.Name, "failing", s.things.Methods[keep].Name, "once")
		run := actor.IDOf(s.flows.Name, "f", s.flows.Methods[flowRun].Name, "")

		watcher := s.on("watch", func(ctx actor.Context) (string, error) {
			var seen []any
			_, done, err := actor.Attach[*mixin](ctx, ids[0]).Peek(ctx)
			seen = append(seen, done, err)
			_, err = actor.Attach[*mixin](ctx, failing).Attach(ctx)
			seen = append(seen, err)
			_, done, err = actor.Attach[*mixin](ctx, failing).Peek(ctx)
			seen = append(seen, done, err)
			_, late := actor.WithTimeout(ctx, actor.Attach[*mixin](ctx, run).AttachAsync(ctx), time.Minute).Await(ctx)
			seen = append(seen, actor.CodeOf(late))
			var all []actor.Future[*mixin]
			for _, id := range ids {
				all = append(all, actor.Attach[*mixin](ctx, id).AttachAsync(ctx))
			}
			results, err := actor.All(ctx, append(all, actor.Attach[*mixin](ctx, run).AttachAsync(ctx))...)
			seen = append(seen, len(results), err)
			got, done, err := actor.Attach[*mixin](ctx, run).Peek(ctx)
			seen = append(seen, got.GetRoot(), done, err)
			_, gone := actor.Attach[*mixin](ctx, actor.IDOf(s.things.Name, "x", "HDURABLE", "never")).Attach(ctx)
			return fmt.Sprint(append(seen, actor.CodeOf(gone))...), nil
		})
		began := time.Now()
		got, err := s.invoke(s.t.Context(), s.things.Methods[keep], "watcher", watcher)
		s.must(nil, err)
		if want := "false <nil> aborted: on purpose true aborted: on purpose deadline_exceeded 7 <nil>slepttrue <nil> not_found"; got != want {
			s.t.Errorf("got  %s\nwant %s", got, want)
		}
		if took := time.Since(began); took < 59*time.Minute || took > 61*time.Minute {
			s.t.Errorf("took %s", took)
		}
	})
}

// TestSendIsCancelledBeforeItStarts: what was sent with a delay to any object does not run if it
// is cancelled by its id, by its sender or from outside.
func TestSendIsCancelledBeforeItStarts(t *testing.T) {
	eachWayToWait(t, func(s *stage) {
		sender := s.on("send", func(ctx actor.Context) (string, error) {
			for i := range 6 {
				sent, err := s.send(ctx, s.things.Methods[keep], fmt.Sprint("to ", i), "add 1", actor.Delay(time.Hour))
				if err != nil {
					return "", err
				}
				if i%2 == 0 {
					if err := actor.Sleep(ctx, time.Minute); err != nil {
						return "", err
					}
				}
				if i < 4 {
					if err := sent.Cancel(ctx); err != nil {
						return "", err
					}
				}
			}
			return "sent", nil
		})
		s.must(s.invoke(s.t.Context(), s.things.Methods[keep], "sender", sender))
		outside, err := s.send(s.t.Context(), s.things.Methods[keep], "outside", "add 1", actor.Delay(time.Hour), actor.IdempotencyKey("k"))
		s.must(nil, err)
		code, body := s.post("/perdure.v1.InvocationService/Cancel", fmt.Sprintf(
			`{"call":{"service":%q,"key":"outside","handler":"HDURABLE","idempotencyKey":"k"}}`, s.things.Name))
		if code != http.StatusOK {
			s.t.Error(code, body)
		}
		if _, err := s.attach(outside); actor.CodeOf(err) != actor.Canceled {
			s.t.Errorf("the cancelled one ended with %v", err)
		}
		time.Sleep(2 * time.Hour)
		for key, want := range map[string]string{"to 0": "0", "to 1": "0", "to 2": "0", "to 3": "0", "to 4": "1", "to 5": "1", "outside": "0"} {
			if got := s.value(key); got != want {
				s.t.Errorf("%s is %s, want %s", key, got, want)
			}
		}
	})
}

// TestInvocationsByTheirNames: callers that know only HTTP and JSON attach and peek by id,
// idempotency key and workflow.
func TestInvocationsByTheirNames(t *testing.T) {
	inMemory(t, func(s *stage) {
		slow := s.on("slow", func(ctx actor.Context) (string, error) { return "slept", actor.Sleep(ctx, time.Hour) })
		_, err := s.send(s.t.Context(), s.things.Methods[keep], "a", slow, actor.IdempotencyKey("k"))
		s.must(nil, err)
		_, err = s.send(s.t.Context(), s.flows.Methods[flowRun], "f", slow)
		s.must(nil, err)
		call := fmt.Sprintf(`{"call":{"service":%q,"key":"a","handler":"HDURABLE","idempotencyKey":"k"}}`, s.things.Name)
		run := fmt.Sprintf(`{"run":{"service":%q,"key":"f"}}`, s.flows.Name)
		says := func(rpc, body string, status int, texts ...string) {
			s.t.Helper()
			code, answer := s.post("/perdure.v1.InvocationService/"+rpc, body)
			if code != status {
				s.t.Errorf("%s %s: %d %s", rpc, body, code, answer)
			}
			for _, text := range texts {
				if !strings.Contains(strings.ReplaceAll(answer, " ", ""), strings.ReplaceAll(text, " ", "")) {
					s.t.Errorf("%s %s: %s does not say %s", rpc, body, answer, text)
				}
			}
		}
		says("Peek", call, 200, `"invocationId":"inv_`)
		says("Peek", run, 200)
		says("Attach", call, 200, `"root":"slept"`)
		says("Attach", run, 200, `"root":"slept"`)
		says("Peek", call, 200, `"done":true`, `"root":"slept"`)
		says("Peek", run, 200, `"done":true`, `"root":"slept"`)
		says("Peek", `{}`, 400, "invocationId is empty")
		says("Peek", `{"invocationId":"inv_1","run":{}}`, 400, "more than one of")
		says("Peek", `{"run":{"service":"no.v1.Such"}}`, 404, "no service no.v1.Such")
		says("Peek", fmt.Sprintf(`{"run":{"service":%q,"key":"f"}}`, s.things.Name), 400, "is not a WORKFLOW")
		says("Peek", fmt.Sprintf(`{"run":{"service":%q}}`, s.flows.Name), 400, "key is empty")
		says("Peek", fmt.Sprintf(`{"run":{"service":%q,"key":"never"}}`, s.flows.Name), 404)
		says("Attach", strings.Replace(call, `"k"`, `""`, 1), 400, "idempotencyKey is empty")
		says("Attach", strings.Replace(call, "HDURABLE", "HNONE", 1), 404, "no handler")
		got, done, err := actor.Attach[*mixin](s.client, actor.IDOf(s.flows.Name, "f", "HRUN", "")).Peek(s.t.Context())
		if got.GetRoot() != "slept" || !done || err != nil {
			s.t.Error(got, done, err)
		}
	})
}

// TestStepsTogether: policies of Runs, versions, timers and combinations on a node, whose outcome
// is the same however often the handler is crashed and suspended.
func TestStepsTogether(t *testing.T) {
	eachWayToWait(t, func(s *stage) {
		tries := map[string]int{}
		together := s.on("together", func(ctx actor.Context) (string, error) {
			fails := func(name string, upTo int, err error) func(context.Context) (string, error) {
				return func(context.Context) (string, error) {
					s.mu.Lock()
					defer s.mu.Unlock()
					if tries[name]++; tries[name] <= upTo {
						return "", err
					}
					return name, nil
				}
			}
			var seen []any
			began := ctx.Now()
			got, err := actor.Run(ctx, "a", fails("a", 2, actor.RetryAfter(actor.Errorf(actor.Unavailable, "busy"), time.Hour)))
			seen = append(seen, got, err)
			_, err = actor.Run(ctx, "b", fails("b", 9, errors.New("never")), actor.RunRetry(actor.RunPolicy{MaxAttempts: 3, InitialInterval: time.Minute}))
			seen = append(seen, err)
			both, err := actor.All(ctx, actor.RunAsync(ctx, "c", fails("c", 1, errors.New("not yet"))), actor.RunAsync(ctx, "d", fails("d", 0, nil)))
			seen = append(seen, both, err, actor.Version(ctx, "change", actor.Unversioned, 3))
			timer := actor.After(ctx, 1000*time.Hour)
			seen = append(seen, timer.Stop(ctx))
			_, err = timer.Await(ctx)
			seen = append(seen, err)
			_, err = actor.WithTimeout(ctx, actor.AllAsync(actor.NewAwakeable[int](ctx), actor.NewAwakeable[int](ctx)), time.Minute).Await(ctx)
			seen = append(seen, actor.CodeOf(err), actor.Version(ctx, "change", actor.Unversioned, 3), ctx.Now().Sub(began) > 2*time.Hour)
			return fmt.Sprint(seen...), nil
		})
		got, err := s.invoke(s.t.Context(), s.things.Methods[keep], "k", together)
		s.must(nil, err)
		if want := "a<nil> unknown: the last of 3 tries: never [c d] <nil> 3 <nil> canceled: the timer was stopped deadline_exceeded 3 true"; got != want {
			s.t.Errorf("got  %s\nwant %s", got, want)
		}
		s.mu.Lock()
		defer s.mu.Unlock()
		// A crash may fall between what a closure of RunAsync did and its record.
		if tries["a"] != 3 || tries["b"] != 3 || tries["c"] < 2 || tries["d"] < 1 {
			s.t.Error(tries)
		}
	})
}
