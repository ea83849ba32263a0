package inprocess

import (
	"runtime"

	"google.golang.org/protobuf/proto"

	"github.com/perdure/perdure/actor"
	"github.com/perdure/perdure/internal/invoker"
	"github.com/perdure/perdure/internal/journal"
	recordv1 "github.com/perdure/perdure/internal/record/v1"
	"github.com/perdure/perdure/internal/stress"
)

// partsAhead is how many parts of a value are on their way to the disk: what a large value takes
// beside itself, and how long it may keep other objects of the partition waiting.
var partsAhead = stress.Few[uint32](4, 1)

// complete records what a closure returned, in parts if it is larger than a record, unless the attempt
// is stopped before all of it was. Any goroutine may call it.
func (d *durable) complete(c *closure, result *recordv1.Result) {
	attempt, completion := d.attempt, &recordv1.Completion{Entry: c.index, Result: result}
	value := result.GetValue()
	switch {
	case attempt.EntryBytes == 0 || result.GetError() != nil || proto.Size(result) <= attempt.EntryBytes:
		attempt.Host.Complete(attempt, c.index, result)
		value = nil
	case len(value) > attempt.ResultBytes:
		err := actor.Errorf(actor.ResourceExhausted,
			"Run %q of %s returned %d bytes, more than the %d that a result may have: keep the value elsewhere and return where it is", c.name, attempt.Target, len(value), attempt.ResultBytes)
		d.stop(err, &invoker.Outcome{Result: errorResult(errorRecord(err)), Entry: c.index})
		return
	default:
		for number, part := range journal.Split(value) {
			if number%partsAhead == 0 && number > 0 && !d.gate() {
				return
			}
			d.steps.Add(1)
			attempt.Host.Part(attempt, c.index, number, part)
		}
		completion.Result, completion.Parts = nil, journal.PartsOf(value)
		attempt.Host.CompleteParts(attempt, c.index, completion.Parts)
	}
	// After the host: the handler may record at once that this future won.
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.completeLocked(c.index, completion); value != nil {
		if d.mu.large == nil {
			d.mu.large = map[uint32][]byte{}
		}
		d.mu.large[c.index] = value
		d.held.Add(int64(len(value)))
	}
}

// large is a value in parts. The attempt lets go of it, since the handler has it now: asked again, it is
// read again.
func (d *durable) large(completion *recordv1.Completion) []byte {
	index := completion.GetEntry()
	d.mu.Lock()
	value, own := d.mu.large[index], d.mu.own
	delete(d.mu.large, index)
	d.mu.Unlock()
	if value != nil {
		d.held.Add(-int64(len(value)))
		return value
	}
	if own && !d.gate() { // as in shed
		runtime.Goexit()
	}
	value, err := journal.Join(completion.GetParts(), func(first uint32) ([][]byte, error) {
		d.steps.Add(1) // Reading is progress.
		d.unwindIfStopped()
		parts, err := d.journal().Parts(index, first)
		if err != nil {
			d.unread(err)
		}
		return parts, nil
	})
	if err != nil { // It is another value, and would be for another attempt.
		d.unwindIfStopped()
		damaged := actor.Errorf(actor.DataLoss, "the result of entry %d: %w", index, err)
		d.stop(damaged, &invoker.Outcome{Retry: errorRecord(damaged), Pause: true, Entry: index})
		runtime.Goexit()
	}
	return value
}
