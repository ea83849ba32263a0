//go:build linux

package chaos

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net/http"
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

// TestGrowAndRoll: a single node with data becomes three and then four, and then each is stopped in
// order and started again, while callers with the Go stub go on. None of their calls may fail, no
// money may be lost, and each call takes effect once.
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
	c.finish()
}

// settled waits until all partitions have their three voters, and leaders are even on so many nodes.
func (l *lab) settled(nodes int) {
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
				return
			}
		}
	}
	l.t.Fatalf("the cluster does not come to rest: %s", problem)
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

// customers call through the stub without pause, and no call of theirs may fail.
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
