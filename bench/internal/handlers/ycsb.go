package handlers

import (
	"github.com/perdure/perdure/actor"
	ycsbv1 "github.com/perdure/perdure/bench/gen/ycsb/v1"
	"github.com/perdure/perdure/bench/gen/ycsb/v1/ycsbv1perdure"
)

type entry struct{}

func (entry) Read(ctx ycsbv1perdure.EntryReadContext, _ *ycsbv1.ReadRequest) (*ycsbv1.ReadResponse, error) {
	state := ctx.State().Get()
	return &ycsbv1.ReadResponse{Value: state.GetValue(), Version: state.GetVersion()}, nil
}

func (entry) Update(ctx ycsbv1perdure.EntryTxContext, req *ycsbv1.UpdateRequest) (*ycsbv1.UpdateResponse, error) {
	version := ctx.State().Get().GetVersion() + 1
	ctx.State().Set(&ycsbv1.EntryState{Value: req.GetValue(), Version: version})
	return &ycsbv1.UpdateResponse{Change: 1}, nil
}

type mix struct{}

func (mix) Mix(ctx actor.Context, req *ycsbv1.MixRequest) (*ycsbv1.MixResponse, error) {
	var reads []actor.Future[*ycsbv1.ReadResponse]
	var updates []actor.Future[*ycsbv1.UpdateResponse]
	for _, operation := range req.GetOperations() {
		entry := ycsbv1perdure.Entry(ctx, operation.GetKey())
		if operation.GetValue() == "" {
			reads = append(reads, entry.ReadAsync(ctx, &ycsbv1.ReadRequest{}))
		} else {
			updates = append(updates, entry.UpdateAsync(ctx, &ycsbv1.UpdateRequest{Value: operation.GetValue()}))
		}
	}
	if _, err := actor.All(ctx, reads...); err != nil {
		return nil, err
	}
	updated, err := actor.All(ctx, updates...)
	return &ycsbv1.MixResponse{Change: int64(len(updated))}, err
}
