package codegen

import (
	"go/token"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"

	"google.golang.org/protobuf/compiler/protogen"

	"github.com/perdure/perdure/codegen/schema"
	perdurev1 "github.com/perdure/perdure/proto/perdure/v1"
)

// goService is a service with the Go names of all that is generated for it.
type goService struct {
	*schema.Service
	proto *protogen.Service
	// short is the proto name without "Service": "Account".
	short   string
	methods []*goMethod
	state   *protogen.GoIdent
	// Go names of the context methods, and the messages they are for.
	tables   []goSlot
	promises []goSlot
}

type goMethod struct {
	*schema.Method
	proto *protogen.Method
	index int
}

type goSlot struct {
	name    string
	goName  string
	message protogen.GoIdent
	option  []int32
	version uint32
}

func newGoService(messages messageIndex, proto *protogen.Service, service *schema.Service) *goService {
	s := &goService{Service: service, proto: proto, short: shortName(proto.GoName)}
	for i, method := range service.Methods {
		s.methods = append(s.methods, &goMethod{Method: method, proto: proto.Methods[i], index: i})
	}
	if service.State != nil {
		ident := messages[service.State.FullName()]
		s.state = &ident
	}
	for _, table := range service.Tables {
		s.tables = append(s.tables, goSlot{table.Name, goName(table.Name), messages[table.Message.FullName()], table.Option, table.Version})
	}
	for _, promise := range service.Promises {
		s.promises = append(s.promises, goSlot{promise.Name, goName(promise.Name), messages[promise.Message.FullName()], promise.Option, 1})
	}
	return s
}

// shortName is the Go name without "Service", which would only be noise in AccountServiceHandler.
func shortName(goName string) string {
	if short := strings.TrimSuffix(goName, "Service"); short != "" && token.IsIdentifier(short) {
		return short
	}
	return goName
}

func (s *goService) descVar() string  { return lowerFirst(s.short) + "Desc" }
func (s *goService) stub() string     { return s.short + "Stub" }
func (s *goService) handler() string  { return s.short + "Handler" }
func (s *goService) nameVar() string  { return s.proto.GoName + "Name" }
func (s *goService) register() string { return "Register" + s.handler() }
func (s *goService) noun() string     { return strings.ToLower(s.Kind.String()) }

// contextModes are the modes that have a context type of their own, each once, as the methods
// first need them. A SERVICE has neither key nor state, so actor.Context does.
func (s *goService) contextModes() []perdurev1.Mode {
	var modes []perdurev1.Mode
	if s.Kind == perdurev1.Kind_SERVICE {
		return nil
	}
	for _, method := range s.methods {
		if method.Mode != perdurev1.Mode_SIGNAL && !slices.Contains(modes, method.Mode) {
			modes = append(modes, method.Mode)
		}
	}
	return modes
}

func (s *goService) contextType(mode perdurev1.Mode) string {
	return s.short + contextSuffix(mode) + "Context"
}

func contextSuffix(mode perdurev1.Mode) string {
	switch mode {
	case perdurev1.Mode_TRANSACTION:
		return "Tx"
	case perdurev1.Mode_DURABLE:
		return "Durable"
	case perdurev1.Mode_RUN:
		return "Run"
	default:
		return "Read"
	}
}

func (s *goService) signals() []*goMethod {
	var signals []*goMethod
	for _, method := range s.methods {
		if method.Mode == perdurev1.Mode_SIGNAL {
			signals = append(signals, method)
		}
	}
	return signals
}

// packageNames are the package-level names that the service takes.
func (s *goService) packageNames() []string {
	names := []string{
		s.short, s.stub(), s.handler(), "Unimplemented" + s.handler(), s.register(), s.nameVar(), s.descVar(),
	}
	for _, mode := range s.contextModes() {
		context := s.contextType(mode)
		names = append(names, context, lowerFirst(context))
	}
	return names
}

// stubNames are the stub's methods for one rpc, the plain call first.
func (m *goMethod) stubNames() []string {
	name := m.proto.GoName
	switch m.Mode {
	case perdurev1.Mode_SIGNAL:
		return []string{name}
	case perdurev1.Mode_READ:
		return []string{name, name + "Async"}
	case perdurev1.Mode_RUN:
		return []string{name, name + "Async", name + "Send", name + "Attach"}
	default:
		return []string{name, name + "Async", name + "Send"}
	}
}

// keyParameter is the constructor's name for the key: that of the field, where Go allows it.
func (s *goService) keyParameter() string {
	name := s.Key().JSONName()
	switch {
	case !token.IsIdentifier(name), // a keyword
		name == "_", name == "c", name == "strconv", name == schema.KeyType(s.Key()), name == "int64", name == "uint64":
		return "key"
	}
	return name
}

func lowerFirst(name string) string {
	r, size := utf8.DecodeRuneInString(name)
	return string(unicode.ToLower(r)) + name[size:]
}

// goName makes a method name of a table's or promise's name, which is in lower_snake_case.
func goName(snake string) string {
	var b strings.Builder
	for word := range strings.SplitSeq(snake, "_") {
		b.WriteString(strings.ToUpper(word[:1]) + word[1:])
	}
	return b.String()
}
