// Package journal matches the steps that a handler makes with the entries recorded by its earlier
// attempts, and says how they differ when they do. It is pure: it reads no clock, starts nothing
// and changes no entry.
package journal

import (
	"bytes"
	"fmt"
	"slices"

	recordv1 "github.com/perdure/perdure/internal/record/v1"
)

// Cursor is a place in a journal. Entry start+i+1 is at position i.
type Cursor struct {
	entries []*recordv1.Entry
	start   uint32
	passed  uint32
}

// NewCursor is at the start of entries, which it keeps.
func NewCursor(entries []*recordv1.Entry) Cursor { return Cursor{entries: entries} }

// CursorFrom is NewCursor for a journal whose first entry has the index start+1.
func CursorFrom(start uint32, entries []*recordv1.Entry) Cursor {
	return Cursor{entries: entries, start: start, passed: start}
}

// Replaying reports whether recorded entries are ahead.
func (c *Cursor) Replaying() bool { return int(c.passed-c.start) < len(c.entries) }

// Next is the recorded entry ahead, nil at the end.
func (c *Cursor) Next() *recordv1.Entry {
	if !c.Replaying() {
		return nil
	}
	return c.entries[c.passed-c.start]
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
			return different("what is waited for", !slices.Equal(was.GetFutures(), now.Wait.GetFutures()))
		}
	case *recordv1.Entry_CancelInvocation:
		if was := recorded.GetCancelInvocation(); was != nil {
			return different("the id", !bytes.Equal(was.GetInvocationId(), now.CancelInvocation.GetInvocationId()))
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

// Divergence is a handler that does not make the steps its journal has: it was changed while the
// invocation ran, or depends on something that is not recorded.
type Divergence struct {
	// Index of the entry.
	Index uint32
	// Recorded is what the journal has, nil if it has ended.
	Recorded *recordv1.Entry
	// Made is what the code does, nil if it ended.
	Made *recordv1.Entry
	// Difference names what is not the same.
	Difference string
}

// Error has both call sites.
func (d *Divergence) Error() string {
	return fmt.Sprintf("journal entry %d does not match the code (%s differs): the journal has %s, made at %s; the code makes %s at %s: "+
		"deploy the code that started this invocation, or make the steps depend only on the request, the state and the results of earlier steps",
		d.Index, d.Difference, Describe(d.Recorded), site(d.Recorded), Describe(d.Made), site(d.Made))
}

func site(entry *recordv1.Entry) string {
	if at := entry.GetSite(); at != "" {
		return at
	}
	return "an unknown place"
}

// Describe is an entry in words, such as `Run "pay"`.
func Describe(entry *recordv1.Entry) string {
	switch step := entry.GetEntry().(type) {
	case *recordv1.Entry_Input:
		return "the request"
	case *recordv1.Entry_Call:
		return "Call " + target(step.Call.GetInvoke().GetTarget())
	case *recordv1.Entry_Send:
		return "Send " + target(step.Send.GetInvoke().GetTarget())
	case *recordv1.Entry_Sleep:
		return "Sleep"
	case *recordv1.Entry_Run:
		return fmt.Sprintf("Run %q", step.Run.GetName())
	case *recordv1.Entry_SetState:
		if step.SetState.GetClear() {
			return "State().Clear"
		}
		return "State().Set"
	case *recordv1.Entry_TablePut:
		verb := "Put"
		if step.TablePut.GetDelete() {
			verb = "Delete"
		}
		return fmt.Sprintf("%s of %q in table %s", verb, step.TablePut.GetKey(), step.TablePut.GetTable())
	case *recordv1.Entry_Awakeable:
		return "NewAwakeable"
	case *recordv1.Entry_AwaitPromise:
		return "Await of promise " + step.AwaitPromise.GetName()
	case *recordv1.Entry_CompletePromise:
		return "Resolve of promise " + step.CompletePromise.GetName()
	case *recordv1.Entry_Receive:
		return "Receive of " + step.Receive.GetName()
	case *recordv1.Entry_CompleteAwakeable:
		return "ResolveAwakeable " + step.CompleteAwakeable.GetAwakeableId()
	case *recordv1.Entry_Wait:
		if len(step.Wait.GetFutures()) == 1 {
			return fmt.Sprintf("Await of entry %d", step.Wait.GetFutures()[0])
		}
		return fmt.Sprintf("Select of entries %d", step.Wait.GetFutures())
	case *recordv1.Entry_CancelInvocation:
		return fmt.Sprintf("Cancel of %x", step.CancelInvocation.GetInvocationId())
	}
	return "the handler's end"
}

func target(t *recordv1.Target) string {
	if t.GetKey() == "" {
		return t.GetService() + "/" + t.GetHandler()
	}
	return t.GetService() + "/" + t.GetKey() + "/" + t.GetHandler()
}
