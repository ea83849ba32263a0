package table

import (
	"bytes"
	"errors"
	"testing"

	"github.com/perdure/perdure/internal/invocation"
	recordv1 "github.com/perdure/perdure/internal/record/v1"
)

// FuzzParse reads arbitrary bytes as every kind of key and value. What parses must be what this
// package makes of the result.
func FuzzParse(f *testing.F) {
	id := invocation.NewID(7, [16]byte{1})
	object := invocation.Object{Service: "bank.v1.AccountService", Key: "alice"}
	large := State(object)
	for _, key := range [][]byte{
		State(object), Row(object, "ledger", "r1"), RowCount(object, "ledger"), Invocation(id), ActiveKey(id), Journal(id, 3),
		Completion(id, 3), Promise(object, "p"), Signal(object, "s", 1<<40), Receive(object, "s", 2), Outbox(3, 4), Sequence(3),
		Delivered(3), Chunk(large, 2), Chunk(Chunk(large, 2), 3), Timer{At: 1 << 40, Kind: TimerSleep, ID: id, Entry: 9}.Key(), {},
		{tableRow, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1}, bytes.Repeat([]byte{tableChunk}, 100),
		Active{Status: recordv1.Status_STATUS_QUEUED, Object: object, InboxSequence: 1 << 50}.Append(nil),
		{1, 0, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1}, AppendNumber(nil, 1<<63),
		Limit("a.v1.S/x=y"), Permit("a.v1.S/x=y", id), Wait("a.v1.S/x=y", 101, 7, 1<<40), Copy{Source: id, Through: 1 << 30, Next: 5}.Append(nil),
		Rule("a.v1.S/x=y*"), RuleBook(),
	} {
		f.Add(key)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		if Describe(data) == "" {
			t.Errorf("Describe(%x) says nothing", data)
		}
		parsed := func(what string, again []byte, err error) {
			if err != nil {
				if !errors.Is(err, ErrMalformedKey) {
					t.Errorf("%s of %x: %v", what, data, err)
				}
			} else if !bytes.Equal(again, data) {
				t.Errorf("%s of %x is %x made again", what, data, again)
			}
		}
		timer, err := ParseTimer(data)
		parsed("ParseTimer", timer.Key(), err)
		if id, err := ParseID(data); err == nil && !bytes.Equal(Invocation(id)[1:], data[1:]) {
			t.Errorf("ParseID of %x is %s", data, id)
		}
		if _, err := ParseEntry(data); err == nil && len(data) != len(Journal(id, 1)) {
			t.Errorf("ParseEntry takes %x", data)
		}
		if partition, sequence, err := ParseOutbox(data); err == nil && !bytes.Equal(Outbox(partition, sequence)[1:], data[1:]) {
			t.Errorf("ParseOutbox of %x is %d, %d", data, partition, sequence)
		}
		// Lengths have several encodings as uvarints, so these are parsed, made and parsed again.
		name, row, err := ParseRow(object, data)
		if err == nil {
			again, rowAgain, err := ParseRow(object, Row(object, name, row))
			if err != nil || again != name || rowAgain != row {
				t.Errorf("ParseRow of %x is %q, %q", data, name, row)
			}
		}
		prefixed := append(RowsOfObject(object), data...)
		if name, row, err := ParseRow(object, prefixed); err == nil && len(name)+len(row) > len(data) {
			t.Errorf("ParseRow of %x is %q, %q", prefixed, name, row)
		}
		if name, id, err := ParseLimit(data); err == nil {
			key := Limit(name)
			if !id.IsZero() {
				key = Permit(name, id)
			}
			if again, idAgain, err := ParseLimit(key); err != nil || again != name || idAgain != id {
				t.Errorf("ParseLimit of %x is %q, %s", data, name, id)
			}
		}
		rule, err := ParseRule(data)
		parsed("ParseRule", Rule(rule), err)
		if name, band, rank, sequence, err := ParseWait(data); err == nil {
			again, bandAgain, rankAgain, sequenceAgain, err := ParseWait(Wait(name, band, rank, sequence))
			if err != nil || again != name || bandAgain != band || rankAgain != rank || sequenceAgain != sequence {
				t.Errorf("ParseWait of %x is %q, %d, %d, %d", data, name, band, rank, sequence)
			}
		}
		if active, err := ParseActive(data); err == nil {
			if again, err := ParseActive(active.Append(nil)); err != nil || again != active {
				t.Errorf("ParseActive of %x is %+v, made again %+v, %v", data, active, again, err)
			}
		}
		if c, err := ParseCopy(data); err == nil {
			if again, err := ParseCopy(c.Append(nil)); err != nil || again != c {
				t.Errorf("ParseCopy of %x is %+v, made again %+v, %v", data, c, again, err)
			}
		}
		if n, err := ParseNumber(data); err == nil {
			if again, err := ParseNumber(AppendNumber(nil, n)); err != nil || again != n {
				t.Errorf("ParseNumber of %x is %d, made again %d, %v", data, n, again, err)
			}
		}
		if upper := Successor(data); upper != nil && bytes.Compare(upper, append(data, 0xff)) <= 0 {
			t.Errorf("Successor(%x) is %x", data, upper)
		}
	})
}
