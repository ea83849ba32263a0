// Package clusters measures a cluster of Perdure on this machine: what replication costs, how long callers wait when a
// node dies or comes, what idle partitions cost, and how fast a new replica is made.
package clusters

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"time"

	"google.golang.org/protobuf/encoding/protojson"

	"github.com/perdure/perdure/bench/internal/procfs"
	"github.com/perdure/perdure/bench/internal/system"
	adminv1 "github.com/perdure/perdure/proto/perdure/admin/v1"
)

// group is the nodes of one cluster, some of which may not run.
type group struct {
	nodes []*system.Node
	dir   string
}

// found starts the first running of count nodes, on empty directories, and waits until the cluster has come to rest.
func (b *Bench) found(ctx context.Context, name string, count, running, partitions int) (*group, error) {
	dir := filepath.Join(b.Dir, name)
	nodes, err := b.Perdure.Nodes(dir, count, partitions)
	if err != nil {
		return nil, err
	}
	g := &group{nodes, dir}
	for _, n := range nodes[:running] {
		if err := n.Start(ctx); err != nil {
			return nil, errors.Join(err, g.end())
		}
	}
	if err := g.settled(ctx, partitions); err != nil {
		return nil, errors.Join(err, g.end())
	}
	return g, nil
}

// end kills what runs, and removes its data.
func (g *group) end() error {
	for _, n := range g.nodes {
		n.Kill()
	}
	return os.RemoveAll(g.dir)
}

func (g *group) urls() (all []string) {
	for _, n := range g.nodes {
		all = append(all, "http://"+n.Addr)
	}
	return all
}

func (g *group) running() (all []*system.Node) {
	for _, n := range g.nodes {
		if n.Running() {
			all = append(all, n)
		}
	}
	return all
}

// restTimeout bounds how long a cluster may take until all copies are where they belong.
const restTimeout = 3 * time.Minute

// settled waits until every partition has its copies, and leaders are even, on all nodes that run.
func (g *group) settled(ctx context.Context, partitions int) error {
	ctx, cancel := context.WithTimeout(ctx, restTimeout)
	defer cancel()
	problem := "no node was asked"
	for {
		for _, n := range g.running() {
			state, err := ask(ctx, n.Addr)
			if err != nil {
				problem = err.Error()
			} else if problem = restless(state, len(g.running()), partitions); problem == "" {
				return nil
			}
		}
		select {
		case <-time.After(50 * time.Millisecond):
		case <-ctx.Done():
			return fmt.Errorf("the cluster does not come to rest: %s: %w", problem, context.Cause(ctx))
		}
	}
}

func ask(ctx context.Context, addr string) (*adminv1.GetClusterResponse, error) {
	ctx, cancel := context.WithTimeout(ctx, 3*time.Second)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://"+addr+"/perdure.admin.v1.ClusterService/GetCluster", strings.NewReader("{}"))
	if err != nil {
		return nil, err
	}
	request.Header.Set("Content-Type", "application/json")
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return nil, err
	}
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	if err != nil {
		return nil, err
	}
	if response.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("HTTP %d: %.200s", response.StatusCode, text)
	}
	state := &adminv1.GetClusterResponse{}
	return state, protojson.UnmarshalOptions{DiscardUnknown: true}.Unmarshal(text, state)
}

// restless is what is not as it should be, or "".
func restless(state *adminv1.GetClusterResponse, nodes, partitions int) string {
	if state.GetProblem() != "" {
		return state.GetProblem()
	}
	alive, fewest, most := 0, uint32(1<<31), uint32(0)
	for _, node := range state.GetNodes() {
		if node.GetHealth() == adminv1.NodeHealth_NODE_HEALTH_ALIVE {
			alive++
			fewest, most = min(fewest, node.GetLeads()), max(most, node.GetLeads())
		}
	}
	underway := 0
	for _, step := range state.GetSteps() { // those that ended lately too
		if step.GetEndedAt() == nil {
			underway++
		}
	}
	if alive != nodes || most > fewest+1 || underway > 0 {
		return fmt.Sprintf("%d of %d nodes answer and lead from %d to %d partitions, and %d steps are under way", alive, nodes, fewest, most, underway)
	}
	led := 0
	for _, p := range state.GetPartitions() {
		if p.GetId() == 0 {
			continue
		}
		copies := len(p.GetVoters()) + len(p.GetLearners())
		if p.GetLeader() != "" && copies == min(3, nodes) && len(p.GetOutgoing())+len(p.GetLagging()) == 0 {
			led++
		}
	}
	if led != partitions {
		return fmt.Sprintf("%d of %d partitions have their copies and a leader", led, partitions)
	}
	return ""
}

// use is what the nodes of a cluster and the machine have done until now.
type use struct {
	at       time.Time
	nodes    procfs.Process
	host     procfs.Host
	device   procfs.Device
	noDevice bool
	loopback int64 // bytes, of everybody
	packets  int64 // on the loopback device
}

func (g *group) use() (u use, err error) {
	for _, n := range g.running() {
		one, err := n.Usage()
		if err != nil {
			return u, fmt.Errorf("node %s is gone: %w", n.Addr, err)
		}
		u.nodes = u.nodes.Add(one)
	}
	if u.host, err = procfs.ReadHost(); err != nil {
		return u, err
	}
	if u.device, err = procfs.ReadDevice(g.dir); err != nil {
		u.noDevice = true
	}
	if u.loopback, u.packets, err = loopback(); err != nil {
		return u, err
	}
	u.at = time.Now()
	return u, nil
}

// loopback is how many bytes and packets the loopback device has carried.
func loopback() (bytes, packets int64, err error) {
	text, err := os.ReadFile("/proc/net/dev")
	if err != nil {
		return 0, 0, err
	}
	for line := range strings.Lines(string(text)) {
		if rest, ok := strings.CutPrefix(strings.TrimSpace(line), "lo:"); ok {
			if _, err := fmt.Sscan(rest, &bytes, &packets); err != nil {
				return 0, 0, fmt.Errorf("/proc/net/dev says %q: %w", line, err)
			}
			return bytes, packets, nil
		}
	}
	return 0, 0, errors.New("/proc/net/dev has no lo")
}

func sleep(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}
