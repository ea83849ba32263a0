package partition

import (
	"context"
	"fmt"
	"testing"
	"testing/synctest"

	"github.com/google/uuid"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/apipb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/perdure/perdure/actor"
	"github.com/perdure/perdure/internal/invocation"
	"github.com/perdure/perdure/internal/invoker/inprocess"
	recordv1 "github.com/perdure/perdure/internal/record/v1"
	"github.com/perdure/perdure/storage/memstore"
	"github.com/perdure/perdure/storage/nodelog"
	"github.com/perdure/perdure/storage/vfs"
)

// TestDurableRecordsPerCall counts the appends to the log that one call costs. Each is a sync, so
// these numbers are what latency is made of. In fake time nothing but a gate closes a record.
func TestDurableRecordsPerCall(t *testing.T) {
	method := func(name string, mode actor.Mode, handle func(actor.Context) error) *actor.MethodDesc {
		return &actor.MethodDesc{
			Service: "s", Name: name, Kind: actor.KindObject, Mode: mode, KeyField: 1,
			NewRequest: func() proto.Message { return new(apipb.Mixin) }, NewResponse: func() proto.Message { return new(apipb.Mixin) },
			Handle: func(ctx actor.Context, _ any, _ proto.Message) (proto.Message, error) {
				return &apipb.Mixin{}, handle(ctx)
			},
		}
	}
	runs := func(count int) func(actor.Context) error {
		return func(ctx actor.Context) error {
			for i := range count {
				if err := actor.Do(ctx, fmt.Sprint(i), func(context.Context) error { return nil }); err != nil {
					return err
				}
			}
			return nil
		}
	}
	set := func(ctx actor.Context) error {
		actor.StateOf[*wrapperspb.Int64Value](ctx).Set(wrapperspb.Int64(1))
		return nil
	}
	for _, test := range []struct {
		method  *actor.MethodDesc
		records uint64
	}{
		{method("Look", actor.ModeTransaction, func(actor.Context) error { return nil }), 0},
		{method("Set", actor.ModeTransaction, set), 1},
		{method("Plain", actor.ModeDurable, func(actor.Context) error { return nil }), 1},
		{method("SetDurably", actor.ModeDurable, set), 1},
		{method("Run", actor.ModeDurable, runs(1)), 2},
		{method("Run10", actor.ModeDurable, runs(10)), 11},
	} {
		t.Run(test.method.Name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				inv := inprocess.New(inprocess.Config{})
				desc := &actor.ServiceDesc{
					Name: "s", Kind: actor.KindObject, Methods: []*actor.MethodDesc{test.method},
					StateType: func() proto.Message { return new(wrapperspb.Int64Value) },
				}
				if err := inv.Register(desc, struct{}{}); err != nil {
					t.Fatal(err)
				}
				log, err := nodelog.Open(nodelog.Options{Dir: "/log", FS: vfs.NewMem()})
				if err != nil {
					t.Fatal(err)
				}
				n := startOn(t, log, memstore.New(memstore.Options{}), 1, inv, func() {
					_ = inv.Close(context.Background())
					_ = log.Close()
				})
				defer n.stop()
				synctest.Wait()
				before := log.Stats().Appends
				target := invocation.Target{Service: "s", Key: "k", Handler: test.method.Name}
				id := invocation.NewID(target.Hash(), uuid.Must(uuid.NewV7()))
				result, err := n.Call(t.Context(), &recordv1.Invoke{
					InvocationId: id[:], Mode: uint32(test.method.Mode),
					Target: &recordv1.Target{Service: target.Service, Key: target.Key, Handler: target.Handler},
				})
				if err != nil || result.Error != nil {
					t.Fatal(result, err)
				}
				if got := uint64(log.Stats().Appends - before); got != test.records {
					t.Errorf("%d records, want %d", got, test.records)
				}
			})
		})
	}
}
