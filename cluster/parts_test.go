package cluster_test

import (
	"bytes"
	"context"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/perdure/perdure/actor"
	"github.com/perdure/perdure/cluster"
	"github.com/perdure/perdure/internal/stress"
	adminv1 "github.com/perdure/perdure/proto/perdure/admin/v1"
)

// blobs are made once: handlers that are crashed make them again and again.
var blobs sync.Map

// blob is so many bytes that follow from a seed. Nobody may change them.
func blob(seed uint64, size int) []byte {
	name := [2]uint64{seed, uint64(size)}
	if made, ok := blobs.Load(name); ok {
		return made.([]byte)
	}
	data := make([]byte, size)
	_, _ = rand.NewChaCha8([32]byte{byte(seed)}).Read(data) // It does not fail.
	blobs.Store(name, data)
	return data
}

func produce(seed uint64, size int) func(context.Context) (*wrapperspb.BytesValue, error) {
	return func(context.Context) (*wrapperspb.BytesValue, error) { return wrapperspb.Bytes(blob(seed, size)), nil }
}

func sameBlob(got *wrapperspb.BytesValue, err error, seed uint64, size int) error {
	if err == nil && !bytes.Equal(got.GetValue(), blob(seed, size)) {
		return fmt.Errorf("value %d came back with %d bytes that are others", seed, len(got.GetValue()))
	}
	return err
}

// TestLargeResults: a Run returns more than a record takes, is replayed, and its value is the same,
// however often the handler is crashed: also between two parts of it.
func TestLargeResults(t *testing.T) {
	const size = 2<<20 + 7
	eachWayToWait(t, func(s *stage) {
		var sizes [2]int
		var made atomic.Int64
		name := s.on("large", func(ctx actor.Context) (string, error) {
			here, err := actor.Run(ctx, "here", func(ctx context.Context) (*wrapperspb.BytesValue, error) {
				made.Add(1)
				return produce(1, size)(ctx)
			})
			if err := sameBlob(here, err, 1, size); err != nil {
				return "", err
			}
			aside := []actor.Future[*wrapperspb.BytesValue]{actor.RunAsync(ctx, "two", produce(2, size)), actor.RunAsync(ctx, "three", produce(3, 100))}
			if err := actor.Sleep(ctx, time.Hour); err != nil {
				return "", err
			}
			all, err := actor.All(ctx, aside...)
			if err != nil {
				return "", err
			}
			for i, value := range all {
				sizes[i] = len(value.GetValue())
			}
			return "done", sameBlob(all[0], nil, 2, size)
		})
		got, err := s.invoke(s.t.Context(), s.things.Methods[keep], "k", name)
		if got != "done" || err != nil || sizes != [2]int{size, 100} {
			s.t.Error(got, err, sizes)
		}
		want := int64(1)
		if strings.Contains(s.t.Name(), "crash") || stress.Crashing() {
			want = size/(240<<10) + 2 // once for each part that it was crashed behind
		}
		if made.Load() != want {
			s.t.Errorf("the closure ran %d times, want %d", made.Load(), want)
		}
	})
}

// TestLargeResultOnDisk: other objects of the partition are served while a value of many records is
// on its way, the value survives the node, people see its size, and its rows go with the journal.
func TestLargeResultOnDisk(t *testing.T) {
	countsAttempts(t)
	const size = 24 << 20
	dir := t.TempDir()
	var runs, longest atomic.Int64
	open := func() *stage {
		return downloads(t, dir, size, func(ctx context.Context) (*wrapperspb.BytesValue, error) {
			runs.Add(1)
			return produce(1, size)(ctx)
		})
	}
	s := open()
	flow, err := s.send(t.Context(), s.flows.Methods[flowRun], "f", "large")
	s.must(nil, err)
	for s.status(flow.ID()) != "INVOCATION_STATUS_SUSPENDED" {
		began := time.Now()
		s.must(s.do(t.Context(), "another", "add 1"))
		longest.Store(max(longest.Load(), int64(time.Since(began))))
	}
	t.Logf("a call of another object took %s at most while %d MiB were recorded", time.Duration(longest.Load()), size>>20)
	stopNode(t, s.node)

	s = open()
	defer func() { stopNode(t, s.node) }()
	var result *adminv1.Payload
	for _, entry := range s.look(flow.ID()).GetJournal() {
		if entry.GetName() == "download" {
			result = entry.GetResult()
		}
	}
	if result.GetSizeBytes() < size || !strings.Contains(result.GetNote(), "24.0 MiB, left out") {
		t.Errorf("the journal shows %v", result)
	}
	s.must(s.invoke(t.Context(), s.flows.Methods[flowLook], "f", "go"))
	if got, err := actor.Attach[*mixin](s.client, flow.ID()).Attach(t.Context()); got.GetRoot() != "done" || err != nil {
		t.Fatal(got, err)
	}
	if n := runs.Load(); n != 1 {
		t.Errorf("the closure ran %d times", n)
	}
	refused := s.admin("ExportJournal", &adminv1.ExportJournalRequest{InvocationId: flow.ID()}, &adminv1.ExportJournalResponse{})
	if !strings.Contains(refused, "has a result of 24.0 MiB") {
		t.Errorf("the export says %q", refused)
	}
}

// downloads has a handler "large" that waits once it has what a Run makes, and one that lets it go on, "go".
func downloads(t *testing.T, dir string, size int, run func(context.Context) (*wrapperspb.BytesValue, error)) *stage {
	s := newStage(t, cluster.WithDataDir(dir), cluster.WithPartitions(1), cluster.WithInactivityTimeout(time.Nanosecond))
	s.on("large", func(ctx actor.Context) (string, error) {
		got, err := actor.Run(ctx, "download", run)
		if err := sameBlob(got, err, 1, size); err != nil {
			return "", err
		}
		if _, err := actor.PromiseOf[*mixin](ctx, "p").Await(ctx); err != nil {
			return "", err
		}
		return "done", nil
	})
	s.on("go", func(ctx actor.Context) (string, error) {
		return "", actor.PromiseOf[*mixin](ctx, "p").Resolve(ctx, &mixin{})
	})
	return s
}

// TestResultLargerThanAMessage: a value that is larger than anything else that a node takes is recorded
// anew if the node goes down in the middle of it, and read again by the handler that is replayed.
func TestResultLargerThanAMessage(t *testing.T) {
	countsAttempts(t)
	const size = 80 << 20
	dir := t.TempDir()
	var runs atomic.Int64
	made := make(chan struct{}, 10)
	value := produce(1, size)
	_ = blob(1, size) // while no handler waits for it
	open := func() *stage {
		return downloads(t, dir, size, func(ctx context.Context) (*wrapperspb.BytesValue, error) {
			runs.Add(1)
			defer func() { made <- struct{}{} }()
			return value(ctx)
		})
	}
	s := open()
	flow, err := s.send(t.Context(), s.flows.Methods[flowRun], "f", "large")
	s.must(nil, err)
	<-made
	stopNode(t, s.node) // The attempt waits for the disk 80 times before all parts are on it.

	s = open()
	defer func() { stopNode(t, s.node) }()
	for s.status(flow.ID()) != "INVOCATION_STATUS_SUSPENDED" {
		time.Sleep(10 * time.Millisecond) // polling a real node; the suite's timeout ends it
	}
	s.must(s.invoke(t.Context(), s.flows.Methods[flowLook], "f", "go"))
	if got, err := actor.Attach[*mixin](s.client, flow.ID()).Attach(t.Context()); got.GetRoot() != "done" || err != nil {
		t.Fatal(got, err)
	}
	switch n := runs.Load(); n {
	case 1:
		t.Log("all parts were on the disk before the node stopped: its second life was not tried")
	case 2:
	default:
		t.Errorf("the closure ran %d times, want 2: once for each life of the node", n)
	}
}

// TestRestartWithLargeResults: a restart keeps entries whose results are larger than a record. They are
// not made again, are the same, and go with the invocation that they were copied to.
func TestRestartWithLargeResults(t *testing.T) {
	const size = 2<<20 + 7
	eachLife(t, func(s *stage) {
		var broken atomic.Bool
		broken.Store(true)
		name := s.on("large", func(ctx actor.Context) (string, error) {
			large, err := actor.Run(ctx, "large", produce(1, size))
			if err := sameBlob(large, err, 1, size); err != nil {
				return "", err
			}
			number, err := actor.Run(ctx, "number", func(context.Context) (int64, error) { return int64(rand.Uint32()), nil })
			if err == nil && broken.Load() {
				err = actor.Errorf(actor.FailedPrecondition, "no stock")
			}
			return fmt.Sprint(number), err
		})
		old, err := s.send(s.t.Context(), s.things.Methods[keep], "k", name)
		s.must(nil, err)
		_, err = s.attach(old)
		s.refused(err, actor.FailedPrecondition)
		broken.Store(false)
		restarted, _ := s.restartFrom(old.ID(), 2)
		// The old one is not needed any more once the new one has begun.
		found := s.settle(restarted, "_SUCCEEDED")
		if failed := s.admin("PurgeInvocation", &adminv1.PurgeInvocationRequest{InvocationId: old.ID()}, &adminv1.PurgeInvocationResponse{}); failed != "" {
			s.t.Error(failed)
		}
		if found.GetRestartedEntries() != 2 || found.GetEntries() != 2 {
			s.t.Error(found)
		}
		again, _ := s.restartFrom(restarted, 2)
		got, want := s.settle(again, "_SUCCEEDED"), s.look(restarted).GetResponse().GetJson()
		if json := s.look(got.GetId()).GetResponse().GetJson(); json != want || json == "" {
			s.t.Errorf("restarted twice, its handler got %s and %s", want, json)
		}
	})
}

// TestRestartGoesOn: a node that goes down while a journal is copied goes on copying it when it is back.
func TestRestartGoesOn(t *testing.T) {
	countsAttempts(t)
	const size = 12 << 20
	dir := t.TempDir()
	var runs atomic.Int64
	open := func(broken bool) *stage {
		s := newStage(t, cluster.WithDataDir(dir), cluster.WithPartitions(1))
		s.on("large", func(ctx actor.Context) (string, error) {
			got, err := actor.Run(ctx, "download", func(ctx context.Context) (*wrapperspb.BytesValue, error) {
				runs.Add(1)
				return produce(1, size)(ctx)
			})
			if err == nil && broken {
				err = actor.Errorf(actor.FailedPrecondition, "no stock")
			}
			return "done", sameBlob(got, err, 1, size)
		})
		return s
	}
	s := open(true)
	old, err := s.send(t.Context(), s.things.Methods[keep], "k", "large")
	s.must(nil, err)
	_, err = s.attach(old)
	s.refused(err, actor.FailedPrecondition)
	restarted, status := s.restartFrom(old.ID(), 1)
	if status != adminv1.InvocationStatus_INVOCATION_STATUS_SUSPENDED {
		t.Errorf("with a slice of its journal it is %s", status)
	}
	if failed := s.admin("PurgeInvocation", &adminv1.PurgeInvocationRequest{InvocationId: old.ID()}, &adminv1.PurgeInvocationResponse{}); !strings.Contains(failed, "is being copied to "+restarted) {
		t.Errorf("the purge of what is copied says %q", failed)
	}
	stopNode(t, s.node)

	s = open(false)
	defer func() { stopNode(t, s.node) }()
	renewed := actor.Attach[*mixin](s.client, restarted)
	if got, err := renewed.Attach(t.Context()); got.GetRoot() != "done" || err != nil || runs.Load() != 1 {
		t.Fatal(got, err, runs.Load())
	}
}
