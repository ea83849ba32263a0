package partition

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"sync"
	"sync/atomic"
	"time"

	"github.com/perdure/perdure/internal/engine"
	"github.com/perdure/perdure/internal/invocation"
	"github.com/perdure/perdure/internal/invoker"
	recordv1 "github.com/perdure/perdure/internal/record/v1"
	"github.com/perdure/perdure/internal/routing"
	"github.com/perdure/perdure/internal/table"
	"github.com/perdure/perdure/internal/telemetry"
)

// Config of a Router. Invoker and Logger are required.
type Config struct {
	Invoker invoker.Invoker
	Logger  *slog.Logger
	// Partitions is how many there are in the cluster, numbered from 1.
	Partitions uint32
	// MaxInbox is how many invocations may wait for one key. Defaults to 100,000.
	MaxInbox int
	// TransactionTimeout bounds one TRANSACTION handler. Defaults to 30 s.
	TransactionTimeout time.Duration
	// StepTimeout is how long a DURABLE or RUN attempt may go without a step, and a READ
	// handler called by another handler may take. Defaults to 10 min.
	StepTimeout time.Duration
	// MaxEntryBytes bounds what one step, or one TRANSACTION's writes and response together,
	// may write. A record may need twice that and must fit the store's batch. Defaults to
	// 1.75 MiB.
	MaxEntryBytes int
	// MaxResultBytes bounds what one Run of a DURABLE or RUN handler may return: beyond
	// MaxEntryBytes it takes several records. Defaults to 1 GiB.
	MaxResultBytes int
	// MaxEntryWrites bounds the writes and sends of one TRANSACTION. A record may need five
	// times as many rows and must fit the store's batch. Defaults to 5,000.
	MaxEntryWrites int
	// Deployment is the id of this build of the handlers, which invocations keep that it runs.
	Deployment string
	// DeploymentOf is the id of the build that the next attempt of an invocation will run on, which
	// may be on another node; "" if none is known. tied is the one that has fed its journal last, "" if
	// that is empty. It must be fast. Defaults to Deployment.
	DeploymentOf func(target invocation.Target, tied string) string
	// CrashAtEveryEntry is for tests: each attempt is aborted after every entry and completion
	// it records, and a TRANSACTION once before it commits, as if the node had died there.
	CrashAtEveryEntry bool
	// CrashWhen limits CrashAtEveryEntry to the attempts and entries, 0 for a TRANSACTION, that it
	// says yes to. It is called on the partitions' goroutines. nil is all.
	CrashWhen func(id invocation.ID, attempt, entry uint32) bool
	// HoldSchedules keeps schedules from firing until ReleaseSchedules.
	HoldSchedules bool
	// Between is for tests: it takes each message from one partition to another and calls
	// deliver at once, later, again or never. It must not block. nil is at once.
	Between func(from, to uint32, deliver func())
	// Now is what the wall clock shows: timers are due by it, and rows say when. It may jump; how
	// long something took is measured by the monotonic clock. nil is time.Now.
	Now func() time.Time
	// Node is this node's id in the cluster; 0 without others.
	Node uint64
	// Elsewhere reaches the partitions that other nodes lead. nil: there are no other nodes.
	Elsewhere Elsewhere
	// WrittenLevel is up to which feature level records may be written. It is called on any goroutine.
	// nil: any.
	WrittenLevel func() uint32
	// Tracer and Instruments are nil if traces and metrics are off.
	Tracer      *telemetry.Tracer
	Instruments *telemetry.Instruments

	router     *Router
	reach      reach
	onLead     func(partition uint32)
	onStepDown func(partition uint32)
	onFail     func(partition uint32, cause error)
}

// Validate fills in the defaults and reports all problems at once.
func (c *Config) Validate() error {
	var problems []error
	if c.Invoker == nil {
		problems = append(problems, errors.New("partition: Invoker is required"))
	}
	if c.Partitions == 0 || c.Partitions > 65_535 {
		problems = append(problems, fmt.Errorf("partition: Partitions is %d; it must be from 1 to 65535", c.Partitions))
	}
	for _, d := range []struct {
		name  string
		value *time.Duration
		or    time.Duration
	}{{"TransactionTimeout", &c.TransactionTimeout, 30 * time.Second}, {"StepTimeout", &c.StepTimeout, 10 * time.Minute}} {
		if *d.value < 0 {
			problems = append(problems, fmt.Errorf("partition: %s is %s; it must not be negative", d.name, *d.value))
		}
		if *d.value == 0 {
			*d.value = d.or
		}
	}
	if c.MaxEntryWrites <= 0 {
		c.MaxEntryWrites = 5000
	}
	if c.MaxResultBytes <= 0 {
		c.MaxResultBytes = 1 << 30
	}
	if c.MaxEntryBytes <= 0 {
		c.MaxEntryBytes = 7 << 18
	}
	if c.DeploymentOf == nil {
		own := c.Deployment
		c.DeploymentOf = func(invocation.Target, string) string { return own }
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	return errors.Join(problems...)
}

// Router takes requests to the partitions that this node leads. It implements routing.Router; its
// methods are safe for concurrent use.
type Router struct {
	config     Config
	partitions []*Partition // partition i+1
	// schedulesFire: see ReleaseSchedules.
	schedulesFire atomic.Bool

	leading struct {
		sync.Mutex
		count   int
		changed chan struct{} // closed and replaced at each change
		failed  map[uint32]error
	}
}

// NewRouter makes the partitions. attach joins each to its Raft group and returns that; it
// may call the partition's Listener methods from then on.
func NewRouter(config Config, attach func(id uint32, partition *Partition) Group) (*Router, error) {
	if err := config.Validate(); err != nil {
		return nil, err
	}
	r := &Router{}
	r.schedulesFire.Store(!config.HoldSchedules)
	config.router, config.onLead, config.onStepDown = r, func(id uint32) { r.leads(id, 1) }, func(id uint32) { r.leads(id, -1) }
	config.onFail, config.reach = r.fails, r
	if config.Elsewhere != nil {
		config.reach = config.Elsewhere
	}
	r.leading.failed = map[uint32]error{}
	r.config = config
	r.leading.changed = make(chan struct{})
	for id := uint32(1); id <= config.Partitions; id++ {
		p := &Partition{
			id: id, config: config, logger: config.Logger,
			wake: make(chan struct{}, 1), meter: config.Instruments.Partition(),
			toPartition: func(to uint32, event engine.Event) {
				switch {
				case to < 1 || to > config.Partitions:
				case config.Between != nil:
					config.Between(id, to, func() { r.toPartition(id, to, event) })
				default:
					r.toPartition(id, to, event)
				}
			},
		}
		p.waiters.channels = map[engine.Token]chan reply{}
		p.poison.invocations, p.poison.timers, p.poison.messages = map[invocation.ID]error{}, map[table.Timer]bool{}, map[uint32]uint64{}
		p.poison.commits = map[try]bool{}
		r.partitions = append(r.partitions, p)
	}
	for i, p := range r.partitions {
		p.group = attach(uint32(i)+1, p)
	}
	return r, nil
}

func (r *Router) leads(id uint32, change int) {
	r.leading.Lock()
	defer r.leading.Unlock()
	r.leading.count += change
	delete(r.leading.failed, id)
	r.changedLocked()
}

// ledElsewhere notes that another node leads a partition.
func (r *Router) ledElsewhere(id uint32) {
	r.leading.Lock()
	defer r.leading.Unlock()
	if r.leading.failed[id] != nil {
		delete(r.leading.failed, id)
		r.changedLocked()
	}
}

func (r *Router) changedLocked() {
	close(r.leading.changed)
	r.leading.changed = make(chan struct{})
}

// fails notes that a partition can't be led here. Its calls are answered with unavailable;
// the others go on.
func (r *Router) fails(id uint32, cause error) {
	r.config.Logger.Error("partition has no leader", telemetry.KeyPartition, id, telemetry.KeyError, cause)
	r.leading.Lock()
	defer r.leading.Unlock()
	r.leading.failed[id] = cause
	r.changedLocked()
}

// Failures says which partitions can't be led here, and why. One that another node leads is not
// among them.
func (r *Router) Failures() map[uint32]error {
	r.leading.Lock()
	defer r.leading.Unlock()
	return maps.Clone(r.leading.failed)
}

// Run drives all partitions until ctx ends and returns when their goroutines have.
func (r *Router) Run(ctx context.Context) error {
	var all sync.WaitGroup
	for _, p := range r.partitions {
		all.Go(func() { p.run(ctx) })
	}
	all.Wait()
	return nil
}

// Leading is how many partitions this node leads.
func (r *Router) Leading() int {
	r.leading.Lock()
	defer r.leading.Unlock()
	return r.leading.count
}

// Ready waits until every partition is led here, or known to be impossible to lead: see
// Failures. With other nodes it is internal/peer that knows when all have a leader somewhere.
func (r *Router) Ready(ctx context.Context) error {
	for {
		r.leading.Lock()
		count, failed, changed := r.leading.count, len(r.leading.failed), r.leading.changed
		r.leading.Unlock()
		if count+failed >= len(r.partitions) {
			return nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return fmt.Errorf("%d of %d partitions have a leader: %w", count, len(r.partitions), context.Cause(ctx))
		}
	}
}

func (r *Router) of(id invocation.ID) *Partition {
	return r.partitions[id.Partition(r.config.Partitions)-1]
}

func (r *Router) ofObject(o invocation.Object) *Partition {
	hash := invocation.Target{Service: o.Service, Key: o.Key}.Hash()
	return r.partitions[invocation.PartitionOf(hash, r.config.Partitions)-1]
}

func idOf(in *recordv1.Invoke) (invocation.ID, error) {
	id, ok := invocation.IDFromBytes(in.GetInvocationId())
	if !ok || in.GetTarget() == nil {
		return id, routing.Errorf(routing.CodeInternal, "request without an invocation id or a target")
	}
	return id, nil
}

// accepts refuses a request that could not be recorded.
func (r *Router) accepts(in *recordv1.Invoke) (invocation.ID, error) {
	id, err := idOf(in)
	if err == nil {
		err = r.config.record().Message(targetOf(in), "the request", in)
	}
	return id, err
}

// Call implements routing.Router.
func (r *Router) Call(ctx context.Context, in *recordv1.Invoke) (*recordv1.Result, error) {
	return r.call(ctx, in, false)
}

// CallRepeatable is Call for a request that may come more than once, also without an idempotency
// key: if there is an invocation of its id, be it one that has ended and whose retention is not
// over, it is waited for.
func (r *Router) CallRepeatable(ctx context.Context, in *recordv1.Invoke) (*recordv1.Result, error) {
	return r.call(ctx, in, true)
}

func (r *Router) call(ctx context.Context, in *recordv1.Invoke, repeatable bool) (*recordv1.Result, error) {
	id, err := r.accepts(in)
	if err != nil {
		return nil, err
	}
	answer, err := r.of(id).ask(ctx, func(token engine.Token) engine.Event {
		return &engine.Invoke{Invoke: in, Token: token, Repeatable: repeatable}
	}, id)
	return answer.resultOr(err)
}

// Send implements routing.Router.
func (r *Router) Send(ctx context.Context, in *recordv1.Invoke) (previously bool, err error) {
	return r.send(ctx, in, false)
}

// SendRepeatable is to Send what CallRepeatable is to Call.
func (r *Router) SendRepeatable(ctx context.Context, in *recordv1.Invoke) (previously bool, err error) {
	return r.send(ctx, in, true)
}

func (r *Router) send(ctx context.Context, in *recordv1.Invoke, repeatable bool) (previously bool, err error) {
	id, err := r.accepts(in)
	if err != nil {
		return false, err
	}
	answer, err := r.of(id).ask(ctx, func(token engine.Token) engine.Event {
		return &engine.Invoke{Invoke: in, Token: token, OneWay: true, Repeatable: repeatable}
	}, invocation.ID{})
	if err != nil {
		return false, err
	}
	return answer.existed, answer.refusal()
}

// Read implements routing.Router.
func (r *Router) Read(ctx context.Context, in *recordv1.Invoke) (*recordv1.Result, error) {
	if in.GetTarget() == nil {
		return nil, routing.Errorf(routing.CodeInternal, "request without a target")
	}
	return r.ofObject(invocation.Object{Service: in.Target.Service, Key: in.Target.Key}).read(ctx, in)
}

// Attach implements routing.Router.
func (r *Router) Attach(ctx context.Context, id invocation.ID) (*recordv1.Result, error) {
	answer, err := r.of(id).ask(ctx, func(token engine.Token) engine.Event {
		return &engine.Attach{ID: id, Token: token}
	}, id)
	return answer.resultOr(err)
}

// Cancel implements routing.Router.
func (r *Router) Cancel(ctx context.Context, id invocation.ID, kill bool) error {
	answer, err := r.of(id).ask(ctx, func(token engine.Token) engine.Event {
		return &engine.Cancel{ID: id, Kill: kill, Token: token}
	}, invocation.ID{})
	if err != nil {
		return err
	}
	return answer.refusal()
}

// CompleteAwakeable implements routing.Router.
func (r *Router) CompleteAwakeable(ctx context.Context, awakeableID string, result *recordv1.Result) error {
	id, err := invocation.ParseAwakeableID(awakeableID)
	if err != nil {
		return routing.Errorf(routing.CodeInvalidArgument, "%v", err)
	}
	if err := r.config.record().Message(id.Invocation, "the value of awakeable "+awakeableID, result); err != nil {
		return err
	}
	answer, err := r.of(id.Invocation).ask(ctx, func(token engine.Token) engine.Event {
		return &engine.CompleteAwakeable{ID: id, Result: result, Token: token}
	}, invocation.ID{})
	if err != nil {
		return err
	}
	return answer.refusal()
}
