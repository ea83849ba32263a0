package cluster_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

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

// TestPeersProblems: all that is wrong with the peers is in one error.
func TestPeersProblems(t *testing.T) {
	for _, test := range []struct {
		peers cluster.Peers
		want  []string
	}{
		{cluster.Peers{}, nil},
		{cluster.Peers{Listen: "127.0.0.1:65535", TransportListen: "127.0.0.1:1"}, nil},
		{cluster.Peers{Listen: "127.0.0.1:65535", FoundAfter: time.Second}, []string{
			`listen address "127.0.0.1:65535" has the last port there is`, "found after is 1s, and there is nobody to join",
		}},
		{cluster.Peers{Listen: "here", Advertise: "there", Join: []string{"node-1"}, FoundAfter: -time.Second, Zone: strings.Repeat("z", 64), TLS: &cluster.PeerTLS{CertFile: "c"}}, []string{
			`listen address "here" is not host:port`, `advertised address "there" is not host:port`, `"node-1" can't be joined`,
			"found after is -1s", "zone has 64 bytes; it must have at most 63", "must all be set",
		}},
	} {
		err := cluster.Config{Peers: &test.peers}.Validate()
		var lines []string
		if err != nil {
			lines = strings.Split(err.Error(), "\n")
		}
		if len(lines) != len(test.want) {
			t.Errorf("%+v: %d problems, want %d:\n%v", test.peers, len(lines), len(test.want), err)
			continue
		}
		for i, want := range test.want {
			if !strings.Contains(lines[i], want) {
				t.Errorf("%+v: %q lacks %q", test.peers, lines[i], want)
			}
		}
	}
}
