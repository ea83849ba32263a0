// Package foreign has a workflow of another library.
package foreign

import (
	"time"

	"github.com/perdure/perdure/internal/vet/testdata/foreign/flow"
)

// Workflow makes two mistakes.
func Workflow(ctx flow.Context, amounts map[string]int) {
	_ = time.Now()              // want `clock: time.Now`
	for name := range amounts { // want `maprange: steps`
		flow.Step(ctx, name)
	}
	flow.SideEffect(ctx, func() any { return time.Now() })
}
