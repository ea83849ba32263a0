package transaction

import (
	"testing"

	"github.com/perdure/perdure/internal/invocation"
)

// One that comes only to have the key, for reading, does not wait behind calls that wait for a
// DURABLE handler: that may wait for it.
func TestReservedReadPassesThoseThatWaitForADurableHandler(t *testing.T) {
	l, object := NewLocks(64), invocation.Object{Service: "s", Key: "k"}
	call, durable := &Request{Object: object, Kind: Call}, &Request{Object: object, Kind: Durable}
	waiting := &Request{Object: object, Kind: Call}
	before := &Request{Object: object, Kind: Branch, Shared: true, Alone: true, Age: Age{At: 1}}
	after := &Request{Object: object, Kind: Branch, Shared: true, Alone: true, Age: Age{At: 2}}
	for _, r := range []*Request{call, durable, waiting, before} {
		l.Acquire(r)
	}
	l.Release(call)
	if l.Acquire(after); !durable.Held() || waiting.Held() || !before.Held() || !after.Held() {
		t.Errorf("held by the handler %v, the call %v, the first reader %v, the second %v; want all but the call",
			durable.Held(), waiting.Held(), before.Held(), after.Held())
	}
}
