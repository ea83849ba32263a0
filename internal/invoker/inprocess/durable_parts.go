package inprocess

import (
	"google.golang.org/protobuf/proto"

	"github.com/perdure/perdure/actor"
	"github.com/perdure/perdure/internal/invoker"
	"github.com/perdure/perdure/internal/journal"
	recordv1 "github.com/perdure/perdure/internal/record/v1"
)

// partsAhead is how many parts of a value are on their way to the disk: what a large value takes
// beside itself, and how long it may keep other objects of the partition waiting.
const partsAhead = 4

// complete records what a closure returned, in parts if it is larger than a record. It reports false
// if the attempt was stopped before all of it was recorded. Any goroutine may call it.
func (d *durable) complete(c *closure, result *recordv1.Result) bool {
	attempt := d.attempt
	if attempt.EntryBytes == 0 || result.GetError() != nil || proto.Size(result) <= attempt.EntryBytes {
		attempt.Host.Complete(attempt, c.index, result)
		return true
	}
	if size := len(result.GetValue()); size > attempt.ResultBytes {
		err := actor.Errorf(actor.ResourceExhausted,
			"Run %q of %s returned %d bytes, more than the %d that a result may have: keep the value elsewhere and return where it is", c.name, attempt.Target, size, attempt.ResultBytes)
		d.stop(err, &invoker.Outcome{Result: errorResult(errorRecord(err)), Entry: c.index})
		return false
	}
	for number, part := range journal.Split(result.GetValue()) {
		if number%partsAhead == 0 && number > 0 && !d.gate() {
			return false
		}
		d.steps.Add(1)
		attempt.Host.Part(attempt, c.index, number, part)
	}
	attempt.Host.CompleteParts(attempt, c.index, journal.PartsOf(result.GetValue()))
	return true
}
