package cluster_test

import (
	"bytes"
	"context"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/perdure/perdure/actor"
	"github.com/perdure/perdure/cluster"
	adminv1 "github.com/perdure/perdure/proto/perdure/admin/v1"
)

// blob is so many bytes that follow from a seed.
func blob(seed uint64, size int) []byte {
	data := make([]byte, size)
	_, _ = rand.NewChaCha8([32]byte{byte(seed)}).Read(data) // It does not fail.
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
		if strings.Contains(s.t.Name(), "crash") {
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
	const size = 24 << 20
	dir := t.TempDir()
	var runs, longest atomic.Int64
	open := func() *stage {
		s := newStage(t, cluster.WithDataDir(dir), cluster.WithPartitions(1), cluster.WithInactivityTimeout(time.Nanosecond))
		s.on("large", func(ctx actor.Context) (string, error) {
			got, err := actor.Run(ctx, "download", func(ctx context.Context) (*wrapperspb.BytesValue, error) {
				runs.Add(1)
				return produce(1, size)(ctx)
			})
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
