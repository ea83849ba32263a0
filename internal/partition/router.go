package partition

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/perdure/perdure/internal/engine"
	"github.com/perdure/perdure/internal/invocation"
	"github.com/perdure/perdure/internal/invoker"
	recordv1 "github.com/perdure/perdure/internal/record/v1"
	"github.com/perdure/perdure/internal/routing"
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
	// CrashAtEveryEntry is for tests: each attempt is aborted after every entry and completion
	// it records, and a TRANSACTION once before it commits, as if the node had died there.
	CrashAtEveryEntry bool
	// Tracer and Instruments are nil if traces and metrics are off.
	Tracer      *telemetry.Tracer
	Instruments *telemetry.Instruments

	router     *Router
	onLead     func(partition uint32)
	onStepDown func(partition uint32)
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
	if c.MaxEntryBytes <= 0 {
		c.MaxEntryBytes = 7 << 18
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	return errors.Join(problems...)
}

// Router takes requests to the partitions of this node. It implements routing.Router; its
// methods are safe for concurrent use.
type Router struct {
	config     Config
	partitions []*Partition // partition i+1

	leading struct {
		sync.Mutex
		count   int
		changed chan struct{} // closed and replaced at each change
	}
}

// NewRouter makes the partitions. attach joins each to its Raft group and returns that; it
// may call the partition's Listener methods from then on.
func NewRouter(config Config, attach func(id uint32, partition *Partition) Group) (*Router, error) {
	if err := config.Validate(); err != nil {
		return nil, err
	}
	r := &Router{}
	config.router, config.onLead, config.onStepDown = r, func(uint32) { r.leads(1) }, func(uint32) { r.leads(-1) }
	r.config = config
	r.leading.changed = make(chan struct{})
	for id := uint32(1); id <= config.Partitions; id++ {
		p := &Partition{
			id: id, config: config, logger: config.Logger,
			wake: make(chan struct{}, 1), meter: config.Instruments.Partition(),
			toPartition: func(to uint32, event engine.Event) {
				if to >= 1 && to <= config.Partitions {
					r.partitions[to-1].postEvent(event)
				}
			},
		}
		p.waiters.channels = map[engine.Token]chan reply{}
		r.partitions = append(r.partitions, p)
	}
	for i, p := range r.partitions {
		p.group = attach(uint32(i)+1, p)
	}
	return r, nil
}

func (r *Router) leads(change int) {
	r.leading.Lock()
	defer r.leading.Unlock()
	r.leading.count += change
	close(r.leading.changed)
	r.leading.changed = make(chan struct{})
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

// Ready waits until this node leads every partition.
func (r *Router) Ready(ctx context.Context) error {
	for {
		r.leading.Lock()
		count, changed := r.leading.count, r.leading.changed
		r.leading.Unlock()
		if count == len(r.partitions) {
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

// Call implements routing.Router.
func (r *Router) Call(ctx context.Context, in *recordv1.Invoke) (*recordv1.Result, error) {
	id, err := idOf(in)
	if err != nil {
		return nil, err
	}
	answer, err := r.of(id).ask(ctx, func(token engine.Token) engine.Event {
		return &engine.Invoke{Invoke: in, Token: token}
	}, id)
	if err != nil {
		return nil, err
	}
	if err := answer.refusal(); err != nil {
		return nil, err
	}
	return answer.result, nil
}

// Send implements routing.Router.
func (r *Router) Send(ctx context.Context, in *recordv1.Invoke) (previously bool, err error) {
	id, err := idOf(in)
	if err != nil {
		return false, err
	}
	answer, err := r.of(id).ask(ctx, func(token engine.Token) engine.Event {
		return &engine.Invoke{Invoke: in, Token: token, OneWay: true}
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
	if err != nil {
		return nil, err
	}
	if err := answer.refusal(); err != nil {
		return nil, err
	}
	return answer.result, nil
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
	id, entry, err := invocation.ParseAwakeableID(awakeableID)
	if err != nil {
		return routing.Errorf(routing.CodeInvalidArgument, "%v", err)
	}
	answer, err := r.of(id).ask(ctx, func(token engine.Token) engine.Event {
		return &engine.CompleteAwakeable{ID: id, Entry: entry, Result: result, Token: token}
	}, invocation.ID{})
	if err != nil {
		return err
	}
	return answer.refusal()
}
