package inprocess

import (
	"context"

	"google.golang.org/protobuf/proto"

	"github.com/perdure/perdure/actor"
	"github.com/perdure/perdure/internal/invocation"
	recordv1 "github.com/perdure/perdure/internal/record/v1"
)

// Attach is an entry whose completion is the result of another invocation.
func (d *durable) Attach(ctx context.Context, id string) (uint32, error) {
	attach, err := d.attachEntry(id, false)
	if err != nil {
		return 0, err
	}
	index, _, err := d.pending(ctx, "Attach to ", id, attach)
	return index, err
}

// Peek is an entry whose completion says at once what was there.
func (d *durable) Peek(ctx context.Context, id string) ([]byte, bool, error) {
	attach, err := d.attachEntry(id, true)
	if err != nil {
		return nil, false, err
	}
	index, _, err := d.pending(ctx, "Peek at ", id, attach)
	if err != nil {
		return nil, false, err
	}
	if _, err := d.Wait(ctx, []uint32{index}); err != nil {
		return nil, false, err
	}
	data, err := d.Result(index)
	if err != nil {
		return nil, false, err
	}
	peeked := &recordv1.Peeked{}
	if err := proto.Unmarshal(data, peeked); err != nil {
		d.Fail(actor.Errorf(actor.DataLoss, "journal entry %d has a completion that cannot be read: %w", index, err))
	}
	if peeked.GetResult() == nil {
		return nil, false, nil
	}
	value, err := resultParts(peeked.GetResult())
	return value, true, err
}

func (d *durable) attachEntry(id string, peek bool) (*recordv1.Entry, error) {
	parsed, err := invocation.ParseID(id)
	if err != nil {
		return nil, actor.Terminal(actor.InvalidArgument, err)
	}
	if !peek {
		if parsed == d.attempt.ID {
			return nil, actor.Errorf(actor.FailedPrecondition, "Attach to %s: that is this invocation, which would wait for its own end for ever", id)
		}
		for _, held := range d.attempt.Chain {
			target := invocation.Target{Service: held.GetService(), Key: held.GetKey(), Handler: held.GetHandler()}
			if invocation.DerivedID(target, "run") == parsed {
				return nil, actor.Errorf(actor.FailedPrecondition, "Attach to %s: %s waits for this invocation, and the two would wait for each other for ever", id, target)
			}
		}
	}
	return &recordv1.Entry{Entry: &recordv1.Entry_Attach{Attach: &recordv1.Attach{InvocationId: parsed[:], Peek: peek}}}, nil
}

func (r *read) Attach(context.Context, string) (uint32, error) { return 0, r.refuse("Attach") }

func (r *read) Peek(context.Context, string) ([]byte, bool, error) {
	return nil, false, r.refuse("Peek at an invocation")
}

func (t *transaction) Attach(context.Context, string) (uint32, error) { return 0, t.refuse("Attach") }

func (t *transaction) Peek(context.Context, string) ([]byte, bool, error) {
	return nil, false, t.refuse("Peek at an invocation")
}
