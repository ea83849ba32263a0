package table

import (
	"bytes"
	"cmp"
	"testing"

	"pgregory.net/rapid"

	"github.com/perdure/perdure/internal/invocation"
	recordv1 "github.com/perdure/perdure/internal/record/v1"
)

func drawText(t *rapid.T, label string) string {
	return string(rapid.SliceOfN(rapid.SampledFrom([]byte{0, 1, 'a', 'b', 0x7f, 0x80, 0xff}), 0, 3).Draw(t, label)) +
		string(bytes.Repeat([]byte{'x'}, rapid.SampledFrom([]int{0, 0, 0, 127, 128, 252}).Draw(t, label+" length")))
}

func drawObject(t *rapid.T) invocation.Object {
	return invocation.Object{Service: drawText(t, "service"), Key: drawText(t, "key")}
}

func drawID(t *rapid.T) invocation.ID {
	var id invocation.ID
	copy(id[:], rapid.SliceOfN(rapid.SampledFrom([]byte{0, 1, 0xfe, 0xff}), len(id), len(id)).Draw(t, "id"))
	return id
}

// TestRowsOfOneObjectAreOneRange: a prefix holds the rows of its object, or its table, and no
// others, however the names look.
func TestRowsOfOneObjectAreOneRange(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		a, b := drawObject(t), drawObject(t)
		nameA, nameB := drawText(t, "table"), drawText(t, "table")
		row := drawText(t, "row")
		within := func(key, prefix []byte) bool {
			upper := Successor(prefix)
			return bytes.Compare(key, prefix) >= 0 && (upper == nil || bytes.Compare(key, upper) < 0)
		}
		if got, want := within(Row(a, nameA, row), Rows(b, nameB)), a == b && nameA == nameB; got != want {
			t.Fatalf("row of %q %q in %q %q: %v", a, nameA, b, nameB, got)
		}
		if got, want := within(Row(a, nameA, row), RowsOfObject(b)), a == b; got != want {
			t.Fatalf("row of %q in %q: %v", a, b, got)
		}
		for _, pair := range [][2][]byte{
			{Signal(a, nameA, 5), Signals(b, nameB)}, {Receive(a, nameA, 5), Receives(b, nameB)},
		} {
			if got, want := within(pair[0], pair[1]), a == b && nameA == nameB; got != want {
				t.Fatalf("%s in %s: %v", Describe(pair[0]), Describe(pair[1]), got)
			}
		}
		if within(Receive(a, nameA, 5), ReceivesOfObject(b)) != (a == b) {
			t.Fatalf("receive of %q in %q", a, b)
		}
		name, got, err := ParseRow(a, Row(a, nameA, row))
		if err != nil || name != nameA || got != row {
			t.Fatalf("ParseRow: %q %q %v, want %q %q", name, got, err, nameA, row)
		}
		other := drawText(t, "row")
		if cmp.Compare(row, other) != bytes.Compare(Row(a, nameA, row), Row(a, nameA, other)) {
			t.Fatalf("rows %q and %q are not in the order of their keys", row, other)
		}
		for _, prefix := range ObjectPrefixes(a) {
			if a != b && (within(State(b), prefix) || within(Promise(b, nameB), prefix)) {
				t.Fatalf("purging %q would reach %q", a, b)
			}
		}
		if a != b && bytes.Equal(State(a), State(b)) {
			t.Fatalf("%q and %q share a key", a, b)
		}
	})
}

func TestOrderAndRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		numbers := rapid.Uint64()
		x, y := numbers.Draw(t, "x"), numbers.Draw(t, "y")
		o, id := drawObject(t), drawID(t)
		check := func(what string, a, b []byte, want int) {
			if bytes.Compare(a, b) != want {
				t.Fatalf("%s: %x and %x are out of order", what, a, b)
			}
		}
		check("signals", Signal(o, "n", x), Signal(o, "n", y), cmp.Compare(x, y))
		check("outbox", Outbox(1, x), Outbox(1, y), cmp.Compare(x, y))
		i, j := uint32(x), uint32(y)
		check("journal", Journal(id, i), Journal(id, j), cmp.Compare(i, j))
		atX, atY := int64(x>>1), int64(y>>1)
		kind := rapid.SampledFrom([]TimerKind{TimerDue, TimerSleep, TimerRetry, TimerDeadline, TimerExpire, TimerSchedule}).Draw(t, "kind")
		timer, later := Timer{atX, kind, id, i}, Timer{atY, kind, drawID(t), j}
		if atX != atY {
			check("timers", timer.Key(), later.Key(), cmp.Compare(atX, atY))
		}
		bandX, bandY := byte(x>>3), byte(y>>3)
		nameA, nameB := drawText(t, "limit"), drawText(t, "limit")
		check("waits", Wait(nameA, bandX, x, y), Wait(nameA, bandY, y, x), cmp.Or(cmp.Compare(bandX, bandY), cmp.Compare(x, y), cmp.Compare(y, x)))
		lowerWait, upperWait := WaitsOf(nameB)
		if key := Wait(nameA, bandX, x, y); (bytes.Compare(key, lowerWait) >= 0 && (upperWait == nil || bytes.Compare(key, upperWait) < 0)) != (nameA == nameB) {
			t.Fatalf("the wait of %q in the range of %q", nameA, nameB)
		}
		lowerPermit, upperPermit := PermitsOf(nameB)
		within := func(key []byte) bool {
			return bytes.Compare(key, lowerPermit) >= 0 && (upperPermit == nil || bytes.Compare(key, upperPermit) < 0)
		}
		if !id.IsZero() && within(Permit(nameA, id)) != (nameA == nameB) || within(Limit(nameB)) {
			t.Fatalf("the permit of %q in the range of %q", nameA, nameB)
		}
		if back, err := ParseTimer(timer.Key()); err != nil || back != timer {
			t.Fatalf("ParseTimer: %v, %v, want %v", back, err, timer)
		}
		if lower, upper := TimersFrom(atX); bytes.Compare(timer.Key(), lower) < 0 || bytes.Compare(timer.Key(), upper) >= 0 {
			t.Fatalf("%v is not in TimersFrom(%d)", timer, atX)
		}
		if p, s, err := ParseOutbox(Outbox(i, y)); err != nil || p != i || s != y {
			t.Fatalf("ParseOutbox: %d %d %v", p, s, err)
		}
		if back, err := ParseID(Invocation(id)); err != nil || back != id {
			t.Fatalf("ParseID: %v %v", back, err)
		}
		if back, err := ParseEntry(Completion(id, i)); err != nil || back != i {
			t.Fatalf("ParseEntry: %v %v", back, err)
		}
		if back, err := ParseNumber(AppendNumber(nil, x)); err != nil || back != x {
			t.Fatalf("ParseNumber: %v %v", back, err)
		}
		active := Active{Status: recordv1.Status(rapid.IntRange(0, 10).Draw(t, "status")), Object: o, InboxSequence: y}
		if back, err := ParseActive(active.Append(nil)); err != nil || back != active {
			t.Fatalf("ParseActive: %v %v, want %v", back, err, active)
		}
		lower, upper := JournalOf(id)
		if key := Journal(id, i); bytes.Compare(key, lower) < 0 || upper != nil && bytes.Compare(key, upper) >= 0 {
			t.Fatalf("%x is not in the range of its invocation", key)
		}
	})
}

// FuzzReaders: nothing that can be on a damaged disk makes a reader panic, and what a reader
// accepts is what was written.
func FuzzReaders(f *testing.F) {
	id, o := frozenID(), invocation.Object{Service: "s", Key: "k"}
	for _, seed := range [][]byte{
		nil, {0}, State(o), Row(o, "t", "r"), Journal(id, 1), Outbox(1, 2), Chunk(State(o), 1), Chunk(Chunk(State(o), 1), 1),
		Timer{At: 1, Kind: TimerDue, ID: id}.Key(), Active{Status: 2, Object: o}.Append(nil), {tableState, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1},
		{2, 1, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1},
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		if Describe(data) == "" {
			t.Error("Describe says nothing")
		}
		if timer, err := ParseTimer(data); err == nil && !bytes.Equal(timer.Key(), data) {
			t.Errorf("%x is read as %v", data, timer)
		}
		if active, err := ParseActive(data); err == nil {
			if again, err := ParseActive(active.Append(nil)); err != nil || again != active {
				t.Errorf("%x is read as %v and then as %v", data, active, again)
			}
		}
		_, _ = ParseNumber(data)
		_, _ = ParseID(data)
		_, _ = ParseEntry(data)
		_, _, _ = ParseOutbox(data)
		_, _, _ = ParseRow(o, data)
		_, _, _ = ParseRow(o, append(RowsOfObject(o), data...))
		if upper := Successor(data); upper != nil && bytes.Compare(upper, append(append([]byte{}, data...), 0xff, 0xff)) <= 0 {
			t.Errorf("Successor(%x) is %x", data, upper)
		}
	})
}
