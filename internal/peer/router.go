package peer

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/perdure/perdure/internal/invocation"
	"github.com/perdure/perdure/internal/partition"
	peerv1 "github.com/perdure/perdure/internal/peer/v1"
	recordv1 "github.com/perdure/perdure/internal/record/v1"
	"github.com/perdure/perdure/internal/routing"
	"github.com/perdure/perdure/internal/schedule"
)

// Config of a Router.
type Config struct {
	// Node is this node's id. Required with a Network.
	Node uint64
	// Partitions is how many there are in the cluster, numbered from 1. Required.
	Partitions uint32
	// Network reaches other nodes. nil: there are none, and the Router is the local one.
	Network Network
	// Leaders is what is known of who leads, which the Router adds to. Defaults to a new one.
	Leaders *Leaders
	// MaxBytes bounds one request to another node. Defaults to 80 MiB, which is more than any
	// message of users with what goes with it.
	MaxBytes int
	// Patience is how long a partition may have no leader before requests to it fail. Defaults to
	// 3 s.
	Patience time.Duration
}

// Validate fills in the defaults and reports all problems at once.
func (c *Config) Validate() error {
	var problems []error
	if c.Partitions == 0 || c.Partitions > 65_535 {
		problems = append(problems, fmt.Errorf("peer: Partitions is %d; it must be from 1 to 65535", c.Partitions))
	}
	if c.Node == 0 && c.Network != nil {
		problems = append(problems, errors.New("peer: Node is 0; with a Network it must be this node's id"))
	}
	if c.MaxBytes < 0 || c.Patience < 0 {
		problems = append(problems, fmt.Errorf("peer: MaxBytes is %d and Patience is %s; neither may be negative", c.MaxBytes, c.Patience))
	}
	if c.MaxBytes == 0 {
		c.MaxBytes = 80 << 20
	}
	if c.Patience == 0 {
		c.Patience = 3 * time.Second
	}
	if c.Leaders == nil && len(problems) == 0 {
		c.Leaders = NewLeaders(c.Partitions)
	}
	return errors.Join(problems...)
}

// Router takes requests to the partitions of the whole cluster. It implements routing.Router and
// partition.Elsewhere; its methods are safe for concurrent use. Which requests it makes again, and
// when, is in the package's comment; what makes that safe is in the comment of each method.
type Router struct {
	node       uint64
	partitions uint32
	network    Network
	leaders    *Leaders
	maxBytes   int
	patience   time.Duration
	own        atomic.Pointer[partition.Router] // set once, by New
}

var (
	_ routing.Router      = (*Router)(nil)
	_ partition.Elsewhere = (*Router)(nil)
)

// New makes a Router around the local one that open returns, which must be one with elsewhere as
// its Config.Elsewhere (nil if there is no Network) and with the same Node and Partitions.
func New(config Config, open func(elsewhere partition.Elsewhere) (*partition.Router, error)) (*Router, error) {
	if err := config.Validate(); err != nil {
		return nil, err
	}
	r := &Router{
		node: config.Node, partitions: config.Partitions, network: config.Network, leaders: config.Leaders,
		maxBytes: config.MaxBytes, patience: config.Patience,
	}
	var elsewhere partition.Elsewhere
	if config.Network != nil {
		elsewhere = r
	}
	local, err := open(elsewhere)
	if err != nil {
		return nil, err
	}
	r.own.Store(local)
	// What is not acknowledged goes to the new leader at once rather than when its time is over.
	r.leaders.OnChange(func(partition uint32, node, _ uint64) {
		if node != 0 {
			local.Resend(partition)
		}
	})
	return r, nil
}

// local is the router of the partitions led here; nil only while New opens it.
func (r *Router) local() *partition.Router { return r.own.Load() }

// Connected makes the partitions that are led here send again at once what those led by another node have not acknowledged, and
// ask again what they have not answered: the connection to it is a new one, and what an earlier one lost nobody has. It does not block.
func (r *Router) Connected(node uint64) {
	for id := uint32(1); id <= r.partitions; id++ {
		if leads, _ := r.leaders.Leader(id); leads == node {
			r.local().Resend(id)
		}
	}
}

// Leaders is what is known of who leads.
func (r *Router) Leaders() *Leaders { return r.leaders }

// Leaderless are the partitions that no node is known to lead, and that are not known to be
// impossible to lead here: see partition.Router.Failures.
func (r *Router) Leaderless() []uint32 {
	failures := r.local().Failures()
	var without []uint32
	for id := uint32(1); id <= r.partitions; id++ {
		node, _ := r.leaders.Leader(id)
		if failures[id] == nil && !r.local().Leads(id) && (node == 0 || node == r.node) {
			without = append(without, id)
		}
	}
	return without
}

// Ready waits until every partition has a leader somewhere, or is known to be impossible to lead.
func (r *Router) Ready(ctx context.Context) error {
	if r.network == nil {
		return r.local().Ready(ctx)
	}
	// The local partitions don't say when they begin to lead; leaders are told of before that.
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		changed := r.leaders.AnyChanged()
		without := r.Leaderless()
		if len(without) == 0 {
			return nil
		}
		select {
		case <-changed:
		case <-tick.C:
		case <-ctx.Done():
			return fmt.Errorf("%s without a leader: %w", routing.PartitionNames(without), context.Cause(ctx))
		}
	}
}

// Learned implements partition.Elsewhere.
func (r *Router) Learned(partition uint32, node, term uint64) {
	if node == 0 {
		r.leaders.Lost(partition, term)
		return
	}
	r.leaders.Learned(partition, node, term)
}

// here reports whether a partition's requests go to the local router, be it for it to say why it
// can't take them.
func (r *Router) here(partition uint32) bool {
	return r.network == nil || r.local().Leads(partition)
}

func (r *Router) of(id invocation.ID) uint32 { return id.Partition(r.partitions) }

func (r *Router) ofObject(o invocation.Object) uint32 {
	return invocation.PartitionOf(invocation.Target{Service: o.Service, Key: o.Key}.Hash(), r.partitions)
}

// repeatable reports whether two of a request are as good as one, if the first was made so long
// ago: then the second finds the first one's invocation, which is kept for its retention from when
// it ends, and so at least from when it was asked for. Half of that is for clocks that run
// differently. A TRANSACTION without a key, which is not kept, and a SIGNAL without one never are.
func repeatable(in *recordv1.Invoke, since time.Duration) bool {
	mode := invocation.Mode(in.GetMode())
	retention := time.Duration(in.GetRetentionMs()) * time.Millisecond
	if mode == invocation.ModeRun && retention <= 0 {
		retention = time.Hour // of the day that the engine gives it
	}
	if mode == invocation.ModeSignal && in.GetIdempotencyKey() == "" {
		return false
	}
	return retention > 0 && since < retention/2 || bugAgain
}

// named reports whether a request's caller can make it again under the same name.
func named(in *recordv1.Invoke) bool {
	return in.GetIdempotencyKey() != "" || invocation.Mode(in.GetMode()) == invocation.ModeRun
}

// Call implements routing.Router.
//
// It may be made again as long as its invocation is kept: see repeatable. The engine looks for the
// id of every request that came from another node and may come again, with an idempotency key or
// without, and waits for that invocation instead of starting one; which a TRANSACTION that was
// lost with its leader before it committed does not have, so it runs then, and only then. What has
// no retention (a TRANSACTION or SIGNAL without a key) is not made again once it may have been
// accepted.
func (r *Router) Call(ctx context.Context, in *recordv1.Invoke) (*recordv1.Result, error) {
	id, ok := invocation.IDFromBytes(in.GetInvocationId())
	if !ok || r.here(r.of(id)) {
		began := time.Now()
		result, err := r.local().Call(ctx, in)
		if !ok || !r.lost(err) {
			return result, err
		}
		return r.call(ctx, r.of(id), in, began, err)
	}
	return r.call(ctx, r.of(id), in, time.Time{}, nil)
}

func (r *Router) call(ctx context.Context, partition uint32, in *recordv1.Invoke, began time.Time, failed error) (*recordv1.Result, error) {
	return reach(ctx, r, asking[*recordv1.Result]{
		partition: partition, began: began, failed: failed, settles: named(in),
		local: func(ctx context.Context) (*recordv1.Result, error) {
			// What the engine was given before is the engine's.
			return r.local().CallRepeatable(ctx, proto.CloneOf(in))
		},
		request: func() *peerv1.Request {
			return &peerv1.Request{Ask: &peerv1.Request_Call{Call: &peerv1.Start{Invoke: in, Repeatable: repeatable(in, 0)}}}
		},
		answer:     resultOf,
		repeatable: ifRepeatable(in),
	})
}

func ifRepeatable(in *recordv1.Invoke) func(time.Duration) bool {
	if !repeatable(in, 0) {
		return nil
	}
	return func(since time.Duration) bool { return repeatable(in, since) }
}

// Send implements routing.Router. It may be made again when Call may. previously may then be true
// of a request with an idempotency key because of its own first try.
func (r *Router) Send(ctx context.Context, in *recordv1.Invoke) (previously bool, err error) {
	id, ok := invocation.IDFromBytes(in.GetInvocationId())
	if !ok || r.here(r.of(id)) {
		began := time.Now()
		previously, err := r.local().Send(ctx, in)
		if !ok || !r.lost(err) {
			return previously, err
		}
		return r.send(ctx, r.of(id), in, began, err)
	}
	return r.send(ctx, r.of(id), in, time.Time{}, nil)
}

func (r *Router) send(ctx context.Context, partition uint32, in *recordv1.Invoke, began time.Time, failed error) (bool, error) {
	previously, err := reach(ctx, r, asking[bool]{
		partition: partition, began: began, failed: failed, settles: named(in),
		local: func(ctx context.Context) (bool, error) {
			return r.local().SendRepeatable(ctx, proto.CloneOf(in))
		},
		request: func() *peerv1.Request {
			return &peerv1.Request{Ask: &peerv1.Request_Send{Send: &peerv1.Start{Invoke: in, Repeatable: repeatable(in, 0)}}}
		},
		answer: func(answer *peerv1.Answer) (bool, bool) {
			sent := answer.GetSent()
			return sent.GetPreviously(), sent != nil
		},
		repeatable: ifRepeatable(in),
	})
	return previously && named(in), err // Nobody else has the id of one without a key.
}

// Read implements routing.Router. It changes nothing, so it may always be made again. What a READ
// handler completes it may complete twice: with the same result the second changes nothing, and
// with another one, having read something else by then, it is refused.
func (r *Router) Read(ctx context.Context, in *recordv1.Invoke) (*recordv1.Result, error) {
	partition := r.ofObject(invocation.Object{Service: in.GetTarget().GetService(), Key: in.GetTarget().GetKey()})
	var failed error
	if r.here(partition) {
		result, err := r.local().Read(ctx, in)
		if !r.lost(err) {
			return result, err
		}
		failed = err
	}
	return reach(ctx, r, asking[*recordv1.Result]{
		partition: partition, failed: failed, began: time.Now(), repeatable: always, settles: true,
		local:   func(ctx context.Context) (*recordv1.Result, error) { return r.local().Read(ctx, in) },
		request: func() *peerv1.Request { return &peerv1.Request{Ask: &peerv1.Request_Read{Read: in}} },
		answer:  resultOf,
	})
}

// Attach implements routing.Router. It changes nothing, so it may always be made again; it waits
// wherever the partition is led by then.
func (r *Router) Attach(ctx context.Context, id invocation.ID) (*recordv1.Result, error) {
	of := r.of(id)
	if r.here(of) {
		result, err := r.local().Attach(ctx, id)
		if !r.lost(err) {
			return result, err
		}
	}
	return r.attach(ctx, of, id)
}

func (r *Router) attach(ctx context.Context, of uint32, id invocation.ID) (*recordv1.Result, error) {
	return simply(ctx, r, of, reading, func(ctx context.Context, local *partition.Router) (*recordv1.Result, error) {
		return local.Attach(ctx, id)
	}, &peerv1.Request{Ask: &peerv1.Request_Attach{Attach: idOf(id)}}, resultOf)
}

// Cancel implements routing.Router. Twice is as good as once: an invocation that has ended is left
// as it is. That it is not found, the second time, says nothing of the first.
func (r *Router) Cancel(ctx context.Context, id invocation.ID, kill bool) error {
	return r.done(ctx, r.of(id), twice, func(ctx context.Context, local *partition.Router) error {
		return local.Cancel(ctx, id, kill)
	}, &peerv1.Request{Ask: &peerv1.Request_Cancel{Cancel: &peerv1.Cancel{Id: id[:], Kill: kill}}})
}

// Pause implements routing.Router. It is not made again once it may have been accepted: somebody
// may have resumed the invocation since.
func (r *Router) Pause(ctx context.Context, id invocation.ID) error {
	return r.done(ctx, r.of(id), once, func(ctx context.Context, local *partition.Router) error {
		return local.Pause(ctx, id)
	}, &peerv1.Request{Ask: &peerv1.Request_Pause{Pause: idOf(id)}})
}

// Resume implements routing.Router. It is not made again once it may have been accepted: somebody
// may have paused the invocation since.
func (r *Router) Resume(ctx context.Context, id invocation.ID, deployment string) error {
	ask := &peerv1.Request{Ask: &peerv1.Request_Resume{Resume: idOf(id)}}
	if deployment != "" { // A leader that knows nothing of it says so, and does not resume on another one.
		ask.Ask = &peerv1.Request_ResumeOn{ResumeOn: &peerv1.ResumeOn{Id: id[:], Deployment: deployment}}
	}
	return r.done(ctx, r.of(id), once, func(ctx context.Context, local *partition.Router) error {
		return local.Resume(ctx, id, deployment)
	}, ask)
}

// Purge implements routing.Router. It is not made again once it may have been accepted: another
// invocation may have its id since, that of an idempotency key.
func (r *Router) Purge(ctx context.Context, id invocation.ID) error {
	return r.done(ctx, r.of(id), once, func(ctx context.Context, local *partition.Router) error {
		return local.Purge(ctx, id)
	}, &peerv1.Request{Ask: &peerv1.Request_Purge{Purge: idOf(id)}})
}

// RestartAsNew implements routing.Router. It is not made again once it may have been accepted: its
// caller does that, with the same requestID.
func (r *Router) RestartAsNew(ctx context.Context, id invocation.ID, from uint32, requestID string) (invocation.ID, error) {
	return simply(ctx, r, r.of(id), once, func(ctx context.Context, local *partition.Router) (invocation.ID, error) {
		return local.RestartAsNew(ctx, id, from, requestID)
	}, &peerv1.Request{Ask: &peerv1.Request_Restart{Restart: &peerv1.Restart{Id: id[:], From: from, RequestId: requestID}}},
		func(answer *peerv1.Answer) (invocation.ID, bool) {
			return invocation.IDFromBytes(answer.GetRenewed().GetId())
		})
}

// CompleteAwakeable implements routing.Router. Twice is as good as once: the same result again
// changes nothing. That it is refused, the second time, says nothing of the first.
func (r *Router) CompleteAwakeable(ctx context.Context, awakeableID string, result *recordv1.Result) error {
	id, err := invocation.ParseAwakeableID(awakeableID)
	if err != nil {
		return r.local().CompleteAwakeable(ctx, awakeableID, result) // which says what is wrong
	}
	return r.done(ctx, r.of(id.Invocation), twice, func(ctx context.Context, local *partition.Router) error {
		return local.CompleteAwakeable(ctx, awakeableID, result)
	}, &peerv1.Request{Ask: &peerv1.Request_CompleteAwakeable{
		CompleteAwakeable: &recordv1.CompleteAwakeable{AwakeableId: awakeableID, Result: result},
	}})
}

// CompletePromise implements partition.Elsewhere. It is made again like CompleteAwakeable.
func (r *Router) CompletePromise(ctx context.Context, object invocation.Object, name string, result *recordv1.Result) error {
	return r.done(ctx, r.ofObject(object), twice, func(ctx context.Context, local *partition.Router) error {
		return local.CompletePromise(ctx, object, name, result)
	}, &peerv1.Request{Ask: &peerv1.Request_CompletePromise{CompletePromise: &recordv1.CompletePromise{
		Name: name, Result: result, Target: &recordv1.Target{Service: object.Service, Key: object.Key},
	}}})
}

// Invocation implements routing.Router.
func (r *Router) Invocation(ctx context.Context, id invocation.ID) (*routing.InvocationDetail, error) {
	return r.Journal(ctx, id, 0, routing.MaxPage)
}

// Journal implements routing.Router. It only reads, and may always be made again.
func (r *Router) Journal(ctx context.Context, id invocation.ID, after uint32, limit int) (*routing.InvocationDetail, error) {
	return simply(ctx, r, r.of(id), reading, func(ctx context.Context, local *partition.Router) (*routing.InvocationDetail, error) {
		return local.Journal(ctx, id, after, limit)
	}, &peerv1.Request{Ask: &peerv1.Request_Journal{Journal: &peerv1.JournalQuery{Id: id[:], After: after, Limit: pageSize(limit)}}},
		func(answer *peerv1.Answer) (*routing.InvocationDetail, bool) {
			return journalFrom(id, answer.GetJournal()), answer.GetJournal() != nil
		})
}

// StatePage implements routing.Router. It only reads, and may always be made again.
func (r *Router) StatePage(ctx context.Context, query routing.StateQuery) (*routing.ObjectState, error) {
	return simply(ctx, r, r.ofObject(query.Object), reading, func(ctx context.Context, local *partition.Router) (*routing.ObjectState, error) {
		return local.StatePage(ctx, query)
	}, &peerv1.Request{Ask: &peerv1.Request_State{State: &peerv1.StateQuery{
		Service: query.Object.Service, Key: query.Object.Key, Table: query.Table, From: []byte(query.From), Limit: pageSize(query.Limit),
	}}}, func(answer *peerv1.Answer) (*routing.ObjectState, bool) {
		return stateFrom(answer.GetState()), answer.GetState() != nil
	})
}

// ChangeSchedule implements routing.Router. It is not made again once it may have been accepted: a
// trigger would fire twice.
func (r *Router) ChangeSchedule(ctx context.Context, name string, change *recordv1.ScheduleChange) (*recordv1.ScheduleReply, error) {
	return simply(ctx, r, r.of(schedule.ID(name)), once, func(ctx context.Context, local *partition.Router) (*recordv1.ScheduleReply, error) {
		return local.ChangeSchedule(ctx, name, change)
	}, &peerv1.Request{Ask: &peerv1.Request_ChangeSchedule{ChangeSchedule: &peerv1.ChangeSchedule{Name: name, Change: change}}}, scheduleOf)
}

// Schedule implements routing.Router. It only reads, and may always be made again.
func (r *Router) Schedule(ctx context.Context, name string) (*recordv1.ScheduleReply, error) {
	return simply(ctx, r, r.of(schedule.ID(name)), reading, func(ctx context.Context, local *partition.Router) (*recordv1.ScheduleReply, error) {
		return local.Schedule(ctx, name)
	}, &peerv1.Request{Ask: &peerv1.Request_Schedule{Schedule: &peerv1.ScheduleName{Name: name}}}, scheduleOf)
}

// again is whether a request is made again that may have been accepted.
type again struct {
	often   func(since time.Duration) bool
	settles bool
}

func always(time.Duration) bool { return true }

var (
	once    = again{}
	twice   = again{often: always}
	reading = again{often: always, settles: true}
)

// simply asks the local partition, or whoever leads.
func simply[T any](ctx context.Context, r *Router, of uint32, how again,
	local func(context.Context, *partition.Router) (T, error), request *peerv1.Request, answer func(*peerv1.Answer) (T, bool)) (T, error) {
	var failed error
	if r.here(of) {
		result, err := local(ctx, r.local())
		if !r.lost(err) {
			return result, err
		}
		failed = err
	}
	return reach(ctx, r, asking[T]{
		partition: of, failed: failed, began: time.Now(), repeatable: how.often, settles: how.settles,
		local:   func(ctx context.Context) (T, error) { return local(ctx, r.local()) },
		request: func() *peerv1.Request { return request },
		answer:  answer,
	})
}

// done is simply for what has no answer.
func (r *Router) done(ctx context.Context, of uint32, how again, local func(context.Context, *partition.Router) error, request *peerv1.Request) error {
	_, err := simply(ctx, r, of, how, func(ctx context.Context, to *partition.Router) (struct{}, error) {
		return struct{}{}, local(ctx, to)
	}, request, func(answer *peerv1.Answer) (struct{}, bool) { return struct{}{}, answer.GetDone() != nil })
	return err
}
