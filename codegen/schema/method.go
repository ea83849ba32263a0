package schema

import (
	"slices"
	"strings"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/descriptorpb"

	perdurev1 "github.com/perdure/perdure/proto/perdure/v1"
)

// Field numbers of perdure.v1.MethodOptions, for positions.
const (
	modeField      = 1
	handlerField   = 2
	schedulesField = 3
)

// modes are those of a kind; the first is its default.
func modes(kind perdurev1.Kind) []perdurev1.Mode {
	switch kind {
	case perdurev1.Kind_OBJECT:
		return []perdurev1.Mode{perdurev1.Mode_TRANSACTION, perdurev1.Mode_DURABLE, perdurev1.Mode_READ}
	case perdurev1.Kind_WORKFLOW:
		return []perdurev1.Mode{perdurev1.Mode_READ, perdurev1.Mode_RUN, perdurev1.Mode_SIGNAL}
	default:
		return []perdurev1.Mode{perdurev1.Mode_DURABLE, perdurev1.Mode_TRANSACTION}
	}
}

func (r *reader) methods(service *Service, defaults *perdurev1.HandlerOptions) {
	methods := service.Desc.Methods()
	if methods.Len() == 0 {
		r.report(service.Desc, nil, "a perdure service needs at least one rpc")
		return
	}
	var run *Method
	modesKnown := true
	for i := range methods.Len() {
		method, ok := r.method(service, methods.Get(i), defaults)
		modesKnown = modesKnown && ok
		service.Methods = append(service.Methods, method)
		if !ok {
			continue
		}
		if method.Mode == perdurev1.Mode_RUN {
			if run != nil {
				r.report(method.Desc, methodOption(modeField), "a WORKFLOW needs one rpc with option (perdure.v1.method).mode = RUN, and %s is it already", run.Desc.Name())
				continue
			}
			run = method
		}
	}
	if service.Kind == perdurev1.Kind_WORKFLOW && run == nil && modesKnown {
		r.report(service.Desc, nil, "a WORKFLOW needs one rpc with option (perdure.v1.method).mode = RUN")
	}
	if service.Kind != perdurev1.Kind_SERVICE {
		r.sameKeyType(service)
	}
	r.sameLimits(service)
}

// method returns false if the mode is wrong; the rules that hang on it are then left alone.
func (r *reader) method(service *Service, desc protoreflect.MethodDescriptor, defaults *perdurev1.HandlerOptions) (*Method, bool) {
	options, _ := proto.GetExtension(desc.Options(), perdurev1.E_Method).(*perdurev1.MethodOptions)
	r.unknownFields(desc, methodOption(), "(perdure.v1.method)", options)
	if desc.IsStreamingClient() || desc.IsStreamingServer() {
		r.report(desc, nil, "a perdure service cannot have streaming rpcs; put it in a service without (perdure.v1.service) and serve that with plain connect")
	}
	method := &Method{Desc: desc, Mode: options.GetMode()}
	r.requestFields(service, method)

	allowed := modes(service.Kind)
	if method.Mode == perdurev1.Mode_MODE_UNSPECIFIED {
		method.Mode = allowed[0]
	}
	if _, known := perdurev1.Mode_name[int32(method.Mode)]; !known {
		r.report(desc, methodOption(modeField), "mode %d is not known to this protoc-gen-go-perdure; update it", method.Mode)
		return method, false
	}
	if !slices.Contains(allowed, method.Mode) {
		r.report(desc, methodOption(modeField), "mode %s is not for %s; it can be %s", method.Mode, article(service.Kind.String()), list(allowed))
		return method, false
	}
	r.idempotencyLevel(method)
	if method.Mode == perdurev1.Mode_SIGNAL && desc.Output().Fields().Len() > 0 {
		r.report(desc, nil, "a SIGNAL only says that it was received, so its response %s must have no fields", desc.Output().FullName())
	}
	if method.IdempotencyKey != nil {
		switch method.Mode {
		case perdurev1.Mode_READ:
			r.report(method.IdempotencyKey, fieldOption(idempotencyKeyField), "an idempotency_key has no effect on the READ handler %s, which changes nothing; drop it", desc.FullName())
		case perdurev1.Mode_RUN:
			r.report(method.IdempotencyKey, fieldOption(idempotencyKeyField), "an idempotency_key has no effect on the RUN handler %s, which runs once per key anyway; drop it", desc.FullName())
		}
	}
	r.handlerOptions(desc, methodOption(handlerField), "handler", options.GetHandler())
	r.limits(desc, methodOption(handlerField), "handler", service.Kind, options.GetHandler())
	r.ineffectiveOptions(method, options.GetHandler())
	method.Options = r.mergeOptions(method, defaults, options.GetHandler())
	r.schedules(service, method, options.GetSchedules())
	return method, true
}

func (r *reader) idempotencyLevel(method *Method) {
	options, _ := method.Desc.Options().(*descriptorpb.MethodOptions)
	if options.GetIdempotencyLevel() == descriptorpb.MethodOptions_NO_SIDE_EFFECTS && method.Mode != perdurev1.Mode_READ {
		remedy := "set mode: READ or drop it"
		if method.Mode == perdurev1.Mode_RUN || method.Mode == perdurev1.Mode_SIGNAL {
			remedy = "drop it"
		}
		r.report(method.Desc, []int32{methodOptionsField, idempotencyLevelField},
			"idempotency_level = NO_SIDE_EFFECTS (HTTP GET) on a %s handler, which may write; %s", method.Mode, remedy)
	}
}

// article is the noun with "a" or "an" before it, by its spelling.
func article(noun string) string {
	if strings.ContainsAny(noun[:1], "aeioAEIO") {
		return "an " + noun
	}
	return "a " + noun
}

func list(modes []perdurev1.Mode) string {
	names := make([]string, len(modes))
	for i, mode := range modes {
		names[i] = mode.String()
	}
	slices.Sort(names)
	return strings.Join(names, ", ")
}
