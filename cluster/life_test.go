package cluster_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"

	"github.com/perdure/perdure/actor"
	"github.com/perdure/perdure/actor/actortest"
	"github.com/perdure/perdure/cluster"
	adminv1 "github.com/perdure/perdure/proto/perdure/admin/v1"
)

// eachLife is eachWay for handlers that wait: also with every wait suspended.
func eachLife(t *testing.T, test func(s *stage)) {
	eachWay(t, test)
	for name, opts := range map[string][]cluster.Option{
		"suspend at once":                          {cluster.WithInactivityTimeout(time.Nanosecond), cluster.WithPartitions(8)},
		"suspend at once and crash at every entry": {cluster.WithInactivityTimeout(time.Nanosecond), cluster.WithPartitions(8), cluster.WithCrashAtEveryEntry()},
	} {
		t.Run(name, func(t *testing.T) { inMemory(t, test, opts...) })
	}
}

// admin calls an rpc of the admin service. It returns the message of an error.
func (s *stage) admin(rpc string, request, response proto.Message) string {
	s.t.Helper()
	body, err := protojson.Marshal(request)
	s.must(nil, err)
	status, answer := s.post("/perdure.admin.v1.AdminService/"+rpc, string(body))
	if status != http.StatusOK {
		return answer
	}
	s.must(nil, protojson.Unmarshal([]byte(answer), response))
	return ""
}

func (s *stage) look(id string) *adminv1.GetInvocationResponse {
	s.t.Helper()
	found := &adminv1.GetInvocationResponse{}
	if failed := s.admin("GetInvocation", &adminv1.GetInvocationRequest{InvocationId: id}, found); failed != "" {
		s.t.Errorf("get %s: %s", id, failed)
	}
	return found
}

// settle waits until an invocation has the status.
func (s *stage) settle(id, status string) *adminv1.Invocation {
	s.t.Helper()
	var found *adminv1.Invocation
	for range 1000 {
		found = s.look(id).GetInvocation()
		if strings.HasSuffix(found.GetStatus().String(), status) {
			return found
		}
		time.Sleep(10 * time.Millisecond) // of fake time
	}
	s.t.Errorf("%s is %s, not %s", id, found.GetStatus(), status)
	return found
}

// restartFrom restarts an invocation from an entry, and returns the id of the new one and what it is at once.
func (s *stage) restartFrom(id string, entry uint32) (string, adminv1.InvocationStatus) {
	s.t.Helper()
	response := &adminv1.RestartInvocationResponse{}
	if failed := s.admin("RestartInvocation", &adminv1.RestartInvocationRequest{InvocationId: id, From: entry}, response); failed != "" {
		s.t.Fatal(failed)
	}
	return response.GetInvocationId(), response.GetStatus()
}

func (s *stage) pause(id string) {
	s.t.Helper()
	if failed := s.admin("PauseInvocation", &adminv1.PauseInvocationRequest{InvocationId: id}, &adminv1.PauseInvocationResponse{}); failed != "" {
		s.t.Error(failed)
	}
}

func (s *stage) resume(id string) {
	s.t.Helper()
	if failed := s.admin("ResumeInvocation", &adminv1.ResumeInvocationRequest{InvocationId: id}, &adminv1.ResumeInvocationResponse{}); failed != "" {
		s.t.Error(failed)
	}
}

// notes are made by handlers, each once.
type notes struct {
	sync.Mutex
	made []string
}

func (n *notes) add(ctx context.Context, text string) error {
	return actor.Do(ctx, text, func(context.Context) error {
		n.Lock()
		defer n.Unlock()
		if !slices.Contains(n.made, text) { // A closure may run again after a crash.
			n.made = append(n.made, text)
		}
		return nil
	})
}

func (n *notes) text() string {
	n.Lock()
	defer n.Unlock()
	return strings.Join(n.made, ", ")
}

// tree names scripts of handlers that call one another, a → b → c, and note what they undo.
func (s *stage) tree(n *notes, leaf script) (root string) {
	below := s.on("c", leaf)
	for _, name := range []string{"b", "a"} {
		callee, key := below, string(name[0]+1)
		below = s.on(name, func(ctx actor.Context) (string, error) {
			_, err := s.invoke(ctx, s.things.Methods[keep], key, callee)
			if err != nil {
				if failed := n.add(ctx, name+" undone"); failed != nil {
					return "", failed
				}
				if failed := actor.Sleep(ctx, time.Second); failed != nil { // It is told once.
					return "", actor.Errorf(actor.Internal, "told twice: %w", failed)
				}
			}
			return "", err
		})
	}
	return below
}

func TestCancelLeafFirst(t *testing.T) {
	eachLife(t, func(s *stage) {
		var n notes
		s.tree(&n, func(ctx actor.Context) (string, error) {
			err := actor.Sleep(ctx, 24*time.Hour)
			if failed := n.add(ctx, "c undone"); failed != nil {
				return "", failed
			}
			return "", err
		})
		root, err := s.send(s.t.Context(), s.things.Methods[keep], "a", "a")
		s.must(nil, err)
		time.Sleep(time.Minute)
		s.must(nil, root.Cancel(s.t.Context()))
		_, err = s.attach(root)
		s.refused(err, actor.Canceled)
		if got := n.text(); got != "c undone, b undone, a undone" {
			s.t.Error(got)
		}
		s.settle(root.ID(), "_CANCELLED")
		s.free("a", "b", "c")
	})
}

// A callee that does not heed the cancel is waited for; the caller hears at its next wait.
func TestCancelWhileTheCalleeGoesOn(t *testing.T) {
	eachLife(t, func(s *stage) {
		var n notes
		s.tree(&n, func(ctx actor.Context) (string, error) {
			if err := actor.Sleep(ctx, 24*time.Hour); !errors.Is(err, actor.ErrCanceled) {
				return "", actor.Errorf(actor.Internal, "the sleep ended with %v", err)
			}
			return "all the same", actor.Sleep(ctx, time.Hour)
		})
		root, err := s.send(s.t.Context(), s.things.Methods[keep], "a", "a")
		s.must(nil, err)
		time.Sleep(time.Minute)
		s.must(nil, root.Cancel(s.t.Context()))
		_, err = s.attach(root)
		s.must(nil, err)
		if n.text() != "" {
			s.t.Error(n.text())
		}
	})
}

// Whatever a handler waits for beside its call ends its wait; then the cancel is told.
func TestCancelWhileSelecting(t *testing.T) {
	eachLife(t, func(s *stage) {
		s.on("deaf", func(ctx actor.Context) (string, error) {
			for range 3 { // Its first wait says that it was cancelled.
				_ = actor.Sleep(ctx, 4*time.Hour)
			}
			return "", nil
		})
		name := s.on("select", func(ctx actor.Context) (string, error) {
			called := actor.InvokeAsync[*mixin](ctx, ctx, s.things.Methods[keep], "b", &mixin{Root: "deaf"}, nil)
			winner, err := actor.Select(ctx, called, actor.After(ctx, time.Hour))
			if err != nil || winner != 1 {
				return "", actor.Errorf(actor.Internal, "select: %d, %v", winner, err)
			}
			if err := actor.Sleep(ctx, time.Hour); !errors.Is(err, actor.ErrCanceled) {
				return "", actor.Errorf(actor.Internal, "the sleep ended with %v", err)
			}
			return "told", nil
		})
		root, err := s.send(s.t.Context(), s.things.Methods[keep], "a", name)
		s.must(nil, err)
		time.Sleep(time.Minute)
		s.must(nil, root.Cancel(s.t.Context()))
		got, err := s.attach(root)
		if s.must(nil, err); got != "told" {
			s.t.Error(got)
		}
	})
}

func TestKillTree(t *testing.T) {
	eachLife(t, func(s *stage) {
		var n notes
		s.tree(&n, func(ctx actor.Context) (string, error) { return "", actor.Sleep(ctx, 24*time.Hour) })
		root, err := s.send(s.t.Context(), s.things.Methods[keep], "a", "a")
		s.must(nil, err)
		time.Sleep(time.Minute)
		s.kill(root.ID())
		_, err = s.attach(root)
		s.refused(err, actor.Canceled, "was killed")
		time.Sleep(time.Minute)
		s.free("a", "b", "c")
		if n.text() != "" {
			s.t.Error(n.text())
		}
	})
}

func TestPauseAndResume(t *testing.T) {
	eachLife(t, func(s *stage) {
		var n notes
		name := s.on("steps", func(ctx actor.Context) (string, error) {
			for step := range 3 {
				if err := actor.Sleep(ctx, time.Hour); err != nil {
					return "", err
				}
				s.must(nil, n.add(ctx, fmt.Sprint("step ", step)))
			}
			return "done", nil
		})
		root, err := s.send(s.t.Context(), s.things.Methods[keep], "a", name)
		s.must(nil, err)
		waiting, err := s.send(s.t.Context(), s.things.Methods[transact], "a", "add 1")
		s.must(nil, err)
		time.Sleep(90 * time.Minute)
		s.pause(root.ID())
		s.pause(waiting.ID())
		time.Sleep(10 * time.Hour)
		if n.text() != "step 0" {
			s.t.Error(n.text())
		}
		if status := s.settle(root.ID(), "_PAUSED"); status.GetAttempt() == 0 {
			s.t.Error(status)
		}
		s.resume(root.ID())
		began := time.Now()
		got, err := s.attach(root)
		if s.must(nil, err); got != "done" || n.text() != "step 0, step 1, step 2" {
			s.t.Error(got, n.text())
		}
		if took := time.Since(began); took < time.Hour || took > 90*time.Minute { // One of the two sleeps was over.
			s.t.Error(took)
		}
		s.values("a=0")
		s.resume(waiting.ID())
		_, err = s.attach(waiting)
		s.must(nil, err)
		s.values("a=1")
	})
}

// A handler that fails is paused by its policy; an operator who has mended the cause resumes it.
func TestPausedWhenExhausted(t *testing.T) {
	countsAttempts(t)
	inMemory(t, func(s *stage) {
		broken := true
		name := s.on("charge", func(ctx actor.Context) (string, error) {
			if err := actor.Do(ctx, "reserve", func(context.Context) error { return nil }); err != nil {
				return "", err
			}
			if broken {
				return "", errors.New("no connection to the bank")
			}
			return "charged", nil
		})
		root, err := s.send(s.t.Context(), s.things.Methods[pausing], "a", name)
		s.must(nil, err)
		time.Sleep(24 * time.Hour)
		found := s.settle(root.ID(), "_PAUSED")
		if found.GetFailedAttempts() != 3 || found.GetFailuresInRow() != 3 || found.GetMaxAttempts() != 3 || len(found.GetFailures()) != 3 {
			s.t.Error(found)
		}
		if len(found.GetFailures()) != 3 {
			return
		}
		for i, failed := range found.GetFailures() {
			if failed.GetAttempt() != uint32(i)+1 || failed.GetEntry() != 1 || failed.GetStep() != `Run "reserve"` || !strings.HasPrefix(failed.GetSite(), "life_test.go:") ||
				!strings.Contains(failed.GetError().GetMessage(), "no connection to the bank") || failed.GetTerminal() {
				s.t.Error(failed)
			}
		}
		if between := found.GetFailures()[1].GetAt().AsTime().Sub(found.GetFailures()[0].GetAt().AsTime()); between < time.Minute || between > 2*time.Minute {
			s.t.Error(between)
		}
		broken = false
		s.resume(root.ID())
		got, err := s.attach(root)
		if s.must(nil, err); got != "charged" {
			s.t.Error(got)
		}
	})
}

func TestRestartKeepsEntries(t *testing.T) {
	eachLife(t, func(s *stage) {
		var n notes
		broken := true
		name := s.on("order", func(ctx actor.Context) (string, error) {
			number := ctx.Rand().Uint32()
			before := fmt.Sprint(number, ctx.Now().UnixMilli())
			add(ctx, 1)
			if err := n.add(ctx, "charged "+before); err != nil { // The name of a step must replay.
				return "", err
			}
			add(ctx, 1)
			if err := n.add(ctx, fmt.Sprint("shipped ", ctx.Rand().Uint32())); err != nil {
				return "", err
			}
			if broken {
				return "", actor.Errorf(actor.FailedPrecondition, "no stock")
			}
			return fmt.Sprint(add(ctx, 1)), nil
		})
		old, err := s.send(s.t.Context(), s.things.Methods[keep], "a", name)
		s.must(nil, err)
		_, err = s.attach(old)
		s.refused(err, actor.FailedPrecondition)
		s.values("a=2")
		found := s.look(old.ID()).GetInvocation()
		if last := found.GetFailures()[len(found.GetFailures())-1]; !last.GetTerminal() || last.GetEntry() != 4 || !strings.Contains(last.GetStep(), "shipped") {
			s.t.Error(last)
		}
		broken = false
		request := &adminv1.RestartInvocationRequest{InvocationId: old.ID(), From: 2, RequestId: "once"}
		var first, again adminv1.RestartInvocationResponse
		for _, response := range []*adminv1.RestartInvocationResponse{&first, &again} {
			if failed := s.admin("RestartInvocation", request, response); failed != "" {
				s.t.Error(failed)
			}
		}
		if first.GetInvocationId() != again.GetInvocationId() || first.GetInvocationId() == old.ID() {
			s.t.Error(first.GetInvocationId(), again.GetInvocationId())
		}
		s.settle(first.GetInvocationId(), "_SUCCEEDED")
		renewed := s.look(first.GetInvocationId())
		if renewed.GetInvocation().GetRestartedFromInvocationId() != old.ID() || renewed.GetInvocation().GetRestartedEntries() != 2 ||
			!strings.Contains(renewed.GetResponse().GetJson(), `"3"`) {
			s.t.Error(renewed)
		}
		// The charge was not made again; what followed was, with other random numbers.
		n.Lock()
		if len(n.made) != 3 || !strings.HasPrefix(n.made[0], "charged") || n.made[1] == n.made[2] {
			s.t.Error(n.made)
		}
		n.Unlock()
		s.values("a=3")
		if failed := s.admin("RestartInvocation", &adminv1.RestartInvocationRequest{InvocationId: old.ID(), From: 2}, &first); !strings.Contains(failed, "has changed since") {
			s.t.Error(failed)
		}
	})
}

// TestRestartKeepsAwakeables: an awakeable of an entry that is kept has the id that the kept steps were made
// with, and one behind them is the new invocation's own.
func TestRestartKeepsAwakeables(t *testing.T) {
	eachLife(t, func(s *stage) {
		var broken atomic.Bool
		broken.Store(true)
		var mu sync.Mutex
		tokens := map[string]bool{}
		name := s.on("order", func(ctx actor.Context) (string, error) {
			for range 2 {
				token := actor.NewAwakeable[string](ctx)
				mu.Lock()
				tokens[token.ID()] = true
				mu.Unlock()
				if err := actor.ResolveAwakeable(ctx, ctx, token.ID(), "paid"); err != nil {
					return "", err
				}
				if _, err := token.Await(ctx); err != nil {
					return "", err
				}
			}
			if broken.Load() {
				return "", actor.Errorf(actor.FailedPrecondition, "no stock")
			}
			return "shipped", nil
		})
		old, err := s.send(s.t.Context(), s.things.Methods[keep], "a", name)
		s.must(nil, err)
		_, err = s.attach(old)
		s.refused(err, actor.FailedPrecondition)
		broken.Store(false)
		restarted, _ := s.restartFrom(old.ID(), 2)
		s.settle(restarted, "_SUCCEEDED")
		if len(tokens) != 3 {
			s.t.Error(tokens)
		}
	})
}

// TestRestartedJournalReplays: what a restarted invocation has kept of another one replays in a test of
// the exported journal with that one's clock and random numbers.
func TestRestartedJournalReplays(t *testing.T) {
	file := filepath.Join(t.TempDir(), "restarted.json")
	var things *actor.ServiceDesc
	var handlers *stage
	inMemory(t, func(s *stage) {
		things, handlers = s.things, s
		var broken atomic.Bool
		broken.Store(true)
		name := s.on("order", func(ctx actor.Context) (string, error) {
			for range 2 { // The name of a step must replay.
				step := fmt.Sprint("step ", ctx.Rand().Uint32(), " at ", ctx.Now().UnixMilli())
				if err := actor.Do(ctx, step, func(context.Context) error { return nil }); err != nil {
					return "", err
				}
			}
			if broken.Load() {
				return "", actor.Errorf(actor.FailedPrecondition, "no stock")
			}
			return "shipped", nil
		})
		old, err := s.send(s.t.Context(), s.things.Methods[keep], "a", name)
		s.must(nil, err)
		_, err = s.attach(old)
		s.refused(err, actor.FailedPrecondition)
		time.Sleep(time.Minute) // of fake time: the new one begins at another time
		broken.Store(false)
		restarted, _ := s.restartFrom(old.ID(), 1)
		s.settle(restarted, "_SUCCEEDED")
		exported := &adminv1.ExportJournalResponse{}
		if failed := s.admin("ExportJournal", &adminv1.ExportJournalRequest{InvocationId: restarted}, exported); failed != "" {
			s.t.Fatal(failed)
		}
		s.must(nil, os.WriteFile(file, exported.GetJournal(), 0o600))
	}, cluster.WithPartitions(1))
	actortest.Replay(t, func(r actor.Registrar) { r.RegisterService(things, handlers) }, file)
}

// TestBatch does the same to all that match, in pages, and leaves alone what was created since.
func TestBatch(t *testing.T) {
	inMemory(t, func(s *stage) {
		name := s.on("sleep", func(ctx actor.Context) (string, error) { return "", actor.Sleep(ctx, 10*time.Minute) })
		send := func(prefix string, count int) {
			for i := range count {
				_, err := s.send(s.t.Context(), s.things.Methods[keep], fmt.Sprint(prefix, i), name)
				s.must(nil, err)
			}
		}
		send("a-", 50)
		send("b-", 10)
		time.Sleep(time.Minute)
		batch := func(operation adminv1.InvocationOperation, dryRun bool, between func()) (matched, done uint64) {
			request := &adminv1.BatchInvocationsRequest{Operation: operation, DryRun: dryRun, RequestId: "batch", Invocations: &adminv1.ListInvocationsRequest{
				Service: s.things.Name, KeyPrefix: "a-", PageSize: 20,
			}}
			for pages := 1; ; pages++ {
				response := &adminv1.BatchInvocationsResponse{}
				if failed := s.admin("BatchInvocations", request, response); failed != "" || response.GetFailed() > 0 {
					s.t.Fatal(failed, response)
				}
				matched, done = matched+response.GetMatched(), done+response.GetDone()
				request.Invocations.PageToken, request.Invocations.CreatedBefore = response.GetNextPageToken(), response.GetCreatedBefore()
				if response.GetNextPageToken() == "" {
					if pages < 3 {
						s.t.Errorf("%d pages", pages)
					}
					return matched, done
				}
				between()
			}
		}
		late := 0
		more := func() {
			time.Sleep(time.Second)
			late++
			send(fmt.Sprint("a-late-", late, "-"), 5)
			time.Sleep(time.Second)
		}
		nothing := func() {}
		if matched, done := batch(adminv1.InvocationOperation_INVOCATION_OPERATION_PAUSE, true, nothing); matched != 50 || done != 0 {
			s.t.Error(matched, done)
		}
		if matched, done := batch(adminv1.InvocationOperation_INVOCATION_OPERATION_PAUSE, false, more); matched != 50 || done != 50 {
			s.t.Error(matched, done)
		}
		paused := &adminv1.ListInvocationsResponse{}
		if failed := s.admin("ListInvocations", &adminv1.ListInvocationsRequest{PageSize: 1000, Status: []adminv1.InvocationStatus{adminv1.InvocationStatus_INVOCATION_STATUS_PAUSED}}, paused); failed != "" || len(paused.GetInvocations()) != 50 {
			s.t.Error(failed, len(paused.GetInvocations()))
		}
		if matched, done := batch(adminv1.InvocationOperation_INVOCATION_OPERATION_KILL, false, nothing); matched != uint64(50+5*late) || done != matched {
			s.t.Error(matched, done)
		}
		// A batch of restarts that is asked for twice restarts each once, and not what it has started.
		for range 2 {
			if matched, done := batch(adminv1.InvocationOperation_INVOCATION_OPERATION_RESTART, false, nothing); matched != uint64(50+5*late) || done != matched {
				s.t.Error(matched, done)
			}
		}
		time.Sleep(20 * time.Minute)
		succeeded := &adminv1.ListInvocationsResponse{}
		if failed := s.admin("ListInvocations", &adminv1.ListInvocationsRequest{Service: s.things.Name, KeyPrefix: "a-", PageSize: 1000, Status: []adminv1.InvocationStatus{adminv1.InvocationStatus_INVOCATION_STATUS_SUCCEEDED}}, succeeded); failed != "" || len(succeeded.GetInvocations()) != 50+5*late {
			s.t.Error(failed, len(succeeded.GetInvocations()))
		}
		if matched, done := batch(adminv1.InvocationOperation_INVOCATION_OPERATION_PURGE, false, nothing); matched != uint64(2*(50+5*late)) || done != matched {
			s.t.Error(matched, done)
		}
	}, cluster.WithPartitions(4))
}

// TestEntriesOfOneThatWasKilled: how many entries an invocation has, and at which it stood, is still known when
// it was ended while it was suspended.
func TestEntriesOfOneThatWasKilled(t *testing.T) {
	eachLife(t, func(s *stage) {
		name := s.on("sleep", func(ctx actor.Context) (string, error) {
			add(ctx, 1)
			return "", actor.Sleep(ctx, time.Hour)
		})
		sent, err := s.send(s.t.Context(), s.things.Methods[pausing], "a", name)
		s.must(nil, err)
		time.Sleep(10 * time.Second) // of fake time: longer than it is kept in memory while it waits
		s.settle(sent.ID(), "_SUSPENDED")
		s.kill(sent.ID())
		listed := &adminv1.ListInvocationsResponse{}
		if failed := s.admin("ListInvocations", &adminv1.ListInvocationsRequest{Service: s.things.Name, Key: "a"}, listed); failed != "" || listed.GetInvocations()[0].GetEntries() != 2 {
			s.t.Error(failed, listed)
		}
		found := s.look(sent.ID()).GetInvocation()
		failures := found.GetFailures()
		if len(failures) != 1 || found.GetFailedAttempts() != 0 {
			s.t.Fatal(found)
		}
		if end := failures[0]; end.GetEntry() != 2 || end.GetStep() != "Sleep" || !strings.HasPrefix(end.GetSite(), "life_test.go:") || !end.GetTerminal() ||
			end.GetAttempt() == 0 || !strings.Contains(end.GetError().GetMessage(), "was killed") {
			s.t.Error(end)
		}
	})
}

// TestTriesOfARunAreShown: who looks at an invocation that seems to stand still sees that its Run fails, how
// often, why and when it is tried again.
func TestTriesOfARunAreShown(t *testing.T) {
	eachLife(t, func(s *stage) {
		name := s.on("flaky", func(ctx actor.Context) (string, error) {
			policy := actor.RunPolicy{InitialInterval: time.Hour, MaxInterval: time.Hour}
			return "", actor.Do(ctx, "pay", func(context.Context) error { return errors.New("no network") }, actor.RunRetry(policy))
		})
		sent, err := s.send(s.t.Context(), s.things.Methods[keep], "a", name)
		s.must(nil, err)
		began := time.Now()
		time.Sleep(time.Hour + time.Minute) // of fake time: the second try has failed by then
		journal := s.look(sent.ID()).GetJournal()
		if len(journal) != 1 || journal[0].GetFailedTries() != 2 || journal[0].GetLastFailure().GetMessage() != "no network" || !journal[0].GetNextTryAt().AsTime().After(began.Add(2*time.Hour-time.Minute)) {
			s.t.Error(journal)
		}
		s.kill(sent.ID())
	})
}

// A handler whose inactivity timeout is its own suspends by that, and a journal that is kept for
// less time than the result goes before it.
func TestOptionsOfJournals(t *testing.T) {
	inMemory(t, func(s *stage) {
		name := s.on("sleep", func(ctx actor.Context) (string, error) { return "rested", actor.Sleep(ctx, time.Hour) })
		quick, err := s.send(s.t.Context(), s.things.Methods[pausing], "a", name)
		s.must(nil, err)
		patient, err := s.send(s.t.Context(), s.things.Methods[keep], "b", name)
		s.must(nil, err)
		time.Sleep(10 * time.Second)
		s.settle(quick.ID(), "_SUSPENDED")
		s.settle(patient.ID(), "_RUNNING")
		_, err = s.attach(quick)
		s.must(nil, err)
		if found := s.look(quick.ID()); len(found.GetJournal()) != 1 {
			s.t.Error(found)
		}
		time.Sleep(20 * time.Minute)
		if found := s.look(quick.ID()); len(found.GetJournal()) != 0 || !strings.Contains(found.GetResponse().GetJson(), "rested") {
			s.t.Error(found)
		}
		refused := s.admin("RestartInvocation", &adminv1.RestartInvocationRequest{InvocationId: quick.ID()}, &adminv1.RestartInvocationResponse{})
		if !strings.Contains(refused, "is not kept any more") {
			s.t.Error(refused)
		}
		refused = s.admin("ExportJournal", &adminv1.ExportJournalRequest{InvocationId: quick.ID()}, &adminv1.ExportJournalResponse{})
		if !strings.Contains(refused, "is not kept any more") {
			s.t.Error(refused)
		}
	}, cluster.WithInactivityTimeout(time.Minute))
}
