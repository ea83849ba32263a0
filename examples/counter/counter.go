// Command counter is the smallest thing that works: one object, one number.
package main

import (
	counterv1 "github.com/perdure/perdure/examples/counter/gen/counter/v1"
	counter "github.com/perdure/perdure/examples/counter/gen/counter/v1/counterv1perdure"
)

// Counter implements counter.CounterHandler. One value serves every counter there is, so it
// holds no numbers: those are in each object's state.
type Counter struct{}

// Add is a TRANSACTION, the default: what it sets is committed with its response, or never.
func (Counter) Add(ctx counter.CounterTxContext, req *counterv1.AddRequest) (*counterv1.AddResponse, error) {
	state := ctx.State().Get()
	state.Value += req.Amount
	ctx.State().Set(state)
	return &counterv1.AddResponse{Value: state.Value}, nil
}

// Get is a READ: any number run at once, on the last committed state.
func (Counter) Get(ctx counter.CounterReadContext, _ *counterv1.GetRequest) (*counterv1.GetResponse, error) {
	return &counterv1.GetResponse{Value: ctx.State().Get().Value}, nil
}
