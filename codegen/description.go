package codegen

import (
	"reflect"
	"strconv"

	"google.golang.org/protobuf/compiler/protogen"

	"github.com/perdure/perdure/codegen/schema"
	perdurev1 "github.com/perdure/perdure/proto/perdure/v1"
)

// description writes the variable that tells the runtime all about the service.
func (w writer) description() {
	w.P()
	w.P("var ", w.descVar(), " = ", actorIdent("ServiceDesc"), "{")
	w.P("Name: ", w.nameVar(), ",")
	w.P("Kind: ", w.kind(), ",")
	if !w.file.samePackage {
		w.P("File: ", w.file.proto.GoDescriptorIdent, ",")
	}
	if w.state != nil {
		w.P("StateType: ", w.newMessage(*w.state), ",")
		if w.StateVersion > 1 {
			w.P("StateVersion: ", w.StateVersion, ",")
		}
	}
	w.slots("Tables", "TableDesc", w.tables)
	w.slots("Promises", "PromiseDesc", w.promises)
	w.P("Methods: []*", actorIdent("MethodDesc"), "{")
	for _, method := range w.methods {
		w.methodDescription(method)
	}
	w.P("},")
	w.P("}")
}

func (w writer) slots(field, typeName string, slots []goSlot) {
	if len(slots) == 0 {
		return
	}
	w.P(field, ": []", actorIdent(typeName), "{")
	for _, slot := range slots {
		version := ""
		if slot.version > 1 {
			version = ", Version: " + strconv.FormatUint(uint64(slot.version), 10)
		}
		w.P("{Name: ", strconv.Quote(slot.name), ", New: ", w.newMessage(slot.message), version, "},")
	}
	w.P("},")
}

func (w writer) methodDescription(method *goMethod) {
	w.P("{")
	w.P("Service: ", w.nameVar(), ",")
	w.P("Name: ", strconv.Quote(string(method.Desc.Name())), ",")
	w.P("Kind: ", w.kind(), ",")
	w.P("Mode: ", w.mode(method.Mode), ",")
	if method.Key != nil {
		w.P("KeyField: ", method.Key.Number(), ",")
	}
	if method.IdempotencyKey != nil {
		w.P("IdempotencyField: ", method.IdempotencyKey.Number(), ",")
	}
	w.P("NewRequest: ", w.newMessage(method.proto.Input.GoIdent), ",")
	w.P("NewResponse: ", w.newMessage(method.proto.Output.GoIdent), ",")
	w.P("Schema: func() ", methodReflector, " {")
	w.P("return ", w.file.proto.GoDescriptorIdent, ".Services().ByName(", strconv.Quote(string(w.Desc.Name())),
		").Methods().ByName(", strconv.Quote(string(method.Desc.Name())), ")")
	w.P("},")
	w.handlerOptions(method)
	if method.Mode != perdurev1.Mode_SIGNAL {
		context := "ctx"
		if w.Kind != perdurev1.Kind_SERVICE {
			context = lowerFirst(w.contextType(method.Mode)) + "{ctx}"
		}
		w.P("Handle: func(ctx ", actorContext, ", handler any, req ", protoMessage, ") (", protoMessage, ", error) {")
		w.P("return handler.(", w.handler(), ").", method.proto.GoName, "(", context, ", req.(*", method.proto.Input.GoIdent, "))")
		w.P("},")
	}
	w.P("},")
}

func (w writer) handlerOptions(method *goMethod) {
	options := method.Options
	if reflect.ValueOf(options).IsZero() {
		return
	}
	w.P("Options: ", actorIdent("HandlerOptions"), "{")
	if retry := options.Retry; retry != (schema.RetryPolicy{}) {
		w.P("Retry: ", actorIdent("RetryPolicy"), "{")
		if retry.InitialInterval > 0 {
			w.P("InitialInterval: ", w.durationLiteral(retry.InitialInterval), ",")
		}
		if retry.MaxInterval > 0 {
			w.P("MaxInterval: ", w.durationLiteral(retry.MaxInterval), ",")
		}
		if retry.Factor > 0 {
			w.P("Factor: ", strconv.FormatFloat(retry.Factor, 'g', -1, 64), ",")
		}
		if retry.MaxAttempts > 0 {
			w.P("MaxAttempts: ", retry.MaxAttempts, ",")
		}
		if retry.PauseOnExhausted {
			w.P("PauseOnExhausted: true,")
		}
		w.P("},")
	}
	if options.StepTimeout > 0 {
		w.P("StepTimeout: ", w.durationLiteral(options.StepTimeout), ",")
	}
	if options.Timeout > 0 {
		w.P("Timeout: ", w.durationLiteral(options.Timeout), ",")
	}
	if options.Retention > 0 {
		w.P("Retention: ", w.durationLiteral(options.Retention), ",")
	}
	w.limits(options.Limits)
	if options.MaxInbox > 0 {
		w.P("MaxInbox: ", options.MaxInbox, ",")
	}
	if options.InactivityTimeout > 0 {
		w.P("InactivityTimeout: ", w.durationLiteral(options.InactivityTimeout), ",")
	}
	if options.JournalRetention > 0 {
		w.P("JournalRetention: ", w.durationLiteral(options.JournalRetention), ",")
	}
	w.P("},")
}

func (w writer) limits(limits []schema.Limit) {
	if len(limits) == 0 {
		return
	}
	w.P("Limits: []", actorIdent("Limit"), "{")
	for _, limit := range limits {
		w.P("{")
		w.P("Name: ", strconv.Quote(limit.Name), ",")
		w.P("By: ", actorIdent(limitBy(limit.By)), ",")
		if limit.Concurrency > 0 {
			w.P("Concurrency: ", limit.Concurrency, ",")
		}
		if limit.RateCount > 0 {
			w.P("Rate: ", actorIdent("Rate"), "{Count: ", limit.RateCount, ", Per: ", w.durationLiteral(limit.RatePer), ", Burst: ", limit.RateBurst, "},")
		}
		switch {
		case limit.MaxQueue < 0:
			w.P("MaxQueue: ", actorIdent("NoQueue"), ",")
		case limit.MaxQueue > 0:
			w.P("MaxQueue: ", limit.MaxQueue, ",")
		}
		if limit.UntilDone {
			w.P("UntilDone: true,")
		}
		w.P("},")
	}
	w.P("},")
}

func limitBy(by perdurev1.By) string {
	switch by {
	case perdurev1.By_HANDLER:
		return "ByHandler"
	case perdurev1.By_KEY:
		return "ByKey"
	case perdurev1.By_LIMIT_KEY:
		return "ByLimitKey"
	case perdurev1.By_TENANT:
		return "ByTenant"
	}
	return "ByService"
}

func (w writer) newMessage(message protogen.GoIdent) string {
	return "func() " + w.QualifiedGoIdent(protoMessage) + " { return new(" + w.QualifiedGoIdent(message) + ") }"
}

func (w writer) kind() string {
	name := "KindService"
	switch w.Kind {
	case perdurev1.Kind_OBJECT:
		name = "KindObject"
	case perdurev1.Kind_WORKFLOW:
		name = "KindWorkflow"
	}
	return w.QualifiedGoIdent(actorIdent(name))
}

func (w writer) mode(mode perdurev1.Mode) string {
	name := ""
	switch mode {
	case perdurev1.Mode_TRANSACTION:
		name = "ModeTransaction"
	case perdurev1.Mode_DURABLE:
		name = "ModeDurable"
	case perdurev1.Mode_RUN:
		name = "ModeRun"
	case perdurev1.Mode_SIGNAL:
		name = "ModeSignal"
	default:
		name = "ModeRead"
	}
	return w.QualifiedGoIdent(actorIdent(name))
}
