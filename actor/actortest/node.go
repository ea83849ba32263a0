package actortest

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/perdure/perdure/actor"
	"github.com/perdure/perdure/internal/admin"
	"github.com/perdure/perdure/internal/ingress"
	"github.com/perdure/perdure/internal/invocation"
	"github.com/perdure/perdure/internal/invoker/inprocess"
	"github.com/perdure/perdure/internal/partition"
	"github.com/perdure/perdure/storage/memstore"
)

// Node is a node whose every step the test decides: what a handler records, when that is durable,
// when messages between objects arrive, what is heard first. It is an [actor.Registrar]; it
// starts with the first call of Client, and ends with the test.
//
// Its methods may be called from any goroutine of the scenario.
type Node struct {
	t      *testing.T
	config config
	plan   plan

	agenda *agenda
	began  time.Time
	moves  atomic.Int64
	quiet  atomic.Bool // nothing is on the agenda, and nothing waits for its time
	// declaring: the schedules that services declare are not made yet.
	declaring atomic.Bool
	sleeps    sleeps
	faults    faults
	copies    copies

	groups  []*group
	router  *partition.Router
	runner  *inprocess.Invoker
	edge    *ingress.Ingress
	admin   *admin.Service
	client  *actor.Client
	stop    chan struct{} // ends the driver
	gone    chan struct{} // ends callers that wait
	driven  chan struct{} // the driver has ended
	routed  chan struct{} // the router has ended
	cancel  context.CancelFunc
	giving  sync.Once
	records int // durable ones; the driver's
	// autoKeys counts the idempotency keys given to calls without one; the driver's.
	autoKeys int

	mu struct {
		sync.Mutex
		registered registrations
		started    bool
	}
	log struct {
		sync.Mutex
		lines []string
	}
}

// errorsOnly drops everything below errors.
type errorsOnly struct{ slog.Handler }

func (h errorsOnly) Enabled(_ context.Context, level slog.Level) bool {
	return level >= slog.LevelError
}

type registration struct {
	desc    *actor.ServiceDesc
	handler any
}

type registrations []registration

// RegisterService implements actor.Registrar.
func (r *registrations) RegisterService(desc *actor.ServiceDesc, handler any) {
	*r = append(*r, registration{desc, handler})
}

// partitions is how many a test's node has: enough for objects to be in different ones.
const partitions = 4

// New makes a node in the order in which things come. It must be called in the bubble of
// [testing/synctest.Test]; Run, Seeds and EveryOrder do that.
func New(t *testing.T, opts ...Option) *Node {
	t.Helper()
	return newNode(t, newConfig(opts), &inOrder{})
}

func newNode(t *testing.T, config config, plan plan) *Node {
	n := &Node{
		t: t, config: config, plan: plan, agenda: newAgenda(), began: time.Now(),
		stop: make(chan struct{}), gone: make(chan struct{}), driven: make(chan struct{}), routed: make(chan struct{}),
	}
	n.copies.node = n
	return n
}

// RegisterService makes the node run handler. Generated RegisterXxxHandler functions call it.
func (n *Node) RegisterService(desc *actor.ServiceDesc, handler any) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.mu.started {
		n.t.Errorf("%s is registered after the node has started: register handlers before the first call of Client", desc.Name)
		return
	}
	actor.WithMiddleware(&n.mu.registered, n.config.middleware...).RegisterService(desc, handler)
}

// Client calls the node's objects. It starts the node.
func (n *Node) Client() *actor.Client {
	n.t.Helper()
	n.mu.Lock()
	defer n.mu.Unlock()
	if !n.mu.started {
		n.mu.started = true
		if err := n.startLocked(); err != nil {
			n.t.Fatalf("the node does not start: %v", err)
		}
	}
	return n.client
}

// Handler serves the node's objects over HTTP, for tests with httptest.ResponseRecorder. Calls
// that come this way are no moves: a seed does not decide about them.
func (n *Node) Handler() http.Handler {
	n.t.Helper()
	n.Client()
	return n.edge
}

func (n *Node) startLocked() error {
	logger := n.config.logger
	if logger == nil {
		logger = slog.New(slog.NewTextHandler(n.t.Output(), &slog.HandlerOptions{Level: slog.LevelInfo}))
	}
	n.runner = inprocess.New(inprocess.Config{Logger: logger, InactivityTimeout: n.config.inactivity})
	logger = slog.New(errorsOnly{logger.Handler()}) // That leaders are lost is no news here.
	var problems []error
	var services []*actor.ServiceDesc
	for _, r := range n.mu.registered {
		desc := n.observe(r.desc)
		services = append(services, desc)
		problems = append(problems, n.runner.Register(desc, r.handler))
	}
	if err := errors.Join(problems...); err != nil {
		return err
	}
	stage := &stage{node: n, runner: n.runner}
	stage.mu.started = map[invocation.ID]int{}
	settings := partition.Config{
		Invoker: stage, Logger: logger, Partitions: partitions, Between: n.between,
		CrashAtEveryEntry: true, CrashWhen: n.crashes,
		TransactionTimeout: time.Hour, // No scenario fails because a seed was slow.
	}
	var err error
	n.router, err = partition.NewRouter(settings, func(id uint32, p *partition.Partition) partition.Group {
		g := &group{node: n, id: id, listener: p, store: memstore.New(memstore.Options{})}
		n.groups = append(n.groups, g)
		return g
	})
	if err != nil {
		return err
	}
	if n.admin, err = admin.New(admin.Config{Router: n.router, Services: services, Logger: logger}); err != nil {
		return err
	}
	n.edge, err = ingress.New(ingress.Config{Router: n.router, Services: services, Validate: n.config.validate, Headers: n.config.headers, Logger: logger})
	if err != nil {
		return err
	}
	n.client = actor.NewClient(transport{n.edge.Local(), n})
	ctx, cancel := context.WithCancel(context.Background())
	n.cancel = cancel
	go func() {
		defer close(n.routed)
		if err := n.router.Run(ctx); err != nil {
			n.t.Errorf("the partitions failed: %v", err)
		}
	}()
	for _, g := range n.groups {
		g.postLead()
	}
	if n.edge.DeclaresSchedules() {
		n.declaring.Store(true)
		go transport{n.edge.Local(), n}.declare(ctx)
	}
	go n.drive()
	n.t.Cleanup(n.close)
	return nil
}

// between takes a message from one partition to another.
func (n *Node) between(from, to uint32, deliver func()) {
	n.agenda.post(&move{
		kind: kindMessage, lane: fmt.Sprintf("message %d %d", from, to),
		text: fmt.Sprintf("a message from partition %d arrives at %d", from, to), do: deliver,
	})
}

// crashes says whether an attempt dies after it recorded an entry.
func (n *Node) crashes(id invocation.ID, attempt, entry uint32) bool {
	if n.config.crashAlways || n.faults.crashes(id, entry) {
		return true
	}
	p, ok := n.plan.(*seeded)
	return ok && p.crashes(id, attempt, entry)
}

// giveUp ends the waits of callers.
func (n *Node) giveUp() { n.giving.Do(func() { close(n.gone) }) }

// close ends the node and says what a failed test did.
func (n *Node) close() {
	n.giveUp()
	close(n.stop)
	<-n.driven
	n.agenda.close()
	n.cancel()
	<-n.routed
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	if err := n.runner.Close(ctx); err != nil {
		n.t.Errorf("a handler does not end: %v", err)
	}
	if n.t.Failed() {
		n.t.Log(n.lastMoves(n.config.traceLines))
	}
}

// lastMoves are the newest lines of the trace.
func (n *Node) lastMoves(most int) string {
	n.log.Lock()
	defer n.log.Unlock()
	lines := n.log.lines
	head := fmt.Sprintf("what happened (%d moves):", len(lines))
	if cut := len(lines) - most; cut > 0 && most >= 0 {
		head = fmt.Sprintf("the last %d of %d moves (-actortest.moves=-1 shows all):", most, len(lines))
		lines = lines[cut:]
	}
	return head + "\n" + strings.Join(lines, "\n")
}

// Moves is what has happened so far, a line each: the same seed gives the same lines.
func (n *Node) Moves() []string {
	n.log.Lock()
	defer n.log.Unlock()
	return slices.Clone(n.log.lines)
}

// settleTime is longer than anything is repeated after.
const settleTime = 5 * time.Second

// Settle lets time pass until nothing has happened for five seconds of fake time: what was sent
// has arrived, and what could run has run. Timers that are due later have not fired.
func (n *Node) Settle() {
	for {
		before := n.moves.Load()
		time.Sleep(settleTime)
		if n.moves.Load() == before && n.quiet.Load() {
			return
		}
	}
}
