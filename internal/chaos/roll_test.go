//go:build linux

package chaos

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/protobuf/encoding/protojson"

	"github.com/perdure/perdure/actor"
	benchv1 "github.com/perdure/perdure/bench/gen/bench/v1"
	bench "github.com/perdure/perdure/bench/gen/bench/v1/benchv1perdure"
	"github.com/perdure/perdure/cluster"
	bankv1 "github.com/perdure/perdure/examples/bank/gen/bank/v1"
	bank "github.com/perdure/perdure/examples/bank/gen/bank/v1/bankv1perdure"
	adminv1 "github.com/perdure/perdure/proto/perdure/admin/v1"
)

// TestGrowAndRoll: a single node with data becomes three and then four, then each is stopped in
// order and started again, and at last the fourth is drained, stopped and removed, while callers with the
// Go stub go on. None of their calls may fail, no money may be lost, and each call takes effect once.
func TestGrowAndRoll(t *testing.T) {
	random := choices(t)
	l := newLab(t, 4, false)
	l.nodes[0].start()
	c := startCustomers(t, random, l.nodes)
	c.more(200)
	l.nodes[1].start()
	l.nodes[2].start()
	l.settled(3)
	c.more(200)
	l.nodes[3].start()
	l.settled(4)
	c.more(200)
	for _, n := range l.nodes {
		n.stop()
		c.more(50) // they go on with three of four
		n.start()
		l.settled(4)
		t.Logf("%s was stopped and is back; slowest call so far %s", n.address, time.Duration(c.slowest.Load()))
	}
	id := l.drain(3)
	c.more(200)
	l.nodes[3].stop()
	l.nodes[0].order(id, adminv1.NodeState_NODE_STATE_REMOVED) // refused if it votes anywhere
	l.whole(3, l.settled(3))
	c.more(200)
	c.finish()
}

// drain has a node give what it has to others, as perdure cluster drain does, and waits until nothing is left
// there: it leads and votes nowhere, and has a copy of the cluster's own group only, which every node has.
// It returns the node's id.
func (l *lab) drain(i int) (id string) {
	l.t.Helper()
	began, asked := time.Now(), l.nodes[0]
	id = memberAt(l.settled(len(l.nodes)), l.nodes[i].address).GetId()
	asked.order(id, adminv1.NodeState_NODE_STATE_DRAINING)
	left := "nobody was asked"
	for deadline := began.Add(time.Minute); time.Now().Before(deadline); time.Sleep(50 * time.Millisecond) { // polling another process
		state, err := asked.cluster(l.t.Context())
		switch {
		case err != nil:
			left = err.Error()
		case state.GetProblem() != "":
			left = state.GetProblem()
		default:
			if left = remaining(state, id); left == "" {
				l.t.Logf("%s was drained in %s", l.nodes[i].address, time.Since(began).Round(time.Millisecond))
				return id
			}
		}
	}
	l.t.Fatalf("%s is not drained: %s", l.nodes[i].address, left)
	return ""
}

// remaining says what a draining node still has; "": nothing.
func remaining(state *adminv1.GetClusterResponse, id string) string {
	for _, node := range state.GetNodes() {
		if node.GetId() == id && (node.GetState() != adminv1.NodeState_NODE_STATE_DRAINING || node.GetLeads()+node.GetVotes()+node.GetCopies() > 0) {
			return node.String()
		}
	}
	if state.GetLeader() == id {
		return "it leads the cluster's own group"
	}
	for _, p := range state.GetPartitions() {
		has := slices.Concat(p.GetVoters(), p.GetOutgoing(), []string{p.GetLeader()})
		if p.GetId() != 0 {
			has = append(has, p.GetLearners()...)
		}
		if slices.Contains(has, id) {
			return p.String()
		}
	}
	return ""
}

// memberAt is the node at an address as the cluster has it; nil: there is none.
func memberAt(state *adminv1.GetClusterResponse, address string) *adminv1.ClusterNode {
	for _, node := range state.GetNodes() {
		if node.GetIngressAddress() == address {
			return node
		}
	}
	return nil
}

// order tells the cluster what is wanted of one of its nodes.
func (n *node) order(id string, to adminv1.NodeState) {
	n.t.Helper()
	ctx, cancel := context.WithTimeout(n.t.Context(), 10*time.Second)
	defer cancel()
	a, err := n.post(ctx, http.DefaultClient, "/perdure.admin.v1.ClusterService/SetNodeState", fmt.Sprintf(`{"nodeId":%q,"state":%q}`, id, to))
	if err != nil || a.status != http.StatusOK {
		n.t.Fatalf("%s of node %s: HTTP %d %s %v", to, id, a.status, a.body, err)
	}
}

// whole checks that the first nodes have everything, and that those after them were removed and have nothing.
func (l *lab) whole(nodes int, state *adminv1.GetClusterResponse) {
	l.t.Helper()
	for i, n := range l.nodes {
		has, want := state.GetPartitionCount(), adminv1.NodeState_NODE_STATE_ACTIVE
		if i >= nodes {
			has, want = 0, adminv1.NodeState_NODE_STATE_REMOVED
		}
		node := memberAt(state, n.address)
		if node.GetState() != want || node.GetVotes() != has || node.GetCopies() != has {
			l.t.Errorf("of %d partitions node %d has: %s", state.GetPartitionCount(), i+1, node)
		}
		if leads := state.GetLeader() == node.GetId(); leads && i >= nodes {
			l.t.Errorf("node %d was removed, and leads the cluster's own group", i+1)
		}
	}
}

// settled waits until all partitions have their three voters, and leaders are even on so many nodes. It returns
// how the cluster is then.
func (l *lab) settled(nodes int) *adminv1.GetClusterResponse {
	l.t.Helper()
	problem := "nobody was asked"
	for deadline := time.Now().Add(2 * time.Minute); time.Now().Before(deadline); time.Sleep(100 * time.Millisecond) {
		for _, n := range l.nodes {
			if n.command == nil {
				continue
			}
			if said := n.said.tail(20_000); strings.Contains(said, "partition is halted") {
				l.t.Fatalf("%s does not understand its log:\n%s", n.address, said)
			}
			state, err := n.cluster(l.t.Context())
			if err != nil {
				problem = err.Error()
				continue
			}
			if problem = unsettled(state, nodes); problem == "" {
				return state
			}
		}
	}
	l.t.Fatalf("the cluster does not come to rest: %s", problem)
	return nil
}

// cluster asks the node how the cluster is.
func (n *node) cluster(ctx context.Context) (*adminv1.GetClusterResponse, error) {
	ctx, cancel := context.WithTimeout(ctx, 3*time.Second)
	defer cancel()
	a, err := n.post(ctx, http.DefaultClient, "/perdure.admin.v1.ClusterService/GetCluster", "{}")
	if err != nil {
		return nil, err
	}
	if a.status != http.StatusOK {
		return nil, fmt.Errorf("HTTP %d: %s", a.status, a.body)
	}
	state := &adminv1.GetClusterResponse{}
	return state, protojson.Unmarshal([]byte(a.body), state)
}

func unsettled(state *adminv1.GetClusterResponse, nodes int) string {
	if state.GetProblem() != "" {
		return state.GetProblem()
	}
	fewest, most, alive := uint32(1<<31), uint32(0), 0
	for _, node := range state.GetNodes() {
		if node.GetHealth() == adminv1.NodeHealth_NODE_HEALTH_ALIVE {
			alive++
			fewest, most = min(fewest, node.GetLeads()), max(most, node.GetLeads())
		}
	}
	if alive != nodes || most > fewest+1 {
		return fmt.Sprintf("%d of %d nodes answer, and lead from %d to %d partitions", alive, nodes, fewest, most)
	}
	for _, p := range state.GetPartitions() {
		if p.GetId() != 0 && (len(p.GetVoters()) != 3 || len(p.GetOutgoing())+len(p.GetLearners())+len(p.GetLagging()) > 0 || p.GetLeader() == "") {
			return p.String()
		}
	}
	return ""
}

// pause is how long a customer waits after each call. What is proved is that no call fails while nodes come and go, for
// which a hundred in a second do; as many as there can be kept all cores busy with nothing else.
func pause() time.Duration {
	if *chaosFor >= time.Minute {
		return 0
	}
	return 100 * time.Millisecond
}

// customers call through the stub, one call after the other, and no call of theirs may fail.
type customers struct {
	t       *testing.T
	client  *actor.Client
	stop    context.CancelFunc
	callers sync.WaitGroup
	counts  []atomic.Int64 // acknowledged Adds, by key
	calls   atomic.Int64
	failed  atomic.Bool
	slowest atomic.Int64 // nanoseconds
}

// savings is what each account begins with.
const savings = 1000

func (c *customers) account(i int) string { return fmt.Sprint("plain/", i) }

func startCustomers(t *testing.T, random *rand.Rand, nodes []*node) *customers {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	c := &customers{t: t, client: cluster.Dial(nil, urls(nodes)...), stop: cancel, counts: make([]atomic.Int64, 16)}
	t.Cleanup(cancel)
	for i := range c.counts {
		if _, err := bank.Account(c.client, c.account(i)).Deposit(t.Context(), &bankv1.DepositRequest{Amount: savings}); err != nil {
			t.Fatal(err)
		}
	}
	for caller := range 16 {
		client, own := cluster.Dial(nil, urls(nodes)...), rand.New(rand.NewPCG(random.Uint64(), 0))
		c.callers.Go(func() {
			for number := 0; ctx.Err() == nil; number++ {
				began := time.Now()
				if err := c.call(t.Context(), client, own, fmt.Sprint(caller, "-", number)); err != nil {
					c.failed.Store(true)
					t.Errorf("call %d of caller %d failed after %s: %v", number, caller, time.Since(began), err)
					return
				}
				c.calls.Add(1)
				for took := int64(time.Since(began)); ; {
					if old := c.slowest.Load(); took <= old || c.slowest.CompareAndSwap(old, took) {
						break
					}
				}
				select {
				case <-ctx.Done():
				case <-time.After(pause()):
				}
			}
		})
	}
	return c
}

func (c *customers) call(ctx context.Context, client *actor.Client, random *rand.Rand, id string) error {
	key := random.IntN(len(c.counts))
	name := fmt.Sprint("roll/", key)
	switch random.IntN(4) {
	case 0:
		_, err := bench.Counter(client, name).Get(ctx, &benchv1.GetRequest{})
		return err
	case 1:
		to := (key + 1 + random.IntN(len(c.counts)-1)) % len(c.counts)
		_, err := bank.Transfer(client).Transfer(ctx, &bankv1.TransferRequest{TransferId: id, From: c.account(key), To: c.account(to), Amount: 2})
		if actor.CodeOf(err) == actor.FailedPrecondition { // no money is left: an answer
			err = nil
		}
		return err
	}
	_, err := bench.Counter(client, name).Add(ctx, &benchv1.AddRequest{Amount: 1})
	if err == nil {
		c.counts[key].Add(1)
	}
	return err
}

// more waits for so many more calls.
func (c *customers) more(calls int64) {
	c.t.Helper()
	for want, deadline := c.calls.Load()+calls, time.Now().Add(time.Minute); c.calls.Load() < want; time.Sleep(5 * time.Millisecond) {
		if c.failed.Load() || time.Now().After(deadline) {
			c.t.Fatalf("%d calls were answered, and the next ones were not", c.calls.Load())
		}
	}
}

// finish ends the calls, and proves what they came to.
func (c *customers) finish() {
	c.t.Helper()
	c.stop()
	c.callers.Wait()
	var names []string
	for i := range c.counts {
		names = append(names, c.account(i))
		got, err := bench.Counter(c.client, fmt.Sprint("roll/", i)).Get(c.t.Context(), &benchv1.GetRequest{})
		if want := c.counts[i].Load(); err != nil || got.Value != want {
			c.t.Errorf("counter %d is %d after %d acknowledged calls: %v", i, got.GetValue(), want, err)
		}
	}
	total, err := bank.BackOffice(c.client).Total(c.t.Context(), &bankv1.TotalRequest{AccountIds: names})
	if want := int64(savings * len(names)); err != nil || total.Sum != want {
		c.t.Errorf("accounts hold %d, not %d: %v", total.GetSum(), want, err)
	}
	c.t.Logf("%d calls, none failed; the slowest took %s", c.calls.Load(), time.Duration(c.slowest.Load()).Round(time.Millisecond))
}
