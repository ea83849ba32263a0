package cluster

import (
	"context"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/perdure/perdure/cluster/registry"
	"github.com/perdure/perdure/cluster/transport"
)

type deaf struct{ transport.Handler }

// TestTooOld: a node whose program was replaced by an older one stops when another node tells it, or when it
// is called by one that knows more, and says what to do.
func TestTooOld(t *testing.T) {
	for name, calls := range map[string]bool{"calls": true, "is called": false} {
		t.Run(name, func(t *testing.T) {
			peers := &Peers{Listen: "127.0.0.1:0", TransportListen: "127.0.0.1:0"}
			old, err := newNetwork(t.Context(), Config{Peers: peers, Logger: slog.New(slog.DiscardHandler)}, 1, "c", 8, t.TempDir())
			if err != nil {
				t.Fatal(err)
			}
			newer, err := transport.New(transport.Config{
				NodeID: 2, ClusterID: "c", Listen: "127.0.0.1:0", Handler: deaf{}, Logger: slog.New(slog.DiscardHandler),
				Build: "v9.9.9", FeatureLevel: 9, WrittenLevel: func() uint32 { return 9 },
			})
			if err != nil {
				t.Fatal(err)
			}
			if err := newer.Listen(t.Context()); err != nil {
				t.Fatal(err)
			}
			ctx, cancel := context.WithCancel(context.Background())
			old.stop = cancel
			old.running.Go(func() { _ = old.carrier.Run(ctx) })
			old.running.Go(func() { _ = newer.Run(ctx) })
			defer old.close()
			if calls {
				old.carrier.SetAddresses(map[uint64]string{2: newer.Addr().String()})
			} else {
				newer.SetAddresses(map[uint64]string{1: old.carrier.Addr().String()})
			}
			select {
			case <-old.part.Done():
			case <-time.After(10 * time.Second):
				t.Fatal("the node goes on")
			}
			for _, want := range []string{"too old for its cluster", fmt.Sprint("feature level ", registry.FeatureLevel), "level 9", "start it with the version that the other nodes have", "v9.9.9"} {
				if !strings.Contains(context.Cause(old.part).Error(), want) {
					t.Errorf("%q does not say %q", context.Cause(old.part), want)
				}
			}
		})
	}
}
