package sim

import (
	"context"
	"fmt"
	"time"

	"github.com/perdure/perdure/internal/invocation"
)

// A node that was cut off believes for a while that it leads what another node leads by now. That is a moment
// of some milliseconds, which callers seldom meet: a probe waits for it, writes at the new leader, and reads at the old one,
// which must not answer without what was written.

// probes is how often one looks.
const probes = 5

// probeKey is a key of a partition, from 0, that only probes use.
func (w *world) probeKey(partition int) string {
	for number := 0; ; number++ {
		key := fmt.Sprint("probe", number)
		if int(invocation.DerivedID(probeTarget(key, "Add"), "idem", "").Partition(uint32(w.load.partitions))) == partition+1 {
			return key
		}
	}
}

func probeTarget(key, handler string) invocation.Target {
	return invocation.Target{Service: "sim.Counter", Key: key, Handler: handler}
}

// led begins a probe if another node believes that it leads a partition that this one leads now.
func (n *node) led(partition int) {
	w := n.world
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, other := range w.mu.nodes {
		if other != n && other.groups[partition].leads() != 0 {
			go w.probe(n, other, partition)
		}
	}
}

// leads is the epoch that the group leads in, or 0.
func (g *group) leads() uint64 {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.mu.epoch
}

func (w *world) probe(leader, old *node, partition int) {
	key, epoch := w.probeKey(partition), leader.groups[partition].leads()
	for i := range probes {
		if old.groups[partition].leads() == 0 {
			return
		}
		ctx, cancel := context.WithTimeout(context.Background(), 100*time.Millisecond)
		wrote, err := leader.Call(ctx, invoke(probeTarget(key, "Add"), invocation.ModeTransaction, value(1), fmt.Sprint("probe", epoch, "-", i)))
		cancel()
		if err != nil || wrote.GetError() != nil || leader.dead.Load() {
			return
		}
		ctx, cancel = context.WithTimeout(context.Background(), 20*time.Millisecond)
		read, err := old.Read(ctx, invoke(probeTarget(key, "Get"), invocation.ModeRead, nil, ""))
		cancel()
		if err == nil && !old.dead.Load() && number(read.GetValue()) < number(wrote.GetValue()) {
			w.fail("node %d, which did not lead partition %d any more, read %q of %s after %s was acknowledged", old.id(), partition+1, read.GetValue(), key, wrote.GetValue())
			return
		}
	}
}
