package admin

import (
	"fmt"
	"strings"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/perdure/perdure/internal/invocation"
	"github.com/perdure/perdure/internal/journal"
	recordv1 "github.com/perdure/perdure/internal/record/v1"
	adminv1 "github.com/perdure/perdure/proto/perdure/admin/v1"
)

// entry is one step of an invocation of own, for people.
func (s *Service) entry(own *recordv1.Target, index uint32, entry *recordv1.Entry, completion *recordv1.Completion) *adminv1.JournalEntry {
	out := &adminv1.JournalEntry{Index: index, Site: entry.GetSite(), At: instant(entry.GetAt())}
	// result is how what the step returned is read. Kinds without one are complete as they
	// are recorded.
	var result func([]byte) *adminv1.Payload
	waits := false
	switch step := entry.GetEntry().(type) {
	case *recordv1.Entry_Input:
		out.Kind = "input"
	case *recordv1.Entry_Call:
		invoke := step.Call.GetInvoke()
		out.Kind, waits = "call", true
		s.invoke(out, invoke)
		result = messageReader(responseOf(s.method(invoke.GetTarget().GetService(), invoke.GetTarget().GetHandler())))
	case *recordv1.Entry_Send:
		out.Kind = "send"
		s.invoke(out, step.Send.GetInvoke())
	case *recordv1.Entry_Sleep:
		out.Kind, waits = "sleep", true
		out.Name = length(time.Duration(step.Sleep.GetUntil()-entry.GetAt()) * time.Millisecond)
	case *recordv1.Entry_Run:
		out.Kind, out.Name, waits = "run", step.Run.GetName(), true
		result = goReader
	case *recordv1.Entry_SetState:
		out.Kind = "set_state"
		if step.SetState.GetClear() {
			out.Name = "clear"
		} else {
			text, note := renderState(step.SetState.GetValue(), s.stateType(own), s.stateVersion(own), maxEntryBytes)
			out.Input = &adminv1.Payload{Json: text, Note: note, SizeBytes: uint64(len(step.SetState.GetValue()))}
		}
	case *recordv1.Entry_TablePut:
		put := step.TablePut
		out.Kind, out.Name = "table_put", put.GetTable()+"/"+put.GetKey()
		if put.GetDelete() {
			out.Kind = "table_delete"
		} else {
			text, note := renderState(put.GetValue(), s.tableType(own, put.GetTable()), s.rowVersion(own, put.GetTable()), maxEntryBytes)
			out.Input = &adminv1.Payload{Json: text, SizeBytes: uint64(len(put.GetValue())), Note: note}
		}
	case *recordv1.Entry_Awakeable:
		out.Kind, waits = "awakeable", true
		result = goReader
	case *recordv1.Entry_AwaitPromise:
		out.Kind, out.Name, waits = "await_promise", step.AwaitPromise.GetName(), true
		result = messageReader(s.promiseType(own, step.AwaitPromise.GetName()))
	case *recordv1.Entry_CompletePromise:
		completed := step.CompletePromise
		out.Kind, out.Name = "complete_promise", completed.GetName()
		of := own
		if completed.GetTarget() != nil {
			of = completed.GetTarget()
			out.Name = of.GetService() + "/" + of.GetKey() + "/" + completed.GetName()
		}
		if completed.GetResult().GetError() == nil {
			out.Input = payload(completed.GetResult().GetValue(), s.promiseType(of, completed.GetName()), maxEntryBytes)
		}
	case *recordv1.Entry_Receive:
		out.Kind, out.Name, waits = "receive", step.Receive.GetName(), true
		result = messageReader(requestOf(s.method(own.GetService(), step.Receive.GetName())))
	case *recordv1.Entry_CompleteAwakeable:
		completed := step.CompleteAwakeable
		out.Kind, out.Name = "complete_awakeable", completed.GetAwakeableId()
		if completed.GetResult().GetError() == nil {
			out.Input = goPayload(completed.GetResult().GetValue(), maxEntryBytes)
		}
	case *recordv1.Entry_Wait:
		out.Kind, out.Name = "wait", waitName(step.Wait)
	case *recordv1.Entry_CancelInvocation:
		out.Kind = "cancel_invocation"
		if id, ok := invocation.IDFromBytes(step.CancelInvocation.GetInvocationId()); ok {
			out.InvocationId = id.String()
		}
	case *recordv1.Entry_Version:
		out.Kind, out.Name = "version", fmt.Sprintf("%s: %d", step.Version.GetChange(), step.Version.GetVersion())
	case *recordv1.Entry_StopTimer:
		out.Kind, out.Name = "stop_timer", fmt.Sprintf("entry %d", step.StopTimer.GetEntry())
	case *recordv1.Entry_Attach:
		out.Kind, waits = "attach", true
		if step.Attach.GetPeek() {
			out.Kind = "peek"
		}
		if id, ok := invocation.IDFromBytes(step.Attach.GetInvocationId()); ok {
			out.InvocationId = id.String()
		}
	default:
		out.Kind = "unknown"
	}
	switch {
	case completion != nil:
		out.CompletedAt = instant(completion.GetAt())
		if failed := completion.GetResult().GetError(); failed != nil {
			out.Outcome, out.Error = adminv1.EntryOutcome_ENTRY_OUTCOME_FAILED, failure(failed)
			return out
		}
		out.Outcome = adminv1.EntryOutcome_ENTRY_OUTCOME_SUCCEEDED
		switch parts := completion.GetParts(); {
		case parts != nil:
			out.Result = &adminv1.Payload{Note: tooLarge(int(parts.GetBytes()), maxEntryBytes), SizeBytes: parts.GetBytes()}
		case result != nil:
			out.Result = result(completion.GetResult().GetValue())
		}
	case waits:
		out.Outcome = adminv1.EntryOutcome_ENTRY_OUTCOME_PENDING
	default:
		out.Outcome, out.CompletedAt = adminv1.EntryOutcome_ENTRY_OUTCOME_SUCCEEDED, out.At
	}
	return out
}

func (s *Service) invoke(out *adminv1.JournalEntry, invoke *recordv1.Invoke) {
	target := invoke.GetTarget()
	out.Name = invocation.Target{Service: target.GetService(), Key: target.GetKey(), Handler: target.GetHandler()}.String()
	if id, ok := invocation.IDFromBytes(invoke.GetInvocationId()); ok {
		out.InvocationId = id.String()
	}
	out.Input = payload(invoke.GetInput(), requestOf(s.method(target.GetService(), target.GetHandler())), maxEntryBytes)
}

// length is "72h", not "72h0m0s".
func length(d time.Duration) string {
	text := d.String()
	if strings.HasSuffix(text, "m0s") {
		text = strings.TrimSuffix(text, "0s")
	}
	if strings.HasSuffix(text, "h0m") {
		text = strings.TrimSuffix(text, "0m")
	}
	return text
}

func waitName(wait *recordv1.Wait) string {
	switch wait.GetOutcome() {
	case recordv1.WaitOutcome_WAIT_OUTCOME_CANCELLED:
		return "cancelled"
	case recordv1.WaitOutcome_WAIT_OUTCOME_DEADLINE:
		return "deadline"
	}
	if condition := wait.GetCondition(); condition != nil {
		return journal.DescribeCondition(condition)
	}
	if futures := wait.GetFutures(); int(wait.GetWinner()) < len(futures) {
		return fmt.Sprintf("entry %d", futures[wait.GetWinner()])
	}
	return ""
}

func divergence(found *recordv1.Divergence) *adminv1.Divergence {
	if found == nil {
		return nil
	}
	out := &adminv1.Divergence{
		Entry: found.GetEntry(), Attempt: found.GetAttempt(), Difference: found.GetDifference(),
		Recorded: &adminv1.Divergence_Step{Step: found.GetRecorded().GetStep(), Site: found.GetRecorded().GetSite()},
		Made:     &adminv1.Divergence_Step{Step: found.GetMade().GetStep(), Site: found.GetMade().GetSite()},
	}
	for _, field := range found.GetFields() {
		out.Fields = append(out.Fields, &adminv1.Divergence_Field{Name: field.GetName(), Recorded: field.GetRecorded(), Made: field.GetMade()})
	}
	return out
}

func messageReader(empty func() proto.Message) func([]byte) *adminv1.Payload {
	return func(data []byte) *adminv1.Payload { return payload(data, empty, maxEntryBytes) }
}

func goReader(data []byte) *adminv1.Payload { return goPayload(data, maxEntryBytes) }

func (s *Service) stateVersion(of *recordv1.Target) uint32 {
	if desc := s.known.Load().services[of.GetService()]; desc != nil {
		return desc.StateVersion
	}
	return 1
}

func (s *Service) stateType(of *recordv1.Target) func() proto.Message {
	if desc := s.known.Load().services[of.GetService()]; desc != nil {
		return desc.StateType
	}
	return nil
}

func (s *Service) rowVersion(of *recordv1.Target, name string) uint32 {
	if desc := s.known.Load().services[of.GetService()]; desc != nil {
		for _, table := range desc.Tables {
			if table.Name == name {
				return table.Version
			}
		}
	}
	return 1
}

func (s *Service) tableType(of *recordv1.Target, name string) func() proto.Message {
	if desc := s.known.Load().services[of.GetService()]; desc != nil {
		for _, table := range desc.Tables {
			if table.Name == name {
				return table.New
			}
		}
	}
	return nil
}

func (s *Service) promiseType(of *recordv1.Target, name string) func() proto.Message {
	if desc := s.known.Load().services[of.GetService()]; desc != nil {
		for _, promise := range desc.Promises {
			if promise.Name == name {
				return promise.New
			}
		}
	}
	return nil
}
