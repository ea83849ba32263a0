package catalog

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"

	"google.golang.org/protobuf/proto"

	"github.com/perdure/perdure/internal/deployment"
	recordv1 "github.com/perdure/perdure/internal/record/v1"
)

// EncodeCensus writes what a node knows to be kept in the partitions that it leads.
func EncodeCensus(partitions []uint32, census deployment.Census) ([]byte, error) {
	out := &recordv1.ClusterCensus{Partitions: partitions}
	for _, name := range slices.Sorted(maps.Keys(census)) {
		kept := census[name]
		out.Services = append(out.Services, &recordv1.ClusterCensus_Service{
			Name: name, States: kept.States, Rows: kept.Rows, Promises: kept.Promises, Signals: kept.Signals,
			InFlight: wired(kept.InFlight), Schedules: wired(kept.Schedules), Prepared: uint64(kept.Prepared),
		})
	}
	return proto.Marshal(out)
}

func wired(counts map[string]int) map[string]uint64 {
	out := make(map[string]uint64, len(counts))
	for name, count := range counts {
		out[name] = uint64(count)
	}
	return out
}

// Census asks nodes for what they keep, each for the partitions that it leads, and fails unless all partitions, from 1
// on, are among those.
func Census(ctx context.Context, nodes []uint64, partitions uint32, ask func(ctx context.Context, node uint64) ([]byte, error)) (deployment.Census, error) {
	answers, failures := make([]*recordv1.ClusterCensus, len(nodes)), make([]error, len(nodes))
	var asking sync.WaitGroup
	for i, node := range nodes {
		asking.Go(func() {
			data, err := ask(ctx, node)
			answer := &recordv1.ClusterCensus{}
			if err == nil {
				err = proto.Unmarshal(data, answer)
			}
			if err != nil {
				failures[i] = fmt.Errorf("node %016x: %w", node, err)
				return
			}
			answers[i] = answer
		})
	}
	asking.Wait()
	all, told := deployment.Census{}, map[uint32]bool{}
	for _, answer := range answers {
		for _, id := range answer.GetPartitions() {
			told[id] = true
		}
		for _, service := range answer.GetServices() {
			kept := all.Of(service.Name)
			kept.States, kept.Rows = kept.States || service.States, kept.Rows || service.Rows
			kept.Promises, kept.Signals = kept.Promises || service.Promises, kept.Signals || service.Signals
			for handler, count := range service.InFlight {
				kept.InFlight[handler] += int(count)
			}
			for handler, count := range service.Schedules {
				kept.Schedules[handler] += int(count)
			}
			kept.Prepared += int(service.Prepared)
		}
	}
	for id := uint32(1); id <= partitions; id++ {
		if !told[id] {
			return nil, fmt.Errorf("no node that answers leads partition %d: %w", id, errors.Join(append(failures, errNobody)...))
		}
	}
	return all, nil
}

var errNobody = errors.New("see perdure cluster status")
