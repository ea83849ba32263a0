package ingress

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"

	"connectrpc.com/connect/v2"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/known/anypb"

	"github.com/perdure/perdure/actor"
	"github.com/perdure/perdure/internal/invocation"
	recordv1 "github.com/perdure/perdure/internal/record/v1"
	"github.com/perdure/perdure/internal/routing"
	perdurev1 "github.com/perdure/perdure/proto/perdure/v1"
)

// invocationMethods is perdure.v1.InvocationService, which every node has.
func (i *Ingress) invocationMethods() []connect.Method {
	schema := perdurev1.File_perdure_v1_invocation_proto.Services().ByName("InvocationService")
	return []connect.Method{
		unary(i, schema, "Attach", i.limited, i.attach),
		unary(i, schema, "Peek", i.limited, i.peek),
		unary(i, schema, "Cancel", i.limited, i.cancel),
		unary(i, schema, "Resolve", i.limited, i.resolve),
		unary(i, schema, "Reject", i.limited, i.reject),
	}
}

// unary serves one rpc that is not a handler's. place takes a place for a call under way, if
// the rpc needs one, and returns what gives it back.
func unary[Req any, ReqPtr interface {
	*Req
	proto.Message
}, Res proto.Message](i *Ingress, schema protoreflect.ServiceDescriptor, name protoreflect.Name, place func() (func(), error), serve func(context.Context, ReqPtr) (Res, error)) connect.Method {
	return connect.Method{
		Spec: connect.Spec{
			StreamType: connect.StreamTypeUnary,
			Procedure:  "/" + string(schema.FullName()) + "/" + string(name),
			Schema:     schema.Methods().ByName(name),
		},
		Handler: func(ctx context.Context, _ connect.Spec, stream connect.ServerStream) error {
			var request ReqPtr = new(Req)
			if err := stream.Receive(request); err != nil {
				return i.wire(ctx, nil, &receiveError{err})
			}
			leave, err := place()
			if err != nil {
				return i.wire(ctx, nil, err)
			}
			defer leave()
			response, err := serve(ctx, request)
			if err != nil {
				return i.wire(ctx, nil, err)
			}
			return stream.Send(response)
		},
	}
}

func (i *Ingress) attach(ctx context.Context, request *perdurev1.AttachRequest) (*perdurev1.AttachResponse, error) {
	id, err := i.named(request)
	if err != nil {
		return nil, err
	}
	// What the response is called is known by its handler, not kept with the result. It is asked
	// for before the wait, for the row may be gone after it, and again after it, for there may be
	// none before.
	desc, _ := i.handlerOf(ctx, id)
	result, err := i.config.Router.Attach(ctx, id)
	if err != nil {
		return nil, err
	}
	if failure := result.GetError(); failure != nil {
		return nil, &handlerError{failure}
	}
	if desc == nil {
		if desc, err = i.handlerOf(ctx, id); err != nil {
			return nil, err
		}
	}
	name := desc.NewResponse().ProtoReflect().Descriptor().FullName()
	return &perdurev1.AttachResponse{
		Response: &anypb.Any{TypeUrl: "type.googleapis.com/" + string(name), Value: result.GetValue()},
	}, nil
}

// peek looks at the row. A TRANSACTION that a caller waits for has none, and is known here.
func (i *Ingress) peek(ctx context.Context, request *perdurev1.PeekRequest) (*perdurev1.PeekResponse, error) {
	id, err := i.named(request)
	if err != nil {
		return nil, err
	}
	response := &perdurev1.PeekResponse{InvocationId: id.String()}
	detail, err := i.config.Router.Journal(ctx, id, 0, 0)
	if err != nil {
		if i.underWay.method(id) != nil {
			return response, nil
		}
		return nil, err
	}
	if detail.Row.GetStatus() < recordv1.Status_STATUS_SUCCEEDED {
		return response, nil
	}
	response.Done = true
	if failure := detail.Row.GetResult().GetError(); failure != nil {
		response.Error = &perdurev1.PeekResponse_Failure{Code: perdurev1.Code(failure.GetCode()), Message: failure.GetMessage(), Details: failure.GetDetails()}
		return response, nil
	}
	desc, err := i.handlerOf(ctx, id)
	if err != nil {
		return nil, err
	}
	name := desc.NewResponse().ProtoReflect().Descriptor().FullName()
	response.Response = &anypb.Any{TypeUrl: "type.googleapis.com/" + string(name), Value: detail.Row.GetResult().GetValue()}
	return response, nil
}

// naming is a request that says in one of three ways which invocation is meant.
type naming interface {
	GetInvocationId() string
	GetCall() *perdurev1.IdempotentCall
	GetRun() *perdurev1.WorkflowRun
}

func (i *Ingress) named(request naming) (invocation.ID, error) {
	call, run := request.GetCall(), request.GetRun()
	given := 0
	for _, is := range []bool{request.GetInvocationId() != "", call != nil, run != nil} {
		if is {
			given++
		}
	}
	if given > 1 {
		return invocation.ID{}, invalid("the request has more than one of invocationId, call and run: give the one that says which invocation is meant")
	}
	switch {
	case call != nil:
		desc := i.Method(invocation.Target{Service: call.GetService(), Key: call.GetKey(), Handler: call.GetHandler()})
		if desc == nil {
			return invocation.ID{}, routing.Errorf(routing.CodeNotFound, "no handler %s/%s is registered here", call.GetService(), call.GetHandler())
		}
		if call.GetIdempotencyKey() == "" {
			return invocation.ID{}, invalid("call.idempotencyKey is empty: it is what the call was made with")
		}
		return namedByKey(desc, call.GetKey(), call.GetIdempotencyKey())
	case run != nil:
		for _, service := range i.config.Services {
			if service.Name != run.GetService() {
				continue
			}
			for _, desc := range service.Methods {
				if desc.Mode == actor.ModeRun {
					return namedByKey(desc, run.GetKey(), "")
				}
			}
			return invocation.ID{}, invalid("%s is not a WORKFLOW and has no run: name the call by its idempotency key", service.Name)
		}
		return invocation.ID{}, routing.Errorf(routing.CodeNotFound, "no service %s is registered here", run.GetService())
	}
	return parseID(request.GetInvocationId())
}

func namedByKey(desc *actor.MethodDesc, key, idempotencyKey string) (invocation.ID, error) {
	if (key == "") != (desc.KeyField == 0) {
		if key == "" {
			return invocation.ID{}, invalid("key is empty: it names the object of %s", desc.FullName())
		}
		return invocation.ID{}, invalid("%s is a SERVICE and has no key", desc.Service)
	}
	return invocation.ParseID(actor.IDOf(desc.Service, key, desc.Name, idempotencyKey))
}

// handlerOf finds the handler of an invocation that was called here or has a row.
func (i *Ingress) handlerOf(ctx context.Context, id invocation.ID) (*actor.MethodDesc, error) {
	if desc := i.underWay.method(id); desc != nil {
		return desc, nil
	}
	detail, err := i.config.Router.Journal(ctx, id, 0, 0)
	if err != nil {
		return nil, err
	}
	row := detail.Row.GetTarget()
	target := invocation.Target{Service: row.GetService(), Key: row.GetKey(), Handler: row.GetHandler()}
	desc := i.Method(target)
	if desc == nil {
		return nil, routing.Errorf(routing.CodeFailedPrecondition,
			"%s is an invocation of %s/%s, which is not registered here any more: its response cannot be named", id, target.Service, target.Handler)
	}
	return desc, nil
}

func (i *Ingress) cancel(ctx context.Context, request *perdurev1.CancelRequest) (*perdurev1.CancelResponse, error) {
	id, err := i.named(request)
	if err != nil {
		return nil, err
	}
	if err := i.config.Router.Cancel(ctx, id, false); err != nil {
		return nil, err
	}
	return &perdurev1.CancelResponse{}, nil
}

func (i *Ingress) resolve(ctx context.Context, request *perdurev1.ResolveRequest) (*perdurev1.ResolveResponse, error) {
	if err := checkAwakeable(request.GetAwakeableId()); err != nil {
		return nil, err
	}
	result := &recordv1.Result{}
	switch value := request.GetValue().(type) {
	case *perdurev1.ResolveRequest_Raw:
		result.Value = value.Raw
	case *perdurev1.ResolveRequest_Json:
		text, err := protojson.Marshal(value.Json)
		if err != nil {
			return nil, invalid("the value is not JSON: %v", err)
		}
		// Compact, since protojson adds blanks at random and a repeated Resolve is told from a
		// different one by its bytes.
		var compact bytes.Buffer
		if err := json.Compact(&compact, text); err != nil {
			return nil, invalid("the value is not JSON: %v", err)
		}
		result.Value = compact.Bytes()
	}
	if err := i.config.Router.CompleteAwakeable(ctx, request.GetAwakeableId(), result); err != nil {
		return nil, err
	}
	return &perdurev1.ResolveResponse{}, nil
}

func (i *Ingress) reject(ctx context.Context, request *perdurev1.RejectRequest) (*perdurev1.RejectResponse, error) {
	if err := checkAwakeable(request.GetAwakeableId()); err != nil {
		return nil, err
	}
	code := uint32(request.GetCode())
	if validCode(code) != connect.Code(code) {
		return nil, invalid("code is %d; it must be one of CODE_CANCELED (1) to CODE_UNAUTHENTICATED (16)", request.GetCode())
	}
	result := &recordv1.Result{Error: &recordv1.Error{Code: code, Message: request.GetMessage(), Details: request.GetDetails()}}
	if err := i.config.Router.CompleteAwakeable(ctx, request.GetAwakeableId(), result); err != nil {
		return nil, err
	}
	return &perdurev1.RejectResponse{}, nil
}

func parseID(text string) (invocation.ID, error) {
	if text == "" {
		return invocation.ID{}, invalid("invocationId is empty: it is what the response header %s says", HeaderInvocationID)
	}
	id, err := invocation.ParseID(text)
	if err != nil {
		return id, invalid("%v", err)
	}
	return id, nil
}

func checkAwakeable(text string) error {
	if text == "" {
		return invalid("awakeableId is empty: it is what the handler's awakeable said its ID() is")
	}
	if _, err := invocation.ParseAwakeableID(text); err != nil {
		if errors.Is(err, invocation.ErrBadAwakeableID) {
			return invalid("%v", err)
		}
		return err
	}
	return nil
}
