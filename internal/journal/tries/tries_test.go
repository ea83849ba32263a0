package tries_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/perdure/perdure/internal/draft"
	"github.com/perdure/perdure/internal/draft/drafttest"
	"github.com/perdure/perdure/internal/invocation"
	"github.com/perdure/perdure/internal/journal/tries"
	recordv1 "github.com/perdure/perdure/internal/record/v1"
	"github.com/perdure/perdure/internal/table"
)

var id = invocation.ID{1}

// event is one event over the rows, which has what it left.
func event(t *testing.T, rows drafttest.Rows, do func(d *draft.Draft) error) {
	t.Helper()
	d := draft.New(rows)
	if err := do(&d); err != nil {
		t.Fatal(err)
	}
	for _, m := range d.Mutations() {
		if m.Delete {
			delete(rows, string(m.Key))
		} else {
			rows[string(m.Key)] = m.Value
		}
	}
}

// left are the rows, in order.
func left(rows drafttest.Rows) (keys []string) {
	for key := range rows {
		keys = append(keys, table.Describe([]byte(key)))
	}
	slices.Sort(keys)
	return keys
}

// TestPartsOfAnEarlierAttempt: an attempt writes three parts and is lost, the next one fails once and completes with
// two: the third goes, and nothing is left but what the value is made of.
func TestPartsOfAnEarlierAttempt(t *testing.T) {
	rows := drafttest.Rows{}
	var first tries.Open
	event(t, rows, func(d *draft.Draft) error {
		for number := range uint32(3) {
			if err := first.Part(d, id, 5, number, []byte("first")); err != nil {
				return err
			}
		}
		return nil
	})

	var second tries.Open
	event(t, rows, func(d *draft.Draft) error {
		open, all, err := tries.Load(d, id)
		if len(all) != 1 || all[5].GetParts() != 3 || all[5].GetFailed() != 0 {
			t.Errorf("loaded %v, not the three parts of entry 5", all)
		}
		second = open
		return err
	})
	failed := &recordv1.RunTries{Failed: 1, NextAt: 7}
	event(t, rows, func(d *draft.Draft) error { return second.Failed(d, id, 5, failed) })
	if failed.Parts != 0 {
		t.Error("what the attempt holds was changed")
	}
	event(t, rows, func(d *draft.Draft) error {
		_, all, err := tries.Load(d, id)
		if all[5].GetParts() != 3 || all[5].GetFailed() != 1 {
			t.Errorf("after a failure there is %v, not one failure and three parts", all[5])
		}
		return err
	})
	event(t, rows, func(d *draft.Draft) error { return second.Part(d, id, 5, 0, []byte("second")) })
	event(t, rows, func(d *draft.Draft) error { return second.Part(d, id, 5, 1, []byte("second")) })
	event(t, rows, func(d *draft.Draft) error {
		if open, err := second.Settle(d, id, 5, 4); err == nil || !open {
			t.Errorf("four parts of three settle: %v, %v", open, err)
		}
		open, err := second.Settle(d, id, 5, 2)
		if !open {
			t.Error("there was nothing to settle")
		}
		return err
	})
	want := []string{table.Describe(table.Part(id, 5, 0)), table.Describe(table.Part(id, 5, 1))}
	if got := left(rows); !slices.Equal(got, want) {
		t.Errorf("left are %v, not %v", got, want)
	}
	if len(second) != 0 {
		t.Errorf("open is %v, after its only entry completed", second)
	}
}

// TestMoreThanAnEventRemoves: more parts than an event should remove stay, and the row that counts them.
func TestMoreThanAnEventRemoves(t *testing.T) {
	const parts = 1100
	rows := drafttest.Rows{}
	var open tries.Open
	event(t, rows, func(d *draft.Draft) error {
		for number := range uint32(parts) {
			if err := open.Part(d, id, 5, number, []byte("p")); err != nil {
				return err
			}
		}
		return nil
	})
	event(t, rows, func(d *draft.Draft) error { _, err := open.Settle(d, id, 5, 0); return err })
	if len(rows) != parts+1 || rows[string(table.Tries(id, 5))] == nil {
		t.Errorf("%d rows are left, not all %d parts and what counts them", len(rows), parts)
	}
}

// TestUnreadable: an error names the row.
func TestUnreadable(t *testing.T) {
	key := table.Tries(id, 5)
	d := draft.New(drafttest.Rows{string(key): []byte("no message")})
	if _, _, err := tries.Load(&d, id); err == nil {
		t.Error("a damaged row was read")
	} else if want := fmt.Sprintf("%q", key); !strings.Contains(err.Error(), want) {
		t.Errorf("%v does not name row %s", err, want)
	}
}
