// Package balance is the loop that carries placement out: on the leader of group 0 it asks every
// node how its partitions are, has placement decide, and has the partitions' leaders do it.
//
// # Model
//
//	registry.View ─┐
//	               ├─► placement.Next ─► Steps.Take, at most Limit at once ─┐
//	Statuses.Ask ──┘          ▲                                             │
//	                          └──────── how it ended, backing off ──────────┘
//
// Nothing is kept: a new leader of group 0 asks and goes on. A former one that does not know it
// yet can do no harm, for every step names the configuration that it was computed from; before it
// begins steps it has to confirm that it still leads.
//
// A node is alive as long as it answers, silent when it has not for SilentAfter, and lost after
// Grace, counted from the last answer, or from the beginning of this leadership. Gossip has no
// say in it, except that a node that says that it is about to stop is silent from then on: else
// nodes that stop together would be given each other's leaderships.
//
// # Goroutines
//
// Run's owns everything but the report. A round has a goroutine for each node that it asks, and
// ends with them. Each step under way has one; they end with the leadership.
//
// # Failures
//
// A step that fails is tried again after a pause that doubles, to MaxPause, each time that the same
// partition fails; others go on meanwhile. The report says which steps failed and why.
package balance

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/perdure/perdure/cluster/placement"
	"github.com/perdure/perdure/cluster/registry"
	"github.com/perdure/perdure/internal/telemetry"
)

// Status is what a node knows of a partition, or of group 0.
type Status struct {
	Partition uint32
	// Leader and Term are what this node heard of last; 0: nobody leads.
	Leader, Term uint64
	// Leading is whether this node leads in Term and serves.
	Leading bool
	// Commit is the last index of the log that it knows to be committed.
	Commit uint64
	// The configuration, as of that.
	Voters, Outgoing, Learners []uint64
	// CaughtUp are the other members that have nearly everything; only while leading.
	CaughtUp []uint64
}

// Statuses asks a node how the replicas are that it has. This node may be asked too.
type Statuses interface {
	Ask(ctx context.Context, node uint64) ([]Status, error)
}

// Steps has the leader of a partition do a step: step.Leader is the node to ask. It returns when
// that is done; an error says that it was not done or that nobody knows.
type Steps interface {
	Take(ctx context.Context, step placement.Step) error
}

// Registry says what group 0 has, and whether this node leads it; *registry.Registry does.
type Registry interface {
	Changed() (*registry.View, <-chan struct{})
}

// Config is what a Balancer needs. Registry, Statuses and Steps must be set.
type Config struct {
	Registry Registry
	Statuses Statuses
	Steps    Steps
	// Confirm returns nil if this node leads group 0 at some moment after it was called. Nil: it
	// is taken for granted.
	Confirm func(ctx context.Context) error
	// Leaving reports whether a node says that it is about to stop: it is treated as silent at once.
	// Nil: none does.
	Leaving func(node uint64) bool
	// SilentAfter is after how long without an answer nothing is moved to a node or from it.
	// Defaults to 5 s.
	SilentAfter time.Duration
	// Grace is after how long without an answer a node's replicas go to others. Defaults to 5 min.
	Grace time.Duration
	// Limit is how many steps may be under way, and how many partitions may be copied, at once.
	// Defaults to 4.
	Limit int
	// Interval is the pause between two rounds while steps are under way or were lately,
	// IdleInterval otherwise. Default to 250 ms and 2 s.
	Interval, IdleInterval time.Duration
	// AskTimeout bounds the answer of one node, StepTimeout a step. Default to 2 s and 1 min.
	AskTimeout, StepTimeout time.Duration
	// MinPause and MaxPause bound how long a partition rests after a step of it failed. Default to
	// 1 s and 1 min.
	MinPause, MaxPause time.Duration
	// Logger defaults to slog.Default().
	Logger *slog.Logger
}

func (c Config) validated() (Config, error) {
	var problems []error
	if c.Registry == nil || c.Statuses == nil || c.Steps == nil {
		problems = append(problems, errors.New("Registry, Statuses or Steps is nil"))
	}
	for _, field := range []struct {
		name  string
		value *time.Duration
		none  time.Duration
	}{
		{"SilentAfter", &c.SilentAfter, 5 * time.Second},
		{"Grace", &c.Grace, 5 * time.Minute},
		{"Interval", &c.Interval, 250 * time.Millisecond},
		{"IdleInterval", &c.IdleInterval, 2 * time.Second},
		{"AskTimeout", &c.AskTimeout, 2 * time.Second},
		{"StepTimeout", &c.StepTimeout, time.Minute},
		{"MinPause", &c.MinPause, time.Second},
		{"MaxPause", &c.MaxPause, time.Minute},
	} {
		if *field.value == 0 {
			*field.value = field.none
		}
		if *field.value < 0 {
			problems = append(problems, fmt.Errorf("%s is %v, must be positive", field.name, *field.value))
		}
	}
	if c.Limit == 0 {
		c.Limit = 4
	}
	if c.Limit < 0 {
		problems = append(problems, fmt.Errorf("Limit is %d, must be positive", c.Limit))
	}
	if c.Grace < c.SilentAfter {
		problems = append(problems, fmt.Errorf("Grace is %v, must be at least SilentAfter, which is %v", c.Grace, c.SilentAfter))
	}
	if c.Logger == nil {
		c.Logger = slog.Default()
	}
	if err := errors.Join(problems...); err != nil {
		return c, fmt.Errorf("balance: configuration: %w", err)
	}
	return c, nil
}

// Balancer is the loop of one node. It is safe for concurrent use.
type Balancer struct {
	config Config

	mu struct {
		sync.Mutex
		report Report
	}
}

// New makes a balancer. All that is wrong with config is in the error.
func New(config Config) (*Balancer, error) {
	config, err := config.validated()
	if err != nil {
		return nil, err
	}
	return &Balancer{config: config}, nil
}

// Run balances whenever this node leads group 0, until ctx ends. It runs once.
func (b *Balancer) Run(ctx context.Context) error {
	for {
		view, changed := b.config.Registry.Changed()
		if view.Epoch != 0 {
			b.lead(ctx, view.Epoch)
			b.forget()
			if ctx.Err() != nil {
				return nil
			}
			continue
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return nil
		}
	}
}

// leadership is what is known in one epoch of group 0.
type leadership struct {
	*Balancer
	epoch    uint64
	began    time.Time
	view     *registry.View
	nodes    map[uint64]*nodeState
	known    map[uint32]placement.Partition // as seen last
	underway map[uint32]*attempt
	resting  map[uint32]*rest
	results  chan result
	lastStep time.Time // when one began or ended
	steps    sync.WaitGroup
}

// watchFor is how long after a step a round comes every Interval: the next one often follows from
// what nodes say soon.
const watchFor = 10 * time.Second

// nodeState is what is known of whether a node works.
type nodeState struct {
	answered time.Time // last; zero: never in this epoch
	statuses []Status
	failure  error // of the last time it was asked
}

// attempt is a step under way.
type attempt struct {
	step  placement.Step
	began time.Time
}

// rest is the pause of a partition whose steps fail.
type rest struct {
	until time.Time
	pause time.Duration
	why   error
}

type result struct {
	partition uint32
	err       error
}

// lead balances until the epoch or ctx ends, and all steps with it.
func (b *Balancer) lead(ctx context.Context, epoch uint64) {
	ctx, cancel := context.WithCancel(ctx)
	l := &leadership{
		Balancer: b, epoch: epoch, began: time.Now(), nodes: map[uint64]*nodeState{}, known: map[uint32]placement.Partition{},
		underway: map[uint32]*attempt{}, resting: map[uint32]*rest{}, results: make(chan result, b.config.Limit),
	}
	defer l.steps.Wait()
	defer cancel()
	for {
		view, changed := b.config.Registry.Changed()
		if view.Epoch != epoch || ctx.Err() != nil {
			return
		}
		l.view = view
		plan, err := l.round(ctx)
		if ctx.Err() != nil {
			return
		}
		l.publish(plan, err)
		pause := b.config.IdleInterval
		if len(l.underway) > 0 || time.Since(l.lastStep) < watchFor {
			pause = b.config.Interval
		}
		timer := time.NewTimer(pause)
		select {
		case <-timer.C:
		case <-changed:
		case r := <-l.results:
			l.ended(r)
		case <-ctx.Done():
		}
		timer.Stop()
	}
}

// round asks, decides and begins steps.
func (l *leadership) round(ctx context.Context) (placement.Plan, error) {
	// A step that ends while nodes are asked counts as under way: what they say may be of before.
	for len(l.results) > 0 {
		l.ended(<-l.results)
	}
	l.ask(ctx)
	in := l.input()
	plan := placement.Next(in)
	if len(plan.Steps) == 0 || ctx.Err() != nil {
		return plan, nil
	}
	if l.config.Confirm != nil {
		asking, cancel := context.WithTimeout(ctx, l.config.AskTimeout)
		err := l.config.Confirm(asking)
		cancel()
		if err != nil {
			return plan, fmt.Errorf("steps wait until it is certain that this node leads the cluster's own group: %w", err)
		}
	}
	for _, step := range plan.Steps {
		l.begin(ctx, step)
	}
	return plan, nil
}

// ask asks all nodes at once, without those that are gone and have nothing.
func (l *leadership) ask(ctx context.Context) {
	holders := map[uint64]bool{}
	for _, p := range l.known {
		for _, id := range slices.Concat(p.Voters, p.Learners, p.Outgoing) {
			holders[id] = true
		}
	}
	type answer struct {
		node     uint64
		statuses []Status
		err      error
	}
	answers := make(chan answer)
	asked := 0
	ctx, cancel := context.WithTimeout(ctx, l.config.AskTimeout)
	defer cancel()
	for _, node := range l.view.Nodes {
		if node.State == placement.Removed && !holders[node.ID] {
			continue
		}
		asked++
		go func() {
			statuses, err := l.config.Statuses.Ask(ctx, node.ID)
			answers <- answer{node.ID, statuses, err}
		}()
	}
	for range asked {
		a := <-answers
		n := l.nodes[a.node]
		if n == nil {
			n = &nodeState{}
			l.nodes[a.node] = n
		}
		if n.failure = a.err; a.err == nil {
			n.answered, n.statuses = time.Now(), a.statuses
		}
	}
}

// health is what the answers of a node, or their absence, say of it.
func (l *leadership) health(id uint64) placement.Health {
	n := l.nodes[id]
	last := l.began
	if n != nil && !n.answered.IsZero() {
		last = n.answered
	}
	switch since := time.Since(last); {
	case since > l.config.Grace:
		return placement.Lost
	case l.config.Leaving != nil && l.config.Leaving(id):
		return placement.Silent // it hands over what it leads, and must be given nothing meanwhile
	case since > l.config.SilentAfter || n == nil || n.answered.IsZero():
		return placement.Silent
	}
	return placement.Alive
}

func (l *leadership) input() placement.Input {
	in := placement.Input{Replicas: l.view.Settings.ReplicationFactor, Limit: l.config.Limit}
	var statuses []said
	for _, node := range l.view.Nodes {
		in.Nodes = append(in.Nodes, placement.Node{ID: node.ID, State: node.State, Health: l.health(node.ID), Zone: node.Zone})
		if n := l.nodes[node.ID]; n != nil {
			for _, s := range n.statuses {
				s.Leading = s.Leading && n.failure == nil // of before: perhaps not any more
				statuses = append(statuses, said{node.ID, s})
			}
		}
	}
	merge(l.known, statuses)
	now := time.Now()
	for id := range l.view.Settings.Partitions + 1 {
		p, ok := l.known[id]
		if !ok {
			continue // nobody has said a word of it
		}
		if a := l.underway[id]; a != nil {
			p.Underway = &a.step
		} else if r := l.resting[id]; r != nil && now.Before(r.until) {
			p.Held = fmt.Sprintf("its last step failed, the next is tried in %s: %s", r.until.Sub(now).Round(time.Second), r.why)
		}
		in.Partitions = append(in.Partitions, p)
	}
	return in
}

// said is a status with who said it.
type said struct {
	node uint64
	Status
}

// merge makes of what nodes say what partitions are. The leader of the highest term is believed;
// without one, the configuration of whoever knows most.
func merge(known map[uint32]placement.Partition, statuses []said) {
	best := map[uint32]said{}
	for _, s := range statuses {
		b, ok := best[s.Partition]
		better := !ok
		switch {
		case ok && s.Leading != b.Leading:
			// A leader that another term has begun without is none any more, and says so soon.
			better = s.Leading
		case ok && s.Leading:
			better = s.Term > b.Term
		case ok:
			better = s.Commit > b.Commit
		}
		if better {
			best[s.Partition] = s
		}
	}
	for id, s := range best {
		p := placement.Partition{ID: id, Voters: s.Voters, Outgoing: s.Outgoing, Learners: s.Learners, CaughtUp: map[uint64]bool{}}
		if s.Leading {
			p.Leader = s.node
			for _, node := range s.CaughtUp {
				p.CaughtUp[node] = true
			}
		}
		known[id] = p
	}
	for id, p := range known {
		if _, ok := best[id]; !ok {
			p.Leader = 0
			known[id] = p
		}
	}
}

// begin takes a step in a goroutine of its own.
func (l *leadership) begin(ctx context.Context, step placement.Step) {
	l.lastStep = time.Now()
	l.underway[step.Partition] = &attempt{step, l.lastStep}
	l.config.Logger.Info("placement: "+step.String(), telemetry.KeyPartition, step.Partition, telemetry.KeyReason, step.Reason)
	l.steps.Go(func() {
		ctx, cancel := context.WithTimeout(ctx, l.config.StepTimeout)
		defer cancel()
		err := l.config.Steps.Take(ctx, step)
		l.results <- result{step.Partition, err} // which has room for all
	})
}

// ended notes how a step ended.
func (l *leadership) ended(r result) {
	a := l.underway[r.partition]
	delete(l.underway, r.partition)
	l.lastStep = time.Now()
	if r.err == nil {
		delete(l.resting, r.partition)
	} else {
		old := l.resting[r.partition]
		next := &rest{pause: l.config.MinPause, why: r.err}
		if old != nil {
			next.pause = min(2*old.pause, l.config.MaxPause)
		}
		next.until = time.Now().Add(next.pause)
		l.resting[r.partition] = next
		l.config.Logger.Warn("placement: a step failed", telemetry.KeyPartition, r.partition, telemetry.KeyReason, a.step.Reason, telemetry.KeyError, r.err)
	}
	l.record(Done{Step: a.step, EndedAt: time.Now(), Took: time.Since(a.began), Err: r.err})
}

// sortedUnderway are the steps under way, by partition.
func (l *leadership) sortedUnderway() (out []Underway) {
	for _, id := range slices.Sorted(maps.Keys(l.underway)) {
		out = append(out, Underway{l.underway[id].step, l.underway[id].began})
	}
	return out
}
