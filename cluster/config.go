package cluster

import (
	"errors"
	"fmt"
	"log/slog"
	"net"
	"time"

	"go.opentelemetry.io/otel/metric"
	"go.opentelemetry.io/otel/trace"
	"google.golang.org/protobuf/proto"

	"github.com/perdure/perdure/actor"
	"github.com/perdure/perdure/internal/certificate"
	"github.com/perdure/perdure/internal/deployment"
	"github.com/perdure/perdure/internal/header"
	"github.com/perdure/perdure/internal/ingress"
	"github.com/perdure/perdure/internal/invoker/inprocess"
	"github.com/perdure/perdure/internal/telemetry"
)

// Config is everything about a node that can be chosen. The zero value of a field is its
// default, so a Config in a file or a flag set need name only what differs.
type Config struct {
	// Listen is the host:port the node serves on; port 0 takes a free one, which Addr tells.
	// Defaults to 127.0.0.1:7373.
	Listen string
	// NoListener serves only what is mounted with Handler and called through Client.
	NoListener bool
	// DataDir holds all that the node keeps. It is created if missing. Defaults to
	// perdure-data in the working directory.
	DataDir string
	// InMemory keeps everything in memory and forgets it when the node stops: for tests, which
	// then run under testing/synctest in no time. DataDir is not used.
	InMemory bool
	// Partitions of the cluster, from 1 to 1,024, fixed when the data directory is created.
	// Defaults to 64, or to what the directory says.
	Partitions uint32
	// MemoryBytes is the budget for caches, write buffers and backlogs, 128 MiB to 8 GiB. An
	// idle node uses a fraction of it; handlers' own memory comes on top. Defaults to 512 MiB.
	MemoryBytes int64
	// MaxMessageBytes of one request, from 1 KiB to 64 MiB. It must fit a record, whose size
	// MemoryBytes decides: 512 MiB allow about 1.8 MiB. Defaults to 1 MiB, or to a 512th of
	// MemoryBytes if that is less.
	MaxMessageBytes int
	// MaxResultBytes of what one Run returns, from 2 MiB to 2 GiB less a byte, which is what a message may
	// have. What does not fit a record is recorded in parts, and is in memory about twice
	// when the handler has it. Results of handlers that run at the same time add up, and MemoryBytes does
	// not bound them. Defaults to 1 GiB.
	MaxResultBytes int
	// MaxConcurrentCalls under way at once; more are refused with resource_exhausted. Defaults
	// to 20,000.
	MaxConcurrentCalls int
	// Validator checks every request before an invocation exists; nil checks nothing. An error
	// is invalid_argument to the caller, with the violations as details if it is one of
	// protovalidate's. It must be safe for concurrent use.
	Validator func(proto.Message) error
	// Middleware is around every handler of the node, the first outermost. Its mistakes are reported by
	// Start.
	Middleware []actor.Middleware
	// Headers are names of request headers that are kept with each invocation for its handler
	// (actor.HeaderOf), such as X-Request-Id; X-Acme-* stands for all that begin so. They are written to disk:
	// names that say that the value is a secret, or that belong to the protocol, are refused. Whatever it
	// says, callers can name headers of theirs in the header Perdure-Headers. All together may be 32 of 4
	// KiB. Defaults to none.
	Headers []string
	// Logger of the node and of handlers. Defaults to slog.Default().
	Logger *slog.Logger
	// TLS makes the listener speak nothing but TLS. Nil: plain HTTP.
	TLS *TLS
	// RemoteAdmin serves perdure.admin.v1.AdminService, which shows all data and ends
	// invocations, to everyone who can reach the node; nothing authenticates them unless
	// TLS.ClientCAFile is set. By default it answers only callers whose connection comes from
	// this machine, and with TLS.ClientCAFile all that come by the listener, for they have a
	// certificate. A proxy on the same machine must add X-Forwarded-For or Forwarded, as most
	// do, or keep the service to itself: its calls look local otherwise.
	RemoteAdmin bool
	// Peers makes the node one that others can join, or that joins them. Nil: it is alone, and
	// listens to no other node; it can get peers at a later start.
	Peers *Peers
	// Telemetry says where traces and metrics go. Defaults to nowhere.
	Telemetry Telemetry
	// Retention of finished invocations whose .proto does not say it. Defaults to 24 h.
	Retention time.Duration
	// AutoKeyRetention is for invocations with an idempotency key that a Go client made up for
	// its own retries. Defaults to 1 h.
	AutoKeyRetention time.Duration
	// InactivityTimeout is how long a handler may wait before its goroutine is given back; it
	// is replayed when what it waits for is there. Negative: never. Defaults to 1 min.
	InactivityTimeout time.Duration
	// MaxParked is how many DURABLE and RUN handlers may wait with a goroutine of their own. If more
	// do, those that have waited longest are unwound before their InactivityTimeout. A handler
	// that never suspends is not counted. Defaults to one for each 64 KiB of MemoryBytes.
	MaxParked int
	// StepTimeout is how long an attempt may go without a durable step, if the .proto does not
	// say it. Defaults to 10 min.
	StepTimeout time.Duration
	// TransactionTimeout bounds one TRANSACTION handler. Defaults to 30 s.
	TransactionTimeout time.Duration
	// Deployment names the build of the handlers, as up to 63 letters, digits, dots, dashes and
	// underscores, such as the tag of a release. Each build needs a name of its own. Defaults to
	// one that follows from the services' descriptors and from what the program was built of.
	Deployment string
	// AcceptBreakingChanges starts although the services don't fit what earlier deployments left in
	// the data directory, which Start otherwise refuses with the list of what would break: that may
	// then be misread, out of reach, or unable to go on.
	AcceptBreakingChanges bool
	// DrainTimeout is how long Run and Shutdown wait for calls under way before they are
	// answered with unavailable. Their invocations go on after the next start. Defaults to 5 s.
	DrainTimeout time.Duration
	// CrashAtEveryEntry is for tests of handlers: every attempt is aborted after each journal
	// entry and replayed, and each TRANSACTION runs once in vain before it commits, as if the
	// node had died at every point where it can. What a handler does must come out the same.
	CrashAtEveryEntry bool
	// OnServing is called once by Start when the node serves, before Start returns; url is ""
	// without a listener. It must not call methods of the node. Defaults to nothing.
	OnServing func(url string)
}

// TLS names the files of the listener's certificate. They are read again when they change.
type TLS struct {
	// CertFile and KeyFile are in PEM form.
	CertFile, KeyFile string
	// ClientCAFile, if set, makes callers show a certificate signed by one of its authorities.
	ClientCAFile string
	// MinVersion is tls.VersionTLS12 or tls.VersionTLS13. Defaults to 1.2.
	MinVersion uint16
}

func (t *TLS) files() certificate.Files {
	return certificate.Files{CertFile: t.CertFile, KeyFile: t.KeyFile, ClientCAFile: t.ClientCAFile, MinVersion: t.MinVersion}
}

// Telemetry says where OpenTelemetry's data goes. The zero value is nowhere and costs nothing.
type Telemetry struct {
	// TracesURL and MetricsURL are OTLP/HTTP collectors, such as http://localhost:4318.
	TracesURL, MetricsURL string
	// Prometheus serves /metrics on the listener.
	Prometheus bool
	// SampleRatio is the share of traces kept that no caller has decided about, above 0 to 1.
	// Defaults to 1.
	SampleRatio float64
	// ServiceName of the node in traces and metrics. Defaults to perdure.
	ServiceName string
	// TracerProvider takes the node's spans, in a program that has set up OpenTelemetry for
	// itself and shuts it down. TracesURL and SampleRatio must be left out, and ServiceName has
	// no say. The ids of spans are then the provider's choice, so an invocation's attempts are
	// beside its span, not below it.
	TracerProvider trace.TracerProvider
	// MeterProvider takes the node's metrics; MetricsURL and Prometheus must be left out. Only
	// one node can use it: two would observe the same instruments.
	MeterProvider metric.MeterProvider
}

// The defaults and bounds of Config.
const (
	DefaultListen     = "127.0.0.1:7373"
	DefaultDataDir    = "perdure-data"
	DefaultPartitions = 64

	maxPartitions   = 1024
	defaultMemory   = 512 << 20
	minMemory       = 128 << 20
	maxMemory       = 8 << 30
	minMessageBytes = 1 << 10
	maxMessageBytes = 64 << 20
	minResultBytes  = 2 << 20
	maxResultBytes  = 1<<31 - 1

	defaultResultBytes = 1 << 30
	defaultDrain       = 5 * time.Second
)

// Option changes a Config.
type Option func(*Config)

// WithConfig replaces everything set so far.
func WithConfig(config Config) Option { return func(c *Config) { *c = config } }

// WithListen sets Config.Listen.
func WithListen(address string) Option { return func(c *Config) { c.Listen = address } }

// WithoutListener sets Config.NoListener.
func WithoutListener() Option { return func(c *Config) { c.NoListener = true } }

// WithDataDir sets Config.DataDir.
func WithDataDir(directory string) Option { return func(c *Config) { c.DataDir = directory } }

// WithInMemory sets Config.InMemory.
func WithInMemory() Option { return func(c *Config) { c.InMemory = true } }

// WithPartitions sets Config.Partitions.
func WithPartitions(count uint32) Option { return func(c *Config) { c.Partitions = count } }

// WithMemory sets Config.MemoryBytes.
func WithMemory(bytes int64) Option { return func(c *Config) { c.MemoryBytes = bytes } }

// WithMaxMessageBytes sets Config.MaxMessageBytes.
func WithMaxMessageBytes(bytes int) Option { return func(c *Config) { c.MaxMessageBytes = bytes } }

// WithMaxResultBytes sets Config.MaxResultBytes.
func WithMaxResultBytes(bytes int) Option { return func(c *Config) { c.MaxResultBytes = bytes } }

// WithValidator sets Config.Validator. With protovalidate:
//
//	cluster.WithValidator(func(m proto.Message) error { return protovalidate.Validate(m) })
func WithValidator(validate func(proto.Message) error) Option {
	return func(c *Config) { c.Validator = validate }
}

// WithMiddleware adds to Config.Middleware: the first that is ever added is the outermost.
func WithMiddleware(middleware ...actor.Middleware) Option {
	return func(c *Config) {
		c.Middleware = append(c.Middleware[:len(c.Middleware):len(c.Middleware)], middleware...)
	}
}

// WithHeaders adds to Config.Headers.
func WithHeaders(names ...string) Option {
	return func(c *Config) { c.Headers = append(c.Headers[:len(c.Headers):len(c.Headers)], names...) }
}

// WithLogger sets Config.Logger.
func WithLogger(logger *slog.Logger) Option { return func(c *Config) { c.Logger = logger } }

// WithTLS sets Config.TLS.
func WithTLS(files TLS) Option { return func(c *Config) { c.TLS = &files } }

// WithRemoteAdmin sets Config.RemoteAdmin.
func WithRemoteAdmin() Option { return func(c *Config) { c.RemoteAdmin = true } }

// WithTelemetry sets Config.Telemetry.
func WithTelemetry(settings Telemetry) Option { return func(c *Config) { c.Telemetry = settings } }

// WithRetention sets Config.Retention.
func WithRetention(retention time.Duration) Option {
	return func(c *Config) { c.Retention = retention }
}

// WithCrashAtEveryEntry sets Config.CrashAtEveryEntry.
func WithCrashAtEveryEntry() Option { return func(c *Config) { c.CrashAtEveryEntry = true } }

// WithInactivityTimeout sets Config.InactivityTimeout.
func WithInactivityTimeout(timeout time.Duration) Option {
	return func(c *Config) { c.InactivityTimeout = timeout }
}

func (c Config) problems() []error {
	c = c.withDefaults()
	var problems []error
	reject := func(format string, args ...any) { problems = append(problems, fmt.Errorf(format, args...)) }
	if !c.NoListener {
		if _, port, err := net.SplitHostPort(c.Listen); err != nil || port == "" {
			reject("listen address %q is not host:port, such as %s", c.Listen, DefaultListen)
		}
	} else if c.TLS != nil {
		reject("TLS is set but there is no listener: the server that mounts Handler has TLS of its own")
	}
	if c.Partitions > maxPartitions {
		reject("partitions is %d; it must be from 1 to %d", c.Partitions, maxPartitions)
	}
	if c.MemoryBytes < minMemory || c.MemoryBytes > maxMemory {
		reject("memory is %d bytes; it must be from %d to %d", c.MemoryBytes, int64(minMemory), int64(maxMemory))
	}
	if c.MaxMessageBytes < minMessageBytes || c.MaxMessageBytes > maxMessageBytes {
		reject("max message bytes is %d; it must be from %d to %d", c.MaxMessageBytes, minMessageBytes, maxMessageBytes)
	}
	if c.MaxResultBytes < minResultBytes || c.MaxResultBytes > maxResultBytes {
		reject("max result bytes is %d; it must be from %d to %d", c.MaxResultBytes, minResultBytes, maxResultBytes)
	}
	if c.MaxParked < 0 {
		reject("max parked is %d; it must be positive", c.MaxParked)
	}
	if c.MaxConcurrentCalls < 0 {
		reject("max concurrent calls is %d; it must be positive", c.MaxConcurrentCalls)
	}
	for _, wait := range []struct {
		name  string
		value time.Duration
	}{
		{"retention", c.Retention}, {"auto key retention", c.AutoKeyRetention}, {"step timeout", c.StepTimeout},
		{"transaction timeout", c.TransactionTimeout}, {"drain timeout", c.DrainTimeout},
	} {
		if wait.value < 0 {
			reject("%s is %s; it must not be negative", wait.name, wait.value)
		}
	}
	for i, wrap := range c.Middleware {
		if wrap == nil {
			reject("middleware %d is nil", i+1)
		}
	}
	if _, err := header.NewRule(c.Headers); err != nil {
		problems = append(problems, split(err)...)
	}
	if err := deployment.CheckName(c.Deployment); err != nil {
		problems = append(problems, err)
	}
	if c.TLS != nil {
		problems = append(problems, split(c.TLS.files().Validate())...)
	}
	if c.Peers != nil {
		if c.InMemory {
			reject("peers are set, and the node keeps everything in memory: what others count on must outlive it")
		}
		problems = append(problems, c.Peers.problems()...)
	}
	return append(problems, split(c.telemetry("").Validate())...)
}

// WithDeployment sets Config.Deployment.
func WithDeployment(name string) Option { return func(c *Config) { c.Deployment = name } }

// WithBreakingChanges sets Config.AcceptBreakingChanges.
func WithBreakingChanges() Option { return func(c *Config) { c.AcceptBreakingChanges = true } }

// WithOnServing sets Config.OnServing.
func WithOnServing(tell func(url string)) Option { return func(c *Config) { c.OnServing = tell } }

// Validate reports all that is wrong with c, joined, each with its value and its bound. Files
// and directories are looked at by Start only.
func (c Config) Validate() error { return errors.Join(c.problems()...) }

// split takes joined errors apart, so that a list of them is flat.
func split(err error) []error {
	if joined, ok := err.(interface{ Unwrap() []error }); ok {
		return joined.Unwrap()
	}
	if err == nil {
		return nil
	}
	return []error{err}
}

// withDefaults leaves Partitions 0, which means what the data directory says.
func (c Config) withDefaults() Config {
	defaultTo(&c.Listen, DefaultListen)
	defaultTo(&c.DataDir, DefaultDataDir)
	defaultTo(&c.MemoryBytes, defaultMemory)
	defaultTo(&c.MaxMessageBytes, int(clamp(c.MemoryBytes/512, minMessageBytes, ingress.DefaultMaxMessageBytes)))
	defaultTo(&c.MaxResultBytes, defaultResultBytes)
	defaultTo(&c.MaxParked, int(c.MemoryBytes>>16))
	defaultTo(&c.DrainTimeout, defaultDrain)
	defaultTo(&c.InactivityTimeout, inprocess.DefaultInactivityTimeout())
	if c.Logger == nil {
		c.Logger = slog.Default()
	}
	if c.Peers != nil {
		peers := c.Peers.withDefaults()
		c.Peers = &peers
	}
	return c
}

func defaultTo[T comparable](field *T, value T) {
	var zero T
	if *field == zero {
		*field = value
	}
}

func (c Config) telemetry(nodeID string) telemetry.Config {
	return telemetry.Config{
		TracesURL: c.Telemetry.TracesURL, MetricsURL: c.Telemetry.MetricsURL, Prometheus: c.Telemetry.Prometheus,
		SampleRatio: c.Telemetry.SampleRatio, ServiceName: c.Telemetry.ServiceName,
		TracerProvider: c.Telemetry.TracerProvider, MeterProvider: c.Telemetry.MeterProvider,
		ServiceVersion: Version(), NodeID: nodeID, Logger: c.Logger,
	}
}

// clamp is a share of the memory budget within the bounds of its user.
func clamp(bytes, least, most int64) int64 { return min(max(bytes, least), most) }
