package partition

import (
	"context"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/perdure/perdure/internal/engine"
	"github.com/perdure/perdure/internal/invocation"
	"github.com/perdure/perdure/internal/invoker"
	recordv1 "github.com/perdure/perdure/internal/record/v1"
	"github.com/perdure/perdure/storage/memstore"
	"github.com/perdure/perdure/storage/nodelog"
	"github.com/perdure/perdure/storage/vfs"
)

// breaker is an invoker whose DURABLE handlers record what the engine can't evaluate, each time
// they run.
type breaker struct{ adder }

func (breaker) Start(a *invoker.Attempt) invoker.Running {
	if a.Mode == invocation.ModeDurable {
		a.Host.Append(a, 1, &recordv1.Entry{}) // of no kind
		return adder{}
	}
	return adder{}.Start(a)
}

// An event that breaks the evaluation half way costs its partition one leadership, and its
// invocation is set aside: everything else goes on, also in the next leaderships.
func TestWhatBreaksAnEvaluationIsSetAside(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log, err := nodelog.Open(nodelog.Options{Dir: "/log", FS: vfs.NewMem()})
		if err != nil {
			t.Fatal(err)
		}
		n := startOn(t, log, memstore.New(memstore.Options{}), 1, breaker{}, func() { _ = log.Close() })
		defer n.stop()
		epoch := func() uint64 { return n.partitions[0].leading.Load().epoch }
		before := epoch()
		in := request("bad", 1, invocation.ModeDurable)
		in.IdempotencyKey = "once"
		// The first tells the sender nothing certain; a sender repeats what was unavailable.
		for range 3 {
			ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
			_, err = n.Send(ctx, in)
			cancel()
			if err == nil {
				break
			}
			time.Sleep(5 * time.Second)
		}
		if err != nil {
			t.Fatalf("the send is not taken: %v", err)
		}
		time.Sleep(5 * time.Second) // The next leadership has begun.
		synctest.Wait()
		detail, err := n.Invocation(t.Context(), invocation.ID(in.InvocationId))
		if err != nil {
			t.Fatal(err)
		}
		if detail.Row.Status != recordv1.Status_STATUS_PAUSED || !strings.Contains(detail.Row.LastFailure.GetMessage(), "kind") {
			t.Errorf("the invocation is %s, %q; want it paused with the cause", detail.Row.Status, detail.Row.LastFailure.GetMessage())
		}
		if lost := epoch() - before; lost != 1 {
			t.Errorf("%d leaderships were lost, want 1", lost)
		}
		if _, err := n.Call(t.Context(), request("good", 1, invocation.ModeTransaction)); err != nil {
			t.Errorf("another object: %v", err)
		}
		if err := n.Cancel(t.Context(), invocation.ID(in.InvocationId), true); err != nil {
			t.Errorf("kill what is set aside: %v", err)
		}
	})
}

// A panic of the engine is an error of one evaluation.
func TestEnginePanicIsAnError(t *testing.T) {
	_, err := evaluateSafely(nil, &engine.Attach{}, 0)
	if err == nil || !strings.Contains(err.Error(), "panic") {
		t.Errorf("got %v, want the panic", err)
	}
}
