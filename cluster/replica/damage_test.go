package replica

import (
	"errors"
	"fmt"
	"testing"
	"time"

	pb "go.etcd.io/raft/v3/raftpb"

	"github.com/perdure/perdure/cluster/replica/hardstate"
	"github.com/perdure/perdure/cluster/replica/rows"
	"github.com/perdure/perdure/storage"
	"github.com/perdure/perdure/storage/memstore"
	"github.com/perdure/perdure/storage/nodelog"
)

// damaged returns a log and a store whose partition 1 was used and stopped, after edit changed
// the log's group.
func damaged(t *testing.T, edit func(g *memGroup, term uint64)) (*memLog, *memstore.Store) {
	t.Helper()
	log, store := newMemLog(), newStore()
	n := start(t, config(log, store, 1, 2))
	w := n.watchers[1]
	epoch := w.lead()
	w.propose(epoch, 1, "a", "1")
	n.watchers[2].lead()
	n.stop()
	g := log.mu.groups[1]
	edit(g, epoch)
	return log, store
}

// adding returns an edit that appends entries with the data, all committed by the next leader.
func adding(kind pb.EntryType, records ...func(term uint64) []byte) func(*memGroup, uint64) {
	return func(g *memGroup, term uint64) {
		for _, record := range records {
			g.entries = append(g.entries, nodelog.Entry{Index: g.last() + 1, Term: term, Kind: uint8(kind), Data: record(term)})
		}
	}
}

func TestVoidRecordsHaveNoEffect(t *testing.T) {
	at := func(epochOffset int64, sequence uint64, pairs ...string) func(uint64) []byte {
		return func(term uint64) []byte {
			return rows.EncodeRecord(1, uint64(int64(term)+epochOffset), sequence, put(pairs...))
		}
	}
	log, store := damaged(t, adding(pb.EntryNormal,
		at(0, 2, "b", "2"),
		at(0, 2, "b", "again"),
		at(0, 4, "b", "gap"),
		at(-1, 3, "b", "older epoch"),
		at(1, 3, "b", "newer epoch"),
		at(0, 3, "c", "3"),
		at(0, 1, "b", "first again"),
	))
	n := start(t, config(log, store, 1, 2))
	w := n.watchers[1]
	epoch := w.lead()
	if got := contents(t, w.group.Snapshot()); got != "a=1 b=2 c=3" {
		t.Errorf("holds %q", got)
	}
	w.propose(epoch, 1, "d", "4")
	w.waitApplied(epoch, 1)
	if err := n.host.Health(); err != nil {
		t.Errorf("health: %v", err)
	}
}

func TestMalformedEntryHaltsOnlyItsPartition(t *testing.T) {
	fixed := func(data ...byte) func(uint64) []byte { return func(uint64) []byte { return data } }
	good := func(term uint64) []byte { return rows.EncodeRecord(1, term, 2, put("b", "2")) }
	for name, test := range map[string]struct {
		kind   pb.EntryType
		record func(uint64) []byte
		want   string
	}{
		"cut header":     {pb.EntryNormal, fixed(rows.RecordFormat, 0x80), "malformed"},
		"format 0":       {pb.EntryNormal, fixed(0, 1, 1), "malformed"},
		"newer format":   {pb.EntryNormal, fixed(rows.RecordFormat+1, 1, 1), "newer than this build"},
		"payload":        {pb.EntryNormal, func(term uint64) []byte { return rows.EncodeRecord(1, term, 3, []byte{200}) }, "malformed"},
		"kind":           {pb.EntryType(9), good, "entry kind 9"},
		"conf change":    {pb.EntryConfChange, fixed(0xff, 0xff), "membership change"},
		"conf change v2": {pb.EntryConfChangeV2, fixed(0xff, 0xff), "membership change"},
	} {
		t.Run(name, func(t *testing.T) {
			log, store := damaged(t, func(g *memGroup, term uint64) {
				adding(pb.EntryNormal, good)(g, term)
				adding(test.kind, test.record)(g, term)
			})
			n := start(t, config(log, store, 1, 2))
			other := n.watchers[2]
			epoch := other.lead()
			other.propose(epoch, 1, "x", "y")
			other.waitApplied(epoch, 1)
			index := log.mu.groups[1].last()
			for range 2000 { // the halt has no event of its own when the group never led
				if n.host.Health() != nil {
					break
				}
				time.Sleep(time.Millisecond)
			}
			err := n.host.Health()
			for _, want := range []string{"partition 1", fmt.Sprintf("log index %d", damagedIndex(log)), test.want} {
				if !contains(err, want) {
					t.Errorf("health lacks %q (last index %d): %v", want, index, err)
				}
			}
			n.stop()
			w := n.watchers[1]
			if w.mu.leader != 0 {
				t.Errorf("node %d is still said to lead the damaged partition", w.mu.leader)
			}
			if len(w.mu.leads) > 0 {
				t.Error("the damaged partition led")
			}
			// Entries before the damage are in the store; nothing after is truncated.
			if at := storedAt(t, store, 1); at.index >= damagedIndex(log) {
				t.Errorf("applied index %d, past the damage at %d", at.index, damagedIndex(log))
			}
		})
	}
}

// damagedIndex finds the entry behind the good one of TestMalformedEntryHaltsOnlyItsPartition.
func damagedIndex(log *memLog) uint64 {
	log.mu.Lock()
	defer log.mu.Unlock()
	g := log.mu.groups[1]
	for _, entry := range g.entries {
		if entry.Kind == 0 && len(entry.Data) == 0 {
			continue
		}
		if r, err := rows.DecodeRecord(entry.Data); err == nil && entry.Kind == 0 {
			if storage.DecodeBatch(r.Payload, func(storage.Op) {}) == nil {
				continue
			}
		}
		return entry.Index
	}
	return 0
}

func TestDataLossRefusesToOpen(t *testing.T) {
	used := func(t *testing.T) (*memLog, *memstore.Store, uint64) {
		log, store := damaged(t, func(*memGroup, uint64) {})
		return log, store, storedAt(t, store, 1).index
	}
	check := func(t *testing.T, log Log, store storage.Store, want ...string) {
		t.Helper()
		_, err := Open(config(log, store, 1, 2))
		if !errors.Is(err, ErrDataLoss) {
			t.Fatalf("Open: %v", err)
		}
		for _, text := range append(want, "partition 1") {
			if !contains(err, text) {
				t.Errorf("error lacks %q: %v", text, err)
			}
		}
	}
	t.Run("empty store", func(t *testing.T) {
		log, _, index := used(t)
		check(t, log, newStore(), "applied index 0", fmt.Sprintf("begins at index %d", index+1), fmt.Sprintf("entries 1 to %d", index))
	})
	t.Run("older store", func(t *testing.T) {
		log, store, index := used(t)
		older := store.Clone(1)
		n := start(t, config(log, store, 1, 2))
		n.watchers[1].lead()
		n.watchers[2].lead()
		n.stop()
		check(t, log, older, fmt.Sprintf("applied index %d", index), fmt.Sprintf("begins at index %d", index+2))
	})
	t.Run("empty log", func(t *testing.T) {
		_, store, index := used(t)
		check(t, newMemLog(), store, fmt.Sprintf("applied index %d", index), "does not know the partition")
	})
	t.Run("older log", func(t *testing.T) {
		log, store, index := used(t)
		older := log.clone()
		n := start(t, config(log, store, 1, 2))
		n.watchers[1].lead()
		n.watchers[2].lead()
		n.stop()
		check(t, older, store, fmt.Sprintf("applied index %d", index+1), fmt.Sprintf("ends at index %d", index))
	})
	t.Run("another log", func(t *testing.T) {
		log, store, _ := used(t)
		log.mu.groups[1].firstTerm++
		check(t, log, store, "not of one partition")
	})
	t.Run("commit beyond the log", func(t *testing.T) {
		log, store, index := used(t)
		log.mu.groups[1].state = hardstate.Append(nil, &pb.HardState{Term: new(uint64(2)), Commit: new(index + 5)}, hardstate.Past{})
		check(t, log, store, fmt.Sprintf("index %d is committed", index+5))
	})
}

func TestOpenRefusesWhatIsNotItsOwn(t *testing.T) {
	log, store := damaged(t, func(*memGroup, uint64) {})
	if _, err := Open(config(log, store, 2)); !contains(err, "partition 1: the log has it") {
		t.Errorf("a group missing: %v", err)
	}
	cfg := config(log, store, 1, 2)
	cfg.NodeID = 8
	if _, err := Open(cfg); !contains(err, "partition 1: its members are nodes [7], this is node 8") {
		t.Errorf("another node: %v", err)
	}
	log.mu.groups[1].state = []byte{0x7f, 1, 1, 1} // a format of a later build
	if _, err := Open(config(log, store, 1, 2)); !errors.Is(err, ErrNewerFormat) || !contains(err, "partition 1") {
		t.Errorf("newer log state: %v", err)
	}
}

func TestUnreadableLogHaltsThePartition(t *testing.T) {
	log, store := damaged(t, func(g *memGroup, term uint64) {
		adding(pb.EntryNormal, func(term uint64) []byte { return rows.EncodeRecord(1, term, 2, put("b", "2")) })(g, term)
	})
	n := start(t, config(&unreadable{memLog: log, group: 1}, store, 1, 2))
	other := n.watchers[2]
	other.lead()
	for range 2000 {
		if n.host.Health() != nil {
			break
		}
		time.Sleep(time.Millisecond)
	}
	if err := n.host.Health(); !errors.Is(err, errInjected) || !contains(err, "partition 1") || !contains(err, "read log entries") {
		t.Errorf("health: %v", err)
	}
}

// unreadable fails reads of one group's entries.
type unreadable struct {
	*memLog
	group uint32
}

func (l *unreadable) Entries(id uint32, lo, hi, maxBytes uint64) ([]nodelog.Entry, error) {
	if id == l.group {
		return nil, errInjected
	}
	return l.memLog.Entries(id, lo, hi, maxBytes)
}
