package cluster

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/perdure/perdure/cluster/catalog"
	"github.com/perdure/perdure/cluster/replica"
	"github.com/perdure/perdure/internal/deployment"
	"github.com/perdure/perdure/internal/partition"
)

// counted is the listener of a group that is led for the sake of its rows alone.
type counted struct{ led chan struct{} }

func (c counted) Lead(uint64) {
	select {
	case <-c.led:
	default:
		close(c.led)
	}
}

func (counted) StepDown(uint64, error)   {}
func (counted) Committed(uint64, uint64) {}
func (counted) Applied(uint64, uint64)   {}

func (counted) LeaderChanged(uint64, uint64) {}

// takeCensus finds out what is kept, without the engine: no timer fires, no message is sent and no
// handler runs. The groups are led all the same, since only a leader knows that the store has all
// that was acknowledged. It opens log and store, and closes them.
func takeCensus(ctx context.Context, config Config, at *layout) (census deployment.Census, err error) {
	if config.InMemory {
		return deployment.Census{}, nil
	}
	e := &partitions{layout: at, logger: config.Logger}
	defer func() { err = errors.Join(err, e.release()) }()
	if err := e.openDisk(config, at); err != nil {
		return nil, err
	}
	if e.host, err = replica.Open(e.replicas(config, at)); err != nil {
		return nil, fmt.Errorf("%s with %s: %w", at.storeDir(), at.logDir(), err)
	}
	listeners, groups := map[uint32]counted{}, map[uint32]*replica.Group{}
	for id := range at.identity.Partitions {
		listeners[id+1] = counted{make(chan struct{})}
		groups[id+1] = e.host.Attach(replica.GroupID(id+1), listeners[id+1])
	}
	running, stop := context.WithCancel(context.WithoutCancel(ctx))
	ended := make(chan error, 1)
	go func() { ended <- e.host.Run(running) }()
	census = deployment.Census{}
	known := e.log.Groups()
	for id := uint32(1); id <= at.identity.Partitions && err == nil; id++ {
		if !slices.Contains(known, id) {
			continue // nothing of it was ever here
		}
		err = e.awaitLead(ctx, groups[id], listeners[id].led)
		if err == nil {
			err = partition.Census(groups[id].Snapshot(), census)
		}
		if err != nil {
			err = fmt.Errorf("partition %d: %w", id, err)
		}
	}
	stop()
	if failed := <-ended; failed != nil {
		err = errors.Join(err, failed)
	}
	return census, err
}

// awaitLead waits until a group is led here, or it is known that it needs others for that: only they
// know all that was acknowledged then, and their own start looks at what they have.
func (e *partitions) awaitLead(ctx context.Context, group *replica.Group, led <-chan struct{}) error {
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for {
		if needsOthers(group.Status(), e.layout.identity.raftID) {
			return nil
		}
		select {
		case <-led:
			return nil
		case <-tick.C: // a group that halts before it was ever led tells nobody
			if err := e.host.Halted()[group.ID()]; err != nil {
				return err
			}
			if err := e.host.DiskHealth(); err != nil {
				return err
			}
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// needsOthers is whether a node is not all that a group needs to be led. A host says nothing before
// it runs: then that is not known yet.
func needsOthers(status replica.GroupStatus, node uint64) bool {
	if status.Term == 0 {
		return false
	}
	return status.Commit == 0 || len(status.Outgoing) > 0 || len(status.Voters) != 1 || status.Voters[0] != node
}

// census is what is kept in the partitions that this node leads, for a node of the cluster that asks.
func (e *partitions) census(ctx context.Context) ([]byte, error) {
	var led []uint32
	kept := deployment.Census{}
	for i, listener := range e.led {
		id := uint32(i) + 1
		if listener.epoch.Load() == 0 || e.groups[id].ReadBarrier(ctx) != nil {
			continue // another node says so, if any
		}
		if err := partition.Census(e.groups[id].Snapshot(), kept); err != nil {
			return nil, fmt.Errorf("partition %d: %w", id, err)
		}
		if ctx.Err() != nil {
			return nil, context.Cause(ctx)
		}
		led = append(led, id)
	}
	return catalog.EncodeCensus(led, kept)
}
