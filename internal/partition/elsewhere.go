package partition

import (
	"context"

	"github.com/perdure/perdure/internal/engine"
	"github.com/perdure/perdure/internal/invocation"
	recordv1 "github.com/perdure/perdure/internal/record/v1"
)

// reach is what READ handlers ask of other partitions, wherever those are led.
type reach interface {
	Read(ctx context.Context, in *recordv1.Invoke) (*recordv1.Result, error)
	CompleteAwakeable(ctx context.Context, awakeableID string, result *recordv1.Result) error
	CompletePromise(ctx context.Context, object invocation.Object, name string, result *recordv1.Result) error
}

// Elsewhere reaches the partitions that other nodes lead; internal/peer implements it. Its methods
// are safe for concurrent use. Those of reach are asked about partitions led here too.
type Elsewhere interface {
	reach
	// Post takes an event (a Deliver, an Acked or a Told) to the leader of a partition, or loses
	// it. It does not block, and keeps nothing of the event.
	Post(from, to uint32, event engine.Event)
	// Learned says who leads a partition of which this node has a replica; node is 0 if nobody does.
	// It does not block.
	Learned(partition uint32, node, term uint64)
}

// toPartition takes an event to another partition, wherever it is led, or loses it.
func (r *Router) toPartition(from, to uint32, event engine.Event) {
	if r.config.Elsewhere != nil && !r.takes(to) {
		r.config.Elsewhere.Post(from, to, event)
		return
	}
	r.partitions[to-1].postEvent(event)
}

// Leads reports whether this node leads a partition now.
func (r *Router) Leads(partition uint32) bool {
	return partition >= 1 && partition <= uint32(len(r.partitions)) && r.partitions[partition-1].leading.Load() != nil
}

// elected reports whether this node is known to be the partition's leader, which it is before it leads, and
// since which term.
func (p *Partition) elected() (term uint64, ok bool) {
	known := p.hint()
	return known.Term, p.config.Node != 0 && known.Leader == p.config.Node
}

// takes reports whether this node leads a partition, or is about to.
func (r *Router) takes(partition uint32) bool {
	if r.Leads(partition) {
		return true
	}
	_, elected := r.partitions[partition-1].elected()
	return elected
}

// Take gives a partition an event (a Deliver, an Acked or a Told) that came from another node. It
// reports false, and drops the event, if this node neither leads the partition nor is about to.
func (r *Router) Take(to uint32, event engine.Event) bool {
	if !r.takes(to) {
		return false
	}
	r.partitions[to-1].postEvent(event)
	return true
}

// Resend makes the partitions that are led here send again what a partition, which has a new
// leader, has not acknowledged, and ask it again what it has not answered. It does not block.
func (r *Router) Resend(to uint32) {
	for _, p := range r.partitions {
		if p.id != to && p.leading.Load() != nil {
			p.post(item{control: controlResend, sequence: uint64(to)})
		}
	}
}

// CompletePromise completes a promise of an object on behalf of a READ handler.
func (r *Router) CompletePromise(ctx context.Context, object invocation.Object, name string, result *recordv1.Result) error {
	if err := r.config.record().Message(object, "the value of promise "+name, result); err != nil {
		return err
	}
	answer, err := r.ofObject(object).ask(ctx, func(token engine.Token) engine.Event {
		return &engine.CompletePromise{Object: object, Name: name, Result: result, Token: token}
	}, invocation.ID{})
	if err != nil {
		return err
	}
	return answer.refusal()
}
