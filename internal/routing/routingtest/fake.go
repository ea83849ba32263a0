// Package routingtest has a Router in memory for tests of what stands in front of one.
package routingtest

import (
	"context"
	"sync"

	"google.golang.org/protobuf/proto"

	"github.com/perdure/perdure/internal/invocation"
	recordv1 "github.com/perdure/perdure/internal/record/v1"
	"github.com/perdure/perdure/internal/routing"
)

// Fake is a routing.Router that runs Handle once per invocation id and remembers everything.
// It keeps nothing of what a partition guarantees but that one id has one result. It is safe
// for concurrent use.
type Fake struct {
	// Handle is the handler of all services. It must be safe for concurrent use. Nil: every
	// response is empty.
	Handle func(in *recordv1.Invoke) *recordv1.Result
	// Fail, if not nil, is asked before Call, Send and Read.
	Fail func(ctx context.Context, in *recordv1.Invoke) error
	// Forget keeps no record of invocations, for measurements.
	Forget bool

	mu struct {
		sync.Mutex
		invocations map[invocation.ID]*run
		calls       []*recordv1.Invoke
		cancelled   []invocation.ID
		awakeables  map[string]*recordv1.Result
	}
}

type run struct {
	in     *recordv1.Invoke
	result *recordv1.Result
	done   chan struct{}
}

var _ routing.Router = (*Fake)(nil)

// Calls are the requests that came, in order.
func (f *Fake) Calls() []*recordv1.Invoke {
	f.mu.Lock()
	defer f.mu.Unlock()
	return append([]*recordv1.Invoke(nil), f.mu.calls...)
}

// Cancelled are the invocations that were cancelled.
func (f *Fake) Cancelled() []invocation.ID {
	f.mu.Lock()
	defer f.mu.Unlock()
	return append([]invocation.ID(nil), f.mu.cancelled...)
}

// Awakeable is what an awakeable was completed with, nil if it was not.
func (f *Fake) Awakeable(id string) *recordv1.Result {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.mu.awakeables[id]
}

func (f *Fake) handle(in *recordv1.Invoke) *recordv1.Result {
	if f.Handle == nil {
		return &recordv1.Result{}
	}
	return f.Handle(in)
}

func (f *Fake) begin(ctx context.Context, in *recordv1.Invoke) (r *run, previously bool, err error) {
	if f.Fail != nil {
		if err := f.Fail(ctx, in); err != nil {
			return nil, false, err
		}
	}
	id, ok := invocation.IDFromBytes(in.GetInvocationId())
	if !ok {
		return nil, false, routing.Errorf(routing.CodeInternal, "the invocation id has %d bytes", len(in.GetInvocationId()))
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.mu.calls = append(f.mu.calls, in)
	if known := f.mu.invocations[id]; known != nil {
		if string(known.in.Input) != string(in.Input) {
			return nil, false, routing.Errorf(routing.CodeAlreadyExists, "the key was used for another request")
		}
		return known, true, nil
	}
	if f.mu.invocations == nil {
		f.mu.invocations = map[invocation.ID]*run{}
	}
	r = &run{in: in, done: make(chan struct{})}
	f.mu.invocations[id] = r
	go func() {
		r.result = f.handle(in)
		close(r.done)
	}()
	return r, false, nil
}

func (r *run) wait(ctx context.Context) (*recordv1.Result, error) {
	select {
	case <-r.done:
		return r.result, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// Call implements routing.Router.
func (f *Fake) Call(ctx context.Context, in *recordv1.Invoke) (*recordv1.Result, error) {
	if f.Forget {
		return f.handle(in), nil
	}
	r, _, err := f.begin(ctx, in)
	if err != nil {
		return nil, err
	}
	return r.wait(ctx)
}

// Send implements routing.Router.
func (f *Fake) Send(ctx context.Context, in *recordv1.Invoke) (bool, error) {
	_, previously, err := f.begin(ctx, in)
	return previously, err
}

// Read implements routing.Router.
func (f *Fake) Read(ctx context.Context, in *recordv1.Invoke) (*recordv1.Result, error) {
	if f.Fail != nil {
		if err := f.Fail(ctx, in); err != nil {
			return nil, err
		}
	}
	f.mu.Lock()
	f.mu.calls = append(f.mu.calls, in)
	f.mu.Unlock()
	return f.handle(in), nil
}

func (f *Fake) find(id invocation.ID) (*run, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if r := f.mu.invocations[id]; r != nil {
		return r, nil
	}
	return nil, routing.Errorf(routing.CodeNotFound, "no invocation %s: it never existed, or its retention is over", id)
}

// Attach implements routing.Router.
func (f *Fake) Attach(ctx context.Context, id invocation.ID) (*recordv1.Result, error) {
	r, err := f.find(id)
	if err != nil {
		return nil, err
	}
	return r.wait(ctx)
}

// Cancel implements routing.Router; it is only remembered.
func (f *Fake) Cancel(_ context.Context, id invocation.ID, _ bool) error {
	if _, err := f.find(id); err != nil {
		return err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.mu.cancelled = append(f.mu.cancelled, id)
	return nil
}

// Pause implements routing.Router; it does nothing.
func (f *Fake) Pause(_ context.Context, id invocation.ID) error { return f.known(id) }

// Resume implements routing.Router; it does nothing.
func (f *Fake) Resume(_ context.Context, id invocation.ID, _ string) error { return f.known(id) }

// Purge implements routing.Router; it does nothing.
func (f *Fake) Purge(_ context.Context, id invocation.ID) error { return f.known(id) }

// RestartAsNew implements routing.Router; it returns the same id.
func (f *Fake) RestartAsNew(_ context.Context, id invocation.ID, _ uint32, _ string) (invocation.ID, error) {
	return id, f.known(id)
}

func (f *Fake) known(id invocation.ID) error {
	_, err := f.find(id)
	return err
}

// CompleteAwakeable implements routing.Router.
func (f *Fake) CompleteAwakeable(_ context.Context, id string, result *recordv1.Result) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if before := f.mu.awakeables[id]; before != nil && !proto.Equal(before, result) {
		return routing.Errorf(routing.CodeFailedPrecondition, "awakeable %s was completed with something else", id)
	}
	if f.mu.awakeables == nil {
		f.mu.awakeables = map[string]*recordv1.Result{}
	}
	f.mu.awakeables[id] = result
	return nil
}

// Invocation implements routing.Router.
func (f *Fake) Invocation(_ context.Context, id invocation.ID) (*routing.InvocationDetail, error) {
	r, err := f.find(id)
	if err != nil {
		return nil, err
	}
	return &routing.InvocationDetail{ID: id, Row: &recordv1.Invocation{Target: r.in.Target, Mode: r.in.Mode}}, nil
}

// Journal implements routing.Router; journals are empty.
func (f *Fake) Journal(ctx context.Context, id invocation.ID, _ uint32, _ int) (*routing.InvocationDetail, error) {
	return f.Invocation(ctx, id)
}

// InvocationsPage implements routing.Router; it lists nothing.
func (f *Fake) InvocationsPage(context.Context, routing.Filter) (*routing.InvocationsPage, error) {
	return &routing.InvocationsPage{}, nil
}

// StatePage implements routing.Router; there is none.
func (f *Fake) StatePage(context.Context, routing.StateQuery) (*routing.ObjectState, error) {
	return &routing.ObjectState{}, nil
}

// Limits implements routing.Router.
func (f *Fake) Limits(context.Context, routing.LimitQuery) ([]routing.Limit, error) {
	return nil, nil
}

// Transactions implements routing.Router.
func (f *Fake) Transactions(context.Context) ([]routing.Transaction, error) { return nil, nil }

// ChangeSchedule implements routing.Router; there are none.
func (f *Fake) ChangeSchedule(ctx context.Context, name string, _ *recordv1.ScheduleChange) (*recordv1.ScheduleReply, error) {
	return f.Schedule(ctx, name)
}

// Schedule implements routing.Router; there are none.
func (f *Fake) Schedule(_ context.Context, name string) (*recordv1.ScheduleReply, error) {
	return nil, routing.Errorf(routing.CodeNotFound, "no schedule is called %q", name)
}

// SchedulesPage implements routing.Router; there are none.
func (f *Fake) SchedulesPage(context.Context, routing.ScheduleQuery) (*routing.SchedulesPage, error) {
	return &routing.SchedulesPage{}, nil
}

// ChangeRules implements routing.Router; there are no limits to have rules for.
func (f *Fake) ChangeRules(context.Context, *recordv1.Rules) (*recordv1.RulesReply, error) {
	return nil, routing.Errorf(routing.CodeUnimplemented, "there are no rules here")
}

// AwaitRules implements routing.Router.
func (f *Fake) AwaitRules(context.Context) error { return nil }

// RulesPage implements routing.Router; there are none.
func (f *Fake) RulesPage(context.Context, routing.RuleQuery) (*recordv1.RulesReply, error) {
	return &recordv1.RulesReply{}, nil
}
