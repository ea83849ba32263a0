package engine

import (
	"testing"

	"github.com/perdure/perdure/internal/invocation"
	recordv1 "github.com/perdure/perdure/internal/record/v1"
	"github.com/perdure/perdure/internal/table"
)

// TestDamagedLimits: rows of a limit that can't be read are named, and the limit goes on with the
// settings of whoever asks next, and the permits that can be read.
func TestDamagedLimits(t *testing.T) {
	rows := mapView{}
	take := func(o *Output, err error) (started int) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range o.Mutations {
			if m.Delete {
				delete(rows, string(m.Key))
			} else {
				rows[string(m.Key)] = append([]byte{}, m.Value...)
			}
		}
		for _, effect := range o.Effects {
			if _, ok := effect.(*StartAttempt); ok {
				started++
			}
		}
		return started
	}
	idOf := func(n byte) invocation.ID { return invocation.NewID(0, [16]byte{n}) }
	invoke := func(n byte) *Invoke {
		id := idOf(n)
		return &Invoke{Token: Token(n), Invoke: &recordv1.Invoke{
			InvocationId: id[:], Target: &recordv1.Target{Service: "Svc", Handler: "H"}, Mode: uint32(invocation.ModeDurable),
			Flow: &recordv1.Flow{Limits: []*recordv1.Limit{{Name: "Svc/d", Concurrency: 1}}},
		}}
	}
	e := New(Config{Partition: 1, Partitions: 4}, rows, 1)
	if take(e.Evaluate(invoke(1), 1000)) != 1 || take(e.Evaluate(invoke(2), 1001)) != 0 || take(e.Evaluate(invoke(3), 1002)) != 0 {
		t.Fatal("not one of three began")
	}
	for key := range rows {
		name, _, _, _, err := table.ParseWait([]byte(key))
		switch {
		case key == string(table.Limit("Svc/d")):
			rows[key] = []byte{0xff}
		case err == nil && name == "Svc/d":
			rows[key] = []byte{0xff} // all that wait
		}
	}
	e = New(Config{Partition: 1, Partitions: 4}, rows, 2)
	recovered, err := e.Recover(2000)
	if err == nil && len(recovered.Damaged) != 3 {
		t.Errorf("%d rows are named: %v", len(recovered.Damaged), recovered.Damaged)
	}
	if take(recovered, err) != 1 {
		t.Error("the one with a permit does not run")
	}
	if take(e.Evaluate(invoke(4), 2001)) != 0 {
		t.Error("one more runs than the permits that can be read let")
	}
	if take(e.Evaluate(&Finish{ID: idOf(1), Attempt: 2, Result: &recordv1.Result{}}, 2002)) != 1 {
		t.Error("the limit does not go on")
	}
	if take(e.Evaluate(&Cancel{ID: idOf(2)}, 2003)) != 0 || rows[string(table.Invocation(idOf(2)))] != nil {
		t.Error("one whose row is damaged can't be cancelled")
	}
}
