package replica

import (
	"context"
	"fmt"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

// wired is a network in the process that loses nothing and takes no time.
type wired struct {
	hosts  *[4]atomic.Pointer[Host]
	from   uint64
	frames *atomic.Uint64
}

func (n wired) Send(to uint64, frame []byte) {
	n.frames.Add(1)
	if h := n.hosts[to].Load(); h != nil {
		_ = h.Receive(n.from, frame)
	}
}

func (n wired) SendSnapshot(to uint64, group uint32, header []byte, source SnapshotSource, done func([]byte, error)) {
	go func() {
		defer source.Close()
		done(n.hosts[to].Load().ReceiveSnapshot(context.Background(), n.from, group, header, source.Next))
	}()
}

// BenchmarkIdle is what partitions on three nodes cost while nothing happens. An operation is a second of
// all three nodes.
func BenchmarkIdle(b *testing.B) {
	for _, groups := range []int{64, 256} {
		b.Run(fmt.Sprintf("groups=%d", groups), func(b *testing.B) { benchmarkIdle(b, groups) })
	}
}

func benchmarkIdle(b *testing.B, groups int) {
	var hosts [4]atomic.Pointer[Host]
	var frames atomic.Uint64
	var ids []GroupID
	for id := range GroupID(groups) {
		ids = append(ids, id)
	}
	members := make([]*Group, groups)
	for node := uint64(1); node <= 3; node++ {
		cfg := Config{
			Log: newMemLog(), Store: newStore(), NodeID: node, Groups: ids, Found: node == 1, Logger: quiet(),
			Peers: wired{&hosts, node, &frames}, MaxSnapshots: groups,
		}
		host, err := Open(cfg)
		if err != nil {
			b.Fatal(err)
		}
		for _, id := range ids {
			if g := host.Attach(id, silent{}); node == 1 {
				members[id] = g
			}
		}
		hosts[node].Store(host)
		ctx, cancel := context.WithCancel(context.Background())
		result := make(chan error, 1)
		go func() { result <- host.Run(ctx) }()
		defer func() { cancel(); <-result }()
	}
	await := func(ok func() bool) {
		b.Helper()
		for deadline := time.Now().Add(waitLimit); !ok(); time.Sleep(10 * time.Millisecond) {
			if time.Now().After(deadline) {
				b.Fatal("waited too long")
			}
		}
	}
	for _, g := range members {
		await(func() bool { return g.Status().Epoch > 0 })
		if err := g.Reconfigure(b.Context(), Change{Expect: g.Status().Members, AddLearners: []uint64{2, 3}}); err != nil {
			b.Fatal(err)
		}
		await(func() bool {
			s := g.Status()
			return len(s.Peers) == 2 && s.Peers[0].CaughtUp && s.Peers[1].CaughtUp
		})
		if err := g.Reconfigure(b.Context(), Change{Expect: g.Status().Members, Promote: []uint64{2, 3}}); err != nil {
			b.Fatal(err)
		}
	}
	// Leaders as even as they can be.
	for i, g := range members {
		if to := uint64(i%3) + 1; to != 1 {
			await(func() bool { return g.TransferLeadership(to) == nil })
			await(func() bool { return g.Status().Leader == to })
		}
	}
	for node := 1; node <= 3; node++ { // until all sleep
		h := hosts[node].Load()
		await(func() (all bool) {
			_ = h.ask(func(*loop) {
				all = true
				for _, g := range h.order {
					all = all && g.loopState.asleep
				}
			})
			return all
		})
	}
	usage := func() time.Duration {
		var u syscall.Rusage
		if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
			b.Fatal(err)
		}
		return time.Duration(u.Utime.Nano() + u.Stime.Nano())
	}
	before, sent := usage(), frames.Load()
	for b.Loop() {
		time.Sleep(time.Second)
	}
	b.ReportMetric(float64(usage()-before)/float64(b.N)/1e6/3, "cpu-ms/node/s")
	b.ReportMetric(float64(frames.Load()-sent)/float64(b.N)/3, "frames/node/s")
}
