// Package inprocess runs handlers written in Go in this process: it is the invoker.Invoker
// behind a node's own handlers, and the actor.Runtime behind their contexts.
//
// A TRANSACTION or READ handler works on memory and ends; it waits for the handlers it calls, and
// for nothing else. A DURABLE or RUN handler feeds a journal: each step it makes is matched with the entry recorded by an earlier attempt, or
// recorded (see the durable type).
//
// Goroutines: attempts run on workers, which the pool starts, reuses and waits for; the closure
// of each RunAsync has one, and so has each call that a READ handler makes; one watch goroutine
// looks after step timeouts. Close ends them all. READ handlers run on their caller's goroutine.
// A handler is stopped by runtime.Goexit in its next step, which no recover can hide; the
// worker it ran on ends with it and the pool starts another when needed.
package inprocess

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"reflect"
	"sync"
	"sync/atomic"
	"time"

	"go.opentelemetry.io/otel/trace"

	"github.com/perdure/perdure/actor"
	"github.com/perdure/perdure/internal/invocation"
	"github.com/perdure/perdure/internal/invoker"
	recordv1 "github.com/perdure/perdure/internal/record/v1"
	"github.com/perdure/perdure/internal/telemetry"
)

// Config of an Invoker. Its zero value is good for production.
type Config struct {
	// Logger defaults to slog.Default().
	Logger *slog.Logger
	// TracerProvider records a span for each attempt and each step. Nil records none and costs
	// nothing.
	TracerProvider trace.TracerProvider
	// InactivityTimeout is how long a handler without an inactivity_timeout of its own may wait
	// before it is unwound, to be replayed when what it waits for is there. Defaults to 1 minute; SuspendAtOnce unwinds at every wait; a
	// negative one never does.
	InactivityTimeout time.Duration
	// StepTimeout is for handlers without a step_timeout of their own. Defaults to 10 minutes; a
	// negative one is none.
	StepTimeout time.Duration
	// Retention is how long a finished invocation is kept that a handler sent or gave an
	// idempotency key, or that is a workflow's run, if its .proto does not say. Defaults to 24 h.
	Retention time.Duration
	// MaxParked handlers wait with a goroutine of their own; if more do, those that have waited
	// longest are unwound as if their InactivityTimeout were over. Defaults to 8,192.
	MaxParked int
	// LastWith is the deployment that was started last of those with a handler which this one lacks;
	// empty if none is known. Nil knows none.
	LastWith func(service, handler string) (deployment string)
	// IdleWorkers is how many goroutines are kept for the next attempt. Defaults to 256.
	IdleWorkers int
}

// SuspendAtOnce as an InactivityTimeout unwinds handlers at every wait whose end is not there yet.
const SuspendAtOnce = time.Nanosecond

func (c Config) withDefaults() Config {
	if c.Logger == nil {
		c.Logger = slog.Default()
	}
	if c.InactivityTimeout == 0 {
		c.InactivityTimeout = DefaultInactivityTimeout()
	}
	if c.StepTimeout == 0 {
		c.StepTimeout = 10 * time.Minute
	}
	if c.Retention <= 0 {
		c.Retention = 24 * time.Hour
	}
	if c.MaxParked <= 0 {
		c.MaxParked = 8192
	}
	if c.IdleWorkers <= 0 {
		c.IdleWorkers = 256
	}
	return c
}

// Invoker runs the handlers registered with it. Its methods are safe for concurrent use.
type Invoker struct {
	config Config
	tracer *telemetry.Tracer // nil: no spans
	pool   pool
	parked parked

	services atomic.Pointer[map[string]*service] // replaced, never changed, under mu
	mu       sync.Mutex
}

type service struct {
	desc    *actor.ServiceDesc
	handler any
	methods map[string]*method
	// state, and tables by name, as the handlers see them.
	state  *shape
	tables map[string]*shape
}

// method is one handler as it was registered.
type method struct {
	desc        *actor.MethodDesc
	service     *service
	stepTimeout time.Duration // 0: none
	inactivity  time.Duration // as Config.InactivityTimeout
}

var _ invoker.Invoker = (*Invoker)(nil)

// New makes an Invoker without handlers.
func New(config Config) *Invoker {
	inv := &Invoker{config: config.withDefaults()}
	if config.TracerProvider != nil {
		inv.tracer = telemetry.NewTracer(config.TracerProvider)
	}
	inv.parked.most = inv.config.MaxParked
	inv.services.Store(&map[string]*service{})
	inv.pool.configure(inv.config.IdleWorkers, inv.expire)
	return inv
}

// Register adds the handlers of a service. It refuses a nil handler and a service that is
// registered already.
func (inv *Invoker) Register(desc *actor.ServiceDesc, handler any) error {
	if desc == nil || desc.Name == "" {
		return errors.New("register: the service description is missing: use the generated Register function")
	}
	if value := reflect.ValueOf(handler); !value.IsValid() || value.Kind() == reflect.Pointer && value.IsNil() {
		return fmt.Errorf("register %s: the handler is nil", desc.Name)
	}
	inv.mu.Lock()
	defer inv.mu.Unlock()
	known := *inv.services.Load()
	if _, twice := known[desc.Name]; twice {
		return fmt.Errorf("register %s: it is registered already: one value serves every key", desc.Name)
	}
	added := &service{desc: desc, handler: handler, methods: make(map[string]*method, len(desc.Methods))}
	if err := added.takeShapes(); err != nil {
		return err
	}
	for _, m := range desc.Methods {
		registered := &method{desc: m, service: added, stepTimeout: m.Options.StepTimeout, inactivity: cmp.Or(m.Options.InactivityTimeout, inv.config.InactivityTimeout)}
		if registered.stepTimeout == 0 {
			registered.stepTimeout = max(inv.config.StepTimeout, 0)
		}
		if m.Handle == nil && m.Mode != actor.ModeSignal {
			return fmt.Errorf("register %s: %s has no Handle function: generate the code again", desc.Name, m.Name)
		}
		added.methods[m.Name] = registered
		inv.pool.watchEvery(registered.stepTimeout)
	}
	services := make(map[string]*service, len(known)+1)
	for name, other := range known {
		services[name] = other
	}
	services[desc.Name] = added
	inv.services.Store(&services)
	return nil
}

// Services are the descriptions of what is registered, in no order.
func (inv *Invoker) Services() []*actor.ServiceDesc {
	services := *inv.services.Load()
	descs := make([]*actor.ServiceDesc, 0, len(services))
	for _, registered := range services {
		descs = append(descs, registered.desc)
	}
	return descs
}

// Method is the description of one handler, nil if it is not registered.
func (inv *Invoker) Method(service, handler string) *actor.MethodDesc {
	if found := inv.method(service, handler); found != nil {
		return found.desc
	}
	return nil
}

func (inv *Invoker) method(service, handler string) *method {
	if registered := (*inv.services.Load())[service]; registered != nil {
		return registered.methods[handler]
	}
	return nil
}

// Start runs an attempt on a worker. After Close nothing is run and nothing said to the host.
func (inv *Invoker) Start(attempt *invoker.Attempt) invoker.Running {
	found := inv.method(attempt.Target.Service, attempt.Target.Handler)
	var started interface {
		task
		invoker.Running
	}
	switch {
	case found == nil || found.desc.Handle == nil:
		started = &unknown{inv, attempt}
	case attempt.Mode.Journaled():
		started = newDurable(inv, found, attempt)
	default:
		started = newTransaction(inv, found, attempt)
	}
	inv.pool.run(started)
	return started
}

// Close aborts what is running and waits until every goroutine and every READ handler has ended,
// or ctx is done: a handler that heeds neither its context nor makes steps cannot be stopped, and
// the error names it. Later attempts say nothing to their host, and later reads are refused as
// [actor.Unavailable].
func (inv *Invoker) Close(ctx context.Context) error { return inv.pool.close(ctx) }

// unknown is an attempt at a handler that this process does not have.
type unknown struct {
	invoker *Invoker
	attempt *invoker.Attempt
}

func (u *unknown) perform(*worker) {
	failure := errorRecord(errNotRegistered(u.attempt.Target))
	if u.attempt.Mode.Journaled() { // a deploy that has it can go on with the journal
		had := ""
		if len(u.attempt.Earlier) > 0 {
			had = u.attempt.Earlier[0] + " has begun the invocation"
		} else if u.invoker.config.LastWith != nil { // it has no step yet, and perhaps never ran
			if had = u.invoker.config.LastWith(u.attempt.Target.Service, u.attempt.Target.Handler); had != "" {
				had += " was the last to have it"
			}
		}
		if had != "" {
			failure.Message += fmt.Sprintf(", which is deployment %s; deployment %s: start a build that has the handler, or kill the invocation", u.attempt.Deployment, had)
		}
		u.attempt.Host.Finish(u.attempt, &invoker.Outcome{Retry: failure, Pause: true})
		return
	}
	u.attempt.Host.Finish(u.attempt, &invoker.Outcome{Result: errorResult(failure)})
}

func (u *unknown) String() string { return describe(u.attempt.Target, u.attempt.ID) }

func (u *unknown) Notify(uint32, *recordv1.Completion)           {}
func (u *unknown) progress() (steps uint64, limit time.Duration) { return 0, 0 }
func (u *unknown) Abort(error)                                   {}
func (u *unknown) Cancel()                                       {}

// expire ends an attempt that made no step for too long.
func (inv *Invoker) expire(stuck task) {
	if limited, ok := stuck.(interface{ expired() }); ok {
		limited.expired()
	}
}

func errNotRegistered(target invocation.Target) *actor.Error {
	return actor.NewError(actor.Unimplemented, "no handler "+target.Service+"/"+target.Handler+" is registered on this node")
}
