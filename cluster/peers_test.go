package cluster_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/perdure/perdure/cluster"
)

// TestPeersThatCanNotBe: what keeps a node from its peers ends its start with an error that says so,
// and the data directory can be used again.
func TestPeersThatCanNotBe(t *testing.T) {
	keyring := filepath.Join(t.TempDir(), "keyring")
	if err := os.WriteFile(keyring, []byte("not a key\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		name, want string
		peers      cluster.Peers
	}{
		{"keyring", "keyring", cluster.Peers{KeyringFile: keyring}},
		{"no keyring", "no such file", cluster.Peers{KeyringFile: keyring + "-missing"}},
		{"authority", "no such file", cluster.Peers{TLS: &cluster.PeerTLS{CertFile: keyring + "-c", KeyFile: keyring + "-k", CAFile: keyring + "-a"}}},
		{"gossip address", "192.0.2.1", cluster.Peers{Listen: "192.0.2.1:0", TransportListen: "127.0.0.1:0"}},
		{"transport address", "192.0.2.1", cluster.Peers{TransportListen: "192.0.2.1:0"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			dir := t.TempDir()
			if test.peers.Listen == "" {
				test.peers.Listen = "127.0.0.1:0"
			}
			node := newNode(t, dir, cluster.WithPeers(test.peers))
			if err := node.Start(t.Context()); err == nil || !strings.Contains(err.Error(), test.want) {
				t.Fatalf("start: %v, want %q in it", err, test.want)
			}
			startNode(t, newNode(t, dir))
		})
	}
}
