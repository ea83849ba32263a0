package actortest

import (
	"log/slog"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/perdure/perdure/actor"
	"github.com/perdure/perdure/internal/invoker/inprocess"
)

// Option is a choice about a test's node.
type Option func(*config)

type config struct {
	logger      *slog.Logger
	validate    func(proto.Message) error
	middleware  []actor.Middleware
	headers     []string
	inactivity  time.Duration
	crashAlways bool
	maxOrders   int
	traceLines  int
}

func newConfig(opts []Option) config {
	c := config{inactivity: -1, maxOrders: 1000, traceLines: *moves}
	for _, opt := range opts {
		opt(&c)
	}
	return c
}

// WithLogger is where the node and handlers log. Defaults to the test's output.
func WithLogger(logger *slog.Logger) Option { return func(c *config) { c.logger = logger } }

// WithValidator checks every request before an invocation exists, as cluster.Config.Validator
// does.
func WithValidator(validate func(proto.Message) error) Option {
	return func(c *config) { c.validate = validate }
}

// WithMiddleware is around every handler, as cluster.WithMiddleware is.
func WithMiddleware(middleware ...actor.Middleware) Option {
	return func(c *config) { c.middleware = append(c.middleware, middleware...) }
}

// WithHeaders keeps headers of requests to [Node.Handler], as cluster.WithHeaders does.
func WithHeaders(names ...string) Option {
	return func(c *config) { c.headers = append(c.headers, names...) }
}

// WithCrashAtEveryEntry aborts each attempt after every entry and completion it records, and a
// TRANSACTION once before it commits, as if the node had died there.
func WithCrashAtEveryEntry() Option { return func(c *config) { c.crashAlways = true } }

// WithSuspendAtEveryWait unwinds a handler at every wait whose end is not there yet. By default
// handlers are never unwound.
func WithSuspendAtEveryWait() Option {
	return func(c *config) { c.inactivity = inprocess.SuspendAtOnce }
}

// WithMaxOrders bounds how many orders EveryOrder tries. Defaults to 1,000.
func WithMaxOrders(most int) Option { return func(c *config) { c.maxOrders = most } }
