// Package admin serves perdure.admin.v1.AdminService: it shows what a node keeps, invocations
// with their journals, transactions, the state of objects, services, the node itself, in a form
// for people, and steers invocations, one or a batch of them. It reads through routing.Router and
// owns no data; the goroutines of a batch end with its call. It serves ClusterService too, for
// whatever is the Cluster.
//
// Every answer is bounded: pages have at most 1,000 items, a value that is too large to read is
// left out with a note that says so, a call takes at most 10 s, and only 16 run at once, for
// whoever looks into a node in trouble must not add to it.
package admin

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"connectrpc.com/connect/v2"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/descriptorpb"

	"github.com/perdure/perdure/actor"
	"github.com/perdure/perdure/internal/deployment"
	"github.com/perdure/perdure/internal/routing"
	"github.com/perdure/perdure/internal/telemetry"
	adminv1 "github.com/perdure/perdure/proto/perdure/admin/v1"
)

const (
	defaultPageSize = 100
	maxPageSize     = 1000
	maxConcurrent   = 16
	defaultTimeout  = 10 * time.Second
)

// Config is what a Service needs. Router must be set.
type Config struct {
	Router   routing.Router
	Services []*actor.ServiceDesc
	// Node says how the node is at this instant. It must be safe for concurrent use. Nil: the
	// node is ready and says nothing else about itself.
	Node func() NodeInfo
	// Deployments are those that have run on the node's data, and Deployment is the one that runs.
	// Nil: it has no deployments.
	Deployments *deployment.Catalog
	Deployment  string
	// Runs reports whether a node of the cluster runs a deployment. Nil: the node is alone.
	Runs func(deployment string) bool
	// Cluster is what the node's cluster is asked by. Nil: the node is alone, and ClusterService says
	// so.
	Cluster Cluster
	// Logger gets the causes of internal errors. Defaults to slog.Default().
	Logger *slog.Logger
	// Timeout of one call. Defaults to 10 s.
	Timeout time.Duration
	// Now is the clock that ages are told by. Defaults to time.Now.
	Now func() time.Time
}

// Service is the AdminService of one node. It is safe for concurrent use.
type Service struct {
	config Config
	known  atomic.Pointer[known]
	// deploying: one change of the catalog at a time, so that none is removed that comes into use.
	deploying sync.Mutex
	// places bounds the calls under way.
	places chan struct{}
}

// New makes the service. All that is wrong with config is in the error.
func New(config Config) (*Service, error) {
	if config.Node == nil {
		config.Node = func() NodeInfo { return NodeInfo{} }
	}
	if config.Logger == nil {
		config.Logger = slog.Default()
	}
	if config.Timeout == 0 {
		config.Timeout = defaultTimeout
	}
	if config.Deployments == nil {
		config.Deployments = deployment.InMemory()
	}
	if config.Now == nil {
		config.Now = time.Now
	}
	s := &Service{config: config, places: make(chan struct{}, maxConcurrent)}
	seen := map[string]bool{}
	var problems []error
	if config.Router == nil {
		problems = append(problems, errors.New("admin: there is no router"))
	}
	for _, desc := range config.Services {
		if desc == nil {
			problems = append(problems, errors.New("admin: a service descriptor is nil"))
			continue
		}
		if seen[desc.Name] {
			problems = append(problems, fmt.Errorf("admin: service %s is registered twice", desc.Name))
		}
		seen[desc.Name] = true
	}
	if err := errors.Join(problems...); err != nil {
		return nil, err
	}
	s.SetElsewhere(nil)
	return s, nil
}

// known are the services that are registered here or hosted by other nodes. It is replaced, never
// changed.
type known struct {
	services map[string]*actor.ServiceDesc
	methods  map[string]map[string]*actor.MethodDesc
}

// SetElsewhere tells of the services that other nodes host, in place of those that it told of before.
func (s *Service) SetElsewhere(services []*actor.ServiceDesc) {
	k := &known{services: map[string]*actor.ServiceDesc{}, methods: map[string]map[string]*actor.MethodDesc{}}
	for _, desc := range append(slices.Clone(services), s.config.Services...) { // one's own win
		k.services[desc.Name] = desc
		k.methods[desc.Name] = map[string]*actor.MethodDesc{}
		for _, method := range desc.Methods {
			k.methods[desc.Name][method.Name] = method
		}
	}
	s.known.Store(k)
}

// Register adds the service to server. It makes a Service an ingress.Other.
func (s *Service) Register(server *connect.Server) { server.Register(s.Methods()...) }

// Methods are the rpcs of AdminService and ClusterService.
func (s *Service) Methods() []connect.Method {
	return []connect.Method{
		unary(s, "ListInvocations", s.listInvocations),
		unary(s, "GetInvocation", s.getInvocation),
		unary(s, "ExportJournal", s.exportJournal),
		unary(s, "CancelInvocation", s.cancelInvocation),
		unary(s, "KillInvocation", s.killInvocation),
		unary(s, "PauseInvocation", s.pauseInvocation),
		unary(s, "ResumeInvocation", s.resumeInvocation),
		unary(s, "RestartInvocation", s.restartInvocation),
		unary(s, "PurgeInvocation", s.purgeInvocation),
		unary(s, "BatchInvocations", s.batchInvocations),
		unary(s, "GetState", s.getState),
		unary(s, "ListTransactions", s.listTransactions),
		unary(s, "ListLimits", s.listLimits),
		unary(s, "GetLimit", s.getLimit),
		unary(s, "ListLimitRules", s.listLimitRules),
		unary(s, "SetLimitRules", s.setLimitRules),
		unary(s, "RemoveLimitRules", s.removeLimitRules),
		unary(s, "GetTransaction", s.getTransaction),
		unary(s, "ListServices", s.listServices),
		unary(s, "DescribeService", s.describeService),
		unary(s, "ListDeployments", s.listDeployments),
		unary(s, "DescribeDeployment", s.describeDeployment),
		unary(s, "DrainDeployment", s.drainDeployment),
		unary(s, "RemoveDeployment", s.removeDeployment),
		unary(s, "GetNode", s.getNode),
		clusterUnary(s, "GetCluster", s.getCluster),
		clusterUnary(s, "SetNodeState", s.setNodeState),
		clusterUnary(s, "TransferLeadership", s.transferLeadership),
		clusterUnary(s, "SetClusterSetting", s.setClusterSetting),
	}
}

func unary[Req any, ReqPtr interface {
	*Req
	proto.Message
}, Res proto.Message](s *Service, name string, serve func(context.Context, ReqPtr) (Res, error)) connect.Method {
	return unaryOf(s, adminv1.File_perdure_admin_v1_admin_proto.Services().ByName("AdminService"), name, serve)
}

func unaryOf[Req any, ReqPtr interface {
	*Req
	proto.Message
}, Res proto.Message](s *Service, schema protoreflect.ServiceDescriptor, name string, serve func(context.Context, ReqPtr) (Res, error)) connect.Method {
	method := schema.Methods().ByName(protoreflect.Name(name))
	spec := connect.Spec{
		StreamType: connect.StreamTypeUnary,
		Procedure:  "/" + string(schema.FullName()) + "/" + name,
		Schema:     method,
	}
	if options, ok := method.Options().(*descriptorpb.MethodOptions); ok {
		spec.IdempotencyLevel = connect.IdempotencyLevel(options.GetIdempotencyLevel())
	}
	return connect.Method{Spec: spec, Handler: func(ctx context.Context, _ connect.Spec, stream connect.ServerStream) error {
		select {
		case s.places <- struct{}{}:
			defer func() { <-s.places }()
		default:
			return connect.Errorf(connect.CodeResourceExhausted, "this node answers %d calls of the admin service already; try again", maxConcurrent)
		}
		var request ReqPtr = new(Req)
		if err := stream.Receive(request); err != nil {
			return notReceived(err)
		}
		bounded, cancel := context.WithTimeout(ctx, s.config.Timeout)
		defer cancel()
		response, err := serve(bounded, request)
		if err != nil {
			return s.wire(ctx, name, err)
		}
		return stream.Send(response)
	}}
}

// notReceived keeps the code that connect gave a request that could not be read.
func notReceived(err error) *connect.Error {
	coded, ok := errors.AsType[*connect.Error](err)
	if !ok {
		return connect.NewError(connect.CodeInvalidArgument, "the request could not be read").WithCause(err)
	}
	return connect.NewError(coded.Code(), strings.TrimPrefix(coded.Message(), "unmarshal message: ")).WithCause(err)
}

// wire is where an error gets its code for the caller. ctx is the caller's own, without the
// bound of this service.
func (s *Service) wire(ctx context.Context, name string, err error) *connect.Error {
	if routed, ok := errors.AsType[*routing.Error](err); ok {
		if routed.Cause != nil {
			s.config.Logger.WarnContext(ctx, "admin call failed", telemetry.KeyHandler, name, telemetry.KeyError, err)
		}
		return connect.NewError(connect.Code(routed.Code), routed.Message).WithCause(err)
	}
	switch {
	case errors.Is(err, context.Canceled):
		return connect.NewError(connect.CodeCanceled, "the caller went away").WithCause(err)
	case errors.Is(err, context.DeadlineExceeded) && ctx.Err() != nil:
		return connect.NewError(connect.CodeDeadlineExceeded, "the caller's deadline passed").WithCause(err)
	case errors.Is(err, context.DeadlineExceeded):
		return connect.Errorf(connect.CodeDeadlineExceeded,
			"looking took longer than %s, which is all it may: there is too much to look through, ask for less", s.config.Timeout).WithCause(err)
	}
	s.config.Logger.ErrorContext(ctx, "admin call failed", telemetry.KeyHandler, name, telemetry.KeyError, err)
	return connect.NewError(connect.CodeInternal, "the node failed; its log says more").WithCause(err)
}

func invalid(format string, args ...any) error {
	return routing.Errorf(routing.CodeInvalidArgument, format, args...)
}

// pageSize checks what a request asks for.
func pageSize(asked uint32) (int, error) {
	switch {
	case asked == 0:
		return defaultPageSize, nil
	case asked > maxPageSize:
		return 0, invalid("pageSize is %d; it must be at most %d", asked, maxPageSize)
	}
	return int(asked), nil
}

// service finds a service.
func (s *Service) service(name string) (*actor.ServiceDesc, error) {
	services := s.known.Load().services
	if desc := services[name]; desc != nil {
		return desc, nil
	}
	names := slices.Sorted(maps.Keys(services))
	if name == "" {
		return nil, invalid("the name of the service is empty; registered: %s", list(names))
	}
	return nil, routing.Errorf(routing.CodeNotFound, "service %s is not registered; registered: %s", clip(name), list(names))
}

// method is nil if no node is known to have the handler (any more).
func (s *Service) method(service, handler string) *actor.MethodDesc {
	return s.known.Load().methods[service][handler]
}

// list bounds what an error says of what exists.
func list(names []string) string {
	const most = 20
	switch {
	case len(names) == 0:
		return "none"
	case len(names) > most:
		return fmt.Sprintf("%s and %d more", strings.Join(names[:most], ", "), len(names)-most)
	}
	return strings.Join(names, ", ")
}

func clip(text string) string {
	const most = 120
	if len(text) > most {
		text = text[:most] + "…"
	}
	return strings.ToValidUTF8(text, "�")
}
