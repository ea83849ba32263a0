package peer

import (
	"context"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/perdure/perdure/internal/invocation"
	peerv1 "github.com/perdure/perdure/internal/peer/v1"
	recordv1 "github.com/perdure/perdure/internal/record/v1"
)

func seed(f *testing.F, messages ...proto.Message) {
	for _, message := range messages {
		data, err := proto.Marshal(message)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(data)
		f.Add(data[:len(data)/2])
	}
}

// FuzzFrame: no frame costs more than itself. What the engine makes of a message with nonsense in
// it is its own tests' business: here it is that the server takes or refuses it.
func FuzzFrame(f *testing.F) {
	root := invocation.NewID(1, [16]byte{1})
	name := &recordv1.TransactionID{Root: root[:], Sequence: 1<<32 | 1}
	seed(f,
		&peerv1.Frame{From: 2, To: 1, Event: &peerv1.Frame_Deliver{Deliver: &peerv1.Deliver{Sequence: 1, Message: &recordv1.Message{Message: &recordv1.Message_Invoke{Invoke: deposit("a", "", 1)}}}}},
		&peerv1.Frame{From: 2, To: 1, Event: &peerv1.Frame_Acked{Acked: 5}},
		&peerv1.Frame{From: 2, To: 1, Event: &peerv1.Frame_Told{Told: &recordv1.Peer{Id: name, Message: &recordv1.Peer_Inquire{Inquire: &recordv1.Inquire{From: 2}}}}},
		&peerv1.Frame{From: 2, To: 2, Event: &peerv1.Frame_Acked{Acked: 5}},
		&peerv1.Frame{From: 2, To: 1},
		&peerv1.Frame{Event: &peerv1.Frame_Elsewhere{Elsewhere: &peerv1.Elsewhere{Partition: 1, Leader: 2, Term: 1}}},
	)
	w := newWorld(f, 2, 2, 1)
	near := w.at(1, true)
	f.Fuzz(func(t *testing.T, data []byte) {
		if err := near.server.Frame(2, data); err != nil {
			return
		}
		frame := &peerv1.Frame{}
		if err := proto.Unmarshal(data, frame); err != nil {
			t.Fatal("it was taken, and can't be read: ", err)
		}
		if frame.GetElsewhere() == nil && (frame.Event == nil || frame.From == frame.To || frame.To < 1 || frame.To > 2) {
			t.Errorf("it was taken: %v", frame)
		}
	})
}

// FuzzRequest: whatever another node asks, it is answered.
func FuzzRequest(f *testing.F) {
	id := invocation.NewID(0, [16]byte{1})
	seed(f,
		&peerv1.Request{Ask: &peerv1.Request_Call{Call: &peerv1.Start{Invoke: deposit("a", "k", 1), Repeatable: true}}},
		&peerv1.Request{Ask: &peerv1.Request_Send{Send: &peerv1.Start{}}},
		&peerv1.Request{Ask: &peerv1.Request_Read{Read: &recordv1.Invoke{}}},
		&peerv1.Request{Ask: &peerv1.Request_Attach{Attach: idOf(id)}},
		&peerv1.Request{Ask: &peerv1.Request_Cancel{Cancel: &peerv1.Cancel{Id: id[:], Kill: true}}},
		&peerv1.Request{Ask: &peerv1.Request_CompletePromise{CompletePromise: &recordv1.CompletePromise{}}},
		&peerv1.Request{Ask: &peerv1.Request_ChangeSchedule{ChangeSchedule: &peerv1.ChangeSchedule{Name: "s"}}},
		&peerv1.Request{Ask: &peerv1.Request_Journal{Journal: &peerv1.JournalQuery{Id: id[:], Limit: -1}}},
		&peerv1.Request{Ask: &peerv1.Request_State{State: &peerv1.StateQuery{Table: "t", From: []byte{0xff}}}},
		&peerv1.Request{Partitions: []uint32{1, 9}, Ask: &peerv1.Request_Invocations{Invocations: &peerv1.InvocationsQuery{After: id[:]}}},
		&peerv1.Request{Partitions: []uint32{1}, Ask: &peerv1.Request_Limits{Limits: &peerv1.LimitsQuery{}}},
		&peerv1.Request{Partitions: []uint32{}, Ask: &peerv1.Request_Transactions{Transactions: &peerv1.TransactionsQuery{}}},
		&peerv1.Request{TimeoutMs: -1}, &peerv1.Request{TimeoutMs: 1 << 62},
	)
	w := newWorld(f, 2, 2, 1)
	near := w.at(1, true)
	f.Fuzz(func(t *testing.T, data []byte) {
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
		defer cancel()
		within, stop := context.WithTimeout(ctx, 20*time.Millisecond)
		defer stop()
		answer, err := near.server.Call(within, 2, data)
		if ctx.Err() != nil {
			t.Fatal("no answer in 5 s")
		}
		if err != nil {
			return
		}
		got := &peerv1.Answer{}
		if err := proto.Unmarshal(answer, got); err != nil || got.Answer == nil {
			t.Errorf("the answer is %v, %v", got, err)
		}
	})
}
