package early_test

import (
	"testing"

	"github.com/perdure/perdure/internal/engine"
	"github.com/perdure/perdure/internal/partition/early"
	recordv1 "github.com/perdure/perdure/internal/record/v1"
)

func TestQueue(t *testing.T) {
	var q early.Queue
	for i := range uint64(3) {
		q.Keep(7, &engine.Acked{By: 2, Sequence: i})
	}
	q.Keep(7, &engine.Invoke{Token: 1})
	if got := q.Take(7); len(got) != 3 || got[2].(*engine.Acked).Sequence != 2 {
		t.Errorf("took %v", got)
	}
	if got := q.Take(7); got != nil {
		t.Errorf("took %v again", got)
	}
	q.Keep(7, &engine.Acked{})
	q.Keep(8, &engine.Acked{Sequence: 8})
	if got := q.Take(7); got != nil {
		t.Errorf("took %v for a term that is over", got)
	}
	for range 5000 {
		q.Keep(9, &engine.Acked{})
	}
	if got := q.Take(9); len(got) != 4096 {
		t.Errorf("kept %d events", len(got))
	}
	large := &engine.Deliver{Message: &recordv1.Message{Message: &recordv1.Message_Invoke{Invoke: &recordv1.Invoke{Input: make([]byte, 3<<20)}}}}
	q.Keep(9, large)
	q.Keep(9, large)
	q.Keep(9, &engine.Acked{})
	if got := q.Take(9); len(got) != 2 {
		t.Errorf("kept %d events of 3 MiB, 3 MiB and none", len(got))
	}
}
