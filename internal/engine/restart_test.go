package engine

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"maps"
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"
	"pgregory.net/rapid"

	"github.com/perdure/perdure/internal/invocation"
	"github.com/perdure/perdure/internal/journal/renew"
	recordv1 "github.com/perdure/perdure/internal/record/v1"
	"github.com/perdure/perdure/internal/table"
)

// countingView counts the rows that are scanned.
type countingView struct {
	mapView
	scanned int
}

func (v *countingView) Scan(lower, upper []byte, fn func(key, value []byte) bool) error {
	return v.mapView.Scan(lower, upper, func(key, value []byte) bool {
		v.scanned++
		return fn(key, value)
	})
}

// surveyed is a restart with what was found in the journal.
func surveyed(e *Engine, rows View, id invocation.ID, from uint32) *RestartAsNew {
	ev := &RestartAsNew{ID: id, From: from, Epoch: e.epoch}
	if from > 0 {
		ev.Survey, _ = renew.Of(rows, id, from, renew.Bounds{Bytes: e.config.MaxWriteBytes, Writes: e.config.MaxWrites}, func() error { return nil })
	}
	return ev
}

// TestRestartIsBounded: a restart reads of a long journal what it needs and no more, on the engine's
// goroutine next to nothing, and says what is too much.
func TestRestartIsBounded(t *testing.T) {
	const entries, from = 12_000, 100
	put := func(i int, value []byte) *recordv1.Entry {
		return &recordv1.Entry{Entry: &recordv1.Entry_TablePut{TablePut: &recordv1.TablePut{Table: "t", Key: fmt.Sprint(i), Value: value}}}
	}
	large := &recordv1.Entry{Entry: &recordv1.Entry_Version{Version: &recordv1.Version{Change: strings.Repeat("x", 100_000)}}}
	huge := &recordv1.Entry{Entry: &recordv1.Entry_Version{Version: &recordv1.Version{Change: strings.Repeat("x", 2_000_000)}}}
	small := &recordv1.Entry{Entry: &recordv1.Entry_Version{Version: &recordv1.Version{Change: "x"}}}
	for _, test := range []struct {
		name   string
		entry  func(i int) *recordv1.Entry
		from   uint32
		writes recordv1.JournalWrites
		want   string // "" for a restart
		reads  int    // at most, in the survey
	}{
		{"from the beginning", func(int) *recordv1.Entry { return large }, 0, recordv1.JournalWrites_JOURNAL_WRITES_SOME, "", 10},
		{"no writes", func(int) *recordv1.Entry { return small }, from, recordv1.JournalWrites_JOURNAL_WRITES_NONE, "", 110},
		{"entries kept", func(int) *recordv1.Entry { return small }, 3000, recordv1.JournalWrites_JOURNAL_WRITES_NONE, "", 3100},
		{"bytes kept", func(int) *recordv1.Entry { return large }, from, recordv1.JournalWrites_JOURNAL_WRITES_NONE, "", 600},
		{"entries behind", func(int) *recordv1.Entry { return small }, from, recordv1.JournalWrites_JOURNAL_WRITES_SOME, "", 12_100},
		{"a row", func(i int) *recordv1.Entry {
			if i == 7 {
				return huge
			}
			return small
		}, from, recordv1.JournalWrites_JOURNAL_WRITES_NONE, `H can't be restarted from entry 100: entry 7 (Version "xxx`, 10},
		{"rows taken back", func(i int) *recordv1.Entry {
			if i > 9000 {
				return nil
			}
			return put(i, []byte("x"))
		}, from, recordv1.JournalWrites_JOURNAL_WRITES_SOME, "9000 rows of 43995 bytes together with its request, more than the 2500 rows", 9_100},
		{"bytes taken back", func(i int) *recordv1.Entry {
			if i > 1000 {
				return nil
			}
			entry := put(i, nil)
			entry.GetTablePut().Previous, entry.GetTablePut().HadPrevious = bytes.Repeat([]byte("p"), 3000), true
			return entry
		}, from, recordv1.JournalWrites_JOURNAL_WRITES_SOME, "rows or 1835008 bytes that fit a record: restart from the beginning", 1_100},
	} {
		t.Run(test.name, func(t *testing.T) {
			id, renewed := invocation.NewID(0, [16]byte{1}), invocation.NewID(0, [16]byte{2})
			view := &countingView{mapView: mapView{}}
			encoded := map[proto.Message][]byte{} // Most entries are one and the same.
			write := func(key []byte, m proto.Message) {
				if encoded[m] == nil {
					value, err := proto.Marshal(m)
					if err != nil {
						t.Fatal(err)
					}
					encoded[m] = value
				}
				view.mapView[string(key)] = encoded[m]
			}
			write(table.Invocation(id), &recordv1.Invocation{
				Target: &recordv1.Target{Service: "Svc", Key: "k", Handler: "H"}, Mode: uint32(invocation.ModeDurable),
				Status: recordv1.Status_STATUS_SUCCEEDED, JournalWrites: test.writes, RetentionMs: 1000, CompletedAt: 1,
			})
			write(table.Journal(id, 0), &recordv1.Entry{Entry: &recordv1.Entry_Input{Input: &recordv1.Input{Value: []byte("in")}}})
			for i := 1; i <= entries; i++ {
				entry := test.entry(i)
				if entry == nil {
					break
				}
				write(table.Journal(id, uint32(i)), entry)
			}
			e := New(Config{Partition: 1, Partitions: 1}, view, 1)
			view.scanned = 0
			restart := surveyed(e, view, id, test.from)
			if view.scanned > test.reads {
				t.Errorf("%d rows were read, want %d at most", view.scanned, test.reads)
			}
			view.scanned = 0
			restart.New, restart.Token = renewed, 1
			out, err := e.Evaluate(restart, 100)
			if err != nil {
				t.Fatal(err)
			}
			refused := ""
			for _, effect := range out.Effects {
				if answer, ok := effect.(*Reply); ok {
					refused = answer.Result.GetError().GetMessage()
				}
			}
			if (refused == "") != (test.want == "") || !strings.Contains(refused, test.want) {
				t.Errorf("refused with %q, want %q", refused, test.want)
			}
			if refused != "" && len(out.Mutations) > 0 {
				t.Errorf("%d rows were written all the same", len(out.Mutations))
			}
			if view.scanned > 10 {
				t.Errorf("%d rows were read by the engine", view.scanned)
			}
			bytes := 0
			for _, m := range out.Mutations {
				bytes += len(m.Key) + len(m.Value)
			}
			if bytes > 512<<10+200_000 {
				t.Errorf("%d bytes were written at once", bytes)
			}
		})
	}
}

// TestCopiesSurvive: journals of all kinds of entries are copied in slices of all sizes, while the leader
// dies, slices are asked for twice, and operators pause, resume, cancel and kill what is copied and
// would purge what it is copied from. What starts has all of what it was restarted with, and nothing
// is left of what goes.
func TestCopiesSurvive(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		old, renewed := invocation.NewID(0, [16]byte{1}), invocation.NewID(0, [16]byte{2})
		rows := mapView{}
		write := func(key []byte, m proto.Message) {
			value, err := proto.Marshal(m)
			if err != nil {
				t.Fatal(err)
			}
			rows[string(key)] = value
		}
		start := rapid.SampledFrom([]uint32{0, 0, 41}).Draw(t, "start")
		entries := rapid.Uint32Range(1, 12).Draw(t, "entries")
		write(table.Invocation(old), &recordv1.Invocation{
			Target: &recordv1.Target{Service: "Svc", Key: "k", Handler: "H"}, Mode: uint32(invocation.ModeDurable), JournalStart: start,
			Status: recordv1.Status_STATUS_FAILED, RetentionMs: 1_000_000, CompletedAt: 1, CreatedAt: 1,
		})
		write(table.Journal(old, start), &recordv1.Entry{Entry: &recordv1.Entry_Input{Input: &recordv1.Input{Value: []byte("in")}}})
		for i := start + 1; i <= start+entries; i++ {
			entry, done := &recordv1.Entry{Entry: &recordv1.Entry_Run{Run: &recordv1.Run{Name: fmt.Sprint("r", i)}}}, &recordv1.Completion{Entry: i}
			switch rapid.SampledFrom([]string{"run", "parts", "parts", "sleep", "asleep", "version"}).Draw(t, "kind") {
			case "run":
				done.Result = &recordv1.Result{Value: bytes.Repeat([]byte{'v'}, rapid.IntRange(0, 150).Draw(t, "size"))}
			case "parts":
				done.Parts = &recordv1.Parts{Count: rapid.Uint32Range(1, 9).Draw(t, "parts")}
				for number := range done.Parts.Count {
					rows[string(table.Part(old, i, number))] = bytes.Repeat([]byte{byte(number)}, rapid.IntRange(1, 60).Draw(t, "size"))
				}
			case "asleep":
				done = nil
				entry.Entry = &recordv1.Entry_Sleep{Sleep: &recordv1.Sleep{Until: rapid.Int64Range(50, 5000).Draw(t, "until")}}
			case "sleep":
				entry.Entry = &recordv1.Entry_Sleep{Sleep: &recordv1.Sleep{Until: 50}}
			default:
				done, entry.Entry = nil, &recordv1.Entry_Version{Version: &recordv1.Version{Change: "c"}}
			}
			write(table.Journal(old, i), entry)
			if done != nil {
				write(table.Completion(old, i), done)
			}
		}
		from := start + rapid.Uint32Range(1, entries).Draw(t, "from")
		want := copied(rows, old, start, from)

		durable, epoch, now := maps.Clone(rows), uint64(1), int64(100)
		var e *Engine
		var asked []Event // once what was evaluated is durable
		started := 0
		take := func(out *Output, err error) {
			if err != nil {
				t.Fatal(err)
			}
			for _, m := range out.Mutations {
				if delete(rows, string(m.Key)); !m.Delete {
					rows[string(m.Key)] = append([]byte{}, m.Value...)
				}
			}
			for _, effect := range out.Effects {
				switch effect := effect.(type) {
				case *CopyOn:
					asked = append(asked, &effect.CopyEntries)
				case *StartAttempt:
					started++
					if missing := lacks(copied(rows, renewed, start, from), want); missing != "" {
						t.Fatalf("it starts without %s", missing)
					}
				}
			}
		}
		lead := func() {
			clear(rows)
			maps.Copy(rows, durable)
			asked = nil
			epoch++
			e = New(Config{Partition: 1, Partitions: 1, MaxWriteBytes: rapid.SampledFrom([]int{200, 500, 4000}).Draw(t, "record")}, rows, epoch)
			take(e.Recover(now))
		}
		lead()
		restart := surveyed(e, rows, old, from)
		if restart.Survey.Refused != nil {
			t.Fatal(restart.Survey.Refused)
		}
		restart.New = renewed
		take(e.Evaluate(restart, now))
		if _, accepted := rows[string(table.Invocation(renewed))]; !accepted {
			t.Fatal("it was not accepted")
		}
		durable = maps.Clone(rows)
		status := func() recordv1.Status {
			row := &recordv1.Invocation{}
			_ = proto.Unmarshal(rows[string(table.Invocation(renewed))], row)
			return row.Status
		}
		copying := func() bool { _, ok := rows[string(table.CopyKey(renewed))]; return ok }
		for steps := 0; copying() && steps < 300; steps++ {
			now += 7
			action := "copy"
			if steps < 40 {
				action = rapid.SampledFrom([]string{"copy", "copy", "copy", "copy", "twice", "crash", "pause", "resume", "purge", "expire", "timers", "stale", "cancel", "kill"}).Draw(t, "action")
			}
			switch action {
			case "copy", "twice":
				durable = maps.Clone(rows)
				events := asked
				asked = nil
				for _, event := range events {
					take(e.Evaluate(event, now))
					if action == "twice" {
						take(e.Evaluate(event, now))
					}
				}
			case "stale":
				take(e.Evaluate(&CopyEntries{ID: renewed, At: table.Copy{Source: old, Through: from, Next: start + 1}}, now))
			case "crash":
				lead()
			case "pause":
				take(e.Evaluate(&Pause{ID: renewed}, now))
			case "resume":
				take(e.Evaluate(&Resume{ID: renewed}, now))
			case "cancel", "kill":
				if rapid.IntRange(0, 5).Draw(t, "rare") == 0 {
					take(e.Evaluate(&Cancel{ID: renewed, Kill: action == "kill"}, now))
				}
			case "purge":
				take(e.Evaluate(&Purge{ID: old}, now))
			case "expire":
				timer := table.Timer{At: now, Kind: table.TimerExpire, ID: old}
				rows[string(timer.Key())] = []byte{}
				take(e.Evaluate(&Fire{Timer: timer}, now))
			case "timers":
				for key := range maps.Clone(rows) {
					if timer, err := table.ParseTimer([]byte(key)); err == nil && timer.ID == renewed && timer.At <= now {
						take(e.Evaluate(&Fire{Timer: timer}, now))
					}
				}
			}
			if copying() && !completed(status()) && len(copied(rows, old, start, from)) != len(want) {
				t.Fatal("what it is copied from was purged")
			}
		}
		if copying() {
			t.Fatalf("it is still being copied: %d slices are asked for", len(asked))
		}
		switch s := status(); {
		case s == recordv1.Status_STATUS_PAUSED:
			take(e.Evaluate(&Resume{ID: renewed}, now))
			fallthrough
		case !completed(s):
			if started == 0 {
				t.Fatalf("it has not started and is %s", s)
			}
			take(e.Evaluate(&Cancel{ID: renewed, Kill: true}, now))
		case started > 0:
			t.Fatalf("it was started and is %s", s)
		}
		for range 20 {
			take(e.Evaluate(&Purge{ID: renewed}, now))
		}
		for key := range rows {
			if bytes.Contains([]byte(key), renewed[:]) && key[0] != 'w' { // Timers find nothing.
				t.Errorf("left: %s", table.Describe([]byte(key)))
			}
		}
	})
}

// lacks is what a journal does not have, or has too much: but for the completions of sleeps.
func lacks(got, want string) string {
	for line := range strings.Lines(want) {
		if !strings.Contains(got, line) {
			return line
		}
		got = strings.Replace(got, line, "", 1)
	}
	for line := range strings.Lines(got) {
		if line[0] != 'c' {
			return "more: " + line
		}
	}
	return ""
}

// copied is all that a replay up to an entry is given.
func copied(rows mapView, id invocation.ID, start, from uint32) string {
	var all strings.Builder
	for _, prefix := range [][]byte{table.Journal(id, 0)[:1+invocation.IDBytes], table.Completion(id, 0)[:1+invocation.IDBytes], table.Part(id, 0, 0)[:1+invocation.IDBytes]} {
		_ = rows.Scan(prefix, table.Successor(prefix), func(key, value []byte) bool {
			rest := key[1+invocation.IDBytes:]
			if index := binary.BigEndian.Uint32(rest); index > start && index <= from {
				fmt.Fprintf(&all, "%c %x %x\n", key[0], rest, value)
			}
			return true
		})
	}
	return all.String()
}

// TestCopyOfDamage: if what is copied turns out to be damaged, what it is copied to fails and says so; its
// object is free.
func TestCopyOfDamage(t *testing.T) {
	s := newScript()
	s.maxWriteBytes = 400
	big := strings.Repeat("x", 90)
	s.run(t, strings.Join([]string{
		"invoke a key=k mode=DURABLE token=1 retention=10000 now=10", "append a index=1 kind=run name=big",
		"run-part a index=1 number=0 value=" + big, "run-part a index=1 number=1 value=" + big, "run-part a index=1 number=2 value=" + big,
		"run-done a index=1 parts=3", "finish a error=broken", "restart-as-new a new=b from=1 token=2", "invoke c key=k mode=DURABLE token=3",
	}, "\n"))
	delete(s.rows[1], string(table.Part(s.id("a"), 1, 2)))
	got := s.run(t, "copy b")
	for _, want := range []string{
		"+ invocation b FAILED", `part 2 of 3 of the result of entry 1 is missing`, "start c attempt 1", "- copy b", "- active b",
	} {
		if !strings.Contains(got, want) {
			t.Errorf("%q is missing in\n%s", want, got)
		}
	}
	if strings.Contains(got, "+ part of completion") {
		t.Errorf("half of a slice is written:\n%s", got)
	}
}
