package journal

import (
	"fmt"
	"slices"
	"strings"

	"github.com/perdure/perdure/internal/invocation"
	recordv1 "github.com/perdure/perdure/internal/record/v1"
)

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
	// RecordedBy names the deployments that have fed the journal, and MadeBy that of the code, if
	// they are not the same.
	RecordedBy, MadeBy string
}

// Error has both call sites.
func (d *Divergence) Error() string {
	deployed := ""
	if d.RecordedBy != "" {
		deployed = fmt.Sprintf("; the journal is of deployment %s, the code of %s", d.RecordedBy, d.MadeBy)
	}
	return fmt.Sprintf("journal entry %d does not match the code (%s differs): the journal has %s, made at %s; the code makes %s at %s%s: "+
		"deploy the code that started this invocation, guard the change with actor.Version, or make the steps depend only on the request, the state and the results of earlier steps",
		d.Index, d.Difference, Describe(d.Recorded), site(d.Recorded), Describe(d.Made), site(d.Made), deployed)
}

func site(entry *recordv1.Entry) string {
	if at := entry.GetSite(); at != "" {
		return at
	}
	return "an unknown place"
}

// Show puts a value of a step into words: of is the entry that it belongs to.
type Show func(of *recordv1.Entry, value []byte) string

// Record is the divergence as it is kept, with what the two steps consist of side by side.
func (d *Divergence) Record(attempt uint32, show Show) *recordv1.Divergence {
	out := &recordv1.Divergence{
		Entry: d.Index, Attempt: attempt, Difference: d.Difference,
		Recorded: &recordv1.DivergentStep{Step: Describe(d.Recorded), Site: d.Recorded.GetSite()},
		Made:     &recordv1.DivergentStep{Step: Describe(d.Made), Site: d.Made.GetSite()},
	}
	if d.RecordedBy != "" {
		out.Fields = append(out.Fields, &recordv1.DivergentField{Name: "deployment", Recorded: d.RecordedBy, Made: d.MadeBy})
	}
	recorded, made := fields(d.Recorded, show), fields(d.Made, show)
	for _, f := range recorded {
		out.Fields = append(out.Fields, &recordv1.DivergentField{Name: f.name, Recorded: f.text})
	}
	for _, f := range made {
		at := slices.IndexFunc(out.Fields, func(known *recordv1.DivergentField) bool { return known.Name == f.name })
		if at < 0 {
			out.Fields = append(out.Fields, &recordv1.DivergentField{Name: f.name, Made: f.text})
			continue
		}
		out.Fields[at].Made = f.text
	}
	return out
}

// maxFieldBytes bounds what is kept of one field.
const maxFieldBytes = 1000

type field struct{ name, text string }

// fields are what a step consists of, as far as it is compared.
func fields(entry *recordv1.Entry, show Show) []field {
	var all []field
	add := func(name, text string) {
		if text = strings.ToValidUTF8(text, "\uFFFD"); len(text) > maxFieldBytes {
			text = strings.ToValidUTF8(text[:maxFieldBytes], "") + fmt.Sprintf("… (%d bytes)", len(text))
		}
		if text != "" {
			all = append(all, field{name, text})
		}
	}
	invoke := func(in *recordv1.Invoke) {
		add("service", in.GetTarget().GetService())
		add("key", in.GetTarget().GetKey())
		add("handler", in.GetTarget().GetHandler())
		add("idempotency key", in.GetIdempotencyKey())
		if in.GetDueAt() != 0 {
			add("delayed", "yes")
		}
		add("request", show(entry, in.GetInput()))
	}
	switch step := entry.GetEntry().(type) {
	case *recordv1.Entry_Call:
		invoke(step.Call.GetInvoke())
	case *recordv1.Entry_Send:
		invoke(step.Send.GetInvoke())
	case *recordv1.Entry_Run:
		add("name", step.Run.GetName())
	case *recordv1.Entry_SetState:
		if !step.SetState.GetClear() {
			add("value", show(entry, step.SetState.GetValue()))
		}
	case *recordv1.Entry_TablePut:
		add("table", step.TablePut.GetTable())
		add("key", step.TablePut.GetKey())
		if !step.TablePut.GetDelete() {
			add("value", show(entry, step.TablePut.GetValue()))
		}
	case *recordv1.Entry_AwaitPromise:
		add("name", step.AwaitPromise.GetName())
	case *recordv1.Entry_CompletePromise:
		add("name", step.CompletePromise.GetName())
	case *recordv1.Entry_Receive:
		add("name", step.Receive.GetName())
	case *recordv1.Entry_CompleteAwakeable:
		add("id", step.CompleteAwakeable.GetAwakeableId())
	case *recordv1.Entry_Wait:
		if condition := step.Wait.GetCondition(); condition != nil {
			add("waits for", DescribeCondition(condition))
		} else {
			add("waits for", fmt.Sprintf("entries %d", step.Wait.GetFutures()))
		}
	case *recordv1.Entry_CancelInvocation:
		add("id", id(step.CancelInvocation.GetInvocationId()))
	case *recordv1.Entry_Version:
		add("change", step.Version.GetChange())
	case *recordv1.Entry_Attach:
		add("id", id(step.Attach.GetInvocationId()))
	case *recordv1.Entry_StopTimer:
		add("timer", fmt.Sprintf("entry %d", step.StopTimer.GetEntry()))
	}
	return all
}

func id(data []byte) string {
	if parsed, ok := invocation.IDFromBytes(data); ok {
		return parsed.String()
	}
	return fmt.Sprintf("%x", data)
}

// Brief is Describe of an entry whose names may be large themselves.
func Brief(entry *recordv1.Entry) string { return clip(Describe(entry), 200) }

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
		if condition := step.Wait.GetCondition(); condition != nil {
			return "Await of " + DescribeCondition(condition)
		}
		if len(step.Wait.GetFutures()) == 1 {
			return fmt.Sprintf("Await of entry %d", step.Wait.GetFutures()[0])
		}
		return fmt.Sprintf("Select of entries %d", step.Wait.GetFutures())
	case *recordv1.Entry_CancelInvocation:
		return "Cancel of " + id(step.CancelInvocation.GetInvocationId())
	case *recordv1.Entry_Version:
		return fmt.Sprintf("Version %q", step.Version.GetChange())
	case *recordv1.Entry_Attach:
		if step.Attach.GetPeek() {
			return "Peek at " + id(step.Attach.GetInvocationId())
		}
		return "Attach to " + id(step.Attach.GetInvocationId())
	case *recordv1.Entry_StopTimer:
		return fmt.Sprintf("Stop of the timer of entry %d", step.StopTimer.GetEntry())
	}
	return "the handler's end"
}

func target(t *recordv1.Target) string {
	if t.GetKey() == "" {
		return t.GetService() + "/" + t.GetHandler()
	}
	return t.GetService() + "/" + t.GetKey() + "/" + t.GetHandler()
}
