package cluster

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"maps"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/perdure/perdure/actor"
	"github.com/perdure/perdure/cluster/balance/remote"
	"github.com/perdure/perdure/cluster/replica"
	"github.com/perdure/perdure/internal/admin"
	"github.com/perdure/perdure/internal/invocation"
	"github.com/perdure/perdure/internal/invoker"
	"github.com/perdure/perdure/internal/invoker/inprocess"
	invokerremote "github.com/perdure/perdure/internal/invoker/remote"
	"github.com/perdure/perdure/internal/partition"
	"github.com/perdure/perdure/internal/peer"
	"github.com/perdure/perdure/internal/routing"
	"github.com/perdure/perdure/internal/stress"
	"github.com/perdure/perdure/internal/table"
	"github.com/perdure/perdure/internal/telemetry"
	"github.com/perdure/perdure/storage"
	"github.com/perdure/perdure/storage/badgerstore"
	"github.com/perdure/perdure/storage/memstore"
	"github.com/perdure/perdure/storage/nodelog"
	"github.com/perdure/perdure/storage/vfs"
)

// registration is one call of RegisterService.
type registration struct {
	desc    *actor.ServiceDesc
	handler any
}

// engine is what serves calls, below the edge. Tests put another in its place.
type engine interface {
	routing.Router
	// Health is nil while calls can be served, be it of some partitions only.
	Health() error
	// Failures says which partitions can't be served while others can, and why.
	Failures() map[uint32]error
	// Unhosted counts, by service, the attempts that wait for a node which hosts it.
	Unhosted() map[string]int
	// Failed is closed when the engine can serve no more; Health says why.
	Failed() <-chan struct{}
	// Describe says how partitions and storage are.
	Describe() ([]admin.PartitionInfo, admin.StorageInfo)
	// ReleaseSchedules lets schedules fire, which they don't from the start.
	ReleaseSchedules()
	// Leave hands what this node leads over to other nodes, as far as there are any that can take
	// it, and returns when that is done or ctx ends.
	Leave(ctx context.Context)
	// Close answers whoever waits with unavailable, makes durable what was accepted, and
	// releases the data directory's files. A handler that does not heed its context outlives
	// ctx: that is an error, and the rest is closed all the same.
	Close(ctx context.Context) error
}

// handlers checks and registers what RegisterService was given. lastWith may be nil.
func handlers(config Config, instruments *telemetry.Telemetry, registered []registration, lastWith func(service, handler string) string) (*inprocess.Invoker, error) {
	runner := inprocess.New(inprocess.Config{
		Logger: config.Logger, TracerProvider: instruments.TracerProvider(),
		LastWith: lastWith, InactivityTimeout: config.InactivityTimeout, MaxParked: config.MaxParked, StepTimeout: config.StepTimeout, Retention: config.Retention,
	})
	to := &registrar{runner: runner}
	within := actor.WithMiddleware(to, config.Middleware...)
	for _, r := range registered {
		within.RegisterService(r.desc, r.handler)
	}
	return runner, errors.Join(to.problems...)
}

// registrar registers with a runner and collects what is wrong.
type registrar struct {
	runner   *inprocess.Invoker
	problems []error
}

// RegisterService implements actor.Registrar.
func (r *registrar) RegisterService(desc *actor.ServiceDesc, handler any) {
	r.problems = append(r.problems, r.runner.Register(desc, handler))
}

// partitions is the engine of a node with its data on disk.
type partitions struct {
	*peer.Router
	local  *partition.Router // of the partitions led here
	log    *nodelog.Log
	store  storage.Store
	host   *replica.Host
	runner *inprocess.Invoker
	// attempts has other nodes run what this one has no handlers for; nil: there are no other nodes.
	attempts *invokerremote.Invoker
	layout   *layout
	logger   *slog.Logger
	meters   *telemetry.Instruments // nil: metrics are off
	led      []*led                 // partition i+1
	groups   map[uint32]*replica.Group
	peers    *network // nil: there are no other nodes
	// inMemory: there are no files.
	inMemory bool

	stopHost, stopRouter context.CancelFunc
	unobserve            func() error   // ends the export of levels; nil before it began
	running              sync.WaitGroup // the goroutines of host and router
	failed               chan struct{}
	hostEnded            chan struct{}
}

// openPartitions opens log and store and runs the partitions; it returns when all of them can
// serve but those that can't be led at all.
func openPartitions(ctx context.Context, config Config, at *layout, peers *network, instruments *telemetry.Telemetry, registered []registration) (engine, error) {
	runner, err := handlers(config, instruments, registered, at.lastWith)
	if err != nil {
		return nil, err
	}
	started := time.Now()
	e := &partitions{
		runner: runner, layout: at, logger: config.Logger, meters: instruments.Instruments(), inMemory: config.InMemory, peers: peers, groups: map[uint32]*replica.Group{},
		failed: make(chan struct{}), hostEnded: make(chan struct{}),
	}
	if err := e.open(ctx, config, at, instruments.Tracer()); err != nil {
		if e.attempts != nil {
			e.attempts.Close()
		}
		return nil, errors.Join(err, runner.Close(ctx), e.release())
	}
	// Neither is a child of ctx, which bounds Start only: they end in Close, in order.
	hostCtx, stopHost := context.WithCancel(context.WithoutCancel(ctx))
	routerCtx, stopRouter := context.WithCancel(context.WithoutCancel(ctx))
	e.stopHost, e.stopRouter = stopHost, stopRouter
	e.running.Go(func() {
		if err := e.local.Run(routerCtx); err != nil {
			config.Logger.Error("the partitions failed", telemetry.KeyError, err)
		}
	})
	e.running.Go(func() {
		defer close(e.hostEnded)
		if err := e.host.Run(hostCtx); err != nil {
			config.Logger.Error("the log or the store failed: the node serves no more", telemetry.KeyError, err)
			close(e.failed)
		}
	})
	if peers != nil {
		peers.connect(ctx, receivers{host: e.host, router: e.Router, server: peer.NewServer(e.Router), groups: remote.Server{Groups: e.groups}, attempts: e.attempts, leads: e.leads, census: e.census})
	}
	if err := e.ready(ctx); err != nil {
		return nil, errors.Join(err, e.Close(ctx))
	}
	if e.unobserve, err = e.meters.Observe(e.levels); err != nil {
		return nil, errors.Join(err, e.Close(ctx))
	}
	config.Logger.Info("the partitions are led", telemetry.KeyPartitions, int(at.identity.Partitions)-len(e.Failures()),
		telemetry.KeyPath, at.dir, telemetry.KeyDuration, time.Since(started).Round(time.Millisecond))
	return e, nil
}

// led is a partition's listener that remembers who leads.
type led struct {
	replica.Listener
	epoch   atomic.Uint64 // 0 while another node leads or nobody does
	changed func()        // nil: nobody cares
}

// Lead implements replica.Listener.
func (l *led) Lead(epoch uint64) {
	l.epoch.Store(epoch)
	l.Listener.Lead(epoch)
	if l.changed != nil {
		l.changed()
	}
}

// StepDown implements replica.Listener.
func (l *led) StepDown(epoch uint64, cause error) {
	l.epoch.Store(0)
	l.Listener.StepDown(epoch, cause)
	if l.changed != nil {
		l.changed()
	}
}

// leads are the partitions that this node leads, with their epochs.
func (e *partitions) leads() map[uint32]uint64 {
	led := map[uint32]uint64{}
	for i, l := range e.led {
		if epoch := l.epoch.Load(); epoch != 0 {
			led[uint32(i)+1] = epoch
		}
	}
	return led
}

func (e *partitions) open(ctx context.Context, config Config, at *layout, tracer *telemetry.Tracer) error {
	if err := e.openDisk(config, at); err != nil {
		return err
	}
	entryBytes, err := e.maxEntryBytes(config)
	if err != nil {
		return err
	}
	replicas := e.replicas(config, at)
	if e.meters != nil {
		replicas.OnAppend, replicas.OnCommit = e.meters.Append, e.meters.Commit
	}
	e.host, err = replica.Open(replicas)
	if err != nil {
		return fmt.Errorf("%s with %s: %w", at.storeDir(), at.logDir(), err)
	}
	if at.opened != nil {
		if err := at.opened(); err != nil {
			return err
		}
	}
	peers := peer.Config{Node: at.identity.raftID, Partitions: at.identity.Partitions}
	var changed func()
	var level func() uint32
	var runs invoker.Invoker = e.runner
	var deploymentOf func(target invocation.Target, tied string) string
	if e.peers != nil {
		e.attempts = e.peers.invoker(e.runner, config.Logger)
		runs, deploymentOf = e.attempts, e.attempts.DeploymentOf
		peers.Network, changed, level = requests{e.peers}, e.peers.ledChanged, e.peers.writtenLevel
		e.groups[0] = e.host.Attach(0, e.peers.registry)
		if err := e.peers.registry.Attach(e.groups[0]); err != nil {
			return err
		}
		if err := e.peers.introduce(ctx, e.log); err != nil {
			return err
		}
	}
	e.Router, err = peer.New(peers, func(elsewhere partition.Elsewhere) (*partition.Router, error) {
		e.local, err = partition.NewRouter(partition.Config{
			Invoker: runs, Logger: config.Logger, Partitions: at.identity.Partitions, Node: at.identity.raftID, Elsewhere: elsewhere,
			TransactionTimeout: config.TransactionTimeout, StepTimeout: max(config.StepTimeout, 0),
			Deployment: config.Deployment, DeploymentOf: deploymentOf, CrashAtEveryEntry: config.CrashAtEveryEntry || stress.Crashing(), MaxEntryBytes: entryBytes, MaxEntryWrites: e.maxEntryWrites(),
			MaxResultBytes: config.MaxResultBytes,
			Tracer:         tracer, Instruments: e.meters, HoldSchedules: true, WrittenLevel: level,
		}, func(id uint32, p *partition.Partition) partition.Group {
			listener := &led{Listener: p, changed: changed}
			e.led = append(e.led, listener)
			e.groups[id] = e.host.Attach(replica.GroupID(id), listener)
			return e.groups[id]
		})
		return e.local, err
	})
	return err
}

func (e *partitions) replicas(config Config, at *layout) replica.Config {
	groups := make([]replica.GroupID, at.identity.Partitions+1)
	for i := range groups {
		groups[i] = replica.GroupID(i) // group 0 is the cluster's own
	}
	settings := replica.Config{
		Log: e.log, Store: e.store, NodeID: at.identity.raftID, Groups: groups, Found: !at.identity.Joined, Logger: config.Logger,
		MaxBacklogBytes: int(clamp(config.MemoryBytes/8, 16<<20, 256<<20)),
		MaxApplyBytes:   64 << 20, // as much as the store takes
		Once:            func(group replica.GroupID, key []byte) bool { return group != 0 && table.Once(key) },
	}
	if e.peers != nil {
		settings.Peers, settings.WrittenLevel = replicas{e.peers}, e.peers.writtenLevel
	}
	return settings
}

// maxEntryBytes is what one step may write: a record can need it twice (a journal entry and the
// message it sends) and must fit the store's batch. A request must fit an entry.
func (e *partitions) maxEntryBytes(config Config) (int, error) {
	batch := 64 << 20
	if store, ok := e.store.(interface{ MaxBatchBytes() int }); ok {
		batch = store.MaxBatchBytes()
	}
	const head = 64 << 10 // keys, ids and rows beside the payload
	entry := (batch - 4*head) * 48 / 100
	if config.MaxMessageBytes > entry-head {
		return 0, fmt.Errorf("max message bytes is %d, and with memory bytes %d a record takes a message of at most %d: raise memory bytes or lower it",
			config.MaxMessageBytes, config.MemoryBytes, entry-head)
	}
	return entry, nil
}

// maxEntryWrites is how many writes and sends one TRANSACTION may make: each can need a handful of
// rows, and all of them must fit one batch of the store.
func (e *partitions) maxEntryWrites() int {
	writes := 5000
	if store, ok := e.store.(interface{ MaxBatchOps() int }); ok {
		writes = min(writes, store.MaxBatchOps()/6)
	}
	return writes
}

// openDisk opens the log and the store, in memory if there is no data directory.
func (e *partitions) openDisk(config Config, at *layout) error {
	var err error
	logs := nodelog.Options{
		Dir: at.logDir(), CacheBytes: stress.Few(clamp(config.MemoryBytes/16, 8<<20, 256<<20), 4<<10), Logger: config.Logger,
	}
	if config.InMemory {
		logs.FS = vfs.NewMem()
		if e.log, err = nodelog.Open(logs); err != nil {
			return err
		}
		e.store = memstore.New(memstore.Options{})
		return nil
	}
	if err := at.checkLog(); err != nil {
		return err
	}
	if e.log, err = nodelog.Open(logs); err != nil {
		return err
	}
	if err := at.checkPartitions(e.log.Groups()); err != nil {
		return err
	}
	store, err := badgerstore.Open(badgerstore.Options{
		Dir: at.storeDir(), MemoryBudgetBytes: clamp(config.MemoryBytes*3/8, 48<<20, 1536<<20), Logger: config.Logger,
	})
	if err != nil {
		return err
	}
	e.store = store
	return nil
}

// What ends the wait for partitions that are not going to lead, or not soon.
var (
	errHalted     = errors.New("the other partitions are halted")
	errLeaderless = errors.New("the other partitions have no leader yet")
)

// leaderPatience is how long a node with peers waits for partitions that nobody is known to lead, when
// it starts: a majority of them may come later, or not at all, and the others are to be served.
const leaderPatience = 10 * time.Second

// ready waits until every partition leads or has failed, the host fails, or ctx ends. Partitions
// that failed don't keep the others from serving, and with peers neither do those without a leader
// for longer than leaderPatience.
func (e *partitions) ready(ctx context.Context) error {
	waiting, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	if e.peers != nil {
		var stop context.CancelFunc
		waiting, stop = context.WithTimeoutCause(waiting, leaderPatience, errLeaderless)
		defer stop()
	}
	watching := make(chan struct{})
	go func() {
		defer close(watching)
		// The router isn't told of a group that halts before it was ever led.
		tick := time.NewTicker(50 * time.Millisecond)
		defer tick.Stop()
		for {
			select {
			case <-e.failed:
				cancel(fmt.Errorf("the log or the store failed: %w", e.host.Health()))
				return
			case <-tick.C:
				if halted := e.host.Halted(); len(halted) > 0 && e.peers == nil && e.local.Leading()+len(e.Failures()) >= len(e.led) {
					cancel(errHalted)
				}
			case <-waiting.Done():
				return
			}
		}
	}()
	err := e.Router.Ready(waiting)
	cancel(nil)
	<-watching
	if err != nil && !errors.Is(err, errHalted) && !errors.Is(err, errLeaderless) {
		return err
	}
	failures := e.Failures()
	if e.peers != nil && len(failures) > 0 {
		e.logger.Warn("partitions have no leader yet: calls of their objects wait, or are answered unavailable, until a majority of their replicas runs",
			telemetry.KeyPartitions, len(failures))
	}
	if len(failures) < len(e.led) || e.peers != nil {
		return nil
	}
	first := slices.Min(slices.Collect(maps.Keys(failures)))
	return fmt.Errorf("none of the %d partitions can be led: %w", len(failures), failures[first])
}

// Health implements engine.
func (e *partitions) Health() error { return e.host.DiskHealth() }

// Failures implements engine.
func (e *partitions) Failures() map[uint32]error {
	failures := map[uint32]error{}
	maps.Copy(failures, e.local.Failures())
	for group, err := range e.host.Halted() {
		failures[uint32(group)] = err
	}
	if e.peers != nil {
		for _, id := range e.Router.Leaderless() {
			failures[id] = errors.New("no node is known to lead it")
		}
	}
	return failures
}

// Unhosted implements engine.
func (e *partitions) Unhosted() map[string]int {
	if e.attempts == nil {
		return nil
	}
	return e.attempts.Waiting()
}

// Failed implements engine.
func (e *partitions) Failed() <-chan struct{} { return e.failed }

// Describe implements engine.
func (e *partitions) Describe() ([]admin.PartitionInfo, admin.StorageInfo) {
	described := make([]admin.PartitionInfo, len(e.led))
	failures := e.Failures()
	for i, l := range e.led {
		id, epoch := uint32(i)+1, l.epoch.Load()
		failure := failures[id]
		if failure == nil && epoch == 0 && e.peers == nil {
			failure = errors.New("this node does not lead it")
		}
		described[i] = admin.PartitionInfo{ID: id, Leader: failure == nil && epoch != 0, Epoch: epoch, Failure: failure}
	}
	stored := admin.StorageInfo{LogBytes: uint64(e.log.Stats().Bytes)}
	if e.inMemory {
		return described, stored
	}
	stored.Directory, stored.StoreBytes = e.layout.dir, uint64(directoryBytes(e.layout.storeDir()))
	if free, err := (vfs.OS{}).FreeBytes(e.layout.dir); err == nil { // else it is not known
		stored.FreeBytes = free
	}
	return described, stored
}

// levels is what the metrics say the engine holds.
func (e *partitions) levels(ctx context.Context) (telemetry.Levels, bool) {
	levels, ok := e.local.Levels(ctx)
	if !ok {
		return levels, false
	}
	stats := e.log.Stats()
	levels.BacklogBytes = int64(e.host.BacklogBytes())
	levels.LogBytes, levels.LogLiveBytes, levels.LogSegments = stats.Bytes, stats.LiveBytes, int64(stats.Segments)
	levels.LogWrittenBytes, levels.LogSyncs = int64(stats.WrittenBytes), int64(stats.Syncs)
	levels.StoreBytes = -1
	if !e.inMemory {
		levels.StoreBytes = directoryBytes(e.layout.storeDir())
	}
	return levels, true
}

// directoryBytes is the size of the files in dir, as far as they can be read.
func directoryBytes(dir string) int64 {
	var total int64
	_ = filepath.WalkDir(dir, func(_ string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return nil // a file that compaction removed meanwhile counts no more
		}
		if info, err := entry.Info(); err == nil {
			total += info.Size()
		}
		return nil
	})
	return total
}

// ReleaseSchedules implements engine.
func (e *partitions) ReleaseSchedules() { e.local.ReleaseSchedules() }

// Leave implements engine.
func (e *partitions) Leave(ctx context.Context) {
	if e.peers == nil {
		return
	}
	e.peers.leave()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for {
		left := 0
		for id, group := range e.groups {
			status := group.Status()
			can := slices.DeleteFunc(status.Peers, func(p replica.PeerStatus) bool {
				return !p.CaughtUp || !slices.Contains(status.Voters, p.Node) || e.peers.leaving(p.Node)
			})
			switch {
			case status.Epoch != 0 && len(can) == 0, status.Epoch == 0 && status.Leader != e.layout.identity.raftID:
				continue // nobody can take it, or somebody has
			case status.Epoch == 0: // it is being handed over
				left++
				continue
			}
			left++
			if err := group.TransferLeadership(can[int(id)%len(can)].Node); err != nil {
				e.logger.Debug("a leadership is not handed over", telemetry.KeyPartition, id, telemetry.KeyError, err)
			}
		}
		if left == 0 {
			return
		}
		select {
		case <-tick.C:
		case <-e.failed:
			return
		case <-ctx.Done():
			e.logger.Warn("partitions were not handed over in time; others take them over when this node has stopped", telemetry.KeyPartitions, left)
			return
		}
	}
}

// Close implements engine.
func (e *partitions) Close(ctx context.Context) error {
	stopping := time.Now()
	var problem error
	if e.unobserve != nil {
		problem = e.unobserve()
	}
	// The host first: it makes what was accepted durable and tells the partitions to step
	// down, whereupon they answer whoever waits.
	e.stopHost()
	<-e.hostEnded
	e.stopRouter()
	e.running.Wait()
	if e.attempts != nil {
		e.attempts.Close()
	}
	problem = errors.Join(problem, e.runner.Close(ctx), e.release())
	e.logger.Info("the partitions have stopped", telemetry.KeyDuration, time.Since(stopping).Round(time.Millisecond))
	return problem
}

// release closes what open opened.
func (e *partitions) release() error {
	var problems []error
	if e.store != nil {
		problems = append(problems, e.store.Close())
	}
	if e.log != nil {
		problems = append(problems, e.log.Close())
	}
	return errors.Join(problems...)
}
