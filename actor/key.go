package actor

import (
	"strconv"
	"unicode/utf8"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	"github.com/perdure/perdure/internal/invocation"
)

// KeyOf is the key of the object whose handler runs. Generated contexts call it.
func KeyOf[K string | int32 | int64 | uint32 | uint64](ctx Context) K {
	var key K
	runtime := ctx.handler().runtime
	text := runtime.Invocation().Key
	var err error
	switch into := any(&key).(type) {
	case *string:
		*into = text
	case *int32:
		var number int64
		number, err = strconv.ParseInt(text, 10, 32)
		*into = int32(number)
	case *int64:
		*into, err = strconv.ParseInt(text, 10, 64)
	case *uint32:
		var number uint64
		number, err = strconv.ParseUint(text, 10, 32)
		*into = uint32(number)
	case *uint64:
		*into, err = strconv.ParseUint(text, 10, 64)
	}
	if err != nil {
		runtime.Fail(Errorf(Internal, "key %q of %s is not a %T: was the type of the key field changed?", text, runtime.Invocation().Method.Service, key))
	}
	return key
}

// RequestKey reads the key out of a request; it is "" for a SERVICE. A missing, too long or
// malformed key is an error of code invalid_argument.
func (m *MethodDesc) RequestKey(req proto.Message) (string, error) {
	if m.KeyField == 0 {
		return "", nil
	}
	message := req.ProtoReflect()
	field := message.Descriptor().Fields().ByNumber(m.KeyField)
	if field == nil {
		return "", Errorf(Internal, "%s: %s has no key field %d: generate the code again", m.FullName(), message.Descriptor().FullName(), m.KeyField)
	}
	value := message.Get(field)
	if field.Kind() != protoreflect.StringKind {
		if field.HasPresence() && !message.Has(field) {
			return "", m.checkKey(field.JSONName(), "")
		}
		return value.String(), nil // without presence 0 is a key like any other number
	}
	return value.String(), m.checkKey(field.JSONName(), value.String())
}

func (m *MethodDesc) checkKey(field, key string) error {
	switch {
	case key == "":
		return Errorf(InvalidArgument, "%s: the key %s is empty: it names the object", m.FullName(), field)
	case len(key) > invocation.MaxKeyBytes:
		return Errorf(InvalidArgument, "%s: the key %s has %d bytes; at most %d are allowed", m.FullName(), field, len(key), invocation.MaxKeyBytes)
	case !utf8.ValidString(key):
		return Errorf(InvalidArgument, "%s: the key %s is not valid utf-8", m.FullName(), field)
	}
	return nil
}

// RequestIdempotencyKey is the value of the request's idempotency field, "" if there is none.
func (m *MethodDesc) RequestIdempotencyKey(req proto.Message) string {
	if m.IdempotencyField == 0 {
		return ""
	}
	message := req.ProtoReflect()
	field := message.Descriptor().Fields().ByNumber(m.IdempotencyField)
	if field == nil || field.Kind() != protoreflect.StringKind {
		return ""
	}
	return message.Get(field).String()
}

// WithKey is req, or if that is nil an empty request, with its key field set to key. req is not
// changed. A malformed key is an error of code invalid_argument.
func (m *MethodDesc) WithKey(req proto.Message, key string) (proto.Message, error) {
	return m.withKey(req, key)
}

// withKey returns req with its key field set to key, in a shallow copy if it was not: one
// request may go to many objects at once.
func (m *MethodDesc) withKey(req proto.Message, key string) (proto.Message, error) {
	if req == nil || !req.ProtoReflect().IsValid() {
		req = m.NewRequest()
	}
	if m.KeyField == 0 {
		return req, nil
	}
	message := req.ProtoReflect()
	field := message.Descriptor().Fields().ByNumber(m.KeyField)
	if field == nil {
		return nil, Errorf(Internal, "%s: %s has no key field %d: generate the code again", m.FullName(), message.Descriptor().FullName(), m.KeyField)
	}
	if err := m.checkKey(field.JSONName(), key); err != nil {
		return nil, err
	}
	value, err := keyValue(field.Kind(), key)
	if err != nil {
		return nil, Errorf(InvalidArgument, "%s: the key %s is %q, which is not a %s", m.FullName(), field.JSONName(), key, field.Kind())
	}
	if message.Has(field) {
		if message.Get(field).Equal(value) {
			return req, nil
		}
		return nil, Errorf(InvalidArgument, "%s: the request's %s is %q but the call goes to %q: leave the field empty", m.FullName(), field.JSONName(), message.Get(field).String(), key)
	}
	filled := message.New()
	message.Range(func(other protoreflect.FieldDescriptor, value protoreflect.Value) bool {
		filled.Set(other, value)
		return true
	})
	filled.SetUnknown(message.GetUnknown())
	filled.Set(field, value)
	return filled.Interface(), nil
}

func keyValue(kind protoreflect.Kind, key string) (protoreflect.Value, error) {
	switch kind {
	case protoreflect.StringKind:
		return protoreflect.ValueOfString(key), nil
	case protoreflect.Int32Kind, protoreflect.Sint32Kind, protoreflect.Sfixed32Kind:
		number, err := strconv.ParseInt(key, 10, 32)
		return protoreflect.ValueOfInt32(int32(number)), err
	case protoreflect.Int64Kind, protoreflect.Sint64Kind, protoreflect.Sfixed64Kind:
		number, err := strconv.ParseInt(key, 10, 64)
		return protoreflect.ValueOfInt64(number), err
	case protoreflect.Uint32Kind, protoreflect.Fixed32Kind:
		number, err := strconv.ParseUint(key, 10, 32)
		return protoreflect.ValueOfUint32(uint32(number)), err
	case protoreflect.Uint64Kind, protoreflect.Fixed64Kind:
		number, err := strconv.ParseUint(key, 10, 64)
		return protoreflect.ValueOfUint64(number), err
	}
	return protoreflect.Value{}, strconv.ErrSyntax
}
