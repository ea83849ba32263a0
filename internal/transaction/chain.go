package transaction

import (
	"fmt"
	"strings"

	"github.com/perdure/perdure/internal/invocation"
	recordv1 "github.com/perdure/perdure/internal/record/v1"
)

// MaxDepth bounds calls within calls: each of them has a goroutine and carries its chain.
const MaxDepth = 100

// Cycle says why a call can never start whose key one of the chain holds, of which each waits for
// the next and the last for this call; "" if none of them does.
func Cycle(chain []*recordv1.Target, target invocation.Target) string {
	for i, held := range chain {
		if held.GetService() != target.Service || held.GetKey() != target.Key {
			continue
		}
		var calls strings.Builder
		for _, t := range chain[i:] {
			calls.WriteString(invocation.Target{Service: t.GetService(), Key: t.GetKey(), Handler: t.GetHandler()}.String())
			calls.WriteString(" → ")
		}
		return fmt.Sprintf("the call would wait for itself for ever: %s%s; %s is held until its own handler ends. Use Send, or a READ handler",
			calls.String(), target, target.Object())
	}
	return ""
}
