// Package outbox takes messages from partition to partition, each once and in order. Those to a partition are numbered
// without gaps and kept until it has made them durable; of those from a partition each number is taken once.
package outbox

import (
	"fmt"
	"maps"
	"slices"

	"google.golang.org/protobuf/proto"

	"github.com/perdure/perdure/internal/draft"
	recordv1 "github.com/perdure/perdure/internal/record/v1"
	"github.com/perdure/perdure/internal/table"
)

// slice is how many acknowledged messages one event removes.
const slice = 2000

// Outbox is one partition's. It belongs to its engine's goroutine.
type Outbox struct {
	rows *draft.Draft
	// last is the number of the newest message to each partition, once it was needed.
	last map[uint32]uint64
	// acked is the newest message that each partition has made durable, as far as this leader
	// knows: nothing is kept before it.
	acked map[uint32]uint64
	// watched is the message that each partition has to make durable, for those that have not.
	watched map[uint32]uint64
}

// New reads and writes rows through the draft of the event in progress.
func New(rows *draft.Draft) *Outbox {
	return &Outbox{rows: rows, last: map[uint32]uint64{}, acked: map[uint32]uint64{}, watched: map[uint32]uint64{}}
}

// Add keeps a message and says its number.
func (o *Outbox) Add(to uint32, message *recordv1.Message) (sequence uint64, err error) {
	last, ok := o.last[to]
	if !ok {
		if last, err = table.GetNumber(o.rows, table.Sequence(to)); err != nil {
			return 0, err
		}
	}
	last++
	o.last[to] = last
	o.rows.Put(table.Sequence(to), table.AppendNumber(nil, last))
	return last, o.rows.PutMessage(table.Outbox(to, last), message)
}

// Newest is the number of the message that was added last, in this leadership, for a partition.
func (o *Outbox) Newest(to uint32) uint64 { return o.last[to] }

// Undo is for an event of which nothing is written: numbers that it took would be gaps.
func (o *Outbox) Undo() { clear(o.last) }

// Take reports whether a message from another partition is to be acted on now, and up to which number that
// partition is told that its messages are durable here, once they are: 0 is nothing.
func (o *Outbox) Take(from uint32, sequence uint64) (take bool, ack uint64, err error) {
	key := table.Delivered(from)
	last, err := table.GetNumber(o.rows, key)
	switch {
	case err != nil:
		return false, 0, err
	case sequence <= last && !bugDedup:
		return false, last, nil // The ack was lost, or the sender does not know it yet.
	case sequence > last+1:
		return false, 0, nil // One before it is on its way again: taking this one now would lose that.
	}
	o.rows.Put(key, table.AppendNumber(nil, sequence))
	return true, sequence, nil
}

// Acked removes the messages up to a number, which a partition has made durable, some at a time.
func (o *Outbox) Acked(by uint32, sequence uint64) error {
	// From where the last one ended: deleted rows leave traces that a scan from the start
	// would pass again and again.
	deleted, err := o.rows.DeleteRange(table.Outbox(by, o.acked[by]+1), table.Outbox(by, sequence+1), slice)
	if err == nil && deleted < slice {
		o.acked[by] = max(o.acked[by], sequence)
	}
	return err
}

// Watch notes that somebody waits until a partition has made a message durable.
func (o *Outbox) Watch(to uint32, sequence uint64) {
	o.watched[to] = max(o.watched[to], sequence)
}

// Watched are the partitions that have not, in order.
func (o *Outbox) Watched() []uint32 { return slices.Sorted(maps.Keys(o.watched)) }

// Seen notes what a partition has made durable, and reports whether it was the last that was waited for.
func (o *Outbox) Seen(by uint32, sequence uint64) (all bool) {
	if last, ok := o.watched[by]; !ok || sequence < last {
		return false
	}
	delete(o.watched, by)
	return len(o.watched) == 0
}

// Scan calls each for the messages that a view keeps, and damaged for rows that can't be read.
func Scan(view draft.View, each func(to uint32, sequence uint64, message *recordv1.Message), damaged func(error)) error {
	lower, upper := table.OutboxAll()
	return view.Scan(lower, upper, func(key, value []byte) bool {
		message := &recordv1.Message{}
		to, sequence, err := table.ParseOutbox(key)
		if err == nil {
			err = proto.Unmarshal(value, message)
		}
		if err != nil {
			damaged(fmt.Errorf("row %s: %w", table.Describe(key), err))
			return true
		}
		each(to, sequence, message)
		return true
	})
}
