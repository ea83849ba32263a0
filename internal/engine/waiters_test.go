package engine

import (
	"encoding/binary"
	"strings"
	"testing"

	"github.com/perdure/perdure/internal/invocation"
	recordv1 "github.com/perdure/perdure/internal/record/v1"
	"github.com/perdure/perdure/internal/table"
)

// TestRequestsThatWaitForOneInvocation: those who join a running invocation wait for its result, and
// no more than so many: the next hears what to do instead, and there is room again for each that leaves.
func TestRequestsThatWaitForOneInvocation(t *testing.T) {
	id := invocation.NewID(0, [16]byte{1})
	view := mapView{}
	e := New(Config{Partition: 1, Partitions: 2}, view, 1)
	request := func(caller *recordv1.Caller) *recordv1.Invoke {
		return &recordv1.Invoke{
			InvocationId: id[:], Target: &recordv1.Target{Service: "Svc", Key: "k", Handler: "H"}, Mode: uint32(invocation.ModeDurable),
			IdempotencyKey: "once", Input: []byte("in"), RetentionMs: 1000, Caller: caller,
		}
	}
	now := int64(1)
	evaluate := func(event Event) []Effect {
		t.Helper()
		out, err := e.Evaluate(event, now)
		if err != nil {
			t.Fatal(err)
		}
		applyTo(view, out)
		return out.Effects
	}
	caller := func(number uint64) *recordv1.Caller {
		// Of the other partition, so that its answer is a message.
		from := invocation.NewID(1, [16]byte(binary.BigEndian.AppendUint64(make([]byte, 8), number)))
		if from.Partition(2) != 2 {
			t.Fatalf("%s is in partition %d, want 2", from, from.Partition(2))
		}
		return &recordv1.Caller{InvocationId: from[:], Entry: 1}
	}
	refused := func(result *recordv1.Result) {
		t.Helper()
		if result.GetError().GetCode() != codeResourceExhausted {
			t.Fatalf("one too many got %v, want resource_exhausted", result)
		}
		for _, part := range []string{"Svc/k/H has 5000 requests", "the most there may be", "call again with the same idempotency key", id.String()} {
			if !strings.Contains(result.Error.Message, part) {
				t.Errorf("one too many heard %q, which lacks %q", result.Error.Message, part)
			}
		}
		if len(result.Error.Details) == 0 {
			t.Error("one too many was not told when to try again")
		}
	}
	replies := func(effects []Effect) (all []*Reply) {
		for _, effect := range effects {
			if r, ok := effect.(*Reply); ok {
				all = append(all, r)
			}
		}
		return all
	}

	for token := Token(1); token <= maxWaiters; token++ {
		if got := replies(evaluate(&Invoke{Invoke: request(nil), Token: token})); len(got) != 0 {
			t.Fatalf("request %d was answered: %v", token, got[0])
		}
	}
	for _, event := range []Event{&Invoke{Invoke: request(nil), Token: maxWaiters + 1}, &Attach{ID: id, Token: maxWaiters + 1}} {
		got := replies(evaluate(event))
		if len(got) != 1 || got[0].Token != maxWaiters+1 || !got[0].Refused {
			t.Fatalf("one too many, %T, got %v, want a refusal", event, got)
		}
		refused(got[0].Result)
	}
	evaluate(&Hangup{ID: id, Token: 7})
	if got := replies(evaluate(&Invoke{Invoke: request(nil), Token: maxWaiters + 2})); len(got) != 0 {
		t.Fatalf("there was room for one more, and it was answered: %v", got[0].Result)
	}

	// Handlers are in the invocation's row: all but one by hand, which is written anew with each.
	row := e.live[id].row
	for number := range uint64(maxWaiters - 1) {
		row.Waiters = append(row.Waiters, caller(number))
	}
	sent := func(effects []Effect) (all []*recordv1.Complete) {
		for _, effect := range effects {
			if m, ok := effect.(*SendMessage); ok && m.To == 2 {
				all = append(all, m.Message.GetComplete())
			}
		}
		return all
	}
	for _, number := range []uint64{maxWaiters, maxWaiters, 3} { // The message comes twice; one of the others comes again.
		if got := sent(evaluate(&Invoke{Invoke: request(caller(number))})); len(got) != 0 {
			t.Fatalf("handler %d was answered: %v", number, got[0])
		}
	}
	got := sent(evaluate(&Invoke{Invoke: request(caller(maxWaiters + 1))}))
	if len(got) != 1 {
		t.Fatalf("one handler too many got %d answers, want 1", len(got))
	}
	refused(got[0].Completion.Result)

	effects := evaluate(&Finish{ID: id, Attempt: 1, Result: &recordv1.Result{Value: []byte("out")}})
	if got, want := len(replies(effects)), maxWaiters; got != want {
		t.Errorf("%d requests were answered in the end, want %d", got, want)
	}
	// Not all at once, which would be more rows than a record takes.
	told, records := len(sent(effects)), 1
	for told < maxWaiters && records < 10 {
		at := now + tellEvery
		now = at
		effects = evaluate(&Fire{Timer: table.Timer{At: at, Kind: table.TimerTell, ID: id}})
		told += len(sent(effects))
		records++
	}
	if told != maxWaiters || records != 2 {
		t.Errorf("%d handlers were answered in the end, in %d records, want %d in 2", told, records, maxWaiters)
	}
	if len(e.waiters) != 0 {
		t.Errorf("%d invocations are still waited for", len(e.waiters))
	}
}
