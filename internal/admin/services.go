package admin

import (
	"context"
	"maps"
	"reflect"
	"slices"
	"time"

	"google.golang.org/protobuf/reflect/protodesc"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/descriptorpb"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/perdure/perdure/actor"
	adminv1 "github.com/perdure/perdure/proto/perdure/admin/v1"
	perdurev1 "github.com/perdure/perdure/proto/perdure/v1"
)

func (s *Service) listServices(context.Context, *adminv1.ListServicesRequest) (*adminv1.ListServicesResponse, error) {
	response := &adminv1.ListServicesResponse{}
	services := s.known.Load().services
	for _, name := range slices.Sorted(maps.Keys(services)) {
		response.Services = append(response.Services, describe(services[name]))
	}
	return response, nil
}

func (s *Service) describeService(_ context.Context, request *adminv1.DescribeServiceRequest) (*adminv1.DescribeServiceResponse, error) {
	desc, err := s.service(request.GetName())
	if err != nil {
		return nil, err
	}
	response := &adminv1.DescribeServiceResponse{Service: describe(desc), Schema: &descriptorpb.FileDescriptorSet{}}
	if desc.File != nil {
		collect(response.Schema, desc.File, map[string]bool{})
	}
	return response, nil
}

// collect adds file after all that it imports.
func collect(set *descriptorpb.FileDescriptorSet, file protoreflect.FileDescriptor, seen map[string]bool) {
	if seen[file.Path()] || file.IsPlaceholder() {
		return
	}
	seen[file.Path()] = true
	imports := file.Imports()
	for i := range imports.Len() {
		collect(set, imports.Get(i).FileDescriptor, seen)
	}
	set.File = append(set.File, protodesc.ToFileDescriptorProto(file))
}

func describe(desc *actor.ServiceDesc) *adminv1.Service {
	out := &adminv1.Service{Name: desc.Name, Kind: perdurev1.Kind(desc.Kind), StateType: typeName(desc.StateType)}
	for _, table := range desc.Tables {
		out.Tables = append(out.Tables, &perdurev1.Table{Name: table.Name, Value: typeName(table.New)})
	}
	for _, promise := range desc.Promises {
		out.Promises = append(out.Promises, &perdurev1.Promise{Name: promise.Name, Type: typeName(promise.New)})
	}
	for _, method := range desc.Methods {
		out.Methods = append(out.Methods, describeMethod(method))
	}
	return out
}

func describeMethod(method *actor.MethodDesc) *adminv1.Method {
	request := method.NewRequest().ProtoReflect().Descriptor()
	out := &adminv1.Method{
		Name: method.Name, Mode: perdurev1.Mode(method.Mode),
		RequestType: string(request.FullName()), ResponseType: typeName(method.NewResponse),
		KeyField: fieldName(request, method.KeyField), IdempotencyKeyField: fieldName(request, method.IdempotencyField),
		Options: options(method.Options),
	}
	if method.Schema != nil && method.Mode == actor.ModeRead {
		if declared, ok := method.Schema().Options().(*descriptorpb.MethodOptions); ok {
			out.NoSideEffects = declared.GetIdempotencyLevel() == descriptorpb.MethodOptions_NO_SIDE_EFFECTS
		}
	}
	return out
}

func fieldName(message protoreflect.MessageDescriptor, number protoreflect.FieldNumber) string {
	if field := message.Fields().ByNumber(number); field != nil {
		return string(field.Name())
	}
	return ""
}

// options is nil if the .proto sets none.
func options(o actor.HandlerOptions) *perdurev1.HandlerOptions {
	if reflect.ValueOf(o).IsZero() {
		return nil
	}
	out := &perdurev1.HandlerOptions{
		StepTimeout: duration(o.StepTimeout), Timeout: duration(o.Timeout), Retention: duration(o.Retention),
		Limits: limits(o.Limits), MaxInbox: uint32(max(o.MaxInbox, 0)),
		InactivityTimeout: duration(o.InactivityTimeout), JournalRetention: duration(o.JournalRetention),
	}
	if r := o.Retry; r != (actor.RetryPolicy{}) {
		out.Retry = &perdurev1.RetryPolicy{
			InitialInterval: duration(r.InitialInterval), MaxInterval: duration(r.MaxInterval),
			Factor: r.Factor, MaxAttempts: uint32(max(r.MaxAttempts, 0)),
		}
		if r.PauseOnExhausted {
			out.Retry.OnExhausted = perdurev1.OnExhausted_PAUSE
		}
	}
	return out
}

func duration(d time.Duration) *durationpb.Duration {
	if d == 0 {
		return nil
	}
	return durationpb.New(d)
}
