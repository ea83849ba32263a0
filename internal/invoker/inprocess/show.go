package inprocess

import (
	"encoding/json"
	"fmt"
	"strings"
	"unicode/utf8"

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"

	recordv1 "github.com/perdure/perdure/internal/record/v1"
)

// show puts a value of a step into words for a divergence: JSON if its message is known here.
func (d *durable) show(of *recordv1.Entry, value []byte) string {
	var empty func() proto.Message
	switch step := of.GetEntry().(type) {
	case *recordv1.Entry_Call:
		empty = d.invoker.requestOf(step.Call.GetInvoke().GetTarget())
	case *recordv1.Entry_Send:
		empty = d.invoker.requestOf(step.Send.GetInvoke().GetTarget())
	case *recordv1.Entry_SetState:
		empty, value = d.method.service.state.shown(value)
	case *recordv1.Entry_TablePut:
		empty, value = d.method.service.tableShape(step.TablePut.GetTable()).shown(value)
	}
	if empty != nil {
		message := empty()
		if proto.Unmarshal(value, message) == nil {
			if text, err := protojson.Marshal(message); err == nil {
				return compact(text)
			}
		}
	}
	if utf8.Valid(value) && strings.IndexFunc(string(value), func(r rune) bool { return r < ' ' }) < 0 {
		return fmt.Sprintf("%q", value)
	}
	return fmt.Sprintf("%d bytes: %x", len(value), value[:min(len(value), 200)])
}

// compact drops the blanks that protojson adds at random.
func compact(text []byte) string {
	var value json.RawMessage = text
	if small, err := json.Marshal(value); err == nil {
		return string(small)
	}
	return string(text)
}

func (inv *Invoker) requestOf(target *recordv1.Target) func() proto.Message {
	if m := inv.method(target.GetService(), target.GetHandler()); m != nil {
		return m.desc.NewRequest
	}
	// It may be served elsewhere; its stub is in this program all the same.
	described, err := protoregistry.GlobalFiles.FindDescriptorByName(protoreflect.FullName(target.GetService()))
	if err != nil {
		return nil
	}
	service, ok := described.(protoreflect.ServiceDescriptor)
	if !ok {
		return nil
	}
	method := service.Methods().ByName(protoreflect.Name(target.GetHandler()))
	if method == nil {
		return nil
	}
	known, err := protoregistry.GlobalTypes.FindMessageByName(method.Input().FullName())
	if err != nil {
		return nil
	}
	return func() proto.Message { return known.New().Interface() }
}
