package ingress

import (
	"errors"
	"log/slog"
	"testing"
	"time"
	"unicode/utf8"

	"connectrpc.com/connect/v2"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/descriptorpb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/perdure/perdure/actor"
	bankv1 "github.com/perdure/perdure/examples/bank/gen/bank/v1"
	bank "github.com/perdure/perdure/examples/bank/gen/bank/v1/bankv1perdure"
	shop "github.com/perdure/perdure/examples/orders/gen/shop/v1/shopv1perdure"
	"github.com/perdure/perdure/internal/invocation"
	"github.com/perdure/perdure/internal/routing"
	"github.com/perdure/perdure/internal/routing/routingtest"
)

type fuzzedServices []*actor.ServiceDesc

func (d *fuzzedServices) RegisterService(desc *actor.ServiceDesc, _ any) { *d = append(*d, desc) }

// fuzzedMethods are those of the examples, and one for each kind of key field. The strings of
// descriptor.proto may be any bytes, as proto2 has it.
func fuzzedMethods(f *testing.F) []*method {
	var services fuzzedServices
	bank.RegisterAccountHandler(&services, bank.UnimplementedAccountHandler{})
	bank.RegisterTransferHandler(&services, bank.UnimplementedTransferHandler{})
	shop.RegisterOrderHandler(&services, shop.UnimplementedOrderHandler{})
	kinds := &actor.ServiceDesc{Name: "fuzz.v1.KindsService", Kind: actor.KindObject}
	for _, key := range []struct {
		name    string
		request func() proto.Message
		field   protoreflect.FieldNumber
	}{
		{"Text", func() proto.Message { return new(descriptorpb.FieldDescriptorProto) }, 1},
		{"Number", func() proto.Message { return new(descriptorpb.FieldDescriptorProto) }, 3},
		{"Int64", func() proto.Message { return new(wrapperspb.Int64Value) }, 1},
		{"Uint32", func() proto.Message { return new(wrapperspb.UInt32Value) }, 1},
		{"Uint64", func() proto.Message { return new(wrapperspb.UInt64Value) }, 1},
		{"Missing", func() proto.Message { return new(wrapperspb.StringValue) }, 99},
	} {
		kinds.Methods = append(kinds.Methods, &actor.MethodDesc{
			Service: kinds.Name, Name: key.name, Mode: actor.ModeTransaction, KeyField: key.field, IdempotencyField: 7,
			NewRequest: key.request, NewResponse: key.request,
		})
	}
	services = append(services, kinds)
	i, err := New(Config{Router: &routingtest.Fake{}, Services: services, Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		f.Fatal(err)
	}
	var methods []*method
	for _, desc := range services {
		for _, m := range desc.Methods {
			methods = append(methods, i.own[desc.Name].methods[m.Name])
		}
	}
	return methods
}

// FuzzRequest makes invocations of arbitrary headers and messages. What is let in can be stored,
// found again by its id, and run in time.
func FuzzRequest(f *testing.F) {
	methods := fuzzedMethods(f)
	deposit, err := proto.Marshal(&bankv1.DepositRequest{AccountId: "alice", Amount: 5})
	if err != nil {
		f.Fatal(err)
	}
	for index := range methods {
		f.Add(uint8(index), deposit, "", "", "", "", false)
	}
	f.Add(uint8(0), deposit, "key", "1", "0", "90s", false)
	f.Add(uint8(0), deposit, "\xff", "true", "maybe", "-1s", false)
	f.Add(uint8(0), deposit, "k", "t", "1", "87600h0m0.000000001s", true)
	f.Add(uint8(0), []byte{0x0a, 0}, "k", "", "1", "1e9h", true)
	f.Add(uint8(0), []byte{0x0a, 2, 0xff, 0xfe}, "k", "", "", "2540400h", false)
	f.Fuzz(func(t *testing.T, index uint8, body []byte, key, auto, send, delay string, twice bool) {
		m := methods[int(index)%len(methods)]
		header := new(connect.Header)
		for name, value := range map[string]string{HeaderIdempotencyKey: key, HeaderAutoKey: auto, HeaderSend: send, HeaderDelay: delay} {
			if value != "" {
				header.Add(name, value)
			}
			if value != "" && twice {
				header.Add(name, value)
			}
		}
		wanted, err := readDelivery(header, nil)
		if err == nil {
			err = wanted.check(m.desc)
		}
		if err != nil {
			wantRefusal(t, err, routing.CodeInvalidArgument)
			return
		}
		if len(wanted.key) > maxIdempotencyKeyBytes || !utf8.ValidString(wanted.key) || wanted.delay < 0 || wanted.delay > MaxDelay ||
			twice && key != "" {
			t.Errorf("let in: %+v", wanted)
		}
		request := m.desc.NewRequest()
		if proto.Unmarshal(body, request) != nil {
			return
		}
		c := call{method: m}
		before := time.Now()
		in, err := c.invoke(request, wanted)
		if err != nil {
			if coded, ok := errors.AsType[*actor.Error](err); ok {
				if coded.Code() != actor.InvalidArgument && coded.Code() != actor.Internal {
					t.Errorf("refused with %v", err)
				}
				return
			}
			wantRefusal(t, err, routing.CodeInvalidArgument)
			return
		}
		target := invocation.Target{Service: in.Target.Service, Key: in.Target.Key, Handler: in.Target.Handler}
		id, ok := invocation.IDFromBytes(in.InvocationId)
		switch {
		case !ok || id.IsZero():
			t.Errorf("the id is %x", in.InvocationId)
		case m.desc.KeyField != 0 && (target.Key == "" || id.Hash() != target.Hash()):
			t.Errorf("%s has an id in another partition: %s", target, id)
		case len(target.Key) > invocation.MaxKeyBytes || !utf8.ValidString(target.Key):
			t.Errorf("the key is %q", target.Key)
		case in.DueAt != 0 && (in.DueAt < before.UnixMilli() || in.DueAt > time.Now().Add(MaxDelay).UnixMilli()):
			t.Errorf("it is due at %d", in.DueAt)
		case in.RetentionMs < 0 || in.DeadlineAt < 0:
			t.Errorf("kept for %d ms, with a deadline at %d", in.RetentionMs, in.DeadlineAt)
		}
		if _, err := proto.Marshal(in); err != nil {
			t.Errorf("it cannot be recorded: %v", err)
		}
		if err := proto.Unmarshal(in.Input, m.desc.NewRequest()); err != nil {
			t.Errorf("a handler cannot read its request: %v", err)
		}
	})
}

func wantRefusal(t *testing.T, err error, code routing.Code) {
	t.Helper()
	refused, ok := errors.AsType[*routing.Error](err)
	if !ok || refused.Code != code || refused.Message == "" || !utf8.ValidString(refused.Message) {
		t.Errorf("refused with %v", err)
	}
}
