package replica

import (
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	pb "go.etcd.io/raft/v3/raftpb"

	"github.com/perdure/perdure/storage"
	"github.com/perdure/perdure/storage/memstore"
	"github.com/perdure/perdure/storage/nodelog"
)

func contains(err error, text string) bool { return err != nil && strings.Contains(err.Error(), text) }

func TestLogWithoutSpaceStepsDownAndComesBack(t *testing.T) {
	log, store := newMemLog(), newStore()
	var full atomic.Bool
	log.gate = func(written bool) error {
		if full.Load() && !written {
			return fmt.Errorf("disk: %w", nodelog.ErrNoSpace)
		}
		return nil
	}
	n := start(t, config(log, store, 1, 2))
	w, other := n.watchers[1], n.watchers[2]
	epoch := w.lead()
	otherEpoch := other.lead()
	w.propose(epoch, 1, "a", "1")
	w.waitCommitted(epoch, 1)
	full.Store(true)
	w.propose(epoch, 2, "a", "2")
	if cause := w.waitStepDown(1); !errors.Is(cause, nodelog.ErrNoSpace) {
		t.Errorf("cause: %v", cause)
	}
	if err := n.host.Health(); !errors.Is(err, nodelog.ErrNoSpace) {
		t.Errorf("health: %v", err)
	}
	full.Store(false)
	next := w.lead()
	if err := n.host.Health(); err != nil {
		t.Errorf("health with space: %v", err)
	}
	if got := contents(t, w.group.Snapshot()); got != "a=1" {
		t.Errorf("holds %q, want what was committed", got)
	}
	w.propose(next, 1, "a", "3")
	w.waitApplied(next, 1)
	other.propose(otherEpoch, 1, "b", "1") // was not in the refused append
	other.waitCommitted(otherEpoch, 1)
	n.stop()
	if left := n.host.intake.mu.backlogBytes; left != 0 {
		t.Errorf("%d bytes left in the backlog", left)
	}
}

// What gathered behind a refused append continues entries that were not written.
func TestRefusedAppendTakesWhatGatheredBehindIt(t *testing.T) {
	log, store := newMemLog(), newStore()
	entered, leave := make(chan struct{}), make(chan error)
	var armed atomic.Bool
	log.gate = func(written bool) error {
		if !written && armed.CompareAndSwap(true, false) {
			entered <- struct{}{}
			return <-leave
		}
		return nil
	}
	n := start(t, config(log, store, 1))
	w := n.watchers[1]
	epoch := w.lead()
	armed.Store(true)
	w.propose(epoch, 1, "a", "1")
	<-entered
	w.propose(epoch, 2, "a", "2")
	for { // until the loop has put it behind the append in progress
		n.host.appender.mu.Lock()
		gathered := n.host.appender.mu.gathering != nil
		n.host.appender.mu.Unlock()
		if gathered {
			break
		}
		time.Sleep(time.Millisecond)
	}
	leave <- nodelog.ErrNoSpace
	w.waitStepDown(1)
	next := w.lead()
	if got := contents(t, w.group.Snapshot()); got != "" {
		t.Errorf("holds %q, want nothing", got)
	}
	w.propose(next, 1, "a", "3")
	w.waitApplied(next, 1)
}

func TestFencedLogEndsRun(t *testing.T) {
	for _, cause := range []error{nodelog.ErrFenced, errInjected} {
		log := newMemLog()
		var broken atomic.Bool
		log.gate = func(written bool) error {
			if broken.Load() && !written {
				return cause
			}
			return nil
		}
		n := start(t, config(log, newStore(), 1, 2))
		epoch := n.watchers[1].lead()
		n.watchers[2].lead()
		broken.Store(true)
		n.watchers[1].propose(epoch, 1, "a", "1")
		if err := n.wait(); !errors.Is(err, cause) {
			t.Errorf("Run returned %v", err)
		}
		for _, w := range n.watchers {
			if got := w.waitStepDown(1); !errors.Is(got, cause) {
				t.Errorf("cause: %v", got)
			}
			if len(w.mu.committed) > 0 {
				t.Errorf("committed %v", w.mu.committed)
			}
		}
		if err := n.host.Health(); !errors.Is(err, cause) {
			t.Errorf("health: %v", err)
		}
	}
}

func TestStoreOfUnknownOutcomeEndsRun(t *testing.T) {
	for _, outcome := range []memstore.Outcome{memstore.NotApplied, memstore.Applied, memstore.Unknown} {
		log, store := newMemLog(), newStore()
		n := start(t, config(log, store, 1))
		w := n.watchers[1]
		epoch := w.lead()
		store.FailCommit(1, outcome)
		w.propose(epoch, 1, "a", "1")
		w.waitCommitted(epoch, 1)
		if err := n.wait(); !errors.Is(err, memstore.ErrInjected) {
			t.Fatalf("Run returned %v", err)
		}
		w.waitStepDown(1)

		m := start(t, config(log, store.Reopen(), 1))
		m.watchers[1].lead()
		if got := contents(t, m.watchers[1].group.Snapshot()); got != "a=1" {
			t.Errorf("outcome %v: holds %q after reopening", outcome, got)
		}
		m.stop()
	}
}

func TestStoreWithoutSpaceFillsTheBacklog(t *testing.T) {
	store := newStore()
	cfg := config(newMemLog(), store, 1, 2)
	cfg.MaxBacklogBytes = 10_000
	n := start(t, cfg)
	w, other := n.watchers[1], n.watchers[2]
	epoch := w.lead()
	otherEpoch := other.lead()
	store.NoSpace(true)
	value := string(make([]byte, 1000))
	sequence := uint64(0)
	for {
		err := w.group.Propose(epoch, sequence+1, put("k", value))
		if errors.Is(err, ErrBacklog) {
			break
		}
		if err != nil || sequence > 20 {
			t.Fatalf("propose %d: %v", sequence+1, err)
		}
		sequence++
	}
	if sequence < 8 {
		t.Errorf("refused after %d records of 1,000 bytes, want about 9", sequence)
	}
	w.waitCommitted(epoch, sequence)
	// A group without unapplied records would never hear of Applied, so it is not refused.
	other.propose(otherEpoch, 1, "k", "v")
	if err := other.group.Propose(otherEpoch, 2, put("k", value)); !errors.Is(err, ErrBacklog) {
		t.Errorf("second record of the other group: %v", err)
	}
	other.waitCommitted(otherEpoch, 1)
	for !errors.Is(n.host.Health(), storage.ErrNoSpace) { // once the applier has tried
		time.Sleep(time.Millisecond)
	}
	store.NoSpace(false)
	w.waitApplied(epoch, sequence)
	other.waitApplied(otherEpoch, 1)
	w.propose(epoch, sequence+1, "k", "end")
	other.propose(otherEpoch, 2, "k", "end")
	w.waitApplied(epoch, sequence+1)
	if err := n.host.Health(); err != nil {
		t.Errorf("health with space: %v", err)
	}
}

func TestStopWithFullStoreKeepsTheLog(t *testing.T) {
	log, store := newMemLog(), newStore()
	n := start(t, config(log, store, 1))
	w := n.watchers[1]
	epoch := w.lead()
	store.NoSpace(true)
	w.propose(epoch, 1, "a", "1")
	w.waitCommitted(epoch, 1)
	n.stop()
	store.NoSpace(false)
	m := start(t, config(log, store, 1))
	m.watchers[1].lead()
	if got := contents(t, m.watchers[1].group.Snapshot()); got != "a=1" {
		t.Errorf("holds %q", got)
	}
}

func TestHungDiskIsReported(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log := newMemLog()
		hang := make(chan struct{})
		var armed atomic.Bool
		log.gate = func(written bool) error {
			if !written && armed.Load() {
				<-hang
			}
			return nil
		}
		cfg := config(log, newStore(), 1)
		cfg.RetryDelay = 0
		n := start(t, cfg)
		w := n.watchers[1]
		epoch := w.lead()
		armed.Store(true)
		w.propose(epoch, 1, "a", "1")
		time.Sleep(9 * time.Second)
		if err := n.host.Health(); err != nil {
			t.Errorf("health after 9 s: %v", err)
		}
		time.Sleep(2 * time.Second)
		if err := n.host.Health(); !contains(err, "append in progress has taken 11s") {
			t.Errorf("health after 11 s: %v", err)
		}
		armed.Store(false)
		close(hang)
		w.waitCommitted(epoch, 1)
		if err := n.host.Health(); err != nil {
			t.Errorf("health after the disk came back: %v", err)
		}
		n.stop()
	})
}

func TestIdleHostHasNoTimers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := start(t, config(newMemLog(), newStore(), 1))
		w := n.watchers[1]
		epoch := w.lead()
		w.propose(epoch, 1, "a", "1")
		w.waitApplied(epoch, 1)
		time.Sleep(2 * time.Second) // the watchdog has seen that nothing is under way
		synctest.Wait()
		begin := time.Now()
		select {
		case <-n.host.intake.wake:
			t.Error("the loop was woken")
		case <-time.After(time.Hour):
		}
		if time.Since(begin) != time.Hour {
			t.Error("time did not jump")
		}
		n.stop()
	})
}

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
			return encodeRecord(uint64(int64(term)+epochOffset), sequence, put(pairs...))
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
	good := func(term uint64) []byte { return encodeRecord(term, 2, put("b", "2")) }
	for name, test := range map[string]struct {
		kind   pb.EntryType
		record func(uint64) []byte
		want   string
	}{
		"cut header":     {pb.EntryNormal, fixed(recordFormat, 0x80), "malformed"},
		"format 0":       {pb.EntryNormal, fixed(0, 1, 1), "malformed"},
		"newer format":   {pb.EntryNormal, fixed(recordFormat+1, 1, 1), "newer than this build"},
		"payload":        {pb.EntryNormal, func(term uint64) []byte { return encodeRecord(term, 3, []byte{200}) }, "malformed"},
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
		if r, err := decodeRecord(entry.Data); err == nil && entry.Kind == 0 {
			if storage.DecodeBatch(r.payload, func(storage.Op) {}) == nil {
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
		log.mu.groups[1].state = appendHardState(nil, &pb.HardState{Term: new(uint64(2)), Commit: new(index + 5)})
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
	log.mu.groups[1].state = []byte{stateFormat + 1, 1, 1, 1}
	if _, err := Open(config(log, store, 1, 2)); !errors.Is(err, ErrNewerFormat) || !contains(err, "partition 1") {
		t.Errorf("newer log state: %v", err)
	}
}

func TestUnreadableLogHaltsThePartition(t *testing.T) {
	log, store := damaged(t, func(g *memGroup, term uint64) {
		adding(pb.EntryNormal, func(term uint64) []byte { return encodeRecord(term, 2, put("b", "2")) })(g, term)
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

func TestConcurrentProposers(t *testing.T) {
	log, store := newMemLog(), newStore()
	var groups []GroupID
	for id := range GroupID(8) {
		groups = append(groups, id)
	}
	n := start(t, config(log, store, groups...))
	var wg sync.WaitGroup
	for _, w := range n.watchers {
		wg.Go(func() {
			epoch := w.lead()
			for i := uint64(1); i <= 300; i++ {
				if err := w.group.Propose(epoch, i, put(fmt.Sprint(i%10), fmt.Sprint(i))); err != nil {
					t.Errorf("propose: %v", err)
					return
				}
				if i%50 == 0 {
					w.waitCommitted(epoch, i)
				}
			}
			w.waitApplied(epoch, 300)
			s := w.group.Snapshot()
			defer s.Release()
			for i := 291; i <= 300; i++ {
				if value, _, err := s.Get(fmt.Append(nil, i%10)); err != nil || string(value) != fmt.Sprint(i) {
					t.Errorf("key %d: %q, %v", i%10, value, err)
				}
			}
		})
	}
	wg.Wait()
}
