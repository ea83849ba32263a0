package codegen_test

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/perdure/perdure/actor"
)

// fakeNode runs what generated code registers, in memory and at once: enough to show that
// everything generated is wired to its counterpart. It is not for concurrent use.
type fakeNode struct {
	services map[string]registration
	objects  map[string]*fakeObject
	calls    []actor.CallRequest
}

type registration struct {
	desc    *actor.ServiceDesc
	handler any
}

type fakeObject struct {
	state    []byte
	hasState bool
	tables   map[string]map[string][]byte
	promises map[string][]byte
	signals  map[string][][]byte
	results  map[string]proto.Message
}

func newFakeNode() *fakeNode {
	return &fakeNode{services: map[string]registration{}, objects: map[string]*fakeObject{}}
}

func (n *fakeNode) RegisterService(desc *actor.ServiceDesc, handler any) {
	n.services[desc.Name] = registration{desc, handler}
}

func (n *fakeNode) object(service, key string) *fakeObject {
	name := service + "/" + key
	if n.objects[name] == nil {
		n.objects[name] = &fakeObject{
			tables: map[string]map[string][]byte{}, promises: map[string][]byte{},
			signals: map[string][][]byte{}, results: map[string]proto.Message{},
		}
	}
	return n.objects[name]
}

func (n *fakeNode) Call(ctx context.Context, call actor.CallRequest) (proto.Message, error) {
	n.calls = append(n.calls, call)
	registered, ok := n.services[call.Method.Service]
	if !ok {
		return nil, actor.Errorf(actor.NotFound, "no service %s", call.Method.Service)
	}
	// By name, as a request from the network would.
	i := slices.IndexFunc(registered.desc.Methods, func(m *actor.MethodDesc) bool { return m.Name == call.Method.Name })
	method := registered.desc.Methods[i]
	object := n.object(method.Service, call.Key)
	encoded, err := proto.Marshal(call.Request)
	if err != nil {
		return nil, err
	}
	if method.Handle == nil {
		object.signals[method.Name] = append(object.signals[method.Name], encoded)
		return method.NewResponse(), nil
	}
	request := method.NewRequest()
	if err := proto.Unmarshal(encoded, request); err != nil {
		return nil, err
	}
	runtime := &fakeRuntime{object: object, invocation: actor.RuntimeInvocation{ID: "inv", Attempt: 1, Method: method, Key: call.Key}}
	response, err := method.Handle(actor.NewContext(ctx, runtime), registered.handler, request)
	if err != nil {
		return nil, err
	}
	object.results[method.Name] = response
	return response, nil
}

func (n *fakeNode) Send(ctx context.Context, call actor.CallRequest) (string, error) {
	n.calls = append(n.calls, call)
	return fmt.Sprintf("inv_%s_%s", call.Method.Name, call.Key), nil
}

func (n *fakeNode) AttachKey(_ context.Context, method *actor.MethodDesc, key string, into proto.Message) error {
	result := n.object(method.Service, key).results[method.Name]
	if result == nil {
		return actor.Errorf(actor.NotFound, "no run %s", key)
	}
	proto.Merge(into, result)
	return nil
}

func (n *fakeNode) Attach(context.Context, string, proto.Message) error { return errNotFaked }
func (n *fakeNode) Cancel(context.Context, string) error                { return errNotFaked }
func (n *fakeNode) BuiltIn(context.Context, string, proto.Message, proto.Message) error {
	return actor.NewError(actor.Unimplemented, "not here")
}

func (n *fakeNode) CompleteAwakeable(context.Context, string, []byte, *actor.Error) error {
	return errNotFaked
}

var errNotFaked = actor.Errorf(actor.Unimplemented, "not faked")

// fakeRuntime completes every step at once. Steps it doesn't have are nil and panic.
type fakeRuntime struct {
	actor.Runtime
	object     *fakeObject
	invocation actor.RuntimeInvocation
	results    [][]byte
}

func (r *fakeRuntime) Invocation() actor.RuntimeInvocation { return r.invocation }
func (r *fakeRuntime) Now() time.Time                      { return time.Unix(0, 0) }
func (r *fakeRuntime) Fail(err error)                      { panic(err) }

func (r *fakeRuntime) State() ([]byte, bool) { return r.object.state, r.object.hasState }
func (r *fakeRuntime) SetState(value []byte, clear bool) {
	r.object.state, r.object.hasState = value, !clear
}

func (r *fakeRuntime) TableGet(table, key string) ([]byte, bool) {
	value, ok := r.object.tables[table][key]
	return value, ok
}

func (r *fakeRuntime) TableLen(table string) int { return len(r.object.tables[table]) }

func (r *fakeRuntime) TableScan(table, from string, yield func(string, []byte) bool) {
	rows := r.object.tables[table]
	for _, key := range slices.Sorted(maps.Keys(rows)) {
		if strings.Compare(key, from) >= 0 && !yield(key, rows[key]) {
			return
		}
	}
}

func (r *fakeRuntime) TablePut(table, key string, value []byte, remove bool) {
	if r.object.tables[table] == nil {
		r.object.tables[table] = map[string][]byte{}
	}
	if remove {
		delete(r.object.tables[table], key)
		return
	}
	r.object.tables[table][key] = value
}

func (r *fakeRuntime) complete(value []byte) uint32 {
	r.results = append(r.results, value)
	return uint32(len(r.results))
}

func (r *fakeRuntime) Receive(_ context.Context, name string) (uint32, error) {
	waiting := r.object.signals[name]
	if len(waiting) == 0 {
		return 0, actor.Errorf(actor.NotFound, "no signal %s", name)
	}
	r.object.signals[name] = waiting[1:]
	return r.complete(waiting[0]), nil
}

func (r *fakeRuntime) AwaitPromise(_ context.Context, name string) (uint32, error) {
	value, ok := r.object.promises[name]
	if !ok {
		return 0, actor.Errorf(actor.NotFound, "no promise %s", name)
	}
	return r.complete(value), nil
}

func (r *fakeRuntime) PeekPromise(_ context.Context, name string) ([]byte, bool, error) {
	value, ok := r.object.promises[name]
	return value, ok, nil
}

func (r *fakeRuntime) CompletePromise(_ context.Context, name string, value []byte, failure *actor.Error) error {
	if failure != nil {
		return failure
	}
	r.object.promises[name] = value
	return nil
}

func (r *fakeRuntime) Wait(context.Context, []uint32) (int, error) { return 0, nil }
func (r *fakeRuntime) Result(index uint32) ([]byte, error)         { return r.results[index-1], nil }
