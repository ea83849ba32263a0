// Package inbox counts the signals of a workflow that nobody has received, bounds them, and lets them
// go if the workflow does not run. It is pure.
package inbox

import (
	"cmp"

	"github.com/perdure/perdure/internal/draft"
	"github.com/perdure/perdure/internal/invocation"
	recordv1 "github.com/perdure/perdure/internal/record/v1"
	"github.com/perdure/perdure/internal/table"
)

// retention is how long signals are kept, since the newest came, if their workflow does not run: in
// milliseconds.
const retention = 7 * 24 * 60 * 60 * 1000

// slice is how many signals one event removes.
const slice = 2000

// Bounds are what the signals of one workflow may come to that nobody has received. 0 is 10,000 and
// 16 MiB.
type Bounds struct {
	Signals int
	Bytes   int
}

// WithDefaults are the bounds that count.
func (b Bounds) WithDefaults() Bounds {
	return Bounds{cmp.Or(b.Signals, 10_000), cmp.Or(b.Bytes, 16<<20)}
}

// ID is the id of what is kept of an object's signals, and of its timer.
func ID(o invocation.Object) invocation.ID {
	return invocation.DerivedID(invocation.Target{Service: o.Service, Key: o.Key}, "signals")
}

// Add counts a signal, whatever is there already, and reports whether it is one too many. If
// refusable, it is not counted then. A timer to arm is set unless it is zero.
func Add(d *draft.Draft, target invocation.Target, in *recordv1.Invoke, bounds Bounds, refusable bool, now int64) (full *recordv1.SignalInbox, timer table.Timer, err error) {
	id, row := ID(target.Object()), &recordv1.SignalInbox{}
	if _, err := d.GetMessage(table.Inbox(id), row); err != nil {
		return nil, timer, err
	}
	tooMany := int(row.Count) >= bounds.Signals || row.Bytes+uint64(len(in.Input)) > uint64(bounds.Bytes)
	if refusable && row.Count > 0 && tooMany {
		return row, timer, nil
	}
	row.Count++
	row.Bytes += uint64(len(in.Input))
	row.KeepUntil = max(row.KeepUntil, now+max(in.RetentionMs, retention))
	if row.TimerAt == 0 {
		row.Object = &recordv1.Target{Service: target.Service, Key: target.Key}
		row.TimerAt = row.KeepUntil
		timer = timerOf(id, row)
	}
	return nil, timer, d.PutMessage(table.Inbox(id), row)
}

// Remove counts a signal that was received and had so many bytes.
func Remove(d *draft.Draft, o invocation.Object, bytes int) error {
	id, row := ID(o), &recordv1.SignalInbox{}
	has, err := d.GetMessage(table.Inbox(id), row)
	if err != nil || !has { // It was sent before signals were counted.
		return err
	}
	if row.Count <= 1 {
		remove(d, id, row)
		return nil
	}
	row.Count--
	row.Bytes -= min(row.Bytes, uint64(bytes))
	return d.PutMessage(table.Inbox(id), row)
}

// Forget removes the count of an object's signals, which are gone.
func Forget(d *draft.Draft, o invocation.Object) error {
	id, row := ID(o), &recordv1.SignalInbox{}
	has, err := d.GetMessage(table.Inbox(id), row)
	if has {
		remove(d, id, row)
	}
	return err
}

// Expire is what the timer of an object's signals does: it removes them, some at a time, unless
// newer ones have come or the object runs, of which it asks. A timer to arm is set unless it is zero.
func Expire(d *draft.Draft, id invocation.ID, runs func(invocation.Object) (bool, error), now int64) (timer table.Timer, err error) {
	row := &recordv1.SignalInbox{}
	has, err := d.GetMessage(table.Inbox(id), row)
	if err != nil || !has {
		return timer, err
	}
	o := invocation.Object{Service: row.GetObject().GetService(), Key: row.GetObject().GetKey()}
	running, err := runs(o)
	switch {
	case err != nil:
		return timer, err
	case running: // It may receive them. If not, they go when it is purged.
		row.TimerAt = 0
		return timer, d.PutMessage(table.Inbox(id), row)
	case now < row.KeepUntil:
		row.TimerAt = row.KeepUntil
	default:
		prefix := table.SignalsOfObject(o)
		deleted, err := d.DeleteRange(prefix, table.Successor(prefix), slice)
		if err != nil {
			return timer, err
		}
		if deleted < slice {
			remove(d, id, row)
			return timer, nil
		}
		row.TimerAt = now
	}
	return timerOf(id, row), d.PutMessage(table.Inbox(id), row)
}

func timerOf(id invocation.ID, row *recordv1.SignalInbox) table.Timer {
	return table.Timer{At: row.TimerAt, Kind: table.TimerInbox, ID: id}
}

func remove(d *draft.Draft, id invocation.ID, row *recordv1.SignalInbox) {
	d.Delete(table.Inbox(id))
	if row.TimerAt != 0 {
		d.Delete(timerOf(id, row).Key())
	}
}
