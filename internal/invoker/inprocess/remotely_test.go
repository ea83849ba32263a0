package inprocess_test

import (
	"context"
	"errors"
	"flag"
	"sync"
	"testing"

	"github.com/perdure/perdure/internal/invocation"
	"github.com/perdure/perdure/internal/invoker"
	"github.com/perdure/perdure/internal/invoker/remote"
)

// With -remote the tests of handlers run them on another node than the one their invocations are on.
var viaRemote = flag.Bool("remote", false, "run handlers by way of internal/invoker/remote")

var remotes sync.Map // invoker.Invoker to *remote.Invoker

// onlyAt2 is what a node knows where node 2 has all handlers.
type onlyAt2 struct{ node uint64 }

func (d onlyAt2) Here(invocation.Target) bool                { return d.node == 2 }
func (d onlyAt2) Hosts(invocation.Target, string) []uint64   { return []uint64{2} }
func (d onlyAt2) Exactly(invocation.Target, string) []uint64 { return nil }
func (d onlyAt2) Deployment(string) string                   { return "" }
func (d onlyAt2) Changed() <-chan struct{}                   { return nil }

// remotely is an invoker of a node without handlers, beside a node that has inv.
func remotely(t testing.TB, inv invoker.Invoker) invoker.Invoker {
	if !*viaRemote {
		return inv
	}
	if made, ok := remotes.Load(inv); ok {
		return made.(*remote.Invoker)
	}
	nodes := map[uint64]*remote.Invoker{}
	for _, node := range []uint64{1, 2} {
		nodes[node] = remote.New(remote.Config{
			Node: node, Local: inv, Directory: onlyAt2{node},
			Call: func(ctx context.Context, to uint64, request []byte) ([]byte, error) {
				if nodes[to] == nil {
					return nil, errors.New("no such node")
				}
				return nodes[to].Serve(ctx, node, request)
			},
		})
	}
	remotes.Store(inv, nodes[1])
	t.Cleanup(func() {
		remotes.Delete(inv)
		nodes[1].Close()
		nodes[2].Close()
	})
	return nodes[1]
}

// notRemotely skips a test that aborts attempts right after a step and then counts what handlers have
// seen. On another node they go on before the leader has the step: what they do outside of Run in that
// time, such as logging, happens again if the leader has not got it. See decision 33.
func notRemotely(t *testing.T) {
	t.Helper()
	if *viaRemote {
		t.Skip("handlers on another node may be ahead of what is recorded")
	}
}
