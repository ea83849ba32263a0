package cluster

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"time"

	"github.com/perdure/perdure/cluster/membership"
	"github.com/perdure/perdure/cluster/placement"
	"github.com/perdure/perdure/cluster/recall"
	"github.com/perdure/perdure/cluster/registry"
	"github.com/perdure/perdure/cluster/transport"
	"github.com/perdure/perdure/internal/telemetry"
	"github.com/perdure/perdure/storage/nodelog"
	"github.com/perdure/perdure/storage/vfs"
)

// claims are what this node says of its log, and what it remembers of those of others.
type claims struct {
	recall.Book
	process uint64
	log     *nodelog.Log // of introduce, which comes before the transport runs
	// refused is a file in the data directory that says that it was: without it a copy that is started again
	// and again would grow until nobody remembers more. "" in memory.
	refused string
	// notedAt is when what living nodes have was noted last. Used by follow alone.
	notedAt time.Time
}

func newClaims(dir string) claims {
	return claims{process: max(rand.Uint64(), 1), refused: filepath.Join(dir, "refused")}
}

// stale stops a node whose data directory is older than what it has acknowledged, for good.
func (n *network) stale(cause error) {
	if _, err := os.Stat(filepath.Dir(n.claims.refused)); err == nil { // else the node is in memory
		if err := writeDurably(vfs.OS{}, n.claims.refused, []byte(cause.Error())); err != nil {
			n.logger.Error("it could not be written down that the data directory was refused", telemetry.KeyPath, n.claims.refused, telemetry.KeyError, err)
		}
	}
	n.fail(cause)
}

// own implements transport.Config.Log.
func (c *claims) own() transport.LogClaim {
	if c.log == nil {
		return transport.LogClaim{}
	}
	opened, durable := c.log.Frames()
	return transport.LogClaim{Process: c.process, Opened: opened, Durable: durable}
}

// noteRows takes what group 0 has of nodes. The error says that this node itself is one whose data is older
// than that.
func (c *claims) noteRows(view *registry.View, self uint64) error {
	for _, row := range view.Nodes {
		c.Note(row.ID, row.Log)
	}
	return c.Check(self, c.own())
}

// How long a start waits for the opinion of nodes that don't answer: of those that gossip takes for alive and
// started, and of the rest, which is down or starts too. Those that are reached later refuse as well.
const (
	introductionPatience = 5 * time.Second
	absentPatience       = 500 * time.Millisecond
)

// introduce says to the other nodes what this one's log has, before any of it is used, and returns an error
// if one of them knows that it had more.
func (n *network) introduce(ctx context.Context, log *nodelog.Log) error {
	n.claims.log = log
	view := n.registry.View()
	if err := n.claims.noteRows(view, n.nodeID); err != nil {
		n.stale(err)
		return context.Cause(n.part)
	}
	if err := n.askAll(ctx, view); err != nil {
		return err
	}
	// A frame of this process alone: two processes on copies of one directory then never say the same. On a full
	// disk there is none, and nothing that could be acknowledged either.
	err := log.Append([]nodelog.GroupWrite{{Group: 0, State: log.State(0)}})
	if err != nil && !errors.Is(err, nodelog.ErrNoSpace) {
		return fmt.Errorf("note the start in the log: %w", err)
	}
	return nil
}

// askAll asks every node that is known whether it refuses this one.
func (n *network) askAll(ctx context.Context, view *registry.View) error {
	asking, cancel := context.WithTimeout(ctx, introductionPatience)
	var group sync.WaitGroup
	defer group.Wait()
	defer cancel()
	var mu sync.Mutex
	pending := map[uint64]bool{}
	var refused *transport.Refused
	ask := func(to uint64, address string) {
		mu.Lock()
		defer mu.Unlock()
		if _, asked := pending[to]; asked || to == n.nodeID || address == "" {
			return
		}
		pending[to] = true
		group.Go(func() {
			err := n.ask(asking, to, address)
			mu.Lock()
			defer mu.Unlock()
			pending[to] = false
			if said, ok := errors.AsType[*transport.Refused](err); ok && said.Reason == transport.ReasonStale {
				refused = said
			}
		})
	}
	began := time.Now()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for {
		awaited := map[uint64]bool{}
		for _, member := range n.gossip.Members() {
			if member.State == membership.Alive && member.Transport != "" {
				ask(member.NodeID, member.Transport)
				awaited[member.NodeID] = !member.Starting
			}
		}
		for _, node := range view.Nodes { // where gossip knows nothing better
			if node.State != placement.Removed {
				ask(node.ID, node.Transport)
			}
		}
		mu.Lock()
		said, left := refused, maps.Clone(pending)
		mu.Unlock()
		if said != nil {
			n.stale(said)
			return context.Cause(n.part)
		}
		done := true
		for node, waits := range left {
			done = done && (!waits || !awaited[node] && time.Since(began) > absentPatience)
		}
		if done {
			return nil
		}
		select {
		case <-tick.C:
		case <-asking.Done():
			return nil
		}
	}
}

// ask asks a node until it answers, or nobody is there, or ctx ends.
func (n *network) ask(ctx context.Context, to uint64, address string) error {
	for {
		_, err := n.carrier.Ask(ctx, to, address, methodRecall, nil)
		_, answered := errors.AsType[*transport.Error](err)
		_, refused := errors.AsType[*transport.Refused](err)
		if err == nil || answered || refused || errors.Is(err, syscall.ECONNREFUSED) {
			return err
		}
		select {
		case <-time.After(50 * time.Millisecond):
		case <-ctx.Done():
			return err
		}
	}
}

// noteEvery is how often what living nodes have is noted.
const noteEvery = time.Minute

// note writes down what a node's log has, if this node leads group 0 and group 0 does not know: of each
// process once, when the node is gone, and from time to time.
func (n *network) note(ctx context.Context, view *registry.View, node uint64, gone, again bool) error {
	row, admitted := view.Node(node)
	said, ok := n.claims.Of(node)
	if !admitted || !ok || row.State == placement.Removed || !recall.Noteworthy(row.Log, said, gone, again) {
		return nil
	}
	trying, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	return n.registry.Recall(trying, node, said)
}
