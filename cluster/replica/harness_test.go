package replica

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/perdure/perdure/cluster/replica/rows"
	"github.com/perdure/perdure/storage"
	"github.com/perdure/perdure/storage/memstore"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// watcher is a Listener that remembers, and checks what every listener may rely on.
type watcher struct {
	t     testing.TB
	group *Group

	mu struct {
		sync.Mutex
		epoch     uint64 // leading in, or 0
		leads     []uint64
		causes    []error
		committed map[uint64]uint64 // epoch → sequence
		applied   map[uint64]uint64
		last      uint64 // epoch of the last Applied
		ended     bool   // Run returned
		changed   chan struct{}

		leader, leaderTerm uint64
	}
}

func newWatcher(t testing.TB) *watcher {
	w := &watcher{t: t}
	w.mu.committed, w.mu.applied = make(map[uint64]uint64), make(map[uint64]uint64)
	w.mu.changed = make(chan struct{})
	return w
}

func (w *watcher) change() {
	close(w.mu.changed)
	w.mu.changed = make(chan struct{})
}

func (w *watcher) Lead(epoch uint64) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.mu.epoch != 0 {
		w.t.Errorf("Lead(%d) while leading in %d", epoch, w.mu.epoch)
	}
	if n := len(w.mu.leads); n > 0 && w.mu.leads[n-1] >= epoch {
		w.t.Errorf("Lead(%d) after %v", epoch, w.mu.leads)
	}
	if w.mu.last != epoch {
		w.t.Errorf("Lead(%d) before the first entry of the term was applied; applied is epoch %d", epoch, w.mu.last)
	}
	w.mu.epoch = epoch
	w.mu.leads = append(w.mu.leads, epoch)
	w.change()
}

func (w *watcher) StepDown(epoch uint64, cause error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.mu.epoch != epoch || cause == nil {
		w.t.Errorf("StepDown(%d, %v) while leading in %d", epoch, cause, w.mu.epoch)
	}
	w.mu.epoch = 0
	w.mu.causes = append(w.mu.causes, cause)
	w.change()
}

func (w *watcher) Committed(epoch, sequence uint64) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.mu.epoch != epoch || w.mu.committed[epoch] >= sequence {
		w.t.Errorf("Committed(%d, %d) while leading in %d, after %d", epoch, sequence, w.mu.epoch, w.mu.committed[epoch])
	}
	w.mu.committed[epoch] = sequence
	w.change()
}

func (w *watcher) Applied(epoch, sequence uint64) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if epoch < w.mu.last || w.mu.applied[epoch] > sequence {
		w.t.Errorf("Applied(%d, %d) after (%d, %d)", epoch, sequence, w.mu.last, w.mu.applied[w.mu.last])
	}
	if w.mu.epoch == epoch && w.mu.committed[epoch] < sequence {
		w.t.Errorf("Applied(%d, %d) before it was Committed; that was %d", epoch, sequence, w.mu.committed[epoch])
	}
	w.mu.last = epoch
	w.mu.applied[epoch] = sequence
	w.change()
}

func (w *watcher) LeaderChanged(leader, term uint64) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if term < w.mu.leaderTerm || leader != 0 && term == w.mu.leaderTerm && w.mu.leader != 0 && leader != w.mu.leader {
		w.t.Errorf("LeaderChanged(%d, %d) after (%d, %d)", leader, term, w.mu.leader, w.mu.leaderTerm)
	}
	w.mu.leader, w.mu.leaderTerm = leader, term
	w.change()
}

// wait returns once ok, which is called with the lock held, is true.
func (w *watcher) wait(what string, ok func() bool) {
	w.t.Helper()
	deadline := time.After(waitLimit)
	for {
		w.mu.Lock()
		done, changed := ok(), w.mu.changed
		w.mu.Unlock()
		if done {
			return
		}
		select {
		case <-changed:
		case <-deadline:
			w.t.Fatalf("waited too long for %s", what)
		}
	}
}

// lead waits for leadership and returns its epoch.
func (w *watcher) lead() (epoch uint64) {
	w.t.Helper()
	w.wait("Lead", func() bool { epoch = w.mu.epoch; return epoch != 0 })
	return epoch
}

func (w *watcher) waitCommitted(epoch, sequence uint64) {
	w.t.Helper()
	w.wait(fmt.Sprintf("Committed(%d, %d)", epoch, sequence), func() bool { return w.mu.committed[epoch] >= sequence })
}

func (w *watcher) waitApplied(epoch, sequence uint64) {
	w.t.Helper()
	w.wait(fmt.Sprintf("Applied(%d, %d)", epoch, sequence), func() bool { return w.mu.applied[epoch] >= sequence })
}

// waitStepDown waits for the n-th StepDown, from 1, and returns its cause.
func (w *watcher) waitStepDown(n int) (cause error) {
	w.t.Helper()
	w.wait("StepDown", func() bool {
		if len(w.mu.causes) < n {
			return false
		}
		cause = w.mu.causes[n-1]
		return true
	})
	return cause
}

// node is a host under test with a watcher per group.
type node struct {
	t        testing.TB
	log      Log
	store    storage.Store
	host     *Host
	watchers map[GroupID]*watcher
	cancel   context.CancelFunc
	result   chan error
}

func quiet() *slog.Logger {
	if os.Getenv("REPLICA_TEST_LOG") != "" {
		return slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelDebug}))
	}
	return slog.New(slog.DiscardHandler)
}

func config(log Log, store storage.Store, groups ...GroupID) Config {
	return Config{
		Log: log, Store: store, NodeID: 7, Groups: groups, Found: true, Logger: quiet(),
		MaxApplyDelay: time.Millisecond, RetryDelay: 10 * time.Millisecond,
	}
}

// eager makes the loop step every proposal at once, so that appends overlap.
func eager(h *Host) { h.intake.gather = 1 }

// start opens and runs a host; the test's end stops it.
func start(t testing.TB, cfg Config, adjust ...func(*Host)) *node {
	t.Helper()
	n, err := tryStart(t, cfg, adjust...)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

func tryStart(t testing.TB, cfg Config, adjust ...func(*Host)) (*node, error) {
	t.Helper()
	host, err := Open(cfg)
	if err != nil {
		return nil, err
	}
	n := &node{t: t, log: cfg.Log, store: cfg.Store, host: host, watchers: make(map[GroupID]*watcher), result: make(chan error, 1)}
	for _, id := range cfg.Groups {
		w := newWatcher(t)
		w.group = host.Attach(id, w)
		n.watchers[id] = w
	}
	for _, fn := range adjust {
		fn(host)
	}
	ctx, cancel := context.WithCancel(context.Background())
	n.cancel = cancel
	go func() {
		err := host.Run(ctx)
		for _, w := range n.watchers {
			w.mu.Lock()
			w.mu.ended = true
			w.change()
			w.mu.Unlock()
		}
		n.result <- err
	}()
	t.Cleanup(func() {
		cancel()
		n.wait()
	})
	return n, nil
}

// wait returns what Run returned.
func (n *node) wait() error {
	n.t.Helper()
	select {
	case err := <-n.result:
		n.result <- err
		return err
	case <-time.After(waitLimit):
		n.t.Fatal("Run does not return")
		return nil
	}
}

// stop ends Run cleanly.
func (n *node) stop() {
	n.t.Helper()
	n.cancel()
	if err := n.wait(); err != nil {
		n.t.Fatalf("Run returned %v", err)
	}
}

// put encodes a payload from key, value pairs; a value "-" deletes.
func put(pairs ...string) []byte {
	var batch storage.Batch
	for i := 0; i < len(pairs); i += 2 {
		if pairs[i+1] == "-" {
			batch.Delete([]byte(pairs[i]))
		} else {
			batch.Put([]byte(pairs[i]), []byte(pairs[i+1]))
		}
	}
	return batch.AppendEncoded(nil)
}

func (w *watcher) propose(epoch, sequence uint64, pairs ...string) {
	w.t.Helper()
	if err := w.group.Propose(epoch, sequence, put(pairs...)); err != nil {
		w.t.Fatalf("propose (%d, %d): %v", epoch, sequence, err)
	}
}

// contents renders a snapshot as "k=v k=v" in key order.
func contents(t testing.TB, s storage.Snapshot) string {
	t.Helper()
	defer s.Release()
	var pairs []string
	if err := s.Scan(nil, nil, func(key, value []byte) bool {
		pairs = append(pairs, string(key)+"="+string(value))
		return true
	}); err != nil {
		t.Fatal(err)
	}
	return strings.Join(pairs, " ")
}

func newStore() *memstore.Store { return memstore.New(memstore.Options{}) }

// storedAt reads how far the store is for a group.
func storedAt(t testing.TB, store storage.Store, id GroupID) applied {
	t.Helper()
	s := store.Snapshot()
	defer s.Release()
	value, ok, err := s.Get(rows.Applied.Key(uint32(id)))
	if err != nil {
		t.Fatal(err)
	}
	if !ok {
		return applied{}
	}
	at, err := decodeApplied(value)
	if err != nil {
		t.Fatal(err)
	}
	return at
}

// waitLimit ends a test that waits for what does not come.
const waitLimit = 20 * time.Second
