package cluster

import (
	"context"
	"log/slog"
	"time"

	"github.com/perdure/perdure/actor"
	"github.com/perdure/perdure/cluster/placement"
	"github.com/perdure/perdure/cluster/registry"
	"github.com/perdure/perdure/internal/invoker"
	"github.com/perdure/perdure/internal/invoker/gate"
	"github.com/perdure/perdure/internal/invoker/remote"
	"github.com/perdure/perdure/internal/telemetry"
)

// invoker has other nodes run what local has no handlers for, and local run nothing before allow.
func (n *network) invoker(local invoker.Invoker, logger *slog.Logger) *remote.Invoker {
	n.gate = gate.New(local)
	return remote.New(remote.Config{
		Node: n.nodeID, Local: n.gate, Open: n.gate.IsOpen, Directory: n.hosting, Settling: true, Logger: logger,
		Call: func(ctx context.Context, to uint64, request []byte) ([]byte, error) {
			return n.carrier.Call(ctx, to, methodInvoker, request)
		},
	})
}

// admitted are the nodes of the cluster, dead ones too.
func admitted(view *registry.View) []uint64 {
	var nodes []uint64
	for _, node := range view.Nodes {
		if node.State != placement.Removed {
			nodes = append(nodes, node.ID)
		}
	}
	return nodes
}

// unknown says of which nodes it is not known what they host. One that is down since before this one was
// started is among them: what it hosts is not gone.
func (n *network) unknown() error { return n.hosting.Unknown(admitted(n.registry.View())) }

// shareHosts tells others what this node hosts, once it may.
func (n *network) shareHosts(value []byte) error {
	n.mu.Lock()
	n.mu.hosts = value
	open := n.mu.open
	n.mu.Unlock()
	if !open {
		return nil
	}
	return n.gossip.Share(factHosting, value)
}

// alongside runs something until close.
func (n *network) alongside(ctx context.Context, run func(context.Context)) {
	running, stop := context.WithCancel(context.WithoutCancel(ctx))
	before := n.stop
	n.stop = func() {
		before()
		stop()
	}
	n.running.Go(func() { run(running) })
}

// settlePatience is how long a start waits to learn what other nodes host. One that is lost, or does not
// say so because its version does not know how, holds up a start by as much.
const settlePatience = 3 * time.Second

// describe tells what only other nodes host: once before it returns, and then whenever that changes, until
// close.
func (n *network) describe(ctx context.Context, tell ...func([]*actor.ServiceDesc)) {
	settling, cancel := context.WithTimeout(ctx, settlePatience)
	view := n.registry.View()
	n.hosting.SetMembers(alive(n.gossip.Members(), view))
	if err := n.hosting.Settled(settling, admitted(view)); err != nil {
		n.logger.Warn("this node serves before it knows all that others host; it learns the rest when they say so", telemetry.KeyError, err)
	}
	cancel()
	n.ready.Load().attempts.Settle()
	say := func() <-chan struct{} {
		changed := n.hosting.Changed()
		services := n.hosting.Elsewhere()
		for _, told := range tell {
			told(services)
		}
		return changed
	}
	changed := say()
	n.alongside(ctx, func(running context.Context) {
		for {
			select {
			case <-changed:
				changed = say()
			case <-running.Done():
				return
			}
		}
	})
}
