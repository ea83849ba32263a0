package actor_test

import (
	"context"
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/apipb"

	"github.com/perdure/perdure/actor"
)

type registered []*actor.ServiceDesc

func (r *registered) RegisterService(desc *actor.ServiceDesc, _ any) { *r = append(*r, desc) }

func plain(mode actor.Mode, handle func(actor.Context, any, proto.Message) (proto.Message, error)) *actor.MethodDesc {
	empty := func() proto.Message { return new(apipb.Mixin) }
	return &actor.MethodDesc{Service: "t.v1.S", Name: "H", Kind: actor.KindService, Mode: mode, NewRequest: empty, NewResponse: empty, Handle: handle}
}

// TestMiddlewareIsMadeOnce: when a handler is registered, the first outermost; what it leaves alone is what
// it was, and so costs nothing.
func TestMiddlewareIsMadeOnce(t *testing.T) {
	var order []string
	named := func(name string) actor.Middleware {
		return func(method *actor.MethodDesc, next actor.HandlerFunc) actor.HandlerFunc {
			order = append(order, "make "+name)
			if method.Mode == actor.ModeRead {
				return nil
			}
			return func(ctx actor.Context, req proto.Message) (proto.Message, error) {
				order = append(order, name)
				return next(ctx, req)
			}
		}
	}
	handler := "the handler"
	handle := func(_ actor.Context, h any, _ proto.Message) (proto.Message, error) {
		order = append(order, h.(string))
		return nil, nil
	}
	desc := &actor.ServiceDesc{Name: "t.v1.S", Methods: []*actor.MethodDesc{plain(actor.ModeTransaction, handle), plain(actor.ModeRead, handle), plain(actor.ModeSignal, nil)}}
	var r registered
	actor.WithMiddleware(&r, named("outer"), named("inner")).RegisterService(desc, handler)
	wrapped := r[0].Methods
	if wrapped[0] == desc.Methods[0] || wrapped[1] != desc.Methods[1] || wrapped[2] != desc.Methods[2] || desc.Methods[0].Name != wrapped[0].Name {
		t.Error("the TRANSACTION is to be wrapped, the READ and the SIGNAL are not, and the description given stays as it was")
	}
	for range 2 {
		if _, err := wrapped[0].Handle(nil, handler, &apipb.Mixin{}); err != nil {
			t.Error(err)
		}
	}
	const want = "make inner, make outer, make inner, make outer, outer, inner, the handler, outer, inner, the handler"
	if got := strings.Join(order, ", "); got != want {
		t.Errorf("got %s\nwant %s", got, want)
	}
}

// TestMiddlewareCostsNoAllocation: neither does being wrapped.
func TestMiddlewareCostsNoAllocation(t *testing.T) {
	response := &apipb.Mixin{}
	desc := &actor.ServiceDesc{Name: "t.v1.S", Methods: []*actor.MethodDesc{plain(actor.ModeTransaction, func(actor.Context, any, proto.Message) (proto.Message, error) { return response, nil })}}
	var r registered
	through := func(_ *actor.MethodDesc, next actor.HandlerFunc) actor.HandlerFunc {
		return func(ctx actor.Context, req proto.Message) (proto.Message, error) { return next(ctx, req) }
	}
	actor.WithMiddleware(&r, through, through).RegisterService(desc, struct{}{})
	request := &apipb.Mixin{}
	if n := testing.AllocsPerRun(100, func() {
		if _, err := r[0].Methods[0].Handle(nil, nil, request); err != nil {
			t.Error(err)
		}
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

// TestOutsideOfHandlers: there are no headers and no replay, and no error.
func TestOutsideOfHandlers(t *testing.T) {
	for range actor.HeadersOf(context.Background()) {
		t.Error("a header")
	}
	if actor.HeaderOf(context.Background(), "x-a") != "" || actor.Replaying(context.Background()) {
		t.Error("outside of a handler")
	}
}
