package inprocess

import (
	"context"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/perdure/perdure/actor"
	"github.com/perdure/perdure/internal/invocation"
	"github.com/perdure/perdure/internal/journal"
	recordv1 "github.com/perdure/perdure/internal/record/v1"
	"github.com/perdure/perdure/internal/telemetry"
)

// Call is an entry whose completion is the response.
func (d *durable) Call(ctx context.Context, call actor.CallRequest) (uint32, error) {
	if err := d.enter("Call ", call.Method.FullName()); err != nil {
		return 0, err
	}
	d.next() // from here on the cursor is at this step's entry
	invoke, span, err := d.request(ctx, "Call ", call)
	if err != nil {
		return 0, err
	}
	invoke.Caller = &recordv1.Caller{InvocationId: d.attempt.ID[:], Entry: d.cursor.Passed() + 1}
	invoke.Chain = d.attempt.Chain
	index, _ := d.recordPending(&recordv1.Entry{Entry: &recordv1.Entry_Call{Call: &recordv1.Call{Invoke: invoke}}}, sameRequest(call.Method), span)
	d.calls = append(d.calls, index)
	return index, nil
}

// Send is an entry that is done once recorded.
func (d *durable) Send(ctx context.Context, call actor.CallRequest) (string, error) {
	if err := checkSend(call); err != nil {
		return "", err
	}
	if err := d.enter("Send ", call.Method.FullName()); err != nil {
		return "", err
	}
	d.next()
	invoke, span, err := d.request(ctx, "Send ", call)
	if err != nil {
		return "", err
	}
	_, entry := d.record(&recordv1.Entry{Entry: &recordv1.Entry_Send{Send: &recordv1.Send{Invoke: invoke}}}, sameRequest(call.Method))
	endSpan(span, nil)
	id, ok := invocation.IDFromBytes(entry.GetSend().GetInvoke().GetInvocationId())
	if !ok {
		d.Fail(actor.Errorf(actor.DataLoss, "journal entry %d has no invocation id", d.cursor.Passed()))
	}
	return id.String(), nil
}

// request is the record of a call made by the next entry. There is no span on replay.
func (d *durable) request(ctx context.Context, verb string, call actor.CallRequest) (*recordv1.Invoke, telemetry.Span, error) {
	invoke, err := NewInvoke(call, time.UnixMilli(d.clock()), d.attempt.Flow)
	if err != nil {
		return nil, telemetry.Span{}, err
	}
	d.invoker.retain(invoke, verb == "Send ")
	id := stepID(call, d.attempt.ID, d.attempt.StartedAt, d.cursor.Passed()+1)
	invoke.InvocationId = id[:]
	if d.cursor.Replaying() {
		return invoke, telemetry.Span{}, nil
	}
	spanned, span := d.invoker.startStep(ctx, verb, call.Method.FullName())
	invoke.Traceparent = d.invoker.traceparentOf(spanned, d.attempt.Traceparent)
	return invoke, span, nil
}

// recordPending is record for an entry that has a completion later, which ends the span.
func (d *durable) recordPending(entry *recordv1.Entry, same journal.SameValue, span telemetry.Span) (uint32, *recordv1.Entry) {
	if span.Recording() { // before the entry is appended: its completion may come at once
		d.mu.Lock()
		if d.mu.spans == nil {
			d.mu.spans = make(map[uint32]telemetry.Span)
		}
		d.mu.spans[d.cursor.Passed()+1] = span
		d.mu.Unlock()
	}
	return d.record(entry, same)
}

// pending is recordPending for entries that are alike in all but their content.
func (d *durable) pending(ctx context.Context, step, name string, entry *recordv1.Entry) (uint32, *recordv1.Entry, error) {
	if err := d.enter(step, name); err != nil {
		return 0, nil, err
	}
	var span telemetry.Span
	if d.next() == nil {
		_, span = d.invoker.startStep(ctx, step, name)
	}
	index, recorded := d.recordPending(entry, nil, span)
	return index, recorded, nil
}

// Sleep is an entry that the partition's timer completes.
func (d *durable) Sleep(ctx context.Context, wait time.Duration) (uint32, time.Time, error) {
	at := d.clock()
	entry := &recordv1.Entry{At: at, Entry: &recordv1.Entry_Sleep{Sleep: &recordv1.Sleep{Until: time.UnixMilli(at).Add(max(wait, 0)).UnixMilli()}}}
	index, recorded, err := d.pending(ctx, "Sleep", "", entry)
	if err != nil {
		return 0, time.Time{}, err
	}
	return index, time.UnixMilli(recorded.GetSleep().GetUntil()), nil
}

// StopTimer is an entry of its own: a timer is a Sleep's, and may have fired.
func (d *durable) StopTimer(_ context.Context, index uint32) error {
	return d.oneWay("Stop of a timer", "", &recordv1.Entry{Entry: &recordv1.Entry_StopTimer{StopTimer: &recordv1.StopTimer{Entry: index}}})
}

func (d *durable) Awakeable(ctx context.Context) (string, uint32, error) {
	index, recorded, err := d.pending(ctx, "NewAwakeable", "", &recordv1.Entry{Entry: &recordv1.Entry_Awakeable{Awakeable: &recordv1.Awakeable{Nonce: d.attempt.Nonce}}})
	if err != nil {
		return "", 0, err
	}
	_, id, _ := originOf(d.attempt, index)
	return invocation.AwakeableID{Invocation: id, Entry: index, Nonce: recorded.GetAwakeable().GetNonce()}.String(), index, nil
}

func (d *durable) AwaitPromise(ctx context.Context, name string) (uint32, error) {
	index, _, err := d.pending(ctx, "Await of promise ", name, &recordv1.Entry{Entry: &recordv1.Entry_AwaitPromise{AwaitPromise: &recordv1.AwaitPromise{Name: name}}})
	return index, err
}

func (d *durable) Receive(ctx context.Context, name string) (uint32, error) {
	index, _, err := d.pending(ctx, "Receive of ", name, &recordv1.Entry{Entry: &recordv1.Entry_Receive{Receive: &recordv1.Receive{Name: name}}})
	return index, err
}

// PeekPromise is refused: what it saw would have to be recorded to be seen again.
func (d *durable) PeekPromise(_ context.Context, name string) ([]byte, bool, error) {
	return nil, false, actor.Errorf(actor.FailedPrecondition, "Peek of promise %s is for READ handlers; %s is %s: use Await, or Select with a timer", name, d.method.desc.FullName(), d.method.desc.Mode)
}

func (d *durable) CompletePromise(_ context.Context, name string, value []byte, failure *actor.Error) error {
	return d.oneWay("Resolve of promise ", name, completePromiseEntry(name, value, failure))
}

func (d *durable) CompleteAwakeable(_ context.Context, id string, value []byte, failure *actor.Error) error {
	entry, err := completeAwakeableEntry(id, value, failure)
	if err != nil {
		return err
	}
	return d.oneWay("ResolveAwakeable ", id, entry)
}

func (d *durable) CancelInvocation(_ context.Context, id string) error {
	entry, err := cancelEntry(id)
	if err != nil {
		return err
	}
	return d.oneWay("Cancel of ", id, entry)
}

func (d *durable) oneWay(step, name string, entry *recordv1.Entry) error {
	if err := d.enter(step, name); err != nil {
		return err
	}
	d.record(entry, nil)
	return nil
}

// sameRequest compares requests as the method's message.
func sameRequest(method *actor.MethodDesc) journal.SameValue { return sameMessage(method.NewRequest) }

// sameMessage compares what is not equal as bytes; what does not decode differs.
func sameMessage(empty func() proto.Message) journal.SameValue {
	if empty == nil {
		return nil
	}
	return func(recorded, made []byte) bool {
		was, is := empty(), empty()
		return proto.Unmarshal(recorded, was) == nil && proto.Unmarshal(made, is) == nil && proto.Equal(was, is)
	}
}
