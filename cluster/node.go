package cluster

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net"
	"net/http"
	"os"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/perdure/perdure/actor"
	"github.com/perdure/perdure/internal/admin"
	"github.com/perdure/perdure/internal/certificate"
	"github.com/perdure/perdure/internal/ingress"
	"github.com/perdure/perdure/internal/telemetry"
)

// Node is one node: it hosts the handlers registered with it and keeps its share of the
// objects. Make it with NewNode, register handlers, then Start and Shutdown, or Run. It runs
// once. Its methods are safe for concurrent use.
type Node struct {
	config Config
	client *actor.Client

	// edge is nil unless the node serves.
	edge atomic.Pointer[ingress.Ingress]
	// closed is why client and handler refuse when edge is nil.
	closed atomic.Pointer[string]
	// draining: no new work, for the node is about to stop.
	draining atomic.Bool
	// server is nil before the node listens. Handlers ask where, while Start or Shutdown holds mu.
	server atomic.Pointer[ingress.Server]
	// stopping ends, by giveUp, when Shutdown is called: a start under way ends with it.
	stopping context.Context
	giveUp   context.CancelCauseFunc

	// openEngine is openPartitions, or what a test puts there before Start.
	openEngine func(context.Context, Config, *layout, *network, *telemetry.Telemetry, []registration) (engine, error)

	mu struct {
		sync.Mutex
		phase      phase
		registered []registration
		problems   []error

		layout      *layout
		network     *network // nil: there are no other nodes
		deployments *deployments
		telemetry   *telemetry.Telemetry
		engine      engine
		stopped     chan struct{} // closed when Shutdown is done
		failure     error         // of Shutdown
	}
}

type phase uint8

const (
	phaseNew phase = iota
	phaseStarting
	phaseServing
	phaseStopping
	phaseStopped
)

var _ actor.Registrar = (*Node)(nil)

// NewNode makes a node; mistakes in opts are reported by Start.
func NewNode(opts ...Option) *Node {
	n := &Node{openEngine: openPartitions}
	for _, opt := range opts {
		opt(&n.config)
	}
	n.mu.stopped = make(chan struct{})
	n.stopping, n.giveUp = context.WithCancelCause(context.Background())
	reason := "the node was not started: call its Start first"
	n.closed.Store(&reason)
	n.client = actor.NewClient(inProcess{n})
	return n
}

// RegisterService makes the node run handler for a service. Generated RegisterXxxHandler
// functions call it, before Start, which reports mistakes.
func (n *Node) RegisterService(desc *actor.ServiceDesc, handler any) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.mu.phase != phaseNew {
		name := "nil"
		if desc != nil {
			name = desc.Name
		}
		n.config.withDefaults().Logger.Error("a service was registered after the node was started: it is not served", telemetry.KeyService, name)
		return
	}
	n.mu.registered = append(n.mu.registered, registration{desc, handler})
}

// Start brings the node up and returns when it serves. ctx bounds starting only. All mistakes
// in the configuration and in what was registered are in one error. After an error the node
// has let go of everything, and stays stopped.
func (n *Node) Start(ctx context.Context) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.mu.phase != phaseNew {
		return errors.New("start: the node was started before; a node runs once, make a new one")
	}
	n.mu.phase = phaseStarting
	within, cancel := whileIn(ctx, n.stopping)
	defer cancel()
	if err := n.startLocked(within); err != nil {
		n.stopLocked(within, "the node failed to start") // what waits, Shutdown cuts short
		return fmt.Errorf("start: %w", err)
	}
	n.mu.phase = phaseServing
	if n.config.OnServing != nil {
		n.config.OnServing(n.URL())
	}
	return nil
}

func (n *Node) startLocked(ctx context.Context) error {
	problems := append(n.config.problems(), n.registrationsLocked()...)
	if err := errors.Join(problems...); err != nil {
		return err
	}
	raiseProcs()
	config := n.config.withDefaults()
	var err error
	if config.InMemory {
		n.mu.layout, err = memoryLayout(config.Partitions)
	} else {
		n.mu.layout, err = n.openLayoutLocked(ctx, config)
	}
	if err != nil {
		return err
	}
	if err := n.joinLocked(ctx, config); err != nil {
		return err
	}
	if n.mu.network == nil {
		return n.serveLocked(ctx, config)
	}
	within, cancel := whileIn(ctx, n.mu.network.part)
	defer cancel()
	err = n.serveLocked(within, config)
	if refused := context.Cause(n.mu.network.part); refused != nil {
		return refused // whatever it came to: what waited for other nodes was cut short
	}
	return err
}

// serveLocked is startLocked once the node is in its cluster, or alone.
func (n *Node) serveLocked(ctx context.Context, config Config) (err error) {
	config.Logger = config.Logger.With(telemetry.KeyNode, n.mu.layout.identity.NodeID)
	if n.config.MaxMessageBytes == 0 && config.MaxMessageBytes < ingress.DefaultMaxMessageBytes {
		config.Logger.Info("requests may have fewer bytes than usual, to fit the records that memory bytes allow", telemetry.KeyBytes, config.MaxMessageBytes)
	}
	if n.mu.telemetry, err = telemetry.Setup(ctx, config.telemetry(n.mu.layout.identity.NodeID)); err != nil {
		return err
	}
	if n.mu.deployments, err = n.admitLocked(ctx, config); err != nil {
		return err
	}
	config.Deployment = n.mu.deployments.own
	if n.mu.network != nil {
		if err := n.mu.network.hosting.Announce(n.mu.deployments.build, n.descsLocked()); err != nil {
			return err
		}
	}
	if n.mu.engine, err = n.openEngine(ctx, config, n.mu.layout, n.mu.network, n.mu.telemetry, n.mu.registered); err != nil {
		return err
	}
	if n.mu.network != nil {
		if err := n.mu.network.allow(ctx); err != nil {
			return err
		}
	}
	edge, inspector, err := n.newEdgeLocked(config)
	if err != nil {
		return err
	}
	if n.mu.network != nil {
		n.mu.network.describe(ctx, edge.SetElsewhere, inspector.SetElsewhere)
	}
	undone, err := edge.DeclareSchedules(ctx)
	if err != nil {
		return err
	}
	if undone != nil {
		config.Logger.Warn("not all schedules could be brought up to date; the next start tries again", telemetry.KeyError, undone)
	}
	n.mu.engine.ReleaseSchedules()
	n.edge.Store(edge)
	if config.NoListener {
		return nil
	}
	server, err := newServer(config, n.Handler())
	if err != nil {
		return err
	}
	if err := server.Listen(ctx); err != nil {
		return err
	}
	n.server.Store(server)
	warnOfReach(config, server.Addr())
	return nil
}

// registrationsLocked reports mistakes that the layers below would report one at a time.
func (n *Node) registrationsLocked() []error {
	config := n.config.withDefaults()
	config.Middleware = nil // it is told of each handler once
	trial, err := handlers(config, nil, n.mu.registered, nil)
	return split(errors.Join(err, trial.Close(context.Background()))) // nothing runs in it
}

// descsLocked describes what is registered.
func (n *Node) descsLocked() []*actor.ServiceDesc {
	services := make([]*actor.ServiceDesc, len(n.mu.registered))
	for i, r := range n.mu.registered {
		services[i] = r.desc
	}
	return services
}

func (n *Node) newEdgeLocked(config Config) (*ingress.Ingress, *admin.Service, error) {
	engine, services := n.mu.engine, n.descsLocked()
	ready := func() error {
		if n.draining.Load() {
			return errors.New("the node is shutting down")
		}
		return engine.Health()
	}
	startedAt, nodeID := time.Now(), n.mu.layout.identity.NodeID
	var others admin.Cluster
	var unknown func() error
	var runs func(deployment string) bool
	if n.mu.network != nil {
		others, unknown, runs = n.mu.network.operator, n.mu.network.unknown, n.mu.network.hosting.Runs
	}
	inspector, err := admin.New(admin.Config{
		Cluster: others, Router: engine, Services: services, Logger: config.Logger,
		Deployments: n.mu.deployments.Catalog, Deployment: n.mu.deployments.own, Runs: runs,
		Node: func() admin.NodeInfo {
			partitions, stored := engine.Describe()
			return admin.NodeInfo{
				NodeID: nodeID, Version: Version(), StartedAt: startedAt, NotReady: ready(),
				Partitions: partitions, Storage: stored,
			}
		},
	})
	if err != nil {
		return nil, nil, err
	}
	edge, err := ingress.New(ingress.Config{
		Router: engine, Services: services, Validate: config.Validator, Ready: ready,
		Headers:  config.Headers,
		Draining: n.mu.deployments.draining, Clustered: n.mu.network != nil, Unknown: unknown,
		Troubles: func() []string { return troubles(engine.Failures(), engine.Unhosted()) },
		Others:   []ingress.Other{inspector}, RemoteOthers: config.RemoteAdmin,
		Metrics: n.mu.telemetry.Handler(), Logger: config.Logger,
		Tracer: n.mu.telemetry.Tracer(), Instruments: n.mu.telemetry.Instruments(),
		Retention:          ingress.Retention{Default: config.Retention, AutoKey: config.AutoKeyRetention},
		MaxMessageBytes:    config.MaxMessageBytes,
		MaxConcurrentCalls: config.MaxConcurrentCalls,
	})
	return edge, inspector, err
}

// troubles has a line for each partition that can't be served, and for each service that no node hosts.
func troubles(failures map[uint32]error, unhosted map[string]int) []string {
	var lines []string
	for _, id := range slices.Sorted(maps.Keys(failures)) {
		lines = append(lines, fmt.Sprintf("partition %d has no leader: %s", id, strings.ReplaceAll(failures[id].Error(), "\n", "; ")))
	}
	for _, service := range slices.Sorted(maps.Keys(unhosted)) {
		lines = append(lines, fmt.Sprintf("%s: %d attempts wait for a node that hosts it", service, unhosted[service]))
	}
	return lines
}

func newServer(config Config, handler http.Handler) (*ingress.Server, error) {
	settings := ingress.ServerConfig{Address: config.Listen, Logger: config.Logger}
	if config.TLS != nil {
		var err error
		if settings.TLS, err = certificate.NewServer(config.TLS.files(), config.Logger); err != nil {
			return nil, err
		}
		settings.ClientCertificates = config.TLS.ClientCAFile != ""
	}
	return ingress.NewServer(handler, settings), nil
}

// warnOfReach says what it means to listen where other machines reach the node.
func warnOfReach(config Config, at net.Addr) {
	tcp, ok := at.(*net.TCPAddr)
	if !ok || tcp.IP.IsLoopback() || config.TLS != nil && config.TLS.ClientCAFile != "" {
		return
	}
	allowed := "call every handler"
	if config.RemoteAdmin {
		allowed = "call every handler, see all data and end every invocation"
	}
	config.Logger.Warn("anybody who can reach the address can "+allowed+
		": listen on 127.0.0.1, keep others away from the port, or set Config.TLS.ClientCAFile", telemetry.KeyAddress, at.String())
}

// Run is Start, then waiting until ctx ends or the node fails, then Shutdown. It returns nil
// if ctx ended the node and all went well.
func (n *Node) Run(ctx context.Context) error {
	if err := n.Start(ctx); err != nil {
		return err
	}
	return n.wait(ctx)
}

// wait is Run after Start.
func (n *Node) wait(ctx context.Context) error {
	n.mu.Lock()
	engine, server, stopped := n.mu.engine, n.server.Load(), n.mu.stopped
	var parted <-chan struct{}
	others := n.mu.network
	if others != nil {
		parted = others.part.Done()
	}
	n.mu.Unlock()
	var refused <-chan struct{}
	if server != nil {
		refused = server.Failed()
	}
	var failure error
	select {
	case <-ctx.Done():
	case <-stopped: // somebody called Shutdown
	case <-engine.Failed():
		failure = fmt.Errorf("the node failed: %w", engine.Health())
	case <-parted:
		failure = context.Cause(others.part)
	case <-refused:
		if err := server.Err(); err != nil {
			failure = fmt.Errorf("the listener failed: %w", err)
		}
	}
	return errors.Join(failure, n.Shutdown(context.WithoutCancel(ctx)))
}

// Shutdown stops accepting calls, waits Config.DrainTimeout for those under way, answers the
// rest with unavailable, makes everything durable and lets go of the data directory. ctx cuts
// waiting short, not the rest. A second call waits for the first. A node that was not started
// is stopped at once, and a Start under way is given up.
func (n *Node) Shutdown(ctx context.Context) error {
	n.giveUp(errors.New("the node was shut down while it was starting"))
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.mu.phase == phaseStopped {
		return n.mu.failure
	}
	n.mu.phase = phaseStopping
	n.stopLocked(ctx, "the node is closed")
	return n.mu.failure
}

// stopLocked lets go of whatever was started.
func (n *Node) stopLocked(ctx context.Context, reason string) {
	config := n.config.withDefaults()
	n.closed.Store(&reason)
	n.draining.Store(true)
	edge := n.edge.Load()
	var problems []error

	drain, cancel := context.WithTimeout(ctx, config.DrainTimeout)
	defer cancel()
	if n.mu.engine != nil { // while calls still come in and are passed on
		n.mu.engine.Leave(drain)
	}
	served := make(chan struct{})
	if server := n.server.Load(); server != nil {
		// The server waits for its connections to fall idle, which those who wait for a
		// result do only once the engine has sent them away.
		answer, stop := context.WithTimeout(context.WithoutCancel(ctx), 2*config.DrainTimeout)
		defer stop()
		go func() {
			defer close(served)
			if err := server.Shutdown(answer); err != nil {
				config.Logger.Warn("connections were cut off", telemetry.KeyError, err)
			}
		}()
	} else {
		close(served)
	}
	if edge != nil && edge.Idle(drain) != nil {
		config.Logger.Info("calls under way are sent away; what they started goes on after the next start")
	}
	if n.mu.engine != nil {
		problems = append(problems, n.mu.engine.Close(ctx))
	}
	<-served
	n.edge.Store(nil)
	if n.mu.network != nil {
		problems = append(problems, n.mu.network.close())
	}
	export, cancelExport := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
	defer cancelExport()
	problems = append(problems, n.mu.telemetry.Shutdown(export))
	if n.mu.layout != nil {
		problems = append(problems, n.mu.layout.close())
	}
	if err := errors.Join(problems...); err != nil {
		n.mu.failure = fmt.Errorf("shutdown: %w", err)
	}
	if n.mu.phase != phaseStopped {
		n.mu.phase = phaseStopped
		close(n.mu.stopped)
	}
}

// Addr is the host:port the node listens on; "" while it does not.
func (n *Node) Addr() string {
	server := n.server.Load()
	if server == nil {
		return ""
	}
	return server.Addr().String()
}

// URL is what callers on this machine give to Dial; "" while the node does not listen.
func (n *Node) URL() string {
	address := n.Addr()
	if address == "" {
		return ""
	}
	if host, port, err := net.SplitHostPort(address); err == nil {
		if ip := net.ParseIP(host); ip != nil && ip.IsUnspecified() {
			address = net.JoinHostPort("localhost", port)
		}
	}
	if n.config.TLS != nil {
		return "https://" + address
	}
	return "http://" + address
}

// Client calls the node's objects from this process, without a network. It may be made before
// Start; while the node does not serve, its calls fail with failed_precondition.
func (n *Node) Client() *actor.Client { return n.client }

// Handler serves what the listener serves, for programs with a server of their own. Mount it
// at "/", or under the paths of the services; it expects the paths as they came. While the
// node does not serve it answers 503. The server must allow unencrypted HTTP/2, or have TLS,
// for gRPC to work.
func (n *Node) Handler() http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if edge := n.edge.Load(); edge != nil {
			edge.ServeHTTP(w, r)
			return
		}
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(http.StatusServiceUnavailable)
		fmt.Fprintf(w, "{\"code\":\"unavailable\",\"message\":%q}\n", *n.closed.Load())
	})
}

// inProcess is the transport of Client: that of the edge while there is one.
type inProcess struct{ node *Node }

func (t inProcess) now() actor.Transport {
	if edge := t.node.edge.Load(); edge != nil && !t.node.draining.Load() {
		return edge.Local()
	}
	return ingress.Closed{Reason: *t.node.closed.Load()}
}

func (t inProcess) Call(ctx context.Context, call actor.CallRequest) (proto.Message, error) {
	return t.now().Call(ctx, call)
}

func (t inProcess) Send(ctx context.Context, call actor.CallRequest) (string, error) {
	return t.now().Send(ctx, call)
}

func (t inProcess) Attach(ctx context.Context, id string, into proto.Message) error {
	return t.now().Attach(ctx, id, into)
}

func (t inProcess) AttachKey(ctx context.Context, method *actor.MethodDesc, key string, into proto.Message) error {
	return t.now().AttachKey(ctx, method, key, into)
}

func (t inProcess) Cancel(ctx context.Context, id string) error { return t.now().Cancel(ctx, id) }

func (t inProcess) CompleteAwakeable(ctx context.Context, id string, value []byte, failure *actor.Error) error {
	return t.now().CompleteAwakeable(ctx, id, value, failure)
}

func (t inProcess) BuiltIn(ctx context.Context, method string, request, response proto.Message) error {
	return t.now().BuiltIn(ctx, method, request, response)
}

var procs sync.Once

// raiseProcs is explained in the package comment.
func raiseProcs() {
	procs.Do(func() {
		// What it is now already heeds a container's limit of CPU time.
		if current := runtime.GOMAXPROCS(0); os.Getenv("GOMAXPROCS") == "" && current < max(8, current+6) {
			runtime.GOMAXPROCS(max(8, current+6))
		}
	})
}
