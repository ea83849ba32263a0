package cluster_test

import (
	"context"
	"fmt"
	"log/slog"
	"strings"
	"testing"

	"github.com/perdure/perdure/actor"
	"github.com/perdure/perdure/cluster"
)

// TestManyWaitForALargeResult: a result, or a promise's value, that many wait for is more than a record if
// each is given it in the same one. All get it, whatever partition they are in, and no partition starts over.
func TestManyWaitForALargeResult(t *testing.T) {
	var log complaints
	s := newStage(t, cluster.WithDataDir(t.TempDir()), cluster.WithPartitions(2), cluster.WithMemory(128<<20),
		cluster.WithLogger(slog.New(slog.NewTextHandler(&log, nil))))
	defer stopNode(t, s.node)
	value := strings.Repeat("x", 300<<10)
	released := make(chan struct{})
	s.on("large", func(ctx actor.Context) (string, error) {
		return value, actor.Do(ctx, "wait", func(ctx context.Context) error {
			select {
			case <-released:
				return nil
			case <-ctx.Done():
				return ctx.Err()
			}
		})
	})
	large, err := s.send(t.Context(), s.things.Methods[keep], "large", "large")
	s.must(nil, err)
	var begun []*actor.Invocation[*mixin]
	for i := range 20 {
		name := s.on(fmt.Sprint("waits ", i), func(ctx actor.Context) (string, error) {
			got, err := actor.Attach[*mixin](ctx, large.ID()).Attach(ctx)
			return fmt.Sprint(len(got.GetRoot())), err
		})
		waiting, err := s.send(t.Context(), s.things.Methods[keep], fmt.Sprint("waits ", i), name)
		s.must(nil, err)
		begun = append(begun, waiting)
	}
	for _, waiting := range begun {
		s.entries(waiting.ID(), 1)
	}
	close(released)
	for _, waiting := range begun {
		if got, err := s.attach(waiting); got != fmt.Sprint(len(value)) || err != nil {
			t.Errorf("got %.100q, %.300v", got, err)
		}
	}

	s.on("promised", func(ctx actor.Context) (string, error) {
		var futures []actor.Future[*mixin]
		for range 5 {
			futures = append(futures, actor.PromiseOf[*mixin](ctx, "p").AwaitAsync(ctx))
		}
		all, err := actor.All(ctx, futures...)
		for _, got := range all {
			if got.GetRoot() != value {
				err = fmt.Errorf("got %.100q", got.GetRoot())
			}
		}
		return fmt.Sprint(len(all)), err
	})
	s.on("resolve", func(ctx actor.Context) (string, error) {
		return "", actor.PromiseOf[*mixin](ctx, "p").Resolve(ctx, &mixin{Root: value})
	})
	flow, err := s.send(t.Context(), s.flows.Methods[flowRun], "f", "promised")
	s.must(nil, err)
	s.entries(flow.ID(), 5)
	s.must(s.invoke(t.Context(), s.flows.Methods[flowLook], "f", "resolve"))
	if got, err := s.attach(flow); got != "5" || err != nil {
		t.Errorf("got %.100q, %.300v", got, err)
	}
	log.Lock()
	defer log.Unlock()
	for _, line := range log.lines {
		t.Errorf("the log says %.300s", line)
	}
}

// entries waits until an invocation has recorded so many.
func (s *stage) entries(id string, wanted int) {
	s.t.Helper()
	for len(s.look(id).GetJournal()) < wanted {
		if s.t.Context().Err() != nil {
			s.t.Fatal("it has not recorded them")
		}
	}
}
