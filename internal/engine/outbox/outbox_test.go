package outbox_test

import (
	"slices"
	"testing"

	"github.com/perdure/perdure/internal/draft"
	"github.com/perdure/perdure/internal/draft/drafttest"
	"github.com/perdure/perdure/internal/engine/outbox"
	recordv1 "github.com/perdure/perdure/internal/record/v1"
	"github.com/perdure/perdure/internal/table"
)

// partition has the rows of one, which outlive its leaders.
type partition struct {
	t    *testing.T
	rows drafttest.Rows
	d    draft.Draft
	*outbox.Outbox
}

func newPartition(t *testing.T) *partition {
	p := &partition{t: t, rows: drafttest.Rows{}}
	p.lead()
	return p
}

// lead is the next leader, which knows the rows alone.
func (p *partition) lead() {
	p.d = draft.New(p.rows)
	p.Outbox = outbox.New(&p.d)
}

// write ends an event.
func (p *partition) write() {
	for _, m := range p.d.Mutations() {
		if m.Delete {
			delete(p.rows, string(m.Key))
		} else {
			p.rows[string(m.Key)] = m.Value
		}
	}
	p.d.Reset()
}

func (p *partition) add(to uint32) uint64 {
	p.t.Helper()
	sequence, err := p.Add(to, &recordv1.Message{Message: &recordv1.Message_Cancel{Cancel: &recordv1.Cancel{}}})
	if err != nil {
		p.t.Fatal(err)
	}
	return sequence
}

// kept are the numbers of what is kept for a partition.
func (p *partition) kept(to uint32) (sequences []uint64) {
	p.t.Helper()
	err := outbox.Scan(p.rows, func(partition uint32, sequence uint64, _ *recordv1.Message) {
		if partition == to {
			sequences = append(sequences, sequence)
		}
	}, func(damaged error) { p.t.Error(damaged) })
	if err != nil {
		p.t.Fatal(err)
	}
	return sequences
}

// TestNumbers: each partition's messages are numbered without gaps, over leaderships and over events of which nothing
// was written, and kept until that has made them durable.
func TestNumbers(t *testing.T) {
	p := newPartition(t)
	if a, b, c := p.add(2), p.add(2), p.add(3); a != 1 || b != 2 || c != 1 || p.Newest(2) != 2 {
		t.Errorf("the first messages are %d, %d to partition 2 and %d to 3", a, b, c)
	}
	p.write()
	p.add(2)
	p.d.Reset() // That event has failed.
	p.Undo()
	if got := p.add(2); got != 3 {
		t.Errorf("after an event that failed comes message %d, not 3", got)
	}
	p.write()
	p.lead()
	if got := p.add(2); got != 4 {
		t.Errorf("under the next leader comes message %d, not 4", got)
	}
	p.write()
	for _, acked := range []uint64{2, 1, 3} { // 1 is late
		if err := p.Acked(2, acked); err != nil {
			t.Fatal(err)
		}
		p.write()
	}
	if got := p.kept(2); !slices.Equal(got, []uint64{4}) {
		t.Errorf("kept for partition 2 are %v, not 4 alone", got)
	}
	if got := p.kept(3); !slices.Equal(got, []uint64{1}) {
		t.Errorf("kept for partition 3 are %v, not 1 alone", got)
	}
	p.rows[string(table.Outbox(3, 2))] = []byte("no message")
	damaged := 0
	if err := outbox.Scan(p.rows, func(uint32, uint64, *recordv1.Message) {}, func(error) { damaged++ }); err != nil || damaged != 1 {
		t.Errorf("%v, and %d rows that can't be read, of 1", err, damaged)
	}
}

// TestTakesOnce: what comes doubled or too early is not taken, and what was taken is acknowledged.
func TestTakesOnce(t *testing.T) {
	p := newPartition(t)
	for i, step := range []struct {
		sequence uint64
		take     bool
		ack      uint64
	}{{2, false, 0}, {1, true, 1}, {1, false, 1}, {2, true, 2}, {4, false, 0}, {1, false, 2}, {3, true, 3}} {
		take, ack, err := p.Take(2, step.sequence)
		if err != nil || take != step.take || ack != step.ack {
			t.Errorf("step %d, message %d: %v, acknowledged up to %d, %v; want %v", i, step.sequence, take, ack, err, step)
		}
		p.write()
		p.lead()
	}
}

// TestWatched: who waits hears once all have made durable what was watched.
func TestWatched(t *testing.T) {
	p := newPartition(t)
	p.Watch(3, 5)
	p.Watch(2, 7)
	p.Watch(2, 6) // is older
	if got := p.Watched(); !slices.Equal(got, []uint32{2, 3}) {
		t.Errorf("watched are %v", got)
	}
	for i, seen := range []struct {
		by       uint32
		sequence uint64
		all      bool
	}{{2, 6, false}, {4, 9, false}, {2, 7, false}, {3, 5, true}, {3, 6, false}} {
		if all := p.Seen(seen.by, seen.sequence); all != seen.all {
			t.Errorf("step %d: all is %v, not %v", i, all, seen.all)
		}
	}
}
