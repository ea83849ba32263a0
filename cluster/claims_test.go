package cluster_test

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/protobuf/encoding/protojson"

	"github.com/perdure/perdure/cluster"
	bankv1 "github.com/perdure/perdure/examples/bank/gen/bank/v1"
	bank "github.com/perdure/perdure/examples/bank/gen/bank/v1/bankv1perdure"
	adminv1 "github.com/perdure/perdure/proto/perdure/admin/v1"
)

// banking is a member that hosts accounts.
func banking(t *testing.T) *member {
	return &member{dir: t.TempDir(), register: func(n *cluster.Node) { bank.RegisterAccountHandler(n, accounts{}) }}
}

// copied is a copy of a directory that nobody uses now.
func copied(t *testing.T, dir string) string {
	t.Helper()
	to := filepath.Join(t.TempDir(), "copy")
	if err := os.CopyFS(to, os.DirFS(dir)); err != nil {
		t.Fatal(err)
	}
	return to
}

func freeAddress(t *testing.T) string {
	t.Helper()
	var listening net.ListenConfig
	listener, err := listening.Listen(soon(t), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	return listener.Addr().String()
}

func nodeID(t *testing.T, dir string) string {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(dir, "node.json"))
	if err != nil {
		t.Fatal(err)
	}
	var identity struct {
		NodeID string `json:"node_id"`
	}
	if err := json.Unmarshal(data, &identity); err != nil {
		t.Fatal(err)
	}
	return identity.NodeID
}

// spread waits until the members vote in each of the six partitions.
func spread(t *testing.T, members ...*member) {
	t.Helper()
	eventually(t, func() error {
		_, body := request(t, members[0].URL()+"/perdure.admin.v1.ClusterService/GetCluster", "{}")
		state := &adminv1.GetClusterResponse{}
		if err := protojson.Unmarshal([]byte(body), state); err != nil {
			return err
		}
		votes := map[string]uint32{}
		for _, node := range state.GetNodes() {
			votes[node.GetId()] = node.GetVotes()
		}
		for _, m := range members {
			if id := nodeID(t, m.dir); votes[id] != 6 {
				return fmt.Errorf("node %s votes in %d partitions: %s", id, votes[id], body)
			}
		}
		return nil
	})
}

// deposit adds 1 to each of 12 accounts, which are in all partitions.
func deposit(t *testing.T, by *member) {
	t.Helper()
	for n := range 12 {
		if _, err := bank.Account(by.Client(), fmt.Sprint(n)).Deposit(soon(t), &bankv1.DepositRequest{Amount: 1}); err != nil {
			t.Fatal(err)
		}
	}
}

func wantDeposits(t *testing.T, by *member, each int64) {
	t.Helper()
	for n := range 12 {
		eventually(t, func() error {
			got, err := bank.Account(by.Client(), fmt.Sprint(n)).Balance(soon(t), &bankv1.BalanceRequest{})
			if err == nil && got.Balance != each {
				t.Errorf("account %d has %d, not %d", n, got.Balance, each)
			}
			return err
		})
	}
}

// wantRefused starts a member on a directory and wants it to end at once because that is an earlier copy.
func wantRefused(t *testing.T, dir string, join ...string) {
	t.Helper()
	for range 30 { // as whatever starts it again and again does
		m := banking(t)
		m.dir = dir
		node := m.build(t, join...)
		ctx, cancel := context.WithTimeout(soon(t), 30*time.Second)
		err := node.Start(ctx)
		cancel()
		if err == nil {
			t.Error("the earlier copy is served from")
			stopNode(t, node)
			return
		}
		for _, want := range []string{"is older than what this node has acknowledged", "start it with an empty directory", "perdure cluster remove " + nodeID(t, dir) + " --force"} {
			if !strings.Contains(err.Error(), want) {
				t.Errorf("%q does not say %q", err, want)
			}
		}
	}
}

// TestRestoredDirectory: a node of which an earlier copy of its data directory was restored is refused
// before it votes or serves, also by nodes that have been restarted since, and the others go on. With an empty
// directory it is copied.
func TestRestoredDirectory(t *testing.T) {
	a, b, c := banking(t), banking(t), banking(t)
	a.begin(t)
	b.begin(t, a.PeerAddress())
	c.begin(t, a.PeerAddress())
	spread(t, a, b, c)
	deposit(t, c)
	c.stop(t)
	early, again := copied(t, c.dir), copied(t, c.dir)
	old := nodeID(t, c.dir)
	c.begin(t, a.PeerAddress())
	deposit(t, c)
	cutOff(t, c.Node)
	wantRefused(t, early, a.PeerAddress())
	deposit(t, a)
	// Nobody is left who has heard of it but by group 0.
	b.stop(t)
	b.begin(t, a.PeerAddress())
	a.stop(t)
	a.begin(t, b.PeerAddress())
	wantRefused(t, again, a.PeerAddress())
	// What it had last is good.
	c.begin(t, a.PeerAddress())
	deposit(t, c)
	c.stop(t)

	c.dir = t.TempDir()
	c.begin(t, a.PeerAddress())
	eventually(t, func() error {
		status, body := request(t, a.URL()+"/perdure.admin.v1.ClusterService/SetNodeState", fmt.Sprintf(`{"nodeId":%q,"state":"NODE_STATE_REMOVED","force":true}`, old))
		if status != http.StatusOK {
			return fmt.Errorf("remove the old one: %d %s", status, body)
		}
		return nil
	})
	spread(t, a, b, c)
	cutOff(t, a.Node)
	wantDeposits(t, c, 4)
}

// TestRestoredCluster: all nodes restored from copies of one time work, for what they remember of each other is
// as old as they are.
func TestRestoredCluster(t *testing.T) {
	members := []*member{banking(t), banking(t), banking(t)}
	for i, m := range members {
		m.gossip = freeAddress(t) // or none would find another when all have been down
		if i == 0 {
			m.begin(t)
		} else {
			m.begin(t, members[0].gossip)
		}
	}
	spread(t, members...)
	deposit(t, members[1])
	stop := func() {
		for _, m := range members {
			cutOff(t, m.Node)
		}
	}
	// start begins all at once: the first would else wait for a majority.
	start := func() {
		var group sync.WaitGroup
		errs := make([]error, len(members))
		for i, m := range members {
			m.Node = m.build(t, members[0].gossip)
			t.Cleanup(func() { cutOff(t, m.Node) })
			group.Go(func() { errs[i] = m.Start(soon(t)) })
		}
		group.Wait()
		for _, err := range errs {
			if err != nil {
				t.Fatal(err)
			}
		}
	}
	stop()
	copies := make([]string, len(members))
	for i, m := range members {
		copies[i] = copied(t, m.dir)
	}
	start()
	wantDeposits(t, members[2], 1)
	deposit(t, members[0])
	stop()
	for i, m := range members {
		m.dir = copies[i]
	}
	start()
	wantDeposits(t, members[2], 1)
	deposit(t, members[0])
	wantDeposits(t, members[1], 2)
}
