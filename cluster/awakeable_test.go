package cluster_test

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/perdure/perdure/actor"
	adminv1 "github.com/perdure/perdure/proto/perdure/admin/v1"
)

// TestAwakeableOfAnEarlierRun: an id that a purged or forgotten invocation gave out completes nothing of the
// one that was started anew under its key, whose awakeable has the same index.
func TestAwakeableOfAnEarlierRun(t *testing.T) {
	eachLife(t, func(s *stage) {
		tokens := make(chan string, 1)
		wait := s.on("wait", func(ctx actor.Context) (string, error) {
			token := actor.NewAwakeable[string](ctx)
			if err := actor.Do(ctx, "hand out", func(context.Context) error {
				select {
				case tokens <- token.ID():
				default: // a closure may run again after a crash
				}
				return nil
			}); err != nil {
				return "", err
			}
			return token.Await(ctx)
		})
		for _, way := range []struct {
			name   string
			method *actor.MethodDesc
			opts   []actor.SendOption
			purge  bool
		}{
			{"purged run of a workflow", s.flows.Methods[flowRun], nil, true},
			{"forgotten run of a workflow", s.flows.Methods[flowRun], nil, false},
			{"purged idempotency key", s.things.Methods[keep], []actor.SendOption{actor.IdempotencyKey("once")}, true},
		} {
			begin := func() (*actor.Invocation[*mixin], string) {
				select {
				case <-tokens: // of a closure that ran again
				default:
				}
				sent, err := s.send(s.t.Context(), way.method, "k "+way.name, wait, way.opts...)
				s.must(nil, err)
				return sent, <-tokens
			}
			earlier, stale := begin()
			s.must(nil, actor.ResolveAwakeable(s.t.Context(), s.client, stale, "one"))
			if got, err := s.attach(earlier); got != "one" || err != nil {
				s.t.Errorf("%s: %q, %v", way.name, got, err)
			}
			time.Sleep(time.Second) // of fake time: the next run begins later
			if way.purge {
				if failed := s.admin("PurgeInvocation", &adminv1.PurgeInvocationRequest{InvocationId: earlier.ID()}, &adminv1.PurgeInvocationResponse{}); failed != "" {
					s.t.Fatal(failed)
				}
			} else {
				time.Sleep(48 * time.Hour) // of fake time: its retention is over
			}
			s.refused(actor.ResolveAwakeable(s.t.Context(), s.client, stale, "two"), actor.NotFound, "no awakeable "+stale)

			again, token := begin()
			if again.ID() != earlier.ID() || token == stale {
				s.t.Fatalf("%s: the ids are %s and %s, of the awakeables %s and %s", way.name, earlier.ID(), again.ID(), stale, token)
			}
			unmarked := token[:strings.LastIndex(token, "_")] // what an older version called it
			for _, wrong := range []string{stale, unmarked} {
				s.refused(actor.ResolveAwakeable(s.t.Context(), s.client, wrong, "two"), actor.NotFound, "no awakeable "+wrong)
				s.refused(actor.RejectAwakeable(s.t.Context(), s.client, wrong, actor.NewError(actor.Aborted, "no")), actor.NotFound)
				// A handler is not told, and changes nothing either.
				resolve := s.on("resolve", func(ctx actor.Context) (string, error) {
					return "", actor.ResolveAwakeable(ctx, ctx, wrong, "three")
				})
				for key := range strings.SplitSeq("a b c d", " ") { // in several partitions
					s.must(s.do(s.t.Context(), key, resolve))
				}
			}
			time.Sleep(2 * time.Minute) // of fake time: messages between partitions arrive, and who waits is suspended
			s.settle(again.ID(), "_SUSPENDED")
			s.must(nil, actor.ResolveAwakeable(s.t.Context(), s.client, token, "four"))
			if got, err := s.attach(again); got != "four" || err != nil {
				s.t.Errorf("%s, once more: %q, %v", way.name, got, err)
			}
		}
	})
}
