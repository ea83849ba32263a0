package registry

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"
	"testing"

	recordv1 "github.com/perdure/perdure/internal/record/v1"
)

// described is a deployment with its only file.
type described struct {
	row  *recordv1.Deployment
	file []byte
}

// describe makes deployments that differ in all but every second file. The last of each has two parts.
func describe(n int) described {
	return describeWith(n, bytes.Repeat([]byte{byte(n / 2)}, 1+n%2*(MaxPartBytes+1)))
}

func describeWith(n int, file []byte) described {
	sum := sha256.Sum256(file)
	return described{&recordv1.Deployment{
		Id: fmt.Sprintf("v%d", n), Fingerprint: fmt.Sprintf("fingerprint %d", n), Build: "git 1",
		Services: []string{"a.Service"}, Files: []string{hex.EncodeToString(sum[:])},
	}, file}
}

// parts are the changes that store its file.
func parts(d described) (changes []*recordv1.ClusterChange) {
	for at := 0; at < len(d.file); at += MaxPartBytes {
		changes = append(changes, StorePart(d.row.Files[0], uint64(len(d.file)), uint64(at), d.file[at:min(at+MaxPartBytes, len(d.file))]))
	}
	return changes
}

// catalogOf is a cluster of nodes with a leader, and a way to ask it.
func catalogOf(t *testing.T, nodes int) (*cluster, func(*recordv1.ClusterChange) error) {
	t.Helper()
	levels := make([]uint32, nodes)
	for i := range levels {
		levels[i] = DeploymentsLevel
	}
	c := newCluster(t, levels...)
	c.elect(c.members[0])
	c.settle()
	ask := func(change *recordv1.ClusterChange) error {
		answer := begin(func() error { return c.members[0].Change(context.Background(), change) })
		c.settle()
		err, ok := answered(answer)
		if !ok {
			t.Fatal("no answer")
		}
		return err
	}
	for _, m := range c.members {
		if err := ask(Admission(m.self(DeploymentsLevel))); err != nil {
			t.Fatal(err)
		}
	}
	return c, ask
}

func (c *cluster) put(t *testing.T, ask func(*recordv1.ClusterChange) error, node uint64, d described) error {
	t.Helper()
	for _, part := range parts(d) {
		if err := ask(part); err != nil {
			t.Fatal(err)
		}
	}
	return ask(Registration(node, d.row, c.members[0].View().Catalog))
}

func status(c *cluster, id string) recordv1.DeploymentStatus {
	for _, d := range c.members[0].View().Deployments {
		if d.Id == id {
			return d.Status
		}
	}
	return 0
}

const (
	active   = recordv1.DeploymentStatus_DEPLOYMENT_STATUS_ACTIVE
	draining = recordv1.DeploymentStatus_DEPLOYMENT_STATUS_DRAINING
	gone     = recordv1.DeploymentStatus_DEPLOYMENT_STATUS_REMOVED
)

func TestRegister(t *testing.T) {
	bubble(t, func(t *testing.T) {
		c, ask := catalogOf(t, 3)
		defer c.close()
		one, two := describe(1), describe(2)
		if err := ask(Registration(1, one.row, 0)); !errors.Is(err, ErrStale) || !strings.Contains(err.Error(), "is not stored") {
			t.Errorf("without its file: %v", err)
		}
		if err := c.put(t, ask, 1, one); err != nil {
			t.Fatal(err)
		}
		for _, m := range c.members {
			got, err := m.File(one.row.Files[0])
			if err != nil || !bytes.Equal(got, one.file) {
				t.Errorf("node %d reads %d bytes of %d: %v", m.id, len(got), len(one.file), err)
			}
			if node, _ := m.View().Node(1); node.Deployment != "v1" || len(m.View().Deployments) != 1 {
				t.Errorf("node %d: %+v", m.id, m.View())
			}
		}
		records := len(c.log)
		if err := c.put(t, ask, 1, one); err != nil || len(c.log) != records {
			t.Errorf("again: %v, %d records more", err, len(c.log)-records)
		}
		// Two that compared with the same: the second is told to look again.
		seen := c.members[0].View().Catalog
		if err := c.put(t, ask, 2, two); err != nil {
			t.Fatal(err)
		}
		three := describe(3)
		for _, part := range parts(three) {
			if err := ask(part); err != nil {
				t.Fatal(err)
			}
		}
		if err := ask(Registration(3, three.row, seen)); !errors.Is(err, ErrStale) {
			t.Errorf("compared with what was before: %v", err)
		}
		// A name stands for one build.
		other := describeWith(1, []byte("other"))
		other.row.Fingerprint = "another"
		if err := c.put(t, ask, 3, other); !errors.Is(err, ErrInvalid) || !strings.Contains(err.Error(), "v1 is the name of another build in this cluster") {
			t.Errorf("the same name: %v", err)
		}
		if err := ask(Registration(77, one.row, c.members[0].View().Catalog)); !errors.Is(err, ErrNoSuchNode) {
			t.Errorf("a stranger: %v", err)
		}
		if err := ask(StateChange(3, 2)); err != nil { // removed
			t.Fatal(err)
		}
		if err := ask(Registration(3, one.row, c.members[0].View().Catalog)); !errors.Is(err, ErrRemoved) {
			t.Errorf("a node that was removed: %v", err)
		}
		c.check()
	})
}

// TestDeploymentStatus: what drains does so until it is undone, or until no node has it and one is started with it.
func TestDeploymentStatus(t *testing.T) {
	bubble(t, func(t *testing.T) {
		c, ask := catalogOf(t, 2)
		defer c.close()
		one, two := describe(1), describe(2)
		must := func(err error) {
			t.Helper()
			if err != nil {
				t.Fatal(err)
			}
		}
		want := func(id string, want recordv1.DeploymentStatus) {
			t.Helper()
			if got := status(c, id); got != want {
				t.Errorf("%s is %s, not %s", id, got, want)
			}
		}
		must(c.put(t, ask, 1, one))
		must(ask(DeploymentChange("v1", draining)))
		must(c.put(t, ask, 2, one))
		want("v1", draining)
		must(c.put(t, ask, 1, two))
		want("v1", draining)
		must(c.put(t, ask, 2, one))
		want("v1", draining)
		if err := ask(DeploymentChange("v1", gone)); !errors.Is(err, ErrInvalid) || !strings.Contains(err.Error(), "node 0000000000000002 was started with last") {
			t.Errorf("removed while a node has it: %v", err)
		}
		must(c.put(t, ask, 2, two))
		want("v1", draining)
		must(c.put(t, ask, 1, one))
		want("v1", active)
		must(c.put(t, ask, 1, two))
		must(ask(DeploymentChange("v1", gone)))
		if err := ask(DeploymentChange("v1", draining)); !errors.Is(err, ErrInvalid) {
			t.Errorf("a removed one drains: %v", err)
		}
		if err := ask(DeploymentChange("v9", draining)); !errors.Is(err, ErrNoSuchDeployment) {
			t.Errorf("an unknown one: %v", err)
		}
		must(c.put(t, ask, 1, one))
		want("v1", active)
		if first := c.members[0].View().Deployments[0].Id; first != "v1" {
			t.Errorf("%s was started last", first)
		}
		c.check()
	})
}

// TestCatalogMakesRoom: what nobody needs any more goes, the oldest first, and what is needed does not.
func TestCatalogMakesRoom(t *testing.T) {
	bubble(t, func(t *testing.T) {
		c, ask := catalogOf(t, 1)
		defer c.close()
		rare := describeWith(1000, []byte("rare"))
		rare.row.Services = []string{"a.Rare"}
		if err := c.put(t, ask, 1, rare); err != nil {
			t.Fatal(err)
		}
		for n := range MaxDeployments + 2 {
			if err := c.put(t, ask, 1, describeWith(n, []byte(fmt.Sprint("file ", n)))); err != nil {
				t.Fatalf("deployment %d: %v", n, err)
			}
		}
		view := c.members[0].View()
		if len(view.Deployments) != MaxDeployments || status(c, "v1000") != active || status(c, "v2") != 0 || status(c, "v3") != active {
			t.Errorf("%d deployments, v1000 is %s, v2 %s, v3 %s", len(view.Deployments), status(c, "v1000"), status(c, "v2"), status(c, "v3"))
		}
		if _, err := c.members[0].File(describeWith(2, []byte("file 2")).row.Files[0]); !errors.Is(err, ErrNotApplied) {
			t.Errorf("the file of what is forgotten: %v", err)
		}
		c.check()
	})
}

// TestCatalogIsFull: each deployment is the last one with a service.
func TestCatalogIsFull(t *testing.T) {
	bubble(t, func(t *testing.T) {
		c, ask := catalogOf(t, 1)
		defer c.close()
		next := func(n int) error {
			d := describeWith(n, []byte(fmt.Sprint("file ", n)))
			d.row.Services = []string{fmt.Sprintf("a.S%d", n)}
			return c.put(t, ask, 1, d)
		}
		for n := range MaxDeployments {
			if err := next(n); err != nil {
				t.Fatalf("deployment %d: %v", n, err)
			}
		}
		if err := next(MaxDeployments); !errors.Is(err, ErrInvalid) || !strings.Contains(err.Error(), "catalog of deployments is full: there are 200 of at most 200") {
			t.Errorf("one more: %v", err)
		}
		if err := ask(DeploymentChange("v7", gone)); err != nil {
			t.Fatal(err)
		}
		if err := next(MaxDeployments); err != nil || status(c, "v7") != 0 {
			t.Errorf("after one is removed: %v, it is %s", err, status(c, "v7"))
		}
		c.check()
	})
}

// TestFileParts: parts come in order, twice or not, and only such as are one.
func TestFileParts(t *testing.T) {
	bubble(t, func(t *testing.T) {
		c, ask := catalogOf(t, 1)
		defer c.close()
		d := describeWith(1, make([]byte, 2*MaxPartBytes+5))
		all := parts(d)
		if err := ask(all[1]); !errors.Is(err, ErrStale) {
			t.Errorf("the second part first: %v", err)
		}
		for _, part := range []*recordv1.ClusterChange{all[0], all[0], all[1], all[0], all[2], all[1], all[2]} {
			if err := ask(part); err != nil {
				t.Fatal(err)
			}
		}
		if got, err := c.members[0].File(d.row.Files[0]); err != nil || len(got) != len(d.file) {
			t.Errorf("%d bytes: %v", len(got), err)
		}
		for name, part := range map[string]*recordv1.ClusterChange{
			"no hash": StorePart("x", 1, 0, []byte("x")), "empty": StorePart(d.row.Files[0], 1, 0, nil), "behind its end": StorePart(d.row.Files[0], 1, 0, []byte("xx")),
			"short": StorePart(d.row.Files[0], 10, 0, []byte("xx")), "askew": StorePart(d.row.Files[0], 10, 3, []byte("xx")),
			"large": StorePart(d.row.Files[0], MaxFileBytes+1, 0, make([]byte, MaxPartBytes)), "another size": StorePart(d.row.Files[0], 1, 0, []byte("x")),
		} {
			if err := ask(part); !errors.Is(err, ErrInvalid) {
				t.Errorf("%s: %v", name, err)
			}
		}
		// A file that is not what its name says is not handed out.
		lie := StorePart(strings.Repeat("ab", 32), 1, 0, []byte("x"))
		if err := ask(lie); err != nil {
			t.Fatal(err)
		}
		if _, err := c.members[0].File(strings.Repeat("ab", 32)); err == nil || !strings.Contains(err.Error(), "is damaged") {
			t.Errorf("a lie: %v", err)
		}
	})
}

// TestDeploymentsWait: a cluster in which a node does not read them keeps none.
func TestDeploymentsWait(t *testing.T) {
	bubble(t, func(t *testing.T) {
		c := newCluster(t, DeploymentsLevel-1)
		defer c.close()
		c.elect(c.members[0])
		c.settle()
		answer := begin(func() error {
			return c.members[0].Change(context.Background(), Registration(1, &recordv1.Deployment{Id: "v", Fingerprint: "f"}, 0))
		})
		if err, ok := answered(answer); !ok || !errors.Is(err, ErrInvalid) || !strings.Contains(err.Error(), "deployments are of level 2") {
			t.Errorf("%v %t", err, ok)
		}
	})
}

// TestTwoFilesAtTheBound: what is stored for a registration stays until it is made, however full the catalog is.
func TestTwoFilesAtTheBound(t *testing.T) {
	bubble(t, func(t *testing.T) {
		c, ask := catalogOf(t, 1)
		defer c.close()
		old := describeWith(1, make([]byte, 20<<20))
		if err := c.put(t, ask, 1, old); err != nil {
			t.Fatal(err)
		}
		first, second := describeWith(2, bytes.Repeat([]byte{1}, 30<<20)), describeWith(3, bytes.Repeat([]byte{2}, 16<<20))
		first.row.Files = append(first.row.Files, second.row.Files...)
		full := false
		for _, part := range append(parts(first), parts(second)...) {
			err := ask(part)
			if full = err != nil; full {
				if !errors.Is(err, ErrInvalid) || !strings.Contains(err.Error(), "is full") {
					t.Fatal(err)
				}
				break
			}
		}
		if !full { // the older one is run by a node
			t.Error("more than fits was stored")
		}
		if stored, bytes := c.members[0].View().Stored(first.row.Files[0]); stored != bytes || bytes == 0 {
			t.Errorf("of the first file there are %d of %d bytes", stored, bytes)
		}
	})
}
