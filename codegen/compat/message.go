package compat

import (
	"slices"

	"google.golang.org/protobuf/reflect/protoreflect"
)

// message compares, field by field, a message that is stored with the one it is read as. `buf
// breaking` does so too, but whoever starts a build over kept data may not have run it.
func (c *comparison) message(kept Kept, handler protoreflect.Name, service protoreflect.FullName, before, after protoreflect.MessageDescriptor) {
	m := messages{comparison: c, affected: Affected{service, handler, kept}, seen: map[pair]bool{}}
	m.compare(before, after)
}

type messages struct {
	*comparison
	affected Affected
	seen     map[pair]bool // messages may contain themselves
}

type pair struct{ before, after protoreflect.FullName }

func (m *messages) compare(before, after protoreflect.MessageDescriptor) {
	names := pair{before.FullName(), after.FullName()}
	if m.seen[names] {
		return
	}
	m.seen[names] = true
	for i := range before.Fields().Len() {
		m.field(before.Fields().Get(i), after)
	}
	for i := range after.Fields().Len() {
		field := after.Fields().Get(i)
		old := before.Fields().ByNumber(field.Number())
		if field.Cardinality() == protoreflect.Required && (old == nil || old.Cardinality() != protoreflect.Required) {
			m.breaks(field, "is required, and what is stored may not have it: it could not be read; make it optional")
		}
	}
}

func (m *messages) breaks(desc protoreflect.Descriptor, format string, args ...any) {
	m.affect(Breaking, m.affected, desc, nil, format, args...)
}

func (m *messages) field(old protoreflect.FieldDescriptor, after protoreflect.MessageDescriptor) {
	field := after.Fields().ByNumber(old.Number())
	if field == nil {
		if moved := after.Fields().ByName(old.Name()); moved != nil {
			m.breaks(moved, "was number %d and is %d: what is stored would not be found any more; keep the number", old.Number(), moved.Number())
		}
		return // What is stored of a field that is gone stays where it is.
	}
	switch {
	case old.IsMap() != field.IsMap():
		m.breaks(field, "was %s and is %s: what is stored would be misread; add a field instead", typeOf(old), typeOf(field))
	case !readable(old, field):
		m.breaks(field, "was %s and is %s: what is stored would be misread; add a field instead", typeOf(old), typeOf(field))
	case old.Cardinality() == protoreflect.Repeated && field.Cardinality() != protoreflect.Repeated:
		m.breaks(field, "was repeated and is not: all but the last of what is stored would be lost; add a field instead")
	case joinsOneof(old, field):
		m.breaks(field, "is in oneof %s, whose fields were independent: only the last of what is stored would be read; add fields instead", field.ContainingOneof().Name())
	case old.Message() != nil:
		m.compare(old.Message(), field.Message())
	}
}

// widened are the kinds that a stored value of another kind can be read as without a change.
var widened = map[protoreflect.Kind][]protoreflect.Kind{
	protoreflect.BoolKind:   {protoreflect.Int32Kind, protoreflect.Int64Kind, protoreflect.Uint32Kind, protoreflect.Uint64Kind},
	protoreflect.EnumKind:   {protoreflect.Int32Kind, protoreflect.Int64Kind},
	protoreflect.Int32Kind:  {protoreflect.Int64Kind, protoreflect.EnumKind},
	protoreflect.Uint32Kind: {protoreflect.Uint64Kind, protoreflect.Int64Kind},
	protoreflect.Sint32Kind: {protoreflect.Sint64Kind},
	protoreflect.StringKind: {protoreflect.BytesKind},
}

func readable(old, field protoreflect.FieldDescriptor) bool {
	return old.Kind() == field.Kind() || slices.Contains(widened[old.Kind()], field.Kind())
}

// joinsOneof reports whether a field now shares a oneof with a field that it could be set beside.
func joinsOneof(old, field protoreflect.FieldDescriptor) bool {
	oneof := field.ContainingOneof()
	if oneof == nil || oneof.IsSynthetic() {
		return false
	}
	for i := range oneof.Fields().Len() {
		other := old.ContainingMessage().Fields().ByNumber(oneof.Fields().Get(i).Number())
		if other != nil && other != old && (other.ContainingOneof() == nil || other.ContainingOneof() != old.ContainingOneof()) {
			return true
		}
	}
	return false
}

// typeOf is a field's type as its author would say it.
func typeOf(field protoreflect.FieldDescriptor) string {
	name := field.Kind().String()
	switch {
	case field.IsMap():
		return "a map"
	case field.Message() != nil:
		name = string(field.Message().FullName())
	case field.Enum() != nil:
		name = string(field.Enum().FullName())
	}
	if field.Cardinality() == protoreflect.Repeated {
		return "repeated " + name
	}
	return name
}
