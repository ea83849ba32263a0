package partition

import (
	"context"
	"fmt"
	"testing"

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
)

func TestReadSeesWhatItsCallerWasTold(t *testing.T) {
	mk := func(name string, mode actor.Mode, f func(actor.Context, *apipb.Mixin) (*apipb.Mixin, error)) *actor.MethodDesc {
		return &actor.MethodDesc{Service: "s", Name: name, Kind: actor.KindObject, Mode: mode, KeyField: 1,
			NewRequest: func() proto.Message { return new(apipb.Mixin) }, NewResponse: func() proto.Message { return new(apipb.Mixin) },
			Handle: func(ctx actor.Context, _ any, req proto.Message) (proto.Message, error) {
				return f(ctx, req.(*apipb.Mixin))
			}}
	}
	add := mk("Add", actor.ModeTransaction, func(ctx actor.Context, _ *apipb.Mixin) (*apipb.Mixin, error) {
		s := actor.StateOf[*wrapperspb.Int64Value](ctx)
		s.Update(func(v *wrapperspb.Int64Value) { v.Value++ })
		return &apipb.Mixin{Root: fmt.Sprint(s.Get().Value)}, nil
	})
	get := mk("Get", actor.ModeRead, func(ctx actor.Context, _ *apipb.Mixin) (*apipb.Mixin, error) {
		return &apipb.Mixin{Root: fmt.Sprint(actor.StateOf[*wrapperspb.Int64Value](ctx).Get().GetValue())}, nil
	})
	stale := 0
	both := mk("Both", actor.ModeDurable, func(ctx actor.Context, _ *apipb.Mixin) (*apipb.Mixin, error) {
		w, err := actor.Invoke[*apipb.Mixin](ctx, ctx, add, "other", &apipb.Mixin{Name: "other"}, nil)
		if err != nil {
			return nil, err
		}
		r, err := actor.Invoke[*apipb.Mixin](ctx, ctx, get, "other", &apipb.Mixin{Name: "other"}, nil)
		if err != nil {
			return nil, err
		}
		if w.Root != r.Root {
			stale++
		}
		return r, nil
	})
	inv := inprocess.New(inprocess.Config{})
	if err := inv.Register(&actor.ServiceDesc{Name: "s", Kind: actor.KindObject, Methods: []*actor.MethodDesc{add, get, both}, StateType: func() proto.Message { return new(wrapperspb.Int64Value) }}, struct{}{}); err != nil {
		t.Fatal(err)
	}
	log, err := nodelog.Open(nodelog.Options{Dir: t.TempDir(), MinFreeBytes: -1})
	if err != nil {
		t.Fatal(err)
	}
	n := startOn(t, log, memstore.New(memstore.Options{}), 1, inv, func() { _ = inv.Close(context.Background()); _ = log.Close() })
	defer n.stop()
	for i := range 50 {
		target := invocation.Target{Service: "s", Key: fmt.Sprint(i), Handler: "Both"}
		id := invocation.NewID(target.Hash(), uuid.Must(uuid.NewV7()))
		in, _ := proto.Marshal(&apipb.Mixin{Name: target.Key})
		if r, err := n.Call(context.Background(), &recordv1.Invoke{InvocationId: id[:], Target: &recordv1.Target{Service: "s", Key: target.Key, Handler: "Both"}, Mode: uint32(actor.ModeDurable), Input: in}); err != nil || r.Error != nil {
			t.Fatal(err, r)
		}
	}

	if stale > 0 {
		t.Errorf("%d of 50 reads did not see the write that the same handler had been told of", stale)
	}
}
