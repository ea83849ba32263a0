package remote_test

import (
	"net/http"
	"net/http/httptest"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/perdure/perdure/actor"
	bankv1 "github.com/perdure/perdure/examples/bank/gen/bank/v1"
	bank "github.com/perdure/perdure/examples/bank/gen/bank/v1/bankv1perdure"
	"github.com/perdure/perdure/internal/ingress"
	"github.com/perdure/perdure/internal/ingress/remote"
	"github.com/perdure/perdure/internal/routing/routingtest"
)

// machines are the network, by the host name in a URL.
type machines map[string]*machine

type machine struct {
	edge *ingress.Ingress
	// hangs: nothing is answered. slow is how long calls take, and nothing else.
	hangs        atomic.Bool
	slow         time.Duration
	calls, asked atomic.Int64
}

func (m machines) Do(request *http.Request) (*http.Response, error) {
	at := m[request.URL.Host]
	wait := at.slow
	if request.URL.Path == "/healthz" {
		at.asked.Add(1)
		wait = 0
	} else {
		at.calls.Add(1)
	}
	if at.hangs.Load() {
		wait = 1 << 40
	}
	select {
	case <-time.After(wait):
	case <-request.Context().Done():
		return nil, request.Context().Err()
	}
	recorded := httptest.NewRecorder()
	at.edge.ServeHTTP(recorded, request)
	return recorded.Result(), nil
}

// TestSilentNode: a node that answers nothing is left, with the calls that it has; one whose handler takes long is not.
func TestSilentNode(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		edge := newEdge(t, &routingtest.Fake{})
		m := machines{"a.example.com": {edge: edge}, "b.example.com": {edge: edge}}
		a, b := m["a.example.com"], m["b.example.com"]
		alice := bank.Account(actor.NewClient(remote.New(m, "http://a.example.com", "http://b.example.com")), "alice")
		deposit := func() time.Duration {
			t.Helper()
			began := time.Now()
			if _, err := alice.Deposit(t.Context(), &bankv1.DepositRequest{Amount: 5}); err != nil {
				t.Error(err)
			}
			return time.Since(began)
		}
		if took := deposit(); took != 0 || a.calls.Load() != 1 || a.asked.Load() != 0 {
			t.Errorf("a call took %s, and the node was called %d times and asked %d times", took, a.calls.Load(), a.asked.Load())
		}
		a.slow = time.Minute
		if took := deposit(); took != time.Minute || a.calls.Load() != 2 || b.calls.Load() != 0 {
			t.Errorf("a call that takes a minute took %s; of two nodes one was called %d times and the other one %d times", took, a.calls.Load(), b.calls.Load())
		}
		if asked := a.asked.Load(); asked < 100 || asked > 120 {
			t.Errorf("in a minute the node was asked %d times whether it is there", asked)
		}
		// One that waits already, and one that comes while nobody knows yet.
		a.slow = 0
		a.hangs.Store(true)
		took := make(chan time.Duration)
		go func() { took <- deposit() }()
		time.Sleep(1200 * time.Millisecond) // of the bubble: it is found to say nothing after 1.5 s
		if late := deposit(); late != 500*time.Millisecond {
			t.Errorf("a call that came later was answered by the other node after %s", late)
		}
		if first := <-took; first != 1500*time.Millisecond {
			t.Errorf("a call at the node that hangs was answered by the other one after %s", first)
		}
		asked := a.asked.Load()
		if took := deposit(); took != 0 {
			t.Errorf("the next call took %s", took)
		}
		synctest.Wait()
		time.Sleep(time.Minute) // of the bubble: in as much it was asked a hundred times
		if more := a.asked.Load() - asked; more != 0 {
			t.Errorf("with no call there the node was asked %d times", more)
		}
		// Both hang, for a while.
		b.hangs.Store(true)
		go func() {
			time.Sleep(10 * time.Second) // of the bubble, which is how long it hangs
			a.hangs.Store(false)
		}()
		if took := deposit(); took < 10*time.Second || took > 15*time.Second {
			t.Errorf("a call that no node answers for 10 s took %s", took)
		}
	})
}
