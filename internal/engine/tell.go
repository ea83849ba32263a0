package engine

import (
	"google.golang.org/protobuf/proto"

	"github.com/perdure/perdure/internal/invocation"
	recordv1 "github.com/perdure/perdure/internal/record/v1"
	"github.com/perdure/perdure/internal/table"
)

// A result goes to everybody who waits for it, and each of them is given all of it. What does not
// fit the record of the event is left to timers, one record's worth after the other.

const (
	// tellEvery is how many milliseconds pass between records' worths, so that other events come
	// between them.
	tellEvery = 50
	// tellBytes is what promises tell in that time.
	tellBytes = 512 << 10
)

// crowds reports whether another copy of a result, and the row that keeps it, are more than the record of the
// event in progress has room for, which is two steps.
func (e *Engine) crowds(result, row int) bool {
	writes, bytes := e.draft.Size()
	return bytes+result+row > 2*e.config.MaxWriteBytes || writes > e.config.MaxWrites
}

// tellWaiting gives an invocation's result to those who wait for it, and keeps who has to wait longer.
func (e *Engine) tellWaiting(l *live, waiting []*recordv1.Caller, now int64) error {
	l.row.Waiters = nil
	size := proto.Size(l.row.Result)
	for i, caller := range waiting {
		if i > 0 && e.crowds(size, size+64*len(waiting)) {
			l.row.Waiters = waiting[i:]
			e.armTimer(table.Timer{At: now + tellEvery, Kind: table.TimerTell, ID: l.id})
			break
		}
		if err := e.completeCaller(caller, l.id[:], l.row.Result, now); err != nil {
			return err
		}
	}
	return nil
}

// tellMore goes on where tellWaiting or tellPromise left off.
func (e *Engine) tellMore(l *live, entry uint32, now int64) error {
	if !completed(l.row.Status) {
		waits := &recordv1.Entry{}
		if ok, err := e.getMessage(table.Journal(l.id, entry), waits); err != nil || !ok || waits.GetAwaitPromise() == nil {
			return err
		}
		return e.awaitPromise(l, entry, waits.GetAwaitPromise(), now)
	}
	if len(l.row.Waiters) == 0 {
		return nil
	}
	if err := e.tellWaiting(l, l.row.Waiters, now); err != nil {
		return err
	}
	if len(l.row.Waiters) == 0 && l.row.RetentionMs <= 0 {
		return e.keep(l, now)
	}
	return e.putEnded(l)
}

// tellPromise gives a promise's result to the entries that wait for it.
func (e *Engine) tellPromise(waiting []*recordv1.Caller, result *recordv1.Result, now int64) error {
	size, left := proto.Size(result), 0
	for _, caller := range waiting {
		id, ok := invocation.IDFromBytes(caller.GetInvocationId())
		if ok && e.crowds(size, 0) {
			e.armTimer(table.Timer{At: now + tellEvery + int64(left/tellBytes)*tellEvery, Kind: table.TimerTell, ID: id, Entry: caller.GetEntry()})
			left += size
			continue
		}
		if err := e.completeCaller(caller, nil, result, now); err != nil {
			return err
		}
	}
	return nil
}
