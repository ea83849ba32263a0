package registry

import (
	"context"
	"errors"
	"fmt"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/perdure/perdure/cluster/placement"
	recordv1 "github.com/perdure/perdure/internal/record/v1"
)

// refusals are the errors that travel between nodes.
var refusals = []struct {
	wire recordv1.ClusterRefusal
	err  error
}{
	{recordv1.ClusterRefusal_CLUSTER_REFUSAL_NOT_LEADER, ErrNotLeader},
	{recordv1.ClusterRefusal_CLUSTER_REFUSAL_UNKNOWN_OUTCOME, ErrUnknownOutcome},
	{recordv1.ClusterRefusal_CLUSTER_REFUSAL_REMOVED, ErrRemoved},
	{recordv1.ClusterRefusal_CLUSTER_REFUSAL_TOO_OLD, ErrTooOld},
	{recordv1.ClusterRefusal_CLUSTER_REFUSAL_NO_SUCH_NODE, ErrNoSuchNode},
	{recordv1.ClusterRefusal_CLUSTER_REFUSAL_NO_SUCH_DEPLOYMENT, ErrNoSuchDeployment},
	{recordv1.ClusterRefusal_CLUSTER_REFUSAL_STALE, ErrStale},
	{recordv1.ClusterRefusal_CLUSTER_REFUSAL_INVALID, ErrInvalid},
}

// final: to ask again is of no use.
func final(err error) bool {
	for _, kind := range []error{ErrRemoved, ErrTooOld, ErrNoSuchNode, ErrNoSuchDeployment, ErrStale, ErrInvalid} {
		if errors.Is(err, kind) {
			return true
		}
	}
	return false
}

// Serve answers what the Client of another node asks for. request and the answer are opaque. It
// makes changes only if this node leads. An error says that request is none.
func (r *Registry) Serve(ctx context.Context, request []byte) ([]byte, error) {
	change := &recordv1.ClusterChange{}
	if err := proto.Unmarshal(request, change); err != nil {
		return nil, fmt.Errorf("registry: malformed request: %w", err)
	}
	return encodeAnswer(r.Change(ctx, change))
}

func encodeAnswer(err error) ([]byte, error) {
	answer := &recordv1.ClusterAnswer{}
	if err != nil {
		answer.Message = err.Error()
		answer.Refusal = recordv1.ClusterRefusal_CLUSTER_REFUSAL_UNKNOWN_OUTCOME
		for _, refusal := range refusals {
			if errors.Is(err, refusal.err) {
				answer.Refusal = refusal.wire
				break
			}
		}
		if other, ok := errors.AsType[*NotLeaderError](err); ok {
			answer.Leader = other.Leader
		}
	}
	return proto.Marshal(answer)
}

// refused is an error that came from another node.
type refused struct {
	kind    error
	message string
}

func (e *refused) Error() string { return e.message }
func (e *refused) Unwrap() error { return e.kind }

func decodeAnswer(data []byte) error {
	answer := &recordv1.ClusterAnswer{}
	if err := proto.Unmarshal(data, answer); err != nil {
		return fmt.Errorf("%w: malformed answer: %w", ErrUnknownOutcome, err)
	}
	switch answer.Refusal {
	case recordv1.ClusterRefusal_CLUSTER_REFUSAL_UNSPECIFIED:
		return nil
	case recordv1.ClusterRefusal_CLUSTER_REFUSAL_NOT_LEADER:
		return &NotLeaderError{Leader: answer.Leader}
	}
	for _, refusal := range refusals {
		if refusal.wire == answer.Refusal {
			return &refused{refusal.err, answer.Message}
		}
	}
	// Of a newer version, which would not refuse for nothing.
	return &refused{ErrInvalid, answer.Message}
}

// Client asks whoever leads group 0 for changes. It is safe for concurrent use.
type Client struct {
	// Registry is this node's.
	Registry *Registry
	// Call sends a request to another node's Registry.Serve, and returns its answer. All its errors
	// are tried again, since every change may be asked for twice.
	Call func(ctx context.Context, to uint64, request []byte) ([]byte, error)
}

// retryAfter is how long a Client waits before it tries again, if the view does not change first.
const retryAfter = 200 * time.Millisecond

// Change makes a change, wherever the leader is, and returns when it is made, when it is refused,
// or when ctx ends: then it is not known whether it was made, and the last failure is in the error.
func (c *Client) Change(ctx context.Context, change *recordv1.ClusterChange) error {
	request, err := proto.Marshal(change)
	if err != nil {
		return fmt.Errorf("%w: %w", ErrInvalid, err)
	}
	hint := uint64(0)
	var failure error // the last one that was not for want of time
	for {
		view, changed := c.Registry.Changed()
		self := c.Registry.config.Self.ID
		asked := view.Leader
		if hint != 0 {
			asked = hint
		}
		hint = 0
		switch {
		case view.Epoch != 0 || asked == self || asked == 0:
			err = c.Registry.Change(ctx, change)
		default:
			err = c.ask(ctx, asked, request)
		}
		if err == nil || final(err) {
			return err
		}
		if failure == nil || ctx.Err() == nil {
			failure = err
		}
		if other, ok := errors.AsType[*NotLeaderError](err); ok && other.Leader != 0 && other.Leader != asked && other.Leader != self {
			hint = other.Leader
		}
		wait := time.NewTimer(retryAfter)
		if hint != 0 && asked == view.Leader {
			wait.Reset(0) // the first hint is followed at once, a circle of them is not
		}
		select {
		case <-changed:
		case <-wait.C:
		case <-ctx.Done():
		}
		wait.Stop()
		if ctx.Err() != nil {
			return fmt.Errorf("%w: %w: %w", ErrUnknownOutcome, context.Cause(ctx), failure)
		}
	}
}

func (c *Client) ask(ctx context.Context, to uint64, request []byte) error {
	answer, err := c.Call(ctx, to, request)
	if err != nil {
		return fmt.Errorf("registry: ask node %016x: %w", to, err)
	}
	return decodeAnswer(answer)
}

// Admit is Registry.Admit, wherever the leader is.
func (c *Client) Admit(ctx context.Context, node Node) error { return c.Change(ctx, Admission(node)) }

// SetNodeState is Registry.SetNodeState, wherever the leader is.
func (c *Client) SetNodeState(ctx context.Context, id uint64, to placement.State) error {
	return c.Change(ctx, StateChange(id, to))
}

// SetSetting is Registry.SetSetting, wherever the leader is.
func (c *Client) SetSetting(ctx context.Context, name, value string) error {
	return c.Change(ctx, SettingChange(name, value))
}

// Announce makes the node's own row say what Config.Self does, and returns once this node's
// View has it, which it has at once if nothing is new. A node calls it when it starts. Errors:
// ErrRemoved, ErrTooOld, ErrInvalid, or that ctx ended.
func (c *Client) Announce(ctx context.Context) error {
	self := c.Registry.config.Self
	for {
		view, changed := c.Registry.Changed()
		row, ok := view.Node(self.ID)
		if ok && row.State == placement.Removed {
			return removed(self.ID)
		}
		if ok && says(introduction(row), introduction(self)) {
			return nil
		}
		if err := c.Admit(ctx, self); err != nil {
			return err
		}
		// It is made; the view may lag.
		select {
		case <-changed:
		case <-time.After(retryAfter):
		case <-ctx.Done():
			return fmt.Errorf("registry: the node is admitted, but its copy of the cluster's own group does not say so yet: %w", context.Cause(ctx))
		}
	}
}
