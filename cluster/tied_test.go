package cluster_test

import (
	"errors"
	"fmt"
	"net/http"
	"strings"
	"testing"

	"google.golang.org/protobuf/encoding/protojson"

	"github.com/perdure/perdure/actor"
	"github.com/perdure/perdure/cluster"
	"github.com/perdure/perdure/internal/invocation"
	adminv1 "github.com/perdure/perdure/proto/perdure/admin/v1"
)

const tiedPartitions = 6

// tiedNode is a node that runs one of two builds of a workflow. Its results say which, and where.
type tiedNode struct {
	*cluster.Node
	name, dir string
	program   *program
}

// start runs a build on the node's directory. v1 waits for what it is told; v2 greets before, unless v1 has begun.
func (n *tiedNode) start(t *testing.T, build string, join ...string) {
	t.Helper()
	n.program = newProgram(t, builtA, handlers{"Flow/Run": func(ctx actor.Context, _ string) (string, error) {
		if err := textDo(ctx, "first"); err != nil {
			return "", err
		}
		greeted := ""
		if build == "v2" && actor.Version(ctx, "greet", actor.Unversioned, 1) >= 1 {
			if err := textDo(ctx, "greet"); err != nil {
				return "", err
			}
			greeted = ", greeted"
		}
		_, err := actor.InboxOf[*mixin](ctx, "Tell").Receive(ctx)
		return build + " on " + n.name + greeted, err
	}})
	n.Node = n.program.node(n.dir, cluster.WithPartitions(tiedPartitions), cluster.WithDeployment(build),
		cluster.WithPeers(cluster.Peers{Listen: "127.0.0.1:0", Join: join}))
	mustStart(t, n.Node)
	t.Cleanup(func() { cutOff(t, n.Node) })
}

func (n *tiedNode) cluster(t *testing.T) *adminv1.GetClusterResponse {
	t.Helper()
	status, body := request(t, n.URL()+"/perdure.admin.v1.ClusterService/GetCluster", "{}")
	found := &adminv1.GetClusterResponse{}
	if err := protojson.Unmarshal([]byte(body), found); err != nil || status != http.StatusOK {
		t.Fatalf("%d %s %v", status, body, err)
	}
	return found
}

// TestStaysWithItsDeployment: of a cluster whose nodes get a new build one after the other, invocations that the
// old one has begun go on where that runs, whoever leads their partitions, until the last node of it is gone.
func TestStaysWithItsDeployment(t *testing.T) {
	nodes := []*tiedNode{{name: "a", dir: t.TempDir()}, {name: "b", dir: t.TempDir()}, {name: "c", dir: t.TempDir()}}
	a, b, c := nodes[0], nodes[1], nodes[2]
	a.start(t, "v1")
	b.start(t, "v1", a.PeerAddress())
	c.start(t, "v1", a.PeerAddress())
	whole := func() error {
		state, votes := a.cluster(t), 0
		for _, p := range state.GetPartitions() {
			if len(p.GetVoters()) == 3 && len(p.GetLagging()) == 0 && p.GetLeader() != "" {
				votes++
			}
		}
		if votes < tiedPartitions || state.GetProblem() != "" {
			return fmt.Errorf("not all partitions have three voters: %v", state)
		}
		return nil
	}
	eventually(t, whole)
	ids := map[string]string{}
	begin := func(key, build string) {
		t.Helper()
		ids[key] = a.program.send(t, a.Node, "Flow/Run", key, "").ID()
		awaitInvocation(t, a.Node, ids[key], func(i *adminv1.Invocation) bool { return i.GetDeployment() == build && i.GetEntries() >= 2 })
	}
	for n := range 24 {
		begin(fmt.Sprint("f", n), "v1")
	}
	for _, n := range []*tiedNode{b, c} {
		stopNode(t, n.Node)
		n.start(t, "v2", a.PeerAddress())
		eventually(t, whole)
	}
	// The new nodes lead everything.
	var names = map[string]string{}
	for _, node := range a.cluster(t).GetNodes() {
		for _, n := range nodes {
			if strings.HasSuffix(n.URL(), node.GetIngressAddress()) {
				names[n.name] = node.GetId()
			}
		}
	}
	if len(names) != len(nodes) {
		t.Fatalf("the nodes are %v", a.cluster(t).GetNodes())
	}
	led := func(id string) string {
		parsed, err := invocation.ParseID(id)
		if err != nil {
			t.Fatal(err)
		}
		for _, p := range a.cluster(t).GetPartitions() {
			if p.GetId() == parsed.Partition(tiedPartitions) {
				return p.GetLeader()
			}
		}
		return ""
	}
	// next is a workflow that was begun and whose partition the new build leads.
	next := func() (key, id string) {
		t.Helper()
		eventually(t, func() error {
			for key, id = range ids {
				if leader := led(id); leader != "" && leader != names["a"] {
					delete(ids, key)
					return nil
				}
			}
			return fmt.Errorf("the old build leads everything that %v", ids)
		})
		return key, id
	}
	is := func(node *tiedNode, id, deployment, earlier string) {
		t.Helper()
		i := awaitInvocation(t, node.Node, id, func(i *adminv1.Invocation) bool { return i.GetCompletedAt() != nil })
		if i.GetDeployment() != deployment || strings.Join(i.GetEarlierDeployments(), " ") != earlier {
			t.Errorf("%s ran on %s after %q, want %s after %q", id, i.GetDeployment(), i.GetEarlierDeployments(), deployment, earlier)
		}
	}
	tell := func(node *tiedNode, key, id string) string {
		t.Helper()
		node.program.send(t, node.Node, "Flow/Tell", key, "go on")
		result, err := actor.Attach[*mixin](node.Client(), id).Attach(soon(t))
		if err != nil {
			t.Fatal(err)
		}
		return result.GetRoot()
	}

	key, id := next()
	if got := tell(b, key, id); got != "v1 on a" {
		t.Errorf("what v1 has begun ended with %q, not on the node that runs v1", got)
	}
	is(b, id, "v1", "")

	// A new one runs where it is led. While leaderships still move to the nodes that have come back, it may be led by
	// another one than was told, so that some begin elsewhere; not for long.
	fresh := 0
	eventually(t, func() error {
		for n := range 100 {
			key := fmt.Sprint("new", fresh+n)
			if leader := led(actor.IDOf("t.v1.Flow", key, "Run", "")); leader == "" || leader == names["a"] {
				continue
			}
			fresh += n + 1
			if got := tell(c, key, c.program.send(t, c.Node, "Flow/Run", key, "").ID()); !strings.HasPrefix(got, "v2 on ") || !strings.HasSuffix(got, ", greeted") {
				return fmt.Errorf("a new one that v2 led ended with %q", got)
			}
			return nil
		}
		return errors.New("the old build leads everything")
	})

	// An operator has it go on with another one, and back.
	resume := func(node *tiedNode, id, on string) (refused string) {
		t.Helper()
		eventually(t, func() error { // its partition may be without a leader, when one is gone or it is moved
			if refused := refusedCall(t, node.Node, "PauseInvocation", &adminv1.PauseInvocationRequest{InvocationId: id}); refused != "" {
				return errors.New(refused)
			}
			refused = refusedCall(t, node.Node, "ResumeInvocation", &adminv1.ResumeInvocationRequest{InvocationId: id, Deployment: on})
			if strings.Contains(refused, `"unavailable"`) {
				return errors.New(refused)
			}
			return nil
		})
		return refused
	}
	key, id = next()
	if refused := resume(b, id, "v2"); refused != "" {
		t.Fatalf("resumed on v2: %s", refused)
	}
	awaitInvocation(t, b.Node, id, func(i *adminv1.Invocation) bool { return i.GetDeployment() == "v2" })
	other, otherID := next()
	for _, on := range []string{"v2", "v1"} {
		if refused := resume(b, otherID, on); refused != "" {
			t.Fatalf("resumed on %s: %s", on, refused)
		}
	}
	if got := tell(b, key, id); !strings.HasPrefix(got, "v2 on ") || strings.HasSuffix(got, "greeted") {
		t.Errorf("what was resumed on v2 ended with %q", got)
	}
	is(b, id, "v2", "v1")
	if got := tell(b, other, otherID); got != "v1 on a" {
		t.Errorf("what was resumed on v2 and then on v1 ended with %q", got)
	}
	is(b, otherID, "v1", "v1 v2")

	// The last node of v1 is gone: what it has begun moves on.
	key, id = next()
	stopNode(t, a.Node)
	if got := tell(b, key, id); !strings.HasPrefix(got, "v2 on ") || strings.HasSuffix(got, "greeted") {
		t.Errorf("what v1 has begun ended with %q after v1 was gone", got)
	}
	is(b, id, "v2", "v1")
	for key, id = range ids {
		break
	}
	if refused := resume(b, id, "v1"); !strings.Contains(refused, "deployment v1 does not run") {
		t.Errorf("resumed on what is gone: %q", refused)
	}
}
