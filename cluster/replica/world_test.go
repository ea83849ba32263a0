package replica

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/perdure/perdure/storage"
	"github.com/perdure/perdure/storage/memstore"
	"github.com/perdure/perdure/storage/nodelog"
)

// world is a cluster under test: hosts with disks in memory, on a network that can be bad. It runs
// in a synctest bubble, so its time costs nothing.
type world struct {
	t       testing.TB
	net     *fakeNet
	groups  []GroupID
	nodes   []*worldNode
	streams sync.WaitGroup
	history *history
	adjust  func(*Config)

	// fullDisks is how many of a thousand appends are refused.
	fullDisks atomic.Int32
	// observe, if set, is called around each append and commit.
	observe atomic.Pointer[func(*worldNode)]
	// voters, if set, is told of each vote that is granted, once it was sent.
	voters atomic.Pointer[func(*worldNode)]

	mu struct {
		sync.Mutex
		rand      *rand.Rand
		snapshots int
	}
}

// worldNode is a node with its disks, which outlive its runs.
type worldNode struct {
	world *world
	id    uint64
	log   *memLog
	store *memstore.Store

	mu struct {
		sync.Mutex
		run *worldRun // nil while it is down
	}
}

// worldRun is a host from its start to its crash or end.
type worldRun struct {
	node      *worldNode
	host      *Host
	groups    map[GroupID]*Group
	listeners map[GroupID]*worldListener
	cancel    context.CancelFunc
	result    chan error

	mu struct {
		sync.Mutex
		dead bool
	}
}

func newWorld(t testing.TB, seed uint64, nodes int, groups ...GroupID) *world {
	w := &world{t: t, groups: groups, history: newHistory(t)}
	w.mu.rand = rand.New(rand.NewPCG(seed, 5))
	w.net = newFakeNet(w, seed)
	for i := range nodes {
		w.nodes = append(w.nodes, &worldNode{world: w, id: uint64(i + 1), log: newMemLog(), store: newStore()})
	}
	return w
}

func (w *world) noteSnapshot() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.mu.snapshots++
}

func (w *world) snapshots() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.mu.snapshots
}

func (w *world) chance() *rand.Rand { // a source for one goroutine
	w.mu.Lock()
	defer w.mu.Unlock()
	return rand.New(rand.NewPCG(w.mu.rand.Uint64(), 9))
}

func (w *world) node(id uint64) *worldNode { return w.nodes[id-1] }

// current is the run of a node, or nil.
func (w *world) current(id uint64) *worldRun {
	n := w.node(id)
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.mu.run
}

func (r *worldRun) isDead() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.mu.dead
}

// start begins a run of a node that is down. Node 1 founds the groups.
func (n *worldNode) start() {
	w := n.world
	r := &worldRun{node: n, groups: map[GroupID]*Group{}, listeners: map[GroupID]*worldListener{}, result: make(chan error, 1)}
	cfg := Config{
		Log: n.log, Store: observedStore{n.store, n}, NodeID: n.id, Groups: w.groups, Found: n.id == 1, Logger: quiet().With("node", n.id),
		Peers: endpoint{w.net, n, r}, MaxApplyDelay: 5 * time.Millisecond, RetryDelay: 100 * time.Millisecond,
	}
	if w.adjust != nil {
		w.adjust(&cfg)
	}
	disk := w.chance()
	var disks sync.Mutex
	n.log.gate = func(written bool) error {
		if r.isDead() {
			return errInjected
		}
		if observe := w.observe.Load(); observe != nil {
			(*observe)(n)
		}
		disks.Lock()
		pause := time.Duration(disk.Int64N(int64(2 * time.Millisecond)))
		if disk.IntN(300) == 0 {
			pause *= 200
		}
		full := disk.Int32N(1000) < w.fullDisks.Load()
		disks.Unlock()
		time.Sleep(pause)
		switch {
		case r.isDead():
			return errInjected
		case full && !written:
			return nodelog.ErrNoSpace
		}
		return nil
	}
	host, err := Open(cfg)
	if err != nil {
		w.t.Errorf("node %d: open: %v", n.id, err)
		return
	}
	r.host = host
	for _, id := range w.groups {
		l := &worldListener{run: r, id: id}
		r.listeners[id] = l
		r.groups[id] = host.Attach(id, l)
		l.group = r.groups[id]
	}
	ctx, cancel := context.WithCancel(context.Background())
	r.cancel = cancel
	n.mu.Lock()
	n.mu.run = r
	n.mu.Unlock()
	go func() { r.result <- host.Run(ctx) }()
}

// observedStore tells the world when something is written.
type observedStore struct {
	*memstore.Store
	node *worldNode
}

func (s observedStore) Commit(batch *storage.Batch) error {
	if observe := s.node.world.observe.Load(); observe != nil {
		(*observe)(s.node)
		defer (*observe)(s.node)
	}
	return s.Store.Commit(batch)
}

// crash cuts a node's power: what its disks had acknowledged is there at the next start, and of what they
// were just writing perhaps some.
func (n *worldNode) crash() {
	n.mu.Lock()
	r := n.mu.run
	n.mu.run = nil
	n.mu.Unlock()
	if r == nil {
		return
	}
	r.checkHealth()
	seed := n.world.chance().Uint64()
	r.mu.Lock() // whoever tells something of this run holds it
	r.mu.dead = true
	n.log.frozen(func(log *memLog) {
		n.log, n.store = log, n.store.Clone(seed)
	})
	r.mu.Unlock()
	r.cancel()
	<-r.result
}

// checkHealth complains about what no crash, network or full disk excuses.
func (r *worldRun) checkHealth() {
	for id, err := range r.host.Halted() {
		r.node.world.t.Errorf("node %d: partition %d is halted: %v", r.node.id, id, err)
	}
	select {
	case err := <-r.result:
		r.node.world.t.Errorf("node %d: Run returned %v", r.node.id, err)
		r.result <- err
	default:
	}
}

// stop ends a node's run in order.
func (n *worldNode) stop() {
	n.mu.Lock()
	r := n.mu.run
	n.mu.Unlock()
	if r == nil {
		return
	}
	r.checkHealth()
	r.cancel()
	if err := <-r.result; err != nil {
		n.world.t.Errorf("node %d: run: %v", n.id, err)
	}
	n.mu.Lock()
	n.mu.run = nil
	n.mu.Unlock()
	r.mu.Lock()
	r.mu.dead = true
	r.mu.Unlock()
}

func (w *world) stopAll() {
	for _, n := range w.nodes {
		n.stop()
	}
	w.streams.Wait()
}

// worldListener is a partition's stand-in: it proposes while it leads, and tells the history.
type worldListener struct {
	run   *worldRun
	id    GroupID
	group *Group

	mu struct {
		sync.Mutex
		epoch  uint64
		next   uint64
		leader uint64
		term   uint64
	}
}

// alive runs fn unless the run has crashed, in which case nobody hears what it says.
func (l *worldListener) alive(fn func()) {
	l.run.mu.Lock()
	defer l.run.mu.Unlock()
	if !l.run.mu.dead {
		fn()
	}
}

func (l *worldListener) Lead(epoch uint64) {
	l.alive(func() {
		l.mu.Lock()
		l.mu.epoch, l.mu.next = epoch, 1
		l.mu.Unlock()
		l.run.node.world.history.lead(l.id, epoch, l.run.node.id)
	})
}

func (l *worldListener) StepDown(epoch uint64, cause error) {
	l.alive(func() {
		l.mu.Lock()
		defer l.mu.Unlock()
		if l.mu.epoch != epoch || cause == nil {
			l.run.node.world.t.Errorf("StepDown(%d, %v) while leading in %d", epoch, cause, l.mu.epoch)
		}
		l.mu.epoch = 0
	})
}

func (l *worldListener) Committed(epoch, sequence uint64) {
	l.alive(func() { l.run.node.world.history.committed(l.id, epoch, sequence, l.run.node.id) })
}

func (l *worldListener) Applied(epoch, sequence uint64) {}

func (l *worldListener) LeaderChanged(leader, term uint64) {
	l.alive(func() {
		l.mu.Lock()
		defer l.mu.Unlock()
		if term < l.mu.term {
			l.run.node.world.t.Errorf("partition %d: LeaderChanged(%d, %d) after term %d", l.id, leader, term, l.mu.term)
		}
		l.mu.leader, l.mu.term = leader, term
	})
}

func (l *worldListener) leader() uint64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.mu.leader
}

// propose proposes the next record if the node leads.
func (l *worldListener) propose() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.mu.epoch == 0 {
		return false
	}
	err := l.group.Propose(l.mu.epoch, l.mu.next, worldRecord(l.mu.epoch, l.mu.next))
	switch {
	case err == nil:
		l.mu.next++
		return true
	case errors.Is(err, ErrNotLeader), errors.Is(err, ErrBacklog):
	default:
		l.run.node.world.t.Errorf("partition %d: propose: %v", l.id, err)
	}
	return false
}

// worldRecord is a row of its own for each record, and a row that every record overwrites.
func worldRecord(epoch, sequence uint64) []byte {
	id := fmt.Sprintf("%06d.%06d", epoch, sequence)
	return put("row/"+id, strings.Repeat("x", int(sequence%50)), "last", id)
}

// history is what all nodes together said, and checks it.
type history struct {
	t  testing.TB
	mu struct {
		sync.Mutex
		leaders map[string]uint64 // partition and epoch → node
		acked   map[GroupID]map[uint64]uint64
	}
}

func newHistory(t testing.TB) *history {
	h := &history{t: t}
	h.mu.leaders, h.mu.acked = make(map[string]uint64), make(map[GroupID]map[uint64]uint64)
	return h
}

func (h *history) lead(id GroupID, epoch, node uint64) {
	h.mu.Lock()
	defer h.mu.Unlock()
	key := fmt.Sprint(id, " ", epoch)
	if other, ok := h.mu.leaders[key]; ok {
		h.t.Errorf("partition %d: node %d leads epoch %d, which node %d led", id, node, epoch, other)
	}
	h.mu.leaders[key] = node
}

func (h *history) committed(id GroupID, epoch, sequence, node uint64) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.mu.leaders[fmt.Sprint(id, " ", epoch)] != node {
		h.t.Errorf("partition %d: node %d commits in epoch %d, which it does not lead", id, node, epoch)
	}
	if h.mu.acked[id] == nil {
		h.mu.acked[id] = make(map[uint64]uint64)
	}
	if h.mu.acked[id][epoch] >= sequence {
		h.t.Errorf("partition %d: Committed(%d, %d) after %d", id, epoch, sequence, h.mu.acked[id][epoch])
	}
	h.mu.acked[id][epoch] = sequence
}

// latest is the newest record that was acknowledged: reads that begin now must see it.
func (h *history) latest(id GroupID) (epoch, sequence uint64) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for e, s := range h.mu.acked[id] {
		if e >= epoch && s > 0 {
			epoch, sequence = e, s
		}
	}
	return epoch, sequence
}

func (h *history) count(id GroupID) (n uint64) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, s := range h.mu.acked[id] {
		n += s
	}
	return n
}

// check compares a replica's rows with what was acknowledged: of each epoch all of it, perhaps more,
// and nothing out of order.
func (h *history) check(id GroupID, node uint64, rows map[string]string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	have := map[uint64]uint64{} // epoch → records
	last := ""
	for key := range rows {
		var epoch, sequence uint64
		if n, _ := fmt.Sscanf(key, "row/%d.%d", &epoch, &sequence); n == 2 {
			have[epoch]++
			last = max(last, strings.TrimPrefix(key, "row/"))
			if rows[key] != strings.Repeat("x", int(sequence%50)) {
				h.t.Errorf("partition %d on node %d: row %s is %q", id, node, key, rows[key])
			}
		}
	}
	for epoch, n := range have {
		for sequence := range n {
			if _, ok := rows[fmt.Sprintf("row/%06d.%06d", epoch, sequence+1)]; !ok {
				h.t.Errorf("partition %d on node %d: epoch %d has %d records and lacks %d", id, node, epoch, n, sequence+1)
			}
		}
	}
	for epoch, sequence := range h.mu.acked[id] {
		if have[epoch] < sequence {
			h.t.Errorf("partition %d on node %d: %d records of epoch %d were acknowledged, %d are there", id, node, sequence, epoch, have[epoch])
		}
	}
	if rows["last"] != last {
		h.t.Errorf("partition %d on node %d: the last record is %s, the row that all overwrite says %s", id, node, last, rows["last"])
	}
}

func rowsOf(t testing.TB, s storage.Snapshot) map[string]string {
	t.Helper()
	defer s.Release()
	rows := map[string]string{}
	if err := s.Scan(nil, nil, func(key, value []byte) bool {
		rows[string(key)] = string(value)
		return true
	}); err != nil {
		t.Error(err)
	}
	return rows
}

// until waits for a condition, for at most so long of the bubble's time.
func (w *world) until(what string, limit time.Duration, ok func() bool) bool {
	w.t.Helper()
	for deadline := time.Now().Add(limit); ; time.Sleep(10 * time.Millisecond) {
		if ok() {
			return true
		}
		if time.Now().After(deadline) {
			w.t.Errorf("waited %v for %s", limit, what)
			for _, n := range w.nodes {
				if r := w.current(n.id); r != nil {
					for _, id := range w.groups {
						w.t.Logf("node %d partition %d: %+v; %v", n.id, id, r.groups[id].Status(), r.host.Health())
					}
				}
			}
			return false
		}
	}
}

// leader returns the run that leads a group, or nil.
func (w *world) leader(id GroupID) *worldRun {
	var found *worldRun
	epoch := uint64(0)
	for _, n := range w.nodes {
		if r := w.current(n.id); r != nil {
			l := r.listeners[id]
			l.mu.Lock()
			if l.mu.epoch > epoch {
				found, epoch = r, l.mu.epoch
			}
			l.mu.Unlock()
		}
	}
	return found
}

func (w *world) waitLeader(id GroupID) *worldRun {
	w.t.Helper()
	w.until(fmt.Sprintf("a leader of partition %d", id), time.Minute, func() bool { return w.leader(id) != nil })
	return w.leader(id)
}

// grow makes the nodes voters of a group.
func (w *world) grow(id GroupID, nodes ...uint64) {
	w.t.Helper()
	w.until(fmt.Sprintf("partition %d on nodes %v", id, nodes), 2*time.Minute, func() bool {
		r := w.leader(id)
		if r == nil {
			return false
		}
		s := r.groups[id].Status()
		change := Change{Expect: s.Members}
		for _, node := range nodes {
			if slices.Contains(s.Voters, node) {
				continue
			}
			if i := slices.IndexFunc(s.Peers, func(p PeerStatus) bool { return p.Node == node }); i < 0 {
				change.AddLearners = append(change.AddLearners, node)
			} else if s.Peers[i].CaughtUp {
				change.Promote = append(change.Promote, node)
			}
		}
		if len(change.AddLearners)+len(change.Promote) > 0 {
			ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
			defer cancel()
			err := r.groups[id].Reconfigure(ctx, change)
			if err != nil && !errors.Is(err, ErrChanged) && !errors.Is(err, ErrNotLeader) && !errors.Is(err, ErrUnknown) && !errors.Is(err, ErrBehind) && ctx.Err() == nil {
				w.t.Errorf("reconfigure: %v", err)
			}
			return false
		}
		return len(s.Voters) >= len(nodes) && len(s.Outgoing) == 0 && !slices.ContainsFunc(nodes, func(n uint64) bool { return !slices.Contains(s.Voters, n) })
	})
}

// agree waits until all members of the groups have the same rows, and checks them.
func (w *world) agree() {
	w.t.Helper()
	for _, id := range w.groups {
		w.until(fmt.Sprintf("the replicas of partition %d to be equal", id), 2*time.Minute, func() bool {
			r := w.leader(id)
			if r == nil {
				return false
			}
			s := r.groups[id].Status()
			for _, node := range slices.Concat(s.Voters, s.Learners) {
				other := w.current(node)
				if other == nil || other.groups[id].Status().Applied != s.Commit {
					return false
				}
			}
			return len(s.Voters) > 0
		})
		r := w.leader(id)
		if r == nil {
			continue
		}
		s := r.groups[id].Status()
		var first map[string]string
		for _, node := range slices.Concat(s.Voters, s.Learners) {
			other := w.current(node)
			if other == nil {
				continue
			}
			rows := rowsOf(w.t, other.groups[id].Snapshot())
			w.history.check(id, node, rows)
			if first == nil {
				first = rows
			} else if len(rows) != len(first) {
				w.t.Errorf("partition %d: node %d has %d rows, another %d", id, node, len(rows), len(first))
			}
		}
	}
}

// proposing proposes n records to a group, wherever its leader is, and waits until as many more are
// acknowledged.
func (w *world) proposing(id GroupID, n int) {
	w.t.Helper()
	before := w.history.count(id)
	w.until(fmt.Sprintf("%d records of partition %d", n, id), 2*time.Minute, func() bool {
		if r := w.leader(id); r != nil {
			for range min(n, 20) {
				r.listeners[id].propose()
			}
		}
		return w.history.count(id) >= before+uint64(n)
	})
}

func TestThreeNodes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 1, 3, 0, 1, 2)
		for _, n := range w.nodes {
			n.start()
		}
		defer w.stopAll()
		for _, id := range w.groups {
			w.waitLeader(id)
			w.proposing(id, 50)
			w.grow(id, 1, 2, 3)
			w.proposing(id, 50)
		}
		w.agree()
		if w.snapshots() == 0 {
			t.Error("no snapshot was sent")
		}
		w.node(1).crash()
		for _, id := range w.groups {
			w.proposing(id, 50)
		}
		w.node(1).start()
		w.agree()
	})
}
