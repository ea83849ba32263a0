// Package remote is the caller's side of internal/ingress: an actor.Transport that reaches a
// cluster over the Connect protocol, in protobuf's binary form, for services it knows only by
// their descriptors.
package remote

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"unicode"

	"connectrpc.com/connect/v2"
	"connectrpc.com/connect/v2/connecthttp"
	"connectrpc.com/connect/v2/connectproto"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"

	"github.com/perdure/perdure/actor"
	"github.com/perdure/perdure/internal/header"
	"github.com/perdure/perdure/internal/ingress"
	"github.com/perdure/perdure/internal/telemetry"
	perdurev1 "github.com/perdure/perdure/proto/perdure/v1"
)

// maxResponseBytes bounds what a broken or hostile server can make a caller hold.
const maxResponseBytes = 64 << 20

// Transport calls the nodes of one cluster, any of which serves any call. It stays with one
// node while that answers and goes on to the next when it is unavailable, or says nothing. It is
// safe for concurrent use.
type Transport struct {
	nodes   []*node
	current atomic.Uint32
	// broken is why no call can be made, for New returns no error.
	broken error
}

var _ actor.Transport = (*Transport)(nil)

// New makes a transport to the nodes at urls. A URL that cannot be one makes every call fail.
func New(client connecthttp.HTTPClient, urls ...string) *Transport {
	t := &Transport{}
	var problems []error
	for _, text := range urls {
		parsed, err := url.Parse(text)
		if err != nil || (parsed.Scheme != "http" && parsed.Scheme != "https") || parsed.Host == "" {
			problems = append(problems, fmt.Errorf("%q is not a URL such as http://localhost:7373", text))
			continue
		}
		t.nodes = append(t.nodes, newNode(client, text))
	}
	if len(urls) == 0 {
		problems = append(problems, errors.New("no URL was given"))
	}
	if err := errors.Join(problems...); err != nil {
		t.broken = actor.Terminal(actor.FailedPrecondition, fmt.Errorf("cluster.Dial: %w", err))
	}
	return t
}

// try sends one request, to each node in turn until one is not unavailable. A request that a
// node may have accepted before it failed is sent again: it has an idempotency key, or does
// nothing twice.
func (t *Transport) try(ctx context.Context, spec connect.Spec, request, response proto.Message, set func(*connect.Header)) (*connect.CallInfo, error) {
	if t.broken != nil {
		return nil, t.broken
	}
	var err error
	first := t.current.Load()
	for step := range uint32(len(t.nodes)) {
		at := (first + step) % uint32(len(t.nodes))
		callCtx, info := connect.NewClientContext(ctx)
		if set != nil {
			set(info.RequestHeader())
		}
		if traceparent := telemetry.Traceparent(ctx); traceparent != "" {
			info.RequestHeader().Set("Traceparent", traceparent)
		}
		n := t.nodes[at]
		done := func() error { return nil }
		if len(t.nodes) > 1 {
			callCtx, done = n.watched(callCtx)
		}
		err = n.calls.CallUnary(callCtx, spec, request, response)
		silent := done()
		if err == nil {
			t.current.Store(at)
			return info, nil
		}
		coded := decode(ctx, err)
		if silent != nil && ctx.Err() == nil {
			coded = actor.NewError(actor.Unavailable, silent.Error())
			// Others that call now need not find out too.
			t.current.CompareAndSwap(at, (at+1)%uint32(len(t.nodes)))
		}
		if info.ResponseHeader().Get(ingress.HeaderErrorSource) == ingress.SourceHandler {
			t.current.Store(at)
			return info, errors.Join(coded, actor.ErrAnswered)
		}
		if coded.Code() != actor.Unavailable {
			t.current.Store(at)
			return info, coded
		}
		err = coded
		proto.Reset(response)
	}
	return nil, err
}

// decode is err as a caller sees it. What no server said is unavailable, whatever name the
// HTTP client has for it: a node that dies cuts its connections in many ways.
func decode(ctx context.Context, err error) *actor.Error {
	coded, ok := errors.AsType[*connect.Error](err)
	if ok && coded.IsRemote() {
		var details []*anypb.Any
		for _, detail := range coded.Details() {
			details = append(details, connectproto.ErrorDetailToAny(detail))
		}
		return actor.NewError(actor.Code(coded.Code()), coded.Message(), details...)
	}
	if ended := ctx.Err(); ended != nil {
		return actor.NewError(actor.CodeOf(ended), ended.Error())
	}
	code := actor.Unavailable
	if ok {
		switch coded.Code() {
		case connect.CodeInvalidArgument, connect.CodeResourceExhausted, connect.CodeUnimplemented, connect.CodeDeadlineExceeded:
			code = actor.Code(coded.Code())
		}
	}
	if errors.Is(err, io.EOF) {
		return actor.NewError(code, "the node closed the connection")
	}
	if ok {
		return actor.NewError(code, coded.Message())
	}
	return actor.NewError(code, err.Error())
}

func specOf(method *actor.MethodDesc) connect.Spec {
	spec := connect.Spec{StreamType: connect.StreamTypeUnary, Procedure: "/" + method.FullName()}
	if method.Schema != nil {
		spec.Schema = method.Schema()
	}
	return spec
}

// checkKey refuses an idempotency key that HTTP would change or refuse. One that is a field of
// the request travels there.
func checkKey(call actor.CallRequest) error {
	key := call.IdempotencyKey
	if key == call.Method.RequestIdempotencyKey(call.Request) {
		key = ""
	}
	for _, text := range []struct{ name, value string }{{"idempotency key", key}, {"limit key", call.LimitKey}, {"tenant", call.Tenant}} {
		if strings.TrimSpace(text.value) != text.value || strings.ContainsFunc(text.value, unicode.IsControl) {
			return actor.Errorf(actor.InvalidArgument,
				"%s: the %s %q has a control character, or blanks around it, which an HTTP header cannot carry", call.Method.FullName(), text.name, text.value)
		}
	}
	// Here, and not only at the node: what is a secret by its name must not leave by mistake.
	if _, err := header.OfCall(call.Headers); err != nil {
		return actor.Errorf(actor.InvalidArgument, "%s: %w", call.Method.FullName(), err)
	}
	return nil
}

func callHeader(call actor.CallRequest) func(*connect.Header) {
	return func(sent *connect.Header) {
		if call.IdempotencyKey != call.Method.RequestIdempotencyKey(call.Request) {
			sent.Set(ingress.HeaderIdempotencyKey, call.IdempotencyKey)
		}
		if call.AutoKey {
			sent.Set(ingress.HeaderAutoKey, "1")
		}
		if call.LimitKey != "" {
			sent.Set(ingress.HeaderLimitKey, call.LimitKey)
		}
		if call.Tenant != "" {
			sent.Set(ingress.HeaderTenant, call.Tenant)
		}
		if call.PrioritySet {
			sent.Set(ingress.HeaderPriority, strconv.Itoa(call.Priority))
		}
		if len(call.Headers) > 0 {
			for name, value := range call.Headers {
				sent.Set(name, value)
			}
			sent.Set(ingress.HeaderHeaders, strings.Join(slices.Sorted(maps.Keys(call.Headers)), ","))
		}
	}
}

// Call implements actor.Transport.
func (t *Transport) Call(ctx context.Context, call actor.CallRequest) (proto.Message, error) {
	if err := checkKey(call); err != nil {
		return nil, err
	}
	response := call.Method.NewResponse()
	if _, err := t.try(ctx, specOf(call.Method), call.Request, response, callHeader(call)); err != nil {
		return nil, err
	}
	return response, nil
}

// Send implements actor.Transport.
func (t *Transport) Send(ctx context.Context, call actor.CallRequest) (string, error) {
	if err := checkKey(call); err != nil {
		return "", err
	}
	info, err := t.try(ctx, specOf(call.Method), call.Request, call.Method.NewResponse(), func(sent *connect.Header) {
		callHeader(call)(sent)
		sent.Set(ingress.HeaderSend, "1")
		if call.Delay > 0 {
			sent.Set(ingress.HeaderDelay, call.Delay.String())
		}
	})
	if err != nil {
		return "", err
	}
	id := info.ResponseHeader().Get(ingress.HeaderInvocationID)
	if id == "" {
		return "", actor.NewError(actor.Internal, call.Method.FullName()+": the answer has no "+ingress.HeaderInvocationID+": is something between here and the node that drops headers?")
	}
	return id, nil
}

func invocationSpec(name string) connect.Spec {
	return connect.Spec{StreamType: connect.StreamTypeUnary, Procedure: "/perdure.v1.InvocationService/" + name}
}

// Attach implements actor.Transport.
func (t *Transport) Attach(ctx context.Context, id string, into proto.Message) error {
	var response perdurev1.AttachResponse
	if _, err := t.try(ctx, invocationSpec("Attach"), &perdurev1.AttachRequest{InvocationId: id}, &response, nil); err != nil {
		return err
	}
	if err := response.GetResponse().UnmarshalTo(into); err != nil {
		return actor.Errorf(actor.InvalidArgument, "the response of %s is a %s, not a %s",
			id, response.GetResponse().MessageName(), into.ProtoReflect().Descriptor().FullName())
	}
	return nil
}

// AttachKey implements actor.Transport.
func (t *Transport) AttachKey(ctx context.Context, method *actor.MethodDesc, key string, into proto.Message) error {
	return t.Attach(ctx, ingress.RunID(method, key).String(), into)
}

// Cancel implements actor.Transport.
func (t *Transport) Cancel(ctx context.Context, id string) error {
	_, err := t.try(ctx, invocationSpec("Cancel"), &perdurev1.CancelRequest{InvocationId: id}, &perdurev1.CancelResponse{}, nil)
	return err
}

// BuiltIn implements actor.Transport.
func (t *Transport) BuiltIn(ctx context.Context, method string, request, response proto.Message) error {
	_, err := t.try(ctx, connect.Spec{StreamType: connect.StreamTypeUnary, Procedure: "/" + method}, request, response, nil)
	return err
}

// CompleteAwakeable implements actor.Transport.
func (t *Transport) CompleteAwakeable(ctx context.Context, id string, value []byte, failure *actor.Error) error {
	if failure != nil {
		_, err := t.try(ctx, invocationSpec("Reject"), &perdurev1.RejectRequest{
			AwakeableId: id, Code: perdurev1.Code(failure.Code()), Message: failure.Message(), Details: failure.Details(),
		}, &perdurev1.RejectResponse{}, nil)
		return err
	}
	_, err := t.try(ctx, invocationSpec("Resolve"), &perdurev1.ResolveRequest{
		AwakeableId: id, Value: &perdurev1.ResolveRequest_Raw{Raw: value},
	}, &perdurev1.ResolveResponse{}, nil)
	return err
}
