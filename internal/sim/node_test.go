package sim

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"testing/synctest"
	"time"

	"github.com/perdure/perdure/cluster/replica"
	"github.com/perdure/perdure/internal/invocation"
	"github.com/perdure/perdure/internal/invoker"
	"github.com/perdure/perdure/internal/invoker/remote"
	"github.com/perdure/perdure/internal/partition"
	"github.com/perdure/perdure/internal/peer"
	recordv1 "github.com/perdure/perdure/internal/record/v1"
	"github.com/perdure/perdure/internal/routing"
	"github.com/perdure/perdure/storage"
	"github.com/perdure/perdure/storage/memstore"
	"github.com/perdure/perdure/storage/nodelog"
	"github.com/perdure/perdure/storage/vfs"
)

// chance is a seeded source that goroutines share.
type chance struct {
	mu struct {
		sync.Mutex
		rand *rand.Rand
	}
}

func newChance(seed, stream uint64) *chance {
	c := &chance{}
	c.mu.rand = rand.New(rand.NewPCG(seed, stream))
	return c
}

// newCallChance is of one call of a caller: how often another call had to choose does not matter.
func newCallChance(seed uint64, caller, call int) *chance {
	return newChance(seed, uint64(caller)<<32|uint64(call))
}

func (c *chance) intn(n int) int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.mu.rand.IntN(n)
}

func (c *chance) between(low, high time.Duration) time.Duration {
	return low + time.Duration(c.intn(int(high-low)+1))
}

// slowDisk makes a sync take time, so that there is something between evaluated and durable.
type slowDisk struct {
	vfs.FS
	node *node
}

type slowFile struct {
	vfs.File
	disk slowDisk
}

func (d slowDisk) Create(name string) (vfs.File, error) { return d.slow(d.FS.Create(name)) }
func (d slowDisk) Open(name string) (vfs.File, error)   { return d.slow(d.FS.Open(name)) }

func (d slowDisk) slow(file vfs.File, err error) (vfs.File, error) {
	if err != nil {
		return nil, err
	}
	return slowFile{file, d}, nil
}

func (f slowFile) Sync() error {
	n := f.disk.node
	time.Sleep(n.world.disk.between(50*time.Microsecond, 4*time.Millisecond) + time.Duration(n.drag.Load()))
	err := f.File.Sync()
	n.world.events.text("sync", n.number+1, 0, err)
	n.standStill()
	return err
}

func (f slowFile) WriteAt(data []byte, at int64) (int, error) {
	f.disk.node.world.events.bytes("write", f.disk.node.number+1, int(at), data)
	return f.File.WriteAt(data, at)
}

// slowStore makes a commit take time, some of it after the batch is on disk.
type slowStore struct {
	*memstore.Store
	node *node
}

func (s slowStore) Commit(batch *storage.Batch) error {
	chance := s.node.world.disk
	if events := &s.node.world.events; events.kept {
		events.bytes("commit", s.node.number+1, 0, batch.AppendEncoded(nil))
	}
	time.Sleep(chance.between(0, 5*time.Millisecond))
	err := s.Store.Commit(batch)
	time.Sleep(chance.between(0, 2*time.Millisecond))
	s.node.standStill()
	return err
}

// disks are what outlives a process.
type disks struct {
	log   *vfs.Mem
	store *memstore.Store
}

// node is one process: what a crash takes away.
type node struct {
	*peer.Router
	local  *partition.Router
	server *peer.Server
	number int // from 0; its id is one more
	disks  disks
	world  *world
	runner *runner
	// attempts has other nodes run what this one has no handlers for; nil: all have all.
	attempts *remote.Invoker
	host     *replica.Host
	groups   []*group // of partition i+1
	log      *nodelog.Log
	// dead is set in the instant of the crash: whatever the process still says is not heard.
	dead   atomic.Bool
	drag   atomic.Int64                  // what each sync takes in addition, in nanoseconds
	paused atomic.Pointer[chan struct{}] // closed when it goes on; nil while it runs
	ended  chan struct{}                 // the host's Run returned
	cancel context.CancelFunc
	all    sync.WaitGroup
}

// watcher fails the simulation when a partition says what none ever should.
type watcher struct {
	slog.Handler
	node *node
}

func (h watcher) Enabled(ctx context.Context, level slog.Level) bool {
	return level >= slog.LevelError || h.Handler.Enabled(ctx, level)
}

func (h watcher) Handle(ctx context.Context, r slog.Record) error {
	if r.Message == "event failed" || strings.HasPrefix(r.Message, "damaged row") {
		text := r.Message
		r.Attrs(func(a slog.Attr) bool { text += " " + a.String(); return true })
		if !strings.Contains(text, "closed") { // the process is being ended
			h.node.world.fail("%s", text)
		}
	}
	if !h.Handler.Enabled(ctx, r.Level) {
		return nil
	}
	return h.Handler.Handle(ctx, r)
}

func logger() *slog.Logger {
	if os.Getenv("SIM_LOG") != "" {
		return slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelDebug}))
	}
	return slog.New(slog.DiscardHandler)
}

// open starts node number on its disks. Without a network there is no other.
func (w *world) open(number int, at disks, net *network) (*node, error) {
	n := &node{number: number, disks: at, world: w, ended: make(chan struct{})}
	n.runner = &runner{node: n}
	var err error
	n.log, err = nodelog.Open(nodelog.Options{
		Dir: "log", FS: slowDisk{at.log, n}, SegmentBytes: 32 << 10, MinFreeBytes: -1, CarryAfterSegments: 3, Logger: logger(),
	})
	if err != nil {
		return nil, fmt.Errorf("open log: %w", err)
	}
	var groups []replica.GroupID
	for id := range w.load.partitions {
		groups = append(groups, replica.GroupID(id+1))
	}
	replicas := replica.Config{
		Log: n.log, Store: slowStore{at.store, n}, NodeID: n.id(), Groups: groups, Found: number == 0, Logger: logger(),
		MaxApplyDelay: 15 * time.Millisecond, RetryDelay: 40 * time.Millisecond, MaxBacklogBytes: 256 << 10,
	}
	peers := peer.Config{Node: n.id(), Partitions: uint32(w.load.partitions)}
	transactionTimeout := time.Duration(0)
	if net != nil {
		replicas.Peers, replicas.TickInterval, replicas.RetainBytes = raftLink{net, n}, 10*time.Millisecond, 16<<10
		peers.Network = peerLink{net, n}
		// A clock that jumps takes time from a transaction, but not all of it.
		transactionTimeout = 4 * maxWrong
	}
	if n.host, err = replica.Open(replicas); err != nil {
		return nil, errors.Join(err, n.log.Close())
	}
	var runs invoker.Invoker = n.runner
	var deploymentOf func(invocation.Target, string) string
	if net != nil && w.load.hosting != 0 {
		n.attempts = remote.New(remote.Config{
			Node: n.id(), Local: n.runner, Directory: hosting{w, n.id()}, Call: peerLink{net, n}.attempts, Logger: logger(),
			Beat: 50 * time.Millisecond, Patience: time.Second, Avoid: 50 * time.Millisecond, HostWait: 2 * time.Second,
		})
		runs, deploymentOf = n.attempts, n.attempts.DeploymentOf
	}
	n.Router, err = peer.New(peers, func(elsewhere partition.Elsewhere) (*partition.Router, error) {
		n.local, err = partition.NewRouter(partition.Config{
			Invoker: runs, Partitions: uint32(w.load.partitions), Logger: slog.New(watcher{logger().Handler(), n}), MaxInbox: 1000, Between: n.between,
			Node: n.id(), Elsewhere: elsewhere, Now: n.now, TransactionTimeout: transactionTimeout, DeploymentOf: deploymentOf,
		}, n.attach)
		return n.local, err
	})
	if err != nil {
		return nil, errors.Join(err, n.log.Close())
	}
	n.server = peer.NewServer(n.Router)
	ctx, cancel := context.WithCancel(context.Background())
	n.cancel = cancel
	n.all.Go(func() {
		defer close(n.ended)
		if err := n.host.Run(ctx); err != nil {
			w.trace("host: %v", err)
		}
	})
	routerCtx, stopRouter := context.WithCancel(context.Background())
	n.all.Go(func() { <-ctx.Done(); <-n.ended; stopRouter() })
	n.all.Go(func() { _ = n.local.Run(routerCtx) })
	return n, nil
}

// endAttempts ends what handlers do for others and for this node.
func (n *node) endAttempts() {
	if n.attempts != nil {
		n.attempts.Close()
	}
	n.runner.wait()
}

// hosting is what a node knows of who has handlers: all there is to know, but for who is alive.
type hosting struct {
	world *world
	node  uint64
}

// has reports whether a node hosts anything: which ones do follows from the seed.
func (h hosting) has(node uint64) bool {
	return (node+h.world.seed)%uint64(h.world.load.nodes) < uint64(h.world.load.hosting)
}

// Here implements remote.Directory.
func (h hosting) Here(invocation.Target) bool { return h.has(h.node) }

// Hosts implements remote.Directory.
func (h hosting) Hosts(invocation.Target, string) (nodes []uint64) {
	for node := uint64(1); node <= uint64(h.world.load.nodes); node++ {
		if node != h.node && h.has(node) {
			nodes = append(nodes, node)
		}
	}
	return nodes
}

// Exactly implements remote.Directory. Each node is a build of its own.
func (h hosting) Exactly(target invocation.Target, deployment string) (nodes []uint64) {
	for _, node := range h.Hosts(target, "") {
		if buildOf(node) == deployment {
			nodes = append(nodes, node)
		}
	}
	return nodes
}

// Deployment implements remote.Directory.
func (h hosting) Deployment(string) string {
	if h.has(h.node) {
		return buildOf(h.node)
	}
	return buildOf(h.Hosts(invocation.Target{}, "")[0])
}

func buildOf(node uint64) string { return fmt.Sprint("build ", node) }

// Changed implements remote.Directory.
func (hosting) Changed() <-chan struct{} { return nil }

func (n *node) id() uint64 { return uint64(n.number + 1) }

// now is what its wall clock shows.
func (n *node) now() time.Time {
	return time.Now().Add(time.Duration(n.world.clocks[n.number].Load()))
}

// look calls a READ handler, which only fails if its time is over while another node runs it.
func (n *node) look(ctx context.Context, t invocation.Target) (*recordv1.Result, error) {
	result, err := n.Read(ctx, invoke(t, invocation.ModeRead, nil, ""))
	if failure := result.GetError(); failure != nil {
		if failure.GetCode() != uint32(routing.CodeDeadlineExceeded) {
			n.world.fail("READ of %s failed with %v", t, failure)
		}
		return nil, fmt.Errorf("%s: %w", failure.GetMessage(), context.DeadlineExceeded)
	}
	return result, err
}

// State is all that is kept of an object.
func (n *node) State(ctx context.Context, object invocation.Object) (*routing.ObjectState, error) {
	return n.StatePage(ctx, routing.StateQuery{Object: object})
}

// Invocations lists all that match.
func (n *node) Invocations(ctx context.Context, filter routing.Filter) (found []routing.InvocationDetail, err error) {
	for {
		page, err := n.InvocationsPage(ctx, filter)
		if err != nil {
			return nil, err
		}
		found = append(found, page.Found...)
		if filter.After = page.Next; filter.After.IsZero() {
			return found, nil
		}
	}
}

// pause makes the process stand still, as one that is stopped by a signal or waits for memory: its clock
// goes on, what is sent to it waits, and when it goes on it does not know that it stood.
func (n *node) pause() {
	goesOn := make(chan struct{})
	n.paused.CompareAndSwap(nil, &goesOn)
}

// resume lets it go on.
func (n *node) resume() {
	if goesOn := n.paused.Swap(nil); goesOn != nil {
		close(*goesOn)
	}
}

// standStill returns once the process runs. It is called wherever the process says something or hears from a
// disk, which is soon for each of its goroutines.
func (n *node) standStill() {
	if goesOn := n.paused.Load(); goesOn != nil {
		<-*goesOn
	}
}

// stop ends the process in order and leaves its disks as they are.
func (n *node) stop() disks {
	n.resume()
	n.cancel()
	n.all.Wait()
	n.endAttempts()
	n.dead.Store(true)
	if err := n.log.Close(); err != nil && !errors.Is(err, vfs.ErrPowerCut) {
		n.world.trace("close log: %v", err)
	}
	return disks{n.disks.log, n.disks.store.Reopen()}
}

// crash ends the process between two instructions and returns what a power cut leaves.
func (n *node) crash(seed uint64) disks {
	// Everybody waits for something: log and store are cut at the same instant.
	synctest.Wait()
	n.dead.Store(true)
	left := disks{n.disks.log.PowerCut(seed), n.disks.store.Clone(seed)}
	n.disks.log.CutPowerAfter(0)
	n.resume()
	n.cancel()
	n.all.Wait()
	n.endAttempts()
	_ = n.log.Close()
	return left
}
