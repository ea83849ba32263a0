package actortest

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/perdure/perdure/actor"
	"github.com/perdure/perdure/internal/invocation"
	"github.com/perdure/perdure/internal/journal"
	recordv1 "github.com/perdure/perdure/internal/record/v1"
	"github.com/perdure/perdure/internal/routing"
	adminv1 "github.com/perdure/perdure/proto/perdure/admin/v1"
)

// Entry is one step of a journal.
type Entry struct {
	// Index counts from 0, which is the request.
	Index int
	// Kind is what perdure invocations get shows, such as "run", "call", "sleep" or "set_state".
	Kind string
	// Name says more: the name of a run, promise or signal, the target of a call or send, the
	// length of a sleep.
	Name string
	// Input and Result are what the step gave and what it got, as JSON; "" for nothing.
	Input, Result string
	// Failure is the terminal error that it got; "" if it has succeeded or is pending.
	Failure string
	// Pending: its result is not there.
	Pending bool
	// At is when it was made.
	At time.Time
}

// String is the entry without what differs from run to run: instants and call sites.
func (e Entry) String() string {
	text := fmt.Sprintf("%d %s", e.Index, e.Kind)
	if e.Name != "" {
		text += " " + e.Name
	}
	if e.Input != "" {
		text += " " + e.Input
	}
	switch {
	case e.Pending:
		text += " -> pending"
	case e.Failure != "":
		text += " -> " + e.Failure
	case e.Result != "":
		text += " -> " + e.Result
	}
	return text
}

// Journal is what an invocation has recorded and is durable, the request first. It fails the test
// if there is no such invocation: its retention is over, or it is a READ or an unfinished
// TRANSACTION, of which nothing is kept.
func (n *Node) Journal(t testing.TB, invocationID string) []Entry {
	t.Helper()
	n.Client()
	request := &adminv1.GetInvocationRequest{InvocationId: invocationID, PageSize: routing.MaxPage}
	var entries []Entry
	for {
		page, err := led(func() (*adminv1.GetInvocationResponse, error) {
			return n.admin.GetInvocation(context.Background(), request)
		})
		if err != nil {
			t.Fatalf("journal of %s: %v", invocationID, err)
		}
		if entries == nil {
			own := page.GetInvocation()
			entries = append(entries, Entry{Kind: "input", Name: own.GetTarget().GetService() + "/" + own.GetTarget().GetHandler(), Input: shown(page.GetInput()), At: own.GetCreatedAt().AsTime()})
		}
		for _, entry := range page.GetJournal() {
			entries = append(entries, entryOf(entry))
		}
		if request.PageToken = page.GetNextPageToken(); request.PageToken == "" {
			return entries
		}
	}
}

// led asks until the partition has a leader: it may have none at a test's start, and for a while
// when it loses one.
func led[T any](ask func() (T, error)) (T, error) {
	for waited := time.Duration(0); ; waited += 10 * time.Millisecond {
		got, err := ask()
		failed, ok := errors.AsType[*routing.Error](err)
		if !ok || failed.Code != routing.CodeUnavailable || waited >= time.Minute {
			return got, err
		}
		time.Sleep(10 * time.Millisecond) // fake time: until everybody has done what they can
	}
}

func entryOf(e *adminv1.JournalEntry) Entry {
	entry := Entry{
		Index: int(e.GetIndex()), Kind: e.GetKind(), Name: e.GetName(), Input: shown(e.GetInput()), Result: shown(e.GetResult()),
		Pending: e.GetOutcome() == adminv1.EntryOutcome_ENTRY_OUTCOME_PENDING, At: e.GetAt().AsTime(),
	}
	if failed := e.GetError(); failed != nil {
		entry.Failure = actor.Code(failed.GetCode()).String() + ": " + failed.GetMessage()
	}
	return entry
}

// shown is a payload's JSON, or why it has none.
func shown(p *adminv1.Payload) string {
	if p.GetNote() != "" {
		return "(" + p.GetNote() + ")"
	}
	return p.GetJson()
}

// Golden compares entries, one a line, with the file of that name in the package's folder, such as
// "testdata/order.journal". With -actortest.update it writes the file instead.
func Golden(t testing.TB, file string, entries []Entry) {
	t.Helper()
	var text strings.Builder
	for _, entry := range entries {
		text.WriteString(entry.String() + "\n")
	}
	if *update {
		if err := errors.Join(os.MkdirAll(filepath.Dir(file), 0o755), os.WriteFile(file, []byte(text.String()), 0o644)); err != nil {
			t.Fatal(err)
		}
		return
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatalf("%v: -actortest.update writes it", err)
	}
	if got := text.String(); got != string(want) {
		t.Errorf("the journal is not that of %s (-actortest.update takes it over):\n%s", file, sideBySide(strings.Split(string(want), "\n"), strings.Split(got, "\n")))
	}
}

// sideBySide marks the lines that differ.
func sideBySide(was, is []string) string {
	width := 0
	for _, line := range was {
		width = max(width, min(utf8.RuneCountInString(line), 80))
	}
	var out strings.Builder
	for i := range max(len(was), len(is)) {
		var left, right string
		if i < len(was) {
			left = was[i]
		}
		if i < len(is) {
			right = is[i]
		}
		mark := " "
		if left != right {
			mark = "|"
		}
		fmt.Fprintf(&out, "%s%s %s %s\n", left, strings.Repeat(" ", max(0, width-utf8.RuneCountInString(left))), mark, right)
	}
	return out.String()
}

// unfinished says which invocations have not ended and what they wait for.
func (n *Node) unfinished() (lines []string) {
	page, err := n.router.InvocationsPage(context.Background(), routing.Filter{Statuses: []recordv1.Status{
		recordv1.Status_STATUS_QUEUED, recordv1.Status_STATUS_RUNNING, recordv1.Status_STATUS_SUSPENDED,
		recordv1.Status_STATUS_BACKING_OFF, recordv1.Status_STATUS_PAUSED,
	}, Limit: 20})
	if err != nil {
		return []string{err.Error()}
	}
	for _, found := range page.Found {
		detail, err := n.router.Invocation(context.Background(), found.ID)
		if err != nil {
			continue
		}
		target := detail.Row.GetTarget()
		line := fmt.Sprintf("%s is %s", invocation.Target{Service: target.GetService(), Key: target.GetKey(), Handler: target.GetHandler()},
			strings.ToLower(strings.TrimPrefix(detail.Row.GetStatus().String(), "STATUS_")))
		if last := len(detail.Journal); last > 0 {
			line += fmt.Sprintf(", its last entry is %d: %s", last, journal.Describe(detail.Journal[last-1]))
		}
		lines = append(lines, line)
	}
	return lines
}
