package membership_test

import (
	"context"
	"log/slog"
	"path/filepath"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/perdure/perdure/cluster/membership"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// TestRealNetwork is a smoke test on UDP and TCP, encrypted.
func TestRealNetwork(t *testing.T) {
	path := filepath.Join(t.TempDir(), "keys")
	keys(t, path, "key")
	var nodes []*membership.Membership
	var stops []func()
	seeds := []string{}
	shared := make(chan string, 100)
	for id := range uint64(3) {
		m, err := membership.New(membership.Config{
			NodeID: id + 1, Bind: "127.0.0.1:0", Seeds: seeds, KeyringFile: path, Meta: membership.Meta{ClusterID: "c"}, Logger: slog.New(slog.DiscardHandler),
			OnShared: func(_ uint64, key string, value []byte) { shared <- key + string(value) },
		})
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(context.Background())
		done := make(chan error, 1)
		go func() { done <- m.Run(ctx) }()
		stop := func() {
			cancel()
			if err := <-done; err != nil {
				t.Error(err)
			}
		}
		select {
		case <-m.Ready():
		case err := <-done:
			t.Fatal(err)
		}
		nodes, stops = append(nodes, m), append(stops, stop)
		seeds = []string{nodes[0].Addr()}
	}
	wait := func(what string, condition func() bool) {
		t.Helper()
		for deadline := time.Now().Add(30 * time.Second); !condition(); time.Sleep(5 * time.Millisecond) {
			if time.Now().After(deadline) {
				t.Fatalf("waited 30 s for: %s", what)
			}
		}
	}
	wait("three nodes see each other", func() bool {
		for _, n := range nodes {
			if len(n.Members()) != 3 {
				return false
			}
		}
		return true
	})
	if err := nodes[0].Share("k", []byte("v")); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		select {
		case got := <-shared:
			if got != "kv" {
				t.Errorf("got %q", got)
			}
		case <-time.After(20 * time.Second):
			t.Fatal("the fact did not come")
		}
	}
	stops[2]()
	wait("the third has left", func() bool {
		members := nodes[0].Members()
		return len(members) == 3 && members[2].State == membership.Left
	})
	stops[1]()
	stops[0]()
}

func TestPortInUse(t *testing.T) {
	config := membership.Config{NodeID: 1, Bind: "192.0.2.1:7375", Meta: membership.Meta{ClusterID: "c"}, Logger: slog.New(slog.DiscardHandler)}
	m, err := membership.New(config)
	if err != nil {
		t.Fatal(err)
	}
	if err := m.Run(t.Context()); err == nil {
		t.Error("gossip began on an address that this machine hasn't")
	}
}
