package ingress

import (
	"testing"

	"github.com/perdure/perdure/actor"
	"github.com/perdure/perdure/internal/invocation"
)

func callID(n int) invocation.ID {
	return invocation.ID{0: byte(n >> 8), 1: byte(n), invocation.IDBytes - 1: byte(n)}
}

// TestUnderWay: a call is known from its first caller to its last, and for a while if one left.
func TestUnderWay(t *testing.T) {
	var calls underWay
	method := &actor.MethodDesc{Name: "Deposit"}
	known := func(want bool, n int) {
		t.Helper()
		if got := calls.method(callID(n)); (got == method) != want {
			t.Errorf("call %d: got %v, want it known: %v", n, got, want)
		}
	}
	known(false, 1)
	calls.begin(callID(1), method)
	calls.begin(callID(1), method) // a second caller with the same idempotency key
	known(true, 1)
	calls.end(callID(1), false)
	known(true, 1)
	calls.end(callID(1), false)
	known(false, 1)

	calls.begin(callID(1), method)
	calls.end(callID(1), true)
	known(true, 1)
	known(false, 2)

	// What callers leave behind is bounded; the latest are known.
	const most = underWayShards * leftPerShard
	for n := 2; n < 2+most; n++ {
		calls.begin(callID(n), method)
		calls.end(callID(n), true)
	}
	known(false, 1)
	known(true, 2)
	known(true, 1+most)
	for i := range calls {
		if left := len(calls[i].mu.calls); left > 0 {
			t.Errorf("shard %d keeps %d calls that have no caller", i, left)
		}
	}
}

func BenchmarkUnderWay(b *testing.B) {
	var calls underWay
	method := &actor.MethodDesc{Name: "Deposit"}
	b.ReportAllocs()
	for n := range b.N {
		calls.begin(callID(n), method)
		calls.end(callID(n), false)
	}
}
