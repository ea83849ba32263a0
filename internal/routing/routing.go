// Package routing is the seam between the edge, where calls arrive, and the partitions, which
// own the objects. The edge (internal/ingress, internal/admin, the in-process client) calls a
// Router; internal/partition implements it for one node, and later for a cluster.
package routing

import (
	"context"

	"github.com/perdure/perdure/internal/invocation"
	recordv1 "github.com/perdure/perdure/internal/record/v1"
)

// Router takes requests to whichever partition owns them. Its methods are safe for concurrent
// use. A handler's own failure is the Error inside a Result; a Go error (usually an *Error)
// means that the router could not do what was asked.
//
// If ctx ends while a method waits, the method returns ctx's error and what was accepted goes
// on: an invocation belongs to the cluster, not to whoever asked for it.
type Router interface {
	// Call starts an exclusive invocation, or puts a SIGNAL in its inbox, and returns the
	// result once it is durable. An invocation that has this id already is waited for instead
	// of started again. Fails with unavailable, resource_exhausted, or ctx's error.
	Call(ctx context.Context, in *recordv1.Invoke) (*recordv1.Result, error)
	// Send starts an invocation, at in.DueAt if that is set, and returns once that is
	// durable. previously: an invocation of this id existed already.
	Send(ctx context.Context, in *recordv1.Invoke) (previously bool, err error)
	// Read runs a READ handler on the last committed state.
	Read(ctx context.Context, in *recordv1.Invoke) (*recordv1.Result, error)
	// Attach waits for the end of an invocation. Fails with not_found if there is none, or
	// its retention has passed.
	Attach(ctx context.Context, id invocation.ID) (*recordv1.Result, error)
	// Cancel asks an invocation to stop, or with kill ends it where it is, and returns once
	// that is durable. An invocation that has ended is left as it is.
	Cancel(ctx context.Context, id invocation.ID, kill bool) error
	// CompleteAwakeable resolves or rejects an awakeable. The same result again changes
	// nothing; another one fails with failed_precondition.
	CompleteAwakeable(ctx context.Context, awakeableID string, result *recordv1.Result) error

	// Invocation reads all that is kept of one invocation. Fails with not_found.
	Invocation(ctx context.Context, id invocation.ID) (*InvocationDetail, error)
	// Invocations lists invocations, in the order of their ids, rows only.
	Invocations(ctx context.Context, filter Filter) ([]InvocationDetail, error)
	// State reads the committed state and tables of one object.
	State(ctx context.Context, object invocation.Object) (*ObjectState, error)
}

// InvocationDetail is what is kept of one invocation. A list has only ID and Row.
type InvocationDetail struct {
	ID  invocation.ID
	Row *recordv1.Invocation
	// Journal: entry i+1 is Journal[i].
	Journal []*recordv1.Entry
	// Completions by the index of their entry.
	Completions map[uint32]*recordv1.Completion
}

// Filter picks invocations; a zero field picks all.
type Filter struct {
	Service  string
	Key      string
	Handler  string
	Statuses []recordv1.Status
	// After is the last id of the page before.
	After invocation.ID
	// Limit of rows; 0 is the implementation's own, which is bounded.
	Limit int
}

// ObjectState is the committed data of one object.
type ObjectState struct {
	// State is the state message in binary form, if Has.
	State []byte
	Has   bool
	// Tables by name, rows in ascending order of their keys.
	Tables map[string][]TableRow
}

// TableRow is one row of an object's table.
type TableRow struct {
	Key   string
	Value []byte
}
