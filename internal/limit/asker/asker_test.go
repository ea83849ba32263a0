package asker_test

import (
	"fmt"
	"slices"
	"testing"

	"github.com/cespare/xxhash/v2"

	"github.com/perdure/perdure/internal/draft"
	"github.com/perdure/perdure/internal/draft/drafttest"
	"github.com/perdure/perdure/internal/invocation"
	"github.com/perdure/perdure/internal/limit/asker"
	"github.com/perdure/perdure/internal/limit/owner"
	recordv1 "github.com/perdure/perdure/internal/record/v1"
	"github.com/perdure/perdure/internal/table"
)

// desk is partition 1 of 4, with limits of its own. It notes what is sent and answered.
type desk struct {
	asker.Asker
	draft    draft.Draft
	sequence uint64
	sent     []string
	answers  []*recordv1.Permit
}

func newDesk() *desk {
	d := &desk{draft: draft.New(drafttest.Rows{})}
	d.Asker = asker.New(d, owner.New(d, &d.draft, 1), 1, 4)
	return d
}

func (d *desk) Touch()                {}
func (d *desk) Sequence() uint64      { d.sequence++; return d.sequence }
func (d *desk) Arm(table.Timer)       {}
func (d *desk) Granted(string, int64) {}
func (d *desk) Refused(string)        {}
func (d *desk) Answer(_ uint32, p *recordv1.Permit) error {
	d.answers = append(d.answers, p)
	return nil
}
func (d *desk) Send(to uint32, m *recordv1.Message) error {
	switch m := m.Message.(type) {
	case *recordv1.Message_Acquire:
		d.sent = append(d.sent, fmt.Sprintf("%d: acquire %s", to, m.Acquire.Limit.Name))
	case *recordv1.Message_Release:
		d.sent = append(d.sent, fmt.Sprintf("%d: release %s", to, m.Release.Limit.Name))
	}
	return nil
}

func idOf(n byte) invocation.ID { return invocation.NewID(0, [16]byte{n, 1}) }

func ask(t *testing.T, d *desk, f *recordv1.Flow, n byte) (all bool, answer *recordv1.Permit) {
	t.Helper()
	all, answer, err := d.Ask(f, asker.Invocation{ID: idOf(n), CreatedAt: 1}, 1)
	if err != nil {
		t.Fatal(err)
	}
	return all, answer
}

// elsewhere is the name of a limit that does not belong to partition 1, and where it belongs.
func elsewhere() (name string, partition uint32) {
	for n := 0; ; n++ {
		name = fmt.Sprint("limit ", n)
		if partition = invocation.PartitionOf(xxhash.Sum64String(name), 4); partition != 1 {
			return name, partition
		}
	}
}

// TestOneAfterTheOther: limits are asked in their order, here or elsewhere, and given back the other way round, but
// for what is kept until the invocation ends.
func TestOneAfterTheOther(t *testing.T) {
	d := newDesk()
	name, partition := elsewhere()
	f := asker.FlowOf(&recordv1.Flow{Limits: []*recordv1.Limit{
		{Name: "kept", Concurrency: 1, Local: true, UntilDone: true},
		{Name: "here", Concurrency: 1, Local: true},
		{Name: name, Concurrency: 1},
	}})
	if all, answer := ask(t, d, f, 1); all || answer != nil || f.Held != 2 || !asker.Waits(f) {
		t.Errorf("asked: %v, %v, %v; want two permits, and the wait for another partition's", all, answer, f)
	}
	if ask(t, d, f, 1); len(d.sent) != 1 {
		t.Errorf("asked again, it sent %v", d.sent)
	}
	if asker.Take(f, &recordv1.Permit{Number: f.Ask + 1, Permission: recordv1.Permission_PERMISSION_GRANTED}) || f.Held != 2 {
		t.Error("it took the answer to something else")
	}
	if !asker.Take(f, &recordv1.Permit{Number: f.Ask, Permission: recordv1.Permission_PERMISSION_GRANTED}) || f.Held != 3 || asker.Waits(f) {
		t.Errorf("it did not take its permit: %v", f)
	}
	if all, _ := ask(t, d, f, 1); !all {
		t.Error("it has not all, with three permits of three limits")
	}
	if err := d.GiveBack(f, idOf(1), false, 2); err != nil || f.Held != 1 {
		t.Errorf("it has given back (%v) and holds %d, not what is kept until it is done", err, f.Held)
	}
	if err := d.GiveBack(f, idOf(1), true, 2); err != nil || f.Held != 0 {
		t.Errorf("it has ended (%v) and holds %d", err, f.Held)
	}
	want := []string{fmt.Sprintf("%d: acquire %s", partition, name), fmt.Sprintf("%d: release %s", partition, name)}
	if !slices.Equal(d.sent, want) {
		t.Errorf("sent were %q, not %q", d.sent, want)
	}
}

// TestWaitsAndIsRefused: who finds the permits taken waits, who finds too many waiting is refused, and what is given
// back goes to who waits.
func TestWaitsAndIsRefused(t *testing.T) {
	d := newDesk()
	limited := &recordv1.Flow{Limits: []*recordv1.Limit{{Name: "one", Concurrency: 1, MaxQueue: 1, Local: true}}}
	first, second, third := asker.FlowOf(limited), asker.FlowOf(limited), asker.FlowOf(limited)
	if all, _ := ask(t, d, first, 1); !all {
		t.Error("the first has no permit")
	}
	if !d.MayBeRefused(second) {
		t.Error("nobody may be refused, with a bound for who waits")
	}
	if all, answer := ask(t, d, second, 2); all || answer.GetPermission() != recordv1.Permission_PERMISSION_WAITS || asker.WaitsUnheard(second) {
		t.Errorf("the second got %v, %v; want it to wait, and to hear so", all, answer)
	}
	all, answer := ask(t, d, third, 3)
	if all || answer.GetPermission() != recordv1.Permission_PERMISSION_REFUSED {
		t.Errorf("the third got %v, %v; want it refused", all, answer)
	}
	if !asker.Take(third, answer) || asker.Waits(third) || third.Held != 0 {
		t.Errorf("one that was refused has %v", third)
	}
	if err := d.GiveBack(first, idOf(1), false, 2); err != nil {
		t.Fatal(err)
	}
	if len(d.answers) != 1 || !asker.Take(second, d.answers[0]) || second.Held != 1 {
		t.Errorf("the second has %v, after %v", second, d.answers)
	}
}
