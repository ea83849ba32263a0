//go:build unix

package chaos

import (
	"fmt"
	"math"
	"sync"
	"testing"
	"time"

	"github.com/anishathalye/porcupine"
)

// operation is a call to a counter; the amount of every Add is 1.
type operation struct {
	key string
	add bool
}

// unanswered is the output of an Add that may have happened or not.
const unanswered = int64(-1)

// counterHistory is what callers saw.
type counterHistory struct {
	began time.Time
	mu    struct {
		sync.Mutex
		operations []porcupine.Operation
	}
}

func (h *counterHistory) now() int64 { return int64(time.Since(h.began)) }

// record notes a call that began at called. An Add without an answer may take effect at any
// time later, or never, which is the same as after everything else.
func (h *counterHistory) record(client int, op operation, called, value int64) {
	returned := h.now()
	if value == unanswered {
		returned = math.MaxInt64
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	h.mu.operations = append(h.mu.operations, porcupine.Operation{
		ClientId: client, Input: op, Call: called, Output: value, Return: returned,
	})
}

// counterModel is a counter per key, linearizable.
var counterModel = porcupine.Model{
	Partition: func(history []porcupine.Operation) [][]porcupine.Operation {
		byKey := map[string][]porcupine.Operation{}
		for _, op := range history {
			key := op.Input.(operation).key
			byKey[key] = append(byKey[key], op)
		}
		parts := make([][]porcupine.Operation, 0, len(byKey))
		for _, part := range byKey {
			parts = append(parts, part)
		}
		return parts
	},
	Init: func() any { return int64(0) },
	Step: func(state, input, output any) (bool, any) {
		value, got := state.(int64), output.(int64)
		if input.(operation).add {
			value++
		}
		return got == unanswered || got == value, value
	},
	DescribeOperation: func(input, output any) string {
		op := input.(operation)
		return fmt.Sprintf("%s add=%t: %d", op.key, op.add, output)
	},
}

// check proves the history: linearizable, and each Add counted once. final is each key's value
// after all calls had ended.
func (h *counterHistory) check(t *testing.T, final map[string]int64) {
	t.Helper()
	h.mu.Lock()
	defer h.mu.Unlock()
	type tally struct {
		seen           map[int64]int
		acknowledged   int64
		withoutAnswers int64
	}
	tallies := map[string]*tally{}
	for _, op := range h.mu.operations {
		in, value := op.Input.(operation), op.Output.(int64)
		c := tallies[in.key]
		if c == nil {
			c = &tally{seen: map[int64]int{}}
			tallies[in.key] = c
		}
		switch {
		case !in.add:
		case value == unanswered:
			c.withoutAnswers++
		default:
			c.acknowledged++
			c.seen[value]++
			if c.seen[value] == 2 {
				t.Errorf("%s: two Adds were told that they made it %d", in.key, value)
			}
		}
	}
	for key, c := range tallies {
		value := final[key]
		if value < c.acknowledged || value > c.acknowledged+c.withoutAnswers {
			t.Errorf("%s is %d in the end; %d Adds were acknowledged and %d got no answer", key, value, c.acknowledged, c.withoutAnswers)
		}
	}
	if result := porcupine.CheckOperationsTimeout(counterModel, h.mu.operations, 2*time.Minute); result != porcupine.Ok {
		t.Errorf("the history of %d calls is not linearizable: %s", len(h.mu.operations), result)
	}
}
