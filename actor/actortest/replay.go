package actortest

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"

	"github.com/perdure/perdure/actor"
	"github.com/perdure/perdure/internal/admin"
	"github.com/perdure/perdure/internal/invocation"
	"github.com/perdure/perdure/internal/invoker"
	"github.com/perdure/perdure/internal/invoker/inprocess"
	"github.com/perdure/perdure/internal/journal"
	recordv1 "github.com/perdure/perdure/internal/record/v1"
)

// Replay runs the registered handlers on recorded journals, each a subtest: files that
// "perdure journal export" or [Node.Export] wrote, by names with the wildcards of
// [path/filepath.Match]. The code must make the recorded steps, and end as recorded if the
// handler had ended; whatever it does where the journal of an unfinished invocation stops, or of
// one that failed since its timeout was over or its attempts were used up, is right. No closure is
// called and nothing is changed anywhere. A failure shows journal and code side by side.
//
// Files of journals are read by all later versions. It is not for journals of handlers that
// other packages have: register those too, or leave their files out.
func Replay(t *testing.T, register func(actor.Registrar), files ...string) {
	t.Helper()
	for _, pattern := range files {
		found, err := filepath.Glob(pattern)
		if err != nil {
			t.Fatalf("%s: %v", pattern, err)
		}
		if len(found) == 0 {
			t.Fatalf("there is no file %s: perdure journal export writes one", pattern)
		}
		for _, file := range found {
			t.Run(filepath.Base(file), func(t *testing.T) {
				recorded, err := readJournal(file)
				if err != nil {
					t.Fatal(err)
				}
				synctest.Test(t, func(t *testing.T) { replay(t, register, recorded) })
			})
		}
	}
}

// Export writes the journal of an invocation as a file that [Replay] reads, as
// "perdure journal export" does.
func (n *Node) Export(t testing.TB, invocationID, file string) {
	t.Helper()
	n.Client()
	id, err := invocation.ParseID(invocationID)
	if err != nil {
		t.Fatal(err)
	}
	data, err := led(func() ([]byte, error) { return admin.Export(context.Background(), n.router, id) })
	if err != nil {
		t.Fatalf("export %s: %v", invocationID, err)
	}
	if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, data, 0o600); err != nil {
		t.Fatal(err)
	}
}

func readJournal(file string) (*recordv1.RecordedJournal, error) {
	data, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	recorded := &recordv1.RecordedJournal{}
	// The version first: a newer file has fields that this build does not know.
	if err := (protojson.UnmarshalOptions{DiscardUnknown: true}).Unmarshal(data, recorded); err != nil {
		return nil, fmt.Errorf("%s is not an exported journal: %w", file, err)
	}
	if recorded.Format == 0 || recorded.Format > admin.JournalFormat {
		return nil, fmt.Errorf("%s has format %d; this version reads 1 to %d: update github.com/perdure/perdure", file, recorded.Format, admin.JournalFormat)
	}
	if err := protojson.Unmarshal(data, recorded); err != nil {
		return nil, fmt.Errorf("%s has steps that this version does not know: update github.com/perdure/perdure: %w", file, err)
	}
	return recorded, nil
}

// registrar collects what is registered.
type registrar struct {
	runner   *inprocess.Invoker
	problems []error
	methods  map[string]*actor.MethodDesc
}

// RegisterService implements actor.Registrar.
func (r *registrar) RegisterService(desc *actor.ServiceDesc, handler any) {
	if err := r.runner.Register(desc, handler); err != nil {
		r.problems = append(r.problems, err)
	}
	for _, m := range desc.Methods {
		r.methods[m.FullName()] = m
	}
}

func replay(t *testing.T, register func(actor.Registrar), recorded *recordv1.RecordedJournal) {
	r := &registrar{methods: map[string]*actor.MethodDesc{}}
	r.runner = inprocess.New(inprocess.Config{Logger: slog.New(slog.DiscardHandler), InactivityTimeout: inprocess.SuspendAtOnce})
	register(r)
	for _, problem := range r.problems {
		t.Error(problem)
	}
	target := invocation.Target{Service: recorded.GetTarget().GetService(), Key: recorded.GetTarget().GetKey(), Handler: recorded.GetTarget().GetHandler()}
	method := r.methods[target.Service+"/"+target.Handler]
	if method == nil || method.Handle == nil {
		t.Fatalf("the journal is of %s, which has no handler: register it", target)
	}
	if method.Mode != actor.Mode(recorded.Mode) {
		t.Errorf("the journal is of a handler in mode %s; %s is %s now", actor.Mode(recorded.Mode), method.FullName(), method.Mode)
	}
	replayed := &replayed{recorded: recorded, method: method}
	attempt, err := attemptOf(recorded, target, replayed)
	if err != nil {
		t.Fatal(err)
	}
	running := r.runner.Start(attempt)
	synctest.Wait() // It has ended, or waits for what the journal does not have.
	if text := replayed.judge(); text != "" {
		t.Errorf("%s\n%s", text, replayed.report())
	}
	running.Abort(errReplayed)
	if err := r.runner.Close(context.Background()); err != nil {
		t.Error(err)
	}
}

var errReplayed = actor.NewError(actor.Canceled, "the journal has been replayed")

func attemptOf(recorded *recordv1.RecordedJournal, target invocation.Target, host invoker.Host) (*invoker.Attempt, error) {
	id, err := invocation.ParseID(recorded.InvocationId)
	if err != nil {
		return nil, err
	}
	attempt := &invoker.Attempt{
		ID: id, Number: 2, Target: target, Mode: invocation.Mode(recorded.Mode), Input: recorded.Input,
		State: recorded.State, HasState: recorded.HasState, Tables: recordedRows{recorded},
		Start: recorded.Start, Journal: recorded.Entries, Completions: map[uint32]*recordv1.Completion{},
		CancelRequested: recorded.CancelRequested, Chain: recorded.Chain, Flow: recorded.Flow, Headers: recorded.Headers,
		StartedAt: time.UnixMilli(recorded.StartedAt), Origins: recorded.Origins, Host: host,
	}
	if attempt.Mode.Exclusive() && target.Key != "" {
		attempt.Chain = append(recorded.Chain[:len(recorded.Chain):len(recorded.Chain)], recorded.Target)
	}
	if recorded.DeadlineAt != 0 {
		attempt.Deadline = time.UnixMilli(recorded.DeadlineAt)
	}
	for _, completion := range recorded.Completions {
		attempt.Completions[completion.Entry] = completion
	}
	return attempt, nil
}

// replayed is the host of an attempt that replays, and what came of it.
type replayed struct {
	recorded *recordv1.RecordedJournal
	method   *actor.MethodDesc

	mu      sync.Mutex
	outcome *invoker.Outcome
	beyond  *recordv1.Entry // the first step behind the journal
}

// Append implements invoker.Host: the code went past the journal's end.
func (r *replayed) Append(_ *invoker.Attempt, _ uint32, entry *recordv1.Entry) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.beyond == nil {
		r.beyond = entry
	}
}

// Retry implements invoker.Host. No closure is let run here, so none fails.
func (r *replayed) Retry(*invoker.Attempt, uint32, *recordv1.RunTries) {}

// Call implements invoker.Host.
func (*replayed) Call(*invoker.Attempt, uint32, *recordv1.Invoke) {}

// Journal implements invoker.Host. The attempt was started with all of it, and may forget results.
func (r *replayed) Journal(*invoker.Attempt) invoker.Journal { return recordedResults{r.recorded} }

// AwaitDurable implements invoker.Host. It is never granted, so that no closure is called.
func (*replayed) AwaitDurable(*invoker.Attempt, func()) {}

// Complete implements invoker.Host.
func (*replayed) Complete(*invoker.Attempt, uint32, *recordv1.Result) {}

// Part implements invoker.Host.
func (*replayed) Part(*invoker.Attempt, uint32, uint32, []byte) {}

// CompleteParts implements invoker.Host.
func (*replayed) CompleteParts(*invoker.Attempt, uint32, *recordv1.Parts) {}

// Finish implements invoker.Host.
func (r *replayed) Finish(_ *invoker.Attempt, outcome *invoker.Outcome) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.outcome = outcome
}

// judge says what is wrong, "" if nothing is.
func (r *replayed) judge() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	var ended bool // as the handler said
	switch r.recorded.Status {
	case recordv1.Status_STATUS_SUCCEEDED:
		ended = true
	case recordv1.Status_STATUS_FAILED:
		ended = !r.recorded.GivenUp
	case recordv1.Status_STATUS_CANCELLED:
		ended = r.recorded.StartedAt != 0 // One that had not begun ended at once.
	}
	switch {
	case r.outcome != nil && r.outcome.Retry != nil && (r.outcome.Divergence != nil || r.beyond == nil):
		return "the code does not replay the journal: " + r.outcome.Retry.GetMessage()
	case !ended:
		return ""
	case r.beyond != nil:
		return fmt.Sprintf("the invocation had ended, and the code makes another step: %s at %s", journal.Describe(r.beyond), r.beyond.GetSite())
	case r.outcome == nil || r.outcome.Suspended:
		return "the invocation had ended, and the code waits for something at the end of its journal"
	case r.recorded.Result == nil || r.outcome.Result == nil: // not kept, or it begins anew
		return ""
	}
	was, is := r.recorded.Result, r.outcome.Result
	switch {
	case was.GetError().GetCode() != is.GetError().GetCode() || was.GetError().GetMessage() != is.GetError().GetMessage():
		return fmt.Sprintf("the invocation ended with %s; the code ends with %s", resultText(was), resultText(is))
	case !r.sameResponse(was.GetValue(), is.GetValue()):
		return fmt.Sprintf("the response was %s; the code's is %s", r.responseText(was.GetValue()), r.responseText(is.GetValue()))
	}
	return ""
}

func resultText(result *recordv1.Result) string {
	if failed := result.GetError(); failed != nil {
		return actor.Code(failed.GetCode()).String() + ": " + failed.GetMessage()
	}
	return "success"
}

func (r *replayed) sameResponse(was, is []byte) bool {
	before, after := r.method.NewResponse(), r.method.NewResponse()
	return proto.Unmarshal(was, before) == nil && proto.Unmarshal(is, after) == nil && proto.Equal(before, after)
}

func (r *replayed) responseText(data []byte) string {
	response := r.method.NewResponse()
	if err := proto.Unmarshal(data, response); err != nil {
		return fmt.Sprintf("%d bytes that are not a %s", len(data), response.ProtoReflect().Descriptor().FullName())
	}
	return protojson.Format(response)
}

// report is the journal beside the code.
func (r *replayed) report() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	was := []string{"journal", ""}
	for i, entry := range r.recorded.Entries {
		was = append(was, stepText(int(r.recorded.Start)+i+1, journal.Describe(entry), entry.GetSite()))
	}
	is := append([]string{"code"}, was[1:]...)
	differs := len(was)
	if r.outcome != nil && r.outcome.Divergence != nil {
		divergence := r.outcome.Divergence
		differs = int(divergence.GetEntry()-r.recorded.Start) + 1
		is = append(is[:min(differs, len(is))], stepText(int(divergence.GetEntry()), divergence.GetMade().GetStep(), divergence.GetMade().GetSite()))
	} else if r.beyond != nil {
		is = append(is, stepText(int(r.recorded.Start)+len(r.recorded.Entries)+1, journal.Describe(r.beyond), r.beyond.GetSite()))
	}
	// Far from where they differ they are the same.
	const around = 8
	from, end := max(2, differs-around), differs+around
	cut := func(lines []string) []string {
		return slices.Concat(lines[:min(2, len(lines))], lines[min(from, len(lines)):min(end, len(lines))])
	}
	return sideBySide(cut(was), cut(is))
}

func stepText(index int, step, site string) string {
	if site != "" {
		site = "  " + site
	}
	return fmt.Sprintf("%3d %s%s", index, step, site)
}

// recordedRows are the tables of the object as they were exported.
type recordedRows struct{ recorded *recordv1.RecordedJournal }

// Get implements invoker.Tables.
func (r recordedRows) Get(table, key string) ([]byte, bool, error) {
	for _, row := range r.recorded.Rows {
		if row.Table == table && row.Key == key {
			return row.Value, true, nil
		}
	}
	return nil, false, r.complete(table)
}

// Len implements invoker.Tables.
func (r recordedRows) Len(table string) (count int, err error) {
	for _, row := range r.recorded.Rows {
		if row.Table == table {
			count++
		}
	}
	return count, r.complete(table)
}

// Scan implements invoker.Tables.
func (r recordedRows) Scan(table, from string, fn func(key string, value []byte) bool) error {
	for _, row := range r.recorded.Rows { // ascending, as they were exported
		if row.Table == table && strings.Compare(row.Key, from) >= 0 && !fn(row.Key, row.Value) {
			return nil
		}
	}
	return r.complete(table)
}

// complete is an error if rows of the table are missing.
func (r recordedRows) complete(table string) error {
	if slices.Contains(r.recorded.CutTables, table) {
		return fmt.Errorf("table %s had too many rows to be exported: this journal cannot be replayed", table)
	}
	return nil
}

// recordedResults reads results again that an attempt has forgotten.
type recordedResults struct{ recorded *recordv1.RecordedJournal }

// Entries implements invoker.Journal.
func (r recordedResults) Entries(index uint32) ([]*recordv1.Entry, error) {
	return r.recorded.Entries[index-r.recorded.Start-1:], nil
}

// Completions implements invoker.Journal.
func (r recordedResults) Completions(_, last uint32) (map[uint32]*recordv1.Completion, uint32, error) {
	found := map[uint32]*recordv1.Completion{}
	for _, completion := range r.recorded.Completions {
		found[completion.Entry] = completion
	}
	return found, last, nil
}

// Completion implements invoker.Journal.
func (r recordedResults) Completion(index uint32) (*recordv1.Completion, error) {
	for _, completion := range r.recorded.Completions {
		if completion.Entry == index {
			return completion, nil
		}
	}
	return nil, nil
}

// Parts implements invoker.Journal: an export has values as a whole.
func (r recordedResults) Parts(index, _ uint32) ([][]byte, error) {
	return nil, fmt.Errorf("the journal has the result of entry %d in parts: it was not exported as journals are", index)
}
