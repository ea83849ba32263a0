package partition

import (
	"fmt"
	"testing"

	"google.golang.org/protobuf/proto"

	"github.com/perdure/perdure/internal/deployment"
	"github.com/perdure/perdure/internal/invocation"
	recordv1 "github.com/perdure/perdure/internal/record/v1"
	"github.com/perdure/perdure/internal/table"
	"github.com/perdure/perdure/storage"
	"github.com/perdure/perdure/storage/memstore"
)

// TestCensus counts rows of each kind that a census looks at.
func TestCensus(t *testing.T) {
	object := invocation.Object{Service: "a.Thing", Key: "k"}
	target := func(handler string) *recordv1.Target {
		return &recordv1.Target{Service: object.Service, Key: object.Key, Handler: handler}
	}
	invoke := func(handler string) *recordv1.Invoke { return &recordv1.Invoke{Target: target(handler)} }
	id := invocation.NewID(1, [16]byte{1})
	store := memstore.New(memstore.Options{})
	batch := &storage.Batch{}
	put := func(key []byte, row proto.Message) {
		value, err := proto.Marshal(row)
		if err != nil {
			t.Fatal(err)
		}
		batch.Put(key, append([]byte{0}, value...)) // 0: the value follows, in one piece
	}
	put(table.Invocation(id), &recordv1.Invocation{Target: target("Run"), Status: recordv1.Status_STATUS_SUSPENDED})
	batch.Put(table.ActiveKey(id), []byte{0})
	batch.Put(table.State(object), []byte{0})
	put(table.Outbox(2, 1), &recordv1.Message{Message: &recordv1.Message_Invoke{Invoke: invoke("Run")}})
	put(table.Outbox(2, 2), &recordv1.Message{Message: &recordv1.Message_Cancel{Cancel: &recordv1.Cancel{}}})
	set := &recordv1.Entry{Entry: &recordv1.Entry_SetState{SetState: &recordv1.SetState{}}}
	send := &recordv1.Entry{Entry: &recordv1.Entry_Send{Send: &recordv1.Send{Invoke: invoke("Mail")}}}
	put(table.Prepared(id, 1), &recordv1.Prepared{Objects: []*recordv1.PreparedObject{
		{Target: target("Set"), Entries: []*recordv1.Entry{set, set, send}}, {Target: target("Get"), Shared: true},
	}})
	put(table.Schedule("nightly"), &recordv1.Schedule{Name: "nightly", Invoke: invoke("Count")})
	put(table.Schedule("declared"), &recordv1.Schedule{Name: "declared", Declared: true, Invoke: invoke("Count")})
	if err := store.Commit(batch); err != nil {
		t.Fatal(err)
	}

	census := deployment.Census{}
	if err := Census(store.Snapshot(), census); err != nil {
		t.Fatal(err)
	}
	const want = "{States:true Rows:false Promises:false Signals:false InFlight:map[Mail:1 Run:2] Schedules:map[Count:1] Prepared:1}"
	if got := fmt.Sprintf("%+v", *census.Of(object.Service)); got != want || len(census) != 1 {
		t.Errorf("got %s of %d services, want\n%s", got, len(census), want)
	}
}
