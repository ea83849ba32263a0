package schema

import (
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	perdurev1 "github.com/perdure/perdure/proto/perdure/v1"
)

// Field numbers of perdure.v1.FieldOptions, for positions.
const (
	keyField            = 1
	idempotencyKeyField = 2
)

// requestFields finds the key and the idempotency key among the fields of the request.
func (r *reader) requestFields(service *Service, method *Method) {
	request := method.Desc.Input()
	marked := false
	for i := range request.Fields().Len() {
		field := request.Fields().Get(i)
		if !proto.HasExtension(field.Options(), perdurev1.E_Field) {
			continue
		}
		options := proto.GetExtension(field.Options(), perdurev1.E_Field).(*perdurev1.FieldOptions)
		r.unknownFieldsOnce(field, options)
		if options.GetKey() && options.GetIdempotencyKey() {
			marked = true
			r.reportOnce(field, fieldOption(idempotencyKeyField), "cannot be both key and idempotency_key: every call to the object would be the same call; mark another field")
			continue
		}
		if options.GetKey() {
			marked = true
			r.key(service, method, field)
		}
		if options.GetIdempotencyKey() {
			r.idempotencyKey(method, field)
		}
	}
	if service.Kind == perdurev1.Kind_SERVICE || marked {
		return
	}
	if request.Fields().Len() == 0 {
		r.report(method.Desc, nil, "its request %s has no key: mark the field that names the object; it needs a request message of its own for that", request.FullName())
		return
	}
	r.report(method.Desc, nil, "its request %s has no key: mark the field that names the object, for example `string id = 1 [(perdure.v1.field).key = true];`", request.FullName())
}

func (r *reader) key(service *Service, method *Method, field protoreflect.FieldDescriptor) {
	where := fieldOption(keyField)
	switch {
	case service.Kind == perdurev1.Kind_SERVICE:
		r.reportOnce(field, where, "is marked as the key, but %s is a SERVICE and has none; drop the mark, or make it an OBJECT", service.Desc.Name())
	case method.Key != nil:
		r.reportOnce(field, where, "is a second key in %s, beside %s; a key is one field: join the parts in one string", field.Parent().FullName(), method.Key.Name())
	case field.ContainingOneof() != nil && !field.ContainingOneof().IsSynthetic():
		r.reportOnce(field, where, "a key cannot be in a oneof: every request has one")
	case KeyType(field) == "":
		r.reportOnce(field, where, "a key must be one string or integer, not %s", article(typeName(field)))
	default:
		method.Key = field
	}
}

func (r *reader) idempotencyKey(method *Method, field protoreflect.FieldDescriptor) {
	where := fieldOption(idempotencyKeyField)
	switch {
	case field.Kind() != protoreflect.StringKind || field.Cardinality() == protoreflect.Repeated:
		r.reportOnce(field, where, "an idempotency_key must be a string, not %s", article(typeName(field)))
	case method.IdempotencyKey != nil:
		r.reportOnce(field, where, "is a second idempotency_key in %s, beside %s; it is one field: join the parts in one string", field.Parent().FullName(), method.IdempotencyKey.Name())
	default:
		method.IdempotencyKey = field
	}
}

func (r *reader) sameKeyType(service *Service) {
	var first protoreflect.FieldDescriptor
	for _, method := range service.Methods {
		switch {
		case method.Key == nil:
		case first == nil:
			first = method.Key
		case KeyType(method.Key) != KeyType(first):
			r.reportOnce(method.Key, fieldOption(keyField), "the key is %s here and %s in %s; all of a service's rpcs must have the same key type",
				article(typeName(method.Key)), article(typeName(first)), first.Parent().FullName())
		}
	}
}

// reportOnce is for fields: several rpcs may have the same request message.
func (r *reader) reportOnce(desc protoreflect.Descriptor, within []int32, format string, args ...any) {
	problem := Problemf(desc, within, format, args...)
	for _, p := range r.problems {
		if p == problem {
			return
		}
	}
	r.problems = append(r.problems, problem)
}

func (r *reader) unknownFieldsOnce(desc protoreflect.Descriptor, options proto.Message) {
	if hasUnknown(options.ProtoReflect()) {
		r.reportOnce(desc, fieldOption(), "(perdure.v1.field) has a field that is not known to this protoc-gen-go-perdure; update it")
	}
}

// KeyType is the Go type of a key field, or "" if the field cannot be a key. Keys of the same Go
// type have the same text form, whatever their encoding in the request.
func KeyType(field protoreflect.FieldDescriptor) string {
	if field.Cardinality() == protoreflect.Repeated {
		return ""
	}
	switch field.Kind() {
	case protoreflect.StringKind:
		return "string"
	case protoreflect.Int32Kind, protoreflect.Sint32Kind, protoreflect.Sfixed32Kind:
		return "int32"
	case protoreflect.Int64Kind, protoreflect.Sint64Kind, protoreflect.Sfixed64Kind:
		return "int64"
	case protoreflect.Uint32Kind, protoreflect.Fixed32Kind:
		return "uint32"
	case protoreflect.Uint64Kind, protoreflect.Fixed64Kind:
		return "uint64"
	default:
		return ""
	}
}

// typeName is the type as its author would say it.
func typeName(field protoreflect.FieldDescriptor) string {
	name := field.Kind().String()
	switch {
	case field.IsMap():
		return "map"
	case field.Message() != nil:
		name = "message"
	}
	if field.IsList() {
		return "repeated " + name
	}
	return name
}
