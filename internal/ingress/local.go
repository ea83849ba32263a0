package ingress

import (
	"context"
	"errors"
	"time"

	"connectrpc.com/connect/v2"
	"connectrpc.com/connect/v2/connectproto"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"

	"github.com/perdure/perdure/actor"
	"github.com/perdure/perdure/internal/flow"
	"github.com/perdure/perdure/internal/invocation"
	recordv1 "github.com/perdure/perdure/internal/record/v1"
	"github.com/perdure/perdure/internal/routing"
	"github.com/perdure/perdure/internal/telemetry"
	perdurev1 "github.com/perdure/perdure/proto/perdure/v1"
)

// Local is an actor.Transport within the process: the same checks and the same router as for
// calls that come over the network, and no network.
type Local struct{ ingress *Ingress }

var _ actor.Transport = Local{}

// Local returns the transport of callers in this process.
func (i *Ingress) Local() Local { return Local{i} }

// Call implements actor.Transport.
func (l Local) Call(ctx context.Context, request actor.CallRequest) (proto.Message, error) {
	value, _, err := l.process(ctx, request, false)
	if err != nil {
		return nil, err
	}
	response := request.Method.NewResponse()
	if err := proto.Unmarshal(value, response); err != nil {
		return nil, actor.Errorf(actor.Internal, "%s: the recorded response is not a %s: %w",
			request.Method.FullName(), response.ProtoReflect().Descriptor().FullName(), err)
	}
	return response, nil
}

// Send implements actor.Transport.
func (l Local) Send(ctx context.Context, request actor.CallRequest) (string, error) {
	_, id, err := l.process(ctx, request, true)
	if err != nil {
		return "", err
	}
	return id.String(), nil
}

func (l Local) process(ctx context.Context, request actor.CallRequest, send bool) ([]byte, invocation.ID, error) {
	m := l.method(request.Method)
	if m == nil {
		unknown := l.ingress.unknown("/" + request.Method.FullName())
		return nil, invocation.ID{}, actor.Errorf(actor.Code(unknown.Code()), "%s", unknown.Message())
	}
	c := call{method: m, sent: telemetry.Traceparent(ctx)}
	started := time.Now()
	ctx, c.span = l.ingress.config.Tracer.StartCall(ctx, telemetry.Call{Procedure: m.name, Protocol: "connect", Traceparent: c.sent})
	value, err := l.guarded(ctx, &c, request, send)
	if err != nil {
		wired := l.ingress.wire(ctx, &c, err)
		m.instruments.Call(ctx, outcomeOf(err, wired), wired.Code().String(), time.Since(started))
		c.span.End(wired.Code().String(), wired.Message())
		failed := error(toActor(wired))
		if _, ok := errors.AsType[*handlerError](err); ok {
			failed = errors.Join(failed, actor.ErrAnswered)
		}
		return nil, c.id, failed
	}
	m.instruments.Call(ctx, telemetry.OutcomeSucceeded, "ok", time.Since(started))
	c.span.End("ok", "")
	return value, c.id, nil
}

func (l Local) guarded(ctx context.Context, c *call, request actor.CallRequest, send bool) ([]byte, error) {
	wanted := delivery{
		key: request.IdempotencyKey, autoKey: request.AutoKey,
		send: send, delay: request.Delay, delaySet: request.Delay > 0, flow: flow.GivenOf(request),
	}
	var err error
	if wanted.headers, err = headersOf(request.Headers); err != nil {
		return nil, err
	}
	if wanted.delay > MaxDelay {
		return nil, invalid("%s: the delay is %s; it must be at most %s", c.method.name, wanted.delay, MaxDelay)
	}
	if err := wanted.check(c.method.desc); err != nil {
		return nil, err
	}
	if err := l.ingress.enter(); err != nil {
		return nil, err
	}
	defer l.ingress.leave()
	return c.process(ctx, request.Request, wanted)
}

// method finds what was registered under desc's name; desc itself may come from a copy of
// the generated code.
func (l Local) method(desc *actor.MethodDesc) *method {
	if s := l.ingress.table.Load().services[desc.Service]; s != nil {
		return s.methods[desc.Name]
	}
	return nil
}

// Attach implements actor.Transport.
func (l Local) Attach(ctx context.Context, id string, into proto.Message) error {
	response, err := limit(ctx, l.ingress, l.ingress.attach, &perdurev1.AttachRequest{InvocationId: id})
	if err != nil {
		return err
	}
	if err := response.GetResponse().UnmarshalTo(into); err != nil {
		return actor.Errorf(actor.InvalidArgument, "the response of %s is a %s, not a %s",
			id, response.GetResponse().MessageName(), into.ProtoReflect().Descriptor().FullName())
	}
	return nil
}

// AttachKey implements actor.Transport.
func (l Local) AttachKey(ctx context.Context, method *actor.MethodDesc, key string, into proto.Message) error {
	return l.Attach(ctx, RunID(method, key).String(), into)
}

// RunID names the run of a workflow.
func RunID(method *actor.MethodDesc, key string) invocation.ID {
	return invocation.DerivedID(invocation.Target{Service: method.Service, Key: key, Handler: method.Name}, "run")
}

// Cancel implements actor.Transport.
func (l Local) Cancel(ctx context.Context, id string) error {
	_, err := limit(ctx, l.ingress, l.ingress.cancel, &perdurev1.CancelRequest{InvocationId: id})
	return err
}

// CompleteAwakeable implements actor.Transport.
func (l Local) CompleteAwakeable(ctx context.Context, id string, value []byte, failure *actor.Error) error {
	result := &recordv1.Result{Value: value}
	if failure != nil {
		result = &recordv1.Result{Error: &recordv1.Error{
			Code: uint32(failure.Code()), Message: failure.Message(), Details: failure.Details()}}
	}
	_, err := limit(ctx, l.ingress, func(ctx context.Context, id string) (struct{}, error) {
		if err := checkAwakeable(id); err != nil {
			return struct{}{}, err
		}
		return struct{}{}, l.ingress.config.Router.CompleteAwakeable(ctx, id, result)
	}, id)
	return err
}

// BuiltIn implements actor.Transport.
func (l Local) BuiltIn(ctx context.Context, method string, request, response proto.Message) error {
	i := l.ingress
	var answer proto.Message
	var err error
	switch request := request.(type) {
	case *perdurev1.PeekRequest:
		answer, err = limit(ctx, i, i.peek, request)
	case *perdurev1.PutScheduleRequest:
		answer, err = limit(ctx, i, i.putSchedule, request)
	case *perdurev1.GetScheduleRequest:
		answer, err = limit(ctx, i, i.getSchedule, request)
	case *perdurev1.ListSchedulesRequest:
		answer, err = limit(ctx, i, i.listSchedules, request)
	case *perdurev1.DeleteScheduleRequest:
		answer, err = limit(ctx, i, i.deleteSchedule, request)
	case *perdurev1.PauseScheduleRequest:
		answer, err = limit(ctx, i, i.pauseSchedule, request)
	case *perdurev1.ResumeScheduleRequest:
		answer, err = limit(ctx, i, i.resumeSchedule, request)
	case *perdurev1.TriggerScheduleRequest:
		answer, err = limit(ctx, i, i.triggerSchedule, request)
	case *perdurev1.BackfillScheduleRequest:
		answer, err = limit(ctx, i, i.backfillSchedule, request)
	case *perdurev1.ListDueTimesRequest:
		answer, err = limit(ctx, i, i.listDueTimes, request)
	default:
		return actor.Errorf(actor.Unimplemented, "a node has no %s", method)
	}
	if err != nil {
		return err
	}
	proto.Merge(response, answer)
	return nil
}

// limit serves a request that is not a handler's, as unary does for those that came by wire.
func limit[Req, Res any](ctx context.Context, i *Ingress, serve func(context.Context, Req) (Res, error), request Req) (response Res, err error) {
	if err = i.enter(); err == nil {
		defer i.leave()
		response, err = serve(ctx, request)
	}
	if err != nil {
		return response, toActor(i.wire(ctx, nil, err))
	}
	return response, nil
}

// toActor is err as a caller in Go sees it.
func toActor(err *connect.Error) *actor.Error {
	var details []*anypb.Any
	for _, detail := range err.Details() {
		details = append(details, connectproto.ErrorDetailToAny(detail))
	}
	return actor.NewError(actor.Code(err.Code()), err.Message(), details...)
}

// Closed is the transport of a node that is not serving: every call fails with reason.
type Closed struct{ Reason string }

var _ actor.Transport = Closed{}

// fail uses a code that clients do not retry: nothing but a call of Start would help.
func (c Closed) fail() error {
	return actor.NewError(actor.Code(routing.CodeFailedPrecondition), c.Reason)
}

// Call implements actor.Transport.
func (c Closed) Call(context.Context, actor.CallRequest) (proto.Message, error) { return nil, c.fail() }

// Send implements actor.Transport.
func (c Closed) Send(context.Context, actor.CallRequest) (string, error) { return "", c.fail() }

// Attach implements actor.Transport.
func (c Closed) Attach(context.Context, string, proto.Message) error { return c.fail() }

// AttachKey implements actor.Transport.
func (c Closed) AttachKey(context.Context, *actor.MethodDesc, string, proto.Message) error {
	return c.fail()
}

// Cancel implements actor.Transport.
func (c Closed) Cancel(context.Context, string) error { return c.fail() }

// BuiltIn implements actor.Transport.
func (c Closed) BuiltIn(context.Context, string, proto.Message, proto.Message) error {
	return c.fail()
}

// CompleteAwakeable implements actor.Transport.
func (c Closed) CompleteAwakeable(context.Context, string, []byte, *actor.Error) error {
	return c.fail()
}
