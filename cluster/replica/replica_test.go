package replica

import (
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/perdure/perdure/cluster/replica/rows"
	"github.com/perdure/perdure/storage"
)

func TestProposeCommitApply(t *testing.T) {
	log, store := newMemLog(), newStore()
	n := start(t, config(log, store, 0, 3))
	for _, id := range []GroupID{0, 3} {
		w := n.watchers[id]
		epoch := w.lead()
		for i := range 20 {
			w.propose(epoch, uint64(i+1), fmt.Sprintf("k%d", i%3), fmt.Sprintf("%d.%d", id, i), "gone", "x")
		}
		w.propose(epoch, 21, "gone", "-")
		w.waitCommitted(epoch, 21)
		w.waitApplied(epoch, 21)
		want := fmt.Sprintf("k0=%d.18 k1=%d.19 k2=%d.17", id, id, id)
		if got := contents(t, w.group.Snapshot()); got != want {
			t.Errorf("partition %d holds %q, want %q", id, got, want)
		}
		s := w.group.Snapshot()
		if value, ok, err := s.Get([]byte("k1")); string(value) != fmt.Sprintf("%d.19", id) || !ok || err != nil {
			t.Errorf("Get: %q, %v, %v", value, ok, err)
		}
		var keys string
		if err := s.Scan([]byte("k1"), []byte("k2"), func(key, _ []byte) bool { keys += string(key); return true }); err != nil || keys != "k1" {
			t.Errorf("Scan from k1 to k2 gave %q, %v", keys, err)
		}
		s.Release()
	}
	n.stop()
	for _, id := range []GroupID{0, 3} {
		at := storedAt(t, store, id)
		if first, last := log.Bounds(uint32(id)); first != at.index+1 || last != at.index {
			t.Errorf("partition %d: applied index %d, log from %d to %d; want it truncated", id, at.index, first, last)
		}
		if err := n.watchers[id].group.Propose(2, 22, nil); !errors.Is(err, ErrNotLeader) {
			t.Errorf("propose after stop: %v", err)
		}
		if cause := n.watchers[id].waitStepDown(1); !errors.Is(cause, ErrStopped) {
			t.Errorf("step down: %v", cause)
		}
	}
}

func TestStartOfManyGroupsTakesFewAppends(t *testing.T) {
	log, store := newMemLog(), newStore()
	var groups []GroupID
	for id := range GroupID(64) {
		groups = append(groups, id)
	}
	lead := func() (appends int) {
		before := log.appendCount()
		n := start(t, config(log, store, groups...))
		for _, w := range n.watchers {
			w.lead()
		}
		n.stop()
		return log.appendCount() - before
	}
	if created, restarted := lead(), lead(); created != 3 || restarted != 2 {
		t.Errorf("creating 64 groups took %d appends, restarting them %d; want 3 (create, vote, first entry) and 2", created, restarted)
	}
}

func TestRestartReplaysBeforeLead(t *testing.T) {
	log, store := newMemLog(), newStore()
	cfg := config(log, store, 1)
	cfg.MaxApplyDelay = time.Hour
	n := start(t, cfg)
	w := n.watchers[1]
	epoch := w.lead()
	for i := range uint64(50) {
		w.propose(epoch, i+1, fmt.Sprintf("k%02d", i), "v")
	}
	w.waitCommitted(epoch, 50)
	var crashed *memLog
	var left storage.Store
	log.frozen(func(c *memLog) { crashed, left = c, store.Clone(1) })
	if at := storedAt(t, left, 1); at.sequence != 0 {
		t.Fatalf("the store already has sequence %d; the test needs it behind", at.sequence)
	}

	cfg.Log, cfg.Store = crashed, left
	m := start(t, cfg)
	w2 := m.watchers[1]
	if again := w2.lead(); again <= epoch {
		t.Errorf("leads in epoch %d after %d", again, epoch)
	}
	s := w2.group.Snapshot()
	defer s.Release()
	for i := range 50 {
		if _, ok, err := s.Get(fmt.Appendf(nil, "k%02d", i)); !ok || err != nil {
			t.Errorf("k%02d is missing at Lead: %v", i, err)
		}
	}
}

// The log still has the entry that made this node a voter, and the store is empty: the groups
// must not campaign before that entry was taken back from the applier, which is full.
func TestLongReplayIsBounded(t *testing.T) {
	log := newMemLog()
	cfg := config(untruncated{log}, newStore(), 1, 2)
	cfg.MaxApplyDelay = time.Hour
	n := start(t, cfg)
	value := string(make([]byte, 100<<10))
	for id, w := range n.watchers {
		epoch := w.lead()
		for i := range uint64(60) {
			w.propose(epoch, i+1, fmt.Sprintf("%d.%d", id, i), value)
		}
		w.waitCommitted(epoch, 60)
	}

	cfg.Log, cfg.Store = log.clone(), newStore()
	cfg.MaxApplyBytes, cfg.MaxBacklogBytes = 256<<10, 300<<10
	m := start(t, cfg)
	for id, w := range m.watchers {
		w.lead()
		s := w.group.Snapshot()
		for i := range 60 {
			if _, ok, err := s.Get(fmt.Appendf(nil, "%d.%d", id, i)); !ok || err != nil {
				t.Errorf("%d.%d is missing at Lead: %v", id, i, err)
			}
		}
		s.Release()
	}
	m.stop()
	if left := m.host.intake.mu.backlogBytes; left != 0 {
		t.Errorf("%d bytes left in the backlog", left)
	}
}

// untruncated is a log that keeps everything.
type untruncated struct{ *memLog }

func (untruncated) TruncatePrefix(uint32, uint64, uint64) {}

func TestSequenceGapStepsDown(t *testing.T) {
	n := start(t, config(newMemLog(), newStore(), 4))
	w := n.watchers[4]
	epoch := w.lead()
	w.propose(epoch, 1, "a", "1")
	if err := w.group.Propose(epoch, 3, put("a", "3")); !errors.Is(err, ErrSequence) {
		t.Fatalf("propose with a gap: %v", err)
	}
	if err := w.group.Propose(epoch, 2, put("a", "2")); !errors.Is(err, ErrNotLeader) {
		t.Fatalf("propose after a gap: %v", err)
	}
	if cause := w.waitStepDown(1); !errors.Is(cause, ErrSequence) {
		t.Errorf("cause: %v", cause)
	}
	w.waitCommitted(epoch, 1)
	next := w.lead()
	if got := contents(t, w.group.Snapshot()); got != "a=1" {
		t.Errorf("holds %q, want what was proposed before the gap", got)
	}
	w.propose(next, 1, "a", "9")
	w.waitApplied(next, 1)
	if err := w.group.Propose(epoch, 2, put("a", "2")); !errors.Is(err, ErrNotLeader) {
		t.Errorf("propose in an old epoch: %v", err)
	}
}

func TestProposeRefusesWhatTheStoreCannotTake(t *testing.T) {
	n := start(t, config(newMemLog(), newStore(), 4))
	w := n.watchers[4]
	epoch := w.lead()
	big := make([]byte, storage.MaxValueBytes+1)
	var many storage.Batch
	for i := range 40_000 {
		many.Delete(fmt.Append(nil, i))
	}
	for name, test := range map[string]struct {
		payload []byte
		want    error
	}{
		"value":     {put("k", string(big)), ErrTooLarge},
		"key":       {put(string(big[:storage.MaxKeyBytes]), "v"), ErrTooLarge},
		"writes":    {many.AppendEncoded(nil), ErrTooLarge},
		"malformed": {[]byte{200}, storage.ErrMalformed},
	} {
		if err := w.group.Propose(epoch, 1, test.payload); !errors.Is(err, test.want) {
			t.Errorf("%s: %v", name, err)
		}
	}
	w.propose(epoch, 1, "k", string(big[:storage.MaxValueBytes]))
	w.waitApplied(epoch, 1)
}

func TestMergeIsBounded(t *testing.T) {
	store := newStore()
	cfg := config(newMemLog(), store, 1, 2)
	cfg.MaxApplyBytes, cfg.MaxApplyDelay = 4000, time.Hour
	n := start(t, cfg)
	value := string(make([]byte, 1000))
	for id, w := range n.watchers {
		epoch := w.lead()
		for i := range uint64(25) {
			w.propose(epoch, i+1, fmt.Sprint(i), value, "last", fmt.Sprint(id, ".", i))
		}
		w.waitCommitted(epoch, 25)
	}
	n.stop()
	for _, w := range n.watchers {
		s := w.group.Snapshot()
		if value, _, err := s.Get([]byte("last")); err != nil || string(value) != fmt.Sprint(w.group.ID(), ".", 24) {
			t.Errorf("last is %q, %v", value, err)
		}
		s.Release()
	}
}

// writesOf counts what a store is asked to write.
type writesOf struct {
	storage.Store
	mu   sync.Mutex
	keys map[string]int
}

func (s *writesOf) Commit(batch *storage.Batch) error {
	s.mu.Lock()
	for _, op := range batch.Ops() {
		s.keys[string(op.Key[rows.PrefixBytes:])]++
	}
	s.mu.Unlock()
	return s.Store.Commit(batch)
}

func TestWhatIsWrittenOnceAndDeletedLeavesNothing(t *testing.T) {
	store := &writesOf{Store: newStore(), keys: map[string]int{}}
	cfg := config(newMemLog(), store, 1)
	cfg.MaxApplyDelay = time.Hour
	cfg.Once = func(group GroupID, key []byte) bool {
		if group != 1 {
			t.Errorf("asked about group %d", group)
		}
		return strings.HasPrefix(string(key), "once")
	}
	n := start(t, cfg)
	w := n.watchers[1]
	epoch := w.lead()
	w.propose(epoch, 1, "once/old", "1", "often", "1")
	w.waitCommitted(epoch, 1)
	n.stop() // It is in the store: what is deleted from here on was there.
	n = start(t, cfg)
	w = n.watchers[1]
	epoch = w.lead()
	store.mu.Lock()
	clear(store.keys)
	store.mu.Unlock()
	w.propose(epoch, 1, "once/a", "1", "once/b", "1", "often", "2", "once/old", "-")
	w.propose(epoch, 2, "once/a", "-", "often", "-", "once/old", "2")
	w.propose(epoch, 3, "once/b", "-", "once/b", "2", "once/c", "1", "once/old", "-")
	w.propose(epoch, 4, "once/c", "-")
	w.waitCommitted(epoch, 4)
	n.stop()
	if got, want := contents(t, w.group.Snapshot()), "once/b=2"; got != want {
		t.Errorf("the store holds %q, want %q", got, want)
	}
	for key, want := range map[string]int{"once/a": 0, "once/b": 1, "once/c": 0, "once/old": 1, "often": 1} {
		if got := store.keys[key]; got != want {
			t.Errorf("%s was written %d times, want %d", key, got, want)
		}
	}
}

func TestConfigNamesEveryProblem(t *testing.T) {
	_, err := Open(Config{Groups: []GroupID{3, 3, 0xffff}, MaxApplyDelay: -1})
	for _, want := range []string{"Log is nil", "Store is nil", "NodeID is 0", "3 twice", "65535", "MaxApplyDelay is -1ns"} {
		if err == nil || !contains(err, want) {
			t.Errorf("error lacks %q: %v", want, err)
		}
	}
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
