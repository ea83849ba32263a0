package engine

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"

	"github.com/perdure/perdure/internal/draft/drafttest"
	"github.com/perdure/perdure/internal/inbox"
	"github.com/perdure/perdure/internal/invocation"
	"github.com/perdure/perdure/internal/journal"
	recordv1 "github.com/perdure/perdure/internal/record/v1"
	"github.com/perdure/perdure/internal/schedule"
	"github.com/perdure/perdure/internal/table"
)

var rewrite = flag.Bool("rewrite", false, "write what the scripts print as what they should print")

// TestScripts runs testdata/*.txt. A script is blocks of a command and, after ----, what it
// comes to: effects first ("|" marks those that wait for the log), then the rows written.
// Invocations have names; partitions are 1 to 4, and the script's engine is number 1 unless a
// command says partition=N.
func TestScripts(t *testing.T) {
	files, err := filepath.Glob("testdata/*.txt")
	if err != nil || len(files) == 0 {
		t.Fatalf("no scripts: %v", err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txt"), func(t *testing.T) {
			data, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			s := newScript()
			var out strings.Builder
			for i, block := range strings.Split(strings.TrimSpace(string(data)), "\n\n") {
				if i > 0 {
					out.WriteString("\n")
				}
				command, _, has := strings.Cut(block, "\n----")
				if !has {
					out.WriteString(block + "\n") // a comment
					continue
				}
				out.WriteString(command + "\n----\n" + s.run(t, command))
			}
			if *rewrite {
				if err := os.WriteFile(file, []byte(out.String()), 0o644); err != nil {
					t.Fatal(err)
				}
				return
			}
			if got, want := strings.TrimSpace(out.String()), strings.TrimSpace(string(data)); got != want {
				t.Errorf("%s differs; go test ./internal/engine -rewrite shows how:\n%s", file, firstDifference(got, want))
			}
		})
	}
}

func firstDifference(got, want string) string {
	g, w := strings.Split(got, "\n"), strings.Split(want, "\n")
	for i := range g {
		if i >= len(w) || g[i] != w[i] {
			wanted := "(end)"
			if i < len(w) {
				wanted = w[i]
			}
			return fmt.Sprintf("line %d\n got: %s\nwant: %s", i+1, g[i], wanted)
		}
	}
	return "the output ends early"
}

type script struct {
	engines map[uint32]*Engine
	rows    map[uint32]map[string][]byte
	names   map[invocation.ID]string
	ids     map[string]invocation.ID
	now     int64
	mail    scriptMail
	// of the engines that start from now on
	maxWriteBytes int
	handOn        bool
}

func newScript() *script {
	s := &script{
		engines: map[uint32]*Engine{}, rows: map[uint32]map[string][]byte{},
		names: map[invocation.ID]string{}, ids: map[string]invocation.ID{},
	}
	return s
}

func (s *script) engine(partition uint32) *Engine {
	if e := s.engines[partition]; e != nil {
		return e
	}
	if s.rows[partition] == nil {
		s.rows[partition] = map[string][]byte{}
	}
	s.engines[partition] = New(Config{Partition: partition, Partitions: 4, MaxInbox: 3, Signals: inbox.Bounds{Signals: 4, Bytes: 40}, MaxWriteBytes: s.maxWriteBytes, HandOn: func() bool { return s.handOn }, Next: intervals}, mapView(s.rows[partition]), 7+s.mail.epochs[partition])
	return s.engines[partition]
}

// id makes an invocation's id from its name; "@2" at its end puts it in partition 2.
func (s *script) id(name string) invocation.ID {
	if id, ok := s.ids[name]; ok {
		return id
	}
	partition := uint64(1)
	if _, p, ok := strings.Cut(name, "@"); ok {
		partition, _ = strconv.ParseUint(p, 10, 32)
	}
	var unique [16]byte
	copy(unique[:], name)
	id := invocation.NewID(partition-1, unique)
	s.ids[name], s.names[id] = id, name
	return id
}

type args map[string]string

func (a args) number(name string) int64 {
	n, _ := strconv.ParseInt(a[name], 10, 64)
	return n
}

func (s *script) run(t *testing.T, command string) string {
	t.Helper()
	var out strings.Builder
	for line := range strings.SplitSeq(command, "\n") {
		if line = strings.TrimSpace(line); line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		words := strings.Fields(line)
		a := args{}
		for _, word := range words[1:] {
			name, value, ok := strings.Cut(word, "=")
			if !ok {
				name, value = "id", word
			}
			a[name] = value
		}
		if v, ok := a["now"]; ok {
			s.now, _ = strconv.ParseInt(v, 10, 64)
		}
		if s.mailCommand(words) {
			s.carry(t, &out)
			continue
		}
		partition := uint32(1)
		if p := a.number("partition"); p != 0 {
			partition = uint32(p)
		} else if scheduleVerbs[words[0]] {
			partition = schedule.ID(a["id"]).Partition(4)
		} else if a["id"] != "" {
			partition = s.whereabouts(s.id(a["id"]))
		}
		if words[0] == "restart" {
			s.crash(partition)
			recovered, err := s.engine(partition).Recover(s.now)
			s.print(&out, partition, recovered, err)
			s.carry(t, &out)
			continue
		}
		event := s.event(t, words[0], a)
		result, err := s.engine(partition).Evaluate(event, s.now)
		s.print(&out, partition, result, err)
		s.carry(t, &out)
	}
	return out.String()
}

func (s *script) event(t *testing.T, verb string, a args) Event {
	t.Helper()
	if scheduleVerbs[verb] {
		return s.scheduleEvent(t, verb, a)
	}
	id, token, attempt := s.id(a["id"]), Token(a.number("token")), uint32(max(a.number("attempt"), 1))
	switch verb {
	case "invoke":
		return &Invoke{Invoke: s.invoke(a), Token: token, OneWay: a["oneway"] != ""}
	case "attach":
		return &Attach{ID: id, Token: token}
	case "hangup":
		return &Hangup{ID: id, Token: token}
	case "cancel":
		return &Cancel{ID: id, Token: token}
	case "kill":
		return &Cancel{ID: id, Kill: true, Token: token}
	case "stop":
		return &Pause{ID: id, Token: token}
	case "go-on":
		return &Resume{ID: id, Token: token}
	case "purge":
		return &Purge{ID: id, Token: token}
	case "restart-as-new":
		at := s.whereabouts(id)
		ev := surveyed(s.engine(at), mapView(s.rows[at]), id, uint32(a.number("from")))
		ev.New, ev.Token = s.id(a["new"]), token
		if a["epoch"] != "" {
			ev.Epoch = uint64(a.number("epoch"))
		}
		return ev
	case "copy":
		at, _ := table.ParseCopy(s.rows[s.whereabouts(id)][string(table.CopyKey(id))])
		return &CopyEntries{ID: id, At: at}
	case "append":
		return &Append{ID: id, Attempt: attempt, Index: uint32(a.number("index")), Entry: s.entry(t, a)}
	case "run-done":
		done := &CompleteRun{ID: id, Attempt: attempt, Index: uint32(a.number("index"))}
		if count := a.number("parts"); count > 0 {
			done.Parts = &recordv1.Parts{Bytes: uint64(count) * journal.PartBytes, Count: uint32(count)}
		} else {
			done.Result = result(a)
		}
		return done
	case "run-part":
		return &RunPart{ID: id, Attempt: attempt, Index: uint32(a.number("index")), Number: uint32(a.number("number")), Value: []byte(a["value"])}
	case "run-failed":
		return &RetryRun{ID: id, Attempt: attempt, Index: uint32(a.number("index")), Tries: &recordv1.RunTries{Failed: uint32(a.number("failed")), NextAt: a.number("next")}}
	case "finish":
		f := &Finish{ID: id, Attempt: attempt, Result: result(a)}
		if _, ok := a["set"]; ok {
			f.Entries = append(f.Entries, &recordv1.Entry{Entry: &recordv1.Entry_SetState{SetState: &recordv1.SetState{Value: []byte(a["set"])}}})
		}
		if a["kind"] != "" {
			f.Entries = append(f.Entries, s.entry(t, a))
		}
		return f
	case "continue":
		return &ContinueAsNew{ID: id, Attempt: attempt, Input: []byte(a["input"])}
	case "fail":
		return &Fail{ID: id, Attempt: attempt, Error: &recordv1.Error{Code: 2, Message: "boom"}, RetryAfter: a.number("retry-after"), Entry: uint32(a.number("entry"))}
	case "suspend":
		e := &Suspend{ID: id, Attempt: attempt, WakeAt: a.number("wake")}
		for n := range strings.SplitSeq(a["waiting"], ",") {
			index, _ := strconv.Atoi(n)
			e.WaitingFor = append(e.WaitingFor, uint32(index))
		}
		if quantifier, ok := recordv1.Quantifier_value["QUANTIFIER_"+a["until"]]; ok {
			e.WaitingUntil = &recordv1.Condition{Quantifier: recordv1.Quantifier(quantifier), Entries: e.WaitingFor}
		}
		return e
	case "restart-attempt":
		return &Restart{ID: id, Attempt: attempt}
	case "timeout":
		return &TimeOut{ID: id, Attempt: attempt, After: 1000}
	case "awakeable":
		return &CompleteAwakeable{ID: invocation.AwakeableID{Invocation: id, Entry: uint32(a.number("index")), Nonce: uint64(a.number("nonce"))}, Result: result(a), Token: token}
	case "promise":
		return &CompletePromise{Object: invocation.Object{Service: "Svc", Key: a["key"]}, Name: a["name"], Result: result(a), Token: token}
	case "fire-inbox":
		return &Fire{Timer: table.Timer{At: a.number("at"), Kind: table.TimerInbox, ID: inbox.ID(invocation.Object{Service: "Svc", Key: a["key"]})}}
	case "fire":
		return &Fire{Timer: table.Timer{At: a.number("at"), Kind: table.TimerKind(a["kind"][0]), ID: id, Entry: uint32(a.number("entry"))}}
	case "deliver":
		from, seq := uint32(a.number("from")), uint64(a.number("seq"))
		m := &recordv1.Message{}
		if err := proto.Unmarshal(s.rows[from][string(table.Outbox(uint32(max(a.number("partition"), 1)), seq))], m); err != nil {
			t.Fatal(err)
		}
		return &Deliver{From: from, Sequence: seq, Message: m}
	case "call":
		in := s.invoke(args{"id": "callee", "key": a["key"], "mode": a["mode"], "input": a["input"]})
		in.InvocationId = nil
		return &Call{ID: id, Attempt: attempt, Index: uint32(a.number("index")), Invoke: in}
	case "limit-timer":
		return &Fire{Timer: table.Timer{At: a.number("at"), Kind: table.TimerLimit, ID: s.engine(1).limits.TimerID(a["id"])}}
	case "rules":
		return &ChangeRules{Change: ruleArgs(a), Token: token}
	case "await-rules":
		return &AwaitRules{Token: token}
	case "tick":
		return &Tick{}
	case "reached":
		return &Reached{Partition: uint32(a.number("by"))}
	case "acked":
		return &Acked{By: uint32(a.number("by")), Sequence: uint64(a.number("seq"))}
	}
	t.Fatalf("unknown command %q", verb)
	return nil
}

func (s *script) invoke(a args) *recordv1.Invoke {
	id := s.id(a["id"])
	in := &recordv1.Invoke{
		InvocationId: id[:], Input: []byte(a["input"]), IdempotencyKey: a["idem"],
		Target:      &recordv1.Target{Service: "Svc", Key: a["key"], Handler: "H"},
		RetentionMs: a.number("retention"), DueAt: a.number("due"), DeadlineAt: a.number("deadline"), Flow: flowArgs(a), MaxInbox: uint32(a.number("inbox")),
	}
	if a["handler"] != "" {
		in.Target.Handler = a["handler"]
	}
	switch a["mode"] {
	case "", "TX":
		in.Mode = uint32(invocation.ModeTransaction)
	case "DURABLE":
		in.Mode = uint32(invocation.ModeDurable)
	case "RUN":
		in.Mode = uint32(invocation.ModeRun)
	case "SIGNAL":
		in.Mode = uint32(invocation.ModeSignal)
	case "READ":
		in.Mode = uint32(invocation.ModeRead)
	}
	if a["timeout"] != "" {
		in.DeadlineAt = s.now + a.number("timeout")
	}
	if a["attempts"] != "" {
		in.Retry = &recordv1.RetryPolicy{MaxAttempts: uint32(a.number("attempts")), PauseOnExhausted: a["pause"] != ""}
	}
	if a["caller"] != "" {
		caller := s.id(a["caller"])
		in.Caller = &recordv1.Caller{InvocationId: caller[:], Entry: uint32(a.number("entry"))}
	}
	if a["chain"] != "" {
		in.Chain = []*recordv1.Target{{Service: "Svc", Key: a["chain"], Handler: "H"}}
	}
	return in
}

func result(a args) *recordv1.Result {
	if a["error"] != "" {
		return &recordv1.Result{Error: &recordv1.Error{Code: 9, Message: a["error"]}}
	}
	return &recordv1.Result{Value: []byte(a["value"])}
}

func (s *script) entry(t *testing.T, a args) *recordv1.Entry {
	t.Helper()
	e := &recordv1.Entry{Site: "x.go:1", At: s.now}
	switch a["kind"] {
	case "call":
		in := s.invoke(args{"id": a["to"], "key": a["key"], "mode": a["mode"], "input": a["input"], "caller": a["id"], "entry": a["index"], "chain": a["chain"], "limits": a["limits"]})
		e.Entry = &recordv1.Entry_Call{Call: &recordv1.Call{Invoke: in}}
	case "send":
		in := s.invoke(args{"id": a["to"], "key": a["key"], "mode": a["mode"], "input": a["input"], "due": a["due"], "limits": a["limits"]})
		e.Entry = &recordv1.Entry_Send{Send: &recordv1.Send{Invoke: in}}
	case "sleep":
		e.Entry = &recordv1.Entry_Sleep{Sleep: &recordv1.Sleep{Until: a.number("until")}}
	case "attach-to", "peek-at":
		to := s.id(a["to"])
		e.Entry = &recordv1.Entry_Attach{Attach: &recordv1.Attach{InvocationId: to[:], Peek: a["kind"] == "peek-at"}}
	case "stop-timer":
		e.Entry = &recordv1.Entry_StopTimer{StopTimer: &recordv1.StopTimer{Entry: uint32(a.number("timer"))}}
	case "version":
		e.Entry = &recordv1.Entry_Version{Version: &recordv1.Version{Change: a["name"], Version: 1}}
	case "run":
		e.Entry = &recordv1.Entry_Run{Run: &recordv1.Run{Name: a["name"]}}
	case "set":
		e.Entry = &recordv1.Entry_SetState{SetState: &recordv1.SetState{Value: []byte(a["value"]), First: true, Previous: []byte(a["previous"]), HadPrevious: a["previous"] != ""}}
	case "put":
		e.Entry = &recordv1.Entry_TablePut{TablePut: &recordv1.TablePut{Table: a["table"], Key: a["row"], Value: []byte(a["value"]), Delete: a["delete"] != ""}}
	case "awakeable":
		e.Entry = &recordv1.Entry_Awakeable{Awakeable: &recordv1.Awakeable{Nonce: uint64(a.number("nonce"))}}
	case "await":
		e.Entry = &recordv1.Entry_AwaitPromise{AwaitPromise: &recordv1.AwaitPromise{Name: a["name"]}}
	case "receive":
		e.Entry = &recordv1.Entry_Receive{Receive: &recordv1.Receive{Name: a["name"]}}
	case "wait-cancelled":
		e.Entry = &recordv1.Entry_Wait{Wait: &recordv1.Wait{Outcome: recordv1.WaitOutcome_WAIT_OUTCOME_CANCELLED}}
	case "wait-heard":
		e.Entry = &recordv1.Entry_Wait{Wait: &recordv1.Wait{Futures: []uint32{uint32(a.number("of"))}, Outcome: recordv1.WaitOutcome_WAIT_OUTCOME_COMPLETED, CancelHeard: true}}
	case "cancel":
		id := s.id(a["to"])
		e.Entry = &recordv1.Entry_CancelInvocation{CancelInvocation: &recordv1.CancelInvocation{InvocationId: id[:]}}
	default:
		t.Fatalf("unknown entry kind %q", a["kind"])
	}
	return e
}

func (s *script) print(out *strings.Builder, partition uint32, o *Output, err error) {
	if err != nil {
		fmt.Fprintf(out, "error: %v\n", err)
		return
	}
	s.collect(partition, o)
	for _, effect := range o.Effects {
		gate := " "
		if effect.Gated() {
			gate = "|"
		}
		fmt.Fprintf(out, "%s %s\n", gate, s.effect(effect))
	}
	rows := s.rows[partition]
	last := map[string]int{}
	for i, m := range o.Mutations {
		last[string(m.Key)] = i
	}
	for i, m := range o.Mutations {
		if last[string(m.Key)] != i {
			continue
		}
		if m.Delete {
			if _, ok := rows[string(m.Key)]; ok {
				fmt.Fprintf(out, "- %s\n", s.key(m.Key))
			}
			delete(rows, string(m.Key))
			continue
		}
		fmt.Fprintf(out, "+ %s\n", strings.TrimSpace(s.key(m.Key)+" "+s.value(m.Key, m.Value)))
		rows[string(m.Key)] = append([]byte{}, m.Value...)
	}
	if o.Lazy {
		out.WriteString("lazy\n")
	}
}

func (s *script) effect(effect Effect) string {
	switch e := effect.(type) {
	case *Reply:
		text := fmt.Sprintf("reply %d %s", e.Token, resultText(e.Result))
		if e.Existed {
			text += " existed"
		}
		if e.Refused {
			text += " refused"
		}
		return text
	case *StartAttempt:
		s.meet(e)
		s.meetFiring(e)
		text := fmt.Sprintf("start %s attempt %d input=%q", s.names[e.ID], e.Row.Attempt, e.Input)
		if e.HasState {
			text += fmt.Sprintf(" state=%q", e.State)
		}
		if len(e.Journal) > 0 {
			text += fmt.Sprintf(" journal=%d completions=%d", len(e.Journal), len(e.Completions))
		}
		if e.CancelRequested {
			text += " cancel"
		}
		return text
	case *Notify:
		return fmt.Sprintf("notify %s entry %d %s", s.names[e.ID], e.Completion.Entry, resultText(e.Completion.Result))
	case *CancelAttempt:
		return "tell " + s.names[e.ID] + " it is cancelled"
	case *AbortAttempt:
		return fmt.Sprintf("abort %s: %s", s.names[e.ID], e.Reason)
	case *EndAttempt:
		return "end " + s.names[e.ID]
	case *SendMessage:
		return fmt.Sprintf("message %d to partition %d: %s", e.Sequence, e.To, strings.TrimPrefix(fmt.Sprintf("%T", e.Message.Message), "*recordv1.Message_"))
	case *Ack:
		return fmt.Sprintf("ack %d to partition %d", e.Sequence, e.To)
	case *ArmTimer:
		return fmt.Sprintf("timer at %d", e.At)
	case *Tell:
		return fmt.Sprintf("tell %d: %s", e.To, s.peer(e.Peer))
	case *Hide:
		return "hide " + e.Object.String()
	case *Show:
		return "show " + e.Object.String()
	case *EndInvocation:
		return s.names[e.ID] + " has ended"
	case *TransactionEnded:
		return fmt.Sprintf("transaction ended, committed: %v", e.Committed)
	case *PermitGranted:
		return fmt.Sprintf("permit of %s after %d ms", e.Limit, e.Waited)
	case *PermitRefused:
		return "refusal by " + e.Limit
	case *ScheduleMoved:
		return fmt.Sprintf("schedule: %d fired, late by %d ms, %d skipped, %d missed", e.Fired, e.Late, e.Skipped, e.Missed)
	case *CopyOn:
		return fmt.Sprintf("copy on to %s from entry %d, part %d", s.names[e.ID], e.At.Next, e.At.Part)
	case *TransactionRetried:
		return fmt.Sprintf("transaction retried, reason %d", e.Reason)
	}
	return fmt.Sprintf("%T", effect)
}

func resultText(r *recordv1.Result) string {
	switch {
	case r == nil:
		return "ok"
	case r.Error != nil:
		return fmt.Sprintf("error %d %q", r.Error.Code, r.Error.Message)
	}
	return fmt.Sprintf("%q", r.Value)
}

// key prints a row's key with the names of invocations in it.
func (s *script) key(key []byte) string {
	if text := s.transactionRow(key); text != "" {
		return text
	}
	text := table.Describe(key)
	if text := s.scheduleRow(key); text != "" {
		return text
	}
	for _, name := range []string{"w", "v"} { // workflows of the scripts
		text = strings.ReplaceAll(text, inbox.ID(invocation.Object{Service: "Svc", Key: name}).String(), name)
	}
	for id, name := range s.names {
		text = strings.ReplaceAll(text, id.String(), name)
	}
	return text
}

func (s *script) value(key, value []byte) string {
	var m proto.Message
	switch key[0] {
	case 'i':
		m = &recordv1.Invocation{}
	case 'a':
		a, _ := table.ParseActive(value)
		return strings.TrimPrefix(a.Status.String(), "STATUS_")
	case 'c':
		c := &recordv1.Completion{}
		_ = proto.Unmarshal(value, c)
		if c.Parts != nil {
			return fmt.Sprintf("in %d parts", c.Parts.Count)
		}
		return resultText(c.Result)
	case 'u':
		tries := &recordv1.RunTries{}
		_ = proto.Unmarshal(value, tries)
		text := ""
		if tries.Failed > 0 {
			text = fmt.Sprintf("failed=%d", tries.Failed)
		}
		if tries.Parts > 0 {
			text += fmt.Sprintf(" parts=%d", tries.Parts)
		}
		return text
	case 'm', 'd', 'n':
		n, _ := table.ParseNumber(value)
		return strconv.FormatUint(n, 10)
	case 'b':
		row := &recordv1.SignalInbox{}
		_ = proto.Unmarshal(value, row)
		return fmt.Sprintf("%d signals of %d bytes until %d", row.Count, row.Bytes, row.KeepUntil)
	case 'e':
		at, _ := table.ParseCopy(value)
		return fmt.Sprintf("of %s up to %d, next %d, part %d", s.names[at.Source], at.Through, at.Next, at.Part)
	case 'h', 'z':
		return scheduleValue(key, value)
	case 'x', 'y':
		return transactionValue(key, value)
	case 'l':
		return limitValue(key, value)
	case 'f':
		return ruleValue(key, value)
	case 'q':
		row := &recordv1.WaitRow{}
		_ = proto.Unmarshal(value, row)
		return s.names[invocation.ID(row.InvocationId)]
	case 's', 't', 'g', 'v':
		return strconv.Quote(string(value))
	}
	row, ok := m.(*recordv1.Invocation)
	if !ok {
		return ""
	}
	_ = proto.Unmarshal(value, row)
	text := strings.TrimPrefix(row.Status.String(), "STATUS_") + " attempt=" + strconv.Itoa(int(row.Attempt))
	if row.Continuations > 0 {
		text += fmt.Sprintf(" continuations=%d start=%d", row.Continuations, row.JournalStart)
	}
	if row.Failures > 0 {
		text += " failures=" + strconv.Itoa(int(row.Failures))
	}
	if row.Flow.GetAsk() != 0 {
		text += " waits for " + row.Flow.Limits[row.Flow.Held].Name
	}
	for _, f := range row.Failed {
		if f.Step != "" {
			text += fmt.Sprintf(" failed@%d=%q", f.Entry, f.Step)
		}
	}
	for _, o := range row.Origins {
		id, _ := invocation.IDFromBytes(o.InvocationId)
		text += fmt.Sprintf(" from=%s@%d", s.names[id], o.Entries)
	}
	if row.Result != nil {
		text += " result=" + resultText(row.Result)
	}
	return text
}

type mapView = drafttest.Rows
