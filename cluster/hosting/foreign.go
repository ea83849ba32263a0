package hosting

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protodesc"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/dynamicpb"

	"github.com/perdure/perdure/actor"
	"github.com/perdure/perdure/codegen/schema"
	"github.com/perdure/perdure/internal/deployment"
	perdurev1 "github.com/perdure/perdure/proto/perdure/v1"
)

// foreignBuild is a build of another node. A service whose descriptors can't be used is hosted there all
// the same, and is one of the problems.
func foreignBuild(told *deployment.Carried) (*build, []error) {
	b := &build{deployment: told.ID, handlers: map[string]map[string]bool{}, descs: map[string]*actor.ServiceDesc{}}
	for _, name := range told.Services {
		b.handlers[name] = nil
	}
	b.names = slices.Sorted(maps.Keys(b.handlers))
	files, err := protodesc.NewFiles(told.Schema)
	if err != nil {
		return b, []error{fmt.Errorf("the descriptors of deployment %s do not hold together: %w", told.ID, err)}
	}
	var problems []error
	files.RangeFiles(func(file protoreflect.FileDescriptor) bool {
		services, wrong := schema.Read(file)
		if len(services) == 0 {
			return true
		}
		if len(wrong) > 0 {
			problems = append(problems, fmt.Errorf("%s of deployment %s: %w", file.Path(), told.ID, wrong))
			return true
		}
		for _, service := range services {
			name := string(service.Desc.FullName())
			if _, hosted := b.handlers[name]; hosted && !builtIn(name) {
				b.add(describe(service))
			}
		}
		return true
	})
	return b, problems
}

// builtIn are the names of what every node has.
func builtIn(service string) bool {
	return strings.HasPrefix(service, "perdure.") || strings.HasPrefix(service, "grpc.")
}

// describe makes of descriptors what generated code has, with messages that are known by their
// descriptors alone. It runs nothing.
func describe(service *schema.Service) *actor.ServiceDesc {
	desc := &actor.ServiceDesc{
		Name: string(service.Desc.FullName()), Kind: actor.Kind(service.Kind), File: service.Desc.ParentFile(),
	}
	if service.State != nil {
		desc.StateType = empty(service.State)
		desc.StateVersion = beyondFirst(service.StateVersion)
	}
	for _, table := range service.Tables {
		desc.Tables = append(desc.Tables, actor.TableDesc{Name: table.Name, New: empty(table.Message), Version: beyondFirst(table.Version)})
	}
	for _, promise := range service.Promises {
		desc.Promises = append(desc.Promises, actor.PromiseDesc{Name: promise.Name, New: empty(promise.Message)})
	}
	for _, method := range service.Methods {
		rpc := method.Desc
		described := &actor.MethodDesc{
			Service: desc.Name, Name: string(rpc.Name()), Kind: desc.Kind, Mode: actor.Mode(method.Mode),
			NewRequest: empty(rpc.Input()), NewResponse: empty(rpc.Output()),
			Schema:  func() protoreflect.MethodDescriptor { return rpc },
			Options: options(method.Options),
		}
		if method.Key != nil {
			described.KeyField = method.Key.Number()
		}
		if method.IdempotencyKey != nil {
			described.IdempotencyField = method.IdempotencyKey.Number()
		}
		desc.Methods = append(desc.Methods, described)
	}
	return desc
}

// beyondFirst is how generated code writes versions.
func beyondFirst(version uint32) uint32 {
	if version == 1 {
		return 0
	}
	return version
}

func empty(message protoreflect.MessageDescriptor) func() proto.Message {
	kind := dynamicpb.NewMessageType(message)
	return func() proto.Message { return kind.New().Interface() }
}

func options(o schema.HandlerOptions) actor.HandlerOptions {
	out := actor.HandlerOptions{
		Retry: actor.RetryPolicy{
			InitialInterval: o.Retry.InitialInterval, MaxInterval: o.Retry.MaxInterval, Factor: o.Retry.Factor,
			MaxAttempts: int(o.Retry.MaxAttempts), PauseOnExhausted: o.Retry.PauseOnExhausted,
		},
		StepTimeout: o.StepTimeout, Timeout: o.Timeout, Retention: o.Retention, MaxInbox: o.MaxInbox,
		InactivityTimeout: o.InactivityTimeout, JournalRetention: o.JournalRetention,
	}
	for _, limit := range o.Limits {
		out.Limits = append(out.Limits, actor.Limit{
			Name: limit.Name, By: limitBy(limit.By), Concurrency: limit.Concurrency,
			Rate:     actor.Rate{Count: limit.RateCount, Per: limit.RatePer, Burst: limit.RateBurst},
			MaxQueue: limit.MaxQueue, UntilDone: limit.UntilDone,
		})
	}
	return out
}

func limitBy(by perdurev1.By) actor.LimitBy {
	switch by {
	case perdurev1.By_HANDLER:
		return actor.ByHandler
	case perdurev1.By_KEY:
		return actor.ByKey
	case perdurev1.By_LIMIT_KEY:
		return actor.ByLimitKey
	case perdurev1.By_TENANT:
		return actor.ByTenant
	}
	return actor.ByService
}
