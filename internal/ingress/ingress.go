// Package ingress is the edge that callers outside talk to: one HTTP handler that speaks
// Connect, gRPC, gRPC-Web and plain JSON over HTTP/1.1 and h2c, and turns every rpc of the
// registered services into a request to a routing.Router. It is where requests are checked
// before an invocation exists, and the only place where errors get their wire codes.
//
// It owns no goroutine but those of net/http: one per connection, and over HTTP/2 one per
// call. A caller that goes away ends its goroutine, never the invocation it started.
package ingress

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"sync/atomic"
	"time"

	"connectrpc.com/connect/v2"
	"connectrpc.com/connect/v2/connecthttp"
	"google.golang.org/protobuf/proto"

	"github.com/perdure/perdure/actor"
	"github.com/perdure/perdure/internal/header"
	"github.com/perdure/perdure/internal/invocation"
	"github.com/perdure/perdure/internal/routing"
	"github.com/perdure/perdure/internal/telemetry"
)

// The defaults of Config.
const (
	DefaultMaxMessageBytes    = 1 << 20
	DefaultMaxConcurrentCalls = 20_000
	DefaultBodyTimeout        = 30 * time.Second
)

// Config is what an Ingress needs. Router and Services must be set.
type Config struct {
	Router   routing.Router
	Services []*actor.ServiceDesc
	// Validate checks a request before an invocation exists; nil checks nothing. A failure
	// is invalid_argument unless it has an *actor.Error in its chain.
	Validate func(proto.Message) error
	// Ready is nil while the node can serve, else it says why not. Nil: always ready.
	Ready func() error
	// Draining is nil unless new invocations are refused, and then says why. READ handlers, signals
	// and whatever ends what has begun are served. It must be fast. Nil: never.
	Draining func() error
	// Troubles are what keeps the node from serving some calls though it serves others, a line
	// each; /healthz and /readyz show them. Nil: there are none.
	Troubles func() []string
	// Headers are names of request headers that handlers see without the caller asking for it; one
	// that ends in * stands for all that begin so.
	Headers []string
	// Clustered: other nodes may host services that this one does not.
	Clustered bool
	// Unknown says of which nodes it is not known yet what they host: until it is nil, a service that
	// is not known may be theirs. Nil: it is always known.
	Unknown func() error
	// Others are services on the same port whose rpcs are not handlers, for callers on this
	// machine, or with a client certificate if the Server asks for those.
	Others []Other
	// RemoteOthers opens Others to everyone who can reach the port.
	RemoteOthers bool
	// Metrics serves /metrics. Nil: there is none.
	Metrics http.Handler
	Logger  *slog.Logger
	// Tracer and Instruments may be nil.
	Tracer      *telemetry.Tracer
	Instruments *telemetry.Instruments
	Retention   Retention
	// MaxMessageBytes of one request, decompressed. Defaults to 1 MiB.
	MaxMessageBytes int
	// MaxConcurrentCalls under way, waiting ones included; more are refused with
	// resource_exhausted. Defaults to 20,000.
	MaxConcurrentCalls int
	// BodyTimeout is how long a request's body may take to arrive. Defaults to 30 s.
	BodyTimeout time.Duration
}

// Other is a service that registers its rpcs by itself, such as the admin service.
type Other interface{ Register(*connect.Server) }

// Ingress is the http.Handler of a node. It is safe for concurrent use.
type Ingress struct {
	config   Config
	log      *slog.Logger
	own      map[string]*service // registered here
	table    atomic.Pointer[table]
	errors   *connecthttp.ErrorWriter
	health   *health
	inFlight atomic.Int64
	underWay underWay
	keep     *header.Rule
}

// New makes the handler. All that is wrong with config is in the error.
func New(config Config) (*Ingress, error) {
	if config.MaxMessageBytes == 0 {
		config.MaxMessageBytes = DefaultMaxMessageBytes
	}
	if config.MaxConcurrentCalls == 0 {
		config.MaxConcurrentCalls = DefaultMaxConcurrentCalls
	}
	if config.BodyTimeout == 0 {
		config.BodyTimeout = DefaultBodyTimeout
	}
	if config.Logger == nil {
		config.Logger = slog.Default()
	}
	if config.Draining == nil {
		config.Draining = func() error { return nil }
	}
	if config.Ready == nil {
		config.Ready = func() error { return nil }
	}
	if config.Troubles == nil {
		config.Troubles = func() []string { return nil }
	}
	config.Retention = config.Retention.withDefaults()

	i := &Ingress{
		config: config,
		log:    config.Logger,
		own:    map[string]*service{},
		errors: connecthttp.NewErrorWriter(),
	}
	if err := i.check(); err != nil {
		return nil, err
	}
	var err error
	if i.keep, err = header.NewRule(config.Headers); err != nil {
		return nil, fmt.Errorf("ingress: %w", err)
	}
	for _, desc := range config.Services {
		i.own[desc.Name] = i.newService(desc)
	}
	i.health = newHealth(i)
	i.table.Store(i.newTable(nil))
	return i, nil
}

func (i *Ingress) check() error {
	var problems []error
	if i.config.Router == nil {
		problems = append(problems, errors.New("ingress: there is no router"))
	}
	seen := map[string]bool{}
	for _, desc := range i.config.Services {
		if desc == nil {
			problems = append(problems, errors.New("ingress: a service descriptor is nil"))
			continue
		}
		if seen[desc.Name] {
			problems = append(problems, fmt.Errorf("ingress: service %s is registered twice", desc.Name))
		}
		seen[desc.Name] = true
		handlers := map[string]bool{}
		for _, m := range desc.Methods {
			if handlers[m.Name] {
				problems = append(problems, fmt.Errorf("ingress: service %s has two handlers named %s", desc.Name, m.Name))
			}
			handlers[m.Name] = true
		}
	}
	return errors.Join(problems...)
}

// ServeHTTP answers one request.
func (i *Ingress) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	route, ok := i.table.Load().routes[r.URL.Path]
	if !ok {
		i.serveUnknown(w, r)
		return
	}
	if route.restricted {
		if err := i.refused(r); err != nil {
			_ = i.errors.Write(w, r, err) // the caller is gone: there is nobody to tell
			return
		}
	}
	if route.unary {
		if !understood(w, r, route) {
			return
		}
		if r.Body != nil && r.Body != http.NoBody {
			// On a copy: net/http looks at its own request's Body to see whether a rest of it is
			// left on the connection, and would take that rest for the next request.
			own := *r
			own.Body = limitBody(w, r.Body, i.config.BodyTimeout)
			r = &own
		}
	}
	route.handler.ServeHTTP(w, r)
}

// Method finds the handler that an invocation was aimed at; nil if neither this node has it nor, as
// far as is known here, another one.
func (i *Ingress) Method(target invocation.Target) *actor.MethodDesc {
	if s := i.table.Load().services[target.Service]; s != nil {
		if m := s.methods[target.Handler]; m != nil {
			return m.desc
		}
	}
	return nil
}

// enter takes one of the places for calls under way.
func (i *Ingress) enter() error {
	if i.inFlight.Add(1) <= int64(i.config.MaxConcurrentCalls) {
		return nil
	}
	i.inFlight.Add(-1)
	return tooMany("this node has %d calls under way, which is all it accepts; try again", i.config.MaxConcurrentCalls)
}

// limited is enter for calls that are not a handler's.
func (i *Ingress) limited() (leave func(), err error) { return i.leave, i.enter() }

func (i *Ingress) leave() { i.inFlight.Add(-1) }

// Idle waits until no call is under way, or ctx ends.
func (i *Ingress) Idle(ctx context.Context) error {
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for i.inFlight.Load() > 0 {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-tick.C:
		}
	}
	return nil
}
