package cluster_test

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/perdure/perdure/cluster"
)

// crew are nodes of one cluster that run programs.
type crew struct {
	t     *testing.T
	nodes map[string]*cluster.Node
	dirs  map[string]string
}

func newCrew(t *testing.T) *crew {
	return &crew{t, map[string]*cluster.Node{}, map[string]string{}}
}

// begin starts a node with a build; the first one founds the cluster.
func (c *crew) begin(name string, p *program, build string, opts ...cluster.Option) error {
	peers := cluster.Peers{Listen: "127.0.0.1:0"}
	for _, other := range c.nodes {
		peers.Join = append(peers.Join, other.PeerAddress())
	}
	if c.dirs[name] == "" {
		c.dirs[name] = c.t.TempDir()
	}
	node := p.node(c.dirs[name], append([]cluster.Option{cluster.WithDeployment(build), cluster.WithPeers(peers)}, opts...)...)
	ctx, cancel := context.WithTimeout(c.t.Context(), time.Minute)
	defer cancel()
	if err := node.Start(ctx); err != nil {
		return err
	}
	c.nodes[name] = node
	c.t.Cleanup(func() { cutOff(c.t, node) })
	return nil
}

func (c *crew) must(err error) {
	c.t.Helper()
	if err != nil {
		c.t.Fatal(err)
	}
}

func (c *crew) stop(name string) {
	c.t.Helper()
	stopNode(c.t, c.nodes[name])
	delete(c.nodes, name)
}

// listed is a line of the deployments that a node lists.
type listed struct {
	ID, Status      string
	Nodes           []string
	InFlight        string
	AcceptedChanges []string
}

// list asks a node, by id.
func (c *crew) list(name string) map[string]listed {
	c.t.Helper()
	_, body := request(c.t, c.nodes[name].URL()+"/perdure.admin.v1.AdminService/ListDeployments", `{"removed":true}`)
	var found struct{ Deployments []listed }
	if err := json.Unmarshal([]byte(body), &found); err != nil {
		c.t.Fatalf("%s: %v", body, err)
	}
	lines := map[string]listed{}
	for _, d := range found.Deployments {
		d.Status = strings.TrimPrefix(d.Status, "DEPLOYMENT_STATUS_")
		lines[d.ID] = d
	}
	return lines
}

// lists waits until all nodes say so of a deployment; status "" is that they don't know it.
func (c *crew) lists(id, status string, nodes int) {
	c.t.Helper()
	for name := range c.nodes {
		eventually(c.t, func() error {
			if got := c.list(name)[id]; got.Status != status || len(got.Nodes) != nodes {
				return fmt.Errorf("node %s says that %s is %q on %v; not %q on %d nodes", name, id, got.Status, got.Nodes, status, nodes)
			}
			return nil
		})
	}
}

func (c *crew) ask(name, method, body string) (int, string) {
	return request(c.t, c.nodes[name].URL()+"/perdure.admin.v1.AdminService/"+method, body)
}

// copied waits until every partition has all the voters that it can have, none of which lags, so that a node can be
// stopped.
func (c *crew) copied(name string) {
	c.t.Helper()
	eventually(c.t, func() error {
		_, body := request(c.t, c.nodes[name].URL()+"/perdure.admin.v1.ClusterService/GetCluster", "{}")
		var found struct {
			Nodes      []struct{ ID, Health string }
			Partitions []struct {
				Leader          string
				Voters, Lagging []string
			}
		}
		if err := json.Unmarshal([]byte(body), &found); err != nil {
			return err
		}
		if len(found.Partitions) != 3 {
			return fmt.Errorf("%d partitions are known", len(found.Partitions))
		}
		for _, n := range found.Nodes {
			if n.Health != "NODE_HEALTH_ALIVE" {
				return fmt.Errorf("node %s is %s", n.ID, n.Health)
			}
		}
		for id, p := range found.Partitions {
			if p.Leader == "" || len(p.Voters) != 3 || len(p.Lagging) > 0 {
				return fmt.Errorf("partition %d: %+v", id, p)
			}
		}
		return nil
	})
}

// waitingHandlers are those of A, and a handler more that waits.
func waitingHandlers() handlers {
	h := handlersA()
	h["Thing/Late"] = h["Thing/Wait"]
	return h
}

var (
	// builtMore adds a handler.
	builtMore = strings.Replace(builtA, "rpc Set(", "rpc Late(Req) returns (Res) { option (perdure.v1.method) = {mode: DURABLE}; } rpc Set(", 1)
	// builtBroken can't read the state that others have written.
	builtBroken = strings.Replace(builtA, "message St { string value", "message St { int64 value", 1)
)

// withMore is a build that adds a handler.
func withMore(t *testing.T) *program {
	return newProgram(t, builtMore, waitingHandlers())
}

// TestWhoJoinsMustFit: a node is compared with what the cluster has, whatever it has itself, and what one node was
// started with all know.
func TestWhoJoinsMustFit(t *testing.T) {
	c := newCrew(t)
	a := newProgram(t, builtA, handlersA())
	c.must(c.begin("one", a, "a"))
	leftovers["state"](t, a, c.nodes["one"])
	c.must(c.begin("two", a, "a"))
	c.lists("a", "ACTIVE", 2)

	broken := newProgram(t, builtBroken, handlersA())
	err := c.begin("three", broken, "b")
	for _, part := range []string{"deployment b does not fit what is kept in the cluster", "t.v1.St.value: was string and is int64", "there are states", "it was so in deployment a", "--accept-breaking"} {
		if err == nil || !strings.Contains(err.Error(), part) {
			t.Fatalf("%q is not in: %v", part, err)
		}
	}
	if err := c.begin("three", broken, "a"); err == nil || !strings.Contains(err.Error(), "a is the name of another build in this cluster, with other descriptors") && !strings.Contains(err.Error(), "does not fit") {
		t.Fatalf("with the same name: %v", err)
	}
	more := withMore(t)
	if err := c.begin("three", more, "a"); err == nil || !strings.Contains(err.Error(), "a is the name of another build in this cluster, with other descriptors") {
		t.Fatalf("with the same name, and nothing that breaks: %v", err)
	}
	if len(c.list("one")) != 1 {
		t.Errorf("what was refused is known: %v", c.list("one"))
	}
	c.must(c.begin("three", broken, "b", cluster.WithBreakingChanges()))
	c.lists("b", "ACTIVE", 1)
	c.lists("a", "ACTIVE", 2)
	if changes := c.list("two")["b"].AcceptedChanges; len(changes) != 1 || !strings.Contains(changes[0], "t.v1.St.value") {
		t.Errorf("accepted: %q", changes)
	}
}

// TestRollingRestart: nodes of two builds come and go while one takes the place of the other. One that slept through
// it is told so.
func TestRollingRestart(t *testing.T) {
	c := newCrew(t)
	a, b := newProgram(t, builtA, handlersA()), withMore(t)
	for _, name := range []string{"one", "two", "three"} {
		c.must(c.begin(name, a, "a"))
	}
	c.copied("one")
	c.stop("one")
	c.must(c.begin("one", b, "b"))
	b.send(t, c.nodes["one"], "Thing/Late", "k", "")
	c.lists("b", "ACTIVE", 1)
	eventually(t, func() error {
		if lines := c.list("two"); lines["a"].InFlight+lines["b"].InFlight != "1" { // a has the service, b the handler
			return fmt.Errorf("in flight: %v", lines)
		}
		return nil
	})
	// One that was there before comes back as it was.
	c.stop("three")
	c.must(c.begin("three", a, "a"))
	c.copied("one")
	c.stop("two")
	c.must(c.begin("two", b, "b"))
	c.copied("one")
	c.stop("three")
	err := c.begin("three", a, "a")
	for _, part := range []string{"deployment a does not fit what is kept in the cluster", "rpc Late is gone", "1 invocation has not ended", "it was so in deployment b"} {
		if err == nil || !strings.Contains(err.Error(), part) {
			t.Fatalf("%q is not in: %v", part, err)
		}
	}
	c.must(c.begin("three", b, "b"))
	c.lists("b", "ACTIVE", 3)
}

// TestDrainAndRemoveInACluster: both are the cluster's.
func TestDrainAndRemoveInACluster(t *testing.T) {
	c := newCrew(t)
	a, b := newProgram(t, builtA, handlersA()), withMore(t)
	for _, name := range []string{"one", "two", "three"} {
		c.must(c.begin(name, a, "a"))
	}
	c.lists("a", "ACTIVE", 3)
	open := func(name string, open bool) {
		t.Helper()
		// Not by a stub, which repeats what is unavailable.
		eventually(t, func() error { // which it may be for a moment while a leadership moves
			status, body := request(t, c.nodes[name].URL()+"/t.v1.Thing/Set", `{"name":"k","root":"x"}`)
			draining := status == 503 && strings.Contains(body, "deployment a is draining")
			switch {
			case open && draining, !open && status == 200:
				t.Fatalf("node %s: %d %s", name, status, body)
			case !open && !draining, open && status != 200:
				return fmt.Errorf("node %s: %d %s", name, status, body)
			}
			return nil
		})
	}
	if status, body := c.ask("two", "DrainDeployment", `{"id":"a"}`); status != 200 {
		t.Fatal(body)
	}
	c.lists("a", "DRAINING", 3)
	for name := range c.nodes {
		open(name, false)
	}
	// A restart goes on draining, and so does one that joins.
	c.copied("one")
	c.stop("three")
	c.must(c.begin("three", a, "a"))
	open("three", false)
	c.must(c.begin("four", a, "a"))
	open("four", false)
	if _, err := a.call(t, c.nodes["four"], "Thing/Get", "k", ""); err != nil {
		t.Errorf("a READ: %v", err)
	}
	if status, body := c.ask("four", "DrainDeployment", `{"id":"a","undo":true}`); status != 200 {
		t.Fatal(body)
	}
	c.lists("a", "ACTIVE", 4)
	open("one", true)

	if _, body := c.ask("one", "RemoveDeployment", `{"id":"a"}`); !strings.Contains(body, "is what this node runs") {
		t.Errorf("it runs here: %s", body)
	}
	c.copied("one")
	c.stop("one")
	c.must(c.begin("one", b, "b"))
	c.lists("a", "ACTIVE", 3)
	if _, body := c.ask("one", "RemoveDeployment", `{"id":"a"}`); !strings.Contains(body, "deployment a is what node") {
		t.Errorf("it runs elsewhere: %s", body)
	}
	for _, name := range []string{"two", "three"} {
		c.copied("one")
		c.stop(name)
		c.must(c.begin(name, b, "b"))
	}
	c.copied("one")
	c.stop("four")
	eventually(t, func() error { // gossip has said that it has left
		if _, body := c.ask("one", "RemoveDeployment", `{"id":"a"}`); !strings.Contains(body, "was started with last") {
			return fmt.Errorf("a node that is down has it: %s", body)
		}
		return nil
	})
	c.must(c.begin("four", b, "b"))
	c.copied("one")
	c.stop("three")
	eventually(t, func() error {
		if status, body := c.ask("one", "RemoveDeployment", `{"id":"a"}`); status != 200 {
			return fmt.Errorf("%d %s", status, body)
		}
		return nil
	})
	c.lists("a", "REMOVED", 0)
	c.must(c.begin("three", b, "b")) // which was not there
	c.lists("a", "REMOVED", 0)
}

// TestAllAtOnce: a cluster comes back though no node finds a leader when it is started.
func TestAllAtOnce(t *testing.T) {
	c := newCrew(t)
	a := newProgram(t, builtA, handlersA())
	for _, name := range []string{"one", "two", "three"} {
		c.must(c.begin(name, a, "a"))
	}
	a.send(t, c.nodes["one"], "Thing/Wait", "k", "")
	c.copied("one")
	seed := c.nodes["two"].PeerAddress()
	for _, name := range []string{"one", "two", "three"} {
		c.stop(name)
	}
	var starting sync.WaitGroup
	var mu sync.Mutex
	for name, dir := range c.dirs {
		peers := cluster.Peers{Listen: "127.0.0.1:0", Join: []string{seed}}
		if name == "two" {
			peers = cluster.Peers{Listen: seed, TransportListen: "127.0.0.1:0"}
		}
		node := a.node(dir, cluster.WithDeployment("a"), cluster.WithPeers(peers))
		starting.Go(func() {
			if err := node.Start(soon(t)); err != nil {
				t.Error(err)
				return
			}
			mu.Lock()
			c.nodes[name] = node
			mu.Unlock()
		})
	}
	starting.Wait()
	t.Cleanup(func() {
		for name := range c.nodes {
			c.stop(name)
		}
	})
	c.lists("a", "ACTIVE", 3)
	if _, err := a.call(t, c.nodes["two"], "Thing/Set", "other", "x"); err != nil {
		t.Error(err)
	}
}

// TestHistoryIsTold: what ran on a node before it had others, the cluster knows: what it left is compared with, and
// what drained goes on draining.
func TestHistoryIsTold(t *testing.T) {
	dir := t.TempDir()
	a, b := newProgram(t, builtA, handlersA()), withMore(t)
	delete(b.services, "Flow")
	alone := a.node(dir, cluster.WithDeployment("a"))
	mustStart(t, alone)
	leftovers["flow"](t, a, alone)
	stopNode(t, alone)
	alone = b.node(dir, cluster.WithDeployment("b"), cluster.WithBreakingChanges())
	mustStart(t, alone)
	if status, body := request(t, alone.URL()+"/perdure.admin.v1.AdminService/DrainDeployment", `{"id":"b"}`); status != 200 {
		t.Fatal(body)
	}
	stopNode(t, alone)

	c := newCrew(t)
	c.dirs["one"] = dir
	c.must(c.begin("one", b, "b"))
	c.must(c.begin("two", b, "b"))
	c.lists("b", "DRAINING", 2)
	c.lists("a", "ACTIVE", 0)
	err := c.begin("three", newProgram(t, strings.Replace(builtA, `{name: "done" type: "Line"}`, `{name: "done" type: "St"}`, 1), handlersA()), "c")
	for _, part := range []string{`promise "done" was of type "t.v1.Line" and is of type "t.v1.St"`, "1 invocation has not ended", "it was so in deployment a"} {
		if err == nil || !strings.Contains(err.Error(), part) {
			t.Fatalf("%q is not in: %v", part, err)
		}
	}
}

// TestCanaryThatWasTakenBack: a build that was let in while it harmed nothing, and that no node runs any more, is
// compared with what the others have left since.
func TestCanaryThatWasTakenBack(t *testing.T) {
	c := newCrew(t)
	a := newProgram(t, builtA, handlersA())
	broken := newProgram(t, builtBroken, handlersA())
	for _, name := range []string{"one", "two", "three"} {
		c.must(c.begin(name, a, "a"))
	}
	c.copied("one")
	c.stop("three")
	c.must(c.begin("three", broken, "b"))
	c.copied("one")
	c.stop("three")
	c.must(c.begin("three", a, "a"))
	leftovers["state"](t, a, c.nodes["three"])
	c.copied("one")
	c.stop("three")
	err := c.begin("three", broken, "b")
	for _, part := range []string{"deployment b does not fit what is kept in the cluster", "t.v1.St.value: was string and is int64", "there are states", "started with such a deployment last: ", "perdure cluster remove"} {
		if err == nil || !strings.Contains(err.Error(), part) {
			t.Fatalf("%q is not in: %v", part, err)
		}
	}
	// What was accepted once is accepted on the next node, too.
	c.must(c.begin("three", broken, "b", cluster.WithBreakingChanges()))
	c.copied("one")
	c.stop("two")
	c.must(c.begin("two", broken, "b"))
	c.lists("b", "ACTIVE", 2)
}
