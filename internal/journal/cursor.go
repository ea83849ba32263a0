// Package journal matches the steps that a handler makes with the entries recorded by its earlier
// attempts, and says how they differ when they do. It is pure: it reads no clock, starts nothing
// and changes no entry.
package journal

import (
	"bytes"
	"slices"

	"google.golang.org/protobuf/proto"

	recordv1 "github.com/perdure/perdure/internal/record/v1"
)

// Cursor is a place in a journal.
type Cursor struct {
	// entries are the part at hand: entry before+i+1 is entries[i].
	entries []*recordv1.Entry
	before  uint32
	// last is the index of the journal's last entry when the attempt began.
	last   uint32
	passed uint32
	// more reads the part from an entry on; nil if all is at hand.
	more func(index uint32) []*recordv1.Entry
}

// NewCursor is at the start of entries, which it keeps.
func NewCursor(entries []*recordv1.Entry) Cursor { return CursorFrom(0, entries) }

// CursorFrom is NewCursor for a journal whose first entry has the index start+1.
func CursorFrom(start uint32, entries []*recordv1.Entry) Cursor {
	return Cursor{entries: entries, before: start, passed: start, last: start + uint32(len(entries))}
}

// Streamed is CursorFrom for a journal that ends with the entry last and of which entries are the
// beginning. more returns the entries from an index on, at least one; if it can't, it does not
// return. The cursor holds no more than what it was given last.
func Streamed(start uint32, entries []*recordv1.Entry, last uint32, more func(index uint32) []*recordv1.Entry) Cursor {
	return Cursor{entries: entries, before: start, passed: start, last: last, more: more}
}

// Replaying reports whether recorded entries are ahead.
func (c *Cursor) Replaying() bool { return c.passed < c.last }

// Next is the recorded entry ahead, nil at the end.
func (c *Cursor) Next() *recordv1.Entry { return c.after(0) }

// after is the recorded entry behind so many that are ahead, nil if the journal ends before it.
func (c *Cursor) after(others uint32) *recordv1.Entry {
	if c.passed >= c.last || others >= c.last-c.passed {
		return nil
	}
	at := int(c.passed - c.before + others)
	for at >= len(c.entries) {
		// What was passed goes, so that there are not two parts at once.
		passed := min(int(c.passed-c.before), len(c.entries))
		left := c.entries[passed:]
		c.entries = nil
		c.before += uint32(passed)
		at -= passed
		next := c.more(c.before + uint32(len(left)) + 1)
		if len(left) > 0 {
			next = slices.Concat(left, next)
		}
		c.entries = next
	}
	return c.entries[at]
}

// Ahead is the recorded entry ahead that is not of a Version, nil if there is none: the code may no
// longer ask for a Version that an earlier attempt recorded.
func (c *Cursor) Ahead() *recordv1.Entry {
	for others := uint32(0); ; others++ {
		if entry := c.after(others); entry.GetVersion() == nil {
			return entry
		}
	}
}

// VersionAhead is how many Version entries are to be passed to be behind the one of that change, 0
// if it is not among those that come next.
func (c *Cursor) VersionAhead(change string) int {
	for others := uint32(0); ; others++ {
		version := c.after(others).GetVersion()
		if version == nil {
			return 0
		}
		if version.GetChange() == change {
			return int(others) + 1
		}
	}
}

// Passed is the index of the last entry that was passed, 0 at the start.
func (c *Cursor) Passed() uint32 { return c.passed }

// Pass goes past the entry ahead, or past the one that the caller records at the end, and returns
// its index.
func (c *Cursor) Pass() uint32 {
	c.passed++
	return c.passed
}

// SameValue reports whether two encoded messages are equal as messages: two versions of a program
// may encode one message differently.
type SameValue func(recorded, made []byte) bool

// Match compares the entry ahead with the step that the handler makes. It returns nil if they are
// the same step, or if nothing is ahead. What depends on the clock is not compared: the recorded
// instants count. Same may be nil for bytes that must be equal.
func (c *Cursor) Match(made *recordv1.Entry, same SameValue) *Divergence {
	recorded := c.Next()
	if recorded == nil {
		return nil
	}
	if same == nil {
		same = bytes.Equal
	}
	difference := compare(recorded, made, same)
	if difference == "" {
		return nil
	}
	return &Divergence{Index: c.passed + 1, Recorded: recorded, Made: made, Difference: difference}
}

// compare says in which respect the two differ, "" if in none.
func compare(recorded, made *recordv1.Entry, same SameValue) string {
	if recorded == nil || made == nil {
		return "one is missing"
	}
	different := func(what string, is bool) string {
		if is {
			return what
		}
		return ""
	}
	switch now := made.GetEntry().(type) {
	case *recordv1.Entry_Call:
		if was := recorded.GetCall(); was != nil {
			return compareInvoke(was.GetInvoke(), now.Call.GetInvoke(), same)
		}
	case *recordv1.Entry_Send:
		if was := recorded.GetSend(); was != nil {
			return compareInvoke(was.GetInvoke(), now.Send.GetInvoke(), same)
		}
	case *recordv1.Entry_Run:
		if was := recorded.GetRun(); was != nil {
			return different("the name", was.GetName() != now.Run.GetName())
		}
	case *recordv1.Entry_Sleep:
		if recorded.GetSleep() != nil {
			return ""
		}
	case *recordv1.Entry_SetState:
		if was := recorded.GetSetState(); was != nil {
			return different("the value", was.GetClear() != now.SetState.GetClear() || !was.GetClear() && !sameBytes(was.GetValue(), now.SetState.GetValue(), same))
		}
	case *recordv1.Entry_TablePut:
		if was := recorded.GetTablePut(); was != nil {
			put := now.TablePut
			if was.GetTable() != put.GetTable() || was.GetKey() != put.GetKey() {
				return "the row"
			}
			return different("the value", was.GetDelete() != put.GetDelete() || !was.GetDelete() && !sameBytes(was.GetValue(), put.GetValue(), same))
		}
	case *recordv1.Entry_Awakeable:
		if recorded.GetAwakeable() != nil {
			return ""
		}
	case *recordv1.Entry_AwaitPromise:
		if was := recorded.GetAwaitPromise(); was != nil {
			return different("the name", was.GetName() != now.AwaitPromise.GetName())
		}
	case *recordv1.Entry_CompletePromise:
		if was := recorded.GetCompletePromise(); was != nil {
			return different("the name", was.GetName() != now.CompletePromise.GetName())
		}
	case *recordv1.Entry_Receive:
		if was := recorded.GetReceive(); was != nil {
			return different("the name", was.GetName() != now.Receive.GetName())
		}
	case *recordv1.Entry_CompleteAwakeable:
		if was := recorded.GetCompleteAwakeable(); was != nil {
			return different("the id", was.GetAwakeableId() != now.CompleteAwakeable.GetAwakeableId())
		}
	case *recordv1.Entry_Wait:
		if was := recorded.GetWait(); was != nil {
			return different("what is waited for", !slices.Equal(was.GetFutures(), now.Wait.GetFutures()) || !proto.Equal(was.GetCondition(), now.Wait.GetCondition()))
		}
	case *recordv1.Entry_CancelInvocation:
		if was := recorded.GetCancelInvocation(); was != nil {
			return different("the id", !bytes.Equal(was.GetInvocationId(), now.CancelInvocation.GetInvocationId()))
		}
	case *recordv1.Entry_Version:
		if was := recorded.GetVersion(); was != nil {
			return different("the change", was.GetChange() != now.Version.GetChange())
		}
	case *recordv1.Entry_Attach:
		if was := recorded.GetAttach(); was != nil {
			if was.GetPeek() != now.Attach.GetPeek() {
				return "the kind of step"
			}
			return different("the id", !bytes.Equal(was.GetInvocationId(), now.Attach.GetInvocationId()))
		}
	case *recordv1.Entry_StopTimer:
		if was := recorded.GetStopTimer(); was != nil {
			return different("the timer", was.GetEntry() != now.StopTimer.GetEntry())
		}
	}
	return "the kind of step"
}

func compareInvoke(was, now *recordv1.Invoke, same SameValue) string {
	before, after := was.GetTarget(), now.GetTarget()
	switch {
	case before.GetService() != after.GetService() || before.GetHandler() != after.GetHandler():
		return "the handler"
	case before.GetKey() != after.GetKey():
		return "the key"
	case was.GetIdempotencyKey() != now.GetIdempotencyKey():
		return "the idempotency key"
	case (was.GetDueAt() != 0) != (now.GetDueAt() != 0):
		return "the delay"
	case !sameBytes(was.GetInput(), now.GetInput(), same):
		return "the request"
	}
	return ""
}

func sameBytes(recorded, made []byte, same SameValue) bool {
	return bytes.Equal(recorded, made) || same(recorded, made)
}
