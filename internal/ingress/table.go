package ingress

import (
	"maps"
	"net/http"

	"connectrpc.com/connect/v2"
	"connectrpc.com/connect/v2/connecthttp"
	"connectrpc.com/grpcreflect/v2"
	"google.golang.org/protobuf/reflect/protodesc"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"

	"github.com/perdure/perdure/actor"
)

// table is what the node serves at one time. It is replaced, never changed: calls that are under
// way end in the one that they began in.
type table struct {
	routes   routes
	services map[string]*service
	names    []string
}

// service is one service by its name, registered here or hosted by other nodes.
type service struct {
	desc    *actor.ServiceDesc
	methods map[string]*method
}

func (i *Ingress) newService(desc *actor.ServiceDesc) *service {
	s := &service{desc: desc, methods: map[string]*method{}}
	for _, m := range desc.Methods {
		s.methods[m.Name] = i.newMethod(m)
	}
	return s
}

// SetElsewhere makes the Ingress take calls of services that other nodes host, in place of those that
// it was given before. One that is registered here, or has the name of one that every node has, is
// left out. Calls of it must not overlap.
func (i *Ingress) SetElsewhere(services []*actor.ServiceDesc) {
	before := i.table.Load()
	elsewhere := map[string]*service{}
	for _, desc := range services {
		known := before.services[desc.Name]
		switch {
		case i.own[desc.Name] != nil, known == nil && before.has(desc.Name):
		case known != nil && known.desc == desc: // with what it counts
			elsewhere[desc.Name] = known
		default:
			elsewhere[desc.Name] = i.newService(desc)
		}
	}
	i.table.Store(i.newTable(elsewhere))
}

func (t *table) has(name string) bool {
	for _, known := range t.names {
		if known == name {
			return true
		}
	}
	return false
}

func (i *Ingress) newTable(elsewhere map[string]*service) *table {
	t := &table{routes: routes{}, services: maps.Clone(i.own)}
	maps.Copy(t.services, elsewhere)
	server := connect.NewServer()
	for _, s := range t.services {
		for _, m := range s.methods {
			server.Register(connect.Method{Spec: m.spec, Handler: m.serve})
		}
	}
	server.Register(i.invocationMethods()...)
	server.Register(i.scheduleMethods()...)
	server.Register(i.health.methods()...)
	public := map[string]bool{}
	for spec := range server.Specs() {
		public[spec.Procedure] = true
	}
	for _, other := range i.config.Others {
		other.Register(server)
	}
	restricted := map[string]bool{}
	for spec := range server.Specs() {
		restricted[spec.Procedure] = !public[spec.Procedure]
	}
	described := &described{}
	grpcreflect.Register(server, grpcreflect.WithDescriptorResolver(described))
	described.add(server)
	t.names = serviceNames(server)
	connecthttp.Mount(t.routes, server,
		connecthttp.WithCodecs(binaryCodec{}, newJSONCodec()),
		connecthttp.WithReadMaxBytes(i.config.MaxMessageBytes),
		// Small replies are not worth a gzip writer: it costs more than the call.
		connecthttp.WithCompressMinBytes(1024),
	)
	for spec := range server.Specs() {
		route := t.routes[spec.Procedure]
		route.unary = spec.StreamType == connect.StreamTypeUnary
		route.get = spec.IdempotencyLevel == connect.IdempotencyNoSideEffects
		route.restricted = restricted[spec.Procedure]
		t.routes[spec.Procedure] = route
	}
	t.routes.Handle("/healthz", http.HandlerFunc(i.serveAlive))
	t.routes.Handle("/readyz", http.HandlerFunc(i.serveReady))
	if i.config.Metrics != nil {
		t.routes.Handle("/metrics", i.config.Metrics)
	}
	return t
}

// described is what reflection tells of: the files of what is served, which for a service of other
// nodes are theirs, and whatever else is compiled in.
type described struct{ files protoregistry.Files }

var _ protodesc.Resolver = (*described)(nil)

func (d *described) add(server *connect.Server) {
	for spec := range server.Specs() {
		if schema, ok := spec.Schema.(protoreflect.MethodDescriptor); ok && schema != nil {
			d.addFile(schema.ParentFile())
		}
	}
}

// addFile adds a file after all that it imports. Of two files with the same name or symbols, of nodes
// with different builds, the first one stays.
func (d *described) addFile(file protoreflect.FileDescriptor) {
	if file == nil || file.IsPlaceholder() {
		return
	}
	if _, err := d.files.FindFileByPath(file.Path()); err == nil {
		return
	}
	for i := range file.Imports().Len() {
		d.addFile(file.Imports().Get(i).FileDescriptor)
	}
	_ = d.files.RegisterFile(file)
}

// FindFileByPath implements protodesc.Resolver.
func (d *described) FindFileByPath(path string) (protoreflect.FileDescriptor, error) {
	if file, err := d.files.FindFileByPath(path); err == nil {
		return file, nil
	}
	return protoregistry.GlobalFiles.FindFileByPath(path)
}

// FindDescriptorByName implements protodesc.Resolver.
func (d *described) FindDescriptorByName(name protoreflect.FullName) (protoreflect.Descriptor, error) {
	if found, err := d.files.FindDescriptorByName(name); err == nil {
		return found, nil
	}
	return protoregistry.GlobalFiles.FindDescriptorByName(name)
}
