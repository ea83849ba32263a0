package partition

import (
	"context"
	"errors"
	"time"

	"github.com/perdure/perdure/internal/invocation"
	"github.com/perdure/perdure/internal/invoker"
	"github.com/perdure/perdure/internal/partition/overlay"
	"github.com/perdure/perdure/internal/partition/rows"
	recordv1 "github.com/perdure/perdure/internal/record/v1"
	"github.com/perdure/perdure/internal/routing"
	"github.com/perdure/perdure/internal/table"
	"github.com/perdure/perdure/internal/telemetry"
)

// pin takes a snapshot of what is durable, if this node leads the partition.
func (p *Partition) pin() (*overlay.Snapshot, error) {
	l := p.leading.Load()
	if l == nil {
		return nil, p.elsewhere(nil)
	}
	s, err := l.view.Pin()
	if err != nil {
		return nil, p.elsewhere(err)
	}
	return s, nil
}

// pinShown takes a snapshot of what is durable once an object is not hidden. All of it is in one
// leadership: between two nothing is hidden, and a snapshot says nothing of what the next one
// has shown.
func (p *Partition) pinShown(ctx context.Context, object invocation.Object) (*overlay.Snapshot, error) {
	l := p.leading.Load()
	if l == nil {
		return nil, p.elsewhere(nil)
	}
	if err := p.barrier(ctx); err != nil {
		return nil, err
	}
	if err := p.hidden.Await(ctx, object, func() { p.post(item{control: controlHurry}) }); err != nil {
		return nil, err
	}
	// What was shown then was durable then.
	s, err := l.view.Pin()
	if err != nil {
		return nil, p.elsewhere(err)
	}
	if p.leading.Load() != l {
		s.Release()
		return nil, p.elsewhere(nil)
	}
	return s, nil
}

// read runs a READ handler on the last durable data, on the caller's goroutine.
func (p *Partition) read(ctx context.Context, in *recordv1.Invoke) (*recordv1.Result, error) {
	if _, ok := ctx.Deadline(); !ok {
		// A snapshot keeps old versions alive: nobody may hold one for ever.
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, p.config.TransactionTimeout)
		defer cancel()
	}
	target := targetOf(in)
	s, err := p.pinShown(ctx, target.Object())
	if err != nil {
		return nil, err
	}
	defer s.Release()
	read := &invoker.Read{
		Target: target, Input: in.Input, Traceparent: in.Traceparent, Headers: in.Headers,
		Tables: rows.Tables(s, target.Object()),
	}
	read.ID, _ = invocation.IDFromBytes(in.InvocationId)
	if read.State, read.HasState, err = s.Get(table.State(target.Object())); err != nil {
		return nil, routing.Errorf(routing.CodeDataLoss, "%s can't be read: %v", target.Object(), err)
	}
	read.Promise = rows.Promise(s, target.Object())
	read.Complete = func(ctx context.Context, entry *recordv1.Entry) error {
		return p.completeForRead(ctx, target, entry)
	}
	read.Call = func(ctx context.Context, invoke *recordv1.Invoke) (*recordv1.Result, error) {
		return p.config.reach.Read(ctx, invoke)
	}
	if result := p.config.Invoker.Read(ctx, read); result != nil {
		return result, nil
	}
	return nil, read.Unhosted
}

func targetOf(in *recordv1.Invoke) invocation.Target {
	return invocation.Target{Service: in.Target.GetService(), Key: in.Target.GetKey(), Handler: in.Target.GetHandler()}
}

// awaitReads waits for READ handlers to end, as long as it is worth it: one that does not heed
// its context outlives the partition.
func (p *Partition) awaitReads() {
	ended := make(chan struct{})
	go func() { p.reads.Wait(); close(ended) }()
	select {
	case <-ended:
	case <-time.After(5 * time.Second):
		p.logger.Error("READ handlers did not end within 5 s and are left behind", telemetry.KeyPartition, p.id)
	}
}

// completeForRead makes a completion of a READ handler durable.
func (p *Partition) completeForRead(ctx context.Context, target invocation.Target, entry *recordv1.Entry) error {
	switch e := entry.Entry.(type) {
	case *recordv1.Entry_CompleteAwakeable:
		return p.config.reach.CompleteAwakeable(ctx, e.CompleteAwakeable.GetAwakeableId(), e.CompleteAwakeable.GetResult())
	case *recordv1.Entry_CompletePromise:
		object := target.Object()
		if t := e.CompletePromise.GetTarget(); t != nil {
			object = invocation.Object{Service: t.GetService(), Key: t.GetKey()}
		}
		return p.config.reach.CompletePromise(ctx, object, e.CompletePromise.GetName(), e.CompletePromise.GetResult())
	}
	return routing.Errorf(routing.CodeUnimplemented, "a READ handler can't make a step of type %T", entry.Entry)
}

func codeOf(err error) uint32 {
	var coded *routing.Error
	if errors.As(err, &coded) {
		return uint32(coded.Code)
	}
	return uint32(routing.CodeUnavailable)
}
