package partition

import (
	"context"
	"fmt"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/uuid"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/apipb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/perdure/perdure/actor"
	"github.com/perdure/perdure/cluster/replica"
	"github.com/perdure/perdure/internal/invocation"
	"github.com/perdure/perdure/internal/invoker/inprocess"
	recordv1 "github.com/perdure/perdure/internal/record/v1"
	"github.com/perdure/perdure/storage/memstore"
	"github.com/perdure/perdure/storage/nodelog"
	"github.com/perdure/perdure/storage/vfs"
)

// countedLog counts the records that are written to it.
type countedLog struct {
	replica.Log
	records atomic.Int64
}

func (l *countedLog) Append(writes []nodelog.GroupWrite) error {
	for _, w := range writes {
		l.records.Add(int64(len(w.Entries)))
	}
	return l.Log.Append(writes)
}

// TestRecordsPerTransaction counts what docs/guides/transactions.md says a transaction costs.
func TestRecordsPerTransaction(t *testing.T) {
	const partitions = 4
	method := func(service, name string, kind actor.Kind, mode actor.Mode, handle func(actor.Context, *apipb.Mixin) error) *actor.MethodDesc {
		m := &actor.MethodDesc{
			Service: service, Name: name, Kind: kind, Mode: mode,
			NewRequest: func() proto.Message { return new(apipb.Mixin) }, NewResponse: func() proto.Message { return new(apipb.Mixin) },
			Handle: func(ctx actor.Context, _ any, req proto.Message) (proto.Message, error) {
				return &apipb.Mixin{}, handle(ctx, req.(*apipb.Mixin))
			},
		}
		if kind == actor.KindObject {
			m.KeyField = 1
		}
		return m
	}
	set := method("object", "Set", actor.KindObject, actor.ModeTransaction, func(ctx actor.Context, _ *apipb.Mixin) error {
		actor.StateOf[*wrapperspb.Int64Value](ctx).Set(wrapperspb.Int64(1))
		return nil
	})
	get := method("object", "Get", actor.KindObject, actor.ModeRead, func(ctx actor.Context, _ *apipb.Mixin) error {
		actor.StateOf[*wrapperspb.Int64Value](ctx).Get()
		return nil
	})
	// keyIn is a key of the n-th object that lives in a partition.
	keyIn := func(partition uint32, n int) string {
		for i := 0; ; i++ {
			key := fmt.Sprint("k", i)
			if invocation.PartitionOf(invocation.Target{Service: "object", Key: key}.Hash(), partitions) == partition {
				if n == 0 {
					return key
				}
				n--
			}
		}
	}
	type calls map[string]*actor.MethodDesc
	for name, test := range map[string]struct {
		calls     calls
		retention int64
		// before the reply, and in all.
		before, all int64
	}{
		"the root's partition":            {calls{keyIn(1, 0): set, keyIn(1, 1): set}, 0, 1, 1},
		"the root's partition, keyed":     {calls{keyIn(1, 0): set}, 60_000, 1, 1},
		"one other partition":             {calls{keyIn(2, 0): set, keyIn(2, 1): set}, 0, 1, 1},
		"one other partition, keyed":      {calls{keyIn(2, 0): set}, 60_000, 2, 4},
		"two other partitions":            {calls{keyIn(2, 0): set, keyIn(3, 0): set}, 0, 2, 4},
		"three other partitions":          {calls{keyIn(2, 0): set, keyIn(3, 0): set, keyIn(4, 0): set}, 0, 3, 6},
		"two other partitions, keyed":     {calls{keyIn(2, 0): set, keyIn(3, 0): set}, 60_000, 3, 6},
		"the root's partition and others": {calls{keyIn(1, 0): set, keyIn(2, 0): set, keyIn(3, 0): set}, 0, 3, 6},
		"one written, one read":           {calls{keyIn(2, 0): set, keyIn(3, 0): get}, 0, 2, 4},
		"only read":                       {calls{keyIn(1, 0): get, keyIn(2, 0): get, keyIn(3, 0): get}, 0, 0, 0},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				root := method("root", "Do", actor.KindService, actor.ModeTransaction, func(ctx actor.Context, _ *apipb.Mixin) error {
					for key, callee := range test.calls {
						if _, err := actor.Invoke[*apipb.Mixin](ctx, ctx, callee, key, &apipb.Mixin{}, nil); err != nil {
							return err
						}
					}
					return nil
				})
				inv := inprocess.New(inprocess.Config{})
				for _, desc := range []*actor.ServiceDesc{
					{Name: "root", Kind: actor.KindService, Methods: []*actor.MethodDesc{root}},
					{Name: "object", Kind: actor.KindObject, Methods: []*actor.MethodDesc{set, get}, StateType: func() proto.Message { return new(wrapperspb.Int64Value) }},
				} {
					if err := inv.Register(desc, struct{}{}); err != nil {
						t.Fatal(err)
					}
				}
				disk, err := nodelog.Open(nodelog.Options{Dir: "/log", FS: vfs.NewMem()})
				if err != nil {
					t.Fatal(err)
				}
				log := &countedLog{Log: disk}
				n := startOn(t, log, memstore.New(memstore.Options{}), partitions, inv, func() {
					_ = inv.Close(context.Background())
					_ = disk.Close()
				})
				defer n.stop()
				synctest.Wait()
				began := log.records.Load()
				id := invocation.NewID(0, uuid.Must(uuid.NewV7())) // hash 0 is partition 1
				result, err := n.Call(t.Context(), &recordv1.Invoke{
					InvocationId: id[:], Mode: uint32(actor.ModeTransaction), Target: &recordv1.Target{Service: "root", Handler: "Do"}, RetentionMs: test.retention,
				})
				if err != nil || result.Error != nil {
					t.Fatal(result, err)
				}
				if got := log.records.Load() - began; got != test.before {
					t.Errorf("%d records before the reply, want %d", got, test.before)
				}
				time.Sleep(2 * time.Second) // fake: what is lazy is written
				synctest.Wait()
				if got := log.records.Load() - began; got != test.all {
					t.Errorf("%d records in all, want %d", got, test.all)
				}
			})
		})
	}
}
