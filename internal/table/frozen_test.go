package table

import (
	"encoding/hex"
	"flag"
	"os"
	"strings"
	"testing"

	"github.com/perdure/perdure/internal/invocation"
	recordv1 "github.com/perdure/perdure/internal/record/v1"
)

var rewrite = flag.Bool("rewrite", false, "write testdata/frozen.txt; only rows that are new may change")

func frozenID() invocation.ID {
	var id invocation.ID
	for i := range id {
		id[i] = byte(i + 1)
	}
	return id
}

// TestKeysAreFrozen compares every kind of key and value with what is on disks already.
func TestKeysAreFrozen(t *testing.T) {
	id, o := frozenID(), invocation.Object{Service: "bank.v1.Account", Key: "alice"}
	active := Active{Status: recordv1.Status_STATUS_QUEUED, Object: o, InboxSequence: 1<<33 + 5}
	rows := []struct {
		name string
		data []byte
	}{
		{"state", State(o)},
		{"state of a service", State(invocation.Object{Service: "s"})},
		{"row", Row(o, "lots", "x\x00y")},
		{"row count", RowCount(o, "lots")},
		{"invocation", Invocation(id)},
		{"active", ActiveKey(id)},
		{"journal", Journal(id, 7)},
		{"completion", Completion(id, 1<<24)},
		{"promise", Promise(o, "done")},
		{"signal", Signal(o, "poke", 1<<40)},
		{"receive", Receive(o, "poke", 3)},
		{"outbox", Outbox(9, 1<<33)},
		{"sent", Sequence(9)},
		{"delivered", Delivered(300)},
		{"timer", Timer{At: 1_700_000_000_123, Kind: TimerSleep, ID: id, Entry: 4}.Key()},
		{"timer due", Timer{At: 1, Kind: TimerDue, ID: id}.Key()},
		{"timer retry", Timer{At: 1, Kind: TimerRetry, ID: id}.Key()},
		{"timer deadline", Timer{At: 1, Kind: TimerDeadline, ID: id}.Key()},
		{"timer expire", Timer{At: 1, Kind: TimerExpire, ID: id}.Key()},
		{"timer trim", Timer{At: 1, Kind: TimerTrim, ID: id, Entry: 9}.Key()},
		{"timer schedule", Timer{At: 1, Kind: TimerSchedule, ID: id}.Key()},
		{"schedule", Schedule("bank.v1.AccountService/nightly")},
		{"schedule state", Scheduling(id)},
		{"part", Chunk(State(o), 2)},
		{"value of active", active.Append(nil)},
		{"value of active without an object", Active{Status: recordv1.Status_STATUS_RUNNING}.Append(nil)},
		{"number", AppendNumber(nil, 1<<40)},
		{"limit", Limit("bank.v1.Account/vip=alice")},
		{"permit", Permit("bank.v1.Account/vip=alice", id)},
		{"wait", Wait("bank.v1.Account/vip=alice", 101, 1<<33, 1<<40)},
		{"timer limit", Timer{At: 1, Kind: TimerLimit, ID: id}.Key()},
		{"timer wake", Timer{At: 1, Kind: TimerWake, ID: id}.Key()},
		{"tries", Tries(id, 5)},
		{"part of completion", Part(id, 5, 1<<20)},
		{"inbox", Inbox(id)},
		{"copy", CopyKey(id)},
		{"value of copy", Copy{Source: id, Through: 1 << 20, Next: 300, Part: 5}.Append(nil)},
		{"timer tell", Timer{At: 1, Kind: TimerTell, ID: id, Entry: 7}.Key()},
		{"timer inbox", Timer{At: 1, Kind: TimerInbox, ID: id}.Key()},
		{"rule", Rule("bank.v1.Account/vip=al*")},
		{"rule book", RuleBook()},
	}
	var got strings.Builder
	for _, row := range rows {
		got.WriteString(row.name + " " + hex.EncodeToString(row.data) + "\n")
	}
	const file = "testdata/frozen.txt"
	if *rewrite {
		if err := os.WriteFile(file, []byte(got.String()), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	wants := strings.Split(string(want), "\n")
	for i, line := range strings.Split(got.String(), "\n") {
		if i >= len(wants) || line != wants[i] {
			t.Errorf("row %d: data on disk would no longer be found:\n got %s\nwant %s", i, line, wants[min(i, len(wants)-1)])
		}
	}
}
