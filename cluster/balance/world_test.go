package balance

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"github.com/perdure/perdure/cluster/placement"
	"github.com/perdure/perdure/cluster/registry"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// world is a registry, and nodes that do what they are told.
type world struct {
	t          *testing.T
	mu         sync.Mutex
	view       *registry.View
	changed    chan struct{}
	partitions map[uint32]*partition
	down       map[uint64]bool // refuses
	hangs      map[uint64]bool // says nothing
	asked      map[uint64]int
	// fail is asked before a step is taken, if set.
	fail  func(placement.Step) error
	delay time.Duration
	// stuck is a partition whose steps never end; 0: none.
	stuck uint32
	// Steps, in the order in which they were begun, and how many were under way at once.
	taken         []placement.Step
	running, most int
	cancelled     int
}

type partition struct {
	leader           uint64
	term             uint64
	voters, learners []uint64
	copiedAt         map[uint64]time.Time // of learners; zero: long ago
}

func newWorld(t *testing.T, partitions int, nodes ...uint64) *world {
	w := &world{
		t: t, changed: make(chan struct{}), partitions: map[uint32]*partition{}, down: map[uint64]bool{}, hangs: map[uint64]bool{},
		asked: map[uint64]int{}, delay: 10 * time.Millisecond,
		view: &registry.View{Version: 1, Epoch: 1, Settings: registry.Settings{Partitions: uint32(partitions), ReplicationFactor: 3}},
	}
	for id := range uint32(partitions) + 1 {
		w.partitions[id] = &partition{leader: 1, term: 1, voters: []uint64{1}, copiedAt: map[uint64]time.Time{}}
	}
	for _, id := range nodes {
		w.view.Nodes = append(w.view.Nodes, registry.Node{ID: id})
	}
	return w
}

// change publishes another view.
func (w *world) change(f func(*registry.View)) {
	w.mu.Lock()
	defer w.mu.Unlock()
	view := *w.view
	view.Nodes = slices.Clone(view.Nodes)
	f(&view)
	view.Version++
	w.view = &view
	close(w.changed)
	w.changed = make(chan struct{})
}

func (w *world) join(id uint64) {
	w.change(func(v *registry.View) { v.Nodes = append(v.Nodes, registry.Node{ID: id}) })
}

func (w *world) set(id uint64, to placement.State) {
	w.change(func(v *registry.View) {
		for i := range v.Nodes {
			if v.Nodes[i].ID == id {
				v.Nodes[i].State = to
			}
		}
	})
}

// Changed implements Registry.
func (w *world) Changed() (*registry.View, <-chan struct{}) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.view, w.changed
}

// kill takes a node away; others lead where a majority is left.
func (w *world) kill(id uint64) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.down[id] = true
	for _, p := range w.partitions {
		if p.leader != id {
			continue
		}
		alive := slices.DeleteFunc(slices.Clone(p.voters), func(v uint64) bool { return w.down[v] })
		if p.leader = 0; len(alive) > len(p.voters)/2 {
			p.leader = alive[0]
			p.term++
		}
	}
}

// Ask implements Statuses.
func (w *world) Ask(ctx context.Context, node uint64) ([]Status, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.asked[node]++
	if w.hangs[node] {
		w.mu.Unlock()
		<-ctx.Done()
		w.mu.Lock()
		return nil, ctx.Err()
	}
	if w.down[node] {
		return nil, errors.New("connection refused")
	}
	var out []Status
	for id, p := range w.partitions {
		if !slices.Contains(slices.Concat(p.voters, p.learners), node) {
			continue
		}
		s := Status{Partition: id, Leader: p.leader, Term: p.term, Leading: p.leader == node, Voters: slices.Clone(p.voters), Learners: slices.Clone(p.learners)}
		if s.Leading {
			for _, member := range slices.Concat(p.voters, p.learners) {
				if !w.down[member] && !w.hangs[member] && time.Since(p.copiedAt[member]) > 0 {
					s.CaughtUp = append(s.CaughtUp, member)
				}
			}
		}
		out = append(out, s)
	}
	return out, nil
}

// Take implements Steps.
func (w *world) Take(ctx context.Context, s placement.Step) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.taken = append(w.taken, s)
	w.running++
	w.most = max(w.most, w.running)
	fail, delay := w.fail, w.delay
	if w.stuck != 0 && s.Partition == w.stuck {
		delay = 1000 * time.Hour
	}
	w.mu.Unlock()
	var err error
	select {
	case <-time.After(delay):
	case <-ctx.Done():
		err = ctx.Err()
	}
	if err == nil && fail != nil {
		err = fail(s)
	}
	w.mu.Lock()
	w.running--
	if errors.Is(err, context.Canceled) {
		w.cancelled++
	}
	if err != nil {
		return err
	}
	p := w.partitions[s.Partition]
	now := placement.Configuration{Voters: sorted(p.voters), Learners: sorted(p.learners)}
	if w.down[s.Leader] || p.leader != s.Leader || !now.Equal(s.Expect) {
		return fmt.Errorf("%s: it is led by %d, and %v now", s, p.leader, now)
	}
	if s.Kind == placement.Transfer {
		p.leader = s.To
		p.term++
		return nil
	}
	add, _, _, _ := s.Changes()
	for _, id := range add {
		p.copiedAt[id] = time.Now().Add(time.Second)
	}
	p.voters, p.learners = slices.Clone(s.Want.Voters), slices.Clone(s.Want.Learners)
	return nil
}

// run balances in the background until the test's end.
func (w *world) run(adjust ...func(*Config)) *Balancer {
	w.t.Helper()
	config := Config{Registry: w, Statuses: w, Steps: w, Logger: slog.New(slog.DiscardHandler)}
	for _, f := range adjust {
		f(&config)
	}
	b, err := New(config)
	if err != nil {
		w.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error)
	go func() { ended <- b.Run(ctx) }()
	w.t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			w.t.Error(err)
		}
	})
	return b
}

func (w *world) leads() map[uint64]int {
	w.mu.Lock()
	defer w.mu.Unlock()
	out := map[uint64]int{}
	for id, p := range w.partitions {
		if id != 0 {
			out[p.leader]++
		}
	}
	return out
}

// on counts the partitions that have a copy on a node.
func (w *world) on(node uint64) (copies int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, p := range w.partitions {
		if slices.Contains(slices.Concat(p.voters, p.learners), node) {
			copies++
		}
	}
	return copies
}

// times is how often a node was asked.
func (w *world) times(node uint64) int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.asked[node]
}

func (w *world) count() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return len(w.taken)
}

// pass lets time pass, which costs none.
func pass(d time.Duration) {
	time.Sleep(d)
	synctest.Wait()
}

func bubble(t *testing.T, f func(*testing.T)) { t.Helper(); synctest.Test(t, f) }
