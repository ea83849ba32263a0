package main

import (
	restate "github.com/restatedev/sdk-go"
)

const entryService = "ycsb.v1.EntryService"

// entryState is the only state entry of an entry.
const entryState = "entry"

type entry struct {
	Value   string `json:"value,omitempty"`
	Version int64  `json:"version"`
}

type updateRequest struct {
	Value string `json:"value"`
}

type mixRequest struct {
	Operations []struct {
		Key string `json:"key"`
		// Value is what to write. Empty: the operation is a read.
		Value string `json:"value"`
	} `json:"operations"`
}

func readEntry(ctx restate.ObjectSharedContext, _ struct{}) (entry, error) {
	return restate.Get[entry](ctx, entryState)
}

func updateEntry(ctx restate.ObjectContext, req updateRequest) (changeResponse, error) {
	old, err := restate.Get[entry](ctx, entryState)
	if err != nil {
		return changeResponse{}, err
	}
	restate.Set(ctx, entryState, entry{Value: req.Value, Version: old.Version + 1})
	return changeResponse{Change: 1}, nil
}

// mix makes all calls at once, as Perdure's does, and waits for all.
func mix(ctx restate.Context, req mixRequest) (changeResponse, error) {
	var reads []restate.ResponseFuture[entry]
	var updates []restate.ResponseFuture[changeResponse]
	for _, operation := range req.Operations {
		if operation.Value == "" {
			reads = append(reads, restate.Object[entry](ctx, entryService, operation.Key, "Read").RequestFuture(struct{}{}))
		} else {
			updates = append(updates, restate.Object[changeResponse](ctx, entryService, operation.Key, "Update").RequestFuture(updateRequest{operation.Value}))
		}
	}
	for _, call := range reads {
		if _, err := call.Response(); err != nil {
			return changeResponse{}, err
		}
	}
	for _, call := range updates {
		if _, err := call.Response(); err != nil {
			return changeResponse{}, err
		}
	}
	return changeResponse{Change: int64(len(updates))}, nil
}

// ycsb are the handlers of bench/proto/ycsb.
func ycsb() []restate.ServiceDefinition {
	return []restate.ServiceDefinition{
		restate.NewObject(entryService).
			Handler("Read", restate.NewObjectSharedHandler(readEntry)).
			Handler("Update", restate.NewObjectHandler(updateEntry)),
		restate.NewService("ycsb.v1.MixService").
			Handler("Mix", restate.NewServiceHandler(mix)),
	}
}
