package codegen

import (
	"fmt"

	"github.com/perdure/perdure/codegen/schema"
	perdurev1 "github.com/perdure/perdure/proto/perdure/v1"
)

func (w writer) stubType() {
	const caller = "c is an *actor.Client or a handler's ctx: in a handler, the calls are steps of it."
	deprecated := w.deprecation(protoComment(w.proto.Comments))
	w.P()
	if w.Kind == perdurev1.Kind_SERVICE {
		comment(w.GeneratedFile, "", fmt.Sprintf("%s calls %s.", w.stub(), w.Desc.FullName()), deprecated)
		w.P("type ", w.stub(), " struct {")
		w.P("c ", actorCaller)
		w.P("}")
		w.P()
		comment(w.GeneratedFile, "", fmt.Sprintf("%s is %s. %s", w.short, w.Desc.FullName(), caller), deprecated)
		w.P("func ", w.short, "(c ", actorCaller, ") ", w.stub(), " { return ", w.stub(), "{c} }")
		return
	}
	comment(w.GeneratedFile, "", fmt.Sprintf("%s calls one %s of %s.", w.stub(), w.noun(), w.Desc.FullName()), deprecated)
	w.P("type ", w.stub(), " struct {")
	w.P("c ", actorCaller)
	w.P("key string")
	w.P("}")
	w.P()
	parameter, keyType := w.keyParameter(), schema.KeyType(w.Key())
	comment(w.GeneratedFile, "", fmt.Sprintf("%s is the %s %s. %s", w.short, w.noun(), parameter, caller), deprecated)
	w.P("func ", w.short, "(c ", actorCaller, ", ", parameter, " ", keyType, ") ", w.stub(), " {")
	w.P("return ", w.stub(), "{c, ", w.keyText(parameter, keyType), "}")
	w.P("}")
}

// keyText is the expression for the key in its canonical text form.
func (w writer) keyText(parameter, keyType string) string {
	format := func(function, as string) string {
		if as != keyType {
			parameter = as + "(" + parameter + ")"
		}
		return w.QualifiedGoIdent(strconvPackage.Ident(function)) + "(" + parameter + ", 10)"
	}
	switch keyType {
	case "string":
		return parameter
	case "int32", "int64":
		return format("FormatInt", "int64")
	default:
		return format("FormatUint", "uint64")
	}
}

func (w writer) stubMethods(method *goMethod) {
	name := method.proto.GoName
	input, output := method.proto.Input.GoIdent, method.proto.Output.GoIdent
	key := `""`
	if w.Kind != perdurev1.Kind_SERVICE {
		key = "s.key"
	}
	desc := fmt.Sprintf("%s.Methods[%d]", w.descVar(), method.index)

	w.P()
	w.methodComment(method, "%s calls %s.")
	w.P("func (s ", w.stub(), ") ", name, "(ctx ", contextContext, ", req *", input, ", opts ...", actorIdent("CallOption"), ") (*", output, ", error) {")
	w.P("return ", actorIdent("Invoke"), "[*", output, "](ctx, s.c, ", desc, ", ", key, ", req, opts)")
	w.P("}")
	for _, variant := range method.stubNames()[1:] {
		w.P()
		switch variant {
		case name + "Async":
			comment(w.GeneratedFile, "", variant+" calls without waiting.")
			w.P("func (s ", w.stub(), ") ", variant, "(ctx ", contextContext, ", req *", input, ", opts ...", actorIdent("CallOption"), ") ", actorIdent("Future"), "[*", output, "] {")
			w.P("return ", actorIdent("InvokeAsync"), "[*", output, "](ctx, s.c, ", desc, ", ", key, ", req, opts)")
		case name + "Send":
			comment(w.GeneratedFile, "", variant+" starts the call, at once or after a Delay, and does not wait for its result.")
			w.P("func (s ", w.stub(), ") ", variant, "(ctx ", contextContext, ", req *", input, ", opts ...", actorIdent("SendOption"), ") (*", actorIdent("Invocation"), "[*", output, "], error) {")
			w.P("return ", actorIdent("InvokeSend"), "[*", output, "](ctx, s.c, ", desc, ", ", key, ", req, opts)")
		case name + "Attach":
			comment(w.GeneratedFile, "", variant+" waits for the run of this key, whoever started it.")
			w.P("func (s ", w.stub(), ") ", variant, "(ctx ", contextContext, ") (*", output, ", error) {")
			w.P("return ", actorIdent("AttachKey"), "[*", output, "](ctx, s.c, ", desc, ", ", key, ")")
		}
		w.P("}")
	}
}
