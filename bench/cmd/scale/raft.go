package main

import (
	"context"
	"fmt"
	"log/slog"
	"runtime"
	"slices"
	"sync/atomic"
	"time"

	"github.com/perdure/perdure/bench/internal/scale"
	"github.com/perdure/perdure/cluster/replica"
	"github.com/perdure/perdure/storage"
	"github.com/perdure/perdure/storage/memstore"
	"github.com/perdure/perdure/storage/nodelog"
	"github.com/perdure/perdure/storage/vfs"
)

func quiet() *slog.Logger { return slog.New(slog.DiscardHandler) }

func heap() float64 {
	var stats runtime.MemStats
	runtime.GC()
	runtime.GC()
	runtime.ReadMemStats(&stats)
	return float64(stats.HeapAlloc)
}

// until polls what other goroutines do.
func until(what string, ok func() bool) error {
	for deadline := time.Now().Add(3 * time.Minute); !ok(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			return fmt.Errorf("waited too long for %s", what)
		}
	}
	return nil
}

// firstID makes ids as long as real ones, which are random: most of a heartbeat's bytes are ids.
const firstID = 0x9e3779b97f4a0000

// hosts are nodes that have nothing but replicas, and a network inside the process between them.
type hosts struct {
	all           []atomic.Pointer[replica.Host] // by id
	groups        []map[replica.GroupID]*replica.Group
	cancels       []context.CancelFunc
	ended         []chan error
	frames, bytes atomic.Uint64
}

// way is a node's to the others.
type way struct {
	*hosts
	from uint64
}

func (w way) Send(to uint64, frame []byte) {
	w.frames.Add(1)
	w.bytes.Add(uint64(len(frame)))
	if h := w.all[to-firstID].Load(); h != nil && w.all[w.from].Load() != nil {
		_ = h.Receive(firstID+w.from, frame)
	}
}

func (w way) SendSnapshot(to uint64, group uint32, header []byte, source replica.SnapshotSource, done func([]byte, error)) {
	go func() {
		defer source.Close()
		done(w.all[to-firstID].Load().ReceiveSnapshot(context.Background(), firstID+w.from, group, header, source.Next))
	}()
}

func memoryLog() (*nodelog.Log, error) {
	return nodelog.Open(nodelog.Options{Dir: "/log", FS: vfs.NewMem(), SegmentBytes: 256 << 10, CacheBytes: 1 << 20, Logger: quiet()})
}

// newHosts has each group on three nodes, those after the one that leads it.
func newHosts(ctx context.Context, nodes, groups int) (*hosts, error) {
	h := newEmptyHosts(nodes)
	var ids []replica.GroupID
	for id := range groups {
		ids = append(ids, replica.GroupID(id+1))
	}
	leader := func(id replica.GroupID) uint64 { return uint64(int(id)%nodes) + 1 }
	for node := uint64(1); node <= uint64(nodes); node++ {
		log, err := memoryLog()
		if err != nil {
			return nil, err
		}
		store := memstore.New(memstore.Options{})
		own := slices.DeleteFunc(slices.Clone(ids), func(id replica.GroupID) bool { return leader(id) != node })
		if _, err := replica.Open(replica.Config{Log: log, Store: store, NodeID: firstID + node, Groups: own, Found: true, Logger: quiet()}); err != nil {
			return nil, err
		}
		if err := h.start(node, log, store, ids, func(*replica.Config) {}); err != nil {
			return nil, err
		}
	}
	for _, id := range ids {
		first := leader(id)
		others := []uint64{firstID + first%uint64(nodes) + 1, firstID + (first+1)%uint64(nodes) + 1}
		if err := h.grow(ctx, first, id, others); err != nil {
			return nil, err
		}
		change := replica.Change{Expect: h.groups[first][id].Status().Members, Promote: others}
		if err := h.groups[first][id].Reconfigure(ctx, change); err != nil {
			return nil, err
		}
	}
	return h, nil
}

func (h *hosts) start(node uint64, log replica.Log, store storage.Store, ids []replica.GroupID, change func(*replica.Config)) error {
	config := replica.Config{Log: log, Store: store, NodeID: firstID + node, Groups: ids, Peers: way{h, node}, Logger: quiet()}
	change(&config)
	host, err := replica.Open(config)
	if err != nil {
		return err
	}
	h.groups[node] = map[replica.GroupID]*replica.Group{}
	for _, id := range ids {
		h.groups[node][id] = host.Attach(id, deaf{})
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- host.Run(ctx) }()
	h.all[node].Store(host)
	h.cancels, h.ended = append(h.cancels, cancel), append(h.ended, ended)
	return nil
}

// grow gives other nodes copies of a group, and waits until they have all of it.
func (h *hosts) grow(ctx context.Context, first uint64, id replica.GroupID, others []uint64) error {
	g := h.groups[first][id]
	if err := until("a leader", func() bool { return g.Status().Epoch > 0 }); err != nil {
		return err
	}
	if err := g.Reconfigure(ctx, replica.Change{Expect: g.Status().Members, AddLearners: others}); err != nil {
		return err
	}
	return until("copies", func() bool {
		s := g.Status()
		for _, p := range s.Peers {
			if !p.CaughtUp {
				return false
			}
		}
		return len(s.Peers) == len(others)
	})
}

func (h *hosts) stop() {
	for i, cancel := range h.cancels {
		cancel()
		<-h.ended[i]
	}
}

// deaf is a listener that does nothing.
type deaf struct{}

func (deaf) Lead(uint64)                  {}
func (deaf) StepDown(uint64, error)       {}
func (deaf) Committed(uint64, uint64)     {}
func (deaf) Applied(uint64, uint64)       {}
func (deaf) LeaderChanged(uint64, uint64) {}

func measureRaft(ctx context.Context, nodes, groups int, lasts time.Duration) (scale.Raft, error) {
	before := heap()
	h, err := newHosts(ctx, nodes, groups)
	if err != nil {
		return scale.Raft{}, err
	}
	defer h.stop()
	replicas := float64(groups * min(nodes, scale.Replicas))
	out := scale.Raft{Nodes: nodes, Groups: groups, HeapBytes: (heap() - before) / replicas}
	frames, bytes, used, began := h.frames.Load(), h.bytes.Load(), processor(), time.Now()
	time.Sleep(lasts) // what is measured is a stretch of time
	per := 1 / (time.Since(began).Seconds() * float64(nodes))
	out.CPU = (processor() - used).Seconds() * per
	out.Frames, out.FrameBytes = float64(h.frames.Load()-frames)*per, float64(h.bytes.Load()-bytes)*per
	// Node 1 loses its power.
	var orphans []replica.GroupID
	for id, g := range h.groups[1] {
		if g.Status().Epoch > 0 {
			orphans = append(orphans, id)
		}
	}
	began = time.Now()
	h.all[1].Store(nil)
	err = until("new leaders", func() bool {
		for _, id := range orphans {
			led := false
			for node := 2; node <= nodes; node++ {
				led = led || h.groups[node][id].Status().Epoch > 0
			}
			if !led {
				return false
			}
		}
		return true
	})
	out.ElectedSeconds = time.Since(began).Seconds()
	return out, err
}

func newEmptyHosts(nodes int) *hosts {
	return &hosts{all: make([]atomic.Pointer[replica.Host], nodes+1), groups: make([]map[replica.GroupID]*replica.Group, nodes+1)}
}

// replicaEntry is a record as the log gets it.
func replicaEntry(index uint64, data []byte) []nodelog.GroupWrite {
	return []nodelog.GroupWrite{{Group: 1, Entries: []nodelog.Entry{{Index: index, Term: 1, Data: data}}}}
}
