package cluster_test

import (
	"context"
	"io"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/bufbuild/protocompile"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protodesc"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/descriptorpb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/perdure/perdure/actor"
	"github.com/perdure/perdure/cluster"
	"github.com/perdure/perdure/codegen/schema"
	perdureproto "github.com/perdure/perdure/proto"
)

// program is a build of handlers made of a .proto text, as if it had been generated, but for the
// Go types: requests and responses are mixins (name = 1 is the key, root = 2), whatever the text
// says, and states are a StringValue.
type program struct {
	services map[string]*actor.ServiceDesc
	// migrations by service.
	migrations map[string][]actor.StateMigration
}

// programHandler is the handler of one service.
type programHandler struct{ migrations []actor.StateMigration }

func (h programHandler) StateMigrations() []actor.StateMigration { return h.migrations }

// handlers of a program by "Service/Handler"; those without one return their request's root.
type handlers map[string]func(ctx actor.Context, root string) (string, error)

// newProgram compiles t/v1/t.proto, of which text is what follows the imports.
func newProgram(t testing.TB, text string, do handlers) *program {
	t.Helper()
	sources := maps.Clone(perdureproto.Sources())
	sources["t/v1/t.proto"] = "edition = \"2023\";\npackage t.v1;\nimport \"perdure/v1/options.proto\";\n" + text
	compiler := protocompile.Compiler{Resolver: protocompile.WithStandardImports(&protocompile.SourceResolver{
		Accessor: protocompile.SourceAccessorFromMap(sources),
	})}
	compiled, err := compiler.Compile(context.Background(), "t/v1/t.proto")
	if err != nil {
		t.Fatal(err)
	}
	set := &descriptorpb.FileDescriptorSet{}
	var add func(file protoreflect.FileDescriptor)
	add = func(file protoreflect.FileDescriptor) {
		for i := range file.Imports().Len() {
			add(file.Imports().Get(i).FileDescriptor)
		}
		if !slices.ContainsFunc(set.File, func(f *descriptorpb.FileDescriptorProto) bool { return f.GetName() == file.Path() }) {
			set.File = append(set.File, protodesc.ToFileDescriptorProto(file))
		}
	}
	add(compiled[0])
	// The compiler has messages of its own for options; decoding makes the generated ones.
	encoded, err := proto.Marshal(set)
	if err != nil {
		t.Fatal(err)
	}
	decoded := &descriptorpb.FileDescriptorSet{}
	if err := proto.Unmarshal(encoded, decoded); err != nil {
		t.Fatal(err)
	}
	files, err := protodesc.NewFiles(decoded)
	if err != nil {
		t.Fatal(err)
	}
	file, err := files.FindFileByPath("t/v1/t.proto")
	if err != nil {
		t.Fatal(err)
	}
	services, problems := schema.Read(file)
	if len(problems) > 0 {
		t.Fatal(problems)
	}
	p := &program{map[string]*actor.ServiceDesc{}, map[string][]actor.StateMigration{}}
	for _, service := range services {
		p.services[string(service.Desc.Name())] = describeService(service, file, do)
	}
	return p
}

func describeService(service *schema.Service, file protoreflect.FileDescriptor, do handlers) *actor.ServiceDesc {
	text := func() proto.Message { return new(wrapperspb.StringValue) }
	mixed := func() proto.Message { return new(mixin) }
	desc := &actor.ServiceDesc{Name: string(service.Desc.FullName()), Kind: actor.Kind(service.Kind), File: file}
	if service.State != nil {
		desc.StateType, desc.StateVersion = text, service.StateVersion
	}
	for _, table := range service.Tables {
		desc.Tables = append(desc.Tables, actor.TableDesc{Name: table.Name, New: text, Version: table.Version})
	}
	for _, promise := range service.Promises {
		desc.Promises = append(desc.Promises, actor.PromiseDesc{Name: promise.Name, New: text})
	}
	for _, method := range service.Methods {
		m := &actor.MethodDesc{
			Service: desc.Name, Name: string(method.Desc.Name()), Kind: desc.Kind, Mode: actor.Mode(method.Mode),
			NewRequest: mixed, NewResponse: mixed,
			Schema: func() protoreflect.MethodDescriptor { return method.Desc },
		}
		m.Options.Retry.PauseOnExhausted, m.Options.Retry.MaxAttempts = method.Options.Retry.PauseOnExhausted, int(method.Options.Retry.MaxAttempts)
		if method.Key != nil {
			m.KeyField = method.Key.Number()
		}
		if m.Mode != actor.ModeSignal {
			handle := do[string(service.Desc.Name())+"/"+m.Name]
			m.Handle = func(ctx actor.Context, _ any, req proto.Message) (proto.Message, error) {
				root := req.(*mixin).GetRoot()
				if handle == nil {
					return &mixin{Root: root}, nil
				}
				root, err := handle(ctx, root)
				return &mixin{Root: root}, err
			}
		}
		desc.Methods = append(desc.Methods, m)
	}
	return desc
}

// node is a node that runs the program on a directory.
func (p *program) node(dir string, opts ...cluster.Option) *cluster.Node {
	node := cluster.NewNode(append([]cluster.Option{
		cluster.WithDataDir(dir), cluster.WithListen("127.0.0.1:0"), cluster.WithPartitions(2), cluster.WithLogger(slog.New(slog.NewTextHandler(io.Discard, nil))),
	}, opts...)...)
	for _, name := range slices.Sorted(maps.Keys(p.services)) {
		node.RegisterService(p.services[name], programHandler{p.migrations[name]})
	}
	return node
}

// call calls "Service/Handler".
func (p *program) call(t testing.TB, node *cluster.Node, name, key, root string) (string, error) {
	t.Helper()
	got, err := actor.Invoke[*mixin](soon(t), node.Client(), p.method(t, name), key, &mixin{Root: root}, nil)
	return got.GetRoot(), err
}

// send is call for one that nobody waits for.
func (p *program) send(t testing.TB, node *cluster.Node, name, key, root string) *actor.Invocation[*mixin] {
	t.Helper()
	sent, err := actor.InvokeSend[*mixin](soon(t), node.Client(), p.method(t, name), key, &mixin{Root: root}, nil)
	if err != nil {
		t.Fatal(err)
	}
	return sent
}

func (p *program) method(t testing.TB, name string) *actor.MethodDesc {
	t.Helper()
	service, handler, _ := strings.Cut(name, "/")
	for _, method := range p.services[service].Methods {
		if method.Name == handler {
			return method
		}
	}
	t.Fatalf("no handler %s", name)
	return nil
}
