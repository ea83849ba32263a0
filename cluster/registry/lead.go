package registry

import (
	"context"
	"errors"
	"fmt"

	"google.golang.org/protobuf/proto"

	"github.com/perdure/perdure/cluster/placement"
	"github.com/perdure/perdure/cluster/replica"
	"github.com/perdure/perdure/cluster/transport"
	recordv1 "github.com/perdure/perdure/internal/record/v1"
	"github.com/perdure/perdure/internal/telemetry"
)

// news is what the host said.
type news struct {
	kind            newsKind
	epoch, sequence uint64
	leader          uint64
	cause           error
}

type newsKind uint8

const (
	newsLead newsKind = iota
	newsStepDown
	newsCommitted
	newsLeader
)

func (r *Registry) tell(n news) {
	in := &r.intake
	in.Lock()
	// A host that is faster than Run only says the newest.
	if last := len(in.news) - 1; n.kind == newsCommitted && last >= 0 && in.news[last].kind == newsCommitted && in.news[last].epoch == n.epoch {
		in.news[last] = n
	} else {
		in.news = append(in.news, n)
	}
	in.Unlock()
	r.signal()
}

func (r *Registry) signal() {
	select {
	case r.intake.wake <- struct{}{}:
	default:
	}
}

// Lead implements replica.Listener.
func (r *Registry) Lead(epoch uint64) { r.tell(news{kind: newsLead, epoch: epoch}) }

// StepDown implements replica.Listener.
func (r *Registry) StepDown(epoch uint64, cause error) {
	r.tell(news{kind: newsStepDown, epoch: epoch, cause: cause})
}

// Committed implements replica.Listener.
func (r *Registry) Committed(epoch, sequence uint64) {
	r.tell(news{kind: newsCommitted, epoch: epoch, sequence: sequence})
}

// Applied implements replica.Listener.
func (r *Registry) Applied(uint64, uint64) {
	r.intake.Lock()
	r.intake.applied = true
	r.intake.Unlock()
	r.signal()
}

// LeaderChanged implements replica.Listener.
func (r *Registry) LeaderChanged(leader, _ uint64) { r.tell(news{kind: newsLeader, leader: leader}) }

// leadership is what a leader knows beyond the store.
type leadership struct {
	epoch, sequence uint64 // of the last record proposed
	rows            state  // with all that was proposed
	// pending wait for a record to be committed, ascending.
	pending []answer
	// over: the group takes no more, and StepDown comes.
	over bool
	// waiting could not be proposed and are evaluated again.
	waiting []*request
}

// answer is what a caller is told once a record is committed.
type answer struct {
	request  *request
	sequence uint64
	rows     state // as of that record
	err      error
}

// request is one change that somebody waits for.
type request struct {
	change func(*state, int64) error
	done   chan error // has room for one; nil: nobody waits
}

func (q *request) answer(err error) {
	if q.done != nil {
		q.done <- err
	}
}

func (r *Registry) take(n news) {
	l := r.lead
	switch n.kind {
	case newsLeader:
		r.leader = n.leader
	case newsLead:
		r.resign(errors.New("another leadership began"))
		r.leader = r.config.Self.ID
		r.reload() // everything before is in the store
		if r.Health() != nil {
			return // Its changes would be evaluated against anything.
		}
		r.lead = &leadership{epoch: n.epoch, rows: r.rows}
		r.serve(&request{change: r.introduce})
	case newsStepDown:
		if l != nil && l.epoch == n.epoch {
			if r.leader == r.config.Self.ID {
				r.leader = 0
			}
			r.resign(n.cause)
		}
	case newsCommitted:
		if l == nil || l.epoch != n.epoch {
			return
		}
		done := 0
		for done < len(l.pending) && l.pending[done].sequence <= n.sequence {
			done++
		}
		if done == 0 {
			return
		}
		// Who is answered finds in the View what he asked for, be it not applied yet.
		r.know(l.pending[done-1].rows)
		r.publish()
		for _, a := range l.pending[:done] {
			a.request.answer(a.err)
		}
		l.pending = l.pending[done:]
	}
}

// resign ends a leadership, if there is one.
func (r *Registry) resign(cause error) {
	l := r.lead
	if l == nil {
		return
	}
	r.lead = nil
	for _, a := range l.pending {
		a.request.answer(fmt.Errorf("%w: %w", ErrUnknownOutcome, cause))
	}
	for _, q := range l.waiting {
		q.answer(r.notLeader())
	}
}

func (r *Registry) notLeader() error {
	leader := r.leader
	if leader == r.config.Self.ID {
		leader = 0 // elected, and does not lead yet
		if err := r.Health(); err != nil {
			return fmt.Errorf("%w: %w", &NotLeaderError{}, err)
		}
	}
	return &NotLeaderError{Leader: leader}
}

// introduce writes what a new leader finds missing: the settings, and its own row.
func (r *Registry) introduce(s *state, now int64) error {
	if s.settings == nil {
		s.settings = founding(r.config, now)
	}
	self := introduction(r.config.Self)
	if row := s.nodes[self.Id]; row.GetState() == recordv1.NodeState_NODE_STATE_REMOVED || says(row, self) {
		s.raise()
		return nil
	}
	return s.change(&recordv1.ClusterChange{Change: &recordv1.ClusterChange_Admit{Admit: self}}, now)
}

// serve evaluates a change and proposes what it comes to. Whatever the answer is, it waits for
// the records that it was evaluated on.
func (r *Registry) serve(q *request) {
	l := r.lead
	if l == nil || l.over {
		q.answer(r.notLeader())
		return
	}
	if len(l.waiting) > 0 {
		l.waiting = append(l.waiting, q) // in the order of asking
		return
	}
	next := l.rows.clone()
	err := q.change(&next, r.config.Now().UnixMilli())
	var payload []byte
	if err == nil {
		if payload, err = record(l.rows, next); err == nil && payload != nil {
			next.settings = proto.CloneOf(next.settings)
			next.settings.Version++
			payload, err = record(l.rows, next)
		}
	}
	if err == nil && payload != nil {
		switch err = r.group.Propose(l.epoch, l.sequence+1, payload); {
		case err == nil:
			l.sequence++
			next.parts = nil
			l.rows = next
		case errors.Is(err, replica.ErrBacklog):
			l.waiting = append(l.waiting, q)
			return
		case errors.Is(err, replica.ErrNotLeader):
			l.over = true
			q.answer(r.notLeader())
			return
		default:
			r.config.Logger.Error("the cluster's own group took no record", telemetry.KeyEpoch, l.epoch, telemetry.KeyError, err)
		}
	}
	if last := len(l.pending) - 1; payload != nil && err == nil || last >= 0 {
		l.pending = append(l.pending, answer{q, l.sequence, l.rows, err})
		return
	}
	q.answer(err)
}

// Change makes a change, if this node leads, and returns once it is on the disks of a majority;
// then this node's View has it. Errors: *NotLeaderError, ErrUnknownOutcome and that
// of ctx, after which the change may be made or not; or what is wrong with it. Most callers want a
// Client, which finds the leader.
func (r *Registry) Change(ctx context.Context, c *recordv1.ClusterChange) error {
	q := &request{change: func(s *state, now int64) error { return s.change(c, now) }, done: make(chan error, 1)}
	in := &r.intake
	in.Lock()
	if in.ended {
		in.Unlock()
		return &NotLeaderError{}
	}
	in.requests = append(in.requests, q)
	in.Unlock()
	r.signal()
	select {
	case err := <-q.done:
		return err
	case <-ctx.Done():
		return fmt.Errorf("%w: %w", ErrUnknownOutcome, context.Cause(ctx))
	}
}

// Admit adds a node, or brings its addresses, zone and version up to date. Errors are those of
// Change, and ErrRemoved, ErrTooOld, ErrInvalid.
func (r *Registry) Admit(ctx context.Context, node Node) error { return r.Change(ctx, Admission(node)) }

// SetNodeState says what the operator wants of a node. Removed is for ever. Errors are those of
// Change, and ErrNoSuchNode, ErrRemoved, ErrInvalid.
func (r *Registry) SetNodeState(ctx context.Context, id uint64, to placement.State) error {
	return r.Change(ctx, StateChange(id, to))
}

// Recall notes what a node's log had: see package recall. Errors are those of Change, and ErrNoSuchNode,
// ErrInvalid.
func (r *Registry) Recall(ctx context.Context, id uint64, said transport.LogClaim) error {
	return r.Change(ctx, &recordv1.ClusterChange{Change: &recordv1.ClusterChange_Recall_{
		Recall: &recordv1.ClusterChange_Recall{Node: id, Process: said.Process, Opened: said.Opened, Frames: said.Durable},
	}})
}

// SetSetting sets one of SettingNames. Errors are those of Change, and ErrInvalid.
func (r *Registry) SetSetting(ctx context.Context, name, value string) error {
	return r.Change(ctx, SettingChange(name, value))
}

// Admission is the change of Admit.
func Admission(node Node) *recordv1.ClusterChange {
	if node.FeatureLevel == 0 {
		node.FeatureLevel = FeatureLevel
	}
	return &recordv1.ClusterChange{Change: &recordv1.ClusterChange_Admit{Admit: introduction(node)}}
}

// StateChange is the change of SetNodeState.
func StateChange(id uint64, to placement.State) *recordv1.ClusterChange {
	return &recordv1.ClusterChange{Change: &recordv1.ClusterChange_State{State: &recordv1.ClusterChange_SetState{Node: id, State: recorded(to)}}}
}

// SettingChange is the change of SetSetting.
func SettingChange(name, value string) *recordv1.ClusterChange {
	return &recordv1.ClusterChange{Change: &recordv1.ClusterChange_Setting{Setting: &recordv1.ClusterChange_SetSetting{Name: name, Value: value}}}
}
