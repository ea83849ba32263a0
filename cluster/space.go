package cluster

import (
	"context"
	"errors"

	"github.com/perdure/perdure/internal/invocation"
	recordv1 "github.com/perdure/perdure/internal/record/v1"
	"github.com/perdure/perdure/internal/routing"
)

// noSpace refuses what would have to be written while the disk is full. Without it a call would
// wait for the disk, or hear only that its partition has no leader. It is unavailable rather
// than resource_exhausted, for callers that repeat it succeed once there is space. Which
// directory it is and how much is missing is for the node's log, not for callers.
func (e *partitions) noSpace() error {
	if e.host.NoSpace() == nil {
		return nil
	}
	return routing.Errorf(routing.CodeUnavailable,
		"this node's disk is full: it accepts no calls until space is freed; the call had no effect unless it was accepted before: call again with the same idempotency key")
}

// refuse is noSpace for what this node would have to write: what another node leads needs none here.
func (e *partitions) refuse(in *recordv1.Invoke) error {
	full := e.noSpace()
	if full == nil || e.peers == nil {
		return full
	}
	if id, ok := invocation.IDFromBytes(in.GetInvocationId()); ok && !e.local.Leads(id.Partition(e.layout.identity.Partitions)) {
		return nil
	}
	return full
}

// explain says of a call that failed because the disk is full that it did.
func (e *partitions) explain(in *recordv1.Invoke, err error) error {
	if coded, ok := errors.AsType[*routing.Error](err); ok && coded.Code == routing.CodeUnavailable {
		if full := e.refuse(in); full != nil {
			return full
		}
	}
	return err
}

// Call implements routing.Router.
func (e *partitions) Call(ctx context.Context, in *recordv1.Invoke) (*recordv1.Result, error) {
	if err := e.refuse(in); err != nil {
		return nil, err
	}
	result, err := e.Router.Call(ctx, in)
	return result, e.explain(in, err)
}

// Send implements routing.Router.
func (e *partitions) Send(ctx context.Context, in *recordv1.Invoke) (previously bool, err error) {
	if err := e.refuse(in); err != nil {
		return false, err
	}
	previously, err = e.Router.Send(ctx, in)
	return previously, e.explain(in, err)
}

// Read implements routing.Router. It needs no space, but it needs a leader, which a partition
// with a full log may not have.
func (e *partitions) Read(ctx context.Context, in *recordv1.Invoke) (*recordv1.Result, error) {
	result, err := e.Router.Read(ctx, in)
	return result, e.explain(in, err)
}
