package ingress_test

import (
	"context"
	"errors"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"connectrpc.com/connect/v2"
	"connectrpc.com/connect/v2/connecthttp"
	"connectrpc.com/grpcreflect/v2"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protodesc"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/descriptorpb"
	"google.golang.org/protobuf/types/dynamicpb"

	"github.com/perdure/perdure/actor"
	bank "github.com/perdure/perdure/examples/bank/gen/bank/v1/bankv1perdure"
	"github.com/perdure/perdure/internal/ingress"
)

// foreign is a service whose types are not compiled in.
func foreign(t *testing.T, name string) *actor.ServiceDesc {
	t.Helper()
	file, err := protodesc.NewFile(&descriptorpb.FileDescriptorProto{
		Name: proto.String("far/" + name + ".proto"), Package: proto.String("far"), Syntax: proto.String("proto3"),
		MessageType: []*descriptorpb.DescriptorProto{{Name: proto.String(name + "Message"), Field: []*descriptorpb.FieldDescriptorProto{
			{Name: proto.String("key"), Number: proto.Int32(1), Type: descriptorpb.FieldDescriptorProto_TYPE_STRING.Enum(), Label: descriptorpb.FieldDescriptorProto_LABEL_OPTIONAL.Enum(), JsonName: proto.String("key")},
		}}},
		Service: []*descriptorpb.ServiceDescriptorProto{{Name: proto.String(name), Method: []*descriptorpb.MethodDescriptorProto{
			{Name: proto.String("Do"), InputType: proto.String(".far." + name + "Message"), OutputType: proto.String(".far." + name + "Message")},
		}}},
	}, nil)
	if err != nil {
		t.Fatal(err)
	}
	rpc := file.Services().Get(0).Methods().Get(0)
	empty := func() proto.Message { return dynamicpb.NewMessage(rpc.Input()) }
	return &actor.ServiceDesc{Name: "far." + name, Kind: actor.KindObject, File: file, Methods: []*actor.MethodDesc{{
		Service: "far." + name, Name: "Do", Kind: actor.KindObject, Mode: actor.ModeTransaction, KeyField: 1,
		NewRequest: empty, NewResponse: empty, Schema: func() protoreflect.MethodDescriptor { return rpc },
	}}}
}

// TestServicesElsewhere: what other nodes host is served as what this one does, for as long as it is said.
func TestServicesElsewhere(t *testing.T) {
	unknown := errors.New("what node 7 hosts is not known yet")
	f := start(t, func(c *ingress.Config) { c.Unknown = func() error { return unknown } })
	got := f.post(t, "/far.Orders/Do", `{"key":"k"}`)
	if got.status != http.StatusServiceUnavailable || !strings.Contains(got.body, "what node 7 hosts is not known yet: try again") {
		t.Errorf("before what others host is known: %d %s", got.status, got.body)
	}
	if got = f.post(t, "/grpc.reflection.v2.ServerReflection/ServerReflectionInfo", `{}`); got.status != http.StatusNotImplemented {
		t.Errorf("a version of what every node has: %d %s", got.status, got.body)
	}
	unknown = nil
	if got = f.post(t, "/far.Orders/Do", `{"key":"k"}`); !strings.Contains(got.body, "far.Orders is not registered") {
		t.Errorf("before it is served: %d %s", got.status, got.body)
	}

	impostor := *foreign(t, "Impostor")
	impostor.Name = "bank.v1.AccountService"
	builtIn := *foreign(t, "BuiltIn")
	builtIn.Name = "perdure.v1.InvocationService"
	orders := foreign(t, "Orders")
	f.edge.SetElsewhere([]*actor.ServiceDesc{orders, &impostor, &builtIn})
	if got = f.post(t, "/far.Orders/Do", `{"key":"k"}`); got.status != http.StatusOK {
		t.Errorf("a call: %d %s", got.status, got.body)
	}
	if last := f.router.Calls()[len(f.router.Calls())-1]; last.Target.GetService() != "far.Orders" || last.Target.GetKey() != "k" {
		t.Errorf("the router was asked for %v", last.Target)
	}
	if got = f.post(t, "/bank.v1.AccountService/Deposit", `{"accountId":"alice","amount":"5"}`); got.status != http.StatusOK {
		t.Errorf("a call of what is registered here: %d %s", got.status, got.body)
	}
	if got = f.post(t, "/perdure.v1.InvocationService/Do", `{}`); got.status == http.StatusOK {
		t.Error("another node took the place of what every node has")
	}
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	stream := grpcreflect.NewClient(connect.NewClient(connecthttp.NewTransport(f.h2, f.url, connecthttp.WithGRPC()))).NewStream(ctx)
	for _, symbol := range []protoreflect.FullName{"far.Orders", bank.AccountServiceName, "grpc.reflection.v1.ServerReflection", "google.protobuf.Timestamp"} {
		if files, err := stream.FileContainingSymbol(symbol); err != nil || len(files) == 0 {
			t.Errorf("reflection does not describe %s: %v", symbol, err)
		}
	}
	if names, err := stream.ListServices(); err != nil || !slices.Contains(names, "far.Orders") {
		t.Errorf("reflection lists %v, %v", names, err)
	}
	if err := stream.Close(); err != nil {
		t.Error(err)
	}

	f.edge.SetElsewhere(nil)
	if got = f.post(t, "/far.Orders/Do", `{"key":"k"}`); !strings.Contains(got.body, "far.Orders is not registered") {
		t.Errorf("when nobody hosts it any more: %d %s", got.status, got.body)
	}
}
