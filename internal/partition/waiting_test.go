package partition

import (
	"errors"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/perdure/perdure/internal/invocation"
	"github.com/perdure/perdure/internal/invoker"
	recordv1 "github.com/perdure/perdure/internal/record/v1"
	"github.com/perdure/perdure/internal/routing"
	"github.com/perdure/perdure/storage/memstore"
)

// shy is an invoker without a node for attempts, until the test has one.
type shy struct {
	adder
	waits atomic.Bool
	mu    struct {
		sync.Mutex
		attempts []*invoker.Attempt
	}
}

func (s *shy) Start(a *invoker.Attempt) invoker.Running {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.mu.attempts = append(s.mu.attempts, a)
	return s
}

func (s *shy) Waiting() bool { return s.waits.Load() }

func (s *shy) last(t *testing.T, number int) *invoker.Attempt {
	t.Helper()
	synctest.Wait()
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.mu.attempts) != number {
		t.Fatalf("%d attempts began, not %d", len(s.mu.attempts), number)
	}
	return s.mu.attempts[number-1]
}

// TestTimeBeginsWithTheNode: what is stored is not late, however long no node can run it, and has all of
// its time once one can.
func TestTimeBeginsWithTheNode(t *testing.T) {
	for name, mode := range map[string]invocation.Mode{"TRANSACTION": invocation.ModeTransaction, "DURABLE": invocation.ModeDurable} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				nobody := &shy{}
				nobody.waits.Store(true)
				n := startOn(t, openMemLog(t), memstore.New(memstore.Options{}), 1, nobody, func() {})
				defer n.stop()
				in := request("k", 7, mode)
				in.RetentionMs = time.Hour.Milliseconds()
				if _, err := n.Send(t.Context(), in); err != nil {
					t.Fatal(err)
				}
				time.Sleep(24 * time.Hour)
				waited := nobody.last(t, 1)
				if !waited.Stored {
					t.Fatal("what was sent is not stored")
				}
				waited.Host.Finish(waited, &invoker.Outcome{Lost: true, Anew: true})
				runs := nobody.last(t, 2)
				nobody.waits.Store(false)
				time.Sleep(20 * time.Second) // of the 30 s that a TRANSACTION has
				runs.Host.Finish(runs, &invoker.Outcome{Result: &recordv1.Result{Value: []byte("7")}})
				id, _ := invocation.IDFromBytes(in.InvocationId)
				result, err := n.Attach(t.Context(), id)
				if err != nil || string(result.GetValue()) != "7" {
					t.Errorf("it ended with %v, %v", result, err)
				}
			})
		})
	}
}

// TestUnhostedCallLeavesNothing: what somebody waited for in vain, since no node could run it, has not
// been called, and whoever calls again with its key is not told that it failed.
func TestUnhostedCallLeavesNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		nobody := &shy{}
		n := startOn(t, openMemLog(t), memstore.New(memstore.Options{}), 1, nobody, func() {})
		defer n.stop()
		in := request("k", 7, invocation.ModeTransaction)
		in.IdempotencyKey, in.RetentionMs = "once", time.Hour.Milliseconds()
		var result *recordv1.Result
		var err error
		for number := 1; number <= 2; number++ {
			ended := make(chan struct{})
			go func() {
				defer close(ended)
				result, err = n.Call(t.Context(), in)
			}()
			a := nobody.last(t, number)
			if number == 2 {
				a.Host.Finish(a, &invoker.Outcome{Result: &recordv1.Result{Value: []byte("7")}})
				<-ended
				break
			}
			a.Host.Finish(a, &invoker.Outcome{Unhosted: true, Result: &recordv1.Result{Error: &recordv1.Error{Code: uint32(routing.CodeUnavailable), Message: "no live node"}}})
			<-ended
			if refused, ok := errors.AsType[*routing.Error](err); !ok || refused.Code != routing.CodeUnavailable {
				t.Fatalf("no node ran it: %v, %v", result, err)
			}
		}
		if err != nil || string(result.GetValue()) != "7" {
			t.Errorf("called again it ended with %v, %v", result, err)
		}
	})
}
