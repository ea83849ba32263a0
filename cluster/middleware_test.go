package cluster_test

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/apipb"

	"github.com/perdure/perdure/actor"
	"github.com/perdure/perdure/cluster"
)

// spy is middleware that notes what it sees.
type spy struct {
	mu   sync.Mutex
	seen []string
}

func (s *spy) note(format string, args ...any) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.seen = append(s.seen, fmt.Sprintf(format, args...))
}

// take returns what was noted since the last time.
func (s *spy) take() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	seen := s.seen
	s.seen = nil
	return seen
}

func (s *spy) named(name string) actor.Middleware {
	return func(method *actor.MethodDesc, next actor.HandlerFunc) actor.HandlerFunc {
		return func(ctx actor.Context, req proto.Message) (proto.Message, error) {
			called := fmt.Sprintf("%s %s %s", name, method.Mode, actor.KeyOf[string](ctx))
			s.note("%s: attempt %d, replaying %v", called, ctx.Attempt(), actor.Replaying(ctx))
			resp, err := next(ctx, req)
			end := "ok"
			if err != nil {
				end = actor.CodeOf(err).String()
			}
			s.note("%s: %q, %s, replaying %v", called, resp.(*apipb.Mixin).GetRoot(), end, actor.Replaying(ctx))
			return resp, err
		}
	}
}

// TestMiddleware: it is around handlers of each mode, the first outermost, and sees how they end.
func TestMiddleware(t *testing.T) {
	countsAttempts(t)
	var s spy
	inMemory(t, func(st *stage) {
		t := st.t
		hello := st.on("hello", func(actor.Context) (string, error) { return "hello", nil })
		for _, call := range []struct {
			method *actor.MethodDesc
			key    string
			mode   string
		}{
			{st.things.Methods[transact], "a", "TRANSACTION a"},
			{st.things.Methods[look], "a", "READ a"},
			{st.things.Methods[keep], "a", "DURABLE a"},
			{st.flows.Methods[flowRun], "w", "RUN w"},
			{st.batches.Methods[keep], "", "DURABLE "},
		} {
			st.must(st.invoke(t.Context(), call.method, call.key, hello))
			want := []string{
				"outer " + call.mode + ": attempt 1, replaying false", "inner " + call.mode + ": attempt 1, replaying false",
				"inner " + call.mode + `: "hello", ok, replaying false`, "outer " + call.mode + `: "hello", ok, replaying false`,
			}
			if got := s.take(); !slices.Equal(got, want) {
				t.Errorf("saw\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
			}
		}
		_, err := st.do(t.Context(), "a", "fail")
		st.refused(err, actor.Aborted, "on purpose")
		if got := strings.Join(s.take(), "\n"); !strings.Contains(got, `outer TRANSACTION a: "", aborted`) {
			t.Errorf("of a failure it saw\n%s", got)
		}
		// A signal has no handler; a call in a handler has one of its own.
		st.must(st.invoke(t.Context(), st.flows.Methods[flowTell], "w", "x"))
		if got := s.take(); len(got) != 0 {
			t.Errorf("of a signal it saw %q", got)
		}
		st.must(st.do(t.Context(), "a", st.fn(func(ctx actor.Context) error {
			_, err := st.do(ctx, "b", hello)
			return err
		})))
		if got := strings.Join(s.take(), "\n"); strings.Count(got, "outer TRANSACTION b: attempt 1") != 1 || strings.Count(got, "outer TRANSACTION a") != 2 {
			t.Errorf("of a transaction over two objects it saw\n%s", got)
		}
	}, cluster.WithMiddleware(s.named("outer")), cluster.WithMiddleware(s.named("inner")), cluster.WithPartitions(8))
}

// TestMiddlewareIsReplayed: it runs in each attempt, knows which of them replay, and never sees the
// end of one that was unwound.
func TestMiddlewareIsReplayed(t *testing.T) {
	var s spy
	inMemory(t, func(st *stage) {
		t := st.t
		ran := 0
		nap := st.fn(func(ctx actor.Context) error {
			if _, err := actor.Run(ctx, "once", func(context.Context) (int, error) { ran++; return 0, nil }); err != nil {
				return err
			}
			return actor.Sleep(ctx, time.Hour)
		})
		st.must(st.invoke(t.Context(), st.things.Methods[keep], "a", nap))
		got := s.take()
		if ran != 1 || len(got) < 3 || got[0] != "it DURABLE a: attempt 1, replaying false" {
			t.Errorf("ran %d times, saw %q", ran, got)
		}
		ends := 0
		for i, line := range got[1:] {
			switch {
			case i == len(got)-2:
				if !strings.Contains(line, `it DURABLE a: ""`) || !strings.Contains(line, "replaying false") {
					t.Errorf("the end is %q", line)
				}
			case !strings.HasSuffix(line, ", replaying true"):
				t.Errorf("a replay is %q", line)
			}
			if strings.Contains(line, `""`) {
				ends++
			}
		}
		if ends != 1 {
			t.Errorf("it saw %d ends: %q", ends, got)
		}
	}, cluster.WithMiddleware(s.named("it")), cluster.WithInactivityTimeout(time.Nanosecond))
}

type userKey struct{}

// TestMiddlewareChangesThings: contexts, requests, responses and errors; and what it breaks is said.
func TestMiddlewareChangesThings(t *testing.T) {
	changes := func(_ *actor.MethodDesc, next actor.HandlerFunc) actor.HandlerFunc {
		return func(ctx actor.Context, req proto.Message) (proto.Message, error) {
			root := req.(*apipb.Mixin).Root
			kind, rest, _ := strings.Cut(root, ":")
			switch kind {
			case "user":
				derived := context.WithValue(ctx, userKey{}, rest)
				return next(actor.WithContext(ctx, derived), &apipb.Mixin{Name: req.(*apipb.Mixin).Name, Root: "who"})
			case "panic":
				panic("a bug in the middleware")
			case "coded":
				return nil, actor.Errorf(actor.PermissionDenied, "not you")
			case "uncoded":
				return nil, errors.New("a trifle")
			case "request":
				return next(ctx, &apipb.Method{})
			case "response":
				return &apipb.Method{}, nil
			case "stranger":
				return next(actor.WithContext(ctx, context.Background()), req)
			case "deadline":
				derived, cancel := context.WithTimeout(ctx, time.Minute)
				defer cancel()
				return next(actor.WithContext(ctx, derived), &apipb.Mixin{Name: req.(*apipb.Mixin).Name, Root: rest})
			case "step":
				if err := actor.Sleep(ctx, time.Second); err != nil {
					return nil, err
				}
				return next(ctx, &apipb.Mixin{Name: req.(*apipb.Mixin).Name, Root: rest})
			}
			return next(ctx, req)
		}
	}
	all := maps.Clone(flowWays())
	for name, opts := range all {
		t.Run(name, func(t *testing.T) {
			inMemory(t, func(s *stage) {
				t := s.t
				s.on("who", func(ctx actor.Context) (string, error) { // Steps of a derived context work.
					if actor.RuntimeOf(ctx).Invocation().Method.Mode == actor.ModeDurable {
						if err := actor.Sleep(ctx, time.Second); err != nil {
							return "", err
						}
					}
					return fmt.Sprint(ctx.Value(userKey{}), " at ", s.add(ctx)), nil
				})
				for _, mode := range []int{transact, keep} {
					m := s.things.Methods[mode]
					if got, err := s.invoke(t.Context(), m, "a"+m.Name, "user:alice"); err != nil || got != "alice at 1" {
						t.Errorf("%s: %q, %v", m.Name, got, err)
					}
					_, err := s.invoke(t.Context(), m, "a", "coded:")
					s.refused(err, actor.PermissionDenied, "not you")
					for kind, text := range map[string]string{"request:": "its request is a google.protobuf.Mixin", "response:": "the response is a google.protobuf.Mixin"} {
						_, err := s.invoke(t.Context(), m, "a", kind)
						s.refused(err, actor.Internal, "middleware", text)
					}
				}
				for _, kind := range []string{"panic:", "stranger:"} {
					_, err := s.do(t.Context(), "a", kind)
					s.refused(err, actor.Internal, "panicked")
				}
				_, err := s.do(t.Context(), "a", "uncoded:")
				s.refused(err, actor.Unknown, "a trifle")
				_, err = s.invoke(t.Context(), s.things.Methods[look], "a", "panic:")
				s.refused(err, actor.Internal, "panicked")
				// A deadline of its own ends a wait; a step of its own is one of the handler's.
				long := s.fn(func(ctx actor.Context) error { return actor.Sleep(ctx, time.Hour) })
				_, err = s.invoke(t.Context(), s.things.Methods[keep], "a", "deadline:"+long)
				s.refused(err, actor.DeadlineExceeded)
				s.must(s.invoke(t.Context(), s.things.Methods[keep], "a", "step:"+long))
			}, append(opts, cluster.WithMiddleware(changes))...)
		})
	}
}

// add adds one to the state and returns what it is then.
func (s *stage) add(ctx actor.Context) int64 { return add(ctx, 1) }

// TestMiddlewareOfAService: one service has it, inside that of the node; a handler that it leaves alone is
// as it was.
func TestMiddlewareOfAService(t *testing.T) {
	countsAttempts(t)
	var s spy
	asked := 0
	node := newNode(t, t.TempDir(), cluster.WithMiddleware(func(method *actor.MethodDesc, next actor.HandlerFunc) actor.HandlerFunc {
		if method.Service != "t.v1.S" {
			return next
		}
		asked++
		return s.named("node")(method, next)
	}))
	m := &actor.MethodDesc{
		Service: "t.v1.S", Name: "H", Kind: actor.KindService, Mode: actor.ModeTransaction,
		NewRequest:  func() proto.Message { return new(apipb.Mixin) },
		NewResponse: func() proto.Message { return new(apipb.Mixin) },
		Handle:      func(actor.Context, any, proto.Message) (proto.Message, error) { return &apipb.Mixin{Root: "said"}, nil },
	}
	desc := &actor.ServiceDesc{Name: "t.v1.S", Kind: actor.KindService, Methods: []*actor.MethodDesc{m}}
	actor.WithMiddleware(node, s.named("service")).RegisterService(desc, struct{}{})
	startNode(t, node)
	defer stopNode(t, node)
	if _, err := actor.Invoke[*apipb.Mixin](t.Context(), node.Client(), m, "", &apipb.Mixin{}, nil); err != nil {
		t.Fatal(err)
	}
	got := s.take()
	if asked != 1 || len(got) != 4 || !strings.HasPrefix(got[0], "node ") || !strings.HasPrefix(got[1], "service ") {
		t.Errorf("asked %d times, saw %q", asked, got)
	}
}
