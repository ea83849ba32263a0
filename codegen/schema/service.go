package schema

import (
	"fmt"
	"regexp"
	"strings"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	perdurev1 "github.com/perdure/perdure/proto/perdure/v1"
)

// Field numbers of perdure.v1.ServiceOptions, for positions.
const (
	kindField     = 1
	stateField    = 2
	tablesField   = 3
	promisesField = 4
	defaultsField = 5

	stateVersionField = 8
)

// service returns nil for a service without the option or without a kind, by which all else is
// judged.
func (r *reader) service(desc protoreflect.ServiceDescriptor) *Service {
	if !proto.HasExtension(desc.Options(), perdurev1.E_Service) {
		r.strayMethodOptions(desc)
		return nil
	}
	options := proto.GetExtension(desc.Options(), perdurev1.E_Service).(*perdurev1.ServiceOptions)
	r.unknownFields(desc, serviceOption(), "(perdure.v1.service)", options)

	service := &Service{Desc: desc, Kind: options.GetKind()}
	switch service.Kind {
	case perdurev1.Kind_SERVICE, perdurev1.Kind_OBJECT, perdurev1.Kind_WORKFLOW:
	case perdurev1.Kind_KIND_UNSPECIFIED:
		r.report(desc, serviceOption(), "(perdure.v1.service).kind is not set: say SERVICE (no key), OBJECT (state per key) or WORKFLOW (one run per key)")
		return nil
	default:
		r.report(desc, serviceOption(kindField), "kind %d is not known to this protoc-gen-go-perdure; update it", service.Kind)
		return nil
	}
	r.state(service, options)
	service.Tables = r.tables(service, options.GetTables())
	service.Promises = r.promises(service, options.GetPromises())
	r.handlerOptions(desc, serviceOption(defaultsField), "defaults", options.GetDefaults())
	r.limits(desc, serviceOption(defaultsField), "defaults", options.GetKind(), options.GetDefaults())
	r.methods(service, options.GetDefaults())
	return service
}

func (r *reader) strayMethodOptions(desc protoreflect.ServiceDescriptor) {
	for i := range desc.Methods().Len() {
		method := desc.Methods().Get(i)
		if proto.HasExtension(method.Options(), perdurev1.E_Method) {
			r.report(method, methodOption(), "(perdure.v1.method) has no effect: the service has no (perdure.v1.service) option; give it one, or drop this one")
		}
	}
}

func (r *reader) state(service *Service, options *perdurev1.ServiceOptions) {
	name := options.GetState()
	service.StateVersion = max(options.GetStateVersion(), 1)
	if name == "" {
		if options.GetStateVersion() > 0 {
			r.report(service.Desc, serviceOption(stateVersionField), "state_version is %d, but there is no state: name the state's message, or drop state_version", options.GetStateVersion())
		}
		return
	}
	where := serviceOption(stateField)
	if service.Kind == perdurev1.Kind_SERVICE {
		r.report(service.Desc, where, "a SERVICE has no state; make it an OBJECT, or drop state: %q", name)
		return
	}
	service.State = r.message(service.Desc, where, "state", name)
}

func (r *reader) tables(service *Service, tables []*perdurev1.Table) []Slot {
	var slots []Slot
	seen := map[string]bool{}
	for i, table := range tables {
		where := serviceOption(tablesField, int32(i))
		name := table.GetName()
		switch {
		case service.Kind != perdurev1.Kind_OBJECT:
			r.report(service.Desc, where, "tables: %q: only an OBJECT has tables; make it an OBJECT, or drop the table", name)
			continue
		case seen[name]:
			r.report(service.Desc, where, "two tables are called %q; rename one of them", name)
			continue
		}
		seen[name] = true
		if !r.slotName(service.Desc, where, "table", name) {
			continue
		}
		if message := r.message(service.Desc, where, fmt.Sprintf("table %q", name), table.GetValue()); message != nil {
			slots = append(slots, Slot{name, message, where, max(table.GetVersion(), 1)})
		}
	}
	return slots
}

func (r *reader) promises(service *Service, promises []*perdurev1.Promise) []Slot {
	var slots []Slot
	seen := map[string]bool{}
	for i, promise := range promises {
		where := serviceOption(promisesField, int32(i))
		name := promise.GetName()
		switch {
		case service.Kind != perdurev1.Kind_WORKFLOW:
			r.report(service.Desc, where, "promises: %q: only a WORKFLOW has promises; elsewhere use an awakeable", name)
			continue
		case seen[name]:
			r.report(service.Desc, where, "two promises are called %q; rename one of them", name)
			continue
		}
		seen[name] = true
		if !r.slotName(service.Desc, where, "promise", name) {
			continue
		}
		if message := r.message(service.Desc, where, fmt.Sprintf("promise %q", name), promise.GetType()); message != nil {
			slots = append(slots, Slot{name, message, where, 1})
		}
	}
	return slots
}

// Slot names are part of stored keys and become Go method names, so they are kept short and plain.
var slotNamePattern = regexp.MustCompile(`^[a-z][a-z0-9]*(_[a-z0-9]+)*$`)

const maxSlotNameBytes = 64

func (r *reader) slotName(desc protoreflect.Descriptor, where []int32, what, name string) bool {
	switch {
	case name == "":
		r.report(desc, where, "a %s has no name: give it one, for example name: \"entries\"", what)
	case len(name) > maxSlotNameBytes:
		r.report(desc, where, "%s %q: the name has %d bytes; at most %d are allowed", what, name, len(name), maxSlotNameBytes)
	case !slotNamePattern.MatchString(name):
		r.report(desc, where, "%s %q: a name must be in lower_snake_case, starting with a letter", what, name)
	default:
		return true
	}
	return false
}

// message finds a message by the name an option gives: in the service's package first, then by
// its full name, and only in what the file itself can see, since the generated code refers to it.
func (r *reader) message(desc protoreflect.Descriptor, where []int32, what, name string) protoreflect.MessageDescriptor {
	if name == "" {
		r.report(desc, where, "%s has no message type: name one of the package, for example \"Entry\"", what)
		return nil
	}
	file := desc.ParentFile()
	candidates := []protoreflect.FullName{protoreflect.FullName(strings.TrimPrefix(name, "."))}
	if file.Package() != "" && !strings.HasPrefix(name, ".") {
		candidates = append([]protoreflect.FullName{file.Package() + "." + candidates[0]}, candidates...)
	}
	for _, candidate := range candidates {
		switch found := findVisible(file, candidate).(type) {
		case nil:
		case protoreflect.MessageDescriptor:
			if found.IsMapEntry() {
				r.report(desc, where, "%s: %q is the entry of a map, not a message; declare a message", what, name)
				return nil
			}
			return found
		default:
			r.report(desc, where, "%s: %q is not a message; name a message", what, candidate)
			return nil
		}
	}
	r.report(desc, where, "%s: no message %q in package %s or in what %s imports", what, name, file.Package(), file.Path())
	return nil
}

// findVisible looks where the compiler would: in the file, its imports and what those import
// publicly.
func findVisible(file protoreflect.FileDescriptor, name protoreflect.FullName) protoreflect.Descriptor {
	if found := findIn(file, name); found != nil {
		return found
	}
	seen := map[string]bool{}
	var search func(imports protoreflect.FileImports, publicOnly bool) protoreflect.Descriptor
	search = func(imports protoreflect.FileImports, publicOnly bool) protoreflect.Descriptor {
		for i := range imports.Len() {
			imported := imports.Get(i)
			if publicOnly && !imported.IsPublic || seen[imported.Path()] || imported.IsPlaceholder() {
				continue
			}
			seen[imported.Path()] = true
			if found := findIn(imported, name); found != nil {
				return found
			}
			if found := search(imported.Imports(), true); found != nil {
				return found
			}
		}
		return nil
	}
	return search(file.Imports(), false)
}

func findIn(file protoreflect.FileDescriptor, name protoreflect.FullName) protoreflect.Descriptor {
	rest := string(name)
	if file.Package() != "" {
		var ok bool
		if rest, ok = strings.CutPrefix(rest, string(file.Package())+"."); !ok {
			return nil
		}
	}
	parts := strings.Split(rest, ".")
	messages, enums := file.Messages(), file.Enums()
	for i, part := range parts {
		last := i == len(parts)-1
		if message := messages.ByName(protoreflect.Name(part)); message != nil {
			if last {
				return message
			}
			messages, enums = message.Messages(), message.Enums()
			continue
		}
		if last {
			if enum := enums.ByName(protoreflect.Name(part)); enum != nil {
				return enum
			}
		}
		return nil
	}
	return nil
}

// unknownFields refuses options that only a newer options.proto has: ignoring them could drop a
// guarantee the author asked for.
func (r *reader) unknownFields(desc protoreflect.Descriptor, where []int32, what string, options proto.Message) {
	if hasUnknown(options.ProtoReflect()) {
		r.report(desc, where, "%s has a field that is not known to this protoc-gen-go-perdure; update it", what)
	}
}

func hasUnknown(m protoreflect.Message) bool {
	if len(m.GetUnknown()) > 0 {
		return true
	}
	found := false
	m.Range(func(field protoreflect.FieldDescriptor, value protoreflect.Value) bool {
		switch {
		case field.Message() == nil || field.IsMap():
		case field.IsList():
			for i := range value.List().Len() {
				found = found || hasUnknown(value.List().Get(i).Message())
			}
		default:
			found = found || hasUnknown(value.Message())
		}
		return !found
	})
	return found
}
