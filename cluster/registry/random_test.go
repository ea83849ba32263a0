package registry

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"testing"
	"testing/synctest"

	"google.golang.org/protobuf/proto"
	"pgregory.net/rapid"

	"github.com/perdure/perdure/cluster/placement"
	recordv1 "github.com/perdure/perdure/internal/record/v1"
	"github.com/perdure/perdure/storage"
)

// TestRandomLeaderships asks for changes while leaderships come and go at any point, records that
// were proposed are lost or survive, replicas lag and nodes restart with other versions. What is
// acknowledged is in the log, what is refused is not, and every prefix of the log is sound.
func TestRandomLeaderships(t *testing.T) {
	// Without the deadline, which must not be asked for in a bubble.
	bubble(t, func(t *testing.T) { rapid.Check(struct{ testing.TB }{t}, randomLeaderships) })
}

func randomLeaderships(t *rapid.T) {
	c := newCluster(t, 1, 1, 1, 2)
	defer c.close()
	type asked struct {
		zone   string // which no other change has; "" for other kinds
		answer <-chan error
	}
	var asking []asked
	pick := func() *member { return c.members[rapid.IntRange(0, len(c.members)-1).Draw(t, "member")] }
	for i := range rapid.IntRange(1, 60).Draw(t, "events") {
		switch rapid.SampledFrom([]string{"elect", "elect", "depose", "overthrow", "commit", "commit", "apply", "apply", "admit", "admit", "admit", "register", "register", "status", "state", "limit", "restart", "backlog"}).Draw(t, "event") {
		case "elect":
			c.elect(pick())
		case "depose":
			c.depose(rapid.IntRange(0, 3).Draw(t, "survive"))
		case "overthrow":
			c.overthrow(rapid.IntRange(0, 3).Draw(t, "survive"))
		case "commit":
			c.commit(rapid.IntRange(1, 3).Draw(t, "records"))
		case "apply":
			pick().apply(rapid.IntRange(1, 3).Draw(t, "records"))
		case "admit":
			m, node := pick(), pick().self(uint32(rapid.IntRange(1, 3).Draw(t, "level")))
			node.Zone = fmt.Sprintf("zone %d", i)
			asking = append(asking, asked{node.Zone, begin(func() error { return m.Admit(context.Background(), node) })})
		case "register":
			m, node := pick(), pick().id
			told := describe(rapid.IntRange(0, 5).Draw(t, "deployment"))
			page := pick().View().Catalog
			asking = append(asking, asked{"", begin(func() error {
				for _, part := range parts(told) {
					if err := m.Change(context.Background(), part); err != nil {
						return err
					}
				}
				return m.Change(context.Background(), Registration(node, told.row, page))
			})})
		case "status":
			m, id := pick(), describe(rapid.IntRange(0, 5).Draw(t, "deployment")).row.Id
			to := recordv1.DeploymentStatus(rapid.IntRange(1, 3).Draw(t, "status"))
			asking = append(asking, asked{"", begin(func() error { return m.Change(context.Background(), DeploymentChange(id, to)) })})
		case "state":
			m, id := pick(), pick().id
			to := rapid.SampledFrom([]placement.State{placement.Active, placement.Draining, placement.Draining, placement.Removed}).Draw(t, "state")
			asking = append(asking, asked{"", begin(func() error { return m.SetNodeState(context.Background(), id, to) })})
		case "limit":
			m, limit := pick(), rapid.IntRange(0, 3).Draw(t, "limit")
			asking = append(asking, asked{"", begin(func() error {
				return m.SetSetting(context.Background(), SettingFeatureLevelLimit, strconv.Itoa(limit))
			})})
		case "restart":
			m := pick()
			if c.lead == m {
				c.overthrow(rapid.IntRange(0, 2).Draw(t, "survive"))
			}
			if c.owed != nil {
				c.owed()
			}
			m.stop()
			synctest.Wait()
			m.start(uint32(rapid.IntRange(1, 3).Draw(t, "level")))
		case "backlog":
			c.setBacklog(!c.backlog)
			pick().Applied(c.epoch, 0)
		}
	}
	c.setBacklog(false)
	for _, m := range c.members {
		m.Applied(c.epoch, 0)
	}
	c.settle()
	c.depose(0)
	c.settle()
	c.check()

	logged := map[string]bool{}
	for _, e := range c.log {
		_ = storage.DecodeBatch(e.payload, func(op storage.Op) {
			if node := (&recordv1.ClusterNode{}); op.Key[0] == rowNode && proto.Unmarshal(op.Value, node) == nil {
				logged[node.Zone] = true
			}
		})
	}
	for _, a := range asking {
		err, ok := answered(a.answer)
		switch {
		case !ok:
			t.Fatalf("somebody has no answer")
		case a.zone == "":
		case err == nil && !logged[a.zone]:
			t.Fatalf("%s was acknowledged and is lost", a.zone)
		case err != nil && !errors.Is(err, ErrUnknownOutcome) && logged[a.zone]:
			t.Fatalf("%s was refused and is there: %v", a.zone, err)
		}
	}
}
